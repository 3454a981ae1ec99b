"""A causal sweep: cells of interventions on a base run, and the metric to measure."""

from collections.abc import Sequence
from dataclasses import dataclass

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
    """The metric of a base run under the interventions of each cell.

    Attributes:
        batch: the prompts.
        run: the base run, ``clean`` or ``corrupted``.
        cells: the interventions of each cell.
        metric: the metric.
        base: interventions that are made in every cell, before those of the cell.
    """

    batch: ContrastBatch
    run: str
    cells: Sequence[Cell]
    metric: Metric
    base: Cell = ()

    @property
    def sites(self) -> list[Site]:
        """The whole sites that are edited, without repetitions."""
        return list({intervention.site.whole: None for cell in (self.base, *self.cells) for intervention in cell})

    def check(self, model: HookedModel) -> None:
        """Refuses a sweep that this model or metric cannot do; runs no forward pass over its prompts.

        Raises:
            SiteError: a site, layer or head the model lacks.
            ModelSupportError: a site on which edits have no effect (measured once per model, on two tokens).
            ShapeError: answers that the metric cannot score.
        """
        self.metric.check(self.batch)
        for site in {intervention.site for cell in (self.base, *self.cells) for intervention in cell}:
            model.backend.check(site, editing=True)
            if isinstance(site.pos, str):
                self.batch.layout.positions(site.pos)

    def digest(self) -> str:
        """A hash of everything that decides the values, except the model."""
        fingerprint = Fingerprints()
        cells = [
            [(str(intervention.site), fingerprint(intervention.edit)) for intervention in cell]
            for cell in (self.base, *self.cells)
        ]
        return fingerprint([fingerprint(self.batch), self.run, fingerprint(self.metric), repr(cells)])


def run_tokens(batch: ContrastBatch, run: str, metric: Metric) -> tuple[Tokens, PromptInts]:
    """The tokens of a run and their number per row: the prompts, followed by the answers if the metric scores these.

    The positions of the prompt do not change.
    """
    tokens, lengths = batch.tokens(run), batch.lengths
    continuation = metric.continuation(batch)
    if continuation is None:
        return tokens, lengths
    return append_tokens(tokens, lengths, continuation[:, 0])


def append_tokens(tokens: Tokens, lengths: PromptInts, more: Tensor) -> tuple[Int[Tensor, "batch longer"], PromptInts]:
    """Rows with ``more`` tokens (-1 for none) after their last real token, and the new lengths."""
    width = int((lengths + (more >= 0).sum(1)).max())
    longer = torch.zeros(len(tokens), max(width, tokens.shape[1]), dtype=tokens.dtype, device=tokens.device)
    longer[:, : tokens.shape[1]] = tokens
    for step in range(more.shape[1]):
        present = more[:, step] >= 0
        rows = present.nonzero()[:, 0]
        longer[rows, lengths[rows] + step] = more[rows, step].to(longer)
    return longer, lengths + (more >= 0).sum(1)
