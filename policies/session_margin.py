"""Whether a session keeps its model: unless the decision for another one is clear by more than a margin."""

from __future__ import annotations

from collections.abc import Mapping

from ..routers.decision import THRESHOLD, TRAINED, Decision
from ..routers.stand_in import FALLBACK_CAUSES
from .composed import EXPLORE
from .session_state import SessionState

#: Causes of decisions that compared the score with the threshold: the router's, or of the one that stands in for it.
BY_SCORE = FALLBACK_CAUSES | {THRESHOLD, EXPLORE}


def why_kept(
    session: SessionState, decision: Decision, margin: float, utility: Mapping[str, float] | None
) -> str | None:
    """Say why the session keeps its model; None: it follows the decision."""
    kept, score = session.model, decision.score
    if margin == 0 or kept not in decision.candidates:
        return None
    fallback = decision.source not in TRAINED
    if fallback and (decision.source == "default" or score >= decision.threshold):
        return None
    if fallback and session.source in TRAINED:
        stays = True
        why = (
            f"rules chose {decision.model}, and rules may only move this session to strong, because the router began it"
        )
    elif fallback or decision.cause in BY_SCORE:
        stays = -margin <= score - decision.threshold < margin
        why = f"score {score:.4f} is within {margin:.4g} of threshold {decision.threshold:.4f}"
    elif utility is not None and kept in utility and decision.model in utility:
        advantage = (utility[decision.model] - utility[kept]) / 2
        stays = advantage <= margin
        why = f"{decision.model} is ahead by {advantage:.4f}, not more than {margin:.4g}"
    else:
        stays = abs(score - session.score) <= margin
        why = f"score {score:.4f} moved by not more than {margin:.4g}"
    return f"kept {kept}, chosen at {session.score:.4f}: {why}" if stays else None
