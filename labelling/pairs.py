"""Which two answers of a prompt are compared."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import combinations

from ..routers.errors import InputError
from .answers import ModelAnswer
from .prompts import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two answers to one prompt.

    Attributes:
        prompt: the prompt.
        model_a: name of the first model: the strong one, where there is one.
        model_b: name of the second model.
        response_a: the answer of model a.
        response_b: the answer of model b.

    Example:
        >>> from routelearn.labelling import Pair, Prompt
        >>> prompt = Prompt(query="How much is 12 * 12?")
        >>> Pair(prompt=prompt, model_a="sim-max", model_b="sim-small", response_a="144", response_b="124").models
        ('sim-max', 'sim-small')
    """

    prompt: Prompt
    model_a: str
    model_b: str
    response_a: str
    response_b: str

    @property
    def models(self) -> tuple[str, str]:
        """The names of both models."""
        return self.model_a, self.model_b

    @property
    def key(self) -> str:
        """The same for the same prompt, models and answers, whichever model comes first."""
        answers = sorted([(self.model_a, self.response_a), (self.model_b, self.response_b)])
        return hashlib.sha256(json.dumps([self.prompt.id, answers]).encode("ascii")).hexdigest()[:24]


def draw(seed: int, *names: str) -> float:
    """A random number from 0 to 1 that depends on the seed and the names alone: more answers change no earlier draw."""
    digest = hashlib.sha256(json.dumps([seed, *names]).encode("ascii")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def models_to_compare(answers: Sequence[ModelAnswer], strong: str | None, weak: str | None) -> list[str]:
    """The models whose answers are compared.

    Raises:
        InputError: only one of the pair is named, both are the same, or the answers are not of two or more models.
    """
    there = sorted({answer.model for answer in answers})
    if (strong is None) != (weak is None):
        raise InputError("only one of strong and weak is given; expected both or neither")
    if strong is None or weak is None:
        if len(there) < 2:
            raise InputError(f"the answers are of {there}; expected two models or more")
        return there
    if strong == weak:
        raise InputError(f"strong and weak are both {strong!r}; expected two models")
    for name in (strong, weak):
        if name not in there:
            raise InputError(f"there is no answer of {name!r}; expected one of {there}")
    return [strong, weak]


def choose_pairs(
    answers: Sequence[ModelAnswer],
    *,
    strong: str | None = None,
    weak: str | None = None,
    seed: int = 0,
    known: Container[str] = frozenset(),
) -> list[Pair]:
    """One pair of answers for each prompt with two of them, in random order.

    Among more than two models every pair of models is chosen about equally often. An answer that the service failed
    to give is none, and two answers with the same text are a tie that nobody needs to look at.

    Args:
        answers: see `read_answers`.
        strong: the model that is compared with the weak one; None: any two models.
        weak: the other model.
        seed: of the order and of the choice of models.
        known: keys of pairs that were chosen earlier; they are chosen again, and come first.

    Raises:
        InputError: see `models_to_compare`; or no prompt has two answers.
    """
    models = models_to_compare(answers, strong, weak)
    by_prompt: dict[str, dict[str, ModelAnswer]] = {}
    for answer in answers:
        if answer.model in models and answer.status != "failed":
            by_prompt.setdefault(answer.prompt.id, {})[answer.model] = answer
    used: Counter[tuple[str, str]] = Counter()
    chosen = []
    for prompt in sorted(by_prompt, key=lambda prompt: draw(seed, "order", prompt)):
        found = by_prompt[prompt]
        pairs = [_pair(found[a], found[b]) for a, b in combinations([m for m in models if m in found], 2)]
        possible = [pair for pair in pairs if pair.response_a.strip() != pair.response_b.strip() or pair.key in known]
        if possible:
            pair = min(possible, key=lambda one: (one.key not in known, used[one.models], draw(seed, "pair", one.key)))
            used[pair.models] += 1
            chosen.append(pair)
    if not chosen:
        raise InputError(
            f"no prompt has answers of two of the models {models}; expected one or more, with different texts"
        )
    return sorted(chosen, key=lambda pair: pair.key not in known)


def _pair(a: ModelAnswer, b: ModelAnswer) -> Pair:
    return Pair(prompt=a.prompt, model_a=a.model, model_b=b.model, response_a=a.response, response_b=b.response)
