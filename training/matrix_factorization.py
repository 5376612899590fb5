"""The matrix-factorization router: a static encoder, and utilities linear in the query's vector.

``u(query) = bias + W · [v / |v| ; -log |v|]`` with v the sum of the vectors of the
query's distinct tokens (less its mean over the dimensions, which lets one layer
normalisation do it all) and W of low rank (RouteLLM, arXiv 2406.18665, section 4.2, with N models, ties,
soft labels and performance records). The length enters because hard queries are
longer, and the norm of v is already there. The whole training is a convex-like
problem of a few thousand numbers: full-batch L-BFGS along a path of penalties,
stopped early on held-out prompts, takes seconds and needs no learning rate.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..data.records import Record
from ..routers.base import Link, Model, win_rate
from ..routers.bundle import Truncation, check_replaceable
from ..routers.errors import InputError
from ..routers.policy import StrongShare, threshold_table
from ..routers.query import query_text
from .bundling import publish
from .calibrate import calibrate
from .encoders import DIMENSIONS, PACKAGED_ENCODER, static_encoder
from .examples import Examples, data_fingerprint, examples_of, validation_folds
from .export import export_onnx
from .factorization import Batch
from .log import TrainingLog
from .network import MatrixFactorization, Standard, example_inputs, reference_quality, token_sums
from .novelty import centroids_of, novelty_bound
from .path import first_source, follow_path, mean_loss

logger = logging.getLogger(__name__)

KIND = "matrix-factorization"
#: Nats over all held-out records: a gain below this over the global ranking is within chance.
LEAST_GAIN = 4.0
#: Weight of the length against the unit vector: one standard deviation of log |v| counts as this much.
LENGTH_SCALE = 0.3


@dataclass(frozen=True)
class MatrixFactorizationConfig:
    """Settings of `train_matrix_factorization`; saved in the bundle.

    Attributes:
        strong: the strong model; None: the better of two.
        weak: the weak model; None: the other of two.
        models: the pool; None: every model of the records.
        encoder: folder, hub id or packaged name of the encoder.
        dimensions: length of a token vector when distilling.
        rank: largest rank of the factors.
        l2: penalty of the factors; None: chosen along the path by validation.
        path_steps: most steps of the path.
        patience: the path stops after this many steps without a better validation loss.
        folds: validation folds over the prompts, where the data marks none as "val".
        strong_share: the default threshold sends this share of the held-out queries to strong.
        link: "bradley-terry", "difference", or None: by what most records are.
        max_tokens: token budget of a query.
        finetune_epochs: most epochs of fine-tuning the token table first; 0: keep the table.
        seed: of folds, starts and clusters.
    """

    strong: str | None = None
    weak: str | None = None
    models: tuple[str, ...] | None = None
    encoder: str = PACKAGED_ENCODER
    dimensions: int = DIMENSIONS
    rank: int = 32
    l2: float | None = None
    path_steps: int = 25
    patience: int = 3
    folds: int = 5
    strong_share: float = 0.5
    link: Link | None = None
    max_tokens: int = 512
    finetune_epochs: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot work, naming each.

        Raises:
            InputError: a value is out of range.
        """
        checks = {
            "rank": self.rank >= 1,
            "dimensions": 8 <= self.dimensions <= 1024,
            "l2": self.l2 is None or self.l2 > 0,
            "path_steps": self.path_steps >= 1,
            "patience": self.patience >= 1,
            "folds": self.folds >= 2,
            "strong_share": 0 <= self.strong_share <= 1,
            "link": self.link in {None, "bradley-terry", "difference"},
            "max_tokens": 8 <= self.max_tokens <= 8192,
            "finetune_epochs": self.finetune_epochs >= 0,
            "seed": self.seed >= 0,
        }
        for name, fine in checks.items():
            if not fine:
                raise InputError(f"{name} is {getattr(self, name)!r}, which is out of range")
        if self.strong is not None and self.strong == self.weak:
            raise InputError(f"strong and weak are both {self.strong!r}; expected two models")


def train_matrix_factorization(
    records: Sequence[Record],
    out: str | Path,
    config: MatrixFactorizationConfig | None = None,
    *,
    pool: Sequence[Model] = (),
    progress: bool = False,
) -> Path:
    """Train a matrix-factorization router and export it.

    Records marked "test" are left out. The records' first source is the one that
    the router is for: validation, calibration, thresholds and the exported pool use
    it alone; other sources help with the factors, and rank the models in their own way.

    Args:
        records: preference and performance records, mixed as they come.
        out: folder of the bundle; the log goes to ``<out>.training/``.
        config: settings.
        pool: prices of models, by name.
        progress: show a progress bar on stderr.

    Returns:
        The bundle's folder, for `routelearn.load`.

    Raises:
        InputError: nothing to learn from, a model that no record mentions, or a setting out of range.
        ExportError: the exported graph does not reproduce the network.
    """
    config = config or MatrixFactorizationConfig()
    out = Path(out)
    check_replaceable(out)
    trainable = [record for record in records if record.split != "test"]
    if not trainable:
        raise InputError(f"no records to learn from ({len(records)} are marked 'test')")
    examples = examples_of(trainable, config.models)
    _check_pair([examples.models[i] for i in examples.own_models()], config)
    with TrainingLog(out.with_name(out.name + ".training"), show_progress=progress) as log:
        return _train(examples, out, config, {model.name: model for model in pool}, len(records), log)


