"""The parts of a dense block: projections, norms, rotary positions and MLPs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_ROWS = 128  # rows that fit a processor's cache


@dataclass(frozen=True)
class Affine:
    """``x @ weight + bias``.

    Attributes:
        weight: ``[n_in, n_out]`` with any strides; a view of the model's weight where that is a plain matrix.
        bias: ``[n_out]`` or None.
    """

    weight: Tensor
    bias: Tensor | None

    def scaled(self, gain: float) -> "Affine":
        """The projection with its output times a factor; itself where that is 1."""
        if gain == 1.0:
            return self
        return Affine(self.weight * gain, None if self.bias is None else self.bias * gain)

    def __call__(self, x: Tensor, *, out: Tensor | None = None) -> Tensor:
        """``[row, n_in]`` to ``[row, n_out]``, written into ``out`` if there is one."""
        if self.bias is None:
            return torch.matmul(x, self.weight, out=out)
        return torch.addmm(self.bias, x, self.weight, out=out)


@dataclass(frozen=True)
class Norm:
    """LayerNorm, RMSNorm or no norm, with torch's kernels.

    Attributes:
        kind: ``LN``, ``RMS`` or ``none``.
        eps: added to the variance.
        weight: ``[d_model]`` or None; ``[head, d_head]`` for a norm with weights of its own for every head.
        bias: like ``weight``.
    """

    kind: str
    eps: float
    weight: Tensor | None = None
    bias: Tensor | None = None

    @property
    def is_identity(self) -> bool:
        """Whether the norm changes nothing."""
        return self.kind == "none"

    def scaled(self, gain: float) -> "Norm":
        """The norm with its output times a factor; itself where that is 1."""
        if gain == 1.0:
            return self
        weight = torch.tensor(gain) if self.weight is None else self.weight * gain
        return Norm(self.kind, self.eps, weight, None if self.bias is None else self.bias * gain)

    def __call__(self, x: Tensor) -> Tensor:
        """The normalised vectors."""
        if self.kind == "none":
            return x
        if self.weight is not None and self.weight.ndim != 1:
            return Norm(self.kind, self.eps)(x) * self.weight + (0.0 if self.bias is None else self.bias)
        if self.kind == "LN":
            return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)

    def pulled_back(
        self, x: Float[Tensor, "row d_model"], direction: Float[Tensor, "row d_model"]
    ) -> tuple[Float[Tensor, "row d_model"], Float[Tensor, " row"]]:
        """Directions and constants such that ``norm(x) . direction = x . directions + constants``, the scale frozen."""
        back = direction if self.weight is None else direction * self.weight
        constant = torch.zeros(len(direction)).to(direction) if self.bias is None else direction @ self.bias
        if self.kind == "none":
            return back, constant
        if self.kind == "LN":
            back = back - back.mean(-1, keepdim=True)
        centred = x - x.mean(-1, keepdim=True) if self.kind == "LN" else x
        return back / (centred.square().mean(-1, keepdim=True) + self.eps).sqrt(), constant


NO_NORM = Norm("none", 0.0)


@dataclass(frozen=True)
class HeadNorm:
    """The norm of queries or keys before they are rotated.

    Attributes:
        norm: the norm; a module for a kind that `Norm` does not cover.
        whole: whether it normalises all heads as one vector.
    """

    norm: Callable[[Tensor], Tensor]
    whole: bool

    def __call__(self, x: Float[Tensor, "row pos head d_head"]) -> Float[Tensor, "row pos head d_head"]:
        """The normalised queries or keys."""
        return self.norm(x.flatten(-2)).view_as(x) if self.whole else self.norm(x)


@dataclass(frozen=True)
class Rotary:
    """Rotary position embedding.

    Attributes:
        table: number of positions -> cosines and sines, ``[pos, rotary_dim]`` each.
        adjacent: whether pairs are neighbours (GPT-J) rather than halves (NeoX, Llama).
    """

    table: Callable[[int], tuple[Tensor, Tensor]]
    adjacent: bool

    def __call__(self, x: Float[Tensor, "row pos head d_head"], start: int) -> Float[Tensor, "row pos head d_head"]:
        """Queries or keys of positions from ``start`` on, rotated."""
        stop = start + x.shape[1]
        cos, sin = (part[start:stop, None].to(x.dtype) for part in self.table(stop))
        n = cos.shape[-1]
        rotated, rest = x[..., :n], x[..., n:]
        if self.adjacent:
            flipped = torch.stack([-rotated[..., 1::2], rotated[..., ::2]], -1).flatten(-2)
        else:
            flipped = torch.cat([-rotated[..., n // 2 :], rotated[..., : n // 2]], -1)
        rotated = rotated * cos + flipped * sin
        return torch.cat([rotated, rest], -1) if rest.shape[-1] else rotated


@runtime_checkable
class Mlp(Protocol):
    """An MLP, row by row, without the norms around it."""

    def scaled(self, gain: float) -> "Mlp":
        """The MLP with its output times a factor."""
        ...

    @property
    def width(self) -> int:
        """The number of neurons; 0 for an MLP whose neurons are not at hand."""
        ...

    def __call__(self, normalized: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
        """The output, from the normalised input."""
        ...


@dataclass(frozen=True)
class NeuronMlp:
    """A plain or gated MLP.

    Attributes:
        first: to ``mlp_pre``; in a gated MLP, the gate's weights.
        linear: in a gated MLP, the weights of the factor that the gate multiplies.
        bias: in a gated MLP, added to the product.
        out: from ``mlp_post`` to the MLP's output.
        activation: the activation function.
    """

    first: Affine
    linear: Affine | None
    bias: Tensor | None
    out: Affine
    activation: Callable[[Tensor], Tensor]

    @property
    def width(self) -> int:
        """The number of neurons."""
        return self.first.weight.shape[1]

    def scaled(self, gain: float) -> "NeuronMlp":
        """The MLP with its output times a factor."""
        return replace(self, out=self.out.scaled(gain))

    def __call__(self, normalized: Tensor) -> Tensor:
        """The output, from the normalised input."""
        return self.out(self._post(self.first(normalized), normalized))

    def post(self, pre: Tensor, normalized: Tensor, *, out: Tensor | None = None) -> Tensor:
        """``mlp_post`` from ``mlp_pre``, ``[row, d_mlp]``; written into ``out``, which may be ``pre``, by few rows."""
        if out is None:
            return self._post(pre, normalized)
        for first in range(0, len(pre), _ROWS):
            rows = slice(first, first + _ROWS)
            out[rows] = self._post(pre[rows], normalized[rows])
        return out

    def _post(self, pre: Tensor, normalized: Tensor) -> Tensor:
        post = self.activation(pre)
        if self.linear is not None:
            post = post * self.linear(normalized)
        return post if self.bias is None else post + self.bias


@dataclass(frozen=True)
class ModuleMlp:
    """An MLP of another kind, such as a mixture of experts: the model's own module, whose rows do not interact.

    Attributes:
        module: takes ``[1, row, d_model]``; may return a tuple whose first entry is the output.
        gain: multiplies the output.
    """

    module: Any
    gain: float = 1.0

    @property
    def width(self) -> int:
        """0: the module's neurons are not at hand."""
        return 0

    def scaled(self, gain: float) -> "ModuleMlp":
        """The MLP with its output times a factor."""
        return replace(self, gain=self.gain * gain)

    def __call__(self, normalized: Tensor) -> Tensor:
        """The output, from the normalised input."""
        if not len(normalized):
            return normalized
        output = self.module(normalized[None])
        output = output[0] if isinstance(output, tuple) else output
        output = output.reshape(normalized.shape)
        return output if self.gain == 1.0 else output * self.gain
