"""The one table of what can be set: names, how they are read, defaults, and what they do.

The order is that of docs/SETTINGS.md and of `python -m app settings`. A reader raises ValueError
with what to write.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sync.limits import Limits

ROOT: Final = Path(__file__).resolve().parent.parent
LIMIT_PREFIX: Final = "REJOIN_LIMIT_"
SECRET_CHARS_MIN: Final = 32
PASSWORD_CHARS_MIN: Final = 8


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table. `default` is the text that parses to the default; "" is none."""

    name: str
    field: str
    parse: Callable[[str], object]
    default: str
    doc: str
    secret: bool = False


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text[:20]) <= high):
            raise ValueError(f"write a whole number from {low} to {high}")
        return int(text)

    return parse


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"write one of {', '.join(words)}")
        return text.lower()

    return parse


def _on_off(text: str) -> bool:
    return _one_of("on", "off")(text) == "on"


def _on_off_or_none(text: str) -> bool | None:
    return _on_off(text) if text else None


def _database_url(text: str) -> str | None:
    if not text:
        return None
    if urlsplit(text).scheme not in {"postgres", "postgresql", "postgresql+psycopg"}:
        raise ValueError("write an address such as postgresql://user:password@host:5432/name")
    return text


def _redis_url(text: str) -> str | None:
    if text and urlsplit(text).scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("write an address such as redis://127.0.0.1:6379")
    return text or None


def _host(text: str) -> str:
    if any(letter.isspace() or letter == "/" for letter in text):
        raise ValueError("write a name or an address, such as 127.0.0.1")
    return text


def _data(text: str) -> Path:
    return (ROOT / Path(text).expanduser()).resolve()


def _bin(text: str) -> Path | None:
    if not text:
        return None
    folder = Path(text).expanduser().resolve()
    if not ((folder / "initdb").exists() and (folder / "postgres").exists()):
        raise ValueError(
            "write the folder that holds initdb and postgres, such as what"
            " `pg_config --bindir` prints"
        )
    return folder


def _secret(text: str) -> str:
    if text and len(text) < SECRET_CHARS_MIN:
        raise ValueError(f"write at least {SECRET_CHARS_MIN} characters")
    return text


def _email(text: str) -> str:
    name, at, place = text.partition("@")
    if not (name and at and place) or any(letter.isspace() for letter in text):
        raise ValueError("write an address such as support@example.org")
    return text


def _password(text: str) -> str | None:
    if text and len(text) < PASSWORD_CHARS_MIN:
        raise ValueError(f"write at least {PASSWORD_CHARS_MIN} characters")
    return text or None


def _version(text: str) -> str:
    if text and not re.fullmatch(r"\d{1,9}(\.\d{1,9}){0,9}", text, re.ASCII):
        raise ValueError("write numbers between dots, such as 4.2.0")
    return text


