"""Your own gateway: a limit on latency, and a cascade that judges answers by your own rule.

LiteLLM runs a file beside its config.yaml once for each reference to the file. So build the gateway in a module that is
imported (start the proxy with PYTHONPATH=.), and let gateway.py name the objects that the configuration refers to:

    from own import classifier_plugin, hook, routing_plugin
"""

import os
import re

from routelearn import FallbackRouter
from routelearn.availability import Availability, BreakerLimits
from routelearn.cascade import Answer, Ask, Estimate
from routelearn.routers import Query
from routelearn.service import ClassifierPlugin, Gateway, PostCallCascade, RoutingPlugin, make_hook

MODELS = {"sim-max": "strong", "sim-small": "weak"}


class AdmissionCheck:
    """Is sure of an answer, unless the answer admits that the model does not know."""

    async def estimate(self, query: Query, answer: Answer, ask: Ask, prior: float | None = None) -> Estimate:
        """Confidence 0 for an answer that says it does not know, 1 for any other answer."""
        del query, ask, prior
        return Estimate(0.0 if re.search(r"\b(do not|don't) know\b", answer.text, re.IGNORECASE) else 1.0)


router = FallbackRouter(os.environ["ROUTELEARN_ROUTER"])
limits = BreakerLimits(failures=10, max_p95_s=20)
gateway = Gateway(router, models=MODELS, availability=Availability(list(MODELS), limits))

hook = make_hook(gateway, cascade=PostCallCascade(gateway, AdmissionCheck(), threshold=0.5))
routing_plugin = RoutingPlugin(gateway)
classifier_plugin = ClassifierPlugin(gateway)
