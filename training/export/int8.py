"""int8 transformers: linear layers and token tables as 8-bit integers, activations rounded row by row.

A trained network is quantised without further training:

- Each output channel of the weights has one scale (Krishnamoorthi 2018, section 3.1). Each token's activations have one
  scale, computed at run time (LLM.int8(), Dettmers et al. 2022, section 3).
- Input channels of different size are first scaled to a like size, and the weights are scaled the other way
  (SmoothQuant, Xiao et al. 2023, equation 4). On MiniLM this halves the error.
- Where activations lie to one side of zero, as behind a GELU, the middle of each token's range is subtracted before
  rounding, which halves the step.
- Weights are rounded one input channel after the other. The channels that follow compensate the error on inputs like
  the calibration queries' (GPTQ, Frantar et al. 2022, algorithm 1).
- The error that is left in a layer's mean output is subtracted from its bias (Nagel et al. 2019, section 4.2).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ..encoders.config import Quantisation
from .int8_steps import BITS
from .to_onnx import int8_linear

#: Queries that show the quantiser how large activations are.
CALIBRATION_QUERIES = 256
#: Queries, held-out ones first, whose decisions the int8 graph must make as the float network does.
GATE_QUERIES = 1000
#: Tolerance of a golden quality of a float32 graph.
GOLDEN_TOLERANCE = 1e-4
#: Tolerance of a golden quality of an int8 graph: an activation may round the other way on another processor.
INT8_GOLDEN_TOLERANCE = 0.02
#: Exponent that says how much of the difference between channels moves from activations to weights: 0 none, 1 all.
SMOOTHING = 0.5
#: Activations lie to one side of zero where their largest value is this many times as large as their least value.
_LOPSIDED = 3.0
#: Added to the diagonal of the inputs' second moments, as a share of its mean: a few queries estimate them roughly.
_DAMPING = 0.01


def golden_tolerance(quantise: Quantisation) -> float:
    """Largest |difference| of a golden quality that still passes when the bundle is loaded."""
    return INT8_GOLDEN_TOLERANCE if quantise == "int8" else GOLDEN_TOLERANCE


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
        """Round a layer.

        Args:
            linear: the layer.
            size: (k,), divisors of the input channels.
            lopsided: whether most inputs lie to one side of zero.
            mean: (k,), mean of the inputs; None where it is not known.
            moments: (k, k), second moments of the inputs: the mean of x x'; None where they are not known.
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
        """Values (..., k) to the layer's outputs (..., m)."""
        values = values * self.even
        if self.lopsided:
            middle = (values.amax(-1, keepdim=True) + values.amin(-1, keepdim=True)) / 2
            result = int8_linear(values - middle, self.weight, self.scale) + middle * self.total
        else:
            result = int8_linear(values, self.weight, self.scale)
        return result if self.bias is None else result + self.bias


class Int8Embedding(nn.Module):
    """An embedding table of int8 rows, with one scale for each row."""

    table: torch.Tensor
    scale: torch.Tensor

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        table, scale = rounded(embedding.weight.detach(), 8)
        self.register_buffer("table", table)
        self.register_buffer("scale", scale.unsqueeze(1))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids (n, length) to vectors (n, length, d)."""
        return self.table[ids].float() * self.scale[ids]


def rounded(weight: torch.Tensor, bits: int, moments: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Round a matrix row by row.

    Args:
        weight: the matrix (m, k).
        bits: bits of a rounded element, with its sign.
        moments: (k, k), second moments of the vectors that the matrix is multiplied with: the mean of x x'. The
            products with such vectors are then kept close, rather than the elements. None where they are not known.

    Returns:
        The rounded rows, int8 (m, k), and their scales (m,). A row of the matrix is about its rounded row times its
        scale.
    """
    largest = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(dim=1).clamp_min(1e-12) / largest
    whole = weight / scale.unsqueeze(1)
    if moments is None:
        return torch.round(whole).to(torch.int8), scale
    damping = _DAMPING * moments.diagonal().mean().clamp_min(1e-12)
    inverse = torch.linalg.inv(moments.double() + damping * torch.eye(len(moments)))
    factor = torch.linalg.cholesky(inverse, upper=True).float()
    nearest = torch.empty_like(whole)
    for column in range(whole.shape[1]):
        nearest[:, column] = torch.round(whole[:, column]).clamp(-largest, largest)
        error = (whole[:, column] - nearest[:, column]) / factor[column, column]
        whole[:, column:] -= torch.outer(error, factor[column, column:])
    return nearest.to(torch.int8), scale


