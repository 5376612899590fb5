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
    from .availability.availability import Availability
    from .availability.model_health import BreakerLimits
    from .cascade.backends import Answer, from_client
    from .cascade.budget import Budget
    from .cascade.cascade import Cascade
    from .cascade.confidence import SelfConsistency, SelfEvaluation
    from .cascade.joint import Joint
    from .cascade.tiers import CascadeResult, Tier, UseCase
    from .cascade.verifier import Verifier, load_verifier
    from .data.parser import ReadOptions
    from .data.readers import read_many, read_records
    from .data.records import PerformanceRecord, PreferenceRecord
    from .data.sample import generate_sample
    from .data.splits import check_leaks, split_by_prompt
    from .evaluation.cascade_plan.plan import plan_cascade
    from .evaluation.evaluate import evaluate
    from .evaluation.thresholds.ab_test import ABTest
    from .monitoring.availability_metrics import register_availability_metrics
    from .monitoring.decision_log import DecisionLog, read_log
    from .monitoring.escalation import EscalationMonitor
    from .monitoring.off_policy import off_policy_value
    from .monitoring.prometheus import register_metrics
    from .monitoring.reference import Reference
    from .monitoring.route_metrics import register_route_metrics
    from .monitoring.routing import RouteMonitor
    from .policies.composed import ByContext, Explore, TopK
    from .policies.conversation import Conversations
    from .policies.cost import CostPerThousand
    from .policies.objective import Objective, cost_aware
    from .policies.threshold import GuaranteedThreshold, StrongShare, Threshold
    from .routers.base import Assessment, Decision, Model, Router
    from .routers.combined import AverageRouter, TwoStageRouter
    from .routers.errors import RoutelearnError
    from .routers.fallback import FallbackRouter
    from .routers.hub import HubRouter
    from .routers.learned import LearnedRouter, load
    from .routers.query import Query
    from .routers.rules import RulesRouter
    from .training.bert.train import BertConfig, train_bert
    from .training.matrix_factorization.train import MatrixFactorizationConfig, train_matrix_factorization
    from .training.similarity.extend import extend_similarity
    from .training.similarity.train import SimilarityConfig, train_similarity
    from .training.verifier.train import VerifierConfig, train_verifier

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
    "ABTest": ".evaluation.thresholds.ab_test",
    "Answer": ".cascade.backends",
    "Assessment": ".routers.base",
    "Availability": ".availability.availability",
    "AverageRouter": ".routers.combined",
    "BertConfig": ".training.bert.train",
    "BreakerLimits": ".availability.model_health",
    "Budget": ".cascade.budget",
    "ByContext": ".policies.composed",
    "Cascade": ".cascade.cascade",
    "CascadeResult": ".cascade.tiers",
    "Conversations": ".policies.conversation",
    "CostPerThousand": ".policies.cost",
    "Decision": ".routers.base",
    "DecisionLog": ".monitoring.decision_log",
    "EscalationMonitor": ".monitoring.escalation",
    "Explore": ".policies.composed",
    "FallbackRouter": ".routers.fallback",
    "GuaranteedThreshold": ".policies.threshold",
    "HubRouter": ".routers.hub",
    "Joint": ".cascade.joint",
    "LearnedRouter": ".routers.learned",
    "MatrixFactorizationConfig": ".training.matrix_factorization.train",
    "Model": ".routers.base",
    "Objective": ".policies.objective",
    "PerformanceRecord": ".data.records",
    "PreferenceRecord": ".data.records",
    "Query": ".routers.query",
    "ReadOptions": ".data.parser",
    "Reference": ".monitoring.reference",
    "RouteMonitor": ".monitoring.routing",
    "RoutelearnError": ".routers.errors",
    "Router": ".routers.base",
    "RulesRouter": ".routers.rules",
    "SelfConsistency": ".cascade.confidence",
    "SelfEvaluation": ".cascade.confidence",
    "SimilarityConfig": ".training.similarity.train",
    "StrongShare": ".policies.threshold",
    "Threshold": ".policies.threshold",
    "Tier": ".cascade.tiers",
    "TopK": ".policies.composed",
    "TwoStageRouter": ".routers.combined",
    "UseCase": ".cascade.tiers",
    "Verifier": ".cascade.verifier",
    "VerifierConfig": ".training.verifier.train",
    "check_leaks": ".data.splits",
    "cost_aware": ".policies.objective",
    "evaluate": ".evaluation.evaluate",
    "extend_similarity": ".training.similarity.extend",
    "from_client": ".cascade.backends",
    "generate_sample": ".data.sample",
    "load": ".routers.learned",
    "load_verifier": ".cascade.verifier",
    "off_policy_value": ".monitoring.off_policy",
    "plan_cascade": ".evaluation.cascade_plan.plan",
    "read_log": ".monitoring.decision_log",
    "read_many": ".data.readers",
    "read_records": ".data.readers",
    "register_availability_metrics": ".monitoring.availability_metrics",
    "register_metrics": ".monitoring.prometheus",
    "register_route_metrics": ".monitoring.route_metrics",
    "split_by_prompt": ".data.splits",
    "train_bert": ".training.bert.train",
    "train_matrix_factorization": ".training.matrix_factorization.train",
    "train_similarity": ".training.similarity.train",
    "train_verifier": ".training.verifier.train",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module 'routelearn' has no attribute {name!r}; it has {__all__}")
    if _HOME[name].startswith((".training.", ".evaluation.")):
        from .routers.errors import require

        require("sklearn" if name == "evaluate" else "torch", "train")
    value = getattr(importlib.import_module(_HOME[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted([*__all__, "__version__"])
