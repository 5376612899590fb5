"""A file that keeps a frozen transformer's vectors, so that training with other labels need not compute them again."""

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
    """Take vectors from a file, and compute those that it lacks and add them to it.

    Args:
        path: an .npz file that need not exist yet; None computes all vectors and keeps none.
        network: the network that computes the vectors. A file with vectors of another network is refused.
        ids: token ids of the n queries.
        compute: maps token ids of k queries to their vectors, float32 (k, d).

    Returns:
        The vectors of all queries, float32 (n, d).

    Raises:
        InputError: the file is not a file of vectors, or it holds those of another network.
    """
    if path is None:
        return compute(ids)
    keys = [hashlib.sha256(row.tobytes()).digest() for row in ids]
    known = read_vectors(path, network)
    missing = {key: row for key, row in zip(keys, ids, strict=True) if key not in known}
    if missing:
        known.update(zip(missing, compute(list(missing.values())).numpy(), strict=True))
        staging = path.with_name(f".{path.name}.tmp.npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            staging,
            fingerprint=np.array(fingerprint(network)),
            keys=np.frombuffer(b"".join(known), np.uint8).reshape(-1, hashlib.sha256().digest_size),
            vectors=np.stack(list(known.values())),
        )
        staging.replace(path)
    return torch.from_numpy(np.stack([known[key] for key in keys]))


def read_vectors(path: Path, network: nn.Module) -> dict[bytes, npt.NDArray[np.float32]]:
    """Read the vectors of a file.

    Args:
        path: an .npz file that need not exist yet.
        network: the network that the vectors must come from.

    Returns:
        Vectors (d,) by the sha256 of their token ids; empty where there is no file.

    Raises:
        InputError: the file is not a file of vectors, or it holds those of another network.
    """
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            owner, keys, vectors = str(file["fingerprint"]), file["keys"], file["vectors"]
    except (ValueError, KeyError, EOFError, OSError, BadZipFile) as error:
        raise InputError(
            f"{path} is not a file of vectors ({error}); expected an .npz file of an earlier training, or a new name"
        ) from error
    if owner != fingerprint(network):
        raise InputError(
            f"{path} holds vectors of another encoder, or of other layers; expected those of this one, or a new name"
        )
    return {key.tobytes(): vector for key, vector in zip(keys, vectors, strict=True)}


def fingerprint(network: nn.Module) -> str:
    """sha256 over the network's weights."""
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
