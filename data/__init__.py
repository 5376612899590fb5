"""Data: records in, scored rows out."""

from ..routers.public_names import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
