"""`rejoin.open()`: the app's own SQLite file, with sync.

The app writes plain SQL, through this object or any other connection. This object adds what needs
a hand: a transaction that travels as one change, and the conversation with the server. Network and
bookkeeping use a second connection of their own, so that no setting of the app's gets in the way.
"""

from __future__ import annotations

import json
import os
import random
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import quote as escape

from rejoin import account, catalog, collections, documents, loop, report, schema, settle, spaces
from rejoin.answers import as_object, as_text
from rejoin.apply import writing
from rejoin.bell import Bell
from rejoin.document import Document
from rejoin.errors import Busy, NotLoggedIn, RejoinError, ServerRefused, TrackingError
from rejoin.foreign import make_table
from rejoin.line import Dial, dial
from rejoin.live import Live, State
from rejoin.loop import Loop, Progress, SyncResult
from rejoin.outbox import seal
from rejoin.ownwatch import known
from rejoin.report import Conflict, Status
from rejoin.rows import read_row
from rejoin.rowwatch import RowChange, Watch
from rejoin.schema import get_meta, set_meta
from rejoin.shape import quote, read_shape
from rejoin.track import track, untrack
from rejoin.transport import Http, Session, Urllib3
from rejoin.values import Json, JsonObject, SqlValue, compact

Params = Sequence[Any] | dict[str, Any]
"""As sqlite3 takes them."""
WRITING = re.compile(
    r"\s*(INSERT|UPDATE|DELETE|REPLACE)\b|\s*WITH\b.*\b(INSERT|UPDATE|DELETE|REPLACE\s+INTO)\b",
    re.IGNORECASE | re.DOTALL,
)
"""A statement that writes. A WITH does where it holds a word of writing; a text in it may, too:
then it takes the lock for nothing."""
LOCK_WAIT_S = 30.0
"""How long a statement waits for another connection's transaction."""


def open(  # noqa: A001  # the name says it, as in dbm.open
    path: str | os.PathLike[str],
    server: str | None = None,
    *,
    foreign_keys: bool = True,
    http: Http | None = None,
    sleep: Callable[[float], None] = time.sleep,
    rand: Callable[[], float] = random.random,
    clock: Callable[[], float] = time.time,
    clock_skew_ms: int | None = None,
) -> Database:
    """Opens (or makes) the app's file.

    `server` is remembered in the file. `foreign_keys` is the pragma of both connections. `sleep`,
    `rand` and `clock` are for tests; `clock_skew_ms` makes this device's clock wrong, in the
    triggers too, for demonstrations.
    """
    return Database(path, server, foreign_keys, http, sleep, rand, clock, clock_skew_ms)


