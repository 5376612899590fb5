"""The verifier's network: what is exported, what torch and the exported graph say of a pair, and the golden pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ...cascade.verifier import PairEncoder, feature_rows, joined
from ...routers.bundle import Golden
from ...routers.decision import Floats
from ...routers.golden import GOLDEN_PAIRS, GOLDEN_PRIOR
from ...routers.session import Session
from ..encoders.transformer import TOKENS_PER_RUN, Backbone, TokenIds, padded
from ..export.int8 import quantised
from ..export.to_onnx import export_onnx
from .stacking import Stack


@dataclass(frozen=True)
class Pairs:
    """Queries with answers, as the network reads them.

    Attributes:
        ids: token ids of each of n pairs.
        features: features of the answers, float32 (n, k).
    """

    ids: Sequence[TokenIds]
    features: Floats

    def at(self, rows: Sequence[int]) -> Pairs:
        """The pairs at these rows."""
        return Pairs([self.ids[row] for row in rows], self.features[list(rows)])


class VerifierNetwork(nn.Module):
    """The exported network: ids and mask, int64 (n, length), and features (n, k) to P(good enough), float32 (n, 1)."""

    weight: torch.Tensor
    feature_weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, backbone: Backbone, stack: Stack) -> None:
        """Fold the stack into the backbone's head."""
        super().__init__()
        self.backbone = backbone
        self.register_buffer("weight", backbone.head.weight.detach().T.contiguous() * stack.slope)
        bias = backbone.head.bias.detach() * stack.slope + stack.intercept
        self.register_buffer("bias", bias)
        self.register_buffer("feature_weight", torch.tensor(stack.weights, dtype=torch.float32).reshape(-1, 1))

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, features: torch.Tensor | None = None
    ) -> torch.Tensor:
        """P(good enough), float32 (n, 1)."""
        logit = self.backbone.pooled(input_ids, attention_mask) @ self.weight + self.bias
        if features is not None:
            logit = logit + features @ self.feature_weight
        return torch.sigmoid(logit)


def quantised_verifier(network: VerifierNetwork, calibration: Pairs) -> nn.Module:
    """The network in int8, calibrated on some pairs."""
    # One pair at a time, because padding is not an input of the calibration pairs.
    inputs = [
        (*padded([ids]), row)
        for ids, row in zip(calibration.ids, torch.from_numpy(calibration.features).split(1), strict=True)
    ]
    return quantised(network, lambda module: [module(*one) for one in inputs])


def export_verifier(network: nn.Module, names: Sequence[str], query_tokens: int) -> bytes:
    """Export the network as an ONNX graph with the output ``quality``.

    Args:
        network: the network, float32 or int8.
        names: names of the k features.
        query_tokens: tokens that the query keeps when query and answer are both long.
    """
    inputs = [torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.int64)]
    if names:
        inputs.append(torch.zeros(2, len(names)))
    hints = {
        "tokens_per_run": str(TOKENS_PER_RUN),
        "query_tokens": str(query_tokens),
        "features": ",".join(names),
    }
    return export_onnx(network, inputs, ["quality"], hints)


def confidence_by_session(session: Session, pairs: Pairs) -> Floats:
    """Confidence by a loaded graph: float32 (n,)."""
    flat, lengths = joined(pairs.ids)
    outputs = session.run_ids(flat, lengths, pairs.features if pairs.features.shape[1] else None)
    return np.asarray(outputs[session.outputs.index("quality")][:, 0], np.float32)


def golden_pairs(session: Session, encoder: PairEncoder, names: Sequence[str]) -> list[Golden]:
    """The golden pairs with the confidence that the graph gives them, for the manifest."""
    queries, answers = zip(*GOLDEN_PAIRS, strict=True)
    ids = encoder.encode(queries, answers)
    confidence = confidence_by_session(session, Pairs(ids, feature_rows(names, answers, [GOLDEN_PRIOR] * len(answers))))
    return [
        Golden(query={"query": query, "answer": answer}, ids=row.tolist(), quality=[float(value)])
        for query, answer, row, value in zip(queries, answers, ids, confidence, strict=True)
    ]
