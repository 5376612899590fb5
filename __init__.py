"""routelearn: learn, from your own preference data, when the cheap model is enough.

    import routelearn

    router = routelearn.load("bundle/")                  # torch-free, verified
    router.score(["Prove that 2 is prime."])             # expected win rate of strong over weak
    router.route("Prove that 2 is prime.").model         # a decision, with its reason

    safe = routelearn.FallbackRouter("bundle/", strong="gpt-4o", weak="gpt-4o-mini")   # never fails to answer

    routelearn.train_matrix_factorization(routelearn.read_records("battles.parquet").records, "bundle/")

Importing routelearn imports numpy and onnxruntime at most; training code (torch,
transformers, scikit-learn) is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .data.parser import ReadOptions
    from .data.readers import read_many, read_records
    from .data.records import PerformanceRecord, PreferenceRecord
    from .data.sample import generate_sample
    from .data.splits import check_leaks, split_by_prompt
    from .routers.base import Assessment, Decision, Model, Router
    from .routers.errors import RoutelearnError
    from .routers.fallback import FallbackRouter
    from .routers.learned import LearnedRouter, load
    from .routers.policy import StrongShare, Threshold
    from .routers.query import Query
    from .routers.rules import RulesRouter
    from .training.bert import BertConfig, train_bert
    from .training.evaluate import evaluate
    from .training.extend import extend_similarity
    from .training.matrix_factorization import MatrixFactorizationConfig, train_matrix_factorization
    from .training.similarity import SimilarityConfig, train_similarity

__all__ = [
    "Assessment",
    "BertConfig",
    "Decision",
    "FallbackRouter",
    "LearnedRouter",
    "MatrixFactorizationConfig",
    "Model",
    "PerformanceRecord",
    "PreferenceRecord",
    "Query",
    "ReadOptions",
    "RoutelearnError",
    "Router",
    "RulesRouter",
    "SimilarityConfig",
    "StrongShare",
    "Threshold",
    "check_leaks",
    "evaluate",
    "extend_similarity",
    "generate_sample",
    "load",
    "read_many",
    "read_records",
    "split_by_prompt",
    "train_bert",
    "train_matrix_factorization",
    "train_similarity",
]

_HOME = {
    "Assessment": ".routers.base",
    "BertConfig": ".training.bert",
    "Decision": ".routers.base",
    "FallbackRouter": ".routers.fallback",
    "LearnedRouter": ".routers.learned",
    "MatrixFactorizationConfig": ".training.matrix_factorization",
    "Model": ".routers.base",
    "PerformanceRecord": ".data.records",
    "PreferenceRecord": ".data.records",
    "Query": ".routers.query",
    "ReadOptions": ".data.parser",
    "Router": ".routers.base",
    "RoutelearnError": ".routers.errors",
    "RulesRouter": ".routers.rules",
    "SimilarityConfig": ".training.similarity",
    "StrongShare": ".routers.policy",
    "Threshold": ".routers.policy",
    "check_leaks": ".data.splits",
    "evaluate": ".training.evaluate",
    "extend_similarity": ".training.extend",
    "generate_sample": ".data.sample",
    "load": ".routers.learned",
    "read_many": ".data.readers",
    "read_records": ".data.readers",
    "split_by_prompt": ".data.splits",
    "train_bert": ".training.bert",
    "train_matrix_factorization": ".training.matrix_factorization",
    "train_similarity": ".training.similarity",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module 'routelearn' has no attribute {name!r}; it has {__all__}")
    if _HOME[name].startswith(".training."):
        from .routers.errors import require

        require("sklearn" if name == "evaluate" else "torch", "train")
    value = getattr(importlib.import_module(_HOME[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted([*__all__, "__version__"])
