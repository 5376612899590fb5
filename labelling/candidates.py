"""The models that `collect` and `judge` ask, as models.toml describes them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..policies.cost import call_cost
from ..routers.checks import as_number
from ..routers.decision import Model
from ..routers.errors import InputError
from ..routers.pool_file import model_entries

#: What may stand behind the colon in the name of a variant, as in "gpt-5:high".
EFFORTS = frozenset({"none", "minimal", "low", "medium", "high", "xhigh", "max"})
#: Parameters of a call that the caller sets itself.
_RESERVED = frozenset({"model", "messages", "stream", "n", "timeout", "extra_headers"})
#: Fields that hold a text: whether it may be left out, and whether it may be empty.
_TEXTS = (("name", False, False), ("model", True, False), ("base_url", True, False), ("api_key_env", False, True))
#: Parameters that bound the length of an answer, in tokens.
_LIMITS = ("max_completion_tokens", "max_tokens")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One model, or one variant of a model, at an OpenAI-compatible service.

    Attributes:
        name: the name in the records. "gpt-5:high" is the model gpt-5 at the reasoning effort high, so that one model
            at two efforts is two candidates.
        model: the name at the service; None: the name without the effort.
        base_url: address of the service, such as "http://localhost:11434/v1"; None: that of the openai client.
        api_key_env: the environment variable that holds the key. A local service may need none: "".
        input_price: USD per million input tokens; None: not known.
        cached_input_price: USD per million input tokens that the service read from its cache; None: the input price.
        output_price: USD per million output tokens; None: not known.
        requests_per_minute: the rate limit of the service; None: no limit.
        tokens_per_minute: the rate limit of the service, input and output together; None: no limit.
        concurrency: most calls at once.
        timeout_s: the longest time of one call, in seconds.
        expected_output_tokens: tokens of a typical answer, for a price before the first answer is there; None: they
            are measured, and until then assumed.
        parameters: parameters of every call, such as temperature and max_completion_tokens.

    Example:
        >>> from routelearn.labelling import Candidate
        >>> one = Candidate(name="gpt-5:high", input_price=1.25, output_price=10.0)
        >>> one.served_as, one.options
        ('gpt-5', {'reasoning_effort': 'high'})
    """

    name: str
    model: str | None = None
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    input_price: float | None = None
    cached_input_price: float | None = None
    output_price: float | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    concurrency: int = 8
    timeout_s: float = 120.0
    expected_output_tokens: float | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InputError: a value is not as described; the message names the model and the field.
        """
        for name, may_be_none, may_be_empty in _TEXTS:
            value = getattr(self, name)
            if value is None and may_be_none:
                continue
            if not isinstance(value, str) or not (value or may_be_empty):
                raise InputError(f"{name} of model {self.name!r} is {value!r:.80}; expected a text")
        if self.base_url is not None and not self.base_url.startswith(("http://", "https://")):
            raise InputError(
                f"base_url of model {self.name!r} is {self.base_url!r:.80}; expected an address that begins with "
                "http:// or https://"
            )
        for name in ("input_price", "cached_input_price", "output_price"):
            self._check(name, 0, "USD per million tokens, 0 or more", may_be_none=True)
        for name in ("requests_per_minute", "tokens_per_minute", "expected_output_tokens"):
            self._check(name, 1e-9, "a number above 0", may_be_none=True)
        self._check("timeout_s", 1e-9, "seconds, above 0", may_be_none=False)
        if (
            isinstance(self.concurrency, bool)
            or not isinstance(self.concurrency, int)
            or not 1 <= self.concurrency <= 1000
        ):
            raise InputError(
                f"concurrency of model {self.name!r} is {self.concurrency!r:.80}; expected a whole number from 1 "
                "to 1000"
            )
        if not isinstance(self.parameters, Mapping) or _RESERVED & set(self.parameters):
            raise InputError(
                f"parameters of model {self.name!r} are {self.parameters!r:.80}; expected a table of parameters "
                f"without {sorted(_RESERVED)}"
            )
        try:
            json.dumps(dict(self.parameters), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"parameters of model {self.name!r} cannot be sent: {error}; expected texts, numbers, true or false, "
                "lists and tables"
            ) from error

    def _check(self, name: str, least: float, expected: str, *, may_be_none: bool) -> None:
        value = getattr(self, name)
        if value is None and may_be_none:
            return
        if isinstance(value, (bool, str)) or not least <= as_number(value) < math.inf:
            raise InputError(f"{name} of model {self.name!r} is {value!r:.80}; expected {expected}")

    @property
    def served_as(self) -> str:
        """The name at the service."""
        return self.model or _parts(self.name)[0]

    @property
    def options(self) -> dict[str, Any]:
        """The parameters of every call, the effort among them."""
        effort = None if self.model else _parts(self.name)[1]
        return {**({"reasoning_effort": effort} if effort else {}), **self.parameters}

    @property
    def most_output_tokens(self) -> float | None:
        """The limit on the length of an answer that the parameters set; None: none."""
        found = [as_number(self.parameters[name]) for name in _LIMITS if name in self.parameters]
        return min(found) if found and math.isfinite(min(found)) else None

    @property
    def as_model(self) -> Model:
        """The candidate as a model of a pool, with its prices."""
        return Model(self.name, self.input_price, self.output_price, self.cached_input_price)

    def cost(self, input_tokens: float, output_tokens: float, cached_tokens: float = 0.0) -> float | None:
        """USD of a call; None: a price is not known.

        Args:
            input_tokens: tokens that the model read, those from its cache included.
            output_tokens: tokens that the model wrote, its reasoning included.
            cached_tokens: how many of the input tokens came from the cache.
        """
        full = call_cost(self.as_model, input_tokens - cached_tokens, output_tokens)
        price = self.input_price if self.cached_input_price is None else self.cached_input_price
        return None if full is None or price is None else full + cached_tokens * price / 1e6

    def key(self) -> str:
        """The key for the service, from the environment; a service without a key gets a placeholder.

        Raises:
            InputError: the variable is not set.
        """
        if not self.api_key_env:
            return "none"
        key = os.environ.get(self.api_key_env)
        if not key:
            raise InputError(
                f"the environment variable {self.api_key_env} is not set, which holds the key for model {self.name!r}; "
                'expected the key there, or api_key_env = "" for a service that needs none'
            )
        return key


#: The fields of models.toml that `Candidate` takes.
_FIELDS = {item.name for item in fields(Candidate)}


def _parts(name: str) -> tuple[str, str | None]:
    model, colon, effort = name.rpartition(":")
    return (model, effort) if colon and model and effort in EFFORTS else (name, None)


def read_candidates(path: str | Path, only: Sequence[str] = ()) -> list[Candidate]:
    """Read models.toml (``[[models]]``), or the same as JSON.

    Args:
        path: the file.
        only: the names to keep, in this order; empty: all.

    Raises:
        InputError: no such file, a model that is not as `Candidate` describes it, two models of one name, or a name of
            `only` that the file lacks.
    """
    found: dict[str, Candidate] = {}
    for entry in model_entries(path, {item.name for item in (*fields(Candidate), *fields(Model))}):
        try:
            # What a model can do is for `--pool`, which reads the same file.
            found[entry["name"]] = Candidate(**{name: value for name, value in entry.items() if name in _FIELDS})
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    missing = [name for name in only if name not in found]
    if missing:
        raise InputError(f"{path} has no models {missing}; it has {list(found)}")
    return [found[name] for name in only] if only else list(found.values())
