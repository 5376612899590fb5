"""int8 transformers: linear layers and token tables as 8-bit integers, activations rounded row by row.

Post-training: weights get one scale an output channel (Krishnamoorthi 2018, section 3.1), activations
one a token at run time, as in LLM.int8() (Dettmers et al. 2022, section 3). Inputs whose channels differ
in size are evened out first, at the weights' expense (SmoothQuant, Xiao et al. 2023, equation 4): on MiniLM that
halves the error.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from .export import int8_linear

#: Of the weights. Processors without VNNI add two products in 16 bits, which 8-bit weights overflow (seen on AVX2).
BITS = 7
#: How much of the difference between channels moves from activations to weights.
SMOOTHING = 0.5


class Int8Linear(nn.Module):
    """A linear layer with int8 weights."""

    weight: torch.Tensor
    scale: torch.Tensor
    even: torch.Tensor

    def __init__(self, linear: nn.Linear, size: torch.Tensor) -> None:
        """Round a layer whose input channels are divided by ``size`` (k,) beforehand."""
        super().__init__()
        weight, scale = rounded(linear.weight.detach() * size, BITS)
        self.register_buffer("weight", weight.T.contiguous())
        self.register_buffer("scale", scale)
        self.register_buffer("even", 1 / size)
        self.bias = linear.bias

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(..., k) to (..., m)."""
        total = int8_linear(values * self.even, self.weight, self.scale)
        return total if self.bias is None else total + self.bias


class Int8Embedding(nn.Module):
    """A table of int8 rows, one scale a row."""

    table: torch.Tensor
    scale: torch.Tensor

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        table, scale = rounded(embedding.weight.detach(), 8)
        self.register_buffer("table", table)
        self.register_buffer("scale", scale.unsqueeze(1))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(n, length) to (n, length, d)."""
        return self.table[ids].float() * self.scale[ids]


def rounded(weight: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 rows of a matrix (m, k) and their scales (m,)."""
    largest = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(dim=1).clamp_min(1e-12) / largest
    return torch.round(weight / scale.unsqueeze(1)).to(torch.int8), scale


def quantised(module: nn.Module, run: Callable[[nn.Module], object]) -> nn.Module:
    """A copy of a module with every linear layer and every embedding in int8.

    Args:
        module: in evaluation mode.
        run: feeds the module some typical queries, so that the size of every layer's input channels shows.
    """
    module = copy.deepcopy(module)
    _replace(module, _sizes(module, run))
    return module.eval()


def _sizes(module: nn.Module, run: Callable[[nn.Module], object]) -> dict[nn.Module, torch.Tensor]:
    """Divisor (k,) of each linear layer's input channels; layers that read one tensor share one divisor."""
    largest: dict[nn.Module, torch.Tensor] = {}
    groups: list[list[nn.Module]] = []
    read: list[torch.Tensor] = []  # what the layer before read; kept, so that its identity is not reused

    def record(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen = inputs[0].detach().abs().reshape(-1, inputs[0].shape[-1]).amax(dim=0)
        if layer not in largest:
            if read and read[0] is inputs[0]:
                groups[-1].append(layer)
            else:
                groups.append([layer])
            read[:] = [inputs[0]]
        largest[layer] = torch.maximum(largest[layer], seen) if layer in largest else seen

    hooks = [layer.register_forward_pre_hook(record) for layer in module.modules() if isinstance(layer, nn.Linear)]
    try:
        with torch.no_grad():
            run(module)
    finally:
        for hook in hooks:
            hook.remove()
    sizes: dict[nn.Module, torch.Tensor] = {}
    for group in groups:
        weights = torch.cat([layer.get_parameter("weight").detach().abs() for layer in group]).amax(dim=0)
        size = largest[group[0]].clamp_min(1e-5) ** SMOOTHING / weights.clamp_min(1e-5) ** (1 - SMOOTHING)
        sizes.update(dict.fromkeys(group, size))
    return sizes


def _replace(module: nn.Module, sizes: dict[nn.Module, torch.Tensor]) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Linear) and child in sizes:
            setattr(module, name, Int8Linear(child, sizes[child]))
        elif isinstance(child, nn.Embedding):
            setattr(module, name, Int8Embedding(child))
        else:
            _replace(child, sizes)
