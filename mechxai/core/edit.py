"""Edits of activations: patching, ablation, noise, steering.

An edit receives only the part that its site names (``z[head=6]`` is ``[batch, pos, d_head]``), one row per prompt.
Edits that store a value per prompt are cut to the current prompts with `Edit.rows`; sweeps do this by themselves.
"""

import itertools
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.core.activations import Activations
from mechxai.core.edit_base import Edit as Edit
from mechxai.core.edit_base import PerPromptEdit, ReplacingEdit, Source
from mechxai.core.errors import ConfigError, ShapeError
from mechxai.core.shapes import Activation, PromptInts, Rows, pick
from mechxai.core.site import Site


@dataclass(frozen=True)
class Patch(PerPromptEdit, ReplacingEdit):
    """Activation patching: the activation of another run replaces this one."""

    source: Source

    def __call__(self, activation: Activation, site: Site) -> Activation:
        """The source's activation at ``site``."""
        new = self.source[site].to(activation)
        if new.shape != activation.shape:
            raise ShapeError(
                f"Cannot patch {site}: the source has shape {tuple(new.shape)}, the activation "
                f"{tuple(activation.shape)}",
                fix="Patch from a run of the same prompts",
            )
        return new

    def select(self, chosen: Rows) -> "Patch":
        """The patch for some prompts."""
        return Patch(self.source.rows(chosen))

    def replacement_at(self, site: Site) -> Tensor | None:
        """The source's activation, where the source holds all of it."""
        source = self.source
        is_complete = isinstance(source, Activations) and source.kept is None and site.whole in source
        return source[site.whole] if is_complete else None


@dataclass(frozen=True)
class ZeroAblate(ReplacingEdit):
    """Zero ablation."""

    def __call__(self, activation: Activation, site: Site) -> Activation:
        """Zeros."""
        del site
        return torch.zeros_like(activation)

    def replacement_at(self, site: Site) -> Tensor:
        """Zero."""
        del site
        return torch.zeros(())


@dataclass(frozen=True)
class MeanAblate(ReplacingEdit):
    """Mean ablation: the mean over reference prompts replaces the activation.

    Attributes:
        mean: a source with one row, the mean, which is broadcast over the prompts.
    """

    mean: Source

    def __call__(self, activation: Activation, site: Site) -> Activation:
        """The mean at ``site``, the same for every prompt."""
        return self.mean[site].to(activation).expand_as(activation)

    def replacement_at(self, site: Site) -> Tensor:
        """The mean."""
        return self.mean[site.whole]


@dataclass(frozen=True)
class ResampleAblate(PerPromptEdit, ReplacingEdit):
    """Resample ablation: the activation of another, randomly chosen prompt replaces this one.

    Attributes:
        reference: activations of reference prompts; their positions must mean the same as here.
        choice: the reference row that each prompt takes.
    """

    reference: Source
    choice: tuple[int, ...]

    def __call__(self, activation: Activation, site: Site) -> Activation:
        """The chosen prompts' activations at ``site``."""
        return self.reference[site][list(self.choice)].to(activation)

    def select(self, chosen: Rows) -> "ResampleAblate":
        """The edit for some prompts."""
        return replace(self, choice=pick(self.choice, chosen))

    def replacement_at(self, site: Site) -> Tensor | None:
        """The chosen prompts' activations; None where the site's position differs from prompt to prompt."""
        relative = isinstance(site.pos, str) or (site.pos or 0) < 0
        return None if relative else self.reference[site.whole][list(self.choice)]


@dataclass(frozen=True)
class AddNoise(PerPromptEdit):
    """Gaussian noise added to the activation; a prompt's noise does not depend on the other prompts of its batch.

    Attributes:
        std: standard deviation, in units of the activation.
        seed: of the noise; prompt ``i`` at a site always gets the same draw.
        where: positions that get noise, ``[batch, pos]``, for sites that take every position; all by default.
        first: number of the first prompt; `rows` updates it, and ``prompts``.
        prompts: the number of each prompt, where they do not count up from ``first``.
    """

    std: float
    seed: int = 0
    where: Bool[Tensor, "batch pos"] | None = None
    first: int = 0
    prompts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.std >= 0:
            raise ConfigError(f"AddNoise has std={self.std}: a standard deviation must be at least 0")

    def __call__(self, activation: Activation, site: Site) -> Activation:
        """The activation with noise."""
        site_number = sum(ord(letter) * (index + 1) for index, letter in enumerate(str(site)))
        draws = [
            _prompt_noise(row.shape, (self.seed, site_number, n), by_source="src_pos" in site.row.axes)
            for row, n in zip(activation, self.prompts or itertools.count(self.first), strict=False)
        ]
        noise = self.std * torch.stack(draws).to(activation)
        if self.where is not None:
            noise = noise * self.where[:, : noise.shape[1]].to(noise)[..., None]
        return activation + noise

    def select(self, chosen: Rows) -> "AddNoise":
        """The edit for some prompts."""
        where = None if self.where is None else self.where[chosen]
        if isinstance(chosen, slice) and not self.prompts:
            return replace(self, where=where, first=self.first + (chosen.start or 0))
        numbers = self.prompts or range(self.first, self.first + int(torch.as_tensor(chosen).max()) + 1)
        return replace(self, where=where, prompts=pick(tuple(numbers), chosen))


