"""The environment is read once, refused where it is nonsense, and never shown with its secrets."""

from __future__ import annotations

import dataclasses
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.__main__ import main
from app.settings import Settings, SettingsError, described, kept_secret, without_password
from app.settings_table import ALL, LIMITS, ROOT, SETTINGS
from sync.limits import Limits

SECRET = "s" * 40
PRODUCTION = {
    "REJOIN_ENV": "production",
    "REJOIN_SECRET": SECRET,
    "DATABASE_URL": "postgres://app:hush@db.example/rejoin",
}


@pytest.fixture
def given(tmp_path: Path) -> dict[str, str]:
    return {"REJOIN_DATA": str(tmp_path / "data"), "REJOIN_SECRET": SECRET}


def test_nothing_set_gives_the_documented_defaults(tmp_path: Path) -> None:
    settings = Settings.from_environ({"REJOIN_DATA": str(tmp_path)})
    assert (settings.port, settings.host, settings.web_concurrency) == (8000, "127.0.0.1", 2)
    assert (settings.database_url, settings.postgres_bin) == (None, None)
    assert (settings.access_token_seconds, settings.refresh_token_days) == (900, 180)
    assert (settings.tombstone_days, settings.trusted_proxies) == (90, 0)
    assert settings.rate_limits is True
    assert settings.limits == Limits()


def test_each_setting_has_a_field_and_each_field_a_setting() -> None:
    fields = {field.name for field in dataclasses.fields(Settings)} - {"limits"}
    assert {row.field for row in SETTINGS} == fields
    assert [row.name for row in LIMITS] == [
        f"REJOIN_LIMIT_{field.name.upper()}" for field in dataclasses.fields(Limits)
    ]


def test_a_limit_is_set_by_its_name(given: dict[str, str]) -> None:
    settings = Settings.from_environ(given | {"REJOIN_LIMIT_PAGE_RECORDS": "7"})
    assert settings.limits == Limits(page_records=7)


def test_the_settings_are_frozen(given: dict[str, str]) -> None:
    settings = Settings.from_environ(given)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("PORT", "http", "a whole number from 1 to 65535"),
        ("PORT", "0", "a whole number from 1 to 65535"),
        ("PORT", "8" * 5000, "a whole number"),
        ("PORT", "８０", "a whole number"),
        ("WEB_CONCURRENCY", "0", "a whole number from 1"),
        ("WEB_CONCURRENCY", "-1", "a whole number from 1"),
        ("DATABASE_URL", "mysql://db/rejoin", "postgresql://user:password@host:5432/name"),
        ("DATABASE_URL", "localhost", "postgresql://user:password@host:5432/name"),
        ("REJOIN_ENV", "staging", "one of development, production"),
        ("REJOIN_HOST", "a b", "such as 127.0.0.1"),
        ("REJOIN_SECRET", "short", "at least 32 characters"),
        ("REJOIN_RATE_LIMITS", "perhaps", "one of on, off"),
        ("REJOIN_POSTGRES_BIN", "/nowhere", "pg_config --bindir"),
        ("REJOIN_SUPPORT_EMAIL", "support", "support@example.org"),
        ("REJOIN_SUPPORT_PASSWORD", "short", "at least 8 characters"),
        ("REJOIN_TRUSTED_PROXIES", "1.5", "a whole number from 0 to 10"),
        ("REJOIN_LOG_LEVEL", "loud", "one of debug, info"),
        ("REJOIN_LIMIT_PAGE_RECORDS", "0", "a whole number from 1"),
    ],
)
def test_nonsense_is_refused_with_what_to_write(
    given: dict[str, str], name: str, value: str, remedy: str
) -> None:
    with pytest.raises(SettingsError, match=re.escape(remedy)) as refusal:
        Settings.from_environ(given | {name: value})
    assert str(refusal.value).startswith(name)


def test_an_empty_value_counts_as_not_set(given: dict[str, str]) -> None:
    assert Settings.from_environ(given | {"PORT": "", "DATABASE_URL": " "}).port == 8000


def test_what_the_device_reads_from_the_same_shell_is_none_of_the_servers_business(
    given: dict[str, str],
) -> None:
    Settings.from_environ(given | {"REJOIN_PASSWORD": "correct horse", "REJOIN_TEST_KILLS": "9"})


def test_a_misspelt_setting_is_refused_with_the_right_name(given: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=r"Did you mean REJOIN_RATE_LIMITS\?"):
        Settings.from_environ(given | {"REJOIN_RATELIMITS": "off"})


