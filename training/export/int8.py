"""int8 transformers: linear layers and token tables as 8-bit integers, activations rounded row by row.

Post-training: weights get one scale an output channel (Krishnamoorthi 2018, section 3.1), activations
one a token at run time, as in LLM.int8() (Dettmers et al. 2022, section 3). Inputs whose channels differ
in size are evened out first, at the weights' expense (SmoothQuant, Xiao et al. 2023, equation 4): on MiniLM that
halves the error. Where activations lie to one side of zero, as behind a GELU, the middle of each token's range is
taken off before rounding, which halves the step. Weights are rounded one input channel after the other, and those that
follow make up for the error on inputs like the calibration queries' (GPTQ, Frantar et al. 2022, algorithm 1). What is
left of it in a layer's mean output is taken off its bias (Nagel et al. 2019, section 4.2).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from .to_onnx import int8_linear

#: Of the weights. Processors without VNNI add two products in 16 bits, which 8-bit weights overflow (seen on AVX2).
BITS = 7
#: How much of the difference between channels moves from activations to weights.
SMOOTHING = 0.5
#: Activations whose largest value is so many times their least one's size lie to one side of zero.
_LOPSIDED = 3.0
#: Added to the diagonal of the inputs' second moments, as a share of its mean: few queries do not tell them exactly.
_DAMPING = 0.01


class Int8Linear(nn.Module):
    """A linear layer with int8 weights."""

    weight: torch.Tensor
    scale: torch.Tensor
    even: torch.Tensor
    total: torch.Tensor

    def __init__(
        self,
        linear: nn.Linear,
        size: torch.Tensor,
        lopsided: bool = False,
        mean: torch.Tensor | None = None,
        moments: torch.Tensor | None = None,
    ) -> None:
        """Round a layer whose input channels are divided by ``size`` (k,) beforehand.

        Args:
            linear: the layer.
            size: see above.
            lopsided: most inputs lie to one side of zero.
            mean: (k,) of the inputs; None: not known.
            moments: (k, k), what x x' is of the inputs on average; None: not known.
        """
        super().__init__()
        inputs = None if moments is None else moments / torch.outer(size, size)
        weight, scale = rounded(linear.weight.detach() * size, BITS, inputs)
        self.register_buffer("weight", weight.T.contiguous())
        self.register_buffer("scale", scale)
        self.register_buffer("even", 1 / size)
        self.register_buffer("total", weight.float().sum(dim=1) * scale)
        self.bias = linear.bias
        if mean is not None and linear.bias is not None:
            added = (weight.float() * scale.unsqueeze(1)) @ (mean / size) - linear.weight.detach() @ mean
            self.bias = nn.Parameter(linear.bias.detach() - added)
        self.lopsided = lopsided

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(..., k) to (..., m)."""
        values = values * self.even
        if self.lopsided:
            middle = (values.amax(-1, keepdim=True) + values.amin(-1, keepdim=True)) / 2
            result = int8_linear(values - middle, self.weight, self.scale) + middle * self.total
        else:
            result = int8_linear(values, self.weight, self.scale)
        return result if self.bias is None else result + self.bias


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


def rounded(weight: torch.Tensor, bits: int, moments: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 rows of a matrix (m, k) and their scales (m,).

    Args:
        weight: the matrix.
        bits: of an element.
        moments: (k, k), what x x' is on average of the vectors that it is multiplied with: the products are kept close,
            rather than the elements. None: not known.
    """
    largest = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(dim=1).clamp_min(1e-12) / largest
    whole = weight / scale.unsqueeze(1)
    if moments is None:
        return torch.round(whole).to(torch.int8), scale
    damping = _DAMPING * moments.diagonal().mean().clamp_min(1e-12)
    inverse = torch.linalg.inv(moments.double() + damping * torch.eye(len(moments)))
    factor = torch.linalg.cholesky(inverse, upper=True).float()
    found = torch.empty_like(whole)
    for column in range(whole.shape[1]):
        found[:, column] = torch.round(whole[:, column]).clamp(-largest, largest)
        error = (whole[:, column] - found[:, column]) / factor[column, column]
        whole[:, column:] -= torch.outer(error, factor[column, column:])
    return found.to(torch.int8), scale


def quantised(module: nn.Module, run: Callable[[nn.Module], object]) -> nn.Module:
    """A copy of a module with every linear layer and every embedding in int8.

    Args:
        module: in evaluation mode.
        run: feeds the module some typical queries, so that the size of every layer's input channels shows.
    """
    module = copy.deepcopy(module)
    _replace(module, _inputs(module, run))
    return module.eval()


@dataclass
class _Inputs:
    """What layers that share an input read: least, largest and summed value (k,) of each channel, products (k, k)."""

    least: torch.Tensor
    largest: torch.Tensor
    total: torch.Tensor
    products: torch.Tensor
    rows: int
    layers: list[nn.Linear]

    def layer(self, linear: nn.Linear) -> Int8Linear:
        """One of the layers in int8; they share the divisor of their input."""
        weights = torch.cat([layer.weight.detach().abs() for layer in self.layers]).amax(dim=0)
        largest = torch.maximum(self.largest, -self.least)
        size = largest.clamp_min(1e-5) ** SMOOTHING / weights.clamp_min(1e-5) ** (1 - SMOOTHING)
        above, below = (self.largest / size).amax(), -(self.least / size).amin()
        mean, moments = self.total / self.rows, self.products / self.rows
        if linear.bias is not None:  # it takes care of the mean
            moments = moments - torch.outer(mean, mean)
        return Int8Linear(linear, size, bool(above > _LOPSIDED * below), mean, moments)


def _inputs(module: nn.Module, run: Callable[[nn.Module], object]) -> dict[nn.Module, _Inputs]:
    """What every linear layer reads."""
    found: dict[nn.Module, _Inputs] = {}
    read: list[torch.Tensor] = []  # what the layer before read; kept, so that its identity is not reused
    before: list[_Inputs] = []

    def record(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(layer, nn.Linear)
        seen = inputs[0].detach().reshape(-1, inputs[0].shape[-1])
        least, largest = seen.amin(dim=0), seen.amax(dim=0)
        if layer in found:
            one = found[layer]
            if layer is one.layers[0]:
                one.least, one.largest = torch.minimum(one.least, least), torch.maximum(one.largest, largest)
                one.total, one.rows = one.total + seen.sum(dim=0), one.rows + len(seen)
                one.products += seen.T @ seen
        elif read and read[0] is inputs[0]:
            found[layer] = before[0]
            before[0].layers.append(layer)
        else:
            found[layer] = _Inputs(least, largest, seen.sum(dim=0), seen.T @ seen, len(seen), [layer])
        read[:], before[:] = [inputs[0]], [found[layer]]

    hooks = [layer.register_forward_pre_hook(record) for layer in module.modules() if isinstance(layer, nn.Linear)]
    try:
        with torch.no_grad():
            run(module)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _replace(module: nn.Module, inputs: dict[nn.Module, _Inputs]) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Linear) and child in inputs:
            setattr(module, name, inputs[child].layer(child))
        elif isinstance(child, nn.Embedding):
            setattr(module, name, Int8Embedding(child))
        else:
            _replace(child, inputs)
