"""What is asked of the engine: cells on a base run, and a metric."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention
from mechxai.core.fingerprint import Fingerprints
from mechxai.core.metric import Metric
from mechxai.core.shapes import PromptInts, Tokens
from mechxai.core.site import Site
from mechxai.model.hooked_model import HookedModel

Cell = tuple[Intervention, ...]


@dataclass(frozen=True)
class Sweep:
    """On this base run, make each cell's edits, and give me this metric.

    Attributes:
        batch: the prompts.
        run: the base run, ``clean`` or ``corrupted``.
        cells: each the interventions of one question.
        metric: what is measured.
        base: interventions made in every cell, before its own.
    """

    batch: ContrastBatch
    run: str
    cells: Sequence[Cell]
    metric: Metric
    base: Cell = ()

    @property
    def sites(self) -> list[Site]:
        """Every whole site that is edited, once."""
        found = {one.site.whole: None for cell in (self.base, *self.cells) for one in cell}
        return list(found)

    def check(self, model: HookedModel) -> None:
        """Refuses, before any forward pass, what this model or metric cannot do.

        Raises:
            SiteError: a site, layer or head the model lacks.
            ModelSupportError: a site on which edits have no effect.
            ShapeError: answers the metric cannot score.
        """
        self.metric.check(self.batch)
        for site in {one.site for cell in (self.base, *self.cells) for one in cell}:
            model.backend.check(site, editing=True)
            if isinstance(site.pos, str):
                self.batch.layout.positions(site.pos)

    def digest(self) -> str:
        """A hash of everything but the model that decides the values."""
        hashed = Fingerprints()
        cells = [[(str(one.site), hashed(one.edit)) for one in cell] for cell in (self.base, *self.cells)]
        return hashed([hashed(replace(self.batch, info={})), self.run, hashed(self.metric), repr(cells)])


def run_tokens(batch: ContrastBatch, run: str, metric: Metric) -> tuple[Tokens, PromptInts]:
    """The tokens a run reads, and their number per row: the prompts, with answers appended where the metric says so.

    Positions of the prompt stay what they were.
    """
    tokens, lengths = batch.tokens(run), batch.lengths
    continuation = metric.continuation(batch)
    if continuation is None:
        return tokens, lengths
    return appended(tokens, lengths, continuation[:, 0])


def appended(tokens: Tokens, lengths: PromptInts, more: Tensor) -> tuple[Int[Tensor, "batch longer"], PromptInts]:
    """Rows with further tokens (-1 for none) right after their last real token, and the new lengths."""
    width = int((lengths + (more >= 0).sum(1)).max())
    longer = torch.zeros(len(tokens), max(width, tokens.shape[1]), dtype=tokens.dtype, device=tokens.device)
    longer[:, : tokens.shape[1]] = tokens
    for step in range(more.shape[1]):
        present = more[:, step] >= 0
        rows = present.nonzero()[:, 0]
        longer[rows, lengths[rows] + step] = more[rows, step].to(longer)
    return longer, lengths + (more >= 0).sum(1)