def test_a_refused_secret_is_not_repeated(given: dict[str, str]) -> None:
    for name, value in {"REJOIN_SECRET": "hunter2", "DATABASE_URL": "x://a:hunter2@b/c"}.items():
        with pytest.raises(SettingsError) as refusal:
            Settings.from_environ(given | {name: value})
        assert "hunter2" not in str(refusal.value)


def test_production_refuses_to_start_without_a_secret_or_a_database() -> None:
    for name in ("REJOIN_SECRET", "DATABASE_URL"):
        without = {key: value for key, value in PRODUCTION.items() if key != name}
        with pytest.raises(SettingsError, match=f"{name} is not set"):
            Settings.from_environ(without)


def test_production_makes_nothing_up_and_faces_the_world(tmp_path: Path) -> None:
    data = tmp_path / "data"
    settings = Settings.from_environ(PRODUCTION | {"REJOIN_DATA": str(data)})
    assert settings.support_password is None
    assert settings.host == "0.0.0.0"  # noqa: S104
    assert not data.exists()


def test_development_makes_its_secrets_once_for_its_owner_alone(tmp_path: Path) -> None:
    first = Settings.from_environ({"REJOIN_DATA": str(tmp_path)})
    again = Settings.from_environ({"REJOIN_DATA": str(tmp_path)})
    other = Settings.from_environ({"REJOIN_DATA": str(tmp_path / "other")})
    assert len(first.secret) >= 32
    assert (first.secret, first.support_password) == (again.secret, again.support_password)
    assert first.secret != other.secret
    for name in ("secret", "support-password"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_a_secret_asked_for_by_many_at_once_is_one(tmp_path: Path) -> None:
    numbers = iter(range(1000))
    with ThreadPoolExecutor(16) as pool:
        asked = [
            pool.submit(kept_secret, tmp_path / "new", "secret", lambda: f"made {next(numbers)}")
            for _ in range(64)
        ]
    assert len({each.result() for each in asked}) == 1
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["secret"]


def test_what_is_in_force_is_shown_without_its_secrets(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    environ = PRODUCTION | {
        "REJOIN_DATA": str(tmp_path),
        "REJOIN_SUPPORT_PASSWORD": "hush hush",
        "REJOIN_LIMIT_PAGE_RECORDS": "7",
    }
    assert main(["settings"], environ) == 0
    shown = dict(
        re.split(r"\s+", line, maxsplit=1) for line in capsys.readouterr().out.splitlines()
    )
    assert list(shown) == [row.name for row in ALL]
    assert shown["DATABASE_URL"] == "postgres://app:(hidden)@db.example/rejoin"
    assert shown["REJOIN_SECRET"] == shown["REJOIN_SUPPORT_PASSWORD"] == "(hidden)"
    assert shown["REJOIN_LIMIT_PAGE_RECORDS"] == "7"
    assert shown["REJOIN_RATE_LIMITS"] == "on"
    assert not {"hush", SECRET} & set(" ".join(shown.values()).split())


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://db/x", "postgresql://db/x"),
        ("postgresql://me@db/x", "postgresql://me@db/x"),
        ("postgresql://:pw@db/x", "postgresql://:(hidden)@db/x"),
        ("postgresql://me:p@w@db:5/x", "postgresql://me:(hidden)@db:5/x"),
        ("postgresql://me:p/w@db/x", "postgresql://me:(hidden)@db/x"),
        ("postgresql:///x?user=me&password=pw", "postgresql:///x?user=me&password=(hidden)"),
        ("postgresql://db/x?sslpassword=pw&a=1", "postgresql://db/x?sslpassword=(hidden)&a=1"),
    ],
)
def test_a_database_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_a_refusal_is_one_sentence_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"], {"PORT": "http"}) == 1
    error = capsys.readouterr().err
    assert error == "rejoin: PORT is 'http': write a whole number from 1 to 65535.\n"


def test_the_page_of_settings_says_what_the_table_says() -> None:
    page = (ROOT / "docs" / "SETTINGS.md").read_text()
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| (.*) \|$", page, flags=re.MULTILINE)
    expected = [(row.name, f"`{row.default}`" if row.default else "none", row.doc) for row in ALL]
    assert rows == expected


def test_what_is_described_covers_every_setting(given: dict[str, str]) -> None:
    assert [name for name, _ in described(Settings.from_environ(given))] == [r.name for r in ALL]
