"""What goes wrong, as pages."""

from __future__ import annotations

from flask import Response, request, url_for

from app.console.door import blueprint, page, to
from app.errors import row_of, sync_error
from sync.errors import NotFound, Unauthenticated


@blueprint.route("/<path:_rest>", methods=["GET", "POST"])
def nowhere(_rest: str) -> Response:
    """All that is no page."""
    raise NotFound("not_found")


@blueprint.errorhandler(Exception)
def _handle(error: Exception) -> Response:
    told = sync_error(error)
    if isinstance(told, Unauthenticated):
        # Only a page can be come back to: what was posted is lost.
        wanted = request.full_path.rstrip("?") if request.method == "GET" else None
        return to(url_for("console.log_in", next=wanted))
    row = row_of(told)
    return page("error", row.status, title=row.title, error=told)
