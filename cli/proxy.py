"""`routelearn proxy`."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from ..routers.errors import InputError, MissingExtraError, require
from ..service.http.listening import listen
from ..service.litellm.proxy_config import proxy_config
from .flags import Flag, Options, with_flags
from .litellm_config import CONFIG, ProxyModels, absolute
from .serve import is_loopback

#: What brings LiteLLM's proxy, and what routelearn needs in it.
INSTALL = "pip install 'litellm[proxy]' 'routelearn[litellm]'"
#: The first version of LiteLLM with a seat for a classifier.
LEAST_VERSION = (1, 99)
#: The variable with the key of whoever administers the proxy, and what lets LiteLLM start without one.
MASTER_KEY, NO_MASTER_KEY = "LITELLM_MASTER_KEY", "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"
#: LiteLLM asks no host for its price list, and sends no usage data.
ENVIRONMENT = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
#: Seconds that an idle connection is kept: longer than the OpenAI client keeps its own.
KEEPALIVE_S = 75


@dataclass(frozen=True)
class ProxyOptions(Options):
    """What the proxy runs, and where it listens.

    Attributes:
        router: Folder of a bundle, or the word "general" (the router that comes with routelearn). Needs --strong and
            --weak.
        config: LiteLLM configuration to run instead, such as routelearn litellm-config writes it.
        host: Address to listen on. Without a master key, other machines must not reach it.
        port: Port to listen on.
    """

    router: Annotated[str | None, Flag(is_argument=True)] = None
    config: Path | None = None
    host: str = "127.0.0.1"
    port: int = 4000


@with_flags
def proxy_command(options: ProxyOptions, models: ProxyModels) -> None:
    """Run LiteLLM's proxy with a router behind the model "auto": an OpenAI-compatible service by one command.

    Needs LiteLLM: pip install 'litellm[proxy]' 'routelearn[litellm]'. The variable LITELLM_MASTER_KEY holds the key
    that clients send; without it only this machine can reach the proxy. SIGTERM lets requests in flight finish.

    Example: routelearn proxy general --strong openai/gpt-4o --weak openai/gpt-4o-mini

    Example: routelearn proxy --config config.yaml --port 8080
    """
    if (options.router is None) == (options.config is None):
        raise InputError("expected a ROUTER with --strong and --weak, or --config FILE")
    _check_installed()
    with _config_file(options, models) as config:
        listen(options.host, options.port).close()  # where 4000 is taken, LiteLLM would listen on another port
        _check_access(config, options.host)
        _warn_of_keys(config)
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        for sent in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sent, lambda *_: sys.exit(0))  # until the proxy has handlers of its own, and after its end
        run_server = require("litellm.proxy.proxy_cli", "litellm").run_server
        listening = ["--host", options.host, "--port", str(options.port), "--keepalive_timeout", str(KEEPALIVE_S)]
        run_server.main(args=["--config", str(config), *listening], prog_name="litellm")


@contextmanager
def _config_file(options: ProxyOptions, models: ProxyModels) -> Iterator[Path]:
    """The configuration to run: the one that was given, or one for the router in a folder of its own."""
    if options.config is not None:
        if models.given():
            raise InputError(f"{', '.join(models.given())}: no effect with --config; expected a ROUTER in its place")
        if not options.config.is_file():
            raise InputError(f"{options.config} is not a file; expected a LiteLLM configuration")
        yield options.config
        return
    assert options.router is not None
    installed = version("litellm")
    if tuple(int(part) for part in re.findall(r"\d+", installed)[:2]) < LEAST_VERSION:
        raise InputError(
            f"LiteLLM {installed} has no seat for a classifier; expected 1.99 or newer, or --config FILE with the hook "
            "of docs/litellm.md"
        )
    strong, weak = models.upstreams(options.router)
    with tempfile.TemporaryDirectory(prefix="routelearn-proxy-") as folder:
        config = Path(folder) / CONFIG
        config.write_text(proxy_config(absolute(options.router), strong, weak, models.affinity), encoding="utf-8")
        yield config


def _check_installed() -> None:
    """Refuse an environment without LiteLLM's proxy or what routelearn needs in it.

    Raises:
        MissingExtraError: a package is missing; the message says how to install it.
    """
    for module in ("litellm", "fastapi", "uvicorn", "yaml", "prometheus_client", "pybreaker"):
        if find_spec(module) is None:
            raise MissingExtraError(f"{module} is not installed. Install LiteLLM's proxy with: {INSTALL}")


def _check_access(config: Path, host: str) -> None:
    """Let LiteLLM start without a master key where this machine alone can reach it.

    Raises:
        InputError: other machines could use the proxy without a key.
    """
    if _has_master_key(config):
        return
    if not is_loopback(host):
        raise InputError(
            f"other machines can reach {host}: set {MASTER_KEY} to the key that clients must send, or leave out --host"
        )
    sys.stderr.write(f"{MASTER_KEY} is not set: every program of this machine can use the proxy, without a key\n")
    os.environ.setdefault(NO_MASTER_KEY, "True")


def _warn_of_keys(config: Path) -> None:
    """Say which variables with the models' keys are not set; LiteLLM says so only when a call fails."""
    content = _content(config)
    known = {**os.environ, **(content.get("environment_variables") or {})}
    for name in dict.fromkeys(re.findall(r"os\.environ/(\w+)", str(content.get("model_list")))):
        if not known.get(name):
            sys.stderr.write(f"{name} is not set: calls of the models that need it will fail\n")


def _content(config: Path) -> Mapping[str, Any]:
    yaml: Any = require("yaml", "litellm")
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{config} is no YAML: {error}") from error
    return content if isinstance(content, Mapping) else {}


def _has_master_key(config: Path) -> bool:
    """Whether clients need a key: one that stands in the configuration, or in the variable that it names."""
    settings = _content(config).get("general_settings")
    key = settings.get("master_key") if isinstance(settings, Mapping) else None
    if isinstance(key, str) and not key.startswith("os.environ/"):
        return bool(key)
    variable = MASTER_KEY if key is None else str(key).removeprefix("os.environ/")
    return bool(os.environ.get(variable))
