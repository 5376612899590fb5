"""A router with a companion: the graph of its general part, which counts more where a query is unfamiliar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .assessment import Assessment
from .base import Router
from .bundle import COMPANION, Companion, Manifest
from .decision import Context, Flags, Floats
from .errors import BundleCorruptError, InferenceError
from .learned import LearnedRouter
from .query import Query, query_list
from .session import Session

#: What the companion computes: the general quality of each model, and how much it counts.
_OUTPUTS = ["quality", "share"]


class BlendedRouter(LearnedRouter):
    """A router whose quality is ``own + share · (general - own)``; `load` makes one of a bundle with a companion.

    A router that reads queries by the encoder of the general router blends in its one graph. Another router has a
    second, small graph, its companion, which reads a query by that encoder.
    """

    def __init__(self, manifest: Manifest, session: Session, companion: Session) -> None:
        """Wrap a verified manifest and two loaded graphs.

        Raises:
            BundleCorruptError: the companion does not compute what it should.
        """
        super().__init__(manifest, session)
        if "share" not in companion.outputs:
            raise BundleCorruptError(f"{COMPANION} has the outputs {companion.outputs}; expected {_OUTPUTS}")
        assert isinstance(manifest.companion, Companion)
        self._companion = companion
        self._read_general = manifest.companion.truncation.read

    def quality(self, queries: Sequence[Query]) -> Floats:
        own, general, share = self.parts(queries)
        return blend(own, general, share)

    def score(self, queries: Sequence[Query]) -> Floats:
        return Router.score(self, queries)

    def assess(self, queries: Sequence[Query], contexts: Sequence[Context] | None = None) -> Assessment:
        """Predict the qualities, with truncation by either graph, and with novelty and vectors of the router's own."""
        queries = query_list(queries)
        own = super().assess(queries, contexts)
        general, share, truncated = self._general(queries)
        return replace(own, quality=blend(own.quality, general, share), truncated=own.truncated | truncated)

    def parts(self, queries: Sequence[Query]) -> tuple[Floats, Floats, Floats]:
        """What is blended, of n queries: own quality (n, m), general quality (n, m), and the share (n,) of the latter.

        Raises:
            InputError: a query is neither a string nor a list of messages.
            InferenceError: a graph failed.
        """
        queries = query_list(queries)
        general, share, _ = self._general(queries)
        return super().quality(queries), general, share

    def _general(self, queries: Sequence[Query]) -> tuple[Floats, Floats, Flags]:
        """General quality (n, m) and share (n,) of n queries, and whether the companion read only a part of each."""
        read = [self._read_general(query) for query in queries]
        cut = np.array([truncated for _, truncated in read], np.bool_)
        if len(read) == 1:
            (general, share), whether = self._companion.run_one(read[0].text, _OUTPUTS)
            truncated = np.array([whether])
        else:
            outputs, truncated = self._companion.run([text for text, _ in read], _OUTPUTS)
            general, share = outputs["quality"], outputs["share"]
        if general.shape[1] != len(self.models):
            raise InferenceError(f"{COMPANION} gave {general.shape[1]} qualities of {len(self.models)} models")
        return general, share, cut | truncated


def blend(own: Floats, general: Floats, share: Floats) -> Floats:
    """The blended quality (n, m), from own and general quality (n, m) and the share (n,) of the general one."""
    return np.asarray(own + share[:, None] * (general - own), np.float32)


def learned_router(
    manifest: Manifest, session: Session, companion: Session | None, records: bytes | None = None
) -> LearnedRouter:
    """The router of a bundle with models of its own, with its companion and the names of its records if it has them."""
    if companion is None:
        return LearnedRouter(manifest, session, records)
    return BlendedRouter(manifest, session, companion)
