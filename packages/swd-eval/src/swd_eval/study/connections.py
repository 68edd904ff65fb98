"""What a connection may take of the server: uvicorn's HTTP protocol with deadlines and a cap, which it has not."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 400
REQUEST_SECONDS = 15.0
"""To send a request whole; as long may a connection stay open without one."""
RESPONSE_SECONDS = 300.0
"""To take an answer: a video over a slow line."""
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class TimedProtocol(H11Protocol):
    """Ends a connection that sends its request, or takes its answer, too slowly; turns away what is too many."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.write(_FULL)
            transport.close()
        self._within(REQUEST_SECONDS)

    def data_received(self, data: bytes) -> None:
        """Read a part of a request; once it is whole, the time for its answer begins."""
        if self.transport.is_closing():
            return
        before = self.conn.their_state
        super().data_received(data)
        if before in (h11.IDLE, h11.SEND_BODY) and self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._within(RESPONSE_SECONDS)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request; what disagrees with itself in mid-answer ends the connection."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE) and not (self.cycle and self.cycle.response_started):
            super().send_400_response(msg)
        else:
            self.transport.abort()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request, unless a part of this one or of its answer is still on the way."""
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE and not self.transport.get_write_buffer_size():
            self._within(REQUEST_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _within(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self.transport.abort)
