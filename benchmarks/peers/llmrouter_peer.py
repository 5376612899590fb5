"""LLMRouter's kNN, SVM, MLP and MF routers on one task. This script runs in LLMRouter's environment.

Run by run.py: python llmrouter_peer.py "ALGORITHM, ties to WHOM" TASK_FOLDER RESULT.json
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llmrouter.models.knnrouter.router as knn_module
import llmrouter.models.mfrouter.router as mf_module
import llmrouter.models.mlprouter.router as mlp_module
import llmrouter.models.svmrouter.router as svm_module
import numpy as np
import torch
import yaml
from llmrouter.models import (
    KNNRouter,
    KNNRouterTrainer,
    MetaRouter,
    MFRouter,
    MFRouterTrainer,
    MLPRouter,
    MLPTrainer,
    SVMRouter,
    SVMRouterTrainer,
)
from llmrouter.utils import get_longformer_embedding

#: Queries that are routed by `route_single` as well, to check that the scores are those that it decides by.
CHECKED = 20
#: Scores closer to even than this may be decided either way.
UNDECIDED = 1e-6

Scores = np.ndarray
Scorer = Callable[[Any, MetaRouter, np.ndarray, str, str], Scores]

#: The settings of the package's example configurations (configs/model_config_train); text_dim is our vectors' width.
HPARAMS: dict[str, dict[str, Any]] = {
    "knn": {
        "n_neighbors": 5,
        "weights": "uniform",
        "algorithm": "auto",
        "leaf_size": 30,
        "p": 2,
        "metric": "minkowski",
        "n_jobs": 1,
    },
    "svm": {"kernel": "rbf", "C": 1.0, "gamma": "scale", "probability": True},
    "mlp": {
        "hidden_layer_sizes": [128, 64],
        "activation": "relu",
        "lr": 0.001,
        "epochs": 100,
        "batch_size": 32,
        "alpha": 0.0001,
    },
    "mf": {"latent_dim": 128, "lr": 0.001, "epochs": 5, "noise_alpha": 0.0},
}


def by_neighbours(model: Any, router: MetaRouter, vectors: np.ndarray, strong: str, weak: str) -> Scores:
    """Share of the neighbours that strong answered best."""
    del router, weak
    return np.asarray(model.predict_proba(vectors))[:, list(model.classes_).index(strong)]


def by_margin(model: Any, router: MetaRouter, vectors: np.ndarray, strong: str, weak: str) -> Scores:
    """The signed distance that `predict` decides by; `predict_proba` is a rising function of it."""
    del router, weak
    margin = np.asarray(model.decision_function(vectors))
    return margin if list(model.classes_).index(strong) == 1 else -margin


def by_logits(model: Any, router: Any, vectors: np.ndarray, strong: str, weak: str) -> Scores:
    """Difference of the two classes' logits."""
    model.eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(vectors)).double().numpy()
    return logits[:, router.model_to_idx[strong]] - logits[:, router.model_to_idx[weak]]


def by_factors(model: Any, router: Any, vectors: np.ndarray, strong: str, weak: str) -> Scores:
    """Difference of the two models' scores, a query at a time as the router does."""
    rows = []
    model.eval()
    with torch.no_grad():
        for vector in torch.from_numpy(vectors):
            scores = model.score_all(model.project_text(vector)).double()
            rows.append(float(scores[router.model_to_idx[strong]] - scores[router.model_to_idx[weak]]))
    return np.array(rows)


ALGORITHMS: dict[str, tuple[Callable[[str], MetaRouter], Callable[..., Any], Scorer, Any, float]] = {
    "knn": (KNNRouter, KNNRouterTrainer, by_neighbours, knn_module, 0.5),
    "svm": (SVMRouter, SVMRouterTrainer, by_margin, svm_module, 0.0),
    "mlp": (MLPRouter, MLPTrainer, by_logits, mlp_module, 0.0),
    "mf": (MFRouter, MFRouterTrainer, by_factors, mf_module, 0.0),
}


