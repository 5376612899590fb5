"""uvicorn's fast HTTP parser, with limits on the size and the time of a request's head."""

from __future__ import annotations

import asyncio
from typing import Any

from httptools import HttpParserError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .replies import RequestError

#: Most bytes of request line and headers. A head that comes in pieces counts double, so a head of half as many bytes
#: always passes.
MAX_HEAD = 65_536
#: Seconds from the connection, or from the first byte after a reply, to the end of the next head.
HEAD_TIMEOUT_S = 10.0

_MALFORMED = b"Bad Request", RequestError(400, "bad_request", "the request cannot be parsed; expected HTTP/1.1")
_TOO_LARGE = (
    b"Request Header Fields Too Large",
    RequestError(431, "head_too_large", f"the head of the request is too large; expected at most {MAX_HEAD:,} bytes"),
)


class LimitedProtocol(HttpToolsProtocol):
    """Closes a connection whose head comes too slowly, and refuses a head that is too large or malformed in JSON."""

    _timer: asyncio.TimerHandle | None = None
    _reading_head = False
    _head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Start the time for the first head."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the time."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless the head is too large."""
        if self.cycle is None or self.cycle.response_complete:
            self._start_timer()  # also for empty lines, and for the rest of a refused body
        if self._reading_head:
            self._head_bytes += len(data)  # the parser reports a header when it has all of it
        if self._head_bytes > MAX_HEAD:
            self.send_400_response("")
        else:
            super().data_received(data)

    def on_message_begin(self) -> None:
        """Begin to count the bytes of a head."""
        self._reading_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count the target, or a part of it."""
        self._head_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a whole header; drop a trailer."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD:
            raise HttpParserError  # comes back as `send_400_response`
        if self._reading_head:  # else it is the trailer of a body in chunks, which no proxy has checked
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop the time: the head is complete."""
        self._reading_head = False
        self._stop_timer()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that no endpoint gets to see."""
        del msg
        phrase, error = _TOO_LARGE if self._head_bytes > MAX_HEAD else _MALFORMED
        body = error.body()
        head = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (error.status, phrase, len(body)) + body)
        self.transport.close()

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        self.transport.close()
