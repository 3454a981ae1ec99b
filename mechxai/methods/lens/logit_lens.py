"""The logit lens: what each layer would predict if it were the last."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention
from mechxai.core.errors import ConfigError, check_choice
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.result import Result
from mechxai.engine.contrast import RUNS
from mechxai.engine.execution import Execution
from mechxai.methods.lens._lib.lens_result import laid_out
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
        cons="early layers speak another basis: a tuned lens is the control",
    )
)
@dataclass(frozen=True)
class LogitLens(Method):
    """Reads the residual stream before every block through the model's own final norm and unembedding.

    Attributes:
        site: ``resid_pre``, what stands before each block; ``resid_mid``; or ``attn_out`` and ``mlp_out``, what one
            layer writes, read by itself.
        over: axes of ``value``: layer and pos, or layer alone, at the answer position.
        target: ``answer``, ``next`` (the token that follows), a token's text or its id.
        run: ``clean`` or ``corrupted``.
        k: top tokens to keep.
        tokens: tokens whose trajectories through the layers are wanted, each as `target` is given
            (``["answer", "wrong"]``).
        interventions: edits of the run, made before it is read (patch or ablate, then read the lens).

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
    run: str = "clean"
    k: int = 5
    tokens: Sequence[Target] = ()
    interventions: Sequence[Intervention] = ()

    def _check_fields(self) -> None:
        object.__setattr__(self, "site", check_readable(self.site))
        if self.over not in (("layer", "pos"), ("layer",)):
            raise ConfigError(f"over={self.over} was asked of a lens", allowed="('layer', 'pos') or ('layer',)")
        check_choice("run", self.run, RUNS)
        if self.k < 1:
            raise ConfigError(f"k={self.k} was asked", allowed="1 or more")

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """What every layer says at every position.

        Returns:
            ``target_logprob``, ``target_rank`` (0 is the top), ``entropy``, ``kl_to_final`` [prompt, layer, pos] in
            nats; ``top_token`` (ids), ``top_text``, ``top_logprob`` [prompt, layer, pos, k]; ``value`` [*over*], the
            mean of ``target_logprob`` over prompts, with its interval; with ``tokens``, ``chosen_logprob`` [prompt,
            layer, pos, choice] and ``trajectory`` [choice, layer], its mean at the answer position. Layers run from 0
            to ``n_layers``; the last is the model's own output. Positions beyond a prompt hold NaN, and -1 for a token.

        Raises:
            SiteError: a site this model lacks.
            ConfigError: a target that is not one token.

        Cost: one forward pass per prompt, one unembedding per layer and position; a few positions' logits are held.
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
    """The result of a lens, whatever stands between its streams and the readout.

    Args:
        lens: what is read.
        model: the model.
        batch: the prompts.
        execution: how.
        translate: what a trained lens puts between stream and readout.
        method: whose result it is; the lens' own by default.
    """
    batch = batch.to(model.device)
    asked = torch.stack([targets_of(model, batch, one, run=lens.run) for one in (lens.target, *lens.tokens)], -1)
    streams = streams_of(model, batch, lens.site, run=lens.run, interventions=lens.interventions)
    real, k = batch.mask, min(lens.k, model.architecture.d_vocab)
    places = [stream[real] for stream in streams]
    read = reading(model, places, asked[real], k=k, translate=translate, progress=execution.progress)
    data = laid_out(model, batch, read, run=lens.run, over=tuple(lens.over), choices=lens.tokens)
    cost = {"forward_passes": float(len(batch)), "readouts": float(read.entropy.numel())}
    return Result(data, run_info(method or lens, model, batch, cost=cost))
