"""Monitoring: what was decided, and whether the router still fits the traffic."""

from ..routers.public_names import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
