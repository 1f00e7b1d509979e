"""Sessions of support staff at the console.

Revision: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "console_sessions",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.UUID(), nullable=False),
        sa.Column("password_digest", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("digest", name="console_sessions_pkey"),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="console_sessions_user_id_fkey", ondelete="CASCADE"
        ),
    )
    op.create_index("console_sessions_user_id_idx", "console_sessions", ["user_id"])


def downgrade() -> None:
    op.drop_table("console_sessions")