def quantised(module: nn.Module, run: Callable[[nn.Module], object]) -> nn.Module:
    """Copy a module with every linear layer and every embedding in int8.

    Args:
        module: a module in evaluation mode; it stays as it is.
        run: feeds a module some typical queries, so that the size of every layer's input channels is measured.

    Returns:
        The copy, in evaluation mode.
    """
    module = copy.deepcopy(module)
    _replace(module, _measured_inputs(module, run))
    return module.eval()


@dataclass
class _Inputs:
    """Statistics of an input that one or more layers read.

    Attributes:
        least: (k,), least value of each channel.
        largest: (k,), largest value of each channel.
        total: (k,), sum of each channel.
        products: (k, k), sum of the products of channels.
        rows: number of rows seen.
        layers: the layers that read this input.
    """

    least: torch.Tensor
    largest: torch.Tensor
    total: torch.Tensor
    products: torch.Tensor
    rows: int
    layers: list[nn.Linear]

    def layer(self, linear: nn.Linear) -> Int8Linear:
        """One of the layers in int8. All of the layers divide their input in the same way."""
        weights = torch.cat([layer.weight.detach().abs() for layer in self.layers]).amax(dim=0)
        largest = torch.maximum(self.largest, -self.least)
        size = largest.clamp_min(1e-5) ** SMOOTHING / weights.clamp_min(1e-5) ** (1 - SMOOTHING)
        above, below = (self.largest / size).amax(), -(self.least / size).amin()
        mean, moments = self.total / self.rows, self.products / self.rows
        if linear.bias is not None:  # the bias corrects the mean, so that the rounding need not
            moments = moments - torch.outer(mean, mean)
        return Int8Linear(linear, size, bool(above > _LOPSIDED * below), mean, moments)


def _measured_inputs(module: nn.Module, run: Callable[[nn.Module], object]) -> dict[nn.Module, _Inputs]:
    """Measure the input of every linear layer while `run` feeds the module."""
    measured: dict[nn.Module, _Inputs] = {}
    last_tensor: list[
        torch.Tensor
    ] = []  # the last layer's input; kept alive, so that no other tensor gets its identity
    last_inputs: list[_Inputs] = []

    def record(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(layer, nn.Linear)
        values = inputs[0].detach().reshape(-1, inputs[0].shape[-1])
        least, largest = values.amin(dim=0), values.amax(dim=0)
        if layer in measured:
            known = measured[layer]
            if layer is known.layers[0]:
                known.least, known.largest = torch.minimum(known.least, least), torch.maximum(known.largest, largest)
                known.total, known.rows = known.total + values.sum(dim=0), known.rows + len(values)
                known.products += values.T @ values
        elif last_tensor and last_tensor[0] is inputs[0]:
            measured[layer] = last_inputs[0]
            last_inputs[0].layers.append(layer)
        else:
            measured[layer] = _Inputs(
                least=least,
                largest=largest,
                total=values.sum(dim=0),
                products=values.T @ values,
                rows=len(values),
                layers=[layer],
            )
        last_tensor[:], last_inputs[:] = [inputs[0]], [measured[layer]]

    hooks = [layer.register_forward_pre_hook(record) for layer in module.modules() if isinstance(layer, nn.Linear)]
    try:
        with torch.no_grad():
            run(module)
    finally:
        for hook in hooks:
            hook.remove()
    return measured


def _replace(module: nn.Module, inputs: dict[nn.Module, _Inputs]) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Linear) and child in inputs:
            setattr(module, name, inputs[child].layer(child))
        elif isinstance(child, nn.Embedding):
            setattr(module, name, Int8Embedding(child))
        else:
            _replace(child, inputs)
