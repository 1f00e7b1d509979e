"""Signup, login, renewal, logout."""

from __future__ import annotations

from flask import Blueprint, Response, request

from app import logins
from app.openapi import describe
from app.runtime import runtime
from app.schemas import Account, LoginBody, RefreshBody, Session, SignupBody
from app.wire import answer, empty, read

blueprint = Blueprint("accounts", __name__, url_prefix="/v1/auth")


@blueprint.post("/signup")
@describe(
    "Make an account",
    body=SignupBody,
    answer=Account,
    status=201,
    errors=["email_taken", "too_many_attempts"],
    auth=False,
    example={"email": "ada@example.org", "password": "correct horse battery staple"},
)
def sign_up() -> Response:
    """The account gets a personal space. Emails are compared without regard to case. Many signups
    from one address have to wait.
    """
    wanted = read(SignupBody(), runtime().limits)
    return answer(logins.sign_up(wanted), 201)


@blueprint.post("/login")
@describe(
    "Log in, as a new device or again as a known one",
    body=LoginBody,
    answer=Session,
    errors=[
        "bad_credentials",
        "device_revoked",
        "not_found",
        "device_fork",
        "too_many_attempts",
    ],
    auth=False,
    example={
        "email": "ada@example.org",
        "password": "correct horse battery staple",
        "device": {"name": "Ada's phone", "platform": "Android 16", "app_version": "4.2.0"},
    },
)
def log_in() -> Response:
    """With `device_id`, the same device logs in again and its older refresh tokens end. An id that
    the server does not know any more is registered anew. With `device.replaces`, the device of
    that id is frozen for good.
    """
    return answer(logins.log_in(read(LoginBody(), runtime().limits)))


@blueprint.post("/refresh")
@describe(
    "Renew the tokens",
    body=RefreshBody,
    answer=Session,
    errors=["token_invalid", "token_expired", "token_reused", "device_revoked", "device_fork"],
    auth=False,
)
def refresh() -> Response:
    """A refresh token is good once. A second use ends all tokens that came of the same login, and
    there is no grace: a device renews in one place at a time, and logs in again where the answer
    was lost.
    """
    renewal = read(RefreshBody(), runtime().limits)
    return answer(logins.renew(renewal.refresh_token))


@blueprint.post("/logout")
@describe(
    "Log out: end the device's refresh tokens",
    body=RefreshBody,
    status=204,
    errors=["token_missing", "token_expired", "token_invalid"],
    auth=False,
)
def log_out() -> Response:
    """Takes the refresh token, which needs no access token that may have expired; without a body,
    the access token names the device. The access token itself goes on until it expires: revoke
    the device to end it at once.
    """
    has_body = bool(request.content_length) or "Transfer-Encoding" in request.headers
    token = read(RefreshBody(), runtime().limits).refresh_token if has_body else None
    logins.log_out(token)
    return empty()
