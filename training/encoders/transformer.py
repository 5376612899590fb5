"""Transformers as text encoders: load one from Hugging Face, pool its states to one unit vector a query, and predict.

A `Backbone` is a transformer with its pooling and one linear head for every model of the pool.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ...routers.errors import InputError, require
from ..fit.factorization import Array
from .config import Precision
from .static import resolve_encoder

Pooling = Literal["mean", "last"]
#: Token ids of one query, int32 (length,).
TokenIds = npt.NDArray[np.int32]
#: Most tokens in one run of an exported graph: with more, the activations leave the processor's cache (measured on two
#: cores).
TOKENS_PER_RUN = 768
#: Queries in one batch of `predict`.
PREDICTION_BATCH = 64


class Backbone(nn.Module):
    """A transformer, its pooling, and one linear head for every model of the pool.

    Attributes:
        transformer: a model of the library `transformers`.
        pooling: "mean" takes the mean over the tokens (encoders); "last" takes the last token, which has seen all the
            others (decoders).
        head: maps a unit vector (d,) to the utilities of the m models.
        offsets: (sources - 1, m), the difference between the utilities for each other source and those for the primary
            source; None where there is one source.
    """

    def __init__(self, transformer: nn.Module, pooling: Pooling, bias: Array, offsets: Array) -> None:
        """Start at the global ranking: the head's weights are zero, and its bias is the ranking's (m,)."""
        super().__init__()
        self.transformer = transformer
        self.pooling = pooling
        config: Any = transformer.config
        self.head = nn.Linear(config.hidden_size, len(bias))
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.copy_(torch.from_numpy(bias))
        self.offsets = nn.Parameter(torch.from_numpy(offsets[1:]).float()) if len(offsets) > 1 else None

    def pooled(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """One unit vector a query, float32 (n, d), from ids and mask, int64 (n, length), padded on the right."""
        # A query without tokens attends to one padding token, because attention over no token gives NaN.
        seen = torch.cat([torch.ones_like(attention_mask[:, :1]), attention_mask[:, 1:]], dim=1)
        hidden = self.transformer(input_ids=input_ids, attention_mask=seen).last_hidden_state.float()
        if self.pooling == "last":
            last = (seen.sum(dim=1) - 1).reshape(-1, 1, 1).expand(-1, 1, hidden.shape[2])
            return nn.functional.normalize(hidden.gather(1, last).squeeze(1), dim=1)
        return nn.functional.normalize((hidden * seen.unsqueeze(-1)).sum(dim=1), dim=1)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Utilities (n, m) for the primary source."""
        return self.head(self.pooled(input_ids, attention_mask))

    def all_offsets(self) -> torch.Tensor:
        """Offsets of all sources, (sources, m); the first row is the primary source's and is zero."""
        primary = torch.zeros_like(self.head.bias).unsqueeze(0)
        return primary if self.offsets is None else torch.cat([primary, self.offsets])


def load_transformer(
    source: str, dropout: float = 0.0, lora_rank: int = 0, frozen_share: float = 0.0, layers: int | None = None
) -> tuple[nn.Module, Pooling, bytes]:
    """Load a transformer.

    Args:
        source: folder, hub id, or the packaged MiniLM.
        dropout: dropout rate of the hidden states, where the architecture has one.
        lora_rank: rank of low-rank updates of the linear layers (LoRA, Hu et al. 2021). Above 0 only these are trained.
        frozen_share: share of the layers, counted from the input, that are not trained. The embeddings below them are
            not trained either.
        layers: number of layers to keep, counted from the input; None keeps all.

    Returns:
        The transformer, its pooling, and the bytes of its tokenizer.json.

    Raises:
        InputError: the folder holds no model or no fast tokenizer, the architecture is unknown, or it has fewer layers.
        MissingExtraError: `lora_rank` is above 0 and peft is not installed.
    """
    transformers: Any = require("transformers", "transformers")
    with quiet():
        folder = resolve_encoder(source)
        try:
            config = transformers.AutoConfig.from_pretrained(str(folder))
            # Attention weights are not dropped: their masks take a fifth of a step's time on a CPU (measured).
            rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": 0.0, "attention_dropout": 0.0}
            for name, rate in rates.items():
                if hasattr(config, name):
                    setattr(config, name, rate)
            if layers is not None:
                if layers > config.num_hidden_layers:
                    raise InputError(
                        f"layers is {layers}; expected at most {config.num_hidden_layers}, the number of layers "
                        f"of {source}"
                    )
                config.num_hidden_layers = layers  # the weights of the other layers are not read
            model = transformers.AutoModel.from_pretrained(str(folder), config=config, dtype=torch.float32)
        except (ValueError, OSError, KeyError) as error:
            raise InputError(f"no transformer can be loaded from {source}: {error}") from error
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # a layer for sentence pairs, which nothing here uses or trains
    if hasattr(config, "use_cache"):
        config.use_cache = False
    pooling: Pooling = "last" if _is_causal(model) else "mean"
    if lora_rank:
        peft: Any = require("peft", "lora")
        model = peft.get_peft_model(
            model, peft.LoraConfig(r=lora_rank, lora_alpha=2 * lora_rank, target_modules="all-linear")
        )
    _freeze(model, config.num_hidden_layers, frozen_share)
    return model, pooling, _tokenizer_json(transformers, folder, source)


