"""Bodies as they travel: JSON or MessagePack, plain or compressed, in and out.

Promises: no more than `body_bytes` of a body are ever held, compressed or not, so a bomb costs
what an honest body costs; a client is never answered in a form that it can't read, and learns so
before anything was changed. Decompressing is in inflate.py, looking closely in trees.py.

Sources: RFC 8259 (JSON), RFC 9110 §12 (negotiation).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, TypeVar

import msgspec
from backports import zstd
from flask import Response, request
from marshmallow import ValidationError

from app.inflate import inflated, too_large
from app.schemas import Shape
from app.trees import Body as Body  # noqa: PLC0414 - for callers
from app.trees import Doubled as Doubled  # noqa: PLC0414 - for callers
from app.trees import Format
from app.trees import parse_tree as parse_tree  # noqa: PLC0414 - for callers
from sync.errors import BadRequest, NotAcceptable, UnsupportedMedia
from sync.limits import Limits

T = TypeVar("T")

JSON: Final = "application/json"
MSGPACK: Final = "application/msgpack"
FORMATS: Final[dict[str, Format]] = {
    JSON: "json",
    MSGPACK: "msgpack",
    "application/x-msgpack": "msgpack",
}

READ_BYTES: Final = 64 * 2**10
# Logins and names are small: a body of this many bytes has none of them.
SMALL_BODY_BYTES: Final = 64 * 2**10
# Below this the headers weigh more than what compression saves.
COMPRESS_BYTES_MIN: Final = 1024
# A page is compressed while others wait: speed first.
GZIP_LEVEL: Final = 1
ZSTD_LEVEL: Final = 1
# Objects of our own small bodies are flat; deeper ones are not meant for us.
SMALL_BODY_DEPTH: Final = 16
SHOWN_ERRORS_MAX: Final = 20
SHOWN_NAME_CHARS: Final = 80


# In -----------------------------------------------------------------------------------------


def read_body(limits: Limits, bytes_max: int | None = None) -> Body:
    """This request's body. Looks at `Accept` first: a 406 must come before anything is done.

    Raises NotAcceptable, UnsupportedMedia, TooLarge, BadRequest (`bad_encoding`).
    """
    wanted_format()
    format_ = _content_format()
    most = min(limits.body_bytes, bytes_max or limits.body_bytes)
    if (request.content_length or 0) > most:
        raise too_large(most)
    return Body(inflated(_coding(), _chunks(most), most), format_)


def _content_format() -> Format:
    if not request.mimetype:
        return "json"
    try:
        return FORMATS[request.mimetype]
    except KeyError:
        raise UnsupportedMedia("unsupported_media_type") from None


def _coding() -> str:
    coding = request.headers.get("Content-Encoding", "").strip().lower() or "identity"
    if coding not in {"identity", "gzip", "x-gzip", "zstd"}:
        raise UnsupportedMedia("unsupported_encoding")
    return coding.removeprefix("x-")


def _chunks(most: int) -> Iterator[bytes]:
    """The body as it was sent, at most `most` bytes of it."""
    total = 0
    while chunk := _read_chunk():
        total += len(chunk)
        if total > most:
            raise too_large(most)
        yield chunk


def _read_chunk() -> bytes:
    try:
        return request.stream.read(READ_BYTES)
    # Each WSGI server has exceptions of its own for a body that ends early or is badly chunked.
    except Exception as error:
        raise BadRequest("malformed_body", "The body could not be read to its end.") from error


# Small bodies and queries -------------------------------------------------------------------


def read(shape: Shape[T], limits: Limits) -> T:
    """This request's small body as the value that the schema makes.

    Raises what `read_body` raises, and BadRequest: `malformed_body`, `duplicate_key`, `too_deep`,
    `invalid_text`, `malformed_request` with `errors`, sentences by field.
    """
    return decode(read_body(limits, SMALL_BODY_BYTES), shape)


def decode(body: Body, shape: Shape[T]) -> T:
    """The body as the value that the schema makes; raises as `read`."""
    tree = parse_tree(body)
    _require_plain(tree)
    if not isinstance(tree, dict):
        raise BadRequest("malformed_request", "The body must be an object.")
    return load(shape, tree, "malformed_request")


def read_query(shape: Shape[T]) -> T:
    """The query parameters as the value that the schema makes.

    Raises BadRequest: `bad_parameter` with `errors`, also where a parameter comes twice.
    """
    wanted_format()
    for name, values in request.args.lists():
        if len(values) > 1:
            raise BadRequest("bad_parameter", errors={_shown(name): "It comes twice."})
    return load(shape, request.args.to_dict(), "bad_parameter")


def load(shape: Shape[T], tree: dict[Any, Any], code: str) -> T:
    """`shape.load` with its ValidationError turned into BadRequest(code, errors=…)."""
    try:
        value: T = shape.load(tree)
    except ValidationError as error:
        raise BadRequest(code, errors=shown_errors(error.messages)) from None
    return value


def shown_errors(messages: object) -> dict[str, str]:
    """marshmallow's messages as {"device.name": "Not a valid string."}, cut to a bounded size."""
    flat = _flat_errors("", messages)
    return {
        path: text for path, text in (next(flat, ("", "")) for _ in range(SHOWN_ERRORS_MAX)) if text
    }


