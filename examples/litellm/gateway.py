"""LiteLLM looks for callbacks and plug-ins in files beside its config.yaml; these are as the environment says."""

from routelearn.service.litellm import classifier_plugin, hook, routing_plugin

__all__ = ["classifier_plugin", "hook", "routing_plugin"]
