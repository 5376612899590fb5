"""The threshold whose quality loss is bounded with a stated confidence (`routelearn calibrate --max-quality-loss`)."""

from __future__ import annotations

from dataclasses import dataclass

from ..routers.base import Router
from ..routers.bundle import Manifest
from ..routers.errors import InputError
from .threshold import ThresholdPolicy


@dataclass(frozen=True, slots=True)
class GuaranteedThreshold(ThresholdPolicy):
    """The guaranteed threshold of the router's bundle, whatever its default threshold is now.

    The guarantee is for queries exchangeable with those it was calibrated on, and for decisions of the learned router:
    rows that the rules answer are outside of it.

    Attributes:
        max_quality_loss: the largest loss that will do; None: whatever the bundle guarantees.
    """

    max_quality_loss: float | None = None

    def threshold_of(self, router: Router) -> float:
        """See `ThresholdPolicy.threshold_of`.

        Raises:
            InputError: the bundle has no guarantee, one for a larger loss, or one for another pair of models.
        """
        learned = getattr(router, "learned", router)  # of a FallbackRouter
        manifest = getattr(learned, "manifest", None)
        guarantee = manifest.guarantee if isinstance(manifest, Manifest) else None
        if manifest is None or guarantee is None:
            raise InputError(
                "this router has no guaranteed threshold; make one: routelearn calibrate ROUTER --data LABELLED "
                "--max-quality-loss 0.02 --confidence 0.95"
            )
        if (router.strong, router.weak) != (manifest.strong, manifest.weak):
            raise InputError(
                f"the guarantee is for {manifest.strong!r} over {manifest.weak!r}, "
                f"not for {router.strong!r} over {router.weak!r}"
            )
        if self.max_quality_loss is not None and guarantee["max_quality_loss"] > self.max_quality_loss:
            raise InputError(
                f"the bundle guarantees a loss of at most {guarantee['max_quality_loss']:g}, "
                f"not {self.max_quality_loss:g}; calibrate it for that"
            )
        return float(guarantee["threshold"])