class Database:
    """See `open`. Use one from one thread; open the file once more for another."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        server: str | None,
        foreign_keys: bool,
        http: Http | None,
        sleep: Callable[[float], None],
        rand: Callable[[], float],
        clock: Callable[[], float],
        clock_skew_ms: int | None,
    ) -> None:
        self.path = Path(path)
        _for_its_owner_only(path)
        self.connection = _connect(path, foreign_keys)
        self._db = _connect(path, foreign_keys)
        # Text that is no UTF-8 must not stop the loop: it travels to be refused in words.
        self._db.text_factory = _lenient
        schema.create(self._db)
        spaces.number_of(self._db, spaces.PERSONAL)
        self._pool = Urllib3() if http is None else None
        self.http: Http = http if http is not None else cast("Http", self._pool)
        self._sleep, self._rand, self._clock = sleep, rand, clock
        self._foreign_keys = foreign_keys
        self._dial: Dial = dial
        self._lives: list[Live] = []
        self._password: str | None = None
        if server is not None:
            set_meta(self._db, "server", server)
        if clock_skew_ms is not None:
            self._db.execute("UPDATE rejoin_state SET clock_skew_ms = ?", (clock_skew_ms,))
        documents.renew_if_used(self._db)
        self._retrack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops what is live and closes both connections. All state is in the file."""
        for one in self._lives:
            one.stop()
        self.connection.close()
        self._db.close()
        if self._pool:
            self._pool.close()

    # ---- the app's own SQL

    def execute(self, sql: str, params: Params = ()) -> sqlite3.Cursor:
        """One statement, as sqlite3 has it. Outside a transaction it is one change of its own."""
        if self._bare_write(sql):
            with self.transaction():
                return self.connection.execute(sql, params)
        done = self.connection.execute(sql, params)
        if self._lives and not self.connection.in_transaction:
            self._ring()  # a COMMIT, perhaps
        return done

    def executemany(self, sql: str, rows: Iterable[Params]) -> sqlite3.Cursor:
        """One statement for many rows. Outside a transaction: all of them one change."""
        if self._bare_write(sql):
            with self.transaction():
                return self.connection.executemany(sql, rows)
        return self.connection.executemany(sql, rows)

    def _bare_write(self, sql: str) -> bool:
        # A RETURNING statement is not over when its first row is read: it can't be committed then.
        return (
            not self.connection.in_transaction
            and WRITING.match(sql) is not None
            and "RETURNING" not in sql.upper()
        )

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction that travels as one change. Inside another one it is part of that."""
        db = self.connection
        inside = db.in_transaction
        if inside and db.execute("SELECT grp FROM rejoin_state").fetchone()[0]:
            yield db
            return
        db.execute("SAVEPOINT rejoin_inside" if inside else "BEGIN IMMEDIATE")
        try:
            db.execute("UPDATE rejoin_state SET last_grp = last_grp + 1, grp = last_grp + 1")
            yield db
            db.execute("UPDATE rejoin_state SET grp = 0")
            db.execute("RELEASE rejoin_inside" if inside else "COMMIT")
        except BaseException:
            _undo(db, inside)
            raise
        self._ring()

    def read(self, table: str, key: Sequence[SqlValue]) -> dict[str, SqlValue] | None:
        """A row of a tracked table by its key, say of a `RowChange`; None where there is none."""
        for home in collections.read_all(self._db).values():
            if home.name == table and home.tracked:
                return read_row(self.connection, home, tuple(key))
        return None

    def document(self, table: str, key: SqlValue | Sequence[SqlValue], column: str) -> Document:
        """A document field of one row, to be edited: `with db.document(…).edit() as text: …`.

        `key` is the row's key, a sequence where it has several columns. Raises TrackingError, and
        RejoinError where pycrdt is not installed.
        """
        for home in collections.read_all(self._db).values():
            if home.name == table and home.tracked:
                single = isinstance(key, str | bytes) or not isinstance(key, Sequence)
                return Document(self, home, (key,) if single else tuple(key), column)  # type: ignore[arg-type]
        raise TrackingError(f"The table {table!r} is not tracked.")

    # ---- what is tracked

    def track(
        self,
        table: str,
        /,
        *,
        space: str = spaces.PERSONAL,
        kinds: dict[str, str] | None = None,
        **columns: str,
    ) -> int:
        """Tracks a table: `track("tasks", votes="counter", tags="set")`.

        Rows that are there already become changes, the first time; their number is returned. May
        be called at every start: where nothing has changed, nothing happens. `kinds` is for
        columns whose names Python can't take as keywords. Raises TrackingError in words.
        """
        self._not_inside()
        wanted = {**(kinds or {}), **columns}
        if space == spaces.PERSONAL:
            space = self._personal()
        return track(self._db, table, space, wanted, self.now_ms())

    def attach(self, *, space: str = spaces.PERSONAL) -> dict[str, int]:
        """Tracks all tables of the file; returns the number of rows that became changes, by table.

        Tables without a primary key are refused before anything is tracked.
        """
        self._not_inside()
        names = _parents_first(self._db, self.tables())
        for name in names:
            read_shape(self._db, name, {})  # raises before anything is tracked
        known = {h.name: h.kinds for h in collections.read_all(self._db).values() if h.kinds}
        made = {
            name: self.track(name, space=space, kinds={**known.get(name, {})}) for name in names
        }
        number = spaces.number_of(self._db, self._personal() if space == spaces.PERSONAL else space)
        catalog.publish(self._db, spaces.read(self._db, number), self.now_ms())
        return made

    def make_tables(self, space: str = spaces.PERSONAL) -> list[str]:
        """Makes and tracks the tables that a space's other devices have published.

        Raises RejoinError where none has published any, and where a definition would do more than
        make its table: whoever may write to the space may publish one. Then no table is made.
        """
        wanted = self._personal() if space == spaces.PERSONAL else space
        found = catalog.published(self._db, spaces.number_of(self._db, wanted))
        if not found:
            raise RejoinError(
                "This space holds no table definitions; sync a device that tracks"
                " its tables there first."
            )
        have = {name.lower() for name in self.tables()}
        missing = [d for d in found.values() if d.table.lower() not in have]
        with writing(self._db):
            for definition in missing:
                make_table(self._db, definition)
        for name in _parents_first(self._db, [d.table for d in missing]):
            self.track(name, space=space, kinds=found[name].kinds)
        return sorted(found)

    def tables(self) -> list[str]:
        """The app's own tables."""
        return [
            str(r[0])
            for r in self._db.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%'"
                " ESCAPE '\\' AND name NOT LIKE 'rejoin\\_%' ESCAPE '\\'"
                " AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY rowid"
            )
        ]

    def alter(self, sql: str) -> None:
        """One `ALTER TABLE` of a tracked table, also those SQLite refuses while triggers stand."""
        self._not_inside()
        with writing(self._db):
            seal(self._db)
            for home in collections.read_all(self._db).values():
                if home.tracked:
                    untrack(self._db, home.name)
            self._db.execute(sql)
        self._retrack()

    def _retrack(self) -> None:
        """Triggers are made anew where the app has changed its columns or dropped them."""
        for home in collections.read_all(self._db).values():
            if home.kinds is None:
                continue
            space = spaces.read(self._db, home.space)
            try:
                kinds: dict[str, str] = {**home.kinds}
                track(self._db, home.name, space.id, kinds, self.now_ms())
            except TrackingError as error:
                self._db.execute(
                    "INSERT OR REPLACE INTO rejoin_troubles VALUES (?, ?)",
                    (str(error), self.now_ms()),
                )

    # ---- accounts

    def signup(self, email: str, password: str, **device: str) -> None:
        """Makes an account and logs this device in."""
        self.session().anonymous("/v1/auth/signup", {"email": email, "password": password})
        self.login(email, password, **device)

    def login(
        self,
        email: str,
        password: str,
        *,
        name: str = "",
        platform: str = "",
        app_version: str = "",
    ) -> None:
        """Logs this device in, for the first time or again. Raises ServerRefused, Offline.

        An id that the server no longer lets in (revoked, or frozen after a fork) is replaced by a
        new one; nothing pending is lost.
        """
        account.log_in(
            self._db,
            self.session(),
            account.Login(email, password, name, platform, app_version),
        )
        self._password = password
        loop.remember(self._db, None, None)

    def logout(self) -> None:
        """Ends the login; data and pending changes stay."""
        refresh = get_meta(self._db, "refresh_token")
        session = self.session()
        if refresh:
            with suppress(ServerRefused):  # it may have ended already
                session.anonymous("/v1/auth/logout", {"refresh_token": refresh})
        session.forget()
        self._password = None

    # ---- spaces

    def spaces(self) -> list[JsonObject]:
        """The spaces that the account may read, as the server lists them."""
        listed = self.session().get("/v1/spaces").get("spaces")
        return [as_object(one) for one in (listed if isinstance(listed, list) else [])]

    def create_space(self, name: str) -> str:
        """Makes a shared space; returns its id, for `track(…, space=id)`."""
        return as_text(self.session().send("/v1/spaces", compact({"name": name})).get("id"))

    def share(self, space: str, email: str, role: str = "editor") -> None:
        """Gives somebody a role in a space: owner, editor or viewer."""
        self.session().send(
            f"/v1/spaces/{escape(space)}/members/{escape(email)}", compact({"role": role}), "PUT"
        )

    def join(self, space: str) -> None:
        """Has this device pull a shared space, also before a table of it is tracked."""
        spaces.number_of(self._db, space)

    # ---- sync

    def sync(self, progress: Callable[[Progress], None] | None = None) -> SyncResult:
        """Pushes what is pending and pulls what is new. Raises RejoinErrors in words.

        May be called again after any error, or after the process was killed at any point.
        """
        self._not_inside()
        return self.sync_watched(None, progress)

    def sync_watched(
        self, watch: Watch | None, progress: Callable[[Progress], None] | None = None
    ) -> SyncResult:
        """As `sync()`; `watch` is told which rows it changed."""
        run = Loop(
            self._db,
            self.session(),
            self.now_ms,
            progress,
            get_meta(self._db, "app_version"),
            self._credentials,
            watch,
        )
        try:
            loop.retry_aside(self._db, self.now_ms(), watch)
            result = run.run()
        except RejoinError as error:
            loop.remember(self._db, str(error), self.now_ms())
            raise
        words = "; ".join(result.errors.values())
        loop.remember(self._db, words or None, self.now_ms())
        return result

    def _credentials(self) -> tuple[str, str] | None:
        email = get_meta(self._db, "email")
        return (email, self._password) if email and self._password else None

    def status(self) -> Status:
        """What is pending and since when, and what went wrong, in words: `str(db.status())`."""
        return report.status(self._db)

    def conflicts(self) -> list[Conflict]:
        """Cells with concurrent values. A plain UPDATE of the column settles one."""
        if not self.connection.in_transaction:
            settle.sealed(self._db)
        return report.conflicts(self._db)

    def dismiss(self) -> int:
        """Forgets the refused changes that status() lists; returns how many there were."""
        return self._db.execute("DELETE FROM rejoin_refused").rowcount

    def log(self, limit: int = 50) -> list[dict[str, Any]]:
        """This device's own changes, the youngest first, and what became of them."""
        settle.sealed(self._db)
        return [
            {"space": space, "state": state, **json.loads(body)}
            for space, state, body in self._db.execute(
                "SELECT s.id, c.state, c.body FROM rejoin_changes AS c JOIN rejoin_spaces AS s"
                " ON s.no = c.space ORDER BY c.at DESC, c.counter DESC LIMIT ?",
                (limit,),
            )
        ]

    def now_ms(self) -> int:
        """This device's wall clock."""
        skew = self._db.execute("SELECT clock_skew_ms FROM rejoin_state").fetchone()[0]
        return int(self._clock() * 1000) + int(skew)

    def _personal(self) -> str:
        return str(self._db.execute("SELECT id FROM rejoin_spaces WHERE no = 1").fetchone()[0])

    # ---- live

    def live(
        self,
        on_change: Callable[[list[RowChange]], None] | None = None,
        *,
        on_presence: Callable[[str, str, Json], None] | None = None,
        on_state: Callable[[State, str], None] | None = None,
    ) -> Live:
        """Starts a thread that sends changes as they are made and takes others' as they come.

        It goes by websocket, long poll or plain sync, whichever the network lets through, through
        any number of reconnects, until `stop()` or `close()`, or until this login has ended (see
        `Live.state` and `Live.words`). The callbacks are called from that thread, after the local
        commit, so use a connection of the thread's own in them: `on_change` gets the rows that
        changed, `on_presence` gets space, device and state (None: gone), `on_state` the state and
        why. Raises NotLoggedIn.
        """
        if str(self.path) in ("", ":memory:"):
            raise RejoinError("live() opens the file once more, and this database is none.")
        self._not_inside()
        self.session().token()
        self._lives = [one for one in self._lives if one.state != "stopped"]
        made = Live(
            self._again,
            on_change,
            on_presence,
            on_state,
            self._rand,
            self._personal(),
            known(self._db),
            self._dial,
        )
        self._lives.append(made)
        return made

    def _again(self, bell: Bell) -> Database:
        """The file once more, for a thread."""
        http = None if self._pool else self.http
        made = Database(
            self.path, None, self._foreign_keys, http, bell.sleep, self._rand, self._clock, None
        )
        made._password = self._password
        return made

    def _ring(self) -> None:
        for one in self._lives:
            one.ring()

    @property
    def file(self) -> sqlite3.Connection:
        """Rejoin's own connection: for its own parts."""
        return self._db

    def server(self) -> str:
        """The server's address. Raises NotLoggedIn where none was ever given."""
        server = get_meta(self._db, "server")
        if server is None:
            raise NotLoggedIn("No server is set: open the file with server='http://…' once.")
        return server

    def session(self) -> Session:
        """Requests in this device's name."""
        made = Session(self._db, self.server(), self.http, self._sleep, self._rand)
        made.password = self._password
        return made

    def _not_inside(self) -> None:
        if self.connection.in_transaction:
            raise Busy("This needs the file for itself; commit the open transaction first.")


