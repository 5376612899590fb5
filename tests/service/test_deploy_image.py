"""examples/deploy/Dockerfile: its steps make a service that another user runs on a tree that nobody can write."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.image import DEPLOY, Image, context, stages, the
from helpers.serve import ROOT, TOKEN, Server, wait_for

from routelearn.routers.bundle import read_bundle, save_bundle

PAGE = (ROOT / "docs" / "deploy.md").read_text()


@pytest.fixture(scope="module")
def image(bundle: Path) -> Iterator[Image]:
    """The image, and two bundles: router-1, which is in use, and router-2 for another pair of models.

    The folder is not pytest's own, which other users cannot enter.
    """
    root = Path(tempfile.mkdtemp(prefix="routelearn-image-"))
    made = Image(root)
    try:
        manifest, contents = read_bundle(bundle)
        save_bundle(made.bundles / "router-1", manifest, contents)
        save_bundle(made.bundles / "router-2", replace(manifest, weak="sim-nano"), contents)
        (made.bundles / "router").symlink_to("router-1")
        made.run_build()
        yield made
    finally:
        made.allow_writing(True)
        shutil.rmtree(root)


@pytest.fixture(scope="module")
def server(image: Image) -> Iterator[Server]:
    with image.serve() as running:
        yield running


def roll(image: Image, name: str) -> None:
    """Let the link name another bundle, by the line of the page."""
    (line,) = re.findall(r"^ln -s router-2 .*$", PAGE, re.MULTILINE)
    image.allow_writing(True)
    command = line.replace("router-2", name).replace("/srv/routelearn", str(image.bundles))
    subprocess.run(["sh", "-ec", command], check=True)
    image.allow_writing(False)


def test_the_image_is_not_built_from_tests_or_secrets() -> None:
    names = context()
    assert {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "service/http/app.py"} <= set(names)
    assert not [name for name in names if name.startswith((".", "tests/", "docs/", "examples/", "benchmarks/"))]


def test_the_image_runs_as_a_number_and_without_a_shell() -> None:
    final = stages(DEPLOY / "Dockerfile")[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", the(final, "USER").text)
    assert the(final, "ENTRYPOINT").words[:2] == ["routelearn", "serve"]
    assert not [one for one in final if one.word == "RUN"]


@pytest.mark.slow
def test_the_user_of_the_service_can_write_nothing_but_the_temporary_folder(image: Image) -> None:
    for folder, done in (("/opt/routelearn", 1), ("/opt/routelearn/bin", 1), ("/bundles/router", 1), ("$HOME", 1)):
        touched = image.run(["sh", "-c", f"touch {folder}/x"])
        assert (touched.returncode, "touch" in touched.stderr) == (done, True), folder
    assert image.run(["sh", "-c", "touch $TMPDIR/x && rm $TMPDIR/x"]).returncode == 0
    if os.geteuid() == 0:
        assert image.run(["id", "-u"]).stdout.strip() == the(image.final, "USER").text.split(":")[0]


@pytest.mark.slow
def test_the_health_check_of_the_image_tells_a_service_that_serves_from_none(image: Image, server: Server) -> None:
    assert image.is_healthy(server.port)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert not image.is_healthy(unused.getsockname()[1])
    assert server.ask("/v1/score", {"queries": ["Prove it."]}, token=TOKEN)[0] == 200
    assert server.ask("/v1/score", {"queries": ["Prove it."]})[0] == 401


@pytest.mark.slow
def test_a_bundle_rolls_out_and_back_as_the_page_says(image: Image, server: Server) -> None:
    def weak() -> str:
        return str(server.ask("/v1/router", token=TOKEN)[1]["weak"])

    for name, expected in (("router-2", "sim-nano"), ("router-1", "sim-small")):
        assert weak() != expected
        roll(image, name)
        os.kill(server.process.pid, signal.SIGHUP)  # what docker kill --signal HUP and systemctl reload send
        wait_for(lambda expected=expected: weak() == expected)
    assert server.ask("/v1/router", token=TOKEN)[1]["reload_error"] is None


@pytest.mark.slow
def test_a_request_in_flight_is_answered_after_sigterm(image: Image) -> None:
    body = b'{"queries": ["Prove it."]}'
    head = f"POST /v1/score HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\n"
    with image.serve() as server, socket.create_connection(("127.0.0.1", server.port), 20) as client:
        client.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body[:10])
        wait_for(lambda: "routelearn_http_waiting 1.0" in server.ask("/metrics", token=TOKEN)[1])
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not image.is_healthy(server.port))
        client.sendall(body[10:])
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        assert server.process.wait(30) == 0
