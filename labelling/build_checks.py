"""What ends a build early: prompts that nothing can judge, and a judge whose verdicts say nothing."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.records import PreferenceRecord
from ..routers.errors import InputError
from .graders import Grader
from .judging import Judging
from .prompts import Prompt

#: So many questions in vain end a build.
IN_VAIN = 10


def check_verdicts(judge: str, done: Judging) -> None:
    """Refuse a judge whose verdicts say nothing, before more of them are paid for.

    Raises:
        InputError: half of its replies end with no verdict, or it always prefers what stands first.
    """
    asked = len(done.records) + done.unlabelled - done.without_judge
    if asked >= IN_VAIN and done.unlabelled > asked / 2 and done.outcome.stopped is None:
        raise InputError(f"{judge!r} gave no verdict on {done.unlabelled:,} of {asked:,} pairs; expected another one")
    order = next((report.order for report in done.judges if report.order is not None), None)
    ties = all(isinstance(record, PreferenceRecord) and record.preference == 0.5 for record in done.records)
    if len(done.records) >= IN_VAIN and ties:
        bias = "" if order is None else f": it prefers the answer that stands first by {order.position_bias:+.2f}"
        raise InputError(f"the verdicts of {judge!r} make every pair a tie{bias}; expected a better judge")


def check_keys(prompts: Sequence[Prompt], grader: str | Grader | None) -> None:
    """Refuse prompts that nothing can judge, before anything is paid."""
    if callable(grader):
        return
    without = sum(prompt.reference is None and not (grader or prompt.grader or "").count(":") for prompt in prompts)
    if without:
        raise InputError(
            f"{without:,} of {len(prompts):,} prompts have no answer key, and no judge is named; expected a judge, or "
            "the column reference"
        )
    if not grader and not all(prompt.grader for prompt in prompts):
        raise InputError("the prompts have answer keys, but no grader; expected a grader, such as number, or a judge")
