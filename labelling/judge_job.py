"""What judges are asked, and what becomes of their verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..data.records import Record
from ..routers.errors import InputError
from .answers import ModelAnswer
from .calls import Progress
from .candidates import Candidate
from .estimate import pilot_rows
from .journal import Journal
from .judge_prompts import Method, rubric_text
from .pairwise import AnswerPair, OrderEffect, matchups, order_effect, pairs_of
from .scale import RatedAnswer
from .verdict_calls import Verdicts, ask_verdicts
from .verdicts import pair_verdict, scale_verdict

_READERS = {"pairs": pair_verdict, "scale": scale_verdict}
#: What a label is about.
Item = AnswerPair | RatedAnswer


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """What judges are asked.

    Attributes:
        method: "pairs": which of two answers is better, in both orders; "scale": how good each answer is, from 1 to 10.
        models: for pairs, the models that are compared, as (model_a, model_b); None: the two that there are.
        rubric: what the judge is to look at; None: the rubric that comes with routelearn.
        with_reference: show the answer key to the judge where there is one.

    Example:
        >>> from routelearn.labelling import JudgeSettings
        >>> JudgeSettings(models=[("sim-max", "sim-small")], rubric="Only what is true counts.").method
        'pairs'
    """

    method: Method = "pairs"
    models: Sequence[tuple[str, str]] | None = None
    rubric: str | None = None
    with_reference: bool = True


@dataclass(frozen=True, kw_only=True)
class JudgeReport:
    """How one judge did.

    Attributes:
        judge: name of the judge.
        verdicts: number of its verdicts.
        asked_again: number of prompts that it was asked a second time, because its reply ended with no verdict.
        malformed: those among them whose second reply ended with none either.
        refused: number of prompts that its service refused.
        order: how far the order of two answers decides; None: it rated single answers, or judged no pair.

    Example:
        >>> from routelearn.labelling import JudgeReport
        >>> report = JudgeReport(judge="large", verdicts=200, asked_again=3, malformed=1, refused=0, order=None)
        >>> report.malformed
        1
    """

    judge: str
    verdicts: int
    asked_again: int
    malformed: int
    refused: int
    order: OrderEffect | None


@dataclass(frozen=True, kw_only=True)
class JudgeJob:
    """What is judged, by whom, and how."""

    items: Sequence[Item]
    unpaired: int
    judges: Sequence[Candidate]
    settings: JudgeSettings
    rubric: str

    @classmethod
    def of(cls, answers: Sequence[ModelAnswer], judges: Sequence[Candidate], settings: JudgeSettings) -> JudgeJob:
        """The job of judging these answers.

        Raises:
            InputError: there are no answers, no judges or no pairs; or the settings are not as described.
        """
        if not answers or not judges:
            raise InputError(f"there are {len(answers)} answers and {len(judges)} judges; expected one or more of each")
        names = [judge.name for judge in judges]
        if len(set(names)) < len(names):
            raise InputError(f"the judges are {names}; expected each of them once")
        if settings.method not in _READERS:
            raise InputError(f"method is {settings.method!r}; expected one of {list(_READERS)}")
        rubric = rubric_text(settings.method) if settings.rubric is None else settings.rubric
        items: Sequence[Item] = [RatedAnswer(answer) for answer in answers]
        unpaired = 0
        if settings.method == "pairs":
            items, unpaired = pairs_of(answers, settings.models or matchups(answers))
            if not items:
                raise InputError("no prompt has answers of both models; expected at least one")
        return cls(items=items, unpaired=unpaired, judges=judges, settings=settings, rubric=rubric)

    def part(self, count: int) -> JudgeJob:
        """The job of judging so many of the items that need a judge, short and long ones."""
        asked = [item for item in self.items if item.known is None]
        texts = ["\n".join(self.prompts_of(item)) for item in asked]
        rows = pilot_rows(texts, count, seed=0) if asked else []
        return replace(self, items=[asked[row] for row in rows])

    def prompts_of(self, item: Item) -> list[str]:
        """What a judge reads about one item."""
        return item.prompts(self.rubric, with_reference=self.settings.with_reference)

    def prompts(self, items: Sequence[Item]) -> list[str]:
        """What a judge reads about all items; both orders of a pair stand side by side."""
        return [prompt for item in items for prompt in self.prompts_of(item)]

    def ask(
        self,
        items: Sequence[Item],
        journal: Journal,
        max_usd: float | None,
        on_progress: Callable[[Progress], object] | None,
    ) -> Verdicts:
        """The verdicts of all judges on some items."""
        read = _READERS[self.settings.method]
        prompts = self.prompts(items)
        return ask_verdicts(prompts, self.judges, journal, read, max_usd=max_usd, on_progress=on_progress)

    def verdicts_of(self, judge: str, item: Item, verdicts: Verdicts) -> list[float] | None:
        """The verdicts of one judge on one item; None: it lacks one."""
        found = [verdicts.of.get((judge, prompt)) for prompt in self.prompts_of(item)]
        return None if not found or None in found else [value for value in found if value is not None]

    def values(self, item: Item, verdicts: Verdicts) -> dict[str, float]:
        """The label of each judge that has one."""
        found = {judge.name: self.verdicts_of(judge.name, item, verdicts) for judge in self.judges}
        return {name: item.value(given) for name, given in found.items() if given is not None}

    def record(self, item: Item, verdicts: Verdicts) -> Record | None:
        """The label of an item; None: no judge has one."""
        known = item.known
        values = {judge.name: known for judge in self.judges} if known is not None else self.values(item, verdicts)
        if not values:
            return None
        return item.record(float(np.mean(list(values.values()))), f"judge {' + '.join(values)}")

    def report(self, judge: str, items: Sequence[Item], verdicts: Verdicts) -> JudgeReport:
        """How one judge did."""
        both: list[tuple[float, float]] = []
        prompts = []
        for item in items:
            found = self.verdicts_of(judge, item, verdicts) if isinstance(item, AnswerPair) else None
            if isinstance(item, AnswerPair) and found is not None:
                both.append((found[0], found[1]))
                prompts.append(item.a.prompt.id)
        return JudgeReport(
            judge=judge,
            verdicts=sum(name == judge for name, _ in verdicts.of),
            asked_again=verdicts.asked_again.get(judge, 0),
            malformed=verdicts.malformed.get(judge, 0),
            refused=verdicts.refused.get(judge, 0),
            order=order_effect(prompts, both),
        )
