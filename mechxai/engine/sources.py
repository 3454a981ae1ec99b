"""Sources of the values of edits: the activations of a run, computed when needed, and means over runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mechxai.core.activations import Activations
from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import SiteError
from mechxai.core.metric import Metric
from mechxai.core.shapes import Rows
from mechxai.core.site import POSITION_AXES, Site
from mechxai.engine.sweep import run_tokens
from mechxai.model.backends.masking import masked_scores
from mechxai.model.hooked_model import HookedModel


@dataclass(frozen=True)
class RunSource:
    """The activations of the ``clean`` or ``corrupted`` run, computed by `rows` for the prompts that are needed.

    Levels 0 and 1 read them at hook points and so can check the higher levels, which record their runs themselves.

    Attributes:
        model: the model.
        batch: the prompts.
        run: ``clean`` or ``corrupted``.
        metric: the metric, which may append answers to the prompts.
        sites: whole sites to cache.
    """

    model: HookedModel
    batch: ContrastBatch
    run: str
    metric: Metric
    sites: tuple[Site, ...]

    def rows(self, chosen: Rows) -> Activations:
        """The activations of some prompts. Cost: one forward pass up to the last site."""
        batch = self.batch.rows(chosen)
        tokens, lengths = run_tokens(batch, self.run, self.metric)
        names = sorted({site.name for site in self.sites})
        layers = sorted({site.layer for site in self.sites if site.layer is not None})
        cached = self.model.cache(tokens, names, layers or None, lengths=lengths, hooked=True)
        return replace(cached, layout=batch.layout)

    def __getitem__(self, site: Site) -> Tensor:
        return self.rows(slice(None))[site]


@dataclass(frozen=True)
class MeanSource:
    """The mean of an activation over prompts (and positions), and its standard deviation.

    Attributes:
        means: whole site -> mean; ``[*axes]`` with ``pos`` kept when ``per_position``, else without it.
        stds: whole site -> standard deviation over every entry, a number.
        per_position: whether every position has its own mean.
    """

    means: dict[Site, Tensor]
    stds: dict[Site, float]
    per_position: bool

    def rows(self, chosen: Rows) -> "MeanSource":
        """The same mean for every prompt."""
        del chosen
        return self

    def __getitem__(self, site: Site) -> Tensor:
        mean = self.means[site.whole]
        axes = [axis for axis in site.row.axes if self.per_position or axis != "pos"]
        if self.per_position and isinstance(site.pos, str):
            raise SiteError(
                f"The mean at {site} per position is undefined: a role has no fixed position",
                fix="Use per_position=false",
            )
        pos = site.pos if isinstance(site.pos, int) else slice(None)
        value = mean[tuple(pos if axis in POSITION_AXES else site.along(axis) for axis in axes)]
        broadcast = not self.per_position and site.pos is None and "pos" in site.row.axes
        return value[None] if broadcast else value  # all positions share this row


def mean_source(
    model: HookedModel,
    batch: ContrastBatch,
    *,
    run: str,
    sites: Sequence[Site],
    per_position: bool,
    rows_at_once: int = 32,
) -> MeanSource:
    """The means of activations over the tokens of a run, without padding and masked attention scores.

    Args:
        model: the model.
        batch: the prompts.
        run: ``clean`` or ``corrupted``.
        sites: whole sites.
        per_position: compute a mean per position, for prompts of one template; attention patterns need it.
        rows_at_once: prompts per forward pass.

    Raises:
        SiteError: the site is a pattern, and ``per_position`` is false.

    Cost: one forward pass per prompt.
    """
    totals: dict[Site, Tensor] = {}
    squares: dict[Site, float] = {}
    counts: dict[Site, Tensor] = {}
    for _, part in batch.parts(rows_at_once):
        layers = sorted({site.layer for site in sites if site.layer is not None})
        acts = model.cache(
            part.tokens(run), sorted({site.name for site in sites}), layers or None, lengths=part.lengths
        )
        for site in sites:
            value = acts[site].double() if acts[site].dtype == torch.float64 else acts[site].float()
            if "pos" not in site.row.axes and not per_position:
                raise SiteError(
                    f"The mean of {site.name} over positions is undefined: its rows depend on the position",
                    fix="Use per_position=true",
                )
            real = part.mask if "pos" in site.row.axes else part.mask[:, None, :, None]
            real = real.reshape(*real.shape, *(1,) * (value.ndim - real.ndim)).expand(value.shape)
            if site.name == "attn_scores":
                real = real & ~masked_scores(acts[site])
            value = torch.where(real, value, 0.0)
            over = (0,) if per_position else (0, 1)
            totals[site] = totals.get(site, 0) + value.sum(over)
            counts[site] = counts.get(site, 0) + real.to(value).sum(over)
            squares[site] = squares.get(site, 0.0) + float(value.square().sum())
    means = {site: totals[site] / counts[site].clamp(min=1) for site in totals}
    stds = {}
    for site in totals:
        n_entries = float(counts[site].sum())
        overall = float(totals[site].sum()) / n_entries
        stds[site] = max(squares[site] / n_entries - overall**2, 0.0) ** 0.5
    return MeanSource(means, stds, per_position)
