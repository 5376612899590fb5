"""Runs any exported router bundle: one class, the graph is the difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import numpy as np

from .assessment import Assessment
from .base import Link, Router, win_rate
from .bundle import Manifest
from .decision import Context, Flags, Floats
from .nearest import NamedRecords, NearestRecord
from .query import Query, query_list
from .session import NEAREST, Outputs, Session

#: What a score needs of a graph's outputs.
QUALITY = ["quality"]


class LearnedRouter(Router):
    """A router that runs an exported bundle. `load` makes one; threads may share it.

    Attributes:
        manifest: the content of router.json.

    Example:
        >>> import routelearn
        >>> router = routelearn.load("router/")
        >>> router.strong, router.weak, len(router.models)
        ('sim-max', 'sim-small', 4)
    """

    _records: bytes | None = None

    def __init__(self, manifest: Manifest, session: Session, records: bytes | None = None) -> None:
        """Wrap a verified manifest and a loaded session, and records.json of a bundle that names its records."""
        link: Link = "bradley-terry" if manifest.link == "bradley-terry" else "difference"
        super().__init__(
            manifest.pool,
            manifest.strong,
            manifest.weak,
            link=link,
            threshold=manifest.threshold,
            threshold_table=manifest.threshold_table,
        )
        self.manifest = manifest
        self.novelty_bound = manifest.novelty_bound
        self.guarantee = manifest.guarantee
        self.reference = manifest.reference
        self._session = session
        self._records = records
        self._pair = (self.index(self.strong), self.index(self.weak))
        self._read = manifest.truncation.read
        self._max_characters = manifest.truncation.max_characters

    @property
    def tokenizer(self) -> str:
        """Name of the tokenizer back end in use."""
        return self._session.backend.name

    def quality(self, queries: Sequence[Query]) -> Floats:
        return self._output(queries, QUALITY)

    def _output(self, queries: Sequence[Query], name: list[str]) -> Floats:
        """One output of the graph for n queries, by its name in a list."""
        if type(queries) is not list:
            queries = query_list(queries)
        if len(queries) == 1:  # the hot path of a service
            text, _ = self._read(queries[0])
            return self._session.run_one(text, name)[0][0]
        return self._session.run(self._texts(queries)[0], name)[0][name[0]]

    def score(self, queries: Sequence[Query]) -> Floats:
        """Predict the win rate of strong over weak; a single query takes the shortest path to the graph."""
        if type(queries) is not list:
            queries = query_list(queries)
        if len(queries) != 1:
            return super().score(queries)
        query = queries[0]
        if type(query) is not str or len(query) > self._max_characters:
            query = self._read(query).text
        return np.array([self._score_one(query)], np.float32)

    def _score_one(self, text: str) -> Any:
        """The score of one text."""
        quality = self._session.run_one(text, QUALITY)[0][0][0]
        strong, weak = self._pair
        return win_rate(quality[strong], quality[weak], self.link)

    def assess(self, queries: Sequence[Query], contexts: Sequence[Context] | None = None) -> Assessment:
        """Predict the qualities, with truncation, and with novelty and vectors if the bundle measures them."""
        del contexts
        if type(queries) is not list:
            queries = query_list(queries)
        if len(queries) == 1:
            text, cut_characters = self._read(queries[0])
            results, cut_tokens = self._session.run_one(text)
            outputs = dict(zip(self._session.outputs, results, strict=True))
            truncated = np.array([cut_characters or cut_tokens])
        else:
            texts, cut = self._texts(queries)
            outputs, truncated = self._session.run(texts)
            truncated[cut] = True
        return self._assessment(outputs, truncated)

    def nearest(self, query: Query) -> tuple[NearestRecord, ...]:
        """The training records nearest to a query, at most five, the nearest first; empty: the bundle names none.

        Raises:
            InputError: the query is neither a string nor a list of messages.
            BundleCorruptError: records.json is not what an export writes; it is read when it is first needed.
            InferenceError: the router failed.
        """
        if self._named is None:
            return ()
        rows, similarity = self._session.run_one(self._read(query).text, NEAREST)[0]
        return self._named.nearest(rows[0], similarity[0])

    @cached_property
    def _named(self) -> NamedRecords | None:
        """The named records; None: the bundle names none."""
        if self._records is None or not self._session.finds_nearest:
            return None
        index = self.manifest.training.get("index")
        return NamedRecords.from_json(self._records, index.get("queries") if isinstance(index, Mapping) else None)

    def _assessment(self, outputs: Outputs, truncated: Flags) -> Assessment:
        """The assessment of n queries from all outputs of the graph."""
        return Assessment(outputs["quality"], truncated, outputs.get("novelty"), vectors=outputs.get("vector"))

    def _texts(self, queries: Sequence[Query]) -> tuple[list[str], list[int]]:
        """The texts that the graph reads, and the rows of those that exceeded the budget of characters."""
        # The hot path of batch scoring.
        if set(map(type, queries)) == {str} and max(map(len, queries)) <= self._max_characters:
            return cast("list[str]", list(queries)), []
        read = [self._read(query) for query in queries]
        return [text for text, _ in read], [row for row, (_, truncated) in enumerate(read) if truncated]


def manifest_of(router: Router) -> Manifest | None:
    """The manifest of the bundle that a router answers from; None: rules alone, or a router of several bundles."""
    return router.learned.manifest if isinstance(router.learned, LearnedRouter) else None
