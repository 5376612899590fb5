"""Watches what routers and cascades decide, and whether traffic and outcomes still fit the router."""

from ..routers.public_names import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
