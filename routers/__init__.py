"""The scoring core: queries in, scores and decisions out. It needs numpy, onnxruntime and a tokenizer, never torch."""

from .public_names import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
