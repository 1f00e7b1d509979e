"""A server that does nothing but answer: what the load generator reaches when nobody slows it.

    python -m benchmarks.responder    prints its port; ends when its standard input is closed

It reads no header but the length, and answers every request with the same bytes.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

BODY: Final = b'{"server_time":1763800000000,"spaces":{"me":{"epoch":1,"records":[]}}}'
ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
) + BODY


class _Responder(asyncio.Protocol):
    """One connection: counts the bytes of its requests, answers each."""

    def __init__(self) -> None:
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        while (head := self._got.find(b"\r\n\r\n")) >= 0:
            at = self._got.find(b"Content-Length: ")
            length = int(self._got[at + 16 : self._got.find(b"\r\n", at)]) if at >= 0 else 0
            if len(self._got) < head + 4 + length:
                return
            self._got = self._got[head + 4 + length :]
            self._transport.write(ANSWER)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Responder, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(_serve())
