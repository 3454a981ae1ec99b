"""A `BlackBox` explained: the numbers of its words stand for embeddings, and the texts are made of them again."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, ModelSupportError
from mechxai.core.metric import Metric
from mechxai.core.shapes import PerPrompt, Tokens
from mechxai.engine.execution import Execution
from mechxai.engine.progress import ProgressBar
from mechxai.methods.attribution._lib.adapters.hooked import Embeddings, NamedOutputsAdapter, Removals
from mechxai.model.sequence.black_box import BlackBox

_TEXTS_AT_ONCE = 64


@dataclass(frozen=True)
class BlackBoxAdapter(NamedOutputsAdapter):
    """A `BlackBox` explained. Each text is asked once per call, however many cells come down to it."""

    model: BlackBox
    inside: bool = False

    @property
    def identity(self) -> str:
        """Name, version and outputs."""
        return str(self.model.info()["weight_hash"])

    def embeddings(self, tokens: Tokens) -> Embeddings:
        """The numbers of the words, ``[batch, pos, 1]``."""
        return tokens.double()[..., None]

    def mean_embedding(self) -> Float[Tensor, " d_model"]:
        """There is none.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"baseline='mean' of {self.model.name} was asked",
            got="a black box, which takes text",
            allowed="pad (the word is left out), mask (an ellipsis), counterfactual",
        )

    def score(self, metric: Metric, batch: ContrastBatch, embeddings: Embeddings) -> PerPrompt:
        """The metric of the texts that the numbers stand for."""
        texts = self.model.texts(embeddings[..., 0].long(), batch.lengths)
        return metric.score(self._asked(texts, shown=False)[:, None], batch)

    def without(
        self,
        metric: Metric,
        batch: ContrastBatch,
        embeddings: Embeddings,
        *,
        baseline: Embeddings,
        absent: Bool[Tensor, "cell batch ..."],
        execution: Execution,
    ) -> Removals:
        """Every text that the cells come down to, asked once."""
        where = absent if absent.ndim == 4 else absent[..., None]
        rows = torch.where(where, baseline[None], embeddings[None])[..., 0].long().flatten(0, 1)
        texts = self.model.texts(rows, batch.lengths.repeat(len(absent)))
        different = list(dict.fromkeys(texts))
        number = {text: at for at, text in enumerate(different)}
        outputs = self._asked(different, shown=execution.progress)[[number[text] for text in texts]]
        scores = metric.score(outputs[:, None], batch.rows(torch.arange(len(batch)).repeat(len(absent))))
        return Removals(scores.double().reshape(absent.shape[:2]), float(len(different)))

    def patterns(
        self, batch: ContrastBatch, embeddings: Embeddings, layers: Sequence[int]
    ) -> Float[Tensor, "layer batch head dest src"]:
        """There are none.

        Raises:
            ModelSupportError: always.
        """
        del batch, embeddings, layers
        raise ModelSupportError(f"Attention of {self.model.name} was asked", got="a black box, which has none to show")

    def _asked(self, texts: Sequence[str], *, shown: bool) -> Float[Tensor, "text output"]:
        found: list[Tensor] = []
        with ProgressBar("texts with gaps", len(texts), shown=shown, unit="texts") as bar:
            for first in range(0, len(texts), _TEXTS_AT_ONCE):
                found.append(self.model.outputs_of(texts[first : first + _TEXTS_AT_ONCE]))
                bar.advance(len(found[-1]))
        return torch.cat(found)
