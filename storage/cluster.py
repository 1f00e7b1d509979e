"""The files of one embedded PostgreSQL, and the process that serves them.

Promises: half-made files never get the name of whole ones; a stranger with a recycled process id
never passes for the server; the socket's folder is closed to everybody but the server's account.
What may be done at once by several processes is decided in `storage.embedded`, under its lock.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from storage.engine import POSTGRES_MAJOR_MIN
from storage.unprivileged import Unprivileged

OWNER: Final = "rejoin"  # of everything in it: PostgreSQL's name for its superuser
PORT: Final = 5432  # only a part of the socket's file name
LOG_BYTES_MAX: Final = 8 * 2**20
# 107 bytes are all that a Unix socket's address holds, and libpq splits hosts at commas.
SOCKET_CHARS_MAX: Final = 107 - len(f"/.s.PGSQL.{PORT}")
SOCKET_PLAIN: Final = re.compile(r"[A-Za-z0-9/._-]+")
PID_LINE, SOCKET_LINE, STATUS_LINE = 0, 4, 7  # of postmaster.pid

CONFIGURATION: Final = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
}
# For the tests' own cluster only: it may be lost with the machine, never with a process.
NOT_DURABLE: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class EmbeddedError(RuntimeError):
    """The embedded server can't start; the text says what to do."""


