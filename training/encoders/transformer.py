"""Transformer backbones: any Hugging Face encoder or decoder, pooled to a unit vector a query, with a head a model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ...routers.errors import InputError, require
from .static import resolve_encoder

Pooling = Literal["mean", "last"]


class Backbone(nn.Module):
    """A transformer, its pooling, and one linear head for every model of the pool.

    Attributes:
        transformer: of the `transformers` library.
        pooling: "mean" over the tokens (encoders), or the "last" token, which has seen the others (decoders).
        head: unit vector (d) to utilities (m).
        offsets: (sources - 1, m), how the other sources rank the models differently from the first.
    """

    def __init__(self, transformer: nn.Module, pooling: Pooling, bias: torch.Tensor, offsets: torch.Tensor) -> None:
        """Start at the global ranking: heads are zero but for the bias (m,)."""
        super().__init__()
        self.transformer = transformer
        self.pooling = pooling
        config: Any = transformer.config
        self.head = nn.Linear(config.hidden_size, len(bias))
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.copy_(bias)
        self.offsets = nn.Parameter(offsets[1:].float().clone()) if len(offsets) > 1 else None

    def pooled(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """One unit vector a query, float32 (n, d), from ids and mask, int64 (n, length), padded on the right."""
        # A query without tokens attends to its padding: attention over nothing is not a number.
        seen = torch.cat([torch.ones_like(attention_mask[:, :1]), attention_mask[:, 1:]], dim=1)
        hidden = self.transformer(input_ids=input_ids, attention_mask=seen).last_hidden_state.float()
        if self.pooling == "last":
            last = (seen.sum(dim=1) - 1).reshape(-1, 1, 1).expand(-1, 1, hidden.shape[2])
            return nn.functional.normalize(hidden.gather(1, last).squeeze(1), dim=1)
        return nn.functional.normalize((hidden * seen.unsqueeze(-1)).sum(dim=1), dim=1)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Utilities (n, m) for the first source."""
        return self.head(self.pooled(input_ids, attention_mask))

    def all_offsets(self) -> torch.Tensor:
        """(sources, m), the first row zero."""
        first = torch.zeros_like(self.head.bias).unsqueeze(0)
        return first if self.offsets is None else torch.cat([first, self.offsets])


def load_transformer(
    source: str, dropout: float, lora_rank: int, frozen_share: float = 0.0, layers: int | None = None
) -> tuple[nn.Module, Pooling, bytes]:
    """A transformer with its pooling and its tokenizer.json.

    Args:
        source: folder, hub id, or the packaged MiniLM.
        dropout: of hidden states, where the architecture has it.
        lora_rank: above 0, train low-rank updates of the linear layers only (Hu et al. 2021).
        frozen_share: share of the layers, from the input on, that stay as they are with the embeddings below them.
        layers: keep so many layers from the input on; None: all.

    Raises:
        InputError: the folder holds no model or no fast tokenizer, the architecture is unknown, or it has fewer layers.
        MissingExtraError: peft is not installed and LoRA is asked for.
    """
    transformers: Any = require("transformers", "train")
    folder = resolve_encoder(source)
    with quiet():
        try:
            config = transformers.AutoConfig.from_pretrained(str(folder))
            # States alone: masks for attention take a fifth of a step's time on a CPU (measured).
            rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": 0.0, "attention_dropout": 0.0}
            for name, rate in rates.items():
                if hasattr(config, name):
                    setattr(config, name, rate)
            if layers is not None:
                if layers > config.num_hidden_layers:
                    raise InputError(f"layers is {layers}; {source} has {config.num_hidden_layers}")
                config.num_hidden_layers = layers  # the weights of the others are not read
            model = transformers.AutoModel.from_pretrained(str(folder), config=config, dtype=torch.float32)
        except (ValueError, OSError, KeyError) as error:
            raise InputError(f"no transformer can be loaded from {source}: {error}") from error
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # a layer for sentence pairs; nothing would train it
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
    """Keep a share of the layers, rounded down, and all that stands before them as it is."""
    frozen = int(layers * share + 1e-9)
    stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == layers]
    if not frozen or not stacks:
        return
    # Tables come before the layers, or are position biases that all of them read, wherever they are declared: a
    # gradient for one would run through every layer.
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.requires_grad_(False)
    first_trained = next(stacks[0][frozen].parameters())
    for parameter in model.parameters():  # in the order of computation
        if parameter is first_trained:
            return
        parameter.requires_grad_(False)


def merged(transformer: Any) -> nn.Module:
    """The transformer ready for export: low-rank updates folded into its layers, attention in plain operations."""
    merge = getattr(transformer, "merge_and_unload", None)
    transformer = transformer if merge is None else merge()
    # The fused kind of attention masks twice, and so exports to more nodes.
    transformer.set_attn_implementation("eager")
    return transformer


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the loading report and the progress bars of `transformers` off the terminal."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()


def _is_causal(model: nn.Module) -> bool:
    """Whether a token sees only those before it: then only the last has seen the query."""
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
