"""Evaluation: what a router is worth, which threshold to use, and whether a cascade pays."""

from ..routers.public_names import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
