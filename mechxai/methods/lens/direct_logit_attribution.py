"""Direct logit attribution: decompose the logit difference into what each component writes to the residual stream."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, final

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention
from mechxai.core.errors import ModelSupportError, NumericsError
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import LogitDiff
from mechxai.core.result import Result, variable
from mechxai.core.site import Site
from mechxai.engine.contrast import Run
from mechxai.engine.execution import Execution
from mechxai.methods.lens._lib.answer_streams import answer_activations
from mechxai.methods.result_parts import bounded, position_labels, run_info
from mechxai.model.dense.blocks import DenseModel
from mechxai.model.dense.lookup import dense_model_of
from mechxai.model.dense.parts import NeuronMlp
from mechxai.model.hooked_model import HookedModel
from mechxai.model.output_map import output_map
from mechxai.model.readout import as_float, pulled_back

SplitBy = Literal["layer", "head", "neuron", "source"]
_MAX_ERROR = 1e-3  # relative error of the sum, in float32


@final
@register(
    MethodCard(
        name="direct_logit_attribution",
        family="lens",
        kind="contributions",
        question="Which layers, heads, neurons and source tokens wrote the answer into the residual stream?",
        cost="one forward pass per prompt",
        source="Elhage et al. 2021; Wang et al. 2022 (arXiv 2211.00593), section 3.1",
        pros="exact: the parts sum to the logit difference, which is verified",
        cons="direct effects only; effects through later components are not included",
    )
)
@dataclass(frozen=True)
class DirectLogitAttribution(Method):
    """Splits the logit difference at the answer position into direct effects of components; the final norm is frozen.

    Attributes:
        by: ``layer`` (attention and MLP of each layer), ``head`` (attention by head), ``neuron`` (MLPs by neuron too),
            or ``source`` (heads, and each head by the token it reads from).
        run: ``clean`` or ``corrupted``.
        interventions: edits of the run, applied before it is read.

    In models with a soft-cap (Gemma 2), the logits are those before the cap.

    Source: Elhage et al. 2021, 'A Mathematical Framework for Transformer Circuits'; Wang et al. 2022, section 3.1.
    """

    by: SplitBy = "head"
    run: Run = "clean"
    interventions: Sequence[Intervention] = ()

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """Computes the contribution of every component to the logit difference.

        Returns:
            ``value`` [prompt, component] in logits; ``mean`` [component] with its interval; ``logit_diff`` and
            ``residual_error`` (sum of all components minus ``logit_diff``) [prompt]; by head, ``head_value`` [layer,
            head], the mean over prompts; by source, ``source_value`` [prompt, layer, head, pos]. Components: ``embed``,
            ``pos_embed``, ``a{layer}`` or ``a{layer}.h{head}`` and ``a{layer}.bias``, ``m{layer}`` or
            ``m{layer}.n{neuron}`` and ``m{layer}.bias``, ``norm.bias``, ``unembed.bias``.

        Raises:
            ModelSupportError: a model whose components do not add up to its residual stream (post-norm), or whose
                weights cannot be read for this split.
            NumericsError: components that do not sum to the logit difference within 0.1 %; in half precision, within
                the rounding error of 2 n_layers + 2 additions to the residual stream.
            ShapeError: answers of several tokens.

        Cost: one forward pass per prompt.
        """
        del execution
        batch = batch.to(model.device)
        LogitDiff().check(batch)
        _check_support(model, self.by)
        with torch.no_grad():
            return _Decomposition(self, model, batch).result()


def _check_support(model: HookedModel, by: SplitBy) -> None:
    if not model.architecture.causal:
        raise ModelSupportError(
            f"{model.name} normalises what its components write, so its residual stream is not their sum and "
            f"direct logit attribution by {by} is impossible",
            fix="Use a lens, or patching",
        )
    if by in ("neuron", "source") and dense_model_of(model) is None:
        raise ModelSupportError(
            f"The weights of {model.name}'s blocks cannot be read, which direct logit attribution by {by} needs",
            fix="Use by='layer' or by='head'",
        )


@dataclass
class _Decomposition:
    """Decomposes the logit difference of a batch, component by component."""

    method: DirectLogitAttribution
    model: HookedModel
    batch: ContrastBatch
    names: list[str] = field(default_factory=list)
    parts: list[Tensor] = field(default_factory=list)  # [prompt, component]

    def result(self) -> Result:
        a, by = self.model.architecture, self.method.by
        layers = range(a.n_layers)
        last = Site("resid_post", a.n_layers - 1)
        sites = [*(Site("attn_out", layer) for layer in layers), Site("resid_pre", 0), last]
        if not a.attn_only:
            sites += [Site("mlp_out", layer) for layer in layers]
        if a.positions == "standard" and Site("pos_embed").hook in self.model.backend.hooks:
            sites.append(Site("pos_embed"))
        heads = self._head_site
        inner = {"head": (heads,), "neuron": (heads, "mlp_post"), "source": (heads, "v", "pattern")}
        names = [name for name in inner.get(by, ()) if not (a.attn_only and name == "mlp_post")]
        sites += [Site(name, layer) for name in names for layer in layers]
        for site in sites:
            self.model.backend.check(site)
        acts, logits = answer_activations(
            self.model, self.batch, sites, run=self.method.run, interventions=self.method.interventions
        )
        along, norm_bias = pulled_back(self.model, acts[last], self._difference())
        self._embeddings(acts, along)
        for layer in layers:
            self._attention(acts, along, layer)
            if not a.attn_only:
                self._mlp(acts, along, layer)
        self._add("norm.bias", norm_bias[:, None])
        self._add("unembed.bias", self._unembedding_bias()[:, None])
        extra = self._sources(acts, along) if by == "source" else {}
        return self._result_of(self._logit_diff(self._before_cap(logits)), extra)

    # Directions ------------------------------------------------------------------------------------------------------

    def _difference(self) -> Tensor:
        """The direction of the unembedding's input that gives the logit difference, ``[prompt, d_model]``."""
        W_U, _ = self.model.backend.unembedding()
        weights = torch.zeros(len(self.batch), W_U.shape[1], dtype=W_U.dtype, device=W_U.device)
        for ids, sign in ((self.batch.answers[..., 0], 1.0), (self.batch.wrong[..., 0], -1.0)):
            real = ids >= 0  # several answers count by their mean
            weights.scatter_add_(1, ids.clamp(min=0), (sign * real / real.sum(1, keepdim=True)).to(weights))
        return weights @ W_U.T * output_map(self.model.backend).scale

    def _unembedding_bias(self) -> Tensor:
        _, b_U = self.model.backend.unembedding()
        n = len(self.batch)
        return (
            torch.zeros(n, device=self.model.device)
            if b_U is None
            else self._logit_diff(b_U.expand(n, -1) * output_map(self.model.backend).scale)
        )

    def _logit_diff(self, logits: Tensor) -> Tensor:
        """The logit difference of logits ``[prompt, d_vocab]`` at the answer position."""
        return LogitDiff().score(as_float(logits)[:, None], self.batch)

    def _before_cap(self, logits: Tensor) -> Tensor:
        cap = output_map(self.model.backend).softcap
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
            self._add("pos_embed", _projection(position, along)[:, None])
        self._add("embed", _projection(embed, along)[:, None])

    def _attention(self, acts: dict[Site, Tensor], along: Tensor, layer: int) -> None:
        total = _projection(acts[Site("attn_out", layer)], along)[:, None]
        if self.method.by == "layer":
            self._add(f"a{layer}", total)
            return
        if self._head_site == "z":
            z = acts[Site("z", layer)].to(along)
            heads = (z * self._z_direction(z, along, layer)).sum(-1)
        else:
            heads = torch.einsum("rhd,rd->rh", acts[Site("result", layer)].to(along), along)
        self._add([f"a{layer}.h{head}" for head in range(heads.shape[1])], heads)
        self._add(f"a{layer}.bias", total - heads.sum(1, keepdim=True))

    def _z_direction(self, z: Tensor, along: Tensor, layer: int) -> Tensor:
        """The direction of each head's ``z``, ``[prompt, head, d_head]``, with a norm behind attention frozen."""
        block = self._dense.blocks[layer]
        if not block.post1.is_identity:
            along, _ = block.post1.pulled_back(block.attention.o(z.flatten(1).to(block.attention.o.weight)), along)
        return torch.einsum("hed,rd->rhe", self._dense.heads_out(layer).to(along), along)

    def _mlp(self, acts: dict[Site, Tensor], along: Tensor, layer: int) -> None:
        total = _projection(acts[Site("mlp_out", layer)], along)[:, None]
        block = self._dense.blocks[layer] if self.method.by == "neuron" else None
        if block is None or not isinstance(block.mlp, NeuronMlp):
            self._add(f"m{layer}", total)
            return
        out, post = block.mlp.out, acts[Site("mlp_post", layer)]
        if not block.post2.is_identity:
            along, _ = block.post2.pulled_back(out(post.to(out.weight)), along)
        neurons = post.to(along) * (along @ out.weight.T.to(along))
        self._add([f"m{layer}.n{neuron}" for neuron in range(neurons.shape[1])], neurons)
        self._add(f"m{layer}.bias", total - neurons.sum(1, keepdim=True))

    @property
    def _head_site(self) -> str:
        """The site of the heads' outputs: ``z``, or ``result`` if that is edited or the output weights are unknown."""
        edited = any(intervention.site.name == "result" for intervention in self.method.interventions)
        return "result" if edited or dense_model_of(self.model) is None else "z"

    @property
    def _dense(self) -> DenseModel:
        dense = dense_model_of(self.model)
        if dense is None:
            raise ModelSupportError(f"The weights of {self.model.name}'s blocks cannot be read")
        return dense

    def _sources(self, acts: dict[Site, Tensor], along: Tensor) -> dict[str, xr.DataArray]:
        """The contribution of every head by source position."""
        a = self.model.architecture
        by_layer = []
        for layer in range(a.n_layers):
            z_direction = self._z_direction(acts[Site("z", layer)].to(along), along, layer)
            values = self._dense.blocks[layer].attention.values(acts[Site("v", layer)])
            written = torch.einsum("rphe,rhe->rhp", self._dense.by_head(values, 2).to(along), z_direction)
            by_layer.append(acts[Site("pattern", layer)].to(along) * written)
        values = torch.stack(by_layer, 1).double().cpu().numpy()
        values[~np.broadcast_to(self.batch.mask.cpu().numpy()[:, None, None], values.shape)] = np.nan
        meaning = "contribution of each head to the logit difference by source position"
        return {"source_value": variable(("prompt", "layer", "head", "pos"), values, "logits", meaning)}

    # Result ----------------------------------------------------------------------------------------------------------

    def _result_of(self, logit_diff: Tensor, extra: dict[str, xr.DataArray]) -> Result:
        a = self.model.architecture
        values = torch.cat(self.parts, 1).numpy()
        expected = logit_diff.double().cpu().numpy()
        error = values.sum(1) - expected
        relative = np.abs(error) / np.maximum(np.abs(expected), np.abs(values).max(1))
        if not float(relative.max()) <= (largest := self._max_error()):
            worst = relative.argmax()
            raise NumericsError(
                f"The components sum to {values.sum(1)[worst]:.4g}, but the logit difference is {expected[worst]:.4g}",
                allowed=f"an error of {largest:.1%} of the largest component",
                fix="Use float32; if the error persists, the model adds something else to its residual stream",
            )
        unit, meaning = "logits", "contribution of a component to the logit difference"
        if output_map(self.model.backend).softcap:
            meaning += ", before the soft-cap"
        data = {
            "value": variable(("prompt", "component"), values, unit, meaning),
            **bounded(
                "mean", ("component",), values, units=unit, meaning=meaning, title=f"{meaning}, mean over prompts"
            ),
            "logit_diff": variable(("prompt",), expected, unit, "logit difference of the run"),
            "residual_error": variable(("prompt",), error, unit, "sum of the components minus the logit difference"),
        }
        coords: dict[str, object] = {"prompt": list(range(len(self.batch))), "component": self.names}
        if self.method.by != "layer":
            starts = [self.names.index(f"a{layer}.h0") for layer in range(a.n_layers)]
            heads = np.stack([values.mean(0)[start : start + a.n_heads] for start in starts])
            data["head_value"] = variable(("layer", "head"), heads, unit, f"{meaning}, mean over prompts")
            coords |= {"layer": list(range(a.n_layers)), "head": list(range(a.n_heads))}
        if extra:
            coords["pos"] = position_labels(self.batch, range(self.batch.n_pos))
        cost = {"forward_passes": float(len(self.batch))}
        return Result(xr.Dataset(data | extra, coords=coords), run_info(self.method, self.model, self.batch, cost=cost))

    def _max_error(self) -> float:
        """The allowed relative error: twice the rounding error, which grows with the root of the additions."""
        rounding = torch.finfo(self.model.backend.unembedding()[0].dtype).eps
        return max(_MAX_ERROR, 2 * rounding * (2 * self.model.architecture.n_layers + 2) ** 0.5)


def _projection(vectors: Tensor, along: Tensor) -> Tensor:
    """Inner product of each prompt's vector with its direction."""
    return (vectors.to(along) * along).sum(-1)
