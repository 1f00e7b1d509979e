"""Spaces and their members."""

from __future__ import annotations

import uuid
from typing import Final
from uuid import UUID

from flask import Blueprint, Response
from sqlalchemy import Connection

from app import attempts, rights
from app.auth import Principal, require_principal, token_principal
from app.openapi import describe
from app.routes import SpaceRef
from app.runtime import runtime
from app.schemas import Member, Members, RoleBody, Space, SpaceBody, SpaceMade, Spaces, email_of
from app.wire import answer, empty, read
from storage import accounts, memberships
from storage.attempts import misses_of
from storage.memberships import Membership, SpaceSeen
from sync.errors import Forbidden, NotFound

blueprint = Blueprint("spaces", __name__, url_prefix="/v1/spaces")

NO_MEMBER: Final = "They are no member of this space."


@blueprint.post("")
@describe("Make a shared space", body=SpaceBody, answer=SpaceMade, status=201)
def create() -> Response:
    """You are its owner."""
    wanted = read(SpaceBody(), runtime().limits)
    space_id = uuid.uuid4()
    with runtime().begin() as connection:
        user_id = require_principal(connection).user_id
        memberships.create_space(connection, space_id, wanted.name, user_id)
    return answer(SpaceMade(space_id, wanted.name, "owner"), 201)


@blueprint.get("")
@describe("List the spaces that you may read", answer=Spaces)
def list_spaces() -> Response:
    """The personal one first, then the oldest."""
    with runtime().begin() as connection:
        user_id = require_principal(connection).user_id
        found = memberships.spaces_of(connection, user_id)
    return answer(Spaces([_space(one) for one in found]))


@blueprint.get("/<space:space>/members")
@describe("List a space's members", answer=Members, errors=[Forbidden])
def list_members(space: SpaceRef) -> Response:
    """The oldest first. Whoever may read the space may read this."""
    with runtime().begin() as connection:
        space_id, _ = _opened(connection, require_principal(connection), space, "read")
        found = memberships.members_of(connection, space_id)
    return answer(Members([Member(one.user_id, one.email, one.role) for one in found]))


@blueprint.put("/<space:space>/members/<path:email>")
@describe(
    "Make someone a member, or change a member's role",
    body=RoleBody,
    answer=Member,
    errors=[Forbidden, "personal_space", "last_owner", "too_many_attempts"],
)
def set_member(space: SpaceRef, email: str) -> Response:
    """For owners. The email must have an account. Who names many that have none has to wait."""
    role = read(RoleBody(), runtime().limits).role
    # Asked twice: a count must outlast the answer 404, and only owners' misses are counted.
    with runtime().begin() as connection:
        _managed(connection, space)
    user = _user(email)
    with runtime().begin() as connection:
        space_id, owners = _managed(connection, space)
        if role != "owner":
            rights.require_owner_left(owners, user.id)
        memberships.set_member(connection, space_id, user.id, role)
    return answer(Member(user.id, user.email, role))


@blueprint.delete("/<space:space>/members/<path:email>")
@describe(
    "Withdraw a membership, or leave",
    status=204,
    errors=[Forbidden, "personal_space", "last_owner"],
)
def remove_member(space: SpaceRef, email: str) -> Response:
    """An owner removes anyone; every member may leave. May be repeated."""
    with runtime().begin() as connection:
        principal = require_principal(connection)
        space_id, membership = _opened(connection, principal, space, "read")
        rights.require_shared(membership)
        owners = memberships.lock_owners(connection, space_id)
        user = _leaver(connection, principal, owners, email)
        if memberships.role_of(connection, space_id, user.id) is None:
            raise NotFound("not_found", NO_MEMBER)
        rights.require_owner_left(owners, user.id)
        memberships.withdraw(connection, space_id, user.id, runtime().now())
    return empty()


def _opened(
    connection: Connection, principal: Principal, space: SpaceRef, action: rights.Action
) -> tuple[UUID, Membership]:
    user_id = principal.user_id
    space_id = memberships.personal_space(connection, user_id) if space == "me" else space
    membership = memberships.role_of(connection, space_id, user_id)
    return space_id, rights.require(membership, action)


def _managed(connection: Connection, space: SpaceRef) -> tuple[UUID, frozenset[UUID]]:
    """The space, which the asker may manage, and its owners, who stay so until the commit."""
    principal = require_principal(connection)
    space_id, membership = _opened(connection, principal, space, "manage")
    rights.require_shared(membership)
    owners = memberships.lock_owners(connection, space_id)
    # Asked again under the lock: two owners may be removing each other at this moment.
    _opened(connection, principal, space, "manage")
    return space_id, owners


def _leaver(
    connection: Connection, principal: Principal, owners: frozenset[UUID], email: str
) -> accounts.User:
    """The user to be withdrawn: anyone for an owner, for others only themselves."""
    address = email_of(email)
    user = accounts.user_by_email(connection, address) if address else None
    if principal.user_id not in owners and (user is None or user.id != principal.user_id):
        raise Forbidden("forbidden", "Only an owner removes others.")
    # In the same words as for an account that is no member.
    if user is None:
        raise NotFound("not_found", NO_MEMBER)
    return user


def _user(email: str) -> accounts.User:
    """The account of the email; raises NotFound, TooMany: else it tells who has an account."""
    misses = misses_of(token_principal().user_id)
    attempts.count(misses)
    address = email_of(email)
    with runtime().begin() as connection:
        user = accounts.user_by_email(connection, address) if address else None
    if user is None:
        raise NotFound("not_found", "No account has this email.")
    attempts.forgive(misses)
    return user


def _space(one: SpaceSeen) -> Space:
    created_at = int(one.created_at.timestamp() * 1000)
    return Space(one.id, one.name, one.role, one.personal, one.head, one.epoch, created_at)
