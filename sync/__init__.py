"""The engine: what a change means and what a cursor has not seen.

Pure. No I/O, no clock, no randomness, no logging: time and chance are arguments.
Read it in this order: `clock`, `changes`, `fields`, `records`, `plan`, `deltas`.
"""
