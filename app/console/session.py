"""Who is at the console: a session in the database, its token in a cookie, and what proves that
a form was ours.

The cookie says nothing in itself: storage/consoles.py looks each time whether the session lives.
A form's token is made from the cookie's, so that a page of another site, which can have the
cookie sent but can't read it, can't make one.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from flask import Response, request

from app.admin.writing import replica_of
from app.auth import ROLES, Principal
from app.runtime import runtime
from storage import consoles
from storage.accounts import User
from sync.errors import Forbidden, Unauthenticated

# A working day: nobody has to log in twice, and a computer left alone is out the next morning.
SESSION_HOURS: Final = 10
# A login page left open for longer is asked for anew.
LOGIN_HOURS: Final = 1
COOKIE: Final = "rejoin-console"
LOGIN_COOKIE: Final = "rejoin-console-login"
CSRF_FIELD: Final = "csrf"
TOKEN_CHARS_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Agent:
    """Who is logged in. `role` is `support` or `admin`; `csrf` belongs into every form."""

    user_id: UUID
    email: str
    role: str
    csrf: str

    @property
    def principal(self) -> Principal:
        """As the functions behind the API know the agent: by the replica that writes for them."""
        return Principal(self.user_id, replica_of(self.user_id), self.role)

    def may(self, least: str) -> bool:
        """Whether the role has the rights of that one of ROLES."""
        return ROLES.index(self.role) >= ROLES.index(least)


def require_agent() -> Agent:
    """Whose session the request's cookie names; raises Unauthenticated("token_missing")."""
    token = _cookie(COOKIE)
    with runtime().begin() as connection:
        staff = consoles.find(connection, token, runtime().now()) if token else None
    if staff is None:
        raise Unauthenticated("token_missing", "You are not logged in, or your session has ended.")
    return Agent(staff.user_id, staff.email, staff.role, form_token(token))


def begin(response: Response, user: User) -> None:
    """Start a session of one whose password was just checked; the one before ends."""
    life = timedelta(hours=SESSION_HOURS)
    now = runtime().now()
    with runtime().begin() as connection:
        consoles.end(connection, _cookie(COOKIE))
        token = consoles.begin(connection, user, now, now + life)
    _set(response, COOKIE, token, life)
    response.delete_cookie(_named(LOGIN_COOKIE), path=_path())


def end(response: Response) -> None:
    """End the session, in the database and in the browser."""
    with runtime().begin() as connection:
        consoles.end(connection, _cookie(COOKIE))
    response.delete_cookie(_named(COOKIE), path=_path())


def require_form(token: str) -> None:
    """Raise Forbidden unless the posted form was made for this token's holder."""
    given = request.form.get(CSRF_FIELD, "")
    if not token or not hmac.compare_digest(form_token(token).encode(), given.encode()):
        raise Forbidden("forbidden", "The form is not from this session: load the page again.")


def require_own_form() -> None:
    """As `require_form`, of who is logged in."""
    require_form(_cookie(COOKIE))


def form_token(token: str) -> str:
    """What stands in the forms of the token's holder."""
    secret = runtime().settings.secret.encode()
    return hmac.digest(secret, f"console form {token}".encode(), "sha256").hex()


# Before there is a session --------------------------------------------------------------------


def login_token() -> str:
    """A random token for the login form: without one, another site could log its visitors in."""
    return _cookie(LOGIN_COOKIE) or secrets.token_urlsafe(32)


def keep_login_token(response: Response, token: str) -> None:
    """Have the browser send it with the form."""
    _set(response, LOGIN_COOKIE, token, timedelta(hours=LOGIN_HOURS))


def require_login_form() -> None:
    """As `require_form`, of who is not logged in yet."""
    require_form(_cookie(LOGIN_COOKIE))


# Cookies ----------------------------------------------------------------------------------------


def _named(name: str) -> str:
    # Browsers take a cookie of this name from this host over TLS only (RFC 6265bis §4.1.3.2).
    return f"__Host-{name}" if request.is_secure else name


def _path() -> str:
    return "/" if request.is_secure else f"{request.script_root}/admin"


def _cookie(name: str) -> str:
    found = request.cookies.get(_named(name), "")
    return found if len(found) <= TOKEN_CHARS_MAX and found.isascii() else ""


def _set(response: Response, name: str, token: str, life: timedelta) -> None:
    response.set_cookie(
        _named(name),
        token,
        max_age=life,
        path=_path(),
        secure=request.is_secure,
        httponly=True,
        # Lax: a link in a ticket leads to the device. What changes anything is a form's POST.
        samesite="Lax",
    )
