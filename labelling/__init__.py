"""From prompts to records: ask models, judge their answers, label by hand, choose what to label next."""

from ..routers.public_names import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
