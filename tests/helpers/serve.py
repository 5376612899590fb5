"""A real `routelearn serve` in its own process, for the tests of the service."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from helpers.quick import refuse_unless_slow

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-for-the-tests"
ADMIN = "an-admin-token-for-the-tests"


class Server:
    """`routelearn serve` on a free port; it ends with the `with` block.

    Attributes:
        port: where it listens.
        process: the process.
        log: the lines that the process wrote to stderr.
    """

    def __init__(self, router: str | Path, *options: str, **environment: str) -> None:
        command = [sys.executable, "-m", "routelearn", "serve", str(router), "--port", "0", *options]
        self._start(command, {**os.environ, **environment}, ROOT)

    def _start(self, command: list[str], environment: dict[str, str], folder: Path) -> None:
        """Start a command that serves, and wait until it does."""
        refuse_unless_slow("starts a server")
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=folder)
        self.log: list[str] = []
        self._serving = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._serving.wait(60) or not self.port:
            self.process.kill()
            raise RuntimeError(f"the service does not start: {''.join(self.log)}")

    port = 0

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            match = re.search(r"serving at http://\S+:(\d+)", line)
            if match:
                self.port = int(match[1])
                self._serving.set()
        self._serving.set()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self, number: int = signal.SIGTERM, timeout: float = 30) -> int:
        """Send a signal and wait: the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, content: Any = None, *, token: str | None = None, method: str | None = None) -> Any:
        """Status and JSON (or text) of a reply; content is sent as JSON."""
        status, _, body = self.call(path, content, token=token, method=method)
        try:
            return status, json.loads(body)
        except ValueError:
            return status, body.decode()

    def call(
        self, path: str, content: Any = None, *, token: str | None = None, method: str | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of a reply; bytes are sent as they are, other content as JSON."""
        data = content if content is None or isinstance(content, bytes) else json.dumps(content).encode()
        headers = {} if data is None else {"content-type": "application/json"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, {k.lower(): v for k, v in reply.headers.items()}, reply.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read()

    def send(self, data: bytes, *, half_close: bool = False, timeout: float = 20) -> bytes:
        """Send raw bytes: what comes back until the server closes the connection, or is silent after an answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout) as client:
            try:
                client.sendall(data)
                if half_close:
                    client.shutdown(socket.SHUT_WR)
            except OSError:  # refused before all was sent: the answer may be there all the same
                pass
            answer = b""
            try:
                while chunk := client.recv(65536):
                    answer += chunk
                    client.settimeout(1)
            except OSError:
                pass
            return answer


def wait_for(condition: Any, timeout: float = 30) -> Any:
    """The first true value of a condition; an AssertionError when there is none within the time."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout} s: {condition}")
