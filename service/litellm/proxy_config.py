"""Writes a configuration of the LiteLLM proxy with a router in the seat of its complexity router's classifier."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from ...routers.errors import InputError
from ..wire_names import LiteLLMVariable as Variable

#: The name that clients ask for, and the names of the two models behind it.
AUTO, STRONG, WEAK = "auto", "strong", "weak"

#: What LiteLLM keeps of an earlier decision: a user's turn keeps its model during its tool calls; a session keeps it
#: to its end; a warm prompt cache of a stronger model is used where that is cheaper; nothing.
Affinity = Literal["turn", "session", "cache", "none"]

_SETTINGS: dict[Affinity, str] = {
    "turn": "classification_mode: user_turn # one decision for each turn of the user; tool calls keep its model",
    "session": "session_affinity: true # one decision for each session",
    "cache": "cache_aware_routing: true # a stronger model may answer where its prompt cache is warm and cheaper",
    "none": "classification_mode: every_request",
}

#: Providers whose key LiteLLM reads from PROVIDER_API_KEY; for the others it looks in variables of its own.
_KEY_IN_VARIABLE = frozenset(
    {"anthropic", "azure", "azure_ai", "cerebras", "cohere", "deepseek", "fireworks_ai", "gemini", "groq", "mistral"}
    | {"openai", "openrouter", "xai"}
)


@dataclass(frozen=True, slots=True)
class Upstream:
    """One of the two models, as LiteLLM asks it.

    Attributes:
        name: the name of the model in the router's pool.
        model: LiteLLM's name of it, as PROVIDER/MODEL.
        base_url: where it is asked; None: at the provider.
        key_variable: the environment variable that holds its API key; None: that of the provider.
    """

    name: str
    model: str
    base_url: str | None = None
    key_variable: str | None = None

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            InputError: one of them cannot be written into the configuration.
        """
        provider, _, model = self.model.partition("/")
        if not provider or not model:
            raise InputError(f"the model {self.model!r} has no provider; expected PROVIDER/MODEL, as in openai/gpt-4o")
        if not self.name or set(self.name) & set(",="):
            raise InputError(f"the model of the pool is {self.name!r}; expected a name without a comma or '='")
        if self.key_variable is not None and not self.key_variable.isidentifier():
            raise InputError(f"the variable of an API key is {self.key_variable!r}; expected a name, as OPENAI_API_KEY")

    @property
    def key(self) -> str | None:
        """The environment variable that holds the API key; None: LiteLLM looks in variables of its own."""
        provider = self.model.partition("/")[0]
        return self.key_variable or (f"{provider.upper()}_API_KEY" if provider in _KEY_IN_VARIABLE else None)

    def parameters(self) -> dict[str, str]:
        """LiteLLM's parameters of the model."""
        found = {"model": self.model}
        if self.base_url is not None:
            found["api_base"] = self.base_url
        if self.key is not None:
            found["api_key"] = f"os.environ/{self.key}"
        return found


def proxy_config(router: str, strong: Upstream, weak: Upstream, affinity: Affinity = "turn") -> str:
    """The text of a config.yaml, which LiteLLM 1.110 runs as it is.

    Args:
        router: the folder of a bundle, as an absolute path, or the name of a router that comes with routelearn.
        strong: the strong model.
        weak: the weak model.
        affinity: what LiteLLM keeps of an earlier decision.

    Raises:
        InputError: strong and weak are one model of the pool.
    """
    if strong.name == weak.name:
        raise InputError(f"strong and weak are both {strong.name!r}; expected two models of the pool")
    variables = {
        Variable.ROUTER: router,
        Variable.STRONG: strong.name,
        Variable.WEAK: weak.name,
        Variable.MODELS: f"{strong.name}={STRONG},{weak.name}={WEAK}",
        Variable.TRIGGERS: "routelearn",
    }
    written = "\n".join(f"  {variable.value}: {_scalar(value)}" for variable, value in variables.items())
    return f"""\
# A LiteLLM proxy that asks routelearn, for each request to "{AUTO}", which of two models should answer.
# Start it with: routelearn proxy --config config.yaml
model_list:
  # The name that clients ask for: LiteLLM's complexity router, with routelearn in the seat of its classifier.
  - model_name: {AUTO}
    litellm_params:
      model: auto_router/complexity_router
      complexity_router_config:
        classifier_type: custom
        classifier_plugin: routelearn.service.litellm.classifier_plugin
        classifier_fallback: default_model # where there is no decision, the strong model is the safe answer
        default_model: {STRONG}
        tiers: {{SIMPLE: {WEAK}, COMPLEX: {STRONG}}}
        {_SETTINGS[affinity]}
        max_tokens_from_tier_model: clamp # otherwise LiteLLM replaces the max_tokens of clients
        context_compaction: false # otherwise LiteLLM rewrites long conversations
  - model_name: {STRONG}
    litellm_params: {_mapping(strong.parameters())}
  - model_name: {WEAK}
    litellm_params: {_mapping(weak.parameters())}

litellm_settings:
  callbacks: [routelearn.service.litellm.hook] # tells the circuit breakers how calls ended
  num_retries: 0 # the other model answers sooner than a second try of the same model
  request_timeout: 600

router_settings:
  fallbacks: [{{{STRONG}: [{WEAK}]}}, {{{WEAK}: [{STRONG}]}}]
  disable_cooldowns: true # the circuit breakers know which model answers

general_settings:
  master_key: os.environ/LITELLM_MASTER_KEY

# These go before variables of the same name in the environment. Other ROUTELEARN_ variables can be set in either place.
environment_variables:
{written}
"""


def _scalar(text: str) -> str:
    """A text as YAML: JSON's strings are YAML's."""
    return json.dumps(text, ensure_ascii=False)


def _mapping(values: dict[str, str]) -> str:
    return "{" + ", ".join(f"{name}: {_scalar(value)}" for name, value in values.items()) + "}"
