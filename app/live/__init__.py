"""Websockets: devices that are online, and editors of documents."""
