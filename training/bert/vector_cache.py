"""Vectors of a transformer that stays as it is, kept in a file: other labels or settings need no second pass."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ...routers.errors import InputError

Ids = Sequence[npt.NDArray[np.int32]]


def cached_vectors(
    path: Path | None, network: nn.Module, ids: Ids, compute: Callable[[Ids], torch.Tensor]
) -> torch.Tensor:
    """Vectors (n, d) of token ids: from the file where it has them of this network, else computed, and added to it.

    Args:
        path: an .npz file, there or not; None: compute all.
        network: what computes the vectors; a file of another one is refused.
        ids: token ids of the n queries.
        compute: ids to vectors.

    Raises:
        InputError: the file is none of these, or of another network.
    """
    if path is None:
        return compute(ids)
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.contiguous().numpy().tobytes())
    fingerprint = digest.hexdigest()
    keys = [hashlib.sha256(row.tobytes()).digest() for row in ids]
    known = _read(path, fingerprint)
    missing = {key: row for key, row in zip(keys, ids, strict=True) if key not in known}
    if missing:
        known.update(zip(missing, compute(list(missing.values())).numpy(), strict=True))
        staging = path.with_name(f".{path.name}.tmp.npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            staging,
            fingerprint=np.array(fingerprint),
            keys=np.frombuffer(b"".join(known), np.uint8).reshape(-1, digest.digest_size),
            vectors=np.stack(list(known.values())),
        )
        staging.replace(path)
    return torch.from_numpy(np.stack([known[key] for key in keys]))


def _read(path: Path, fingerprint: str) -> dict[bytes, npt.NDArray[np.float32]]:
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            found, keys, vectors = str(file["fingerprint"]), file["keys"], file["vectors"]
    except (ValueError, KeyError, EOFError, OSError, BadZipFile) as error:
        raise InputError(f"{path} is no file of vectors ({error}); name another") from error
    if found != fingerprint:
        raise InputError(f"{path} holds vectors of another encoder, or of other layers; name another file")
    return {key.tobytes(): vector for key, vector in zip(keys, vectors, strict=True)}