def write_inputs(
    folder: Path, algorithm: str, order: tuple[str, str], task: dict[str, Any], vectors: np.ndarray
) -> Path:
    """The package's input files: performance rows, vectors and a configuration; returns the configuration.

    Args:
        folder: where to put them.
        algorithm: a key of `HPARAMS`.
        order: the models; of two equal performances the package takes the first as the best.
        task: see tasks.py.
        vectors: of the performance rows, float32 (n, d).
    """
    folder.mkdir(exist_ok=True)
    with (folder / "routing.jsonl").open("w", encoding="utf-8") as file:
        for number, (prompt, *scores) in enumerate(task["performances"]):
            score_of = dict(zip((task["strong"], task["weak"]), scores, strict=True))
            for model in order:
                row = {"query": prompt, "model_name": model, "performance": score_of[model], "embedding_id": number}
                file.write(json.dumps(row) + "\n")
    torch.save(torch.from_numpy(vectors), folder / "vectors.pt")
    saved = str(folder / f"{algorithm}.pkl")
    hparam = {**HPARAMS[algorithm], **({"text_dim": vectors.shape[1]} if algorithm == "mf" else {})}
    config = {
        "data_path": {
            "query_embedding_data": str(folder / "vectors.pt"),
            "routing_data_train": str(folder / "routing.jsonl"),
        },
        "model_path": {"ini_model_path": "", "save_model_path": saved, "load_model_path": saved},
        "metric": {"weights": {"performance": 1, "cost": 0, "llm_judge": 0}},
        "hparam": hparam,
    }
    path = folder / f"{algorithm}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def disagreements(
    router: MetaRouter, module: Any, prompts: list[str], vectors: np.ndarray, margin: Scores, strong: str
) -> int:
    """Decisions of the router's own `route_single` on our vectors that its scores do not explain."""
    known = dict(zip(prompts, torch.from_numpy(vectors), strict=True))
    module.get_longformer_embedding = known.__getitem__  # the package has no other way to be given vectors
    chosen = np.array([router.route_single({"query": prompt})["model_name"] == strong for prompt in prompts])
    return int(((chosen != (margin > 0)) & (np.abs(margin) > UNDECIDED)).sum())


def run(name: str, folder: Path) -> dict[str, Any]:
    """Train and score one algorithm."""
    algorithm, ties = name.split(", ties to ")
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    with np.load(folder / "vectors.npz", allow_pickle=False) as arrays:
        training, test = arrays["training"], arrays["test"]
    strong, weak = task["strong"], task["weak"]
    order = (weak, strong) if ties == "weak" else (strong, weak)
    make_router, make_trainer, scorer, module, even = ALGORITHMS[algorithm]
    torch.manual_seed(task["seed"])
    np.random.seed(task["seed"])
    config = write_inputs(folder / f"llmrouter-{ties}", algorithm, order, task, training)
    start = time.perf_counter()
    router = make_router(str(config))
    trainer = make_trainer(router, device="cpu")
    trainer.train()
    seconds = time.perf_counter() - start
    single = test[:CHECKED]
    start = time.perf_counter()
    margin = np.concatenate([scorer(trainer.model, router, row[None], strong, weak) for row in single]) - even
    seconds_per_query = (time.perf_counter() - start) / len(single)
    different = disagreements(router, module, task["test"][:CHECKED], single, margin, strong)
    if different:
        raise RuntimeError(f"route_single decides {different} of {CHECKED} queries unlike the scores")
    return {
        "scores": scorer(trainer.model, router, test, strong, weak).tolist(),
        "rows": list(range(len(test))),
        "train_seconds": seconds,
        "seconds_per_query": seconds_per_query,
        "train": len(training),
    }


def as_shipped() -> dict[str, Any]:
    """The package's own vectors, which `route_single` and `route_batch` take."""
    return {"rows": [], "scores": get_longformer_embedding("What is 2 + 2?").tolist()}


def main() -> None:
    """Run one algorithm on one task."""
    name, folder, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    result = as_shipped() if name == "Longformer vectors as shipped" else run(name, folder)
    out.write_text(json.dumps({**result, "version": version("llmrouter-lib")}))


if __name__ == "__main__":
    main()
