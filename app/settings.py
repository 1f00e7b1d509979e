"""The environment, read once: refused where it is nonsense, frozen where it is not.

Promises: the table in `app.settings_table` is all that can be set. Parsing, docs/SETTINGS.md and
`python -m app settings` all come from it; a test holds the page to it. An unknown `REJOIN_…` name
is refused, so a misspelt setting never passes for a default. Nothing secret is printed.
"""

from __future__ import annotations

import difflib
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from app.settings_table import ALL, ELSEWHERE, LIMITS, ROOT, SETTINGS, Setting
from sync.limits import Limits

__all__ = ["ALL", "ROOT", "Settings", "SettingsError", "described", "kept_secret"]

HIDDEN: Final = "(hidden)"


class SettingsError(ValueError):
    """The environment can't be used; the text says what to write instead."""


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
    live_sockets: int
    redis_url: str | None
    support_email: str
    support_password: str | None
    support_sees_values: bool
    min_app_version: str
    trusted_proxies: int
    log_level: str
    demo: bool
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
        values["demo"] = not production if values["demo"] is None else values["demo"]
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
    """A database URL fit to be printed. Where it is doubtful it hides more, never less."""
    hidden = re.sub(r"(://[^:@/?]*):.*@", rf"\1:{HIDDEN}@", url)
    return re.sub(r"(password=)[^&]*", rf"\1{HIDDEN}", hidden)


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
        if name.startswith("REJOIN_") and name not in known and not name.startswith(ELSEWHERE):
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
