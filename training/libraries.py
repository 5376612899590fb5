"""The libraries that training needs, and the extras of routelearn that bring them."""

from __future__ import annotations

import os

from ..routers.errors import require

_STATIC = ("scipy", "sklearn", "onnx", "matplotlib")
#: The modules that an extra brings for training.
LIBRARIES = {"train": _STATIC, "transformers": ("torch", "transformers", "accelerate", "onnxscript", *_STATIC)}


def require_training(extra: str = "train") -> None:
    """Refuse to train without the libraries of an extra.

    Args:
        extra: "train" for the recipes on a static encoder, "transformers" for those on a transformer.

    Raises:
        MissingExtraError: one of the libraries is not installed.
    """
    # GNU OpenMP reads this when torch loads it. By default a thread that has nothing to do spins: beside other programs
    # that took most of a training's CPU time (measured).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for module in LIBRARIES[extra]:
        require(module, extra)
