"""Binds the socket of a server, and says in words why it cannot be bound."""

from __future__ import annotations

import errno
import socket

from ...routers.errors import InputError

_MOST_PORT = 65_535


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; `run` accepts connections later, when the router is loaded.

    Args:
        host: address of this machine.
        port: port to bind; 0: any free port.

    Raises:
        InputError: the address is in use, or it is not an address of this machine, or this user may not use the port.
    """
    if not 0 <= port <= _MOST_PORT:
        raise InputError(f"port is {port}; expected a number from 0 to {_MOST_PORT}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With IPPROTO_TCP, asyncio turns off Nagle's delay for accepted connections: it looks for this number.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            problem = (
                f"port {port} of {host} is in use by another process; choose another with --port (0: any free one)"
            )
        else:
            problem = (
                f"cannot listen at {host}, port {port}: {error.strerror or error}; choose others with --host, --port"
            )
        raise InputError(problem) from error
    return listening
