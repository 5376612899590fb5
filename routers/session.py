"""Runs a graph on texts. No other file imports onnxruntime.

The inputs of a graph are ``input_ids`` and ``attention_mask``, both (n, length), in the integer types that the graph
declares; a verifier also takes ``features`` (n, k), float32. The outputs are ``quality`` (n, models) and, if the bundle
has them, ``novelty`` (n,), ``vector`` (n, k), of a general router ``item`` (n, 2), and of a companion ``share`` (n,).
Two more are computed only where they are asked for by name, ``nearest`` and ``nearest_similarity`` (n, k): rows of the
index of a similarity router.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from .errors import BundleCorruptError, InferenceError
from .forks import renew_in_child
from .graph_check import check_graph
from .tokenizer import Ids, Lengths, TokenizerBackend, encode, keep_ends

Array = npt.NDArray[Any]
Outputs = dict[str, Array]
#: The outputs that are read, and the number of their axes.
AXES = {"quality": 2, "novelty": 1, "vector": 2, "item": 2, "share": 1, "nearest": 2, "nearest_similarity": 2}
#: Those that are computed only where they are asked for, and the optional input of the graph that asks for them.
NEAREST = ["nearest", "nearest_similarity"]
FIND_NEAREST = "find_nearest"
T = TypeVar("T")
R = TypeVar("R")

#: The most tokens (padding included) and rows that are padded together, unless the graph's metadata says otherwise.
#: Large batches amortise the work that Python does for each.
TOKENS_PER_BATCH = 65_536
ROWS_PER_BATCH = 1_024
#: The most tokens and rows in one run of the graph. The token vectors of more do not fit the cache (a fifth slower).
TOKENS_PER_RUN = 16_384
ROWS_PER_RUN = 256
#: The most texts that are tokenized at once; this bounds the memory of a long batch.
TEXTS_PER_CHUNK = 16_384


def cpu_count() -> int:
    """Count the CPUs that this process may use by its affinity and its cgroup's quota, which onnxruntime ignores."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            count = min(count, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # there is no cgroup v2: only the affinity counts
        return count
    return count


