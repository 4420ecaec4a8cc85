"""HTTP/1.1 for clients that may be slow on purpose."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


def closing_after(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, which by itself would wait for the head of a request for ever."""

    class Protocol(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            """Close the connection if its request has not begun in time."""
            super().connection_made(transport)
            self.loop.call_later(seconds, self._close_if_silent)

        def _close_if_silent(self) -> None:
            if self.cycle is None:
                self.transport.close()

    return Protocol
