"""Real LiteLLM proxies for the tests: an environment for each version, a proxy process, upstreams to kill."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from helpers.built_once import built_once

ROOT = Path(__file__).resolve().parents[2]
#: The newest release, and one from before routing plug-ins.
NEWEST, OLDER = "1.110.2", "1.80.17"
VERSIONS = (NEWEST, OLDER)
KEY = "sk-choose-your-own"
GUIDE = ROOT / "docs" / "litellm.md"

#: A start compiles some thousand modules when it is the first.
START_LIMIT = 240.0


def python_of(version: str) -> Path:
    """The interpreter of a version's environment, which is made once (a minute) and lies in .venv/litellm."""
    pins = ROOT / "tests" / "helpers" / f"litellm-{version}.txt"

    def build(home: Path) -> None:
        python = str(home / "bin" / "python")
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-compile"]
        for command in (
            [sys.executable, "-m", "venv", "--without-pip", str(home)],
            [*pip, "--requirement", str(pins)],
            [*pip, "--no-build-isolation", "--editable", str(ROOT)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")

    return built_once(ROOT / ".venv" / "litellm" / version / "env", build, pins.read_text()) / "bin" / "python"


def block(language: str, word: str) -> str:
    """The one code block of docs/litellm.md that is in a language and contains a word."""
    blocks = re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    (block_text,) = [text for text in blocks if word in text]
    return str(block_text)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    """Environment variables for a process: offline, and without this process's settings of routelearn and proxies."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(
            ("ROUTELEARN_", "LITELLM_", "OPENAI_", "PYTHONDONTWRITE", "HTTP_", "HTTPS_", "ALL_")
        )
    }
    offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "NO_PROXY": "*"}
    return {**kept, **offline, "PYTHONUNBUFFERED": "1", **more}


def _die_with_parent() -> None:
    """In a new process, on Linux: end when the test run is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _stop(process: subprocess.Popen[bytes], limit: float) -> None:
    """End a process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(limit)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@dataclass
class Proxy:
    """A proxy process in a folder that holds its config.yaml; ``with Proxy(version, folder, variables) as proxy``.

    Attributes:
        command: a command of routelearn that starts it, without the port; empty: LiteLLM's own command of the guide.
    """

    version: str
    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def output(self) -> str:
        return (self.folder / "proxy.log").read_text(errors="replace")

    def __enter__(self) -> Proxy:
        from helpers.quick import refuse_unless_slow  # not above: an upstream runs this file, and needs no pytest

        refuse_unless_slow("starts a server")
        (line,) = re.findall("^litellm .*", block("console", "litellm --config"), re.MULTILINE)
        name, *arguments = shlex.split(line.replace("--port 4000", f"--port {self.port}"))
        command = [str(python_of(self.version).with_name(name)), *arguments]
        if self.command:
            command = [str(python_of(self.version)), "-m", "routelearn", *self.command, "--port", str(self.port)]
        with (self.folder / "proxy.log").open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment(**self.variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - it only makes a system call
            )
        try:
            self._wait()
        except BaseException:
            _stop(self.process, 1)
            raise
        return self

    def __exit__(self, *error: object) -> None:
        _stop(self.process, 10)

    def _wait(self) -> None:
        limit = time.monotonic() + START_LIMIT
        while time.monotonic() < limit:
            if self.process.poll() is not None:
                raise RuntimeError(f"the proxy ended with {self.process.returncode}:\n{self.output[-4000:]}")
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/liveliness", timeout=5).read()
                return
            time.sleep(0.2)
        raise RuntimeError(f"the proxy did not start:\n{self.output[-4000:]}")


@dataclass
class Upstream:
    """A model in its own process, which can be killed and started again; the count of its answers survives.

    Attributes:
        name: what it answers.
        delay_s: seconds before it answers.
    """

    name: str
    delay_s: float = 0.0
    port: int = field(default_factory=free_port)

    def __enter__(self) -> Upstream:
        account, self._account = tempfile.mkstemp(prefix=f"{self.name}-")
        os.close(account)
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        Path(self._account).unlink()

    @property
    def answered(self) -> int:
        """Number of requests that it answered since the first start: one byte each in a file."""
        return Path(self._account).stat().st_size

    def start(self) -> None:
        self.restart()
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise RuntimeError(f"{self.name} did not start")

    def restart(self) -> None:
        """Start without waiting until it listens."""
        command = [
            sys.executable,
            "-m",
            "helpers.litellm_proxy",
            self.name,
            str(self.port),
            str(self.delay_s),
            self._account,
        ]
        self.process = subprocess.Popen(command, cwd=ROOT / "tests", stdin=subprocess.DEVNULL, start_new_session=True)

    def kill(self) -> None:
        """At once, with all that is in flight."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def upstreams(*names: str, delay_s: float = 0.0) -> Iterator[list[Upstream]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Upstream(name, delay_s)) for name in names]


class _StatusError(Exception):
    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(f"asked to answer {status}")
        self.status = status


def _serve(name: str, port: int, delay_s: float, account: Path) -> None:
    """Answer with the name; words in the prompt ask for something else."""
    from helpers.openai_server import OpenAIServer

    written = os.open(account, os.O_WRONLY | os.O_APPEND)

    def answer(prompt: object) -> str | dict[str, object]:
        text = str(prompt)
        for word, status in (("FAIL", HTTPStatus.INTERNAL_SERVER_ERROR), ("REFUSE", HTTPStatus.BAD_REQUEST)):
            if f"{word} {name}" in text:
                raise _StatusError(status)
        os.write(written, b".")
        if "ECHO" in text:
            return json.dumps(server.counts.last)
        if "CALL" in text:
            function = {"name": "look_up", "arguments": "{}"}
            return {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "1", "type": "function", "function": function}],
            }
        return "I do not know" if f"DOUBT {name}" in text else f"{name} says hello to you"

    server = OpenAIServer(answer, delay_s=delay_s, port=port)
    with server:
        while os.getppid() != 1:  # not longer than the test
            time.sleep(1)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))