class Session:
    """A loaded graph with its tokenizer: texts in, arrays out. Threads may share one."""

    def __init__(
        self,
        model: bytes,
        backend: TokenizerBackend,
        max_tokens: int,
        *,
        last_tokens: int = 0,
        distinct: bool = False,
        threads: int | None = None,
        file: str = "model.onnx",
    ) -> None:
        """Load a graph.

        Args:
            model: the bytes of the graph.
            backend: the tokenizer.
            max_tokens: token budget of a query; what exceeds it is cut.
            last_tokens: the part of the budget that is kept for the end of a query; the cut lies before it.
            distinct: the mask marks each distinct token of a query once.
            threads: number of batches that run at the same time; None: one for every CPU of this process.
            file: the name of the graph, for the messages.

        Raises:
            BundleCorruptError: `check_graph` refuses the graph, it does not load, or its inputs are not as expected.
        """
        check_graph(model, file)
        options = ort.SessionOptions()
        # Threads inside a run slow a small graph down (26 instead of 17 us for one query). So each run has one
        # thread, and several runs go side by side.
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        # onnxruntime has a format of its own, which it would else recognise, and which check_graph does not read.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises many unrelated classes
            raise BundleCorruptError(f"{file} cannot be loaded: {error}") from error
        # The inner `run` does not check names, which saves 2 us for a single query. The names are checked here, once.
        bare = getattr(self._session, "_sess", None)
        self._run: Callable[..., Any] = self._session.run
        if bare is not None:
            self._run = lambda outputs, feeds, options=None: bare.run(outputs, feeds, options)
        # This option saves 2 us a query where only some outputs are asked for. (It leaves out no node of the graph.)
        self._asked_only = ort.RunOptions()
        self._asked_only.only_execute_path_to_fetches = True
        self.outputs, self.finds_nearest = _outputs(self._session, file)
        self.hints: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        self._tokens_per_batch = whole_hint(self.hints, "tokens_per_run", TOKENS_PER_BATCH, file)
        self._rows_per_batch = whole_hint(self.hints, "rows_per_run", ROWS_PER_BATCH, file)
        self._ids_type, self._mask_type = _input_types(self._session, file)
        self._ones = np.ones((1, max_tokens), self._mask_type)
        self.backend = backend
        self.max_tokens = max_tokens
        self.last_tokens = last_tokens
        self._distinct = distinct
        self._local = threading.local()  # each thread has a mask of its own, which every single query overwrites
        self._threads = threads or cpu_count()
        self._forget_threads()
        renew_in_child(self, Session._forget_threads)

    def _forget_threads(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._pool_lock = threading.Lock()

    def run_one(self, text: str, outputs: list[str] | None = None) -> tuple[list[Array], bool]:
        """Run one text; return the outputs, and whether the text is longer than the token budget.

        This does the same arithmetic as `run` with less work around it, for services that route single queries.

        Args:
            text: the text of the query.
            outputs: names of the outputs to compute; None: those of the attribute `outputs`, in their order.

        Raises:
            InferenceError: onnxruntime failed.
        """
        ids = encode(self.backend, [text])[0]
        truncated = len(ids) > self.max_tokens
        if truncated:
            ids = keep_ends(ids, self.max_tokens, self.last_tokens)
        if not len(ids):
            none = np.zeros(1, np.int64)
            return self._run_padded(ids, none, none, none, None, outputs), False
        if not self._distinct:
            return self._run_graph(ids.reshape(1, -1), self._ones[:, : len(ids)], None, outputs), truncated
        ids.sort()  # the back end made the array for this call
        try:
            first, as_mask = self._local.first
        except AttributeError:  # the first text of this thread
            first = np.ones(self.max_tokens, np.bool_)
            as_mask = first.view(np.uint8).reshape(1, -1)
            self._local.first = first, as_mask
        np.not_equal(ids[1:], ids[:-1], first[1 : len(ids)])
        return self._run_graph(ids.reshape(1, -1), as_mask[:, : len(ids)], None, outputs), truncated

    def run(self, texts: list[str], outputs: list[str] | None = None) -> tuple[Outputs, npt.NDArray[np.bool_]]:
        """Run n texts through the graph, in batches of similar length that run side by side.

        Args:
            texts: the texts of the queries.
            outputs: names of the outputs to compute; None: all.

        Returns:
            The outputs by name, n rows each, and bool (n,): whether each text is longer than the token budget.

        Raises:
            InferenceError: onnxruntime failed.
        """
        count = max(1, -(-len(texts) // TEXTS_PER_CHUNK))
        size = max(1, -(-len(texts) // count))  # chunks of equal size: a small last one would be slow
        chunks = [texts[start : start + size] for start in range(0, max(1, len(texts)), size)]
        parts = [self._run_chunk(chunk, outputs) for chunk in chunks]
        *results, truncated = (np.concatenate(column) for column in zip(*parts, strict=True))
        return dict(zip(outputs or self.outputs, results, strict=True)), truncated

    def _run_chunk(self, texts: list[str], outputs: list[str] | None) -> list[Array]:
        """Compute the graph's outputs for some texts, and whether each text was cut."""
        ids, whole = encode(self.backend, texts) if texts else (np.empty(0, np.int32), np.empty(0, np.int64))
        return [*self.run_ids(ids, whole, outputs=outputs), whole > self.max_tokens]

    def run_ids(
        self,
        ids: Ids,
        whole: Lengths,
        features: npt.NDArray[np.float32] | None = None,
        outputs: list[str] | None = None,
    ) -> list[Array]:
        """Run n rows of token ids through the graph, in batches of similar length that run side by side.

        Args:
            ids: int32 (total,), all rows one after the other.
            whole: int64 (n,), the number of ids of each row; longer rows than the token budget are cut.
            features: float32 (n, k), for a graph that takes features.
            outputs: names of the outputs to compute; None: all, in the order of the attribute `outputs`.

        Returns:
            The outputs in that order, n rows each.

        Raises:
            InferenceError: onnxruntime failed.
        """
        lengths = np.minimum(whole, self.max_tokens)
        starts = np.cumsum(whole) - whole
        # numpy sorts short integers by radix, which is faster.
        order = np.argsort(lengths.astype(np.uint16) if self.max_tokens < 1 << 16 else lengths, kind="stable")

        def work(rows: slice) -> list[Array]:
            batch = order[rows]
            some = None if features is None else features[batch]
            return self._run_padded(ids, starts[batch], lengths[batch], whole[batch], some, outputs)

        batches = self._batches(lengths[order])
        results: list[Array] = []
        for rows, part in zip(batches, self._side_by_side(work, batches), strict=True):
            results = results or [np.empty((len(order), *one.shape[1:]), one.dtype) for one in part]
            for whole_column, one in zip(results, part, strict=True):
                whole_column[order[rows]] = one
        return results

    def _side_by_side(self, work: Callable[[T], R], items: list[T]) -> Iterable[R]:
        # The tokenizer uses every core by itself. The graph uses them here: one batch a thread.
        if len(items) == 1 or self._threads == 1:
            return map(work, items)
        with self._pool_lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="routelearn-session")
        return self._pool.map(work, items)

    def _batches(self, lengths: Lengths) -> list[slice]:
        """Cut rows of rising lengths into batches to pad together; there is one batch at least, even if it is empty."""
        if not len(lengths):
            return [slice(0, 0)]
        batches: list[slice] = []
        start = 0
        while start < len(lengths):
            ahead = lengths[start : start + self._rows_per_batch]
            area = np.arange(1, len(ahead) + 1) * ahead
            stop = start + max(1, int(np.searchsorted(area, self._tokens_per_batch, side="right")))
            batches.append(slice(start, stop))
            start = stop
        return batches

    def _run_padded(
        self,
        ids: Ids,
        starts: Lengths,
        lengths: Lengths,
        whole: Lengths,
        features: npt.NDArray[np.float32] | None = None,
        outputs: list[str] | None = None,
    ) -> list[Array]:
        """Pad and run the texts whose ids begin at `starts`; `lengths` of their `whole` ids are kept."""
        place = np.arange(max(1, int(lengths.max())) if len(lengths) else 1)
        kept = place < lengths[:, None]
        if len(ids):
            taken = starts[:, None] + place
            if self.last_tokens and (whole > lengths).any():
                taken += np.where(place < self.max_tokens - self.last_tokens, 0, (whole - lengths)[:, None])
            padded = ids.take(taken, mode="clip")
            padded[~kept] = -1
        else:
            padded = np.full(kept.shape, -1, np.int32)
        if self._distinct:  # pooling ignores the order, so sorting may bring repeated tokens together
            padded.sort(axis=1)
            kept = padded >= 0
            kept[:, 1:] &= padded[:, 1:] != padded[:, :-1]
        np.maximum(padded, 0, out=padded)
        mask = kept.view(np.uint8)
        size = max(1, min(ROWS_PER_RUN, TOKENS_PER_RUN // len(place)))
        if features is not None or len(padded) <= size:
            return self._run_graph(padded, mask, features, outputs)
        parts = [
            self._run_graph(padded[start : start + size], mask[start : start + size], None, outputs)
            for start in range(0, len(padded), size)
        ]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def _run_graph(
        self,
        ids: Array,
        mask: Array,
        features: npt.NDArray[np.float32] | None = None,
        outputs: list[str] | None = None,
    ) -> list[Array]:
        feeds = {
            "input_ids": ids if self._ids_type is np.int32 else ids.astype(self._ids_type),
            "attention_mask": mask if mask.dtype.type is self._mask_type else mask.astype(self._mask_type),
        }
        if features is not None:
            feeds["features"] = features
        if outputs is NEAREST:
            feeds[FIND_NEAREST] = np.array([True])
        names = self.outputs if outputs is None else outputs
        try:
            results: list[Array] = self._run(names, feeds, None if outputs is None else self._asked_only)
        except Exception as error:  # onnxruntime raises many unrelated classes
            raise InferenceError(f"onnxruntime failed on {len(ids)} queries: {error}") from error
        rows = len(ids)
        for name, result in zip(names, results):  # noqa: B905 - as many as asked for; strict costs a single query 0.1 us
            if result.ndim != AXES[name] or len(result) != rows:
                raise InferenceError(f"the graph gave {name} of shape {result.shape} for {rows} queries")
        return results


def _outputs(session: ort.InferenceSession, file: str) -> tuple[list[str], bool]:
    """Check the types of the outputs of a graph; those that are always read, and whether it can find the nearest."""
    types = {node.name: node.type for node in session.get_outputs()}
    wrong = {name: kind for name, kind in types.items() if name in AXES and kind != "tensor(float)"}
    if "quality" not in types or wrong:
        raise BundleCorruptError(f"{file} has outputs {types}; expected quality, and {list(AXES)} as tensor(float)")
    switches = {node.name for node in session.get_overridable_initializers()}
    found = [name for name in types if name in AXES and name not in NEAREST]
    return found, FIND_NEAREST in switches and set(NEAREST) <= set(types)


def whole_hint(hints: dict[str, str], name: str, default: int | None = None, file: str = "model.onnx") -> int:
    """A whole number from 1 to 2^24 in the metadata of a graph.

    Raises:
        BundleCorruptError: there is none, and no default; or it is not such a number.
    """
    text = hints.get(name)
    if text is None and default is not None:
        return default
    if text is None or not re.fullmatch("[0-9]{1,8}", text) or not 1 <= int(text) <= 1 << 24:
        raise BundleCorruptError(f"{file} has {name} {text!r} in its metadata; expected a number from 1 to 2^24")
    return int(text)


def _input_types(session: ort.InferenceSession, file: str) -> tuple[type[np.generic], type[np.generic]]:
    """Check the inputs of a graph, and read the types of the ids and the mask."""
    inputs = {node.name: node.type for node in session.get_inputs()}
    if set(inputs) - {"features"} != {"input_ids", "attention_mask"}:
        raise BundleCorruptError(f"{file} has inputs {sorted(inputs)}; expected input_ids, attention_mask")
    return _numpy_type(inputs["input_ids"], file), _numpy_type(inputs["attention_mask"], file)


def _numpy_type(declared: str, file: str) -> type[np.generic]:
    types: dict[str, type[np.generic]] = {
        "tensor(int64)": np.int64,
        "tensor(int32)": np.int32,
        "tensor(uint8)": np.uint8,
    }
    if declared not in types:
        raise BundleCorruptError(f"{file} declares an input of type {declared}; expected one of {sorted(types)}")
    return types[declared]
