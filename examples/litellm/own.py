"""A gateway of your own: a limit on latency, and a cascade that judges answers by a rule of yours.

LiteLLM runs a file beside its config.yaml once for each reference to it. So build the gateway in a module that is
imported (with PYTHONPATH=. at the proxy's start), and let gateway.py name what the configuration refers to:

    from own import classifier_plugin, hook, routing_plugin
"""

import os
import re

from routelearn import FallbackRouter
from routelearn.availability import Availability, BreakerLimits
from routelearn.cascade import Answer, Ask, Estimate
from routelearn.routers import Query
from routelearn.service.gateway import Gateway
from routelearn.service.litellm.cascade import PostCallCascade
from routelearn.service.litellm.plugins import ClassifierPlugin, RoutingPlugin
from routelearn.service.litellm.request_hook import make_hook

MODELS = {"sim-max": "strong", "sim-small": "weak"}


class Admissions:
    """Sure of an answer unless it admits that it does not know."""

    async def estimate(self, query: Query, answer: Answer, ask: Ask, prior: float | None = None) -> Estimate:
        """See `routelearn.cascade.confidence.Confidence`."""
        del query, ask, prior
        return Estimate(0.0 if re.search(r"\b(do not|don't) know\b", answer.text, re.IGNORECASE) else 1.0)


router = FallbackRouter(os.environ["ROUTELEARN_ROUTER"])
limits = BreakerLimits(failures=10, max_p95_s=20)
gateway = Gateway(router, models=MODELS, availability=Availability(list(MODELS), limits))

hook = make_hook(gateway, cascade=PostCallCascade(gateway, Admissions(), threshold=0.5))
routing_plugin = RoutingPlugin(gateway)
classifier_plugin = ClassifierPlugin(gateway)
