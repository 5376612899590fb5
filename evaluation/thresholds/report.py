"""How strong calls, loss and cost change around a threshold: as data, and as one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...routers.threshold_table import share_threshold
from ...training.fit.metrics import Array, percentile_interval, resamples, weighted_mean
from ...training.html_page import escaped, html_table, new_figure, page, svg, write_pages

JSON, HTML = "calibration.json", "calibration.html"

#: The report also has rows for strong shares this far from the chosen one.
STEPS = (-0.1, -0.05, -0.02, -0.01, 0.0, 0.01, 0.02, 0.05, 0.1)
#: Number of resamples of the intervals.
BOOTSTRAP = 500


@dataclass(frozen=True, kw_only=True)
class ThresholdRow:
    """What one threshold does on n queries.

    Example:
        >>> from routelearn.evaluation import ThresholdRow
        >>> row = ThresholdRow(threshold=0.6, strong_share=0.25, usd=1.5)
        >>> row.loss is None, row.chosen  # without labels the loss is not known
        (True, False)

    Attributes:
        threshold: score at or above it goes to strong.
        strong_share: share of the queries that goes to strong.
        loss: mean loss against always-strong; None without labels.
        interval: 95 % bootstrap interval of the loss at this threshold alone, which is not a guarantee; None without
            labels.
        usd: USD for 1,000 queries; None without prices.
        chosen: whether this is the chosen threshold.
    """

    threshold: float
    strong_share: float
    loss: float | None = None
    interval: tuple[float, float] | None = None
    usd: float | None = None
    chosen: bool = False


@dataclass(frozen=True, kw_only=True)
class ThresholdReport:
    """What thresholds do on n queries, around a chosen one.

    Example:
        >>> import numpy as np
        >>> from routelearn.evaluation import threshold_report
        >>> report = threshold_report(np.linspace(0, 1, 101), 0.75, strong="large", weak="small")
        >>> round(report.chosen.strong_share, 2), round(report.moves["strong_share"], 2)
        (0.26, 0.01)

    Attributes:
        strong: the strong model.
        weak: the weak model.
        queries: number of queries.
        rows: thresholds around the chosen one, by rising strong share.
        curve: thresholds from "no query goes to strong" to "all queries do".
        moves: how much 0.01 of threshold changes the "strong_share", the "loss" and the "usd" where they are known.
        unit: unit of the losses, "score" or "win rate".
        guarantee: `Guarantee` of the threshold as plain data, or None.
        notes: what limits these figures.
    """

    strong: str
    weak: str
    queries: int
    rows: list[ThresholdRow]
    curve: list[ThresholdRow]
    moves: dict[str, float]
    unit: str = "score"
    guarantee: Mapping[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def chosen(self) -> ThresholdRow:
        """The row of the chosen threshold."""
        return next(row for row in self.rows if row.chosen)

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for JSON."""
        return asdict(self)


def threshold_report(
    scores: npt.NDArray[np.floating],
    threshold: float,
    *,
    strong: str,
    weak: str,
    gaps: Array | None = None,
    costs: Array | None = None,
    unit: str = "score",
    guarantee: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    weight: Array | None = None,
) -> ThresholdReport:
    """Measure the thresholds around a chosen one.

    Args:
        scores: (n,) the router's scores.
        threshold: the chosen threshold.
        strong: the strong model.
        weak: the weak model.
        gaps: (n,) loss of each query if weak answers it, or None.
        costs: (n, 2) USD of each query at strong and at weak, or None.
        unit: unit of the gaps.
        guarantee: guarantee of the threshold as plain data, or None.
        notes: sentences to show.
        weight: (n,) weights of the queries; None: all count alike.
    """
    scores = np.asarray(scores, np.float64)
    measured = _Measurement(scores, gaps, costs, weight)
    share = float((scores >= threshold).mean())
    shares = [share + step for step in STEPS if step and 0 <= share + step <= 1]
    around = {value for value in (share_threshold(scores, near) for near in shares) if value != threshold}
    rows = measured.rows([threshold, *sorted(around)], threshold)
    curve = measured.rows(
        sorted({share_threshold(scores, part) for part in np.linspace(0, 1, 101).tolist()}), threshold
    )
    below, above = measured.rows([threshold - 0.005, threshold + 0.005], threshold)
    moves = {"strong_share": below.strong_share - above.strong_share}
    if below.loss is not None and above.loss is not None:
        moves["loss"] = above.loss - below.loss
    if below.usd is not None and above.usd is not None:
        moves["usd"] = below.usd - above.usd
    order = sorted(rows, key=lambda row: (row.strong_share, not row.chosen))
    return ThresholdReport(
        strong=strong,
        weak=weak,
        queries=len(scores),
        rows=order,
        curve=curve[::-1],
        moves=moves,
        unit=unit,
        guarantee=guarantee,
        notes=list(notes),
    )


