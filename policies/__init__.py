"""Policies: from a router's assessment of a query to a decision."""

from ..routers.public_names import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
