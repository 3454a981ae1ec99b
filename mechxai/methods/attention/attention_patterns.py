"""What every head attends to on every prompt, and the queries and keys that make it so."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechxai.core.activations import Activations
from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import check_choice
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.result import Result, variable
from mechxai.engine.execution import Execution
from mechxai.methods.fields import selected
from mechxai.methods.result_parts import ALONE, position_labels, run_info, token_texts
from mechxai.model.dense.lookup import dense_model_of
from mechxai.model.hooked_model import HookedModel

_CLOSE = 1e-2  # the softmax of queries times keys may be off the pattern by so much


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
        cons="shows where a head looks, not what it reads there nor whether that is used",
    )
)
@dataclass(frozen=True)
class AttentionPatterns(Method):
    """Patterns, queries and keys of every head.

    Attributes:
        layers: which; all by default, negative from the last.
        heads: which; all by default.
        run: ``clean`` or ``corrupted`` prompts.
        queries: whether to keep queries and keys too, for the neuron view.
    """

    layers: Sequence[int] = ()
    heads: Sequence[int] = ()
    run: str = "clean"
    queries: bool = True

    def _check_fields(self) -> None:
        check_choice("run", self.run, ("clean", "corrupted"))

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """Patterns as the model's softmax gives them.

        Returns:
            ``pattern`` [prompt, layer, head, dest_pos, src_pos], NaN outside the prompt; with ``queries``, ``query``
            and ``key`` [prompt, layer, head, pos, d_head], rotated where the model rotates, keys with
            every head that reads them, so that ``scale * query . key`` is the attention score; ``scale`` []; ``token``
            [prompt, pos].

        Raises:
            SiteError: a layer or head the model does not have.
            NoSpaceError: more than fits into memory; says how much.
        """
        del execution  # one pass, a few prompts at a time
        started = time.perf_counter()
        a = model.architecture
        layers, heads = selected("layer", self.layers, a.n_layers), selected("head", self.heads, a.n_heads)
        batch = batch.to(model.device)
        sites = ["pattern", "q", "k"] if self.queries else ["pattern"]
        acts = model.cache(batch.tokens(self.run), sites, layers=layers, lengths=batch.lengths)
        real = batch.mask.cpu()
        outside = ~(real[:, None, None, :, None] & real[:, None, None, None, :])
        whole = torch.stack([acts["pattern", layer] for layer in layers], 1)
        pattern = whole[:, :, heads].float().cpu().masked_fill(outside, torch.nan)
        dims, per_pos = ("prompt", "layer", "head", "dest_pos", "src_pos"), ("prompt", "layer", "head", "pos", "d_head")
        data = {"pattern": variable(dims, pattern.numpy(), "probability", "attention from dest_pos to src_pos")}
        notes: tuple[str, ...] = (ALONE,)
        if self.queries:
            query, key, scale = self._rotated(model, acts, layers)
            error = _error(whole, (query, key, scale), batch, causal=a.causal)
            if error <= _CLOSE:
                for name, value in (("query", query), ("key", key)):
                    own = value[:, :, heads].float().cpu().numpy()
                    data[name] = variable(per_pos, own, "1", f"{name} of each head and position, as its scores read it")
                data["scale"] = variable((), scale, "1", "what the product of query and key is multiplied by")
            else:
                notes = (*notes, f"no queries and keys: the softmax of their products is off by {error:.2g}")
        data["token"] = token_texts(model.text, batch.tokens(self.run), batch.lengths)
        labels = position_labels(batch, list(range(batch.n_pos)))
        coords = {"prompt": list(range(len(batch))), "layer": layers, "head": heads, "pos": labels}
        coords |= {"dest_pos": labels, "src_pos": labels}
        cost = {"forward_passes": 1.0, "seconds": time.perf_counter() - started}
        return Result(xr.Dataset(data, coords=coords), run_info(self, model, batch, cost=cost, notes=notes))

    def _rotated(
        self, model: HookedModel, acts: Activations, layers: Sequence[int]
    ) -> tuple[Float[Tensor, "prompt layer head pos d_head"], Float[Tensor, "prompt layer head pos d_head"], float]:
        """Queries and keys as scores read them, by query head, and the scale."""
        plain = dense_model_of(model)
        groups = model.architecture.n_heads // model.architecture.n_kv_heads
        found: list[list[Tensor]] = [[], []]
        for layer in layers:
            q, k = (acts[name, layer] for name in ("q", "k"))
            rotary = plain.blocks[layer].rotary if plain is not None else None
            if rotary is not None:
                q, k = rotary(q, 0), rotary(k, 0)
            found[0].append(q)
            found[1].append(k.repeat_interleave(groups, 2) if k.shape[2] != q.shape[2] else k)
        scale = plain.blocks[0].scale if plain is not None else model.architecture.d_head**-0.5
        query, key = (torch.stack(part, 1).transpose(2, 3) for part in found)
        return query, key, float(scale)


def _error(pattern: Tensor, made: tuple[Tensor, Tensor, float], batch: ContrastBatch, *, causal: bool) -> float:
    """How far the softmax of queries times keys is off the pattern, ``[prompt, layer, head, dest, src]``."""
    query, key, scale = made
    real = batch.mask[:, None, None, None, :].expand(-1, 1, 1, batch.n_pos, -1)
    seen = real & torch.ones(batch.n_pos, batch.n_pos, dtype=torch.bool, device=real.device).tril() if causal else real
    scores = scale * (query.float() @ key.float().transpose(-1, -2))
    own = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    off = (own - pattern.float()).abs().masked_fill(~batch.mask[:, None, None, :, None], 0.0)
    return float(off.max())
