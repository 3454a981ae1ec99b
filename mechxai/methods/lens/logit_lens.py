"""Logit lens: read the residual stream of every layer through the final norm and the unembedding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention
from mechxai.core.errors import ConfigError
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.result import Result
from mechxai.core.work_clock import work_seconds
from mechxai.engine.checkpoint import TENSORS
from mechxai.engine.contrast import Run
from mechxai.engine.execution import Execution
from mechxai.engine.finished import FinishedPieces
from mechxai.methods.lens._lib.lens_result import lens_dataset
from mechxai.methods.lens._lib.stream_reading import Translate, reading
from mechxai.methods.lens._lib.streams import check_readable, streams_of
from mechxai.methods.lens._lib.targets import Target, targets_of
from mechxai.methods.result_parts import run_info
from mechxai.model.hooked_model import HookedModel


@final
@register(
    MethodCard(
        name="logit_lens",
        family="lens",
        kind="lens",
        question="What would each layer predict if it were the last, and when does the answer appear?",
        cost="one forward pass per prompt, one unembedding per layer and position",
        source="nostalgebraist 2020, 'interpreting GPT: the logit lens'; Belrose et al. 2023 (arXiv 2303.08112)",
        pros="no training; exact at the last layer",
        cons="early layers use another basis: a tuned lens is the control",
    )
)
@dataclass(frozen=True)
class LogitLens(Method):
    """Reads the residual stream before every block through the model's final norm and unembedding.

    Attributes:
        site: ``resid_pre``, the stream before each block; ``resid_mid``; or ``attn_out`` and ``mlp_out``, the output of
            one layer by itself.
        over: axes of ``value``: layer and pos, or layer alone, at the answer position.
        target: ``answer``, ``wrong``, ``next`` (the token that follows), a token's text or its id.
        run: ``clean`` or ``corrupted``.
        k: number of top tokens.
        tokens: tokens whose trajectories through the layers to record, each in the form of `target`
            (``["answer", "wrong"]``).
        interventions: edits of the run, applied before it is read (patch or ablate, then read the lens).

    Example:
        >>> import mechxai as mx
        >>> model = mx.load("zoo/handmade-induction")
        >>> r = mx.LogitLens(k=3)(model, mx.tasks.induction(model, n=4))
        >>> r.data["top_token"].dims
        ('prompt', 'layer', 'pos', 'k')

    Source: nostalgebraist 2020; statistics as in Belrose et al. 2023.
    """

    site: str = "resid_pre"
    over: Sequence[str] = ("layer", "pos")
    target: Target = "answer"
    run: Run = "clean"
    k: int = 5
    tokens: Sequence[Target] = ()
    interventions: Sequence[Intervention] = ()

    def _check_fields(self) -> None:
        object.__setattr__(self, "site", check_readable(self.site))
        if self.over not in (("layer", "pos"), ("layer",)):
            raise ConfigError(f"over={self.over} is not allowed for a lens", allowed="('layer', 'pos') or ('layer',)")
        if self.k < 1:
            raise ConfigError(f"k is {self.k}: it must be at least 1")

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """Reads every layer at every position.

        Returns:
            ``target_logprob``, ``target_rank`` (0 is the top), ``entropy``, ``kl_to_final`` [prompt, layer, pos] in
            nats; ``top_token`` (ids), ``top_text``, ``top_logprob`` [prompt, layer, pos, k]; ``value`` [*over*], the
            mean of ``target_logprob`` over prompts, with its interval; with ``tokens``, ``chosen_logprob`` [prompt,
            layer, pos, choice] and ``trajectory`` [choice, layer], its mean at the answer position. Layers run from 0
            to ``n_layers``; the last is the model's output. Positions beyond a prompt hold NaN, and -1 for a token.

        Raises:
            SiteError: a site that this model lacks.
            ConfigError: a target that is not one token.

        Cost: one forward pass per prompt, one unembedding per layer and position; holds the logits of a few positions.
        """
        return read_lens(self, model, batch, execution=execution)


def read_lens(
    lens: LogitLens,
    model: HookedModel,
    batch: ContrastBatch,
    *,
    execution: Execution,
    translate: Translate | None = None,
    method: Method | None = None,
) -> Result:
    """The result of a logit lens or of a trained lens.

    Args:
        lens: the logit lens, with site, target and run.
        model: the model.
        batch: the prompts.
        execution: how to run.
        translate: a trained lens, applied to each stream before the readout.
        method: the method that the result records; `lens` by default.
    """
    started, batch = work_seconds(), batch.to(model.device)
    tokens = (lens.target, *lens.tokens)
    targets = torch.stack([targets_of(model, batch, token, run=lens.run) for token in tokens], -1)
    streams = streams_of(model, batch, lens.site, run=lens.run, interventions=lens.interventions)
    real, k = batch.mask, min(lens.k, model.architecture.d_vocab)
    places = [stream[real] for stream in streams]
    finished = FinishedPieces(execution.cells, "lens", lens, model, batch, translate, serializer=TENSORS)
    read = reading(
        model, places, targets[real], k=k, translate=translate, progress=execution.progress, finished=finished
    )
    data = lens_dataset(model, batch, read, run=lens.run, over=tuple(lens.over), choices=lens.tokens)
    passes = {"forward_passes": float(len(batch)), "readouts": float(read.entropy.numel())}
    cost = {**passes, "seconds": work_seconds() - started}
    return Result(data, run_info(method or lens, model, batch, cost=cost))