class _Measurement:
    """Measures thresholds on one set of queries: strong share, loss and cost."""

    def __init__(self, scores: Array, gaps: Array | None, costs: Array | None, weight: Array | None) -> None:
        self._scores, self._gaps, self._costs, self._weight = scores, gaps, costs, weight

    def rows(self, thresholds: Sequence[float], chosen: float) -> list[ThresholdRow]:
        to_strong = self._scores[:, None] >= np.asarray(thresholds)
        share = weighted_mean(to_strong, self._weight)
        loss: list[float | None] = [None] * len(thresholds)
        interval: list[tuple[float, float] | None] = [None] * len(thresholds)
        usd: list[float | None] = [None] * len(thresholds)
        if self._gaps is not None:
            losses = np.where(to_strong, 0.0, self._gaps[:, None])
            loss = weighted_mean(losses, self._weight).tolist()
            n = len(losses)
            weight = np.ones(n) if self._weight is None else self._weight
            counts = (np.bincount(rows, minlength=n) * weight for rows in resamples(np.arange(n), BOOTSTRAP, 0))
            drawn = [count @ losses / count.sum() for count in counts]
            interval = [percentile_interval(values) for values in np.stack(drawn, axis=1)]
        if self._costs is not None:
            spent = np.where(to_strong, *(self._costs[:, [i]] for i in (0, 1)))
            usd = (weighted_mean(spent, self._weight) * 1000).tolist()
        return [
            ThresholdRow(
                threshold=value,
                strong_share=float(share[i]),
                loss=loss[i],
                interval=interval[i],
                usd=usd[i],
                chosen=value == chosen,
            )
            for i, value in enumerate(thresholds)
        ]


def headings(report: ThresholdReport) -> list[str]:
    """The headings of the columns that a report has; `cells` gives the rows."""
    names = ["threshold", "strong share"]
    if report.chosen.loss is not None:
        names += [f"loss ({report.unit})", "95 % interval"]
    if report.chosen.usd is not None:
        names.append("USD per 1,000 queries")
    return names


def cells(row: ThresholdRow) -> list[str]:
    """A row as text, in the order of `headings`."""
    texts = [f"{row.threshold:.4f}", f"{row.strong_share:.1%}"]
    if row.loss is not None and row.interval is not None:
        texts += [f"{row.loss:+.4f}", f"{row.interval[0]:+.4f} to {row.interval[1]:+.4f}"]
    if row.usd is not None:
        texts.append(f"{row.usd:.4f}")
    return texts


def sentences(report: ThresholdReport) -> list[str]:
    """What a report says beside its table: how fast things change, the guarantee, and the notes."""
    moved = f"raising the threshold by 0.01 sends {report.moves['strong_share'] * 100:.2f} points fewer of the queries"
    moved += " to strong"
    if "loss" in report.moves:
        moved += f", changes the loss by {report.moves['loss']:+.4f}"
    if "usd" in report.moves:
        moved += f", saves {report.moves['usd']:.4f} USD per 1,000 queries"
    lines = [moved]
    guarantee = report.guarantee
    if guarantee is not None:
        lines.append(
            f"guarantee: with confidence {1 - guarantee['delta']:g} the expected loss against always-strong is at most "
            f"{guarantee['max_quality_loss']:g} points of the {guarantee['unit']} at threshold "
            f"{guarantee['threshold']:.4f}, which sends {guarantee['strong_share']:.1%} to strong (n = "
            f"{guarantee['n']:,}, method {guarantee['method']}; measured loss {guarantee['loss']:+.4f}, upper limit "
            f"{guarantee['bound']:.4f})"
        )
        lines.append(
            "the guarantee holds for queries that are exchangeable with these, for this router and for these models; "
            "it does not hold once the queries change"
        )
    return [*lines, *(f"note: {note}" for note in report.notes)]


def write_calibration(report: ThresholdReport, folder: Path) -> None:
    """Write calibration.json and calibration.html into a folder, which is created."""
    write_pages(folder, (JSON, report.as_dict()), (HTML, calibration_page(report)))


def calibration_page(report: ThresholdReport) -> str:
    """The HTML page of a report."""
    table = [[f"<b>{cell}</b>" if row.chosen else cell for cell in map(escaped, cells(row))] for row in report.rows]
    return page(
        f"Threshold: {report.strong} over {report.weak}",
        [
            f"<h1>Threshold {report.chosen.threshold:.4f}: {escaped(report.strong)} over {escaped(report.weak)}</h1>",
            f"<p>Measured on {report.queries:,} queries.</p>",
            "".join(f"<p>{escaped(line[:1].upper() + line[1:])}.</p>" for line in sentences(report)),
            html_table(headings(report), table),
            _curve(report),
        ],
    )


def _curve(report: ThresholdReport) -> str:
    """A picture of the loss over the strong share; without labels, of the threshold over the strong share."""
    figure, axes = new_figure()
    share = [row.strong_share for row in report.curve]
    chosen = report.chosen
    if chosen.loss is None:
        inside = [row for row in report.curve if 0 < row.strong_share < 1]
        axes.plot([row.strong_share for row in inside], [row.threshold for row in inside], label="threshold")
        axes.scatter([chosen.strong_share], [chosen.threshold], color="red", label="chosen", zorder=3)
        axes.set(xlabel="strong share", ylabel="threshold")
        return svg(figure, axes)
    low, high = zip(*(row.interval or (0.0, 0.0) for row in report.curve), strict=True)
    axes.fill_between(share, low, high, alpha=0.2, label="95 % interval of each threshold alone")
    axes.plot(share, [row.loss for row in report.curve], label="mean loss")
    axes.scatter([chosen.strong_share], [chosen.loss], color="red", label="chosen", zorder=3)
    if report.guarantee is not None:
        axes.axhline(report.guarantee["max_quality_loss"], color="grey", linewidth=0.8, label="guaranteed largest loss")
    axes.set(xlabel="strong share", ylabel=f"loss against always-strong ({report.unit})")
    return svg(figure, axes)
