"""What `build` is to build, and at which price."""

from __future__ import annotations

from dataclasses import dataclass

from ..routers.errors import InputError
from .graders import Grader
from .judge_job import JudgeSettings


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """What is built, and at which price.

    Attributes:
        strong: the strong model.
        weak: the weak model.
        judge: the model that compares the answers; None: the answer keys decide.
        grader: how answers are compared with the answer key; None: as each prompt says.
        judging: what the judge is asked; its models are strong and weak.
        max_usd: most USD to spend in all, earlier runs included; None: no limit.
        max_quality_loss: the largest loss of quality against strong alone that is acceptable.
        held_out: share of the prompts that is kept from the training, to prove the router on.
        seed: of the choice of the prompts and of the training.

    Example:
        >>> from routelearn.labelling import BuildSettings
        >>> BuildSettings(strong="gpt-5", weak="gpt-5-mini", grader="number", max_usd=5.0).held_out
        0.3
    """

    strong: str
    weak: str
    judge: str | None = None
    grader: str | Grader | None = None
    judging: JudgeSettings | None = None
    max_usd: float | None = None
    max_quality_loss: float = 0.05
    held_out: float = 0.3
    seed: int = 0

    def check(self) -> None:
        """Refuse values out of range.

        Raises:
            InputError: one is.
        """
        if self.strong == self.weak:
            raise InputError(f"strong and weak are both {self.strong!r}; expected two models")
        if not 0.1 <= self.held_out <= 0.9:
            raise InputError(f"held_out is {self.held_out}; expected a number from 0.1 to 0.9")
        if not 0 < self.max_quality_loss < 1:
            raise InputError(f"max_quality_loss is {self.max_quality_loss}; expected a number between 0 and 1")
