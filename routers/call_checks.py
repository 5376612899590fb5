"""Checks of what callers pass to a router beside the queries: the policy, the threshold, the contexts."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence

from .errors import InputError


def threshold_number(threshold: object) -> float:
    """A threshold as a float.

    Raises:
        InputError: it is no number, or not a number.
    """
    if callable(getattr(threshold, "decide", None)):
        raise InputError(
            f"threshold is the policy {threshold!r:.80}; expected a number; a policy is asked by "
            "policy.decide(router, assessment), or by router.route(query, policy)"
        )
    if not isinstance(threshold, numbers.Real) or math.isnan(threshold):
        raise InputError(f"threshold is {threshold!r:.80}; expected a number, such as 0.5")
    return float(threshold)


def check_contexts(contexts: object, n: int) -> None:
    """Refuse what are not n contexts.

    Raises:
        InputError: they are not; the message says what to write.
    """
    if isinstance(contexts, (str, Mapping)) or not isinstance(contexts, Sequence):
        raise InputError(f"contexts is a {type(contexts).__name__}; expected a list with one mapping for each query")
    if len(contexts) != n:
        raise InputError(f"there are {len(contexts)} contexts and {n} queries; expected one context for each query")
    for context in contexts:
        if not isinstance(context, Mapping):
            raise InputError(f"a context is {context!r:.80}; expected a mapping, such as {{'tier': 'pro'}}")


def check_policy(policy: object, where: str = "policy") -> None:
    """Refuse what is no policy; None is one (the router's own threshold).

    Args:
        policy: what was given.
        where: its name, for the message.

    Raises:
        InputError: it is none; the message says what to write.
    """
    if policy is None:
        return
    if isinstance(policy, type):
        raise InputError(f"{where} is the class {policy.__name__}; expected an object: {policy.__name__}(...)")
    if isinstance(policy, numbers.Real):
        share = policy if 0 <= float(policy) <= 1 else 0.5
        raise InputError(f"{where} is {policy}; expected a policy: Threshold({share}) or StrongShare({share})")
    if isinstance(policy, Mapping):
        raise InputError(f"{where} is a mapping; expected a policy; a context is given as context={dict(policy)!r:.80}")
    is_router = hasattr(policy, "quality") and hasattr(policy, "assess")
    if is_router or not callable(getattr(policy, "decide", None)):
        raise InputError(f"{where} is {policy!r:.80}; expected a policy, such as Threshold(0.5), or None")
