"""routelearn: learn, from your own preference data, when the cheap model is enough.

    import routelearn

    router = routelearn.load("bundle/")                  # torch-free, verified
    router.score(["Prove that 2 is prime."])             # expected win rate of strong over weak
    router.route("Prove that 2 is prime.").model         # a decision, with its reason

    safe = routelearn.FallbackRouter("bundle/", strong="gpt-4o", weak="gpt-4o-mini")   # never fails to answer

    routelearn.train_matrix_factorization(routelearn.read_records("battles.parquet").records, "bundle/")

    verifier = routelearn.load_verifier("verifier/")     # for a cascade: routelearn.Cascade([Tier(...), Tier(...)])

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
    from .routers.answers import Answer, from_client
    from .routers.base import Assessment, Decision, Model, Router
    from .routers.budget import Budget
    from .routers.cascade import Cascade
    from .routers.confidence import SelfConsistency, SelfEvaluation
    from .routers.errors import RoutelearnError
    from .routers.fallback import FallbackRouter
    from .routers.joint import Joint
    from .routers.learned import LearnedRouter, load
    from .routers.metrics import register_metrics
    from .routers.monitor import EscalationMonitor
    from .routers.policy import StrongShare, Threshold
    from .routers.query import Query
    from .routers.rules import RulesRouter
    from .routers.tiers import CascadeResult, Tier, UseCase
    from .routers.verifier import Verifier, load_verifier
    from .training.bert import BertConfig, train_bert
    from .training.cascade_plan import plan_cascade
    from .training.evaluate import evaluate
    from .training.extend import extend_similarity
    from .training.matrix_factorization import MatrixFactorizationConfig, train_matrix_factorization
    from .training.similarity import SimilarityConfig, train_similarity
    from .training.verifier import VerifierConfig, train_verifier

__all__ = [
    "Answer",
    "Assessment",
    "BertConfig",
    "Budget",
    "Cascade",
    "CascadeResult",
    "Decision",
    "EscalationMonitor",
    "FallbackRouter",
    "Joint",
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
    "SelfConsistency",
    "SelfEvaluation",
    "SimilarityConfig",
    "StrongShare",
    "Threshold",
    "Tier",
    "UseCase",
    "Verifier",
    "VerifierConfig",
    "check_leaks",
    "evaluate",
    "extend_similarity",
    "from_client",
    "generate_sample",
    "load",
    "load_verifier",
    "plan_cascade",
    "read_many",
    "read_records",
    "register_metrics",
    "split_by_prompt",
    "train_bert",
    "train_matrix_factorization",
    "train_similarity",
    "train_verifier",
]

_HOME = {
    "Answer": ".routers.answers",
    "Assessment": ".routers.base",
    "BertConfig": ".training.bert",
    "Budget": ".routers.budget",
    "Cascade": ".routers.cascade",
    "CascadeResult": ".routers.tiers",
    "Decision": ".routers.base",
    "EscalationMonitor": ".routers.monitor",
    "FallbackRouter": ".routers.fallback",
    "Joint": ".routers.joint",
    "LearnedRouter": ".routers.learned",
    "MatrixFactorizationConfig": ".training.matrix_factorization",
    "Model": ".routers.base",
    "PerformanceRecord": ".data.records",
    "PreferenceRecord": ".data.records",
    "Query": ".routers.query",
    "ReadOptions": ".data.parser",
    "RoutelearnError": ".routers.errors",
    "Router": ".routers.base",
    "RulesRouter": ".routers.rules",
    "SelfConsistency": ".routers.confidence",
    "SelfEvaluation": ".routers.confidence",
    "SimilarityConfig": ".training.similarity",
    "StrongShare": ".routers.policy",
    "Threshold": ".routers.policy",
    "Tier": ".routers.tiers",
    "UseCase": ".routers.tiers",
    "Verifier": ".routers.verifier",
    "VerifierConfig": ".training.verifier",
    "check_leaks": ".data.splits",
    "evaluate": ".training.evaluate",
    "extend_similarity": ".training.extend",
    "from_client": ".routers.answers",
    "generate_sample": ".data.sample",
    "load": ".routers.learned",
    "load_verifier": ".routers.verifier",
    "plan_cascade": ".training.cascade_plan",
    "read_many": ".data.readers",
    "read_records": ".data.readers",
    "register_metrics": ".routers.metrics",
    "split_by_prompt": ".data.splits",
    "train_bert": ".training.bert",
    "train_matrix_factorization": ".training.matrix_factorization",
    "train_similarity": ".training.similarity",
    "train_verifier": ".training.verifier",
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
