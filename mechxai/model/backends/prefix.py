"""Keys and values kept from one run, put before those of rows that run only their last positions.

Under causal attention an edit at position p leaves every earlier position as it was, so a row needs its earlier keys
and values, but not to compute them. Both are kept in the layout of the backend that made them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class KeysValues:
    """Keys and values of some prompts, layer by layer, as the model's attention receives them.

    Attributes:
        keys: per layer, ``[prompt, pos, head, d_head]`` or ``[prompt, head, pos, d_head]``, by backend.
        values: likewise.
    """

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def add(self, keys: Tensor, values: Tensor) -> None:
        """The next layer's."""
        self.keys.append(keys.detach())
        self.values.append(values.detach())

    def up_to(self, n_pos: int) -> "KeysValues":
        """Those of the first positions, where heads come before positions."""
        return KeysValues([one[:, :, :n_pos] for one in self.keys], [one[:, :, :n_pos] for one in self.values])

    def rows(self, chosen: slice) -> "KeysValues":
        """Those of some prompts."""
        return KeysValues([one[chosen] for one in self.keys], [one[chosen] for one in self.values])


@dataclass(frozen=True)
class JoiningRows:
    """Rows that run positions ``start:stop`` of their prompts and join the pass at their own layers.

    Attributes:
        kept: keys and values of the unedited run.
        residuals: input of every block in that run and, last, the output of the last block, ``[prompt, pos, d_model]``.
        prompts: the prompt of each row, in the order in which they join.
        joins: ``(layer, number of rows)``, ascending; layer ``n_layers`` stands for the last block's output.
        tokens: of the prompts, ``[prompt, pos]``.
        given: the first rows' residual stream before block 0, where it is not the record's, ``[row, pos, d_model]``.
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
        """One row of tokens for a pass that must begin before the first rows join."""
        return self.tokens[:1, self.start : self.stop]

    def joining(self, number: int) -> Tensor:
        """The unedited residual stream of the rows of a join, ``[row, pos, d_model]``."""
        layer, n_rows = self.joins[number]
        before = sum(count for _, count in self.joins[:number])
        prompts = self.prompts[before : before + n_rows]
        found = self.residuals[layer][prompts, self.start : self.stop]
        if number or self.given is None:
            return found
        return torch.cat([self.given[:, self.start : self.stop], found[len(self.given) :]])

    def extended(self, layer: int, keys: Tensor, values: Tensor, *, axis: int) -> tuple[Tensor, Tensor]:
        """The keys and values of the rows there are so far, with their prefix before them along ``axis``."""
        if self.start == 0:
            return keys, values
        prompts = self.prompts[: len(keys)]
        before = (self.kept.keys[layer], self.kept.values[layer])
        chosen = [one.narrow(axis, 0, self.start) for one in before]
        if len(before[0]) > 1:
            chosen = [one[prompts] for one in chosen]
        return _behind(chosen[0], keys, axis), _behind(chosen[1], values, axis)


def _behind(before: Tensor, own: Tensor, axis: int) -> Tensor:
    """``own`` behind ``before`` (of the same rows, or one for all) along ``axis``, heads before positions in memory.

    So the products of attention read them as they lie; in any other order they would copy all of it first.
    """
    sizes = list(own.shape)
    sizes[axis] += before.shape[axis]
    if axis == 1:
        rows, n_pos, heads, size = sizes
        whole = own.new_empty(rows, heads, n_pos, size).transpose(1, 2)
    else:
        whole = own.new_empty(sizes)
    whole.narrow(axis, 0, before.shape[axis]).copy_(before.expand(len(own), *before.shape[1:]))
    whole.narrow(axis, before.shape[axis], own.shape[axis]).copy_(own)
    return whole
