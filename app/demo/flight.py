"""What the crew types while they can't see each other: plain SQL, each statement one change."""

from __future__ import annotations

from typing import Final

# Ada stays on the ground, online: her changes are there when the others come back.
ADA: Final = (
    "UPDATE airports SET elevation = round(elevation * 0.3048) WHERE country = 'CA'",
    "UPDATE airports SET votes = votes + 1 WHERE icao = 'LPMA'",
    "INSERT INTO notes VALUES ('a1', 'LPMA', 'Ada', 'Wind limits were raised')",
)
# Chloe's clock is a year ahead. She writes first.
CHLOE: Final = (
    "UPDATE airports SET elevation = 1486 WHERE icao = 'EDDM'",
    "UPDATE airports SET name = 'London City' WHERE icao = 'EGLC'",
    "UPDATE airports SET city = 'Cuzco' WHERE icao = 'SPZO'",
    "UPDATE airports SET votes = votes + 3 WHERE icao = 'LPMA'",
    "UPDATE airports SET tags = '[]' WHERE icao = 'VQPR'",
    "UPDATE airports SET tags = '[\"daylight\", \"mountain\"]' WHERE icao = 'VQPR'",
    "UPDATE airports SET city = 'Samedan' WHERE icao = 'LSZS'",
    "DELETE FROM airports WHERE icao = 'NZQN'",
    "INSERT INTO airports (icao, name) VALUES ('NZQN', 'Queenstown')",
    "INSERT INTO airports (icao, name) VALUES ('LOWX', 'Zell am See')",
    "INSERT INTO notes VALUES ('c1', 'VQPR', 'Chloe', 'Last departure at 17:00')",
)
# Ben writes later, by a clock that is right. His half a vote is no whole number.
BEN: Final = (
    "UPDATE airports SET name = 'Munich' WHERE icao = 'EDDM'",
    "UPDATE airports SET name = 'London City (steep)' WHERE icao = 'EGLC'",
    "UPDATE airports SET city = 'Cuzco' WHERE icao = 'SPZO'",
    "UPDATE airports SET votes = votes + 1 WHERE icao IN ('LPMA', 'NZQN')",
    "UPDATE airports SET votes = votes + 0.5 WHERE icao = 'LFMN'",
    "UPDATE airports SET votes = votes + 1 WHERE icao = 'LPMA'",
    "UPDATE airports SET tags = '[\"visual only\"]' WHERE icao = 'VQPR'",
    "UPDATE airports SET name = 'Vancouver' WHERE icao = 'CYVR'",
    "DELETE FROM airports WHERE icao = 'LSZS'",
    "DELETE FROM airports WHERE icao = 'EGPR'",
    "INSERT INTO airports (icao, name) VALUES ('LOWX', 'Glacier strip')",
)
# Airports that the story needs, however few are asked for.
NAMED: Final = frozenset(
    ("CYVR", "EDDM", "EGLC", "EGPR", "LFMN", "LPMA", "LSZS", "NZQN", "SPZO", "VQPR")
)
