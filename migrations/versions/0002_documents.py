"""Documents: the updates of Yjs documents, by position.

Revision: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "documents",
        sa.Column("space_id", sa.UUID(), nullable=False),
        sa.Column("collection", sa.Text(collation="C"), nullable=False),
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("field", sa.Text(collation="C"), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.SmallInteger(), nullable=False),
        sa.Column("about", sa.LargeBinary(), nullable=False),
        sa.Column("update", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(
            "space_id",
            "collection",
            "id",
            "field",
            "position",
            "level",
            name=op.f("documents_pkey"),
        ),
    )
    # As for records: without a count of its own a space is taken for one of 200 alike.
    op.execute("ALTER TABLE documents ALTER COLUMN space_id SET STATISTICS 0")


def downgrade() -> None:
    op.drop_table("documents")
