"""Attention patterns of every head on every prompt, and the queries and keys behind them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechxai.core.activations import Activations
from mechxai.core.batch import ContrastBatch
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.result import Result, variable
from mechxai.core.work_clock import work_seconds
from mechxai.engine.contrast import Run
from mechxai.engine.execution import Execution
from mechxai.methods.layer_selection import selected
from mechxai.methods.result_parts import ALONE, position_labels, run_info, token_texts
from mechxai.model.dense.lookup import dense_model_of
from mechxai.model.hooked_model import HookedModel

_MAX_ERROR = 1e-2  # of the softmax of queries times keys against the pattern


@final
@register(
    MethodCard(
        name="attention_patterns",
        family="attention",
        kind="attention",
        question="What does every head attend to, and which dimensions of its queries and keys make it so?",
        cost="one forward pass per prompt",
        source="Vaswani et al. 2017 (arXiv 1706.03762); the views of Vig 2019 (arXiv 1906.05714)",
        pros="all heads at once, grouped-query and rotary models included; three offline views",
        cons="shows where a head attends, not what it reads there nor whether that is used",
    )
)
@dataclass(frozen=True)
class AttentionPatterns(Method):
    """Patterns, queries and keys of every head.

    Attributes:
        layers: all by default; negative numbers count from the last.
        heads: all by default.
        run: ``clean`` or ``corrupted`` prompts.
        queries: whether to return queries and keys too, for the neuron view.
    """

    layers: Sequence[int] = ()
    heads: Sequence[int] = ()
    run: Run = "clean"
    queries: bool = True

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """The patterns of the model's softmax.

        Returns:
            ``pattern`` [prompt, layer, head, dest_pos, src_pos], NaN outside the prompt; with ``queries``, ``query``
            and ``key`` [prompt, layer, head, pos, d_head], rotated where the model rotates, keys repeated for every
            query head that reads them, so that ``scale * query . key`` is the attention score; ``scale`` [];
            ``token`` [prompt, pos].

        Raises:
            SiteError: a layer or head the model does not have.
            NoSpaceError: the activations do not fit into memory; names their size.
        """
        del execution  # a single pass, in chunks of prompts
        started = work_seconds()
        a = model.architecture
        layers, heads = selected("layer", self.layers, a.n_layers), selected("head", self.heads, a.n_heads)
        batch = batch.to(model.device)
        sites = ["pattern", "q", "k"] if self.queries else ["pattern"]
        acts = model.cache(batch.tokens(self.run), sites, layers=layers, lengths=batch.lengths)
        real = batch.mask.cpu()
        outside = ~(real[:, None, None, :, None] & real[:, None, None, None, :])
        patterns = torch.stack([acts["pattern", layer] for layer in layers], 1)
        pattern = patterns[:, :, heads].float().cpu().masked_fill(outside, torch.nan)
        dims, per_pos = ("prompt", "layer", "head", "dest_pos", "src_pos"), ("prompt", "layer", "head", "pos", "d_head")
        data = {"pattern": variable(dims, pattern.numpy(), "probability", "attention from dest_pos to src_pos")}
        notes: tuple[str, ...] = (ALONE,)
        if self.queries:
            with torch.no_grad():
                query, key, scale = self._queries_and_keys(model, acts, layers)
            error = _softmax_error(patterns, (query, key, scale), batch, causal=a.causal)
            if error <= _MAX_ERROR:
                for name, value in (("query", query), ("key", key)):
                    values = value[:, :, heads].float().cpu().numpy()
                    meaning = f"{name} of each head and position, as its scores read it"
                    data[name] = variable(per_pos, values, "1", meaning)
                data["scale"] = variable((), scale, "1", "factor of the product of query and key")
            else:
                reason = f"the softmax of their products is off by {error:.2g}"
                reason = reason if error < torch.inf else "their sizes differ between layers or heads"
                notes = (*notes, f"no queries and keys: {reason}")
        data["token"] = token_texts(model.text, batch.tokens(self.run), batch.lengths)
        labels = position_labels(batch, list(range(batch.n_pos)))
        coords = {"prompt": list(range(len(batch))), "layer": layers, "head": heads, "pos": labels}
        coords |= {"dest_pos": labels, "src_pos": labels}
        cost = {"forward_passes": 1.0, "seconds": work_seconds() - started}
        return Result(xr.Dataset(data, coords=coords), run_info(self, model, batch, cost=cost, notes=notes))

    def _queries_and_keys(
        self, model: HookedModel, acts: Activations, layers: Sequence[int]
    ) -> tuple[Float[Tensor, "prompt layer head pos d_head"], Float[Tensor, "prompt layer head pos d_head"], float]:
        """Queries and keys after rotation, per query head, and the scale of their products."""
        dense = dense_model_of(model)
        groups = model.architecture.n_heads // model.architecture.n_kv_heads
        queries, keys = list[Tensor](), list[Tensor]()
        for layer in layers:
            q, k = (acts[name, layer] for name in ("q", "k"))
            if dense is not None:
                attention = dense.blocks[layer].attention
                q, k = attention.queries(q, 0), attention.keys(k, 0)
            queries.append(q)
            keys.append(k.repeat_interleave(groups, 2) if k.shape[2] != q.shape[2] else k)
        scale = dense.blocks[0].attention.rule.scale if dense is not None else model.architecture.d_head**-0.5
        if len({part.shape for part in (*queries, *keys)}) > 1:  # heads of different sizes: no array holds them
            nothing = queries[0].new_zeros(1, 1, 1, 1, 1)
            return nothing, nothing, float(scale)
        query, key = (torch.stack(part, 1).transpose(2, 3) for part in (queries, keys))
        return query, key, float(scale)


def _softmax_error(
    pattern: Tensor, query_key_scale: tuple[Tensor, Tensor, float], batch: ContrastBatch, *, causal: bool
) -> float:
    """The largest difference of the softmax of queries times keys from the pattern, ``[prompt, layer, head, d, s]``."""
    query, key, scale = query_key_scale
    if query.shape != key.shape or query.shape[:-1] != pattern.shape[:-1]:
        return float("inf")  # queries and keys of another form (multi-head latent attention)
    real = batch.mask[:, None, None, None, :].expand(-1, 1, 1, batch.n_pos, -1)
    seen = real & torch.ones(batch.n_pos, batch.n_pos, dtype=torch.bool, device=real.device).tril() if causal else real
    scores = scale * (query.float() @ key.float().transpose(-1, -2))
    softmax = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    error = (softmax - pattern.float()).abs().masked_fill(~batch.mask[:, None, None, :, None], 0.0)
    return float(error.max())
