"""Golden queries: fixed inputs whose results every bundle stores, and every load computes again and compares.

routelearn chose these inputs, so that a bundle never carries training prompts.
The odd ones are there because two tokenizers that differ do so on odd texts
first. A router's bundle stores the qualities of `GOLDEN_QUERIES`, a verifier's
bundle the confidences of `GOLDEN_PAIRS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .bundle import Golden
from .decision import Floats
from .errors import BundleCorruptError, GoldenScoreError
from .query import Query
from .tokenizer import Ids

GOLDEN_QUERIES: tuple[Query, ...] = (
    "",
    "Hi!",
    "What is the capital of Australia?",
    "Translate 'good morning' into Portuguese, please.",
    "Write a Python function that returns the n-th Fibonacci number in O(log n), and explain why it is correct.",
    "Prove that the square root of 2 is irrational.",
    "A train leaves at 9:40 and covers 312 km at 78 km/h. When does it arrive? Show every step.",
    "Summarise the following contract in exactly three bullet points, each under 15 words:\nThe tenant shall ...",
    "Which of these is a noble gas?\nA. Oxygen\nB. Argon\nC. Chlorine\nD. Nitrogen\nAnswer:",
    "SELECT name, COUNT(*) FROM orders GROUP BY name HAVING COUNT(*) > 3; -- why is this slow?",
    "¿Cuál es la diferencia entre «ser» y «estar»? Dame tres ejemplos.",
    "用简单的话解释一下量子纠缠。",
    "اشرح لي الفرق بين التضخم والانكماش باختصار.",
    "naïve café — ﬁancé ½ 🙂👩\u200d💻 e\u0301 \u200f\ufeff\x00 tab\tend",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa b",
    (
        {"role": "user", "content": "Explain how a B-tree keeps its height logarithmic."},
        {"role": "assistant", "content": "Every node but the root is at least half full, so ..."},
        {"role": "user", "content": "yes, go on"},
    ),
)

#: Pairs of a query and an answer, for verifiers.
GOLDEN_PAIRS: tuple[tuple[Query, str], ...] = (
    ("", ""),
    ("What is the capital of Australia?", "The capital of Australia is Canberra."),
    ("What is the capital of Australia?", "I'm not sure, but it might be Sydney."),
    ("How much is 12 * 12?", "12 * 12 = 144. #### 144"),
    ("How much is 12 * 12?", "I'm sorry, but as an AI I cannot calculate."),
    ("Prove that the square root of 2 is irrational. " * 40, "Suppose it is p/q in lowest terms. " * 80),
    ("用简单的话解释一下量子纠缠。", "naïve café — ﬁancé ½ 🙂 \u200f\ufeff\x00 end"),
    (
        (
            {"role": "user", "content": "Explain how a B-tree keeps its height logarithmic."},
            {"role": "assistant", "content": "Every node but the root is at least half full, so ..."},
            {"role": "user", "content": "yes, go on"},
        ),
        "so the height is at most log base t of (n + 1) / 2.",
    ),
)
#: The router's score of every golden pair, for verifiers that read a router's score.
GOLDEN_PRIOR = 0.5


def golden_ids_match(rows: Iterable[Ids], golden: Sequence[Golden]) -> bool:
    """Whether a tokenizer gives the token ids that the bundle stores.

    Args:
        rows: token ids of n golden inputs, one array for each.
        golden: the n golden inputs of the bundle.
    """
    return all(row.tolist() == list(item.ids) for row, item in zip(rows, golden, strict=True))


def check_golden(
    compute: Callable[[], Floats],
    expected: Sequence[Sequence[float]] | npt.NDArray[np.float32],
    *,
    tolerance: float,
    name: str,
    where: str | Path,
) -> None:
    """Compute the results of the golden inputs again, and compare them with the stored ones.

    Args:
        compute: computes the results of the n golden inputs: float32 (n, m).
        expected: the stored results, (n, m).
        tolerance: largest absolute difference that passes.
        name: what a result is, in the plural, for the messages: "qualities".
        where: the bundle, for the messages.

    Raises:
        BundleCorruptError: there are no golden inputs, or the graph fails on them.
        GoldenScoreError: the results have another shape, are not finite, or differ by more than the tolerance.
    """
    stored = np.asarray(expected, np.float32)
    if not len(stored):
        raise BundleCorruptError(f"{where}: the bundle holds no golden {name}; expected at least one")
    try:
        results = compute()
    except Exception as error:  # whatever a stranger's graph makes fail
        raise BundleCorruptError(f"{where}: the graph fails on the golden inputs: {error}") from error
    if results.shape != stored.shape:
        raise GoldenScoreError(f"{where}: golden {name} have the shape {results.shape}; expected {stored.shape}")
    if not np.isfinite(results).all():
        raise GoldenScoreError(f"{where}: golden {name} are not finite; expected finite numbers")
    difference = float(np.abs(results - stored).max())
    if not difference <= tolerance:
        raise GoldenScoreError(
            f"{where}: golden {name} differ from the stored ones by {difference:.2g}; expected at most {tolerance:.2g}"
        )
