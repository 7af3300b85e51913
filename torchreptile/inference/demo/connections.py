"""HTTP connections that cannot lock others out: a deadline for headers, and the oldest idle one makes room."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 64
HEADER_SECONDS = 10.0  # time limit for the headers of a request, from the connection or the last response


class BoundedConnection(H11Protocol):
    """One connection; it is idle while no request of it is being answered."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._idle_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the deadline; close the connection that has been idle longest if there are too many."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > CONNECTIONS:
            idle = [one for one in self.connections if isinstance(one, BoundedConnection) and one.idle]
            min(idle, key=lambda one: one._idle_since).close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._stop_waiting()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Handle what has arrived; the deadline ends with the headers."""
        super().handle_events()
        if not self.idle:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._wait()
        super().on_response_complete()

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def close(self) -> None:
        """Close the connection at once."""
        self._stop_waiting()
        if not self.transport.is_closing():
            self.transport.abort()
        self.connections.discard(self)

    def _wait(self) -> None:
        self._stop_waiting()
        self._idle_since = self.loop.time()
        self._deadline = self.loop.call_later(HEADER_SECONDS, self.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
