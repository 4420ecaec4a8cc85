"""HTTP/1.1 for clients that may be slow on purpose."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class Protocol(H11Protocol):  # type: ignore[misc]  # Any, where the extra is not installed
    """uvicorn's, which would wait for the head of a request as long as a client likes."""

    def __init__(self, *args: Any, seconds: float, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._seconds = seconds

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Close the connection if its request has not begun in time."""
        super().connection_made(transport)
        self.loop.call_later(self._seconds, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.cycle is None:
            self.transport.close()
