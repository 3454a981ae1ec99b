"""The routes of one prompt, followed from a position at the top down to the input."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mechxai.core.architecture import Architecture
from mechxai.core.errors import NumericsError
from mechxai.core.site import Site
from mechxai.methods.circuits._lib.flow_shares import heads_proximity, proximity, shares
from mechxai.model.dense.blocks import DenseModel
from mechxai.model.readout import as_float

_ALLOWED = {torch.float32: 1e-3, torch.float64: 1e-3}  # relative error of a sum of addends
_ALLOWED_IN_HALVES = 5e-2


def sites_read(a: Architecture) -> tuple[str, ...]:
    """What is read of a run, in every layer."""
    names = ("resid_pre", "resid_post", "v", "pattern")
    if a.attn_only:
        return names
    return (*names, "mlp_out") if a.parallel else (*names, "mlp_out", "resid_mid")


@dataclass
class Tracing:
    """One prompt's run, and what is found of its routes.

    Attributes:
        plain: the model's blocks.
        architecture: of the model.
        acts: whole site -> activation of the prompt, ``[pos, ...]`` (patterns ``[head, dest_pos, src_pos]``), padding
            left out.
        threshold: edges are followed whose importance is larger.
        shares: name -> importances, ``[layer, dest_pos, ...]``, NaN at nodes that are not reached.
        node: flow by node of the residual stream, ``[stream, pos]``.
        node_mid: flow by node after attention, ``[layer, pos]``.
        head_flow: flow through every head, ``[layer, head]``.
        bias_flow: flow that ends in output biases.
    """

    plain: DenseModel
    architecture: Architecture
    acts: Mapping[Site, Tensor]
    threshold: float
    shares: dict[str, Tensor] = field(default_factory=dict)
    node: Tensor = field(init=False)
    node_mid: Tensor = field(init=False)
    head_flow: Tensor = field(init=False)
    bias_flow: float = 0.0

    def __post_init__(self) -> None:
        a, n_pos = self.architecture, len(self._read("resid_pre", 0))
        device = self.acts[Site("resid_pre", 0)].device
        zeros = {"dtype": torch.float64, "device": device}
        self.node = torch.zeros(a.n_layers + 1, n_pos, **zeros)
        self.node_mid = torch.zeros(a.n_layers, n_pos, **zeros)
        self.head_flow = torch.zeros(a.n_layers, a.n_heads, **zeros)
        sizes = {"attention": (n_pos,), "head_importance": (a.n_heads,), "residual_attention": (), "bias": ()}
        sizes |= {} if a.attn_only else {"mlp": ()}
        sizes |= {} if a.attn_only or a.parallel else {"residual_mlp": ()}
        for name, size in sizes.items():
            self.shares[name] = torch.full((a.n_layers, n_pos, *size), torch.nan, device=device)

    def follow(self, start: int) -> "Tracing":
        """Follows every edge above the threshold from a position's last residual stream down; gives itself back."""
        self.node[-1, start] = 1.0
        for layer in reversed(range(self.architecture.n_layers)):
            flow = self.node[layer + 1]
            if "residual_mlp" in self.shares:
                flow = self._after_mlp(layer, flow)
            self.node_mid[layer] = flow
            self._after_attention(layer, flow)
        return self

    def _after_mlp(self, layer: int, flow: Tensor) -> Tensor:
        """The flow that reaches the nodes after attention: an MLP reads the node that its residual edge comes from."""
        at = flow.nonzero()[:, 0]
        whole, mlp, residual = (self._read(name, layer)[at] for name in ("resid_post", "mlp_out", "resid_mid"))
        self._check(layer, whole, [mlp, residual])
        found = self._shared(layer, at, {"mlp": proximity(mlp, whole), "residual_mlp": proximity(residual, whole)})
        below = torch.zeros_like(flow)
        below[at] = flow[at] * (self._kept(found["mlp"]) + self._kept(found["residual_mlp"]))
        return below

    def _after_attention(self, layer: int, flow: Tensor) -> None:
        """Sends the flow on to the residual stream before the block, where it is added up."""
        at = flow.nonzero()[:, 0]
        whole = self._read("resid_mid" if "residual_mlp" in self.shares else "resid_post", layer)[at]
        parts = {"residual_attention": self._read("resid_pre", layer)[at], "bias": torch.zeros_like(whole)}
        bias = self.plain.blocks[layer].o.bias
        if bias is not None:
            parts["bias"] = parts["bias"] + bias
        if self.architecture.parallel and not self.architecture.attn_only:
            parts["mlp"] = self._read("mlp_out", layer)[at]
        pattern, out = self._read("pattern", layer)[:, at], as_float(self.plain.heads_out(layer))
        values = self.plain.by_head(self._read("v", layer), 1)
        read = torch.einsum("hds,she->dhe", pattern, values)
        self._check(layer, whole, [torch.einsum("dhe,hem->dm", read, out), *parts.values()])
        heads = heads_proximity(pattern, values, out, whole=whole, at=at).transpose(0, 1)  # [dest, head, src]
        near = {name: proximity(part, whole) for name, part in parts.items()}
        found = self._shared(layer, at, {**near, "heads": heads})
        self._pass_on(layer, at, found)

    def _pass_on(self, layer: int, at: Tensor, found: dict[str, Tensor]) -> None:
        flow = self.node_mid[layer, at]
        self.head_flow[layer] = (flow[:, None] * found["head_importance"]).sum(0)
        self.bias_flow += float((flow * self._kept(found["bias"])).sum())
        below = self.node[layer]
        below += (flow[:, None] * self._kept(found["attention"])).sum(0)
        below[at] += flow * self._kept(found["residual_attention"])
        if "mlp" in found:  # of a parallel block: it reads what the residual edge comes from
            below[at] += flow * self._kept(found["mlp"])

    def _shared(self, layer: int, at: Tensor, near: dict[str, Tensor]) -> dict[str, Tensor]:
        """Proximities as importances, kept at the nodes that they belong to; heads by source, and by head."""
        found = dict(zip(near, shares(list(near.values())), strict=True))
        if "heads" in found:
            heads = found.pop("heads")
            found |= {"attention": heads.sum(1), "head_importance": heads.sum(2)}
        for name, value in found.items():
            self.shares[name][layer, at] = value.to(self.shares[name])
        return {name: value.double() for name, value in found.items()}

    def _kept(self, importance: Tensor) -> Tensor:
        return torch.where(importance > self.threshold, importance, 0.0)

    def _read(self, name: str, layer: int) -> Tensor:
        return as_float(self.acts[Site(name, layer)])

    def _check(self, layer: int, whole: Tensor, parts: list[Tensor]) -> None:
        """Refuses a vector that is not the sum of its parts, up to the rounding of the largest of them."""
        added = torch.stack(parts)
        size = added.abs().sum(-1).amax(0).clamp(min=torch.finfo(whole.dtype).tiny)
        off = ((whole - added.sum(0)).abs().sum(-1) / size).max() if len(whole) else torch.zeros(())
        dtype = self.acts[Site("resid_pre", layer)].dtype
        if not float(off) <= _ALLOWED.get(dtype, _ALLOWED_IN_HALVES):
            raise NumericsError(
                f"What layer {layer} adds to its residual stream is not the sum of its parts",
                got=f"{float(off):.2g} of it is missing or too much",
                fix="edit q, k, v or pattern of a head instead of z, result or attn_out; without edits, use float32",
            )
