"""Judges single answers on a scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..data.records import PerformanceRecord
from .answers import ModelAnswer
from .judge_prompts import scale_prompt


@dataclass(frozen=True)
class RatedAnswer:
    """An answer that is rated by itself.

    Attributes:
        answer: the answer.
    """

    answer: ModelAnswer

    @property
    def known(self) -> float | None:
        """The score that needs no judge: no answer is worth 0; None: ask."""
        return None if self.answer.response.strip() else 0.0

    def prompts(self, rubric: str, *, with_reference: bool) -> list[str]:
        """What a judge reads; nothing where no judge is needed."""
        if self.known is not None:
            return []
        prompt = self.answer.prompt
        reference = prompt.reference if with_reference else None
        return [scale_prompt(rubric, prompt.query, self.answer.response, reference)]

    def value(self, verdicts: Sequence[float]) -> float:
        """The score, from the verdict on the prompt."""
        (score,) = verdicts
        return score

    def record(self, score: float, source: str) -> PerformanceRecord:
        """The record of a score."""
        prompt = self.answer.prompt
        return PerformanceRecord(
            query=prompt.query,
            model=self.answer.model,
            score=score,
            cost_usd=self.answer.cost_usd,
            response=self.answer.response,
            weight=prompt.weight,
            task=prompt.task,
            split=prompt.split,
            source=source,
        )
