"""What an answer shows at a glance, for a verifier: its length, whether it refuses, hedges, or breaks off."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from ..routers.base import Floats
from ..routers.errors import InputError

_REFUSAL = re.compile(
    r"\b(i['’]?m sorry|i am sorry|i apologi[sz]e|i can(?:['’]t|not)|(?:i am|i['’]?m) (?:not able|unable)|as an ai\b|"
    r"i do(?:n['’]t| not) have (?:access|enough|the ability)|not possible (?:to|for me)|"
    r"none of the (?:above|options)|cannot be determined)",
    re.IGNORECASE,
)
_HEDGES = re.compile(
    r"\b(might|maybe|perhaps|possibly|probably|likely|unclear|not (?:entirely )?(?:sure|certain)|it seems|"
    r"appears to|approximately|assum(?:e|ing)|however|wait|actually|on second thought|i think|i believe|i guess)\b",
    re.IGNORECASE,
)
#: Endings of a finished answer.
_END = re.compile(r"[\d.!?:;)\]}\"'`*_$>。！？”’]\s*$")

#: The features of one answer, by name; each is roughly between 0 and 1.
FEATURES: dict[str, Callable[[str], float]] = {
    "length": lambda answer: float(np.log1p(len(answer))) / 10,
    "refusal": lambda answer: float(_REFUSAL.search(answer) is not None),
    "hedging": lambda answer: min(len(_HEDGES.findall(answer)), 8) / 8,
    "numbers": lambda answer: float(np.log1p(len(re.findall(r"\d+", answer)))) / 6,
    "unfinished": lambda answer: float(_END.search(answer) is None),
}
#: Not of the answer: the router's score of the query, which the caller passes.
PRIOR = "prior"


def feature_rows(names: Sequence[str], answers: Sequence[str], priors: Sequence[float] | None = None) -> Floats:
    """Features by name: float32 (n, k).

    Args:
        names: k of `FEATURES`, or "prior".
        answers: n texts.
        priors: the router's score of the n queries, in [0, 1].

    Raises:
        InputError: the prior is needed and not given, or is no number in [0, 1].
    """
    columns = []
    for name in names:
        if name != PRIOR:
            columns.append(np.asarray([FEATURES[name](answer) for answer in answers], np.float32))
            continue
        if priors is None or len(priors) != len(answers):
            raise InputError("this verifier uses the router's score of each query; pass one prior for every answer")
        column = np.asarray(priors, np.float32)
        if not ((column >= 0) & (column <= 1)).all():
            raise InputError("a prior is no number in [0, 1]; expected the router's score of the query")
        columns.append(column)
    return np.stack(columns, axis=1) if columns else np.zeros((len(answers), 0), np.float32)
