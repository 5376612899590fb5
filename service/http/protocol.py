"""uvicorn's fast HTTP parser with the limits that it lacks: how large the head of a request may be, and how slow."""

from __future__ import annotations

import asyncio
from typing import Any

from httptools import HttpParserError
from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Bytes of request line and headers; a head of half as many always passes (one that comes in pieces counts double).
MAX_HEAD = 65_536
#: Seconds from the connection, or from the first byte after an answer, to the end of the next head.
HEAD_TIMEOUT_S = 10.0

_REFUSALS = {
    400: (b"Bad Request", "bad_request", "this is not HTTP/1.1"),
    431: (b"Request Header Fields Too Large", "head_too_large", f"the head has more than {MAX_HEAD:,} bytes"),
}


class LimitedProtocol(HttpToolsProtocol):
    """Closes what sends its head too slowly; refuses, in JSON, a head that is too large or malformed."""

    _timer: asyncio.TimerHandle | None = None
    _reading_head = False
    _head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self.cycle is None or self.cycle.response_complete:
            self._start_timer()  # whatever it is: also empty lines, or what is left of a refused body
        if self._reading_head:
            self._head_bytes += len(data)  # the parser tells of a header when it has all of it
        if self._head_bytes > MAX_HEAD:
            self.send_400_response("")
        else:
            super().data_received(data)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._reading_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """The target, or a part of it."""
        self._head_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD:
            raise HttpParserError  # comes back as `send_400_response`
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The end of the head."""
        self._reading_head = False
        self._stop_timer()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what no endpoint ever sees."""
        del msg
        status = 431 if self._head_bytes > MAX_HEAD else 400
        phrase, kind, message = _REFUSALS[status]
        body = to_json({"error": {"type": kind, "message": message}})
        head = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (status, phrase, len(body)) + body)
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
