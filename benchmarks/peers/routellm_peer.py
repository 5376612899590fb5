"""RouteLLM's routers on one task. This script runs in RouteLLM's environment, with OPENAI_BASE_URL set to our endpoint.

Run by run.py: python routellm_peer.py ALGORITHM TASK_FOLDER RESULT.json
"""

from __future__ import annotations

import json
import random
import runpy
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from datasets import Dataset
from routellm.routers.matrix_factorization import train_matrix_factorization as training
from routellm.routers.matrix_factorization.model import MODEL_IDS, MFModel
from routellm.routers.routers import MatrixFactorizationRouter, Router, SWRankingRouter
from routellm.routers.similarity_weighted.generate_embeddings import get_embeddings
from routellm.routers.similarity_weighted.utils import OPENAI_CLIENT, preprocess_battles

EMBEDDING_MODEL = "text-embedding-3-small"  # a name only: our endpoint has one model
BATCH = 1000
REFERENCE_QUERIES = 100
#: The settings that train_matrix_factorization.py has under `__main__`.
MF = {"dim": 128, "batch_size": 64, "num_epochs": 100, "alpha": 0.1, "lr": 3e-4, "weight_decay": 1e-5}

Result = dict[str, Any]


def embed(texts: list[str]) -> np.ndarray:
    """Vectors of texts, by RouteLLM's own client, float32 (n, d)."""
    rows: list[list[float]] = []
    for start in range(0, len(texts), BATCH):
        answer = OPENAI_CLIENT.embeddings.create(input=texts[start : start + BATCH], model=EMBEDDING_MODEL)
        rows += [one.embedding for one in answer.data]
    return np.array(rows, np.float32)


def battle_table(task: dict[str, Any]) -> pandas.DataFrame:
    """The battles in the columns of the arena data set that RouteLLM reads."""
    rows = [
        {
            "prompt": json.dumps([prompt]),
            "model_a": a,
            "model_b": b,
            "winner_model_a": int(winner == "model_a"),
            "winner_model_b": int(winner == "model_b"),
            "winner_tie": int(winner == "tie"),
        }
        for prompt, a, b, winner in task["battles"]
    ]
    return pandas.DataFrame(rows)


def score(router: Router, task: dict[str, Any], algorithm: str) -> Result:
    """Score the test prompts one at a time: the only way that RouteLLM offers."""
    rows = task["limits"].get(algorithm, range(len(task["test"])))
    start = time.perf_counter()
    scores = [float(router.calculate_strong_win_rate(task["test"][row])) for row in rows]
    seconds = (time.perf_counter() - start) / len(scores)
    return {"scores": scores, "rows": list(rows), "seconds_per_query": seconds}


def similarity_weighted(task: dict[str, Any], folder: Path) -> Result:
    """RouteLLM's similarity-weighted ranking; a query refits the whole ranking, so that training is only reading."""
    start = time.perf_counter()
    table = battle_table(task)
    kept = preprocess_battles(table.copy())  # it drops prompts under 16 characters: the vectors must match
    prompts = [json.loads(prompt)[0].strip() for prompt in table.loc[kept.index, "prompt"]]
    vectors = embed(prompts)
    for name, data in (
        ("battles", Dataset.from_pandas(table)),
        ("vectors", Dataset.from_dict({"embeddings": vectors})),
    ):
        (folder / name).mkdir(exist_ok=True)
        data.to_parquet(str(folder / name / "train.parquet"))
    router = SWRankingRouter(
        [str(folder / "battles")], [str(folder / "vectors")], strong_model=task["strong"], weak_model=task["weak"]
    )
    seconds = time.perf_counter() - start
    result = score(router, task, "sw_ranking")
    rows, scores = (result[key][:REFERENCE_QUERIES] for key in ("rows", "scores"))
    np.savez(
        folder / "sw_reference.npz",
        scores=np.array(scores),
        query_vectors=embed([task["test"][row] for row in rows]),
        battle_vectors=vectors,
        winner=np.array(kept["winner"].tolist(), str),
        **{name: np.array([router.model2tier[model] for model in kept[name]]) for name in ("model_a", "model_b")},
        strong_tier=np.array(router.model2tier[task["strong"]]),
        weak_tier=np.array(router.model2tier[task["weak"]]),
    )
    return {**result, "train_seconds": seconds, "train": len(kept)}


def matrix_factorization(task: dict[str, Any], folder: Path) -> Result:
    """RouteLLM's matrix factorization, trained by the functions and with the settings of its training script."""
    start = time.perf_counter()
    random.seed(task["seed"])
    torch.manual_seed(task["seed"])
    vectors = folder / "prompts.npy"
    np.save(vectors, embed([prompt.strip() for prompt, _, _, _ in task["battles"]]))
    width = np.load(vectors, mmap_mode="r").shape[1]
    battles = [
        {"model_a": a, "model_b": b, "winner": winner, "idx": number}
        for number, (_, a, b, winner) in enumerate(task["battles"])
        if winner != "tie" and a != b  # the script drops ties
    ]
    random.shuffle(battles)
    bound = int(len(battles) * 0.95)
    model = training.MFModel_Train(
        MF["dim"], len(MODEL_IDS), len(task["battles"]), text_dim=width, npy_path=str(vectors)
    )
    training.train_loops(
        model,
        training.PairwiseDataset(battles[:bound]).get_dataloaders(MF["batch_size"]),
        training.PairwiseDataset(battles[bound:]).get_dataloaders(1024, shuffle=False),
        lr=MF["lr"],
        weight_decay=MF["weight_decay"],
        alpha=MF["alpha"],
        num_epochs=MF["num_epochs"],
        device="cpu",
    )
    trained = MFModel(MF["dim"], len(MODEL_IDS), width, 1, True)
    renamed = {"text_proj.weight": "text_proj.0.weight", "classifier.weight": "classifier.0.weight"}
    weights = {renamed.get(name, name): value for name, value in model.state_dict().items() if name != "Q.weight"}
    trained.load_state_dict(weights)
    trained.save_pretrained(folder / "mf")
    seconds = time.perf_counter() - start
    router = MatrixFactorizationRouter(
        str(folder / "mf"),
        strong_model=task["strong"],
        weak_model=task["weak"],
        hidden_size=MF["dim"],
        text_dim=width,
    )
    return {**score(router, task, "mf"), "train_seconds": seconds, "train": bound}


def shipped_embedding_script(task: dict[str, Any], folder: Path) -> Result:
    """RouteLLM's own function that embeds battles for its similarity-weighted router."""
    del folder
    return {"rows": [], "scores": get_embeddings(battle_table(task)).tolist()}


def shipped_training_script(task: dict[str, Any], folder: Path) -> Result:
    """RouteLLM's own training script, as it is."""
    del task, folder
    runpy.run_module(training.__name__, run_name="__main__")
    return {"rows": [], "scores": []}


ALGORITHMS: dict[str, Callable[[dict[str, Any], Path], Result]] = {
    "sw_ranking": similarity_weighted,
    "mf": matrix_factorization,
    "generate_embeddings.py as shipped": shipped_embedding_script,
    "train_matrix_factorization.py as shipped": shipped_training_script,
}


def main() -> None:
    """Run one algorithm on one task."""
    algorithm, folder, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    result = ALGORITHMS[algorithm](json.loads((folder / "task.json").read_text(encoding="utf-8")), folder)
    out.write_text(json.dumps({**result, "version": version("routellm")}))


if __name__ == "__main__":
    main()
