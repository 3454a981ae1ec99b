"""Keys and values of one run, put before those of rows that run only their last positions.

Under causal attention an edit at position p leaves every earlier position unchanged, so a row needs its earlier keys
and values but not to compute them. Both have the layout of the backend that computed them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class KeysValues:
    """Keys and values of prompts, layer by layer, as the model's attention receives them.

    Attributes:
        keys: per layer, ``[prompt, pos, head, d_head]`` or ``[prompt, head, pos, d_head]``, by backend.
        values: likewise.
    """

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def add(self, keys: Tensor, values: Tensor) -> None:
        """Adds the next layer's keys and values."""
        self.keys.append(keys.detach())
        self.values.append(values.detach())

    def up_to(self, n_pos: int) -> "KeysValues":
        """The keys and values of the first positions, in the layout with heads before positions."""
        return KeysValues([keys[:, :, :n_pos] for keys in self.keys], [values[:, :, :n_pos] for values in self.values])

    def rows(self, chosen: slice) -> "KeysValues":
        """The keys and values of some prompts."""
        return KeysValues([keys[chosen] for keys in self.keys], [values[chosen] for values in self.values])


@dataclass(frozen=True)
class JoiningRows:
    """Rows that run positions ``start:stop`` of their prompts and join the pass at their own layers.

    Attributes:
        kept: keys and values of the unedited run.
        residuals: input of every block in that run and, last, the output of the last block, ``[prompt, pos, d_model]``.
        prompts: the prompt of each row, in the order in which they join.
        joins: ``(layer, number of rows)``, ascending; layer ``n_layers`` stands for the last block's output.
        tokens: of the prompts, ``[prompt, pos]``.
        start: first position that the rows run.
        stop: position before which they end.
        given: the first rows' residual stream before block 0, ``[row, pos, d_model]``, unless the record's.
    """

    kept: KeysValues
    residuals: Sequence[Tensor]
    prompts: Int[Tensor, " row"]
    joins: Sequence[tuple[int, int]]
    tokens: Int[Tensor, "prompt pos"]
    start: int
    stop: int
    given: Tensor | None = None

    @property
    def first_layer(self) -> int:
        """The layer at which the first rows join."""
        return self.joins[0][0]

    @property
    def first(self) -> Tensor:
        """The first rows' residual stream."""
        return self.joining(0)

    @property
    def placeholder(self) -> Tensor:
        """One row of tokens, for a pass that must begin before the first rows join."""
        return self.tokens[:1, self.start : self.stop]

    def joining(self, number: int) -> Tensor:
        """The unedited residual stream of the rows that join at the same layer, ``[row, pos, d_model]``."""
        layer, n_rows = self.joins[number]
        before = sum(count for _, count in self.joins[:number])
        prompts = self.prompts[before : before + n_rows]
        residual = self.residuals[layer][prompts, self.start : self.stop]
        if number or self.given is None:
            return residual
        return torch.cat([self.given[:, self.start : self.stop], residual[len(self.given) :]])

    def extended(self, layer: int, keys: Tensor, values: Tensor, *, axis: int) -> tuple[Tensor, Tensor]:
        """The keys and values of the rows that have joined so far, behind their prefix along ``axis``."""
        if self.start == 0:
            return keys, values
        prompts = self.prompts[: len(keys)]
        recorded = (self.kept.keys[layer], self.kept.values[layer])
        prefixes = [tensor.narrow(axis, 0, self.start) for tensor in recorded]
        if len(recorded[0]) > 1:
            prefixes = [prefix[prompts] for prefix in prefixes]
        return _behind(prefixes[0], keys, axis), _behind(prefixes[1], values, axis)


def _behind(prefix: Tensor, rest: Tensor, axis: int) -> Tensor:
    """``rest`` behind ``prefix`` (of the same rows, or one for all) along ``axis``, heads before positions in memory.

    Attention's matrix products read this order without a copy.
    """
    sizes = list(rest.shape)
    sizes[axis] += prefix.shape[axis]
    if axis == 1:
        rows, n_pos, heads, size = sizes
        joined = rest.new_empty(rows, heads, n_pos, size).transpose(1, 2)
    else:
        joined = rest.new_empty(sizes)
    joined.narrow(axis, 0, prefix.shape[axis]).copy_(prefix.expand(len(rest), *prefix.shape[1:]))
    joined.narrow(axis, prefix.shape[axis], rest.shape[axis]).copy_(rest)
    return joined
