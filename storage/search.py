"""Finding users and devices: what an agent knows of a customer → who it is.

Texts are compared by how they begin, in any case, without patterns: nothing in them is a
metacharacter. Lists are in the order of ids, which nothing moves, so that pages fit together
however much happens between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    and_,
    cast,
    exists,
    func,
    literal_column,
    or_,
    select,
    union,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by

from storage.states import FLAGS, ONLINE_MS
from storage.tables import (
    SERVER_PLATFORM,
    device_flags,
    device_states,
    devices,
    memberships,
    users,
)

# Above every character: the end of all that begins alike.
LAST: Final = "\U0010ffff"
# Of a text that very many names begin with, so many are looked through.
CANDIDATES_MAX: Final = 2_000


@dataclass(frozen=True, slots=True)
class DeviceQuery:
    """What the devices must fit; None: anything. `q` is an id, or how an email or a device's name
    begins; `behind`: more changes than that, or for longer than `behind_ms`.
    """

    q: str | None = None
    id: UUID | None = None
    user: UUID | None = None
    email: str | None = None
    name: str | None = None
    platform: str | None = None
    app_version: str | None = None
    state: str | None = None
    behind: int | None = None
    behind_ms: int | None = None


class DeviceRow(NamedTuple):
    """A device in a list. Times in ms since 1970; `flags` as the last sweep found them."""

    id: UUID
    user_id: UUID
    email: str
    name: str
    platform: str
    app_version: str
    created_at: int
    seen_at: int
    pushed_at: int | None
    pulled_at: int | None
    clock_offset: int | None
    pending: int | None
    oldest_pending_at: int | None
    reported_at: int | None
    worker: str
    online: bool
    behind: int
    behind_since: int | None
    growing_since: int | None
    revoked_at: int | None
    frozen_at: int | None
    replaces: UUID | None
    replaced_by: UUID | None
    flags: list[str]


class UserRow(NamedTuple):
    """A user in a list."""

    id: UUID
    email: str
    role: str
    personal_space: UUID
    created_at: int
    devices: int
    spaces: int


def _ms(column: Any) -> Any:
    return cast(func.extract("epoch", column) * 1000, device_states.c.seen_at.type)


def _seen() -> Any:
    return func.greatest(device_states.c.seen_at, _ms(devices.c.seen_at))


def _online(now: int) -> ColumnElement[bool]:
    state = device_states.c
    return func.coalesce(and_(state.worker != "", state.seen_at > now - ONLINE_MS), False)


def _flags() -> Any:
    flag = device_flags.c.flag
    found = select(func.array_agg(aggregate_order_by(flag, flag))).where(
        device_flags.c.device_id == devices.c.id
    )
    return func.coalesce(found.scalar_subquery(), literal_column("'{}'::text[]"))


def _replaced_by() -> Any:
    newer = devices.alias("newer")
    # Only a frozen one is looked for, among its user's devices.
    found = select(newer.c.id).where(
        devices.c.frozen_at.is_not(None),
        newer.c.user_id == devices.c.user_id,
        newer.c.replaces == devices.c.id,
    )
    return found.limit(1).scalar_subquery()


def _select(now: int) -> Select[Any]:
    d, s = devices.c, device_states.c
    return (
        select(
            d.id, d.user_id, users.c.email, d.name, d.platform, d.app_version,
            _ms(d.created_at), _seen(), s.pushed_at, s.pulled_at, s.clock_offset, s.pending,
            s.oldest_pending_at, s.reported_at, func.coalesce(s.worker, ""), _online(now),
            func.coalesce(s.behind, 0), s.behind_since, s.growing_since, _ms(d.revoked_at),
            _ms(d.frozen_at), d.replaces, _replaced_by(), _flags(),
        )
        .select_from(devices)
        .join(users, users.c.id == d.user_id)
        .outerjoin(device_states, s.device_id == d.id)
    )  # fmt: skip


def devices_found(
    connection: Connection, query: DeviceQuery, now: int, after: UUID | None, limit: int
) -> list[DeviceRow]:
    """The devices that fit, in the order of their ids; `now` in ms.

    The page's ids are found first, in the narrowest table that knows them, so that what is shown
    of a device is looked up for a page of them and not for all that fit.
    """
    key, source = _source(query)
    page = select(key).select_from(source).where(*_conditions(query, now))
    if after is not None:
        page = page.where(key > after)
    ids = page.order_by(key).limit(limit).cte("page").prefix_with("MATERIALIZED")
    wanted = _select(now).where(devices.c.id.in_(select(ids))).order_by(devices.c.id)
    return [DeviceRow(*row) for row in connection.execute(wanted)]


def _source(query: DeviceQuery) -> tuple[Any, FromClause]:
    """(the column of the ids, the tables that the conditions look at)."""
    flagged = query.state is not None and query.state in FLAGS
    lag = query.behind is not None or query.behind_ms is not None or query.state == "online"
    described = [query.q, query.id, query.user, query.email, query.name, query.platform,
                 query.app_version]  # fmt: skip
    sources: list[tuple[FromClause, Any]] = []
    if flagged:
        sources.append((device_flags, device_flags.c.device_id))
    if lag:
        sources.append((device_states, device_states.c.device_id))
    if not sources or query.state == "ok" or any(one is not None for one in described):
        sources.append((devices, devices.c.id))
    (source, key), *others = sources
    for table, column in others:
        source = source.join(table, column == key)
    return key, source


def device(connection: Connection, id_: UUID, now: int) -> DeviceRow | None:
    """One device; None: there is none."""
    row = connection.execute(_select(now).where(devices.c.id == id_)).one_or_none()
    return None if row is None else DeviceRow(*row)


def _conditions(query: DeviceQuery, now: int) -> list[ColumnElement[bool]]:
    d, s = devices.c, device_states.c
    found: list[ColumnElement[bool]] = []
    if _any_device(query):
        # The server's own replicas are no customer's: they are shown to who asks for them.
        found.append(d.platform != SERVER_PLATFORM)
    if query.q is not None:
        found.append(_anywhere(query.q))
    for column, id_ in ((d.id, query.id), (d.user_id, query.user)):
        if id_ is not None:
            found.append(column == id_)
    if query.email is not None:
        found.append(d.user_id.in_(_people(query.email)))
    texts = {"name": query.name, "platform": query.platform, "app_version": query.app_version}
    found += [begins(d[name], text) for name, text in texts.items() if text is not None]
    if query.state is not None:
        found.append(_in_state(query.state, now))
    if query.behind is not None:
        found.append(s.behind > query.behind)
    if query.behind_ms is not None:
        found.append(and_(s.behind > 0, s.behind_since < now - query.behind_ms))
    return found


def _any_device(query: DeviceQuery) -> bool:
    """Whether the query may find what was never behind, and has no flag."""
    asked = (query.behind, query.behind_ms, query.id, query.platform)
    return query.state in {None, "ok"} and all(one is None for one in asked)


def begins(column: Any, text: str) -> ColumnElement[bool]:
    """Whether the text in the column begins so, in any case. By the index on its lower case."""
    lower, low = func.lower(column), text.lower()
    return and_(lower.op("~>=~")(low), lower.op("~<~")(low + LAST))


def _people(email: str) -> Select[Any]:
    """Users by how their email begins: it is kept in lower case, and compared byte by byte."""
    low = email.strip().casefold()
    within = and_(users.c.email >= low, users.c.email < low + LAST)
    return select(users.c.id).where(within).limit(CANDIDATES_MAX)


def _anywhere(text: str) -> ColumnElement[bool]:
    """An id of a device or a user, or the beginning of an email or of a device's name."""
    try:
        id_ = UUID(text.strip())
    except ValueError:
        named = select(devices.c.id).where(begins(devices.c.name, text)).limit(CANDIDATES_MAX)
        theirs = select(devices.c.id).where(devices.c.user_id.in_(_people(text)))
        return devices.c.id.in_(union(named, theirs))
    return or_(devices.c.id == id_, devices.c.user_id == id_)


