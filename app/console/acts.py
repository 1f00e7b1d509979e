"""What an agent does with a click and a reason."""

from __future__ import annotations

from datetime import timedelta
from itertools import chain
from urllib.parse import urlencode
from uuid import UUID

from flask import Response, request, url_for

from app.admin import actions, farewell, settling, users
from app.admin.actions import Done
from app.admin.bodies import ReplayBody, ResetBody, RestoreBody, SettleBody
from app.admin.settling import Choice
from app.admin.sight import Sight
from app.console.asking import acting, done, json, number, text
from app.console.door import blueprint, page
from app.console.entry import own_path
from app.routes.sync import NDJSON
from app.runtime import runtime
from app.schemas import email_of
from app.wire import load, streamed
from sync.errors import BadRequest


def _back(path: str) -> str:
    """The page that the form stood on, or that one."""
    back = request.form.get("back", "")
    return own_path(back) if back else path


@blueprint.post("/devices/<uuid:device>/revoke")
def revoke_device(device: UUID) -> Response:
    """At once and for good. For admins."""
    with acting("admin") as at:
        made = actions.revoke(at, device)
    return done(url_for("console.show_device", device=device), "revoke", made)


@blueprint.post("/devices/<uuid:device>/reset")
def reset_device(device: UUID) -> Response:
    """In one space or in all."""
    fields = {"reason": text("reason"), "space": request.form.get("space") or None}
    wanted = load(ResetBody(), fields, "malformed_request")
    with acting() as at:
        made, written = actions.reset(at, device, wanted.space)
    said = "reset" if made.next is None else "reset_more"
    return done(url_for("console.show_device", device=device), said, made, written)


@blueprint.post("/spaces/<uuid:space>/settle")
def settle_conflict(space: UUID) -> Response:
    """On the side whose button was pressed, or on another value."""
    fields = {name: text(name) for name in ("reason", "collection", "id", "field")}
    wanted = load(SettleBody(), {**fields, "seen": number("seen"), **_side()}, "malformed_request")
    dot = wanted.sibling
    choice = Choice((str(dot.device), dot.counter) if dot else None, wanted.value)
    key = (wanted.collection, wanted.id)
    with acting() as at:
        sight = Sight(runtime().settings.secret)
        made, one = settling.settle(at, space, key, wanted.field, wanted.seen, choice, sight)
    return done(_back(_record(space, key)), "settle", made, [one])


def _side() -> dict[str, object]:
    device, _, counter = request.form.get("sibling", "").partition(":")
    if device:
        return {"sibling": {"device": device, "counter": number("sibling", counter)}}
    if not request.form.get("value", ""):
        raise BadRequest("malformed_request", "Choose a side, or write a value as JSON.")
    return {"value": json("value")}


def _record(space: UUID, key: tuple[str, str]) -> str:
    query = urlencode({"collection": key[0], "id": key[1]})
    return f"{url_for('console.show_record', space=space)}?{query}"


@blueprint.post("/spaces/<uuid:space>/restore")
def restore_record(space: UUID) -> Response:
    """To what it was at a position."""
    fields = {name: text(name) for name in ("reason", "collection", "id")}
    places = {name: number(name) for name in ("position", "seen")}
    wanted = load(RestoreBody(), {**fields, **places}, "malformed_request")
    key = (wanted.collection, wanted.id)
    with acting() as at:
        made, one = settling.restore(at, space, key, wanted.position, wanted.seen, None)
    return done(_record(space, key), "restore", made, [one])


@blueprint.post("/quarantine/<uuid:space>/<uuid:device>/<int:counter>/replay")
def replay_change(space: UUID, device: UUID, counter: int) -> Response:
    """Repaired by leaving operations out or by writing others, or as it is."""
    fields = {"reason": text("reason"), "drop": [number("drop", n) for n in _dropped()]}
    if request.form.get("ops", "").strip():
        fields["ops"] = json("ops")
    wanted = load(ReplayBody(), fields, "malformed_request")
    dot = (space, device, counter)
    with acting() as at:
        made, one = actions.replay(at, dot, ops=wanted.ops, drop=wanted.drop)
    return done(_item(dot), "replay", made, [one])


def _dropped() -> list[str]:
    return [] if request.form.get("ops", "").strip() else request.form.getlist("drop")


@blueprint.post("/quarantine/<uuid:space>/<uuid:device>/<int:counter>/discard")
def discard_change(space: UUID, device: UUID, counter: int) -> Response:
    """It is not open any more. For admins."""
    dot = (space, device, counter)
    with acting("admin") as at:
        made = actions.discard(at, dot)
    return done(_item(dot), "discard", made)


def _item(dot: tuple[UUID, UUID, int]) -> str:
    space, device, counter = dot
    return url_for("console.show_quarantined", space=space, device=device, counter=counter)


@blueprint.post("/spaces/<uuid:space>/compact")
def compact_space(space: UUID) -> Response:
    """Drops the tombstones that no device needs. For admins."""
    before = runtime().now() - timedelta(days=runtime().settings.tombstone_days)
    with acting("admin") as at:
        dropped = actions.compact(at, space, before)
    path = url_for("console.show_space", space=space)
    return done(path, "compact", Done(dropped.audit, []))


# A user's data --------------------------------------------------------------------------------


@blueprint.post("/users/<uuid:user>/export")
def export_user(user: UUID) -> Response:
    """As a file: lines of JSON. For admins."""
    with acting("admin") as at:
        farewell.noted_export(at, user)
    stream = runtime().streams.counted(farewell.export(runtime().engine, user))
    response = streamed(chain([next(stream)], stream), NDJSON)
    response.headers["Content-Disposition"] = f'attachment; filename="user-{user}.ndjson"'
    return response


@blueprint.post("/users/<uuid:user>/erase")
def erase_user(user: UUID) -> Response:
    """Everywhere, where the email was typed as well; shows the counts as proof. For admins."""
    with acting("admin") as at:
        email = users.user(at.connection, user).email
        if email_of(text("email")) != email:
            raise BadRequest("malformed_request", "That is not this user's email.")
        made = farewell.erase(at, user)
    return page("erased", email=email, made=made)