def _freeze(model: nn.Module, layers: int, share: float) -> None:
    """Exclude a share of the layers (rounded down), and everything below them, from training."""
    frozen = int(layers * share + 1e-9)
    stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == layers]
    if not frozen or not stacks:
        return
    # Embedding tables stand before the layers, or hold position biases that every layer reads. A gradient for such a
    # table would have to run through every layer.
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.requires_grad_(False)
    first_trained = next(stacks[0][frozen].parameters())
    for parameter in model.parameters():  # in the order of computation
        if parameter is first_trained:
            return
        parameter.requires_grad_(False)


def merged(transformer: Any) -> nn.Module:
    """Prepare a transformer for export: fold low-rank updates into its layers, use attention in plain operations."""
    merge = getattr(transformer, "merge_and_unload", None)
    transformer = transformer if merge is None else merge()
    # Fused attention applies the mask twice, and so exports to more nodes.
    transformer.set_attn_implementation("eager")
    return transformer


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep reports, warnings and progress bars of `transformers`, torch and the Hub's client off the terminal."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the Hub's client warns where its variable forbids to turn the bars on or off
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
            logging.enable_progress_bar()


def _is_causal(model: nn.Module) -> bool:
    """Whether a token sees only the tokens before it, so that only the last token has seen the whole query."""
    config: Any = model.config
    if getattr(config, "is_decoder", False):
        return True
    return any(getattr(module, "is_causal", False) is True for module in model.modules())


def _tokenizer_json(transformers: Any, folder: Path, source: str) -> bytes:
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
        text = tokenizer.backend_tokenizer.to_str()
    except (ValueError, OSError, AttributeError, KeyError) as error:
        raise InputError(f"{source} has no fast tokenizer (tokenizer.json): {error}") from error
    return str(text).encode()


def check_token_budget(transformer: nn.Module, max_tokens: int, source: str) -> None:
    """Refuse a token budget that the transformer has no positions for.

    Args:
        transformer: the transformer.
        max_tokens: the token budget of a query.
        source: name of the transformer, for the message.

    Raises:
        InputError: the budget exceeds the transformer's positions.
    """
    settings: Any = transformer.config
    limit = getattr(settings, "max_position_embeddings", max_tokens)
    if max_tokens > limit:
        raise InputError(f"max_tokens is {max_tokens}; {source} reads at most {limit}, expected no more than that")


def padded(ids: Sequence[TokenIds]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of n queries, both int64 (n, length), padded on the right."""
    length = max(1, *(len(row) for row in ids))
    values, mask = np.zeros((len(ids), length), np.int64), np.zeros((len(ids), length), np.int64)
    for number, row in enumerate(ids):
        values[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return torch.from_numpy(values), torch.from_numpy(mask)


def native_precision() -> Precision:
    """bfloat16 where the hardware computes it natively (measured twice as fast as float32), else float32."""
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bfloat16" if native() else "float32"


def chosen_precision(setting: Precision) -> Precision:
    """The precision that a setting stands for: "auto" stands for the hardware's."""
    return native_precision() if setting == "auto" else setting


def predict(
    network: Backbone,
    ids: Sequence[TokenIds],
    precision: Precision = "float32",
    on_batch: Callable[[int], object] = lambda count: None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute utilities and vectors, in batches of queries of like length, on a GPU where there is one.

    Args:
        network: the backbone; it is on the CPU afterwards.
        ids: token ids of the n queries.
        precision: number format that the transformer computes in.
        on_batch: called with the number of queries in each finished batch, to show progress.

    Returns:
        Utilities (n, m) and unit vectors (n, d), float32.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    half = torch.float16 if precision == "float16" else torch.bfloat16
    mixed = precision == "bfloat16" or (precision == "float16" and device == "cuda")
    network.eval().to(device)
    order = np.argsort([len(row) for row in ids], kind="stable")
    pooled = torch.zeros(len(ids), network.head.in_features)
    with torch.no_grad():
        for start in range(0, len(order), PREDICTION_BATCH):
            rows = order[start : start + PREDICTION_BATCH]
            batch = [tensor.to(device) for tensor in padded([ids[row] for row in rows])]
            with torch.autocast(device, half, enabled=mixed):
                pooled[torch.from_numpy(rows)] = network.pooled(*batch).cpu()
            on_batch(len(rows))
        return network.to("cpu").head(pooled), pooled