SETTINGS: Final = (
    Setting("PORT", "port", _whole(1, 65_535), "8000", "The port that the server listens on."),
    Setting(
        "DATABASE_URL",
        "database_url",
        _database_url,
        "",
        "PostgreSQL 14 or newer. Without it, development runs an embedded PostgreSQL in the data"
        " folder; production refuses to start.",
    ),
    Setting(
        "WEB_CONCURRENCY",
        "web_concurrency",
        _whole(1, 128),
        "2",
        "Worker processes. Each serves thousands of connections; one or two for each core.",
    ),
    Setting(
        "REJOIN_ENV",
        "env",
        _one_of("development", "production"),
        "development",
        "In `development` missing secrets are made and kept in the data folder; in `production`"
        " nothing is made up. The Procfile says `production` unless the platform says otherwise.",
    ),
    Setting(
        "REJOIN_HOST",
        "host",
        _host,
        "",
        "The address to listen on. None: 127.0.0.1 in development, 0.0.0.0 in production.",
    ),
    Setting(
        "REJOIN_DATA",
        "data",
        _data,
        ".rejoin",
        "The data folder: the embedded PostgreSQL and the secrets made in development. Relative"
        " to the project. Two servers side by side need two of them.",
    ),
    Setting(
        "REJOIN_SECRET",
        "secret",
        _secret,
        "",
        "Signs the access tokens: 32 characters or more. Development makes one on the first run;"
        " production refuses to start without it. Changing it ends all access tokens.",
        secret=True,
    ),
    Setting(
        "REJOIN_RATE_LIMITS",
        "rate_limits",
        _on_off,
        "on",
        "`off` lifts the limits on how often one may ask; for tests and benchmarks.",
    ),
    Setting(
        "REJOIN_POSTGRES_BIN",
        "postgres_bin",
        _bin,
        "",
        "A folder with initdb and postgres (`pg_config --bindir`) to run as the embedded server in"
        " place of the one that is installed with the project.",
    ),
    Setting(
        "REJOIN_POOL_SIZE",
        "pool_size",
        _whole(1, 100),
        "10",
        "Database connections of each worker, at most.",
    ),
    Setting(
        "REJOIN_ACCESS_TOKEN_SECONDS",
        "access_token_seconds",
        _whole(10, 86_400),
        "900",
        "How long an access token lives.",
    ),
    Setting(
        "REJOIN_REFRESH_TOKEN_DAYS",
        "refresh_token_days",
        _whole(1, 3_650),
        "180",
        "How long a refresh token lives after its last use: phones stay offline for weeks.",
    ),
    Setting(
        "REJOIN_TOMBSTONE_DAYS",
        "tombstone_days",
        _whole(1, 3_650),
        "90",
        "How long a deletion is remembered. A device away for longer reads the space anew.",
    ),
    Setting(
        "REJOIN_LIVE_SOCKETS",
        "live_sockets",
        _whole(1, 100_000),
        "5000",
        "Websockets of each worker, at most. Past it new ones are answered 503, while HTTP goes"
        " on. Each takes a file descriptor and up to 36 KB.",
    ),
    Setting(
        "REDIS_URL",
        "redis_url",
        _redis_url,
        "",
        "A Redis to carry the hints between workers in place of PostgreSQL's NOTIFY, such as"
        " redis://127.0.0.1:6379.",
        secret=True,
    ),
    Setting(
        "REJOIN_SUPPORT_EMAIL",
        "support_email",
        _email,
        "support@rejoin.local",
        "The account of the support staff, made at the first start.",
    ),
    Setting(
        "REJOIN_SUPPORT_PASSWORD",
        "support_password",
        _password,
        "",
        "Its password: 8 characters or more. Development makes one on the first run and keeps it"
        " in the data folder; without one, production makes no such account.",
        secret=True,
    ),
    Setting(
        "REJOIN_SUPPORT_SEES_VALUES",
        "support_sees_values",
        _on_off,
        "off",
        "`on` lets the role `support` open what customers wrote; each opening is audited. `off`"
        " shows it names, sizes and hashes. The role `admin` may open values either way.",
    ),
    Setting(
        "REJOIN_MIN_APP_VERSION",
        "min_app_version",
        _version,
        "",
        "Apps below this version are a finding for support staff, such as `4.2.0`. None: any is"
        " fine. Nothing is refused for it.",
    ),
    Setting(
        "REJOIN_TRUSTED_PROXIES",
        "trusted_proxies",
        _whole(0, 10),
        "0",
        "How many proxies stand before the server: as many X-Forwarded-For hops are believed."
        " With a proxy and 0 here, all users share its address, and the limits on it.",
    ),
    Setting(
        "REJOIN_LOG_LEVEL",
        "log_level",
        _one_of("debug", "info", "warning", "error", "critical"),
        "info",
        "The least severe message that is logged.",
    ),
    Setting(
        "REJOIN_DEMO",
        "demo",
        _on_off_or_none,
        "",
        "Whether `/demo` is served, a page with two devices of an account that it makes for itself."
        " None: on in development, off in production.",
    ),
)

LIMITS: Final = tuple(
    Setting(
        LIMIT_PREFIX + field.name.upper(),
        field.name,
        _whole(1, 2**40),
        str(field.default),
        f"At most: {field.metadata['doc']}.",
    )
    for field in dataclasses.fields(Limits)
)

ALL: Final = SETTINGS + LIMITS

# Names in the same space that others read: gunicorn.conf.py, the device's command line, the tests.
ELSEWHERE: Final = (
    "REJOIN_PARENT",
    "REJOIN_PASSWORD",
    "REJOIN_MUTANT",
    "REJOIN_SOAK_",
    "REJOIN_TEST_",
)
