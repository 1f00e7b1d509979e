"""Several devices, one space, a bad network, and the oracle that looks on.

Every request that reaches the space reaches the oracle too, and both must say the same, about the
verdicts and about every record. A device is compared each time its pull is complete.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import Any

from sync.fields import Counter, Document, ObservedRemoveSet, Register
from sync.limits import Limits
from sync.records import Record
from sync.stored import unpack
from tests.oracle.device import Device, Rows, shown
from tests.oracle.model import Fork, Gap, Key, Model, Op, canonical
from tests.oracle.space import Space

YEAR_MS = 365 * 24 * 3_600_000
START_MS = 1_800_000_000_000
# The order of the ids is neither that of the devices' arrival nor its reverse.
IDS = [f"device-{n}" for n in (5, 2, 8, 1, 7, 4, 9, 3, 6, 0)]
SKEWS_MS = [0, YEAR_MS, -60 * YEAR_MS, -3_600_000, 3_000]
DEVICES_MAX = 8
ROUNDS_MAX = 200


@dataclass(frozen=True)
class Sent:
    device: str
    body: bytes


@dataclass
class World:
    space: Space = field(default_factory=lambda: Space(Limits()))
    model: Model = field(default_factory=Model)
    devices: list[Device] = field(default_factory=list)
    now: int = START_MS
    delayed: list[Sent] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    backups: list[tuple[Space, Model]] = field(default_factory=list)
    epochs: int = 1
    clients: int = 0
    ids: list[str] = field(default_factory=lambda: list(IDS))

    def join(self, skew_ms: int = 0) -> Device:
        device = Device(self._new_id(), skew_ms)
        self.devices.append(device)
        return device

    def _new_id(self) -> str:
        return self.ids.pop(0) if self.ids else f"device-late-{len(self.space.names)}"

    # The network -------------------------------------------------------------------------------

    def sync(self, device: Device, most: int, limit: int, fate: str = "answered") -> None:
        """One round trip. Fates: `answered`, `unanswered`, `delayed`, `lost`."""
        self.now += 100
        request = device.request(self.now, most, limit)
        sent = Sent(device.id, json.dumps(request).encode())
        if fate == "delayed":
            self.delayed.append(sent)
        if fate in {"delayed", "lost"}:
            return
        answer = self.arrive(sent)
        if fate == "answered":
            self._hear(device, request, answer)

    def deliver(self, index: int) -> None:
        """A request comes late; nobody waits for its answer any more."""
        self.now += 100
        self.arrive(self.delayed.pop(index % len(self.delayed)))

    def replay(self, index: int) -> None:
        """A request that was answered before comes again."""
        self.now += 100
        sent = self.sent[index % len(self.sent)]
        request = json.loads(sent.body)
        counters = [c["counter"] for c in request["changes"]]
        decided = self.model.count[sent.device]
        repeated = max([*counters, request.get("discarded") or 0], default=0) <= decided
        before = self.space.fingerprint()
        self.arrive(sent)
        if repeated:
            assert self.space.fingerprint() == before, "a repeat changed the state"

    def arrive(self, sent: Sent) -> Op:
        answer = self.space.sync(sent.device, sent.body, self.now)
        self._compare_verdicts(sent, answer)
        self.compare_records()
        self._compare_delta(json.loads(sent.body), answer)
        self.sent.append(sent)
        return answer

    def _hear(self, device: Device, request: Op, answer: Op) -> None:
        if answer.get("error", {}).get("code") != "device_fork":
            device.hear(request, answer)
            self._compare_device(device)
            return
        # It asks so for all its pending changes in one go, and registers anew.
        request = device.request(self.now, len(device.pending), 1000)
        whole = self.arrive(Sent(device.id, json.dumps(request).encode()))
        if "error" not in whole:
            device.hear(request, whole)
            return
        old = device.id
        device.become(self._new_id(), whole["error"]["known"])
        self.space.frozen.add(old)
        self.model.frozen.add(old)

    # Clones, disasters, upkeep -----------------------------------------------------------------

    def clone(self, device: Device) -> None:
        """A second installation with the first one's id; or the first, restored from a backup."""
        self.devices.append(copy.deepcopy(device))

    def backup(self) -> None:
        self.backups.append((self.space.backup(), self.model.backup()))

    def restore(self, index: int) -> None:
        """A backup becomes the next epoch; those taken after it are of the lost history."""
        index %= len(self.backups)
        space, model = self.backups[index]
        self.backups = self.backups[: index + 1]
        self.epochs += 1
        frozen = self.space.frozen
        self.space = space.restored(self.epochs, frozen)
        self.model = model.restored(self.epochs, frozen)

    def purge(self, horizon: int) -> None:
        horizon = min(horizon, self.space.head)
        gone = self.space.purge(horizon)
        assert gone == self.model.forget_tombstones(self.space.horizon)

    def settle(self) -> None:
        """Everyone comes online until nobody has anything left; then all must be equal."""
        while self.delayed:
            self.deliver(0)
        for _ in range(ROUNDS_MAX):
            waiting = [d for d in self.devices if not d.in_sync or d.cursor != self.space.head]
            if not waiting:
                break
            for device in waiting:
                self.sync(device, 1000, 1000)
        else:
            raise AssertionError("the devices do not come to rest")
        for device in self.devices:
            self.sync(device, 1000, 1000)
            self._compare_device(device)
        texts = {_text(shown(device.copy)) for device in self.devices}
        assert len(texts) <= 1, "devices at one cursor hold different records"

    # The comparison ----------------------------------------------------------------------------

    def _compare_verdicts(self, sent: Sent, answer: Op) -> None:
        expected = self.model.push(sent.device, json.loads(sent.body), self.now)
        error = answer.get("error", {})
        if isinstance(expected, Fork):
            assert error.get("code") == "device_fork", (answer, expected)
            assert error["known"] == expected.known
        elif isinstance(expected, Gap):
            assert error.get("code") == "counter_gap", (answer, expected)
            assert error["expected"] == expected.expected
        else:
            assert error.get("code") in {None, "bad_page"}, (answer, expected)
            told = [(r["counter"], r["error"]["code"]) for r in answer["rejected"]]
            assert (answer["accepted"], told) == (expected.accepted, expected.rejected)
        log = [(self.space.names[r], e.counter) for r, e, _ in self.space.log]
        assert log == [change.dot for change in self.model.log]

    def _compare_delta(self, request: Op, answer: Op) -> None:
        """Of each record exactly what the cursor had not seen, and whether it is whole."""
        base = 0 if answer.get("reset") else request["cursor"]
        for told in answer.get("records", []):
            expected = self.model.delta((told["collection"], told["id"]), base)
            assert _as_told(told) == expected, (told, expected)

    def compare_records(self) -> None:
        for key in self.model.keys() | self.space.rows.keys():
            row = self.space.rows.get(key)
            found = None if row is None else self._plain(unpack(row))
            expected = self.model.record(key)
            assert found == _comparable(expected), key

    def _plain(self, record: Record) -> dict[str, Any]:
        return {
            "deleted": record.deleted,
            "position": record.position,
            "fields": {name: self._plain_field(f) for name, f in record.fields.items()},
        }

    def _plain_field(self, value: object) -> object:
        if isinstance(value, Register):
            return [
                (self.space.names[w.replica], w.counter, w.position, w.at, canonical(v))
                for w, v in value.siblings
            ]
        if isinstance(value, Counter):
            return value.total if value.present else None
        if isinstance(value, Document):
            return value.shown if value.present else None
        assert isinstance(value, ObservedRemoveSet)
        elements = {
            text: {(self.space.names[w.replica], w.counter) for w in writes}
            for text, writes in value.elements.items()
        }
        return elements if value.present else None

    def _compare_device(self, device: Device) -> None:
        """A device that stands at the head holds what the oracle holds."""
        if device.transfer is None and (device.cursor, device.epoch) == (
            self.space.head,
            self.space.epoch,
        ):
            assert _text(shown(device.copy)) == _text(self.model.shown()), device.id


def _as_told(told: Op) -> Op:
    conflicts = told.get("conflicts", {})
    values = {name: canonical(value) for name, value in told.get("fields", {}).items()}
    return {
        "position": told["position"],
        "deleted": told.get("deleted", False),
        "replace": told.get("replace", False),
        "fields": values,
        "conflicts": sorted(conflicts),
    }


def _comparable(record: Any) -> Any:
    if record is None:
        return None
    fields: dict[str, Any] = {}
    for name, state in record["fields"].items():
        if state["type"] == "register":
            fields[name] = [(*s[:4], canonical(s[4])) for s in state["siblings"]]
        elif state["type"] == "document":
            fields[name] = state["text"]
        else:
            value = state["total"] if state["type"] == "counter" else state["elements"]
            fields[name] = value if state["present"] else None
    return {**record, "fields": fields}


def _text(rows: dict[Key, dict[str, Any]]) -> str:
    """The rows as one text: 1 and 1.0 are the same value."""
    return "\n".join(f"{key} {canonical(rows[key])}" for key in sorted(rows))


def rows_shown(rows: Rows) -> str:
    return _text(shown(rows))
