"""What providers' prompt caches hold of one conversation, for each model."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..routers.checks import as_number, check_seconds, check_whole
from ..routers.errors import InputError

#: Providers cache nothing below this many tokens, and hold multiples of the second number (OpenAI's documentation; for
#: Anthropic the first is 1,024 or 2,048).
LEAST_CACHED, CACHE_STEP = 1024, 128


def cacheable(tokens: int, step: int = CACHE_STEP) -> int:
    """The tokens that a provider keeps of a request: none of a short one, of others a multiple of `step`."""
    return tokens // step * step if tokens >= LEAST_CACHED else 0


@dataclass(slots=True)
class PromptCache:
    """The prompt caches of the models for one conversation that only grows.

    A model's cache holds what the model has read of the conversation, until the model was not asked for `ttl_s`
    seconds.

    Attributes:
        ttl_s: seconds for which a cache holds what was read last.
        step: tokens are held in multiples of this number.
        held: tokens that each model has read, and when, by the model's name.

    Example:
        >>> from routelearn.policies import PromptCache
        >>> cache = PromptCache()
        >>> cache.read("sim-max", 5000, now=0.0), cache.read("sim-max", 6000, now=60.0)
        (0, 4992)
        >>> cache.read("sim-small", 6500, now=61.0)
        0
    """

    ttl_s: float = 300.0
    step: int = CACHE_STEP
    held: dict[str, tuple[int, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            InputError: one of them is out of its range.
        """
        check_seconds("ttl_s", self.ttl_s, or_none=False)
        check_whole("step", self.step, 1)

    def cached(self, model: str, tokens: int, now: float) -> int:
        """The tokens of a request that a model's cache holds."""
        held, when = self.held.get(model, (0, now))
        if now - when > self.ttl_s or held > tokens:  # a shorter request is another conversation
            return 0
        return cacheable(held, self.step)

    def read(self, model: str, tokens: int, now: float) -> int:
        """A model reads a request: the tokens of it that came from the model's cache.

        Args:
            model: the name of the model.
            tokens: of the request, 0 or more.
            now: time in seconds.

        Raises:
            InputError: tokens is no number of 0 or more.
        """
        if not as_number(tokens) >= 0:
            raise InputError(f"tokens is {tokens!r:.80}; expected a whole number of 0 or more")
        cached = self.cached(model, tokens, now)
        self.held[model] = (tokens, now)
        return cached
