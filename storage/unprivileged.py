"""Who the embedded PostgreSQL runs as: it refuses root, whatever root is for.

Promises: no account is made and no folder of anybody's is opened wider. An ordinary user runs it
as themselves. Root runs it as the account `postgres`, or `nobody`. Where that account can't reach
the folder (a project in /root), root runs it in a user namespace, where root has another number
but owns the same files.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypedDict

ACCOUNTS = ("postgres", "nobody")


class Identity(TypedDict, total=False):
    """What subprocess takes to become somebody else."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Unprivileged:
    """How to start a program that refuses root. `wrapper` goes before its arguments.

    `account` is None for an ordinary user, who is nobody else, and for a namespace.
    """

    account: pwd.struct_passwd | None
    wrapper: tuple[str, ...] = ()

    @classmethod
    def find(cls, folder: Path, program: Path) -> Self:
        """The way that reaches both `folder`, which need not be there yet, and `program`."""
        if os.geteuid() != 0:
            return cls(None)
        account = _account(folder)
        if _reaches(account, folder.parent) and _runs(account, program):
            return cls(account)
        if (unshare := shutil.which("unshare")) is None:
            raise PermissionError(
                f"PostgreSQL refuses to run as root, and {account.pw_name} can't reach"
                f" {folder}: move the project out of a closed folder, run it as an ordinary user,"
                " or set DATABASE_URL."
            )
        user = f"--map-user={account.pw_uid}"
        group = f"--map-group={account.pw_gid}"
        return cls(None, (unshare, "--user", user, group, "--"))

    def identity(self) -> Identity:
        """For subprocess: become the account, with none of root's groups."""
        if self.account is None:
            return {}
        return {"user": self.account.pw_uid, "group": self.account.pw_gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give a file or a tree to whom the program runs as; an ordinary user can't."""
        if os.geteuid() != 0:
            return
        user, group = (self.account.pw_uid, self.account.pw_gid) if self.account else (0, 0)
        if path.stat().st_uid == user:
            return
        for folder, _, files in os.walk(path):
            for name in files:
                os.chown(Path(folder) / name, user, group, follow_symlinks=False)
            os.chown(folder, user, group, follow_symlinks=False)


def _account(folder: Path) -> pwd.struct_passwd:
    # Files that an ordinary user made stay theirs when root starts the server for once.
    if folder.exists() and (owner := folder.stat().st_uid) != 0:
        with suppress(KeyError):
            return pwd.getpwuid(owner)
    for name in ACCOUNTS:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise PermissionError(
        "PostgreSQL refuses to run as root, and there is no account postgres or nobody to run it:"
        " run as an ordinary user, or set DATABASE_URL."
    )


def _reaches(account: pwd.struct_passwd, folder: Path) -> bool:
    """Whether the account may pass through every folder on the way, as everybody may."""
    return all(_enters(account, step) for step in (folder, *folder.parents))


def _enters(account: pwd.struct_passwd, folder: Path) -> bool:
    status = folder.stat()
    return bool(status.st_mode & (0o100 if status.st_uid == account.pw_uid else 0o001))


def _runs(account: pwd.struct_passwd, program: Path) -> bool:
    try:
        done = subprocess.run(
            [program, "--version"],
            cwd="/",
            capture_output=True,
            check=False,
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
        )
    except PermissionError:
        return False
    return done.returncode == 0