@dataclass(frozen=True)
class Replace(PerPromptEdit):
    """Given values replace the activation where a mask says so, such as a blank's embedding in place of a token's.

    Attributes:
        values: the new values, ``[batch, pos, d]``.
        where: the positions to replace, ``[batch, pos]``, or single numbers of them, ``[batch, pos, d]``. Positions
            after the mask's last stay as they are.
    """

    values: Float[Tensor, "batch pos d"]
    where: Bool[Tensor, "batch pos"] | Bool[Tensor, "batch pos d"]

    def __call__(self, activation: Activation, site: Site) -> Activation:
        """The activation with the values in place."""
        del site
        n_pos = self.where.shape[1]
        where = self.where.to(activation.device)
        where = where if where.ndim == activation.ndim else where[..., None]
        new = torch.where(where, self.values.to(activation), activation[:, :n_pos])
        return new if activation.shape[1] == n_pos else torch.cat([new, activation[:, n_pos:]], 1)

    def select(self, chosen: Rows) -> "Replace":
        """The edit for some prompts."""
        return Replace(self.values[chosen], self.where[chosen])


@dataclass(frozen=True)
class ReplaceFrom(PerPromptEdit, ReplacingEdit):
    """Given values replace the activation from some position of each row on, for all heads or for one.

    Attributes:
        values: the new values, ``[batch, pos, d]``.
        first: the first position of each prompt that is replaced, ``[batch]``; earlier ones stay as they are.
    """

    values: Float[Tensor, "batch pos d"]
    first: PromptInts

    def __call__(self, activation: Activation, site: Site) -> Activation:
        """The values."""
        if self.values.shape != activation.shape:
            raise ShapeError(
                f"Cannot replace {site}: the values have shape {tuple(self.values.shape)}, the activation "
                f"{tuple(activation.shape)}"
            )
        before = torch.arange(activation.shape[1], device=activation.device)[None] < self.first[:, None]
        return torch.where(before[..., None], activation, self.values.to(activation))

    def select(self, chosen: Rows) -> "ReplaceFrom":
        """The edit for some prompts."""
        return ReplaceFrom(self.values[chosen], self.first[chosen])

    def replacement_at(self, site: Site) -> Tensor:
        """The values, the same for every head of the site."""
        return self.values if site.head is None else self.values[:, :, None]


@dataclass(frozen=True)
class Steer(Edit):
    """Activation steering: a vector added to the activation at every position of the site."""

    positionwise: ClassVar[bool] = True
    vector: Float[Tensor, " d"]
    scale: float = 1.0

    def __call__(self, activation: Activation, site: Site) -> Activation:
        """``activation + scale * vector``."""
        _check_width(self.vector, activation, site)
        return activation + self.scale * self.vector.to(activation)


@dataclass(frozen=True)
class ProjectOut(Edit):
    """Directional ablation: the activation without its component along a direction."""

    positionwise: ClassVar[bool] = True
    direction: Float[Tensor, " d"]

    def __post_init__(self) -> None:
        if not float(_length(self.direction)) > 0:
            raise ConfigError("The direction of ProjectOut has length zero (or NaN)", fix="Pass a vector with a length")

    def __call__(self, activation: Activation, site: Site) -> Activation:
        """``activation - (activation . u) u`` with ``u`` the unit direction."""
        _check_width(self.direction, activation, site)
        unit = (self.direction / _length(self.direction)).to(activation)
        return activation - (activation @ unit)[..., None] * unit


@dataclass(frozen=True)
class Intervention:
    """An edit at a site."""

    site: Site
    edit: Edit

    def rows(self, chosen: Rows) -> "Intervention":
        """The intervention for some prompts."""
        return Intervention(self.site, self.edit.rows(chosen))


def _prompt_noise(shape: torch.Size, seed: tuple[int, ...], *, by_source: bool) -> Tensor:
    """Standard normal noise for a prompt; padding behind its last position does not change it.

    Args:
        shape: of the prompt's activation: positions first, or with ``by_source`` last, after destination positions.
        seed: of the generator.
        by_source: whether the last axis counts source positions, so that the width decides more than one axis.
    """
    if not by_source:
        return _normal(shape.numel(), seed).view(shape)
    *heads, n_dest, n_src = shape if len(shape) > 1 else (1, *shape)
    n_heads = torch.Size(heads).numel()
    of_dest = [_normal(n_src * n_heads, (*seed, dest)).view(n_src, n_heads).T for dest in range(n_dest)]
    return torch.stack(of_dest, 1).reshape(shape)


def _normal(n: int, seed: tuple[int, ...]) -> Tensor:
    """``n`` standard normal numbers, the first of any longer draw: torch draws sixteen at a time."""
    drawn = torch.randn(-(-n // 16) * 16, generator=torch.Generator().manual_seed(hash(seed) % 2**62))
    return drawn[:n]


def _check_width(vector: Tensor, activation: Tensor, site: Site) -> None:
    if vector.shape[-1] != activation.shape[-1]:
        raise ShapeError(f"The vector has shape {tuple(vector.shape)}, but {site} has width {activation.shape[-1]}")


def _length(vector: Tensor) -> Tensor:
    return cast("Tensor", vector.norm())  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
