"""Records in, scored rows out: readers, labels, splits, the embedded sample, and the scoring of tables."""

from ..routers.public_names import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
