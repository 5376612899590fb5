"""Shadow mode: the router decides, and the strong model answers all the same."""

from __future__ import annotations

from ..routers.decision import Decision

#: The `Decision.cause` of what is replied in shadow mode.
SHADOW = "shadow"


def shadowed(decision: Decision, strong: str) -> Decision:
    """The decision to act on in shadow mode: for the strong model; the reason says what would have been.

    Args:
        decision: the router's.
        strong: name of the strong model.

    Example:
        >>> import routelearn
        >>> from routelearn.policies import shadowed
        >>> router = routelearn.load("router/")
        >>> acted = shadowed(router.route("Say hello to Ana."), router.strong)
        >>> acted.model, acted.cause, acted.reason[:54]
        ('sim-max', 'shadow', 'shadow mode: sim-max answers; the router would ask sim')
    """
    reason = f"shadow mode: {strong} answers; the router would ask {decision.model}: {decision.reason}"
    return decision.instead(strong, SHADOW, reason)
