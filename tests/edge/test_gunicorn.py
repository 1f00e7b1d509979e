"""gunicorn as the Procfile starts it: its workers wait for PostgreSQL without blocking."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from storage.engine import make_engine

ROOT = Path(__file__).resolve().parent.parent.parent
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


def status(url: str, body: object = None) -> int:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            code: int = answer.status
            return code
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_worker_answers_others_while_a_request_waits_for_a_lock(
    start_server: Callable[..., Any],
) -> None:
    server = start_server(WEB_CONCURRENCY="1")
    login = {"email": "a@example.org", "password": "correct horse", "device": {"name": "x"}}
    engine = make_engine(server.database_url, 2)
    with ThreadPoolExecutor(1) as pool, engine.connect() as locking, engine.connect() as looking:
        locking.execute(text("LOCK TABLE users, login_failures IN ACCESS EXCLUSIVE MODE"))
        answer = pool.submit(status, f"{server.url}/v1/auth/login", login)
        while looking.execute(text(WAITING)).scalar_one() == 0:
            looking.rollback()
            assert not answer.done()
        assert status(f"{server.url}/healthz") == 200
        assert not answer.done()
        locking.rollback()
        assert answer.result() in {401, 422}
    engine.dispose()


def test_it_serves_with_as_many_workers_as_it_is_told(start_server: Callable[..., Any]) -> None:
    server = start_server(WEB_CONCURRENCY="3")
    assert len(server.worker_pids()) == 3


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({}, "DATABASE_URL is not set"),
        ({"PORT": "http"}, "PORT is 'http': write a whole number"),
        ({"REJOIN_ENV": "production"}, "REJOIN_SECRET is not set"),
    ],
)
def test_it_refuses_to_start_on_nonsense_with_one_sentence(
    environ: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("REJOIN_")}
    inherited.pop("DATABASE_URL", None)
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py", "app:create_app()"],
        cwd=ROOT,
        env=inherited | {"REJOIN_DATA": str(tmp_path)} | environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_the_two_processes_of_the_procfile_start_what_is_there() -> None:
    lines = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
    assert lines["release"].endswith("python -m app migrate")
    assert 'gunicorn --config gunicorn.conf.py "app:create_app()"' in lines["web"]
    assert all("REJOIN_ENV=${REJOIN_ENV:-production}" in line for line in lines.values())
