"""LiteLLM proxies that keep sessions, in front of upstreams that bill, and perhaps with one Redis for all."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.billing_upstream import BillingUpstream
from helpers.litellm_load import Metrics
from helpers.litellm_proxy import KEY, ROOT, Proxy, free_port

BUNDLE = ROOT / "tests" / "bundles" / "version-1"
STRONG, WEAK = "sim-max", "sim-small"
#: USD for a million input, cached input and output tokens.
PRICES = {STRONG: (3.0, 0.3, 15.0), WEAK: (0.8, 0.08, 4.0)}
#: What weak cannot do.
MOST_TOKENS = 20_000

CONFIG = f"""model_list:
  - model_name: strong
    litellm_params: {{model: openai/{STRONG}, api_base: os.environ/STRONG_URL, api_key: none}}
  - model_name: weak
    litellm_params: {{model: openai/{WEAK}, api_base: os.environ/WEAK_URL, api_key: none}}
  - model_name: auto
    litellm_params: {{model: openai/{STRONG}, api_base: os.environ/STRONG_URL, api_key: none}}
litellm_settings: {{callbacks: [gateway.hook], num_retries: 0, request_timeout: 60}}
router_settings: {{disable_cooldowns: true}}
general_settings: {{master_key: os.environ/LITELLM_MASTER_KEY}}
"""


@dataclass
class SessionProxy:
    """A running proxy, and its metrics."""

    proxy: Proxy
    metrics: Metrics

    @property
    def url(self) -> str:
        return self.proxy.url


@contextlib.contextmanager
def billing_upstreams() -> Iterator[tuple[BillingUpstream, BillingUpstream]]:
    """Strong and weak."""
    with BillingUpstream(STRONG, PRICES[STRONG]) as strong, BillingUpstream(WEAK, PRICES[WEAK]) as weak:
        yield strong, weak


@contextlib.contextmanager
def session_proxies(
    version: str, count: int, upstreams: Sequence[BillingUpstream], **more: str
) -> Iterator[list[SessionProxy]]:
    """Proxies of one version with the same settings, which begin with sessions by prices.

    Args:
        version: of LiteLLM.
        count: how many.
        upstreams: strong and weak.
        more: further variables.
    """
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            (folder / "config.yaml").write_text(CONFIG)
            (folder / "gateway.py").write_text((ROOT / "examples" / "litellm" / "gateway.py").read_text())
            (folder / "models.json").write_text(json.dumps(pool()))
            port = free_port()
            urls = {
                f"{role}_URL": f"http://127.0.0.1:{one.port}/v1"
                for role, one in zip(("STRONG", "WEAK"), upstreams, strict=True)
            }
            variables = {
                "ROUTELEARN_ROUTER": str(BUNDLE),
                "ROUTELEARN_STRONG": STRONG,
                "ROUTELEARN_WEAK": WEAK,
                "ROUTELEARN_MODELS": f"{STRONG}=strong,{WEAK}=weak",
                "ROUTELEARN_POOL": str(folder / "models.json"),
                "ROUTELEARN_SESSIONS": "on",
                "ROUTELEARN_METRICS_PORT": str(port),
                "ROUTELEARN_RESET_TIMEOUT_S": "1",
                "LITELLM_MASTER_KEY": KEY,
                **urls,
                **more,
            }
            found.append(SessionProxy(stack.enter_context(Proxy(version, folder, variables)), Metrics(port)))
        yield found


def pool() -> list[dict[str, object]]:
    """The two models: weak reads no images and no long texts, and calls no tools."""
    lacks = {WEAK: {"vision": False, "tools": False, "max_input_tokens": MOST_TOKENS}, STRONG: {}}
    return [
        {"name": name, "input_price": full, "cached_input_price": cached, "output_price": out, **lacks[name]}
        for name, (full, cached, out) in PRICES.items()
    ]
