"""Counts the responses that another model gave than the one that was chosen."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ...routers.checks import OTHER
from ...routers.errors import require
from ...routers.forks import new_lock
from ..gateway import Gateway
from .requests import SELECTED, selection_in

logger = logging.getLogger(__name__)


class ServedByOther:
    """Counts, and says, which model answered in place of the chosen one. Safe to share between threads.

    The first response of each pair of models is a warning in the log, the later ones are debug messages. It is also a
    Prometheus collector: `registry.register` takes it.

    Example:
        >>> from routelearn.service.litellm.served import ServedByOther
        >>> served = ServedByOther()
        >>> served.observe("sim-max", "sim-small")
        >>> served.observe("sim-max", "sim-max")
        >>> served.counts
        {('sim-max', 'sim-small'): 1}
    """

    def __init__(self) -> None:
        """Start with no counts."""
        self._lock = new_lock()
        self._counts: Counter[tuple[str, str]] = Counter()

    @property
    def counts(self) -> dict[tuple[str, str], int]:
        """The number of responses by the chosen model and the model that answered."""
        with self._lock:
            return dict(self._counts)

    def observe(self, chosen: str | None, served: str | None) -> None:
        """Note who answered a request.

        Args:
            chosen: the pool's name of the model that was chosen; None: nobody chose, and nothing is counted.
            served: the pool's name of the model that answered; None: it is not in the pool, and counts as "other".
        """
        served = OTHER if served is None else served
        if chosen is None or chosen == served:
            return
        with self._lock:
            self._counts[chosen, served] += 1
            is_first = self._counts[chosen, served] == 1
        logger.log(
            logging.WARNING if is_first else logging.DEBUG,
            "%s was chosen, and %s answered; routelearn_served_by_other_total counts such responses",
            chosen,
            served,
        )

    def describe(self) -> list[Any]:
        """The metric without samples, for a Prometheus registry."""
        return [self._metric()]

    def collect(self) -> Iterator[Any]:
        """The metric with its samples at this moment."""
        metric = self._metric()
        for pair, count in self.counts.items():
            metric.add_metric(list(pair), count)
        yield metric

    @staticmethod
    def _metric() -> Any:
        family = require("prometheus_client.core", "litellm").CounterMetricFamily
        return family(
            "routelearn_served_by_other",
            "Responses of another model than the one that was chosen.",
            labels=["chosen", "served"],
        )


def answering(gateway: Gateway, metadata: Mapping[str, Any]) -> str | None:
    """The pool's name of the model that an attempt asked; None: it is not in the pool.

    Args:
        gateway: knows the names.
        metadata: of the attempt. LiteLLM's complexity router keeps its own name as the group, and the group that it
            chose in the decision.
    """
    decision = metadata.get("routing_decision")
    routed = decision.get("routed_model") if isinstance(decision, Mapping) else None
    return gateway.pool_name(metadata.get("model_group"), routed, metadata.get("deployment"))


def chosen(gateway: Gateway, metadata: Mapping[str, Any]) -> str | None:
    """The pool's name of the model that was chosen for a request: by routelearn, else by LiteLLM; None: by the client.

    Args:
        gateway: knows the names.
        metadata: of an attempt of the request.
    """
    selection = selection_in(metadata)
    if selection is not None:
        return str(selection["asked"])
    selected = metadata.get(SELECTED)
    return gateway.pool_name(selected) if isinstance(selected, str) else None
