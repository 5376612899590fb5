"""Asks judges for verdicts; a judge whose reply ends with none is asked once more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from .answers import status_of_reply
from .calls import Outcome, Progress, ask_all
from .candidates import Candidate
from .journal import Journal
from .judge_prompts import AGAIN
from .question import Ask, Reply, key_of

#: From what a judge wrote to its verdict; None: there is none.
Reader = Callable[[str], float | None]


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """The verdicts of judges on prompts.

    Attributes:
        of: the verdict by judge and prompt; a judge whose second reply ended with no verdict either has none.
        asked_again: by judge, the prompts whose first reply ended with no verdict.
        malformed: by judge, those whose second reply did not either.
        refused: by judge, the prompts that its service refuses.
        outcome: how the calls ended.
    """

    of: Mapping[tuple[str, str], float]
    asked_again: Mapping[str, int]
    malformed: Mapping[str, int]
    refused: Mapping[str, int]
    outcome: Outcome


def judge_asks(prompts: Sequence[str], judges: Sequence[Candidate]) -> list[Ask]:
    """One question for each judge and prompt. Prompts that are alike are asked once."""
    return [Ask(key_of(judge, prompt), judge.name, prompt) for prompt in dict.fromkeys(prompts) for judge in judges]


def ask_verdicts(
    prompts: Sequence[str],
    judges: Sequence[Candidate],
    journal: Journal,
    read: Reader,
    *,
    max_usd: float | None = None,
    on_progress: Callable[[Progress], object] | None = None,
) -> Verdicts:
    """Ask each judge about each prompt.

    Args:
        prompts: what the judges read, whole.
        judges: the judges.
        journal: gets each reply as it comes; what it has is not asked again.
        read: reads a verdict.
        max_usd: see `ask_all`.
        on_progress: see `ask_all`.

    Raises:
        InputError, InferenceError, MissingExtraError: see `ask_all`.
    """
    of_name = {judge.name: judge for judge in judges}
    asks = judge_asks(prompts, judges)
    outcome = ask_all(asks, judges, journal, max_usd=max_usd, on_progress=on_progress)
    unread = [ask for ask in asks if ask.key in outcome.replies and _lacks_verdict(outcome.replies[ask.key], read)]
    second = {ask.key: _second(ask, of_name[ask.candidate]) for ask in unread}
    if second and outcome.stopped is None:
        more = ask_all(list(second.values()), judges, journal, max_usd=max_usd, on_progress=on_progress)
        outcome = _joined(outcome, more)
    of: dict[tuple[str, str], float] = {}
    malformed, refused = Counter[str](), Counter[str]()
    for ask in asks:
        last = second.get(ask.key, ask)
        # The budget may have ended the run before the second question, which an earlier run may have asked.
        entry = journal.entries.get(last.key)
        if entry is None:
            continue
        reply = Reply.from_entry(entry)
        verdict = _verdict(reply, read)
        if verdict is not None:
            of[ask.candidate, str(ask.query)] = verdict
        elif reply.error is not None:
            refused[ask.candidate] += 1
        else:
            malformed[ask.candidate] += 1
    asked_again = Counter(ask.candidate for ask in second.values() if ask.key in journal.entries)
    return Verdicts(of=of, asked_again=asked_again, malformed=malformed, refused=refused, outcome=outcome)


def _second(ask: Ask, judge: Candidate) -> Ask:
    query = f"{ask.query}{AGAIN}"
    return replace(ask, key=key_of(judge, query), query=query)


def _verdict(reply: Reply, read: Reader) -> float | None:
    """The verdict of a reply. The last line of a reply that was cut may be anything, such as a part of an answer."""
    return None if status_of_reply(reply) in {"failed", "cut"} else read(reply.text)


def _lacks_verdict(reply: Reply, read: Reader) -> bool:
    return reply.error is None and _verdict(reply, read) is None


def _joined(first: Outcome, second: Outcome) -> Outcome:
    """Two runs of calls as one; the money of the second run counts that of the first already."""
    return Outcome(
        replies={**first.replies, **second.replies},
        missing=[*first.missing, *second.missing],
        stopped=first.stopped or second.stopped,
        spent_usd=second.spent_usd,
        failed_calls=first.failed_calls + second.failed_calls,
        lost_calls=first.lost_calls + second.lost_calls,
        last_error=second.last_error or first.last_error,
    )
