"""Services that run routers for others: the HTTP service, and the gateway with its LiteLLM plug-ins."""

from ..routers.public_names import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
