"""Direct logit attribution: the logit difference as a sum over what every component wrote."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention
from mechxai.core.errors import ModelSupportError, NumericsError, check_choice
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import LogitDiff
from mechxai.core.result import Result, variable
from mechxai.core.site import Site
from mechxai.engine.contrast import RUNS
from mechxai.engine.execution import Execution
from mechxai.methods.lens._lib.answer_streams import at_answers
from mechxai.methods.result_parts import bounded, position_labels, run_info
from mechxai.model.dense.blocks import DenseModel
from mechxai.model.dense.lookup import dense_model_of
from mechxai.model.hooked_model import HookedModel
from mechxai.model.readout import as_float, pulled_back

KINDS = ("layer", "head", "neuron", "source")
_ALLOWED = 1e-3  # relative error of the sum, in float32


@final
@register(
    MethodCard(
        name="direct_logit_attribution",
        family="lens",
        kind="contributions",
        question="Which layers, heads, neurons and source tokens wrote the answer into the residual stream?",
        cost="one forward pass per prompt",
        source="Elhage et al. 2021; Wang et al. 2022 (arXiv 2211.00593), section 3.1",
        pros="exact: the parts sum to the logit difference, which is checked",
        cons="direct effects only; what a component makes later ones do is not in it",
    )
)
@dataclass(frozen=True)
class DirectLogitAttribution(Method):
    """Splits the logit difference at the answer position into what each component wrote, the final norm's scale frozen.

    Attributes:
        by: ``layer`` (attention and MLP of each layer), ``head`` (attention by head), ``neuron`` (MLPs by neuron too),
            or ``source`` (heads, and each head by the token it read from).
        run: ``clean`` or ``corrupted``.
        interventions: edits of the run, made before it is read.

    The logits are taken before a soft-cap where the model has one (Gemma 2).

    Source: Elhage et al. 2021, 'A Mathematical Framework for Transformer Circuits'; Wang et al. 2022, section 3.1.
    """

    by: str = "head"
    run: str = "clean"
    interventions: Sequence[Intervention] = ()

    def _check_fields(self) -> None:
        for name, allowed in (("by", KINDS), ("run", RUNS)):
            check_choice(name, getattr(self, name), allowed)

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """What every component adds to the logit difference.

        Returns:
            ``value`` [prompt, component] in logits; ``mean`` [component] with its interval; ``logit_diff`` and
            ``residual_error`` (the sum of all components minus it) [prompt]; by head, ``head_value`` [layer, head], the
            mean over prompts; by source, ``source_value`` [prompt, layer, head, pos]. Components: ``embed``,
            ``pos_embed``, ``a{layer}`` or ``a{layer}.h{head}`` and ``a{layer}.bias``, ``m{layer}`` or
            ``m{layer}.n{neuron}`` and ``m{layer}.bias``, ``norm.bias``, ``unembed.bias``.

        Raises:
            ModelSupportError: a model whose parts do not add up to its residual stream (post-norm), or lacks a form.
            NumericsError: the components do not sum to the logit difference within 0.1 %; in half precision, where each
                of 2 n_layers + 2 additions to the residual stream rounds, within what these errors come to.
            ShapeError: answers of several tokens.

        Cost: one forward pass per prompt.
        """
        del execution
        batch = batch.to(model.device)
        LogitDiff().check(batch)
        _check(model, self.by)
        with torch.no_grad():
            return _Splitting(self, model, batch).result()


def _check(model: HookedModel, by: str) -> None:
    normed_after = getattr(model.inner.cfg, "use_normalization_before_and_after", False)
    if not model.architecture.causal or (by != "layer" and normed_after):
        raise ModelSupportError(
            f"Direct logit attribution by {by} of {model.name} was asked",
            got="what its parts write is normed before or after it is added, so that it is no sum of them",
            fix="use a lens, or patching" if not model.architecture.causal else "use by='layer'",
        )
    if by in ("neuron", "source") and dense_model_of(model) is None:
        raise ModelSupportError(
            f"Direct logit attribution by {by} of {model.name} was asked",
            got="blocks of a kind whose weights are not read",
            fix="use by='layer' or by='head'",
        )


@dataclass
class _Splitting:
    """The run's activations at the answer, and the direction along which they are read."""

    method: DirectLogitAttribution
    model: HookedModel
    batch: ContrastBatch
    names: list[str] = field(default_factory=list)
    parts: list[Tensor] = field(default_factory=list)  # [prompt, component]

    def result(self) -> Result:
        a, by = self.model.architecture, self.method.by
        layers = range(a.n_layers)
        last = Site("resid_post", a.n_layers - 1)
        wanted = [*(Site("attn_out", layer) for layer in layers), Site("resid_pre", 0), last]
        if not a.attn_only:
            wanted += [Site("mlp_out", layer) for layer in layers]
        if a.positions == "standard" and Site("pos_embed").hook in self.model.backend.hooks:
            wanted.append(Site("pos_embed"))
        heads = self._heads_at
        inner = {"head": (heads,), "neuron": (heads, "mlp_post"), "source": (heads, "v", "pattern")}
        names = [name for name in inner.get(by, ()) if not (a.attn_only and name == "mlp_post")]
        wanted += [Site(name, layer) for name in names for layer in layers]
        for site in wanted:
            self.model.backend.check(site)
        acts, logits = at_answers(
            self.model, self.batch, wanted, run=self.method.run, interventions=self.method.interventions
        )
        along, of_norm = pulled_back(self.model, acts[last], self._difference())
        self._embeddings(acts, along)
        for layer in layers:
            self._attention(acts, along, layer)
            if not a.attn_only:
                self._mlp(acts, along, layer)
        self._add("norm.bias", of_norm[:, None])
        self._add("unembed.bias", self._of_bias()[:, None])
        extra = self._sources(acts, along) if by == "source" else {}
        return self._summed(self._logit_diff(self._before_cap(logits)), extra)

    # Directions ------------------------------------------------------------------------------------------------------

    def _difference(self) -> Tensor:
        """Along this the unembedding's input gives the logit difference, ``[prompt, d_model]``."""
        W_U, _ = self.model.backend.unembedding()
        weights = torch.zeros(len(self.batch), W_U.shape[1], dtype=W_U.dtype, device=W_U.device)
        for ids, sign in ((self.batch.answers[..., 0], 1.0), (self.batch.wrong[..., 0], -1.0)):
            known = ids >= 0  # alternatives count by their mean
            weights.scatter_add_(1, ids.clamp(min=0), (sign * known / known.sum(1, keepdim=True)).to(weights))
        return weights @ W_U.T

    def _of_bias(self) -> Tensor:
        _, b_U = self.model.backend.unembedding()
        n = len(self.batch)
        return torch.zeros(n, device=self.model.device) if b_U is None else self._logit_diff(b_U.expand(n, -1))

    def _logit_diff(self, logits: Tensor) -> Tensor:
        """The metric of logits at the answer position, ``[prompt, d_vocab]``."""
        return LogitDiff().score(as_float(logits)[:, None], self.batch)

    def _before_cap(self, logits: Tensor) -> Tensor:
        cap = self.model.architecture.logit_softcap
        return cap * torch.atanh(logits / cap) if cap else logits

    # Parts -----------------------------------------------------------------------------------------------------------

    def _add(self, name: str | list[str], part: Tensor) -> None:
        self.names += [name] if isinstance(name, str) else name
        self.parts.append(part.double().cpu())

    def _embeddings(self, acts: dict[Site, Tensor], along: Tensor) -> None:
        embed = acts[Site("resid_pre", 0)]
        if Site("pos_embed") in acts:
            position = acts[Site("pos_embed")].expand_as(embed)
            embed = embed - position
            self._add("pos_embed", _read(position, along)[:, None])
        self._add("embed", _read(embed, along)[:, None])

    def _attention(self, acts: dict[Site, Tensor], along: Tensor, layer: int) -> None:
        whole = _read(acts[Site("attn_out", layer)], along)[:, None]
        if self.method.by == "layer":
            self._add(f"a{layer}", whole)
            return
        if self._heads_at == "z":
            toward = torch.einsum("hed,rd->rhe", self._plain.heads_out(layer).to(along), along)
            heads = (acts[Site("z", layer)].to(along) * toward).sum(-1)
        else:
            heads = torch.einsum("rhd,rd->rh", acts[Site("result", layer)].to(along), along)
        self._add([f"a{layer}.h{head}" for head in range(heads.shape[1])], heads)
        self._add(f"a{layer}.bias", whole - heads.sum(1, keepdim=True))

    def _mlp(self, acts: dict[Site, Tensor], along: Tensor, layer: int) -> None:
        whole = _read(acts[Site("mlp_out", layer)], along)[:, None]
        out = self._plain.blocks[layer].mlp_out if self.method.by == "neuron" else None
        if out is None:
            self._add(f"m{layer}", whole)
            return
        neurons = acts[Site("mlp_post", layer)].to(along) * (along @ out.weight.T.to(along))
        self._add([f"m{layer}.n{neuron}" for neuron in range(neurons.shape[1])], neurons)
        self._add(f"m{layer}.bias", whole - neurons.sum(1, keepdim=True))

    @property
    def _heads_at(self) -> str:
        """Where heads are read: at ``z``, through weights that are known; else what TransformerLens makes of it."""
        edited = any(one.site.name == "result" for one in self.method.interventions)
        return "result" if edited or dense_model_of(self.model) is None else "z"

    @property
    def _plain(self) -> DenseModel:
        plain = dense_model_of(self.model)
        if plain is None:
            raise ModelSupportError(f"Weights of {self.model.name} were asked")
        return plain

    def _sources(self, acts: dict[Site, Tensor], along: Tensor) -> dict[str, xr.DataArray]:
        """Every head by the token it read from."""
        a = self.model.architecture
        found = []
        for layer in range(a.n_layers):
            toward = torch.einsum("hed,rd->rhe", self._plain.heads_out(layer).to(along), along)
            v = self._plain.by_head(acts[Site("v", layer)], 2).to(along)
            written = torch.einsum("rphe,rhe->rhp", v, toward)
            found.append(acts[Site("pattern", layer)].to(along) * written)
        values = torch.stack(found, 1).double().cpu().numpy()
        values[~np.broadcast_to(self.batch.mask.cpu().numpy()[:, None, None], values.shape)] = np.nan
        meaning = "what each head writes towards the answer from each position it reads"
        return {"source_value": variable(("prompt", "layer", "head", "pos"), values, "logits", meaning)}

    # Result ----------------------------------------------------------------------------------------------------------

    def _summed(self, logit_diff: Tensor, extra: dict[str, xr.DataArray]) -> Result:
        a = self.model.architecture
        values = torch.cat(self.parts, 1).numpy()
        right = logit_diff.double().cpu().numpy()
        error = values.sum(1) - right
        relative = np.abs(error) / np.maximum(np.abs(right), np.abs(values).max(1))
        if not float(relative.max()) <= (allowed := self._allowed()):
            raise NumericsError(
                "The components do not sum to the logit difference",
                got=f"{values.sum(1)[relative.argmax()]:.4g} against {right[relative.argmax()]:.4g}",
                allowed=f"{allowed:.1%} of the largest of them apart",
                fix="use float32; if it persists, the model adds something to its residual stream that is no component",
            )
        unit, meaning = "logits", "what a component adds to the logit difference"
        if a.logit_softcap:
            meaning += ", before the soft-cap"
        data = {
            "value": variable(("prompt", "component"), values, unit, meaning),
            **bounded(
                "mean", ("component",), values, units=unit, meaning=meaning, title=f"{meaning}, mean over prompts"
            ),
            "logit_diff": variable(("prompt",), right, unit, "logit difference of the run"),
            "residual_error": variable(("prompt",), error, unit, "sum of the components minus the logit difference"),
        }
        coords: dict[str, object] = {"prompt": list(range(len(self.batch))), "component": self.names}
        if self.method.by != "layer":
            at = [self.names.index(f"a{layer}.h0") for layer in range(a.n_layers)]
            heads = np.stack([values.mean(0)[first : first + a.n_heads] for first in at])
            data["head_value"] = variable(("layer", "head"), heads, unit, f"{meaning}, mean over prompts")
            coords |= {"layer": list(range(a.n_layers)), "head": list(range(a.n_heads))}
        if extra:
            coords["pos"] = position_labels(self.batch, range(self.batch.n_pos))
        cost = {"forward_passes": float(len(self.batch))}
        return Result(xr.Dataset(data | extra, coords=coords), run_info(self.method, self.model, self.batch, cost=cost))

    def _allowed(self) -> float:
        """Rounding errors of additions grow with the root of their number; twice that, as they happen to fall."""
        rounding = torch.finfo(self.model.backend.unembedding()[0].dtype).eps
        return max(_ALLOWED, 2 * rounding * (2 * self.model.architecture.n_layers + 2) ** 0.5)


def _read(vectors: Tensor, along: Tensor) -> Tensor:
    """Each prompt's vector along its direction."""
    return (vectors.to(along) * along).sum(-1)