def _flat_errors(path: str, messages: object) -> Iterator[tuple[str, str]]:
    if isinstance(messages, dict):
        for name, inner in messages.items():
            yield from _flat_errors(f"{path}.{_shown(name)}" if path else _shown(name), inner)
    elif isinstance(messages, list):
        yield path, " ".join(str(message) for message in messages)
    else:
        yield path, str(messages)


def _shown(name: object) -> str:
    return name[:SHOWN_NAME_CHARS] if isinstance(name, str) else repr(name)[:SHOWN_NAME_CHARS]


def _require_plain(tree: object) -> None:
    """Refuse what JSON has not, level by level: no recursion, so depth costs nothing."""
    level = [tree]
    for _ in range(SMALL_BODY_DEPTH):
        level = [child for value in level for child in _children(value)]
        if not level:
            return
    raise BadRequest("too_deep")


def _children(value: object) -> Iterator[object]:
    if isinstance(value, Doubled):
        raise BadRequest("duplicate_key")
    if isinstance(value, float) and value - value != 0:
        raise BadRequest("malformed_body", "Numbers must be finite (RFC 8259).")
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


# Out ----------------------------------------------------------------------------------------

_ENCODE: Final[dict[Format, Callable[[object], bytes]]] = {
    "json": msgspec.json.Encoder().encode,
    "msgpack": msgspec.msgpack.Encoder().encode,
}


def answer(value: object, status: int = 200) -> Response:
    """The value (dicts, msgspec structs, `msgspec.Raw`) in the form that the client accepts.

    Bytes are base64 in JSON and themselves in MessagePack. Raises NotAcceptable.
    """
    type_ = wanted_format()
    response = Response(_ENCODE[FORMATS[type_]](value), status, content_type=type_)
    return compressed(response)


def empty(status: int = 204) -> Response:
    """An answer without a body."""
    response = Response(status=status)
    response.headers.pop("Content-Type", None)
    return response


def compressed(response: Response) -> Response:
    """The response, compressed as the client accepts and where it is worth it."""
    response.headers["Vary"] = "Accept, Accept-Encoding"
    data = response.get_data()
    coding = accepted_coding() if len(data) >= COMPRESS_BYTES_MIN else None
    if coding is not None:
        response.set_data(_compress(coding, data))
        response.headers["Content-Encoding"] = coding
    return response


def _compress(coding: Literal["zstd", "gzip"], data: bytes) -> bytes:
    if coding == "zstd":
        return zstd.compress(data, ZSTD_LEVEL)
    # 31: the gzip wrapper (RFC 1952). Unlike gzip.compress, this writes no time of day.
    return zlib.compress(data, GZIP_LEVEL, wbits=31)


def accepted_coding() -> Literal["zstd", "gzip"] | None:
    """The better of the codings that the client takes; zstd where it takes both alike."""
    accepted = request.accept_encodings
    if not accepted:
        return None
    with_zstd, with_gzip = accepted["zstd"], accepted["gzip"]
    if max(with_zstd, with_gzip) <= 0:
        return None
    return "zstd" if with_zstd >= with_gzip else "gzip"


def wanted_format() -> str:
    """The media type to answer with, one of FORMATS; JSON where all is welcome.

    Raises NotAcceptable.
    """
    # Devices name one type: what they sent says it, without a parser's look.
    only = request.environ.get("HTTP_ACCEPT", JSON)
    if only in FORMATS:
        return str(only)
    accepted = request.accept_mimetypes
    if not accepted:
        return JSON
    found = accepted.best_match(list(FORMATS))
    if found is None:
        raise NotAcceptable("not_acceptable")
    return found


def streamed(chunks: Iterator[bytes], type_: str) -> Response:
    """An answer of unknown length, compressed as the client accepts, each chunk sent at once."""
    coding = accepted_coding()
    response = Response(_compressing(chunks, coding), content_type=type_)
    response.headers["Vary"] = "Accept-Encoding"
    if coding is not None:
        response.headers["Content-Encoding"] = coding
    return response


def _compressing(
    chunks: Iterator[bytes], coding: Literal["zstd", "gzip"] | None
) -> Iterator[bytes]:
    if coding is None:
        yield from chunks
    elif coding == "zstd":
        compressor = zstd.ZstdCompressor(ZSTD_LEVEL)
        for chunk in chunks:
            yield compressor.compress(chunk, zstd.ZstdCompressor.FLUSH_BLOCK)
        yield compressor.flush()
    else:
        deflater = zlib.compressobj(GZIP_LEVEL, wbits=31)
        for chunk in chunks:
            yield deflater.compress(chunk) + deflater.flush(zlib.Z_SYNC_FLUSH)
        yield deflater.flush()
