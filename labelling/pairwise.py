"""Judges pairs of answers in both orders, and measures how far the order decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.records import PreferenceRecord
from ..monitoring.limits import wilson
from ..routers.errors import InputError
from ..training.fit.metrics import bootstrap_interval
from .answers import ModelAnswer
from .judge_prompts import pair_prompt


@dataclass(frozen=True)
class AnswerPair:
    """Two answers to one prompt.

    Attributes:
        a: the first.
        b: the second.
    """

    a: ModelAnswer
    b: ModelAnswer

    @property
    def known(self) -> float | None:
        """The preference that needs no judge: no answer loses against one, and the same answer ties; None: ask."""
        texts = [answer.response.strip() for answer in (self.a, self.b)]
        if texts[0] == texts[1]:
            return 0.5
        if all(texts):
            return None
        return float(bool(texts[0]))

    def prompts(self, rubric: str, *, with_reference: bool) -> list[str]:
        """What a judge reads: a before b, and b before a. Nothing where no judge is needed."""
        if self.known is not None:
            return []
        prompt = self.a.prompt
        reference = prompt.reference if with_reference else None
        orders = (self.a.response, self.b.response), (self.b.response, self.a.response)
        return [pair_prompt(rubric, prompt.query, first, second, reference) for first, second in orders]

    def value(self, verdicts: Sequence[float]) -> float:
        """The preference for a, from the verdicts on the prompts."""
        a_first, b_first = verdicts
        return preference_of(a_first, b_first)

    def record(self, preference: float, source: str) -> PreferenceRecord:
        """The record of a preference for a."""
        prompt = self.a.prompt
        return PreferenceRecord(
            query=prompt.query,
            model_a=self.a.model,
            model_b=self.b.model,
            preference=preference,
            weight=prompt.weight,
            task=prompt.task,
            split=prompt.split,
            source=source,
            response_a=self.a.response,
            response_b=self.b.response,
        )


def preference_of(a_first: float, b_first: float) -> float:
    """The preference for a from the verdicts in both orders, each for the answer that stood first.

    The orders have to agree; where they do not, it is a tie (Zheng et al. 2023, MT-bench).
    """
    return a_first if a_first == 1 - b_first else 0.5


def matchups(
    answers: Sequence[ModelAnswer], strong: str | None = None, weak: str | None = None, against: str | None = None
) -> list[tuple[str, str]]:
    """Which models are compared: strong with weak, or every model with one; by default the two that there are.

    Raises:
        InputError: a model has no answers, or nothing says which of several models are compared.
    """
    models = list(dict.fromkeys(answer.model for answer in answers))
    unknown = [name for name in (strong, weak, against) if name is not None and name not in models]
    if unknown:
        raise InputError(f"there are no answers of {unknown}; expected models among {models}")
    if (strong is None) != (weak is None) or (strong and against) or (strong and strong == weak):
        raise InputError(
            f"strong is {strong!r}, weak is {weak!r}, against is {against!r}; expected two models, strong and weak, or "
            "one model that all others are compared with"
        )
    if strong and weak:
        return [(strong, weak)]
    if against:
        pairs = [(name, against) for name in models if name != against]
    else:
        pairs = [(models[0], models[1])] if len(models) == 2 else []
    if not pairs:
        raise InputError(
            f"there are answers of {len(models)} models, {models}; expected two of them as strong and weak, or one "
            "that all others are compared with (--strong, --weak, --against)"
        )
    return pairs


def pairs_of(answers: Sequence[ModelAnswer], models: Sequence[tuple[str, str]]) -> tuple[list[AnswerPair], int]:
    """The pairs of answers to one prompt, prompt by prompt, and how many lack one of the two answers."""
    of_prompt: dict[str, dict[str, ModelAnswer]] = {}
    for answer in answers:
        of_prompt.setdefault(answer.prompt.id, {})[answer.model] = answer
    found = [
        AnswerPair(given[a], given[b]) for given in of_prompt.values() for a, b in models if a in given and b in given
    ]
    return found, len(of_prompt) * len(models) - len(found)


@dataclass(frozen=True, kw_only=True)
class OrderEffect:
    """How far the order of the answers decides.

    Attributes:
        pairs: number of pairs that were judged in both orders.
        agreed: share of them in which both orders gave the same verdict.
        position_bias: how much more often the first answer wins than the second, from -1 to 1; 0.3: a judge that
            always prefers the first answer in 30 % of the pairs, and has no bias in the others.
        interval: its 95 % interval, by bootstrap over prompts.

    Example:
        >>> from routelearn.labelling import OrderEffect
        >>> effect = OrderEffect(pairs=100, agreed=0.7, position_bias=0.3, interval=(0.21, 0.39))
        >>> effect.interval[0] > 0  # the first answer wins more often than the second
        True
    """

    pairs: int
    agreed: float
    position_bias: float
    interval: tuple[float, float]


def order_effect(prompts: Sequence[str], verdicts: Sequence[tuple[float, float]]) -> OrderEffect | None:
    """Compare the verdicts in both orders; None: there are no pairs.

    Args:
        prompts: the prompt of each of n pairs; pairs of one prompt are resampled together.
        verdicts: for each pair, the verdict for the answer that stood first, in both orders.
    """
    if not verdicts:
        return None
    both = np.array(verdicts, np.float64)
    _, groups = np.unique(prompts, return_inverse=True)
    excess = both.sum(axis=1) - 1.0
    interval = bootstrap_interval(lambda rows: float(excess[rows].mean()), groups.astype(np.int64))
    if interval[0] == interval[1]:  # all pairs are alike, which is no certainty: the share of others may be so large
        _, others = wilson(0, len(both))
        low, high = interval[0] - others, interval[0] + others
        interval = (max(low, -1.0), min(high, 1.0))
    return OrderEffect(
        pairs=len(both),
        agreed=float((both[:, 0] == 1 - both[:, 1]).mean()),
        position_bias=float(excess.mean()),
        interval=interval,
    )
