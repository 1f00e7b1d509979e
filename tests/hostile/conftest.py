"""Phones that mean no harm, for those that do to be tried on."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine

from tests.contract.devices import Phone, phone
from tests.hostile.doors import Ledger, ledger


@pytest.fixture
def a(client: FlaskClient) -> Phone:
    return phone(client)


@pytest.fixture
def kept(a: Phone, engine: Engine) -> Ledger:
    """What a's space holds before the test: three changes of its own."""
    changes = [a.change({"op": "put", "collection": "c", "id": f"r{n}"}) for n in range(3)]
    assert a.sync(*changes)["head"] == 3
    return ledger(engine, a)
