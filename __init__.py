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
    from .routers.availability import Availability
    from .routers.availability_metrics import register_availability_metrics
    from .routers.average import AverageRouter
    from .routers.base import Assessment, Decision, Model, Router
    from .routers.budget import Budget
    from .routers.cascade import Cascade
    from .routers.confidence import SelfConsistency, SelfEvaluation
    from .routers.context_policy import ByContext
    from .routers.conversation import Conversations
    from .routers.cost_policy import CostPerThousand
    from .routers.decision_log import DecisionLog, read_log
    from .routers.errors import RoutelearnError
    from .routers.explore import Explore
    from .routers.fallback import FallbackRouter
    from .routers.guaranteed import GuaranteedThreshold
    from .routers.hub import HubRouter
    from .routers.joint import Joint
    from .routers.learned import LearnedRouter, load
    from .routers.metrics import register_metrics
    from .routers.model_health import BreakerLimits
    from .routers.monitor import EscalationMonitor
    from .routers.objective import Objective, cost_aware
    from .routers.off_policy import off_policy_value
    from .routers.policy import StrongShare, Threshold
    from .routers.query import Query
    from .routers.reference import Reference
    from .routers.route_metrics import register_route_metrics
    from .routers.route_monitor import RouteMonitor
    from .routers.rules import RulesRouter
    from .routers.tiers import CascadeResult, Tier, UseCase
    from .routers.top_k import TopK
    from .routers.two_stage import TwoStageRouter
    from .routers.verifier import Verifier, load_verifier
    from .training.bert import BertConfig, train_bert
    from .training.cascade_plan import plan_cascade
    from .training.evaluate import evaluate
    from .training.extend import extend_similarity
    from .training.matrix_factorization import MatrixFactorizationConfig, train_matrix_factorization
    from .training.sequential import ABTest
    from .training.similarity import SimilarityConfig, train_similarity
    from .training.verifier import VerifierConfig, train_verifier

__all__ = [
    "ABTest",
    "Answer",
    "Assessment",
    "Availability",
    "AverageRouter",
    "BertConfig",
    "BreakerLimits",
    "Budget",
    "ByContext",
    "Cascade",
    "CascadeResult",
    "Conversations",
    "CostPerThousand",
    "Decision",
    "DecisionLog",
    "EscalationMonitor",
    "Explore",
    "FallbackRouter",
    "GuaranteedThreshold",
    "HubRouter",
    "Joint",
    "LearnedRouter",
    "MatrixFactorizationConfig",
    "Model",
    "Objective",
    "PerformanceRecord",
    "PreferenceRecord",
    "Query",
    "ReadOptions",
    "Reference",
    "RouteMonitor",
    "RoutelearnError",
    "Router",
    "RulesRouter",
    "SelfConsistency",
    "SelfEvaluation",
    "SimilarityConfig",
    "StrongShare",
    "Threshold",
    "Tier",
    "TopK",
    "TwoStageRouter",
    "UseCase",
    "Verifier",
    "VerifierConfig",
    "check_leaks",
    "cost_aware",
    "evaluate",
    "extend_similarity",
    "from_client",
    "generate_sample",
    "load",
    "load_verifier",
    "off_policy_value",
    "plan_cascade",
    "read_log",
    "read_many",
    "read_records",
    "register_availability_metrics",
    "register_metrics",
    "register_route_metrics",
    "split_by_prompt",
    "train_bert",
    "train_matrix_factorization",
    "train_similarity",
    "train_verifier",
]

_HOME = {
    "ABTest": ".training.sequential",
    "Answer": ".routers.answers",
    "Assessment": ".routers.base",
    "Availability": ".routers.availability",
    "AverageRouter": ".routers.average",
    "BertConfig": ".training.bert",
    "BreakerLimits": ".routers.model_health",
    "Budget": ".routers.budget",
    "ByContext": ".routers.context_policy",
    "Cascade": ".routers.cascade",
    "CascadeResult": ".routers.tiers",
    "Conversations": ".routers.conversation",
    "CostPerThousand": ".routers.cost_policy",
    "Decision": ".routers.base",
    "DecisionLog": ".routers.decision_log",
    "EscalationMonitor": ".routers.monitor",
    "Explore": ".routers.explore",
    "FallbackRouter": ".routers.fallback",
    "GuaranteedThreshold": ".routers.guaranteed",
    "HubRouter": ".routers.hub",
    "Joint": ".routers.joint",
    "LearnedRouter": ".routers.learned",
    "MatrixFactorizationConfig": ".training.matrix_factorization",
    "Model": ".routers.base",
    "Objective": ".routers.objective",
    "PerformanceRecord": ".data.records",
    "PreferenceRecord": ".data.records",
    "Query": ".routers.query",
    "ReadOptions": ".data.parser",
    "Reference": ".routers.reference",
    "RouteMonitor": ".routers.route_monitor",
    "RoutelearnError": ".routers.errors",
    "Router": ".routers.base",
    "RulesRouter": ".routers.rules",
    "SelfConsistency": ".routers.confidence",
    "SelfEvaluation": ".routers.confidence",
    "SimilarityConfig": ".training.similarity",
    "StrongShare": ".routers.policy",
    "Threshold": ".routers.policy",
    "Tier": ".routers.tiers",
    "TopK": ".routers.top_k",
    "TwoStageRouter": ".routers.two_stage",
    "UseCase": ".routers.tiers",
    "Verifier": ".routers.verifier",
    "VerifierConfig": ".training.verifier",
    "check_leaks": ".data.splits",
    "cost_aware": ".routers.objective",
    "evaluate": ".training.evaluate",
    "extend_similarity": ".training.extend",
    "from_client": ".routers.answers",
    "generate_sample": ".data.sample",
    "load": ".routers.learned",
    "load_verifier": ".routers.verifier",
    "off_policy_value": ".routers.off_policy",
    "plan_cascade": ".training.cascade_plan",
    "read_log": ".routers.decision_log",
    "read_many": ".data.readers",
    "read_records": ".data.readers",
    "register_availability_metrics": ".routers.availability_metrics",
    "register_metrics": ".routers.metrics",
    "register_route_metrics": ".routers.route_metrics",
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