def _train(
    examples: Examples,
    out: Path,
    config: MatrixFactorizationConfig,
    prices: dict[str, Model],
    n_records: int,
    log: TrainingLog,
) -> Path:
    phase = log.phase("encoder", 1)
    encoder = static_encoder(config.encoder, config.dimensions)
    log.advance(phase)
    truncation = Truncation(max_tokens=config.max_tokens, distinct=True)
    folds = validation_folds(examples, config.folds, config.seed)
    if config.finetune_epochs:
        from .finetune import finetune_table

        folds = folds[:1]  # the table has seen the queries of every other fold
        encoder = finetune_table(encoder, examples, folds[0], truncation, config.finetune_epochs, config.seed, log)
    total = token_sums(examples.queries, encoder, truncation)
    variance = total.var(dim=1, correction=0)
    network = MatrixFactorization(encoder, float(variance[variance > 0].min()) / 10 if (variance > 0).any() else 1.0)
    with torch.no_grad():
        unit, plain = network.features(total)
    vectors, plain = unit.numpy(), plain.double()
    spread = float(plain[:, -1].std(correction=0))
    standard = Standard(float(plain[:, -1].mean()), LENGTH_SCALE / spread if spread > 1e-6 else 0.0)
    features = standard.apply(plain)

    outcomes = [batch for batch in (examples.preferences, examples.performances) if len(batch)]
    path = follow_path(
        features,
        examples,
        folds,
        log,
        rank=config.rank,
        l2=config.l2,
        steps=config.path_steps,
        patience=config.patience,
        seed=config.seed,
    )
    final = path.fit_all()
    held_out = np.logical_or.reduce(folds)
    own = [Batch.of(first_source(batch.of_queries(held_out))) for batch in outcomes]
    calibration = calibrate(path.held_out, own, config.seed)

    # Only models of the first source are exported: of the others nobody knows how it would rank them.
    kept = examples.own_models()
    names = [examples.models[i] for i in kept]
    strong, weak = _pair(names, config, final.bias[kept])
    columns = [names.index(strong), names.index(weak)]
    link: Link = config.link or examples.link()
    utilities = calibration.slope * path.held_out[torch.from_numpy(held_out)][:, kept] + calibration.intercept
    quality = torch.sigmoid(_centred(utilities, examples)).float().numpy()
    scores = win_rate(quality[:, columns[0]], quality[:, columns[1]], link)
    table = threshold_table(scores)
    threshold = StrongShare(config.strong_share).threshold_in(table)

    weight, bias = standard.fold(
        calibration.slope * final.weight[:, kept], calibration.slope * final.bias[kept] + calibration.intercept
    )
    network.weight, network.bias = _centred(weight, examples).float(), _centred(bias, examples).float()
    network.centroids = torch.from_numpy(centroids_of(vectors, config.seed))
    network.eval()
    model = export_onnx(network, example_inputs(), ["quality", "novelty"])
    calibrated_loss = mean_loss(own, calibration.slope * path.held_out + calibration.intercept)
    metrics = {
        "held-out queries": int(held_out.sum()),
        "log loss": calibrated_loss,
        "log loss of the global ranking": path.ranking_loss,
    }
    gain = (path.ranking_loss - calibrated_loss) * sum(float(batch.weight.sum()) for batch in own)
    if gain < LEAST_GAIN:
        logger.warning(
            "the queries tell little of who wins: log loss %.4f, of the global ranking %.4f; "
            "expect this router to choose about as well as one model for all",
            calibrated_loss,
            path.ranking_loss,
        )
    log.step(phase="done", l2=path.l2, calibration=calibration.method, **metrics)
    log.curve("l2", f"{KIND}: {strong} over {weak}", baseline=path.ranking_loss)
    texts = [query_text(query, truncation.max_characters).text for query in examples.queries]
    config = replace(config, strong=strong, weak=weak, l2=path.l2, link=link)
    return publish(
        out,
        kind=KIND,
        model=model,
        tokenizer_json=encoder.tokenizer_json,
        truncation=truncation,
        reference=reference_quality(network, encoder, truncation),
        texts=texts,
        pool=[prices.get(name, Model(name)) for name in names],
        strong=strong,
        weak=weak,
        link=link,
        calibration=calibration,
        threshold=threshold,
        threshold_table=table,
        novelty_bound=novelty_bound(vectors, folds[0], config.seed),
        training={
            "config": asdict(config),
            "encoder_fingerprint": encoder.fingerprint,
            "data_fingerprint": data_fingerprint(examples),
            "records": len(examples.preferences) + len(examples.performances),
            "preference_records": len(examples.preferences),
            "performance_records": len(examples.performances),
            "records_left_out": n_records - len(examples.preferences) - len(examples.performances),
            "queries": len(examples.queries),
            "sources": [str(source) for source in examples.sources],
            "metrics": metrics,
        },
    )


def _centred(values: torch.Tensor, examples: Examples) -> torch.Tensor:
    # Preferences say nothing of a query's common utility: without performance records it is centred over
    # the models, so that quality means the win rate over the pool's average.
    if len(examples.performances):
        return values
    return values - values.mean(dim=-1, keepdim=True)


def _check_pair(names: Sequence[str], config: MatrixFactorizationConfig) -> None:
    for name in (config.strong, config.weak):
        if name is not None and name not in names:
            raise InputError(f"no record mentions {name!r}; the records know {list(names)}")
    if len(names) > 2 and (config.strong is None or config.weak is None):
        raise InputError(f"name the strong and the weak model; the records know {list(names)}")


def _pair(names: Sequence[str], config: MatrixFactorizationConfig, bias: torch.Tensor) -> tuple[str, str]:
    ranked = [names[int(i)] for i in torch.argsort(bias, descending=True)]
    strong = config.strong or next(name for name in ranked if name != config.weak)
    return strong, config.weak or next(name for name in reversed(ranked) if name != strong)
