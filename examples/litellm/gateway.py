"""The callback and the plug-ins, built from environment variables; LiteLLM looks for them beside its config.yaml."""

from routelearn.service.litellm import classifier_plugin, hook, routing_plugin

__all__ = ["classifier_plugin", "hook", "routing_plugin"]
