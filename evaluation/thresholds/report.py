"""How calls, loss and cost change around a threshold: as data, and as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...routers.threshold_table import share_threshold
from ...training.fit.metrics import Array, percentile_interval, resamples
from ...training.html_page import escaped, html_table, new_figure, page, svg, write_pages

JSON, HTML = "calibration.json", "calibration.html"

#: Strong shares beside the chosen one that are reported.
STEPS = (-0.1, -0.05, -0.02, -0.01, 0.0, 0.01, 0.02, 0.05, 0.1)
BOOTSTRAP = 500


@dataclass(frozen=True)
class Row:
    """What a threshold does on n queries.

    Attributes:
        threshold: score at or above it goes to strong.
        strong_share: of the queries.
        loss: mean loss against always-strong, where labels are known.
        interval: 95 % bootstrap interval of the loss at this threshold alone; no guarantee.
        usd: of a thousand queries, where prices are known.
        chosen: whether this is the chosen threshold.
    """

    threshold: float
    strong_share: float
    loss: float | None = None
    interval: tuple[float, float] | None = None
    usd: float | None = None
    chosen: bool = False


@dataclass(frozen=True)
class ThresholdReport:
    """A calibration.

    Attributes:
        strong: the strong model.
        weak: the weak model.
        queries: n.
        rows: around the chosen threshold, by rising strong share.
        curve: from no query to strong to all.
        moves: what 0.01 of threshold moves: strong share, and loss and usd where known.
        unit: of the losses.
        guarantee: see `guarantee.Guarantee`.
        notes: what limits all this.
    """

    strong: str
    weak: str
    queries: int
    rows: list[Row]
    curve: list[Row]
    moves: dict[str, float]
    unit: str = "score"
    guarantee: Mapping[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def chosen(self) -> Row:
        """The row of the chosen threshold."""
        return next(row for row in self.rows if row.chosen)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
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
) -> ThresholdReport:
    """Measure thresholds around a chosen one.

    Args:
        scores: (n,).
        threshold: the chosen one.
        strong: the strong model.
        weak: the weak model.
        gaps: (n,), the loss of each query where weak answers it, if known.
        costs: (n, 2), USD of each query at strong and at weak, if known.
        unit: of the gaps.
        guarantee: of the threshold, if there is one.
        notes: to be shown.
    """
    scores = np.asarray(scores, np.float64)
    measured = _Measured(scores, gaps, costs)
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
    return ThresholdReport(strong, weak, len(scores), order, curve[::-1], moves, unit, guarantee, list(notes))


class _Measured:
    """Measures thresholds on one set of queries."""

    def __init__(self, scores: Array, gaps: Array | None, costs: Array | None) -> None:
        self._scores, self._gaps, self._costs = scores, gaps, costs

    def rows(self, thresholds: Sequence[float], chosen: float) -> list[Row]:
        to_strong = self._scores[:, None] >= np.asarray(thresholds)
        share = to_strong.mean(axis=0)
        loss: list[float | None] = [None] * len(thresholds)
        interval: list[tuple[float, float] | None] = [None] * len(thresholds)
        usd: list[float | None] = [None] * len(thresholds)
        if self._gaps is not None:
            losses = np.where(to_strong, 0.0, self._gaps[:, None])
            loss = losses.mean(axis=0).tolist()
            n = len(losses)
            drawn = [np.bincount(rows, minlength=n) @ losses / n for rows in resamples(np.arange(n), BOOTSTRAP, 0)]
            interval = [percentile_interval(values) for values in np.stack(drawn, axis=1)]
        if self._costs is not None:
            usd = (np.where(to_strong, *(self._costs[:, [i]] for i in (0, 1))).mean(axis=0) * 1000).tolist()
        return [
            Row(value, float(share[i]), loss[i], interval[i], usd[i], value == chosen)
            for i, value in enumerate(thresholds)
        ]


def headings(report: ThresholdReport) -> list[str]:
    """Of the columns that a report has; see `cells`."""
    names = ["threshold", "strong share"]
    if report.chosen.loss is not None:
        names += [f"loss ({report.unit})", "95 % interval"]
    if report.chosen.usd is not None:
        names.append("USD / 1000")
    return names


def cells(row: Row) -> list[str]:
    """A row as text, in the order of `headings`."""
    found = [f"{row.threshold:.4f}", f"{row.strong_share:.1%}"]
    if row.loss is not None and row.interval is not None:
        found += [f"{row.loss:+.4f}", f"{row.interval[0]:+.4f} to {row.interval[1]:+.4f}"]
    if row.usd is not None:
        found.append(f"{row.usd:.4f}")
    return found


def sentences(report: ThresholdReport) -> list[str]:
    """What a report says beside its table."""
    moved = f"0.01 of threshold moves the strong share by {report.moves['strong_share'] * 100:.2f} points"
    if "loss" in report.moves:
        moved += f", the loss by {report.moves['loss']:+.4f}"
    if "usd" in report.moves:
        moved += f", the cost by {report.moves['usd']:.4f} USD a thousand"
    lines = [moved]
    found = report.guarantee
    if found is not None:
        lines.append(
            f"guarantee: with confidence {1 - found['delta']:g} the expected loss against always-strong is at most "
            f"{found['max_quality_loss']:g} points of the {found['unit']} at threshold {found['threshold']:.4f}, which "
            f"sends {found['strong_share']:.1%} to strong (n = {found['n']:,}, {found['method']}; measured loss "
            f"{found['loss']:+.4f}, upper limit {found['bound']:.4f})"
        )
        lines.append("it holds for queries exchangeable with these, this router and these models; not after a shift")
    return [*lines, *(f"note: {note}" for note in report.notes)]


def write_report(report: ThresholdReport, folder: Path) -> None:
    """Write calibration.json and calibration.html into a folder, which is made."""
    write_pages(folder, (JSON, report.as_dict()), (HTML, html_page(report)))


def html_page(report: ThresholdReport) -> str:
    """The page."""
    table = [[f"<b>{cell}</b>" if row.chosen else cell for cell in map(escaped, cells(row))] for row in report.rows]
    return page(
        f"Threshold: {report.strong} over {report.weak}",
        [
            f"<h1>Threshold {report.chosen.threshold:.4f}: {escaped(report.strong)} over {escaped(report.weak)}</h1>",
            f"<p>{report.queries:,} queries.</p>",
            "".join(f"<p>{escaped(line)}.</p>" for line in sentences(report)),
            html_table(headings(report), table),
            _curve(report),
        ],
    )


def _curve(report: ThresholdReport) -> str:
    """Loss (where known, else the threshold) against the strong share."""
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
    axes.fill_between(share, low, high, alpha=0.2, label="95 % interval, each threshold alone")
    axes.plot(share, [row.loss for row in report.curve], label="mean loss")
    axes.scatter([chosen.strong_share], [chosen.loss], color="red", label="chosen", zorder=3)
    if report.guarantee is not None:
        axes.axhline(report.guarantee["max_quality_loss"], color="grey", linewidth=0.8, label="largest loss")
    axes.set(xlabel="strong share", ylabel=f"loss against always-strong ({report.unit})")
    return svg(figure, axes)
