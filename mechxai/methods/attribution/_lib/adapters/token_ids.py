"""`TokenAdapter`: attribution of a model whose later layers read token ids too, by replacing tokens, not embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ModelSupportError
from mechxai.core.metric import Metric
from mechxai.core.shapes import PerPrompt, Tokens
from mechxai.engine.finished import FinishedPieces
from mechxai.engine.progress import ProgressBar
from mechxai.engine.sweep import run_tokens
from mechxai.methods.attribution._lib.adapters.hooked import HookedAdapter
from mechxai.methods.attribution._lib.adapters.protocol import Deletion, DeletionScores, Embeddings
from mechxai.model.readout import as_float

_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class TokenAdapter(HookedAdapter):
    """A `HookedModel` with token embeddings in every layer (Gemma 3n, Gemma 4); token ids play the part of embeddings.

    An embedding that is replaced before block 0 would leave the later layers with the old token.
    """

    replaces_tokens: ClassVar[bool] = True

    def embeddings(self, tokens: Tokens) -> Embeddings:
        """The token ids, ``[batch, pos, 1]``."""
        return tokens.to(self.device).double()[..., None]

    def mean_embedding(self) -> Float[Tensor, " d_model"]:
        """Not available: a mean is no token.

        Raises:
            ModelSupportError: always.
        """
        raise needs_tokens(self.model.name, "a mean embedding")

    def score(self, metric: Metric, batch: ContrastBatch, embeddings: Embeddings) -> PerPrompt:
        """The metric of the prompts that the token ids spell."""
        return self._scores(metric, batch, embeddings[..., 0].round().long())

    def deletion_scores(self, deletion: Deletion) -> DeletionScores:
        """The metric of every prompt under every cell, a full pass each."""
        if deletion.absent.ndim > 3:
            raise needs_tokens(self.model.name, "single dimensions of embeddings (soft_draws)")
        batch, n_cells = deletion.batch, len(deletion)
        tokens = torch.where(deletion.mask, deletion.baseline[None], deletion.embeddings[None])[..., 0].round().long()
        rows, prompts = tokens.flatten(0, 1), torch.arange(len(batch)).repeat(n_cells)
        scores: list[Tensor] = []
        with (
            FinishedPieces(deletion.execution.cells, "deletions", self.model, batch, deletion.metric) as finished,
            ProgressBar("deletions", len(rows), shown=deletion.execution.progress, unit="prompts") as bar,
            torch.no_grad(),
        ):
            for part in torch.arange(len(rows)).split(_ROWS_AT_ONCE):
                part_rows = rows[part.to(rows.device)]
                score = partial(self._scores, deletion.metric, batch.rows(prompts[part]), part_rows)
                scores.append(finished.take((prompts[part], part_rows), score).double().cpu())
                bar.advance(len(part))
        return DeletionScores(torch.cat(scores).reshape(n_cells, len(batch)), float(len(rows)))

    def patterns(
        self, batch: ContrastBatch, embeddings: Embeddings, layers: Sequence[int]
    ) -> Float[Tensor, "layer batch head dest src"]:
        """Attention patterns of the prompts that the token ids spell."""
        tokens = embeddings[..., 0].round().long()
        return self.model.cache(tokens, ["pattern"], layers=layers, lengths=batch.lengths).stack("pattern")

    def _scores(self, metric: Metric, batch: ContrastBatch, tokens: Tokens) -> PerPrompt:
        prompts = replace(batch, clean=torch.where(batch.mask, tokens, batch.clean))
        longer, lengths = run_tokens(prompts, "clean", metric)
        return metric.score(as_float(self.model.logits(longer, lengths=lengths, at=metric.positions(batch))), batch)


def needs_tokens(name: str, what: str) -> ModelSupportError:
    """The refusal of a replacement that is no token."""
    return ModelSupportError(
        f"{name} reads the token ids again in later layers, so {what} cannot replace a token",
        fix="Use occlusion, kernel_shap, lime or partition_shap with baseline pad, mask, blank or counterfactual",
    )
