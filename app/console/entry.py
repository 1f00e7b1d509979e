"""Logging in and out."""

from __future__ import annotations

import re
from typing import Final

from flask import Response, request, url_for

from app import logins
from app.console import session
from app.console.door import blueprint, page, to
from app.errors import row_of
from app.schemas import Credentials, Email, Password, Shape
from app.wire import load
from storage.accounts import User
from sync.errors import BadRequest, Forbidden, SyncError, TooMany, Unauthenticated, Unavailable

# A path below /admin, and nothing that a browser could read as another host.
_OWN: Final = re.compile(r"/admin(?:[/?][\w\-./?=&%+~:,@]*)?", re.ASCII)


class EntryForm(Shape[Credentials]):
    """Who logs in."""

    MADE = Credentials
    email = Email(required=True)
    password = Password(required=True)


@blueprint.route("/login", methods=["GET", "POST"])
def log_in() -> Response:
    """Ask for email and password; go on to where one wanted to go."""
    if request.method == "GET":
        return _form()
    try:
        user = _checked()
    except (BadRequest, Unauthenticated, Forbidden, TooMany, Unavailable) as error:
        return _form(error)
    response = to(own_path(request.form.get("next", "")))
    session.begin(response, user)
    return response


@blueprint.post("/logout")
def log_out() -> Response:
    """End the session here and in the database."""
    response = to(url_for("console.log_in"))
    session.end(response)
    return response


def own_path(wanted: str) -> str:
    """The path where it is one of the console's, else the overview's."""
    below = wanted.removeprefix(request.script_root)
    if _OWN.fullmatch(below):
        return request.script_root + below
    return url_for("console.overview")


def _checked() -> User:
    session.require_login_form()
    fields = {name: request.form.get(name, "") for name in ("email", "password")}
    wanted = load(EntryForm(), fields, "malformed_request")
    user = logins.checked_user(wanted.email, wanted.password)
    if user.role == "user":
        raise Forbidden("forbidden", "This account has no part in support.")
    return user


def _form(error: SyncError | None = None) -> Response:
    token = session.login_token()
    wanted = request.values.get("next", "")
    made = page(
        "login",
        row_of(error).status if error else 200,
        csrf=session.form_token(token),
        next=wanted,
        email=request.form.get("email", ""),
        error=error,
    )
    session.keep_login_token(made, token)
    if error is not None and "retry_after" in error.extra:
        made.headers["Retry-After"] = str(error.extra["retry_after"])
    return made
