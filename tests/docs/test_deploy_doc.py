"""docs/deploy.md: its container fits the image, and its options exist."""

from __future__ import annotations

import itertools
import re
import shlex

from helpers.cli import run
from helpers.image import DEPLOY, PORT, ROOT, stages, the

from routelearn.service.defaults import ServerSettings
from routelearn.service.http.server import GRACE_S
from routelearn.service.wire_names import VARIABLES

TEXT = (ROOT / "docs" / "deploy.md").read_text()
SHELL = "".join(re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)).replace("\\\n", " ")
COMMANDS = [shlex.split(line, comments=True) for line in SHELL.splitlines()]
FINAL = stages(DEPLOY / "Dockerfile")[-1]


def test_the_container_of_the_page_fits_the_image() -> None:
    (command,) = [command for command in COMMANDS if command[:2] == ["docker", "run"]]
    given = dict(itertools.pairwise(command))
    assert {"--read-only", "--tmpfs"} <= set(command)
    assert given["-v"].split(":")[1:] == [*the(FINAL, "VOLUME").words, "ro"]
    assert given["-p"].split(":")[-1] == the(FINAL, "EXPOSE").text == PORT
    assert float(given["--stop-timeout"]) > ServerSettings().shutdown_timeout_s + GRACE_S
    assert given["-e"] in VARIABLES


def test_the_options_of_the_service_exist() -> None:
    prose = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
    told = {option for quoted in re.findall(r"`([^`]*)`", prose) for option in re.findall(r"--[a-z-]+", quoted)}
    of_docker = {"--stop-timeout"}
    known = set(re.findall(r"--[a-z-]+", run("serve", "--help").stdout))
    assert {"--watch", "--strong-share"} <= told - of_docker <= known


def test_the_files_of_the_folder_are_all_on_the_page() -> None:
    files = {path.name for path in DEPLOY.iterdir()} - {"Dockerfile.dockerignore"}
    assert set(re.findall(r"\(\.\./examples/deploy/([^)]*)\)", TEXT)) == files
