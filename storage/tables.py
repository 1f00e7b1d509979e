"""The schema. Alembic's migrations must equal it; a test compares them.

Sync data has `space_id` first in every key and every query names it, so that the tables spread
over a distributed PostgreSQL by that column. Text that a device chooses is compared code point
by code point: collation "C".
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

_now = func.now()

# The platform of the server's own replicas, which no customer carries.
SERVER_PLATFORM = "rejoin"


def _key(name: str) -> Column[str]:
    return Column(name, Text(collation="C"), nullable=False)


def _time(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=_now)


def _searched(name: str) -> Index:
    """For what is searched by how it begins, in any case."""
    lower = func.lower(text(name)).label("lower")
    ops = {"lower": "text_pattern_ops"}
    return Index(f"devices_{name}_idx", lower, postgresql_ops=ops)


# Accounts -----------------------------------------------------------------------------------

users = Table(
    "users",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    # Kept in lower case by the application: one account for each address.
    Column("email", Text(collation="C"), nullable=False, unique=True),
    Column("password_hash", Text, nullable=False),
    Column("role", Text, nullable=False, server_default="user"),
    Column("personal_space_id", UUID(as_uuid=True), nullable=False, unique=True),
    _time("created_at"),
    CheckConstraint("role IN ('user', 'support', 'admin')", name="role"),
)

devices = Table(
    "devices",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("user_id", UUID(as_uuid=True), ForeignKey("users.id"), nullable=False),
    Column("name", Text, nullable=False, server_default=""),
    Column("platform", Text, nullable=False, server_default=""),
    Column("app_version", Text, nullable=False, server_default=""),
    # The device that this one replaces after a fork. The replaced one is frozen for good.
    Column("replaces", UUID(as_uuid=True)),
    Column("frozen_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    _time("created_at"),
    _time("seen_at"),
    Index(None, "user_id"),
    # What support staff search by, from the beginning of the text on.
    _searched("name"),
    _searched("platform"),
    _searched("app_version"),
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    # SHA-256 of the token: whoever reads the table can't log in with it.
    Column("digest", LargeBinary, primary_key=True),
    Column("family", UUID(as_uuid=True), nullable=False),
    Column("device_id", UUID(as_uuid=True), ForeignKey("devices.id"), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("used_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    _time("created_at"),
    Index(None, "family"),
    Index(None, "device_id"),
)

login_failures = Table(
    "login_failures",
    metadata,
    # "account:<email>" or "address:<ip>".
    Column("subject", Text(collation="C"), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("blocked_until", DateTime(timezone=True), nullable=False),
    Column("failed_at", DateTime(timezone=True), nullable=False),
)

# Spaces -------------------------------------------------------------------------------------

spaces = Table(
    "spaces",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("personal", Boolean, nullable=False, server_default=text("false")),
    # The position of the newest change. Its row lock is what orders the log.
    Column("head", BigInteger, nullable=False, server_default="0"),
    Column("epoch", Integer, nullable=False, server_default="1"),
    # Tombstones at or before this position may be gone: an older cursor is reset.
    Column("horizon", BigInteger, nullable=False, server_default="0"),
    _time("created_at"),
)

memberships = Table(
    "memberships",
    metadata,
    Column("space_id", UUID(as_uuid=True), ForeignKey("spaces.id"), nullable=False),
    Column("user_id", UUID(as_uuid=True), ForeignKey("users.id"), nullable=False),
    Column("role", Text, nullable=False),
    # A withdrawn membership stays: its devices are told `forbidden` and drop their copy, while
    # a stranger is told `not_found`.
    Column("withdrawn_at", DateTime(timezone=True)),
    _time("created_at"),
    PrimaryKeyConstraint("space_id", "user_id"),
    CheckConstraint("role IN ('owner', 'editor', 'viewer')", name="role"),
    Index(None, "user_id"),
)

epochs = Table(
    "epochs",
    metadata,
    Column("space_id", UUID(as_uuid=True), ForeignKey("spaces.id"), nullable=False),
    Column("epoch", Integer, nullable=False),
    # What survived when this epoch began: the head, and the vector clock {replica: counter}.
    Column("head", BigInteger, nullable=False),
    Column("clock", JSONB, nullable=False),
    _time("created_at"),
    PrimaryKeyConstraint("space_id", "epoch"),
)

replicas = Table(
    "replicas",
    metadata,
    Column("space_id", UUID(as_uuid=True), ForeignKey("spaces.id"), nullable=False),
    # The device's short number in this space: 4 bytes in every dot instead of 16.
    Column("number", Integer, nullable=False),
    Column("device_id", UUID(as_uuid=True), nullable=False),
    # The highest counter decided, and the head when it was: the entry of the vector clock.
    Column("counter", BigInteger, nullable=False, server_default="0"),
    Column("position", BigInteger, nullable=False, server_default="0"),
    # The cursor up to which the device said it has applied the log.
    Column("cursor", BigInteger, nullable=False, server_default="0"),
    Column("cursor_epoch", Integer, nullable=False, server_default="1"),
    _time("cursor_at"),
    # Support asked the device to reset where its cursor is below this.
    Column("reset_below", BigInteger, nullable=False, server_default="0"),
    PrimaryKeyConstraint("space_id", "number"),
    UniqueConstraint("space_id", "device_id"),
    Index(None, "device_id"),
)

# The log ------------------------------------------------------------------------------------

changes = Table(
    "changes",
    metadata,
    Column("space_id", UUID(as_uuid=True), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("replica", Integer, nullable=False),
    Column("counter", BigInteger, nullable=False),
    # The context as it came: its epoch, its cursor, and the clock where one was given.
    Column("epoch", Integer, nullable=False),
    Column("cursor", BigInteger, nullable=False),
    Column("clock", JSONB),
    # Milliseconds since 1970: as the device said, and as merging counts it.
    Column("at", BigInteger, nullable=False),
    Column("at_corrected", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("ops", JSONB, nullable=False),
    # Of `at` and the operations: tells a repeat from a fork.
    Column("digest", LargeBinary, nullable=False),
    # The fields that this change put in conflict: [[collection, id, field], …].
    Column("conflicts", JSONB),
    PrimaryKeyConstraint("space_id", "position"),
    UniqueConstraint("space_id", "replica", "counter"),
    Index(
        "changes_met_idx", "space_id", "position", postgresql_where=text("conflicts IS NOT NULL")
    ),
)

records = Table(
    "records",
    metadata,
    Column("space_id", UUID(as_uuid=True), nullable=False),
    _key("collection"),
    _key("id"),
    # The last change that touched the record.
    Column("position", BigInteger, nullable=False),
    Column("deleted", Boolean, nullable=False),
    # Of the values as JSON with their siblings: bounds a page, and a record's growth.
    Column("bytes", Integer, nullable=False),
    # How many fields are in conflict.
    Column("conflicts", SmallInteger, nullable=False),
    # The merged plain values by field, open to anyone's SQL. A deleted record keeps them: alive
    # wins over a concurrent deletion, and brings the whole row back.
    Column("data", JSONB, nullable=False),
    # Siblings, dots and positions: sync.records.pack.
    Column("causality", LargeBinary, nullable=False),
    PrimaryKeyConstraint("space_id", "collection", "id"),
    Index(None, "space_id", "position"),
    # Few records are in either: the conflicts that staff look at, the tombstones that wait.
    Index(
        "records_conflicts_idx",
        "space_id",
        "collection",
        "id",
        postgresql_where=text("conflicts > 0"),
    ),
    Index("records_tombstones_idx", "space_id", postgresql_where=text("deleted")),
)

documents = Table(
    "documents",
    metadata,
    # The updates of a document, in order; those of a record are dropped with its tombstone.
    Column("space_id", UUID(as_uuid=True), nullable=False),
    _key("collection"),
    _key("id"),
    _key("field"),
    # Of the change that brought it, or of the newest of those that it was folded from.
    Column("position", BigInteger, nullable=False),
    # How often it was folded, see storage/documents.py; -1: it waits for what it depends on.
    Column("level", SmallInteger, nullable=False),
    # What is known of it without reading it: sync.documents.About.
    Column("about", LargeBinary, nullable=False),
    # A Yjs v1 update.
    Column("update", LargeBinary, nullable=False),
    PrimaryKeyConstraint("space_id", "collection", "id", "field", "position", "level"),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("space_id", UUID(as_uuid=True), nullable=False),
    Column("replica", Integer, nullable=False),
    Column("counter", BigInteger, nullable=False),
    # The head when it was decided.
    Column("position", BigInteger, nullable=False),
    # The change whole, as JSON text with escapes: jsonb could not hold what may be wrong in it.
    Column("body", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    # {"code", "detail", "op"?, …}.
    Column("error", JSONB, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    # What staff made of it: replayed as the change at a position, or given up. None: open.
    Column("settled", Text),
    Column("settled_at", BigInteger),
    Column("replayed_as", BigInteger),
    PrimaryKeyConstraint("space_id", "replica", "counter"),
    CheckConstraint("settled IN ('replayed', 'discarded')", name="settled"),
    Index(
        "quarantine_open_idx",
        "space_id",
        "replica",
        "counter",
        postgresql_where=text("settled IS NULL"),
    ),
)

discarded = Table(
    "discarded",
    metadata,
    # Changes that a device once had acknowledged, that the server lost, and that the device
    # could not give back: counters `first` to `last`.
    Column("space_id", UUID(as_uuid=True), nullable=False),
    Column("replica", Integer, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    _time("created_at"),
    PrimaryKeyConstraint("space_id", "replica", "first"),
)

# What support staff see ---------------------------------------------------------------------

# Times are milliseconds since 1970, as in the log.
device_states = Table(
    "device_states",
    metadata,
    Column("device_id", UUID(as_uuid=True), ForeignKey("devices.id"), primary_key=True),
    # Written by each worker's recorder, a second or so after it happened.
    Column("seen_at", BigInteger, nullable=False),
    Column("pushed_at", BigInteger),
    # The last answer that was no reset.
    Column("pulled_at", BigInteger),
    # The server's clock less the device's.
    Column("clock_offset", BigInteger),
    # As the device reported: how many changes wait on it, the oldest of them, and when it said so.
    Column("pending", BigInteger),
    Column("oldest_pending_at", BigInteger),
    Column("reported_at", BigInteger),
    # The worker that holds its socket; "" is none.
    Column("worker", Text, nullable=False, server_default=""),
    # Written by the sweep: changes by others that it has not applied, the most in any space.
    Column("behind", BigInteger, nullable=False, server_default="0"),
    Column("behind_since", BigInteger),
    Column("growing_since", BigInteger),
    Index("device_states_online_idx", "device_id", postgresql_where=text("worker <> ''")),
    Index("device_states_behind_idx", "device_id", postgresql_where=text("behind > 0")),
)

device_flags = Table(
    "device_flags",
    metadata,
    # `lagging`, `stuck`, `silent`, `quarantined`, `conflicts`, `clock_off`, `revoked`.
    Column("flag", Text(collation="C"), nullable=False),
    Column("device_id", UUID(as_uuid=True), ForeignKey("devices.id"), nullable=False),
    PrimaryKeyConstraint("flag", "device_id"),
    Index(None, "device_id"),
)

events = Table(
    "events",
    metadata,
    # What happened within one minute, counted: a device has few rows however often it asks.
    Column("device_id", UUID(as_uuid=True), ForeignKey("devices.id"), nullable=False),
    Column("minute", BigInteger, nullable=False),
    Column("kind", Text(collation="C"), nullable=False),
    Column("code", Text(collation="C"), nullable=False),
    # All zeros where it is about no one space.
    Column("space_id", UUID(as_uuid=True), nullable=False),
    Column("first_at", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("times", Integer, nullable=False),
    Column("changes", BigInteger, nullable=False),
    Column("rejected", BigInteger, nullable=False),
    Column("records", BigInteger, nullable=False),
    PrimaryKeyConstraint("device_id", "minute", "kind", "code", "space_id"),
)

traffic = Table(
    "traffic",
    metadata,
    Column("minute", BigInteger, primary_key=True, autoincrement=False),
    Column("requests", BigInteger, nullable=False),
    Column("changes", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("refused", BigInteger, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    # Append-only: triggers of the migration refuse UPDATE, DELETE and TRUNCATE. It names people,
    # devices and spaces by their ids and holds no value, so that erasing a user leaves it whole.
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("actor", UUID(as_uuid=True)),
    Column("action", Text(collation="C"), nullable=False),
    Column("user_id", UUID(as_uuid=True)),
    Column("device_id", UUID(as_uuid=True)),
    Column("space_id", UUID(as_uuid=True)),
    Column("reason", Text, nullable=False),
    Column("before", JSONB),
    Column("after", JSONB),
)

console_sessions = Table(
    "console_sessions",
    metadata,
    # SHA-256 of the cookie, and of the password's hash at the login: another password ends it.
    Column("digest", LargeBinary, primary_key=True),
    Column(
        "user_id", UUID(as_uuid=True), ForeignKey("users.id", ondelete="CASCADE"), nullable=False
    ),
    Column("password_digest", LargeBinary, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    _time("created_at"),
    Index(None, "user_id"),
)
