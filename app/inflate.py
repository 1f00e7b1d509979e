"""Decompressing what strangers send.

Promise: no more than the bytes asked for are ever made, so a bomb costs what an honest body costs;
what is cut, garbled or followed by more is refused, never guessed at.

Sources: RFC 1952 (gzip), RFC 8878 and 9659 (zstd).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from backports import zstd

from sync.errors import BadRequest, TooLarge

# RFC 9659: what a decoder of `Content-Encoding: zstd` must be able to hold, and need not exceed.
ZSTD_WINDOW_LOG: Final = 23


def inflated(coding: str, chunks: Iterator[bytes], most: int) -> bytes:
    """The body, sent in the coding gzip, zstd or identity; at most `most` bytes of it.

    Raises TooLarge, BadRequest("bad_encoding").
    """
    if coding == "identity":
        return b"".join(chunks)
    try:
        return _gunzipped(chunks, most) if coding == "gzip" else _unzstd(chunks, most)
    except (zlib.error, zstd.ZstdError, EOFError, MemoryError) as error:
        raise BadRequest("bad_encoding") from error


def too_large(most: int) -> TooLarge:
    """The error for a body of more than `most` bytes."""
    return TooLarge("body_too_large", limit=most)


def _gunzipped(chunks: Iterator[bytes], most: int) -> bytes:
    inflater = zlib.decompressobj(wbits=31)
    out = bytearray()
    for chunk in chunks:
        if inflater.eof:
            raise BadRequest("bad_encoding", "Data follow the end of the gzip stream.")
        # One byte more than allowed is enough to know; 0 would mean without a bound.
        out += inflater.decompress(chunk, most - len(out) + 1)
        if len(out) > most:
            raise too_large(most)
    if not inflater.eof or inflater.unused_data:
        raise BadRequest("bad_encoding", "The gzip stream does not end where the body does.")
    return bytes(out)


def _unzstd(chunks: Iterator[bytes], most: int) -> bytes:
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
    inflater = zstd.ZstdDecompressor(options=options)
    out = bytearray()
    for chunk in chunks:
        if inflater.eof:
            raise BadRequest("bad_encoding", "Data follow the end of the zstd frame.")
        out += inflater.decompress(chunk, most - len(out) + 1)
        if len(out) > most:
            raise too_large(most)
    if not inflater.eof or inflater.unused_data:
        raise BadRequest("bad_encoding", "The zstd frame does not end where the body does.")
    return bytes(out)
