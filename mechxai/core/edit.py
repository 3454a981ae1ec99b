"""What to do at a site: an edit takes the activation there and returns the new one, out of place.

An edit sees only the part its site names (``z[head=6]`` gives it ``[batch, pos, d_head]``), one row per prompt. Edits
that hold a value per prompt are cut to the prompts at hand with `rows`; sweeps do that for you.
"""

import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.core.activations import Activations
from mechxai.core.errors import ConfigError, ShapeError
from mechxai.core.shapes import Activation, PromptInts, Rows, pick
from mechxai.core.site import Site


@runtime_checkable
class Source(Protocol):
    """Anything that gives the activation at a site, one row per prompt: `Activations`, or a run still to be made."""

    def __getitem__(self, site: Site, /) -> Tensor:
        """The activation at ``site``."""
        ...

    def rows(self, chosen: Rows) -> "Source":
        """The same for some prompts."""
        ...


class Edit(ABC):
    """An edit; calling it gives the new activation and leaves the old one alone.

    Attributes:
        positionwise: whether it treats every position by itself, so that it may be given some of them only. Left
            False, an edit always sees whole rows, which is right and slower.
    """

    positionwise: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, activation: Activation, site: Site) -> Activation:
        """The new activation, in the shape of the old."""

    def rows(self, chosen: Rows) -> "Edit":
        """The same edit for some prompts of the batch it was made for."""
        del chosen
        return self

    def replacement(self, site: Site) -> Tensor | None:
        """What it puts in place whatever was there; None when it looks at what was there.

        Args:
            site: the site that is edited.

        Returns:
            Values that broadcast to ``[batch, *axes]`` of the whole site, or None.
        """
        del site
        return None


@dataclass(frozen=True)
class Patch(Edit):
    """The activation of another run in place of this one's."""

    source: Source

    def __call__(self, activation: Activation, site: Site) -> Activation:
        """The source's activation at ``site``."""
        new = self.source[site].to(activation)
        if new.shape != activation.shape:
            raise ShapeError(
                f"Patching {site}",
                got=f"source {tuple(new.shape)}, activation {tuple(activation.shape)}",
                fix="patch from a run of the same prompts",
            )
        return new

    def rows(self, chosen: Rows) -> "Patch":
        """The patch for some prompts."""
        return Patch(self.source.rows(chosen))

    def replacement(self, site: Site) -> Tensor | None:
        """The source's activation, where the source holds all of it."""
        source = self.source
        whole = isinstance(source, Activations) and source.kept is None and site.whole in source
        return source[site.whole] if whole else None


@dataclass(frozen=True)
class ZeroAblate(Edit):
    """Zero in place of the activation."""

    def __call__(self, activation: Activation, site: Site) -> Activation:
        """Zeros."""
        del site
        return torch.zeros_like(activation)

    def replacement(self, site: Site) -> Tensor:
        """Zero."""
        del site
        return torch.zeros(())


@dataclass(frozen=True)
class MeanAblate(Edit):
    """The mean over reference prompts in place of the activation.

    Attributes:
        mean: a source with one row, the mean; it is spread over the prompts.
    """

    mean: Source

    def __call__(self, activation: Activation, site: Site) -> Activation:
        """The mean at ``site``, the same for every prompt."""
        return self.mean[site].to(activation).expand_as(activation)

    def replacement(self, site: Site) -> Tensor:
        """The mean."""
        return self.mean[site.whole]


@dataclass(frozen=True)
class ResampleAblate(Edit):
    """The activation of another, randomly chosen prompt in place of this one's.

    Attributes:
        reference: activations of reference prompts; their positions must mean the same as here.
        choice: for each prompt, the reference row it takes.
    """

    reference: Source
    choice: tuple[int, ...]

    def __call__(self, activation: Activation, site: Site) -> Activation:
        """The chosen prompts' activations at ``site``."""
        return self.reference[site][list(self.choice)].to(activation)

    def rows(self, chosen: Rows) -> "ResampleAblate":
        """The edit for some prompts."""
        return replace(self, choice=pick(self.choice, chosen))

    def replacement(self, site: Site) -> Tensor | None:
        """The chosen prompts' activations; None where the site's position is another one in each prompt."""
        relative = isinstance(site.pos, str) or (site.pos or 0) < 0
        return None if relative else self.reference[site.whole][list(self.choice)]