def _for_its_owner_only(path: str | os.PathLike[str]) -> None:
    """A file made here is readable by its owner alone: it holds the tokens of the login.

    One that is there already keeps the mode that the app has given it. SQLite gives the same mode
    to the journals beside it.
    """
    name = os.fspath(path)
    if name and name != ":memory:" and not name.startswith("file:"):
        with suppress(OSError):
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _connect(path: str | os.PathLike[str], foreign_keys: bool) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False)
    db.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")
    return db


def _undo(db: sqlite3.Connection, inside: bool) -> None:
    if db.in_transaction:  # a constraint of the app's may have rolled it back already
        db.execute("ROLLBACK TO rejoin_inside" if inside else "ROLLBACK")
        if inside:
            db.execute("RELEASE rejoin_inside")


def _lenient(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _parents_first(db: sqlite3.Connection, tables: list[str]) -> list[str]:
    """Tables in an order in which foreign keys point backwards, where there is one."""
    rest, done = list(tables), []
    while rest:
        free = [
            t
            for t in rest
            if not any(
                r[2].lower() in {x.lower() for x in rest if x != t}
                for r in db.execute(f"PRAGMA foreign_key_list({quote(t)})")
            )
        ] or rest[:1]
        done += free
        rest = [t for t in rest if t not in free]
    return done
