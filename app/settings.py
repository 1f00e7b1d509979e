"""The environment, read once: refused where it is nonsense, frozen where it is not.

Promises: `SETTINGS` is the one table of what can be set. Parsing, `python -m app settings` and
docs/SETTINGS.md all come from it; a test holds the page to it. An unknown `REJOIN_…` name is
refused, so a misspelt setting never passes for a default. Nothing secret is printed.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import secrets
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit, urlunsplit

from sync.limits import Limits

ROOT: Final = Path(__file__).resolve().parent.parent
LIMIT_PREFIX: Final = "REJOIN_LIMIT_"
SECRET_CHARS_MIN: Final = 32
HIDDEN: Final = "(hidden)"


class SettingsError(ValueError):
    """The environment can't be used; the text says what to write instead."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table. `default` is the text that parses to the default; "" is none."""

    name: str
    field: str
    parse: Callable[[str], object]
    default: str
    doc: str
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """What is in force. `database_url` None means the embedded server; `host` is never empty."""

    port: int
    database_url: str | None
    web_concurrency: int
    env: str
    host: str
    data: Path
    secret: str
    rate_limits: bool
    postgres_bin: Path | None
    pool_size: int
    access_token_seconds: int
    refresh_token_days: int
    tombstone_days: int
    support_email: str
    support_password: str | None
    trusted_proxies: int
    log_level: str
    limits: Limits

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read the environment; raises SettingsError.

        In development this makes, on the first run, the secrets that nobody has set and keeps
        them in the data folder. In production it makes nothing.
        """
        _refuse_unknown(environ)
        values: dict[str, Any] = {row.field: _read(row, environ) for row in SETTINGS}
        limits: dict[str, Any] = {row.field: _read(row, environ) for row in LIMITS}
        values["limits"] = Limits(**limits)
        production = values["env"] == "production"
        values["host"] = values["host"] or ("0.0.0.0" if production else "127.0.0.1")  # noqa: S104
        if production:
            _refuse_unready(values)
        else:
            _keep_secrets(values)
        return cls(**values)

    @property
    def production(self) -> bool:
        """Whether the server faces the world: nothing is made up, nothing secret is shown."""
        return self.env == "production"


def described(settings: Settings) -> list[tuple[str, str]]:
    """(name, value in force) of every setting, in the table's order, secrets hidden."""
    rows = [(row, getattr(settings, row.field)) for row in SETTINGS]
    rows += [(row, getattr(settings.limits, row.field)) for row in LIMITS]
    return [(row.name, _shown(row, value)) for row, value in rows]


def kept_secret(data: Path, name: str, make: Callable[[], str]) -> str:
    """The secret in the file `data/name`, made on the first call; mode 600.

    Several processes may ask at once and get the same: the file appears whole, by a link that
    fails where there is one already.
    """
    path = data / name
    if not path.exists():
        data.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=data, prefix=f".{name}.")
        with os.fdopen(descriptor, "w") as file:
            file.write(make())
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            pass
        finally:
            Path(draft).unlink()
    return path.read_text().strip()


def without_password(url: str) -> str:
    """A database URL fit to be printed."""
    parts = urlsplit(url)
    if parts.password is None and "password" not in parts.query:
        return url
    user = f"{parts.username}:{HIDDEN}@" if parts.username else f":{HIDDEN}@"
    place = user + parts.netloc.rpartition("@")[2] if parts.password is not None else parts.netloc
    query = "&".join(_without_password(pair) for pair in parts.query.split("&") if pair)
    return urlunsplit(parts._replace(netloc=place, query=query))


def _without_password(pair: str) -> str:
    key, _, _ = pair.partition("=")
    return f"{key}={HIDDEN}" if "password" in key else pair


def _shown(row: Setting, value: object) -> str:
    if value is None:
        return "(none)"
    if row.secret:
        return HIDDEN
    if isinstance(value, bool):
        return "on" if value else "off"
    return without_password(str(value)) if row.field == "database_url" else str(value)


def _read(row: Setting, environ: Mapping[str, str]) -> object:
    # An empty value is how a platform's form says "not set".
    text = environ.get(row.name, "").strip() or row.default
    try:
        return row.parse(text)
    except ValueError as error:
        shown = HIDDEN if row.secret or row.field == "database_url" else repr(text)
        raise SettingsError(f"{row.name} is {shown}: {error}.") from None


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = [row.name for row in ALL]
    for name in environ:
        if name.startswith("REJOIN_") and name not in known and name not in ELSEWHERE:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise SettingsError(f"There is no setting {name}. Did you mean {near}?")


def _refuse_unready(values: Mapping[str, object]) -> None:
    if not values["secret"]:
        raise SettingsError(
            "REJOIN_SECRET is not set: production needs a secret of its own to sign tokens with."
            " Write one of 32 characters or more, for example what"
            " `python -c 'import secrets; print(secrets.token_urlsafe(48))'` prints."
        )
    if values["database_url"] is None:
        raise SettingsError(
            "DATABASE_URL is not set: production needs a PostgreSQL of its own, for example"
            " DATABASE_URL=postgresql://user:password@host:5432/rejoin."
        )


def _keep_secrets(values: dict[str, Any]) -> None:
    data: Path = values["data"]
    if not values["secret"]:
        values["secret"] = kept_secret(data, "secret", lambda: secrets.token_urlsafe(48))
    if not values["support_password"]:
        values["support_password"] = kept_secret(
            data, "support-password", lambda: secrets.token_urlsafe(12)
        )


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


def _database_url(text: str) -> str | None:
    if not text:
        return None
    if urlsplit(text).scheme not in {"postgres", "postgresql", "postgresql+psycopg"}:
        raise ValueError("write an address such as postgresql://user:password@host:5432/name")
    return text


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
    if text and len(text) < 8:
        raise ValueError("write at least 8 characters")
    return text or None


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
        "REJOIN_TRUSTED_PROXIES",
        "trusted_proxies",
        _whole(0, 10),
        "0",
        "How many proxies stand before the server: as many X-Forwarded-For hops are believed.",
    ),
    Setting(
        "REJOIN_LOG_LEVEL",
        "log_level",
        _one_of("debug", "info", "warning", "error", "critical"),
        "info",
        "The least severe message that is logged.",
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

# Names in the same space that other programs of the project read.
ELSEWHERE: Final = frozenset(
    {"REJOIN_PARENT", "REJOIN_TEST_DATABASE_URL", "REJOIN_TEST_POSTGRES_BIN"}
)
