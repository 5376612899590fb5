"""examples/deploy: the systemd unit and the Kubernetes manifest say what the service and the image really take."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.cli import run
from helpers.image import DEPLOY, PORT, stages, the

from routelearn.routers.rules import RulesRouter
from routelearn.service import RouterSlot, create_app
from routelearn.service.defaults import ServerSettings
from routelearn.service.http.server import GRACE_S
from routelearn.service.trial import BASE_BYTES, TIMES_SIZE
from routelearn.service.wire_names import OPEN_PATHS

MIB, GIB = 1 << 20, 1 << 30
DEPLOYMENT, SERVICE = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
FINAL = stages(DEPLOY / "Dockerfile")[-1]
SHUTDOWN = "--shutdown-timeout"


def unit() -> configparser.RawConfigParser:
    """The systemd unit; of an option that is given twice, the last."""
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "routelearn.service")
    return parser


def drain_s(options: list[str]) -> float:
    """Seconds from SIGTERM to the end of the process at the latest."""
    words = [word for option in options for word in option.split("=")]
    given = float(words[words.index(SHUTDOWN) + 1]) if SHUTDOWN in words else ServerSettings().shutdown_timeout_s
    return given + GRACE_S


def started(options: list[str], tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """What `routelearn` says to a command line with a token that is there and a bundle that is not."""
    (tmp_path / "token").write_text("a-token-for-the-tests")
    words = [re.sub(r"[^=]*/token$", f"{tmp_path}/token", word) for word in options]
    return run(*[re.sub(r"^/\S*/router$", f"{tmp_path}/none", word) for word in words], "--port", "0")


def test_the_unit_starts_what_the_command_takes(tmp_path: Path) -> None:
    command = shlex.split(unit()["Service"]["ExecStart"])
    assert Path(command[0]).name == "routelearn"
    done = started(command[1:], tmp_path)
    assert (done.returncode, "there is no such folder" in done.stderr) == (2, True), done.stderr
    unknown = started([*command[1:], "--unheard-of"], tmp_path)
    assert "there is no such folder" not in unknown.stderr


def test_the_unit_reloads_by_the_signal_that_the_service_handles() -> None:
    service = unit()["Service"]
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    # A service that SIGHUP or SIGTERM ends has ended well for systemd, and the code 2 means that no try helps.
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("always", "2")


def test_the_unit_waits_until_requests_in_flight_are_answered() -> None:
    service = unit()["Service"]
    assert float(service["TimeoutStopSec"]) > drain_s(shlex.split(service["ExecStart"]))


def test_the_token_of_the_unit_comes_from_a_credential() -> None:
    service = unit()["Service"]
    name, _, path = service["LoadCredential"].partition(":")
    assert f"--token-file ${{CREDENTIALS_DIRECTORY}}/{name}" in service["ExecStart"]
    assert Path(path).is_absolute()
    assert service["DynamicUser"] == "yes"


def test_the_probes_ask_paths_that_the_service_has_and_that_need_no_token() -> None:
    app = create_app(RouterSlot("rules", lambda: RulesRouter("strong", "weak")))
    paths = {getattr(route, "path", None) for route in app.routes}
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    for name in PROBES:
        asked = CONTAINER[name]["httpGet"]
        assert asked["path"] in paths & OPEN_PATHS
        assert str(ports[asked["port"]]) == PORT


def test_the_manifest_starts_what_the_command_takes(tmp_path: Path) -> None:
    assert "command" not in CONTAINER  # the entry point of the image stays
    done = started([*the(FINAL, "ENTRYPOINT").words[1:], *CONTAINER["args"]], tmp_path)
    assert (done.returncode, "there is no such folder" in done.stderr) == (2, True), done.stderr


def test_the_pod_runs_as_the_user_of_the_image_and_can_write_only_its_temporary_folder() -> None:
    user, group = map(int, the(FINAL, "USER").text.split(":"))
    rights = POD["securityContext"]
    assert (rights["runAsNonRoot"], rights["runAsUser"], rights["runAsGroup"]) == (True, user, group)
    own = CONTAINER["securityContext"]
    assert (own["readOnlyRootFilesystem"], own["allowPrivilegeEscalation"]) == (True, False)
    assert own["capabilities"] == {"drop": ["ALL"]}
    writable = [mount["mountPath"] for mount in CONTAINER["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["/tmp"]
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == {volume["name"] for volume in POD["volumes"]}


def test_the_bundles_and_the_token_are_read_from_volumes() -> None:
    mounted = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    bundle, *options = CONTAINER["args"]
    assert the(FINAL, "VOLUME").words == [mounted["bundles"]]
    assert the(FINAL, "CMD").words == [bundle]
    assert bundle.startswith(f"{mounted['bundles']}/")
    assert f"--token-file={mounted['token']}/token" in options


def test_the_grace_period_of_the_pod_covers_the_wait_and_the_requests_in_flight() -> None:
    wait = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    (seconds,) = re.findall(r"sleep\((\d+)\)", wait[-1])
    assert POD["terminationGracePeriodSeconds"] > int(seconds) + drain_s(CONTAINER["args"])
    code = wait[-1].replace(f"sleep({seconds})", "sleep(0)")
    assert subprocess.run([sys.executable, *wait[1:-1], code], check=False, env=os.environ).returncode == 0


@pytest.mark.parametrize("limit", [CONTAINER["resources"]["limits"]["memory"], unit()["Service"]["MemoryMax"]])
def test_the_memory_limit_lies_above_that_of_the_trial_of_a_bundle(limit: str) -> None:
    """Otherwise a bundle that fills the memory ends the service and not its trial; 40 MiB is a large bundle of mf."""
    size = float(limit.rstrip("Gi")) * GIB
    assert size > BASE_BYTES + TIMES_SIZE * 40 * MIB + 256 * MIB


def test_the_service_of_the_manifest_finds_the_pods() -> None:
    labels: dict[str, Any] = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert SERVICE["spec"]["selector"].items() <= labels.items()
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"].items() <= labels.items()
    (port,) = SERVICE["spec"]["ports"]
    assert port["targetPort"] in {one["name"] for one in CONTAINER["ports"]}
