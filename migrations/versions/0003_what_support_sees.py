"""What support staff see: device states, a timeline, traffic, an audit trail; settled quarantine.

Revision: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

JSONB = postgresql.JSONB(astext_type=sa.Text())
SEARCHED = ("name", "platform", "app_version")

# Whoever reaches the database through the server's role can add to the trail and change nothing.
_APPEND_ONLY = """
    CREATE FUNCTION refuse_to_change_audit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'the audit trail is append-only';
    END $$;
    CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_audit();
"""


def upgrade() -> None:
    op.create_table(
        "device_states",
        sa.Column("device_id", sa.UUID(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("pushed_at", sa.BigInteger(), nullable=True),
        sa.Column("pulled_at", sa.BigInteger(), nullable=True),
        sa.Column("clock_offset", sa.BigInteger(), nullable=True),
        sa.Column("pending", sa.BigInteger(), nullable=True),
        sa.Column("oldest_pending_at", sa.BigInteger(), nullable=True),
        sa.Column("reported_at", sa.BigInteger(), nullable=True),
        sa.Column("worker", sa.Text(), server_default="", nullable=False),
        sa.Column("behind", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("behind_since", sa.BigInteger(), nullable=True),
        sa.Column("growing_since", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.id"], name=op.f("device_states_device_id_fkey")
        ),
        sa.PrimaryKeyConstraint("device_id", name=op.f("device_states_pkey")),
    )
    op.create_index(
        "device_states_online_idx",
        "device_states",
        ["device_id"],
        postgresql_where=sa.text("worker <> ''"),
    )
    op.create_index(
        "device_states_behind_idx",
        "device_states",
        ["device_id"],
        postgresql_where=sa.text("behind > 0"),
    )
    op.create_table(
        "device_flags",
        sa.Column("flag", sa.Text(collation="C"), nullable=False),
        sa.Column("device_id", sa.UUID(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.id"], name=op.f("device_flags_device_id_fkey")
        ),
        sa.PrimaryKeyConstraint("flag", "device_id", name=op.f("device_flags_pkey")),
    )
    op.create_index(op.f("device_flags_device_id_idx"), "device_flags", ["device_id"])
    op.create_table(
        "events",
        sa.Column("device_id", sa.UUID(), nullable=False),
        sa.Column("minute", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(collation="C"), nullable=False),
        sa.Column("code", sa.Text(collation="C"), nullable=False),
        sa.Column("space_id", sa.UUID(), nullable=False),
        sa.Column("first_at", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.Column("changes", sa.BigInteger(), nullable=False),
        sa.Column("rejected", sa.BigInteger(), nullable=False),
        sa.Column("records", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name=op.f("events_device_id_fkey")),
        sa.PrimaryKeyConstraint(
            "device_id", "minute", "kind", "code", "space_id", name=op.f("events_pkey")
        ),
    )
    op.create_table(
        "traffic",
        sa.Column("minute", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("changes", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("records", sa.BigInteger(), nullable=False),
        sa.Column("refused", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("minute", name=op.f("traffic_pkey")),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.UUID(), nullable=True),
        sa.Column("action", sa.Text(collation="C"), nullable=False),
        sa.Column("user_id", sa.UUID(), nullable=True),
        sa.Column("device_id", sa.UUID(), nullable=True),
        sa.Column("space_id", sa.UUID(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("before", JSONB, nullable=True),
        sa.Column("after", JSONB, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("audit_pkey")),
    )
    op.execute(_APPEND_ONLY)
    _add_to_what_was_there()


def _add_to_what_was_there() -> None:
    for column in SEARCHED:
        lower = sa.func.lower(sa.text(column)).label("lower")
        ops = {"lower": "text_pattern_ops"}
        op.create_index(f"devices_{column}_idx", "devices", [lower], postgresql_ops=ops)
    op.add_column(
        "replicas", sa.Column("reset_below", sa.BigInteger(), server_default="0", nullable=False)
    )
    op.create_index(
        "changes_met_idx",
        "changes",
        ["space_id", "position"],
        postgresql_where=sa.text("conflicts IS NOT NULL"),
    )
    op.create_index(
        "records_conflicts_idx",
        "records",
        ["space_id", "collection", "id"],
        postgresql_where=sa.text("conflicts > 0"),
    )
    op.create_index(
        "records_tombstones_idx", "records", ["space_id"], postgresql_where=sa.text("deleted")
    )
    for added in (
        sa.Column("settled", sa.Text(), nullable=True),
        sa.Column("settled_at", sa.BigInteger(), nullable=True),
        sa.Column("replayed_as", sa.BigInteger(), nullable=True),
    ):
        op.add_column("quarantine", added)
    op.create_check_constraint(
        op.f("quarantine_settled_check"), "quarantine", "settled IN ('replayed', 'discarded')"
    )
    op.create_index(
        "quarantine_open_idx",
        "quarantine",
        ["space_id", "replica", "counter"],
        postgresql_where=sa.text("settled IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("quarantine_open_idx", "quarantine")
    op.drop_constraint(op.f("quarantine_settled_check"), "quarantine")
    for column in ("replayed_as", "settled_at", "settled"):
        op.drop_column("quarantine", column)
    op.drop_index("records_tombstones_idx", "records")
    op.drop_index("records_conflicts_idx", "records")
    op.drop_index("changes_met_idx", "changes")
    op.drop_column("replicas", "reset_below")
    for column in SEARCHED:
        op.drop_index(f"devices_{column}_idx", "devices")
    for table in ("audit", "traffic", "events", "device_flags", "device_states"):
        op.drop_table(table)
    op.execute("DROP FUNCTION refuse_to_change_audit()")
