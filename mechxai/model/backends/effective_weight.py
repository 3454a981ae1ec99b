"""The weight that a linear layer applies: its stored tensor, or measured where adapters or quantisation change it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mechxai.core.errors import ModelSupportError

_PASS_THROUGH = frozenset(
    {"LinearBridge", "UnembeddingBridge", "Conv1DBridge"}
)  # TransformerLens' hooks around a layer
_PROBE_BYTES = 2**28  # of the output of one probe
_PROBE_SCALE = 256.0  # lifts the columns of a half-precision weight over its bias before they are added and rounded
_N_TESTS = 4  # random inputs on which the measured weight must give the layer's output
_ROUNDINGS = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 8e-3, torch.bfloat16: 6e-2}

Weight = Float[Tensor, "d_in d_out"]
Bias = Float[Tensor, " d_out"]


def effective_affine(module: Any, d_in: int) -> tuple[Weight, Bias | None]:
    """The weight and bias with which a layer acts: ``module(x) == x @ weight + bias``.

    A plain ``nn.Linear`` or ``Conv1D`` gives views of its parameters. Every other layer (LoRA, DoRA, quantised weights,
    parametrisations, a replaced ``forward``) is run on the unit vectors, and the result is tested on random inputs.

    Args:
        module: the layer, or TransformerLens' component around it (whose hooks are left out).
        d_in: width of its input.

    Returns:
        ``[d_in, d_out]`` and ``[d_out]``, or None where the layer adds nothing. Measured tensors are copies.

    Raises:
        ModelSupportError: the layer is not linear, or does not take vectors of this width.
    """
    layer = unwrapped(module)
    stored = stored_affine(layer)
    if stored is not None:
        _check_width(layer, len(stored[0]), d_in)
        return stored
    return _measured(layer, d_in)


def unwrapped(module: Any) -> Any:
    """The layer inside TransformerLens' components that only add hooks."""
    while type(module).__name__ in _PASS_THROUGH and "forward" not in module.__dict__:
        module = module.original_component
    return module


def stored_affine(layer: Any) -> tuple[Weight, Bias | None] | None:
    """Views of the parameters of a plain linear layer; None for every other layer."""
    if not is_plain_linear(layer):
        return None
    weight = layer.weight.detach()
    bias = None if layer.bias is None else layer.bias.detach()
    return (weight.T if type(layer) is nn.Linear else weight), bias


def is_plain_linear(layer: Any) -> bool:
    """Whether a layer is exactly a product with its ``weight`` plus its ``bias``: no subclass, hook or new forward."""
    kind = type(layer)
    if kind is not nn.Linear and f"{kind.__module__}.{kind.__name__}" != "transformers.pytorch_utils.Conv1D":
        return False
    if "forward" in layer.__dict__ or layer._forward_hooks or layer._forward_pre_hooks:
        return False
    tensors = [tensor for tensor in (layer.weight, layer.bias) if tensor is not None]
    return all(type(tensor) in (Tensor, nn.Parameter) and tensor.is_floating_point() for tensor in tensors)