@dataclass(frozen=True)
class AddNoise(Edit):
    """Gaussian noise on top of the activation; each prompt has its own, whatever batch it travels in.

    Attributes:
        std: standard deviation, in units of the activation.
        seed: of the noise; prompt ``i`` at a site always gets the same draw.
        where: positions that get noise, ``[batch, pos]``, for sites that take every position; all by default.
        first: number of the first prompt; `rows` keeps it right, as it does ``prompts``.
        prompts: the number of each prompt, where they do not simply follow on ``first``.
    """

    std: float
    seed: int = 0
    where: Bool[Tensor, "batch pos"] | None = None
    first: int = 0
    prompts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.std >= 0:
            raise ConfigError("AddNoise needs a standard deviation", got=self.std, allowed="a number >= 0")

    def __call__(self, activation: Activation, site: Site) -> Activation:
        """The activation with noise."""
        place = sum(ord(letter) * (index + 1) for index, letter in enumerate(str(site)))
        draws = [
            torch.randn(row.shape, generator=torch.Generator().manual_seed(hash((self.seed, place, number)) % 2**62))
            for row, number in zip(activation, self.prompts or itertools.count(self.first), strict=False)
        ]
        noise = self.std * torch.stack(draws).to(activation)
        if self.where is not None:
            noise = noise * self.where[:, : noise.shape[1]].to(noise)[..., None]
        return activation + noise

    def rows(self, chosen: Rows) -> "AddNoise":
        """The edit for some prompts."""
        where = None if self.where is None else self.where[chosen]
        if isinstance(chosen, slice) and not self.prompts:
            return replace(self, where=where, first=self.first + (chosen.start or 0))
        known = self.prompts or range(self.first, self.first + int(torch.as_tensor(chosen).max()) + 1)
        return replace(self, where=where, prompts=pick(tuple(known), chosen))


@dataclass(frozen=True)
class Replace(Edit):
    """Values of one's own in place of the activation where a mask says so: a token's embedding by that of a blank.

    Attributes:
        values: what is put there, ``[batch, pos, d]``.
        where: at which positions, ``[batch, pos]``, or which of their numbers, ``[batch, pos, d]``. Positions after the
            mask's last stay as they are.
    """

    values: Float[Tensor, "batch pos d"]
    where: Bool[Tensor, "batch pos"] | Bool[Tensor, "batch pos d"]

    def __call__(self, activation: Activation, site: Site) -> Activation:
        """The activation with the values put in."""
        del site
        n_pos = self.where.shape[1]
        where = self.where.to(activation.device)
        where = where if where.ndim == activation.ndim else where[..., None]
        new = torch.where(where, self.values.to(activation), activation[:, :n_pos])
        return new if activation.shape[1] == n_pos else torch.cat([new, activation[:, n_pos:]], 1)

    def rows(self, chosen: Rows) -> "Replace":
        """The edit for some prompts."""
        return Replace(self.values[chosen], self.where[chosen])


@dataclass(frozen=True)
class ReplaceFrom(Edit):
    """Values of one's own in place of the activation of a whole row, or of one head of it.

    Attributes:
        values: what is put there, ``[batch, pos, d]``.
        first: the first position of each prompt at which it may differ from what was there, ``[batch]``; before it
            nothing is changed.
    """

    values: Float[Tensor, "batch pos d"]
    first: PromptInts

    def __call__(self, activation: Activation, site: Site) -> Activation:
        """The values."""
        if self.values.shape != activation.shape:
            raise ShapeError(f"Putting values at {site}", got=tuple(self.values.shape), allowed=activation.shape)
        before = torch.arange(activation.shape[1], device=activation.device)[None] < self.first[:, None]
        return torch.where(before[..., None], activation, self.values.to(activation))

    def rows(self, chosen: Rows) -> "ReplaceFrom":
        """The edit for some prompts."""
        return ReplaceFrom(self.values[chosen], self.first[chosen])

    def replacement(self, site: Site) -> Tensor:
        """The values, the same for every head of the site's."""
        return self.values if site.head is None else self.values[:, :, None]


@dataclass(frozen=True)
class Steer(Edit):
    """A vector added to the activation (at every position the site takes)."""

    positionwise: ClassVar[bool] = True
    vector: Float[Tensor, " d"]
    scale: float = 1.0

    def __call__(self, activation: Activation, site: Site) -> Activation:
        """``activation + scale * vector``."""
        if self.vector.shape[-1] != activation.shape[-1]:
            raise ShapeError(
                f"Steering {site}", got=tuple(self.vector.shape), allowed=f"a vector of {activation.shape[-1]}"
            )
        return activation + self.scale * self.vector.to(activation)


@dataclass(frozen=True)
class ProjectOut(Edit):
    """The part of the activation along a direction removed."""

    positionwise: ClassVar[bool] = True
    direction: Float[Tensor, " d"]

    def __post_init__(self) -> None:
        if not float(_length(self.direction)) > 0:
            raise ConfigError("ProjectOut needs a direction", got="a vector of length zero (or NaN)")

    def __call__(self, activation: Activation, site: Site) -> Activation:
        """``activation - (activation . u) u`` with ``u`` the unit direction."""
        if self.direction.shape[-1] != activation.shape[-1]:
            raise ShapeError(
                f"Projecting out of {site}",
                got=tuple(self.direction.shape),
                allowed=f"a vector of {activation.shape[-1]}",
            )
        unit = (self.direction / _length(self.direction)).to(activation)
        return activation - (activation @ unit)[..., None] * unit


@dataclass(frozen=True)
class Intervention:
    """An edit at a site."""

    site: Site
    edit: Edit

    def rows(self, chosen: Rows) -> "Intervention":
        """The same for some prompts."""
        return Intervention(self.site, self.edit.rows(chosen))


def _length(vector: Tensor) -> Tensor:
    return cast("Tensor", vector.norm())  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