def _in_state(state: str, now: int) -> ColumnElement[bool]:
    if state == "online":
        return and_(device_states.c.worker != "", device_states.c.seen_at > now - ONLINE_MS)
    if state == "ok":
        flags = device_flags.alias("flags")
        return ~exists().where(flags.c.device_id == devices.c.id)
    return device_flags.c.flag == state


def users_found(
    connection: Connection, email: str | None, id_: UUID | None, after: UUID | None, limit: int
) -> list[UserRow]:
    """Users by how their email begins, or by id, in the order of their ids."""
    u = users.c
    device_count = select(func.count()).select_from(devices).where(devices.c.user_id == u.id)
    space_count = (
        select(func.count())
        .select_from(memberships)
        .where(memberships.c.user_id == u.id, memberships.c.withdrawn_at.is_(None))
    )
    wanted = select(
        u.id, u.email, u.role, u.personal_space_id, _ms(u.created_at),
        device_count.scalar_subquery(), space_count.scalar_subquery(),
    )  # fmt: skip
    if email is not None:
        low = email.strip().casefold()
        wanted = wanted.where(u.email >= low, u.email < low + LAST)
    if id_ is not None:
        wanted = wanted.where(u.id == id_)
    if after is not None:
        wanted = wanted.where(u.id > after)
    return [UserRow(*row) for row in connection.execute(wanted.order_by(u.id).limit(limit))]