@torch.no_grad()
def _measured(layer: Any, d_in: int) -> tuple[Weight, Bias | None]:
    dtype, device = _input_kind(layer)
    with _evaluation(layer):
        bias = _output(layer, torch.zeros(1, d_in, dtype=dtype, device=device), d_in)[0]
        weight = bias.new_empty(d_in, len(bias))
        biased = bool(bias.any())
        scale = _PROBE_SCALE if biased and dtype in (torch.float16, torch.bfloat16) else 1.0
        n_rows = max(1, _PROBE_BYTES // (len(bias) * bias.element_size()))
        for start in range(0, d_in, n_rows):
            units = torch.zeros(min(n_rows, d_in - start), d_in, dtype=dtype, device=device)
            units[torch.arange(len(units)), torch.arange(start, start + len(units))] = scale
            weight[start : start + len(units)] = (_output(layer, units, d_in) - bias) / scale
        _check_linear(layer, weight, bias)
    return weight, bias if biased else None


def _check_linear(layer: Any, weight: Weight, bias: Bias) -> None:
    """Compares the layer's output on random inputs, small and large, with the measured weight's."""
    dtype = _input_kind(layer)[0]
    for size in (1.0, 30.0):
        inputs = size * _random_inputs(weight)
        expected = inputs.to(weight.dtype).double() @ weight.double() + bias.double()
        actual = _output(layer, inputs.to(dtype), len(weight)).double()
        largest = float(expected.abs().max())
        difference = float((actual - expected).abs().max())
        if not difference <= _ROUNDINGS.get(dtype, 1e-4) * max(largest, 1e-30):
            raise ModelSupportError(
                f"The layer {type(layer).__name__} has no weight matrix: it is not linear in its input "
                f"(its outputs differ by up to {difference:.3g} of {largest:.3g} from a matrix product)",
                fix="Merge the adapters, or load the model without quantisation of activations",
            )


def _random_inputs(weight: Weight) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(_N_TESTS, len(weight), generator=generator).to(weight)


def _output(layer: Any, inputs: Tensor, d_in: int) -> Tensor:
    """The layer's output for rows of inputs, ``[row, d_out]``."""
    try:
        output = layer(inputs[None])
    except (RuntimeError, ValueError, IndexError) as error:
        problem = (
            f"The layer {type(layer).__name__} does not take vectors of width {d_in}: {str(error).splitlines()[0]}"
        )
        raise ModelSupportError(problem) from error
    if not isinstance(output, Tensor) or output.ndim != 3 or output.shape[:2] != (1, len(inputs)):
        raise ModelSupportError(f"The layer {type(layer).__name__} is no linear layer: it maps a vector to no vector")
    return output[0].detach()


def _check_width(layer: Any, width: int, d_in: int) -> None:
    if width != d_in:
        raise ModelSupportError(f"The layer {type(layer).__name__} takes vectors of width {width}, not {d_in}")


def _input_kind(layer: Any) -> tuple[torch.dtype, torch.device]:
    """The dtype and device of a layer's input: those of its first floating-point tensor, float32 without one."""
    tensors = [*layer.parameters(), *layer.buffers()]
    floating = [tensor for tensor in tensors if tensor.dtype in _ROUNDINGS]
    dtype = floating[0].dtype if floating else torch.float32
    return dtype, tensors[0].device if tensors else torch.device("cpu")


@contextmanager
def _evaluation(layer: Any) -> Iterator[None]:
    """Turns off dropout in a layer, and restores it afterwards."""
    training = [module for module in layer.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


@dataclass
class AffineMemory:
    """The last measured weight of a layer, measured again once the layer's outputs change.

    A plain layer's parameters are read anew each time.
    """

    _layer: Any = None
    _affine: tuple[Weight, Bias | None] | None = None
    _inputs: Tensor | None = field(default=None, repr=False)
    _outputs: Tensor | None = field(default=None, repr=False)

    @torch.no_grad()
    def __call__(self, module: Any, d_in: int) -> tuple[Weight, Bias | None]:
        """The layer's weight and bias; see `effective_affine`.

        Cost: for a layer that is not plain, its output for four vectors; where that changed, for all unit vectors.
        """
        layer = unwrapped(module)
        if stored_affine(layer) is not None:
            return effective_affine(layer, d_in)
        if self._affine is None or self._layer is not layer or not self._same_outputs(layer, d_in):
            self._affine, self._layer = effective_affine(layer, d_in), layer
            self._inputs = _random_inputs(self._affine[0]).to(_input_kind(layer)[0])
            with _evaluation(layer):
                self._outputs = _output(layer, self._inputs, d_in)
        return self._affine

    def _same_outputs(self, layer: Any, d_in: int) -> bool:
        inputs, outputs = self._inputs, self._outputs
        if inputs is None or outputs is None or inputs.device != _input_kind(layer)[1]:
            return False
        if inputs.dtype != _input_kind(layer)[0]:
            return False
        with _evaluation(layer):
            return torch.equal(_output(layer, inputs, d_in), outputs)
