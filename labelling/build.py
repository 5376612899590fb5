"""From prompts to a router: choose prompts, ask the models, judge, train, prove. Each step is a command of its own."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..data.records import PerformanceRecord, Record, record_key
from ..data.writers import atomic_path, write_records
from ..evaluation.verdict import Verdict
from ..routers.errors import InputError
from ..routers.query import prompt_key
from ..training.adaptation import adapt
from ..training.matrix_factorization.config import MatrixFactorizationConfig
from .answers import ModelAnswer
from .build_checks import IN_VAIN, check_keys, check_verdicts
from .build_settings import BuildSettings
from .calls import Outcome, Progress
from .candidates import Candidate
from .collect import collect_answers, failed_models
from .graders import grade_answers
from .judge_job import JudgeSettings
from .judging import judge_answers
from .next_labels import choose_prompts
from .prompts import Prompt
from .proof import prove

#: Prompts that are asked and judged first, so that the price of the others is known.
PILOT = 30
#: Fewest prompts that a router is built of.
LEAST_PROMPTS = 60
#: Fewest prompts to train on, and to prove the router on.
LEAST_PART = 15
#: The part of the budget that the plan uses; the rest is for answers that are longer than expected.
_PLANNED = 0.95


@dataclass(frozen=True, kw_only=True)
class Build:
    """What was built.

    Attributes:
        router: folder of the bundle.
        work: folder of everything else: answers, records, the report.
        verdict: whether to deploy it.
        prompts: number of prompts that were asked.
        training: number of labelled prompts that it was trained on.
        held_out: number of labelled prompts that it was proved on.
        spent_usd: USD that were spent in all.
        stopped: why not every prompt was asked and judged; None: every one was.

    Example:
        >>> from pathlib import Path
        >>> from routelearn.evaluation import verdict_of
        >>> from routelearn.labelling import Build
        >>> records = [record for record in routelearn.read_records("records.jsonl").records if record.split == "test"]
        >>> verdict = verdict_of(routelearn.load("router/"), records, max_quality_loss=0.1)
        >>> counts = {"prompts": 300, "training": 210, "held_out": 90}
        >>> build = Build(
        ...     router=Path("router"), work=Path("router.build"), verdict=verdict, spent_usd=4.2, stopped=None, **counts
        ... )
        >>> build.stopped is None
        True
    """

    router: Path
    work: Path
    verdict: Verdict
    prompts: int
    training: int
    held_out: int
    spent_usd: float
    stopped: str | None


def work_folder(out: str | Path) -> Path:
    """Where `build_router` keeps what is not the router: "router.build" beside "router"."""
    return Path(f"{str(out).rstrip('/')}.build")


def build_router(
    prompts: Sequence[Prompt],
    candidates: Sequence[Candidate],
    out: str | Path,
    settings: BuildSettings,
    *,
    on_step: Callable[[str], object] = lambda text: None,
    on_progress: Callable[[Progress], object] | None = None,
) -> Build:
    """Build a router of prompts, and say whether to deploy it.

    As many prompts as the budget pays for are chosen, spread over the kinds of prompts. The answers and verdicts are
    journaled as `collect_answers` and `judge_answers` do it, so that a run that was stopped goes on, pays nothing
    twice, and ends in the same bytes. The router is the general router, adapted to the labels; some labels are held
    out to prove it.

    Args:
        prompts: what is asked; those whose split is "test" are held out.
        candidates: strong, weak and the judge among them.
        out: folder of the bundle; everything else goes to ``<out>.build/``.
        settings: what is built.
        on_step: called with a sentence at each step.
        on_progress: called after each answer and each verdict.

    Raises:
        InputError: a model is not there, nothing can judge the answers, the budget buys too few prompts, or the folder
            holds another job.
    """
    settings.check()
    job = _Job(prompts, candidates, Path(out), settings, on_step, on_progress)
    return job.run()


class _Job:
    """One build."""

    def __init__(
        self,
        prompts: Sequence[Prompt],
        candidates: Sequence[Candidate],
        out: Path,
        settings: BuildSettings,
        on_step: Callable[[str], object],
        on_progress: Callable[[Progress], object] | None,
    ) -> None:
        known = {one.name: one for one in candidates}
        names = [settings.strong, settings.weak, *([settings.judge] if settings.judge else [])]
        missing = [name for name in names if name not in known]
        if missing:
            raise InputError(f"there are no models {missing}; expected names among {list(known)}")
        if settings.judge is None:
            check_keys(prompts, settings.grader)
        # Records are grouped by this key, which folds case and white space.
        self._prompts = list({prompt_key(prompt.query): prompt for prompt in reversed(prompts)}.values())[::-1]
        if len(self._prompts) < LEAST_PROMPTS:
            raise InputError(f"there are {len(self._prompts)} different prompts; expected {LEAST_PROMPTS} or more")
        self._pair = [known[settings.strong], known[settings.weak]]
        self._judge = known[settings.judge] if settings.judge else None
        self._out = out
        self._work = work_folder(out)
        self._settings = settings
        self._say = on_step
        self._on_progress = on_progress
        self._spent: dict[str, float] = {"answers": 0.0, "verdicts": 0.0}
        self._price: dict[str, float] = {}
        self._stopped: str | None = None

    def run(self) -> Build:
        """All steps."""
        self._check_split(self._prompts)
        self._open_work()
        chosen: Sequence[Prompt] = self._prompts
        if self._settings.max_usd is not None:
            chosen = self._affordable()
        self._check_split(chosen)
        self._say(f"asking {len(chosen):,} prompts")
        records, costs = self._labels(chosen)
        training, held_out = self._split(records, chosen)
        self._say(f"training on {len(training):,} labels, proving on {len(held_out):,}")
        write_records(training, self._work / "training.jsonl")
        write_records(held_out, self._work / "held_out.jsonl")
        self._train(training)
        verdict = prove(
            self._out,
            self._work / "report",
            training,
            held_out,
            costs=costs,
            prices=[one.as_model for one in self._pair],
            max_quality_loss=self._settings.max_quality_loss,
            seed=self._settings.seed,
            judged=self._judge is not None,
        )
        with atomic_path(self._work / "verdict.json") as staging:
            staging.write_text(json.dumps(verdict.as_dict(), indent=1) + "\n", encoding="utf-8")
        return Build(
            router=self._out,
            work=self._work,
            verdict=verdict,
            prompts=len(chosen),
            training=len({record_key(record) for record in training}),
            held_out=len({record_key(record) for record in held_out}),
            spent_usd=sum(self._spent.values()),
            stopped=self._stopped,
        )

    def _open_work(self) -> None:
        """Make the folder of the job, or refuse that of another one."""
        self._work.mkdir(parents=True, exist_ok=True)
        about = {
            "strong": self._settings.strong,
            "weak": self._settings.weak,
            "judge": self._settings.judge,
            "seed": self._settings.seed,
            "prompts": [prompt.id for prompt in self._prompts],
        }
        path = self._work / "build.json"
        if not path.is_file():
            with atomic_path(path) as staging:
                staging.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
            return
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            known = None
        if known != about:
            raise InputError(
                f"{self._work} holds another job (other prompts, models or seed); choose another output, or remove "
                "that folder with the answers in it"
            )

    def _affordable(self) -> list[Prompt]:
        """The prompts that the budget pays for, by the price of a pilot.

        Raises:
            InputError: they are too few.
        """
        seed = self._settings.seed
        pilot = choose_prompts(self._prompts, PILOT, seed=seed).prompts
        self._say(f"asking {len(pilot)} prompts first, to learn the price")
        records, _ = self._labels(pilot)
        limit = self._settings.max_usd or 0.0
        if not records:
            raise InputError(f"{limit:g} USD buy no prompt; expected some {LEAST_PROMPTS} prompts' worth")
        price = sum(self._price.values()) / len({record_key(record) for record in records})
        total = len(self._prompts)
        count = total if price <= 0 else min(total, int(_PLANNED * limit / price))
        self._say(f"a prompt costs {price:.5f} USD; {limit:g} USD buy {count:,} of {total:,} prompts")
        if count < LEAST_PROMPTS:
            raise InputError(
                f"{limit:g} USD buy {count} prompts at {price:.5f} USD each; expected {LEAST_PROMPTS} or more: "
                f"{LEAST_PROMPTS * price / _PLANNED:.2f} USD"
            )
        if count == total:
            return list(self._prompts)
        asked = {prompt.id for prompt in pilot}
        rest = [prompt for prompt in self._prompts if prompt.id not in asked]
        chosen = {
            prompt.id: prompt for prompt in (*pilot, *choose_prompts(rest, count - len(pilot), seed=seed).prompts)
        }
        return [chosen[prompt.id] for prompt in self._prompts if prompt.id in chosen]

    def _left(self, besides: str) -> float | None:
        """What one kind of calls may spend: the budget less what the other kind spent."""
        return None if self._settings.max_usd is None else max(self._settings.max_usd - self._spent[besides], 0.0)

    def _labels(self, prompts: Sequence[Prompt]) -> tuple[list[Record], dict[tuple[str, str], float]]:
        """The labels of these prompts, and what each answer cost, by prompt and model."""
        done = collect_answers(
            prompts,
            self._pair,
            self._work / "answers.jsonl",
            max_usd=self._left("verdicts"),
            on_progress=self._on_progress,
        )
        self._spent["answers"], self._price["answers"] = done.outcome.spent_usd, _price_of(done.outcome)
        self._stopped = done.outcome.stopped
        failed = failed_models(done.answers)
        if failed and len(done.answers) >= 2 * IN_VAIN:
            raise InputError("; ".join(f"model {name!r} answered nothing: {error}" for name, error in failed.items()))
        costs = {
            (prompt_key(answer.prompt.query), answer.model): answer.cost_usd
            for answer in done.answers
            if answer.cost_usd is not None
        }
        return self._judged(done.answers), costs

    def _judged(self, answers: Sequence[ModelAnswer]) -> list[Record]:
        """Records of the answers; only prompts that both models answered have one."""
        if self._judge is None:
            return list(_of_both(grade_answers(answers, self._settings.grader).records, self._settings))
        judging = replace(
            self._settings.judging or JudgeSettings(), models=[(self._settings.strong, self._settings.weak)]
        )
        done = judge_answers(
            answers,
            [self._judge],
            self._work / "records.jsonl",
            judging,
            max_usd=self._left("answers"),
            on_progress=self._on_progress,
        )
        self._spent["verdicts"], self._price["verdicts"] = done.outcome.spent_usd, _price_of(done.outcome)
        self._stopped = self._stopped or done.outcome.stopped
        check_verdicts(self._judge.name, done)
        return list(done.records)

    def _split(self, records: Sequence[Record], prompts: Sequence[Prompt]) -> tuple[list[Record], list[Record]]:
        """Records to train on and records to prove on."""
        tested = {prompt_key(prompt.query) for prompt in self._tested(prompts)}
        training = [replace(record, split="train") for record in records if record_key(record) not in tested]
        held_out = [replace(record, split="test") for record in records if record_key(record) in tested]
        for part in (training, held_out):
            self._check_part(len({record_key(record) for record in part}), held_out=part is held_out, what="labelled")
        return training, held_out

    def _tested(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts that the router is proved on: those that the file says, else a share of them by their ids."""
        if any(prompt.split == "test" for prompt in prompts):
            return [prompt for prompt in prompts if prompt.split == "test"]
        return sorted(prompts, key=lambda prompt: prompt.id)[: round(self._settings.held_out * len(prompts))]

    def _check_part(self, count: int, *, held_out: bool, what: str) -> None:
        """Refuse a part of the prompts that is too small to train on, or to prove the router on."""
        if count < LEAST_PART:
            raise InputError(
                f"{count} {what} prompts are left {'to prove the router on' if held_out else 'to train on'}; expected "
                f"{LEAST_PART} or more: give more prompts, or another share of held-out ones"
            )

    def _check_split(self, prompts: Sequence[Prompt]) -> None:
        """Refuse a split that leaves too little on one side, before the prompts are asked."""
        tested = len(self._tested(prompts))
        self._check_part(tested, held_out=True, what="different")
        self._check_part(len(prompts) - tested, held_out=False, what="different")

    def _train(self, training: Sequence[Record]) -> None:
        config = MatrixFactorizationConfig(
            strong=self._settings.strong, weak=self._settings.weak, seed=self._settings.seed
        )
        adapt("general", training, self._out, config, pool=[one.as_model for one in self._pair])


def _price_of(outcome: Outcome) -> float:
    """USD of the replies to these questions; the journal may hold more."""
    return math.fsum(reply.cost_usd or 0.0 for reply in outcome.replies.values())


def _of_both(records: Sequence[PerformanceRecord], settings: BuildSettings) -> list[PerformanceRecord]:
    """The records of prompts that both models answered."""
    found: dict[str, set[str]] = {}
    for record in records:
        found.setdefault(record_key(record), set()).add(record.model)
    return [record for record in records if found[record_key(record)] >= {settings.strong, settings.weak}]