@dataclass(slots=True)
class Cluster:
    """`data/postgres` and what stands around it: its log and its socket's folder."""

    data: Path
    binaries: Path
    durable: bool = True
    folder: Path = field(init=False)
    as_user: Unprivileged = field(init=False)

    def __post_init__(self) -> None:
        self.folder = self.data / "postgres"
        self.as_user = Unprivileged.find(self.folder, self.binaries / "postgres")

    def make(self) -> None:
        """Make the files if there are none. They get their name when they are whole."""
        self._check_version()
        if (self.folder / "PG_VERSION").exists():
            return
        for left in self.data.glob("postgres.new.*"):
            shutil.rmtree(left, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(dir=self.data, prefix="postgres.new."))
        self.as_user.own(draft)
        arguments = ["-D", str(draft), "-U", OWNER, "--encoding=UTF8", "--locale=C"]
        arguments += ["--auth-local=trust", "--auth-host=reject", "--data-checksums"]
        done = subprocess.run(
            [*self.as_user.wrapper, str(self.binaries / "initdb"), *arguments],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env=_environment(),
            **self.as_user.identity(),
        )
        if done.returncode != 0:
            shutil.rmtree(draft, ignore_errors=True)
            raise EmbeddedError(f"initdb failed in {self.data}: {done.stdout.strip()}")
        draft.rename(self.folder)

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the server's process, which may take a while to answer."""
        self.as_user.own(self.folder)
        self._disown_pid()
        configuration = CONFIGURATION | ({} if self.durable else NOT_DURABLE)
        configuration["unix_socket_directories"] = str(self._make_socket_folder())
        arguments = [str(self.binaries / "postgres"), "-D", str(self.folder)]
        for name, value in configuration.items():
            arguments += ["-c", f"{name}={value}"]
        with self._log().open("ab") as log:
            return subprocess.Popen(
                [*self.as_user.wrapper, *arguments],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in a terminal is for us: we end it last, when nobody needs it any more.
                start_new_session=True,
                env=_environment(),
                **self.as_user.identity(),
            )

    def running_pid(self) -> int | None:
        """The process that serves these files, or None."""
        written = self._pid_line(PID_LINE)
        if written is None or not written.isdigit():
            return None
        return int(written) if self.serves(int(written)) else None

    def serves(self, pid: int) -> bool:
        """Whether the process is the server of these files: zombies and strangers are not."""
        arguments = _arguments(pid)
        return bool(arguments) and "postgres" in arguments[0] and str(self.folder) in arguments

    def status(self) -> str | None:
        """What the server wrote of itself: "starting", "ready", "stopping"; None: nothing."""
        return self._pid_line(STATUS_LINE)

    def socket(self) -> Path | None:
        """The folder of the socket that the last server wrote down, running or killed."""
        written = self._pid_line(SOCKET_LINE)
        return Path(written) if written else None

    def forget_socket(self, socket: Path) -> None:
        """Remove a socket's folder that was made for one run, outside the data folder."""
        if socket.parent != self.data:
            shutil.rmtree(socket, ignore_errors=True)

    def log_end(self) -> str:
        """The last lines of the server's log, for an error's text."""
        lines = self._log().read_text(errors="replace").splitlines()
        return "\n".join(lines[-8:])

    def _pid_line(self, number: int) -> str | None:
        with suppress(FileNotFoundError):
            lines = (self.folder / "postmaster.pid").read_text().splitlines()
            return lines[number].strip() if len(lines) > number else None
        return None

    def _disown_pid(self) -> None:
        """Let no stranger with a recycled process id pass for the server that was killed.

        PostgreSQL refuses to start while the process in postmaster.pid lives, except where that
        is its own parent: so name ourselves. The file must stay: by its shared memory line
        PostgreSQL knows whether orphans of the killed server still write to the files.
        """
        path = self.folder / "postmaster.pid"
        with suppress(FileNotFoundError):
            _, _, rest = path.read_text().partition("\n")
            path.write_text(f"{os.getpid()}\n{rest}")

    def _make_socket_folder(self) -> Path:
        run = self.data / "run"
        if SOCKET_PLAIN.fullmatch(str(run)) and len(str(run)) <= SOCKET_CHARS_MAX:
            run.mkdir(exist_ok=True)
        else:
            run = self._old_socket_folder() or Path(tempfile.mkdtemp(dir="/tmp", prefix="rejoin-"))
        # What a killed server left there names a process id that may be somebody else's by now,
        # and PostgreSQL would refuse to start. The folder serves this cluster alone.
        for left in run.glob(".s.PGSQL.*"):
            left.unlink()
        run.chmod(0o700)
        self.as_user.own(run)
        return run

    def _old_socket_folder(self) -> Path | None:
        """The killed server's: engines that outlived it know no other address."""
        old = self.socket()
        if old is None or not old.is_dir() or old.is_symlink():
            return None
        ours = old.stat().st_uid == self.folder.stat().st_uid
        return old if ours else None

    def _log(self) -> Path:
        log = self.data / "postgres.log"
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            log.replace(log.with_suffix(".log.1"))
        log.touch()
        return log

    def _check_version(self) -> None:
        major = self._major()
        if major < POSTGRES_MAJOR_MIN:
            raise EmbeddedError(
                f"{self.binaries} holds PostgreSQL {major}; {POSTGRES_MAJOR_MIN} or newer is"
                " needed."
            )
        with suppress(FileNotFoundError):
            made_by = (self.folder / "PG_VERSION").read_text().strip()
            if made_by != str(major):
                raise EmbeddedError(
                    f"{self.folder} was made by PostgreSQL {made_by} and {self.binaries} holds"
                    f" {major}: set REJOIN_POSTGRES_BIN to a PostgreSQL {made_by}, or REJOIN_DATA"
                    " to another folder."
                )

    def _major(self) -> int:
        done = subprocess.run(
            [self.binaries / "postgres", "--version"], capture_output=True, text=True, check=False
        )
        found = re.search(r"\) (\d+)", done.stdout)
        if found is None:
            raise EmbeddedError(f"{self.binaries}/postgres does not run: {done.stderr.strip()}")
        return int(found[1])


def _environment() -> dict[str, str]:
    """What the server inherits: no PG… variable of the shell may turn its settings."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def _arguments(pid: int) -> list[str]:
    if Path("/proc/self/cmdline").exists():
        with suppress(OSError):
            return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")
        return []
    # A folder with a space falls apart here; the answer "not ours" then meets PostgreSQL's lock.
    done = subprocess.run(
        ["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return done.stdout.split()
