"""Bytes in PostgreSQL for each change and each record, by table and index.

100,000 records of about 150 bytes, each begun by a change of its own, in a database of their own.
The baseline is their plain JSON: the operations of a change, the values of a record. Relations
are measured after VACUUM, their TOAST included.
"""

from __future__ import annotations

from typing import Any, Final

from psycopg import sql

from benchmarks import fill
from benchmarks.bench import Bench, figure
from benchmarks.devices import make_devices
from benchmarks.figures import Row
from storage.engine import make_engine

COUNT: Final = 100_000
_JSON: Final = {
    "changes": "SELECT avg(octet_length(ops::text)) FROM changes",
    "records": "SELECT avg(octet_length(data::text)) FROM records",
}
_SIZES: Final = """
    SELECT c.relname, pg_table_size(c.oid) FROM pg_class c WHERE c.oid = %(table)s::regclass
    UNION ALL
    SELECT c.relname, pg_relation_size(c.oid) FROM pg_index i JOIN pg_class c
        ON c.oid = i.indexrelid WHERE i.indrelid = %(table)s::regclass
    ORDER BY 1
"""
_COLUMNS: Final = """
    SELECT attname FROM pg_attribute
    WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""


def run(bench: Bench) -> list[Row]:
    """Bytes for each row; the ratio is to the plain JSON (compact, as jsonb prints it)."""
    count = bench.sized(COUNT)
    url = bench.stage.database()
    engine = make_engine(url, 1, statement_timeout_ms=0)
    device = make_devices(engine, bench.stage.settings(url), 1)[0]
    fill.rows(bench.dice, engine, device, count)
    rows: list[Row] = []
    with bench.stage.connect(url, autocommit=True) as connection:
        fill.settle(connection)
        for table, query in _JSON.items():
            plain = connection.execute(query).fetchone()
            assert plain is not None
            base = figure([float(plain[0])], "B of JSON")
            found = connection.execute(_SIZES, {"table": table}).fetchall()
            columns = {
                name: _mean(connection, table, name)
                for (name,) in connection.execute(_COLUMNS, [table]).fetchall()
            }
            total = figure([sum(size for _, size in found) / count], "B")
            facts: dict[str, Any] = {"rows": count, "bytes_by_column": columns}
            rows.append(Row(f"storage of {table}, with indexes ÷ plain JSON", total, base,
                            facts=facts))  # fmt: skip
            rows += [Row(f"  {name}", figure([size / count], "B a row")) for name, size in found]
    engine.dispose()
    return rows


def _mean(connection: Any, table: str, column: str) -> float:
    """The mean bytes of a column as it is kept; of a NULL nothing."""
    query = sql.SQL("SELECT coalesce(avg(pg_column_size({})), 0) FROM {}")
    names = sql.Identifier(column), sql.Identifier(table)
    return round(float(connection.execute(query.format(*names)).fetchone()[0]), 1)
