"""Training: from records to a bundle, one folder a recipe."""

from ..routers.public_names import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
