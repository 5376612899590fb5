"""Cascades: ask the weak model first, judge its answer, and ask the strong model when the answer is doubtful."""

from ..routers.public_names import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
