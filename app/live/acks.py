"""What devices say they have applied, remembered for support staff and compaction.

Promise: many acknowledgements are one write, nobody waits for it, it waits for nobody, and one
that is lost, for the database is away, costs nothing: the device tells its cursor again with its
next message.
"""

from __future__ import annotations

import logging
from typing import Final
from uuid import UUID

import gevent

from app.access import open_space
from app.auth import Principal
from app.errors import UNREACHABLE, sync_error
from app.runtime import Runtime
from storage import replicas
from storage.engine import no_disk
from storage.replicas import Acknowledged
from storage.sql import cursor
from sync.errors import SyncError

log = logging.getLogger(__name__)

WRITE_SECONDS: Final = 1.0
# A device that never pushed needs a number first, which takes its space's lock.
NUMBERED_AT_ONCE: Final = 50


class Acks:
    """Those of a worker."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._waiting: dict[tuple[UUID, UUID], tuple[Principal, Acknowledged]] = {}
        self._writing = False

    def remember(self, who: Principal, space: UUID, epoch: int, at: int) -> None:
        """The device has applied the space's log up to the cursor."""
        told = Acknowledged(space, who.device_id, epoch, at)
        self._waiting[space, who.device_id] = (who, told)
        if not self._writing:
            self._writing = True
            gevent.spawn_later(WRITE_SECONDS, self._write)

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, {}
        try:
            with no_disk(self._runtime.engine) as connection:
                cur = cursor(connection)
                left = replicas.acknowledge_all(cur, [told for _, told in waiting.values()])
            for key in [*left.unnumbered[NUMBERED_AT_ONCE:], *left.locked]:
                self._waiting.setdefault(key, waiting[key])
            for key in left.unnumbered[:NUMBERED_AT_ONCE]:
                self._add(*waiting[key])
        except UNREACHABLE as error:
            log.warning("cursors are not remembered: %s", type(error).__name__)
        except Exception as error:  # noqa: BLE001 - logged; the next ones must be written
            sync_error(error)
        finally:
            self._writing = bool(self._waiting)
            if self._writing:
                gevent.spawn_later(WRITE_SECONDS, self._write)

    def _add(self, who: Principal, told: Acknowledged) -> None:
        try:
            with no_disk(self._runtime.engine) as connection:
                cur = cursor(connection)
                space = open_space(cur, who, str(told.space), "read", lock=True)
                replica = space.replica or replicas.add(cur, space.id, who.device_id)
                replicas.acknowledge(cur, space.id, replica, told.cursor, told.epoch)
        except SyncError:
            return  # revoked or withdrawn meanwhile
