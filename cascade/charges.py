"""What a service charges for a call: which failed calls cost nothing, and which reported numbers of tokens count."""

from __future__ import annotations

import socket
import ssl

from ..availability.breaker import status_of
from ..routers.checks import as_number

#: A service that reports more tokens than this for one call is wrong.
MOST_TOKENS = 1_000_000_000
#: Names of errors in reaching a service, in the libraries that clients build on (httpx, requests, aiohttp).
_UNREACHED = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ClientConnectorError"})


def refused_unread(error: BaseException) -> bool:
    """Whether a call cost nothing: it never reached the service, or the service refused it before a model read it.

    Such are errors in reaching the service (no connection, unknown host, certificate), and the HTTP statuses from 400
    on, except timeouts (408, 499, 504, 524). Whatever else goes wrong may have happened after the model began.
    """
    status = status_of(error)
    if status is not None:
        return status >= 400 and status not in {408, 499, 504, 524}
    chain: BaseException | None = error
    for _ in range(5):  # clients wrap the error of the library that they call
        if isinstance(chain, (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError)):
            return True
        if type(chain).__name__ in _UNREACHED:
            return True
        chain = chain.__cause__ or chain.__context__ if chain is not None else None
    return False


def token_count(count: object) -> int | None:
    """A number of tokens; None when a service reports what cannot be one, which would spoil every sum."""
    number = as_number(count)
    return int(number) if 0 <= number <= MOST_TOKENS else None
