"""What a phone sends and receives for 1, 10, 1,000 and 10,000 changes.

Bodies as they travel, in requests of 1,000 changes at most, each change a new record of about 150
bytes; headers apart. `received` is the answer to the push; `bootstrap` what another new device
receives to have the records. Kinto's 218 bytes a record are those of its bootstrap, as JSON
without compression.
"""

from __future__ import annotations

from typing import Any, Final

from benchmarks.bench import Bench, figure
from benchmarks.devices import FORMATS, Device, decoded, encoded, envelope, new_rows, part
from benchmarks.figures import Row
from benchmarks.measures import push
from benchmarks.wire import Line, request

COUNTS: Final = (1, 10, 1_000, 10_000)
CODINGS: Final = (None, "gzip", "zstd")
KINTO: Final = 218.0
MAGIC: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


def run(bench: Bench) -> list[Row]:
    """Bytes for each change or record."""
    rows = []
    for count in COUNTS:
        if bench.size and count > bench.size:
            continue
        for format_ in FORMATS:
            for coding in CODINGS:
                rows += _told(bench, count, format_, coding)
    return rows


def _told(bench: Bench, count: int, format_: str, coding: str | None) -> list[Row]:
    writer, reader = bench.devices(1, each=2)
    sent, received, heads = _push(bench, writer, count, format_, coding)
    booted = _boot(bench, reader, count, format_, coding)
    push.forget(bench, writer)
    name = f"{count:,} × {format_}{f' in {coding}' if coding else ''}"
    facts: dict[str, Any] = {
        "sent": sent,
        "received": received,
        "bootstrap": booted,
        "headers_up": heads[0],
        "headers_down": heads[1],
    }
    note = f"{sent:,} B; answered {received:,} B; headers {heads[0]:,} + {heads[1]:,} B"
    kinto = figure([KINTO], "B of Kinto's") if count >= 1_000 else None
    return [
        Row(f"sent, {name}", figure([sent / count], "B a change"), note=note, facts=facts),
        Row(f"  bootstrap, {name}", figure([booted / count], "B a record"), kinto),
    ]


def _push(
    bench: Bench, device: Device, count: int, format_: str, coding: str | None
) -> tuple[int, int, tuple[int, int]]:
    """(bytes of bodies sent, received, (header bytes up, down))."""
    sent = received = up = down = 0
    type_ = FORMATS[format_]
    with Line(bench.server.address) as line:
        for start in range(0, count, push.BATCH):
            changes = new_rows(start + 1, min(push.BATCH, count - start), 0, bench.dice)
            body = encoded(envelope(part(start, count, changes)), format_, coding)
            data = request(
                "POST", "/v1/sync", device.token, body, content=type_, accept=type_,
                coding=coding, accept_coding=coding,
            )  # fmt: skip
            answer = line.ask(data)
            assert answer.status == 200, answer.body
            sent, received = sent + len(body), received + len(answer.body)
            up, down = up + len(data) - len(body), down + answer.head
    return sent, received, (up, down)


def _boot(bench: Bench, device: Device, count: int, format_: str, coding: str | None) -> int:
    """Bytes of the answers' bodies; a small one comes uncompressed."""
    got = size = 0
    page: str | None = None
    type_ = FORMATS[format_]
    with Line(bench.server.address) as line:
        while got < count:
            more = {"page": page} if page else {}
            body = encoded(envelope(part(0, 0, [], **more)), format_)
            answer = line.ask(
                request("POST", "/v1/sync", device.token, body, content=type_, accept=type_,
                        accept_coding=coding)
            )  # fmt: skip
            assert answer.status == 200, answer.body
            size += len(answer.body)
            space = _read(answer.body, format_)["spaces"]["me"]
            got, page = got + len(space["records"]), space["page"]
    return size


def _read(data: bytes, format_: str) -> Any:
    """Whether an answer was compressed, which a small one is not, its first bytes say."""
    coding = next((name for start, name in MAGIC.items() if data.startswith(start)), None)
    return decoded(data, format_, coding)
