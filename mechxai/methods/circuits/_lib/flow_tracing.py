"""Information flow routes of one prompt, traced from a position's last residual stream down to the tokens."""

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

_TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-3}  # relative error of a sum of addends
_TOLERANCE_IN_HALVES = 5e-2


def sites_read(a: Architecture) -> tuple[str, ...]:
    """The sites that tracing reads, in every layer."""
    names = ("resid_pre", "resid_post", "v", "pattern")
    if a.attn_only:
        return names
    return (*names, "mlp_out") if a.parallel else (*names, "mlp_out", "resid_mid")


@dataclass
class RouteTracer:
    """One prompt's activations, and the importances and flows that `trace` fills in.

    Attributes:
        plain: the model's blocks.
        architecture: of the model.
        acts: site over all positions -> activation of the prompt, ``[pos, ...]`` (patterns
            ``[head, dest_pos, src_pos]``), without padding.
        threshold: edges of larger importance are followed.
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
        a, n_pos = self.architecture, len(self._activation("resid_pre", 0))
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

    def trace(self, start: int) -> None:
        """Follows every edge above the threshold down from a position's last residual stream."""
        self.node[-1, start] = 1.0
        for layer in reversed(range(self.architecture.n_layers)):
            flow = self.node[layer + 1]
            if "residual_mlp" in self.shares:
                flow = self._flow_before_mlp(layer, flow)
            self.node_mid[layer] = flow
            self._trace_attention(layer, flow)

    def _flow_before_mlp(self, layer: int, flow: Tensor) -> Tensor:
        """The flow that reaches the nodes after attention, through the MLP and past it."""
        at = flow.nonzero()[:, 0]
        after, mlp, before = (self._activation(name, layer)[at] for name in ("resid_post", "mlp_out", "resid_mid"))
        self._check_sum(layer, after, [mlp, before])
        importances = self._store_shares(
            layer, at, {"mlp": proximity(mlp, after), "residual_mlp": proximity(before, after)}
        )
        below = torch.zeros_like(flow)
        below[at] = flow[at] * (self._followed(importances["mlp"]) + self._followed(importances["residual_mlp"]))
        return below

    def _trace_attention(self, layer: int, flow: Tensor) -> None:
        """Passes the flow after attention on to the residual stream before the block."""
        at = flow.nonzero()[:, 0]
        after = self._activation("resid_mid" if "residual_mlp" in self.shares else "resid_post", layer)[at]
        addends = {"residual_attention": self._activation("resid_pre", layer)[at], "bias": torch.zeros_like(after)}
        bias = self.plain.blocks[layer].attention.o.bias
        if bias is not None:
            addends["bias"] = addends["bias"] + bias
        if self.architecture.parallel and not self.architecture.attn_only:
            addends["mlp"] = self._activation("mlp_out", layer)[at]
        pattern, out = self._activation("pattern", layer)[:, at], as_float(self.plain.heads_out(layer))
        values = self.plain.by_head(self._activation("v", layer), 1)
        z = torch.einsum("hds,she->dhe", pattern, values)
        self._check_sum(layer, after, [torch.einsum("dhe,hem->dm", z, out), *addends.values()])
        heads = heads_proximity(pattern, values, out, vectors=after, at=at).transpose(0, 1)  # [dest, head, src]
        proximities = {name: proximity(addend, after) for name, addend in addends.items()}
        self._pass_flow(layer, at, self._store_shares(layer, at, {**proximities, "heads": heads}))

    def _pass_flow(self, layer: int, at: Tensor, importances: dict[str, Tensor]) -> None:
        flow = self.node_mid[layer, at]
        self.head_flow[layer] = (flow[:, None] * importances["head_importance"]).sum(0)
        self.bias_flow += float((flow * self._followed(importances["bias"])).sum())
        below = self.node[layer]
        below += (flow[:, None] * self._followed(importances["attention"])).sum(0)
        below[at] += flow * self._followed(importances["residual_attention"])
        if "mlp" in importances:  # a parallel block's MLP reads the residual stream before the block
            below[at] += flow * self._followed(importances["mlp"])

    def _store_shares(self, layer: int, at: Tensor, proximities: dict[str, Tensor]) -> dict[str, Tensor]:
        """Importances from proximities, stored at their nodes; those of heads summed over heads and over sources."""
        importances = dict(zip(proximities, shares(list(proximities.values())), strict=True))
        if "heads" in importances:
            heads = importances.pop("heads")
            importances |= {"attention": heads.sum(1), "head_importance": heads.sum(2)}
        for name, value in importances.items():
            self.shares[name][layer, at] = value.to(self.shares[name])
        return {name: value.double() for name, value in importances.items()}

    def _followed(self, importance: Tensor) -> Tensor:
        return torch.where(importance > self.threshold, importance, 0.0)

    def _activation(self, name: str, layer: int) -> Tensor:
        return as_float(self.acts[Site(name, layer)])

    def _check_sum(self, layer: int, vectors: Tensor, addends: list[Tensor]) -> None:
        """Refuses vectors that are not the sum of their addends, up to the rounding of the largest addend."""
        stacked = torch.stack(addends)
        size = stacked.abs().sum(-1).amax(0).clamp(min=torch.finfo(vectors.dtype).tiny)
        error = ((vectors - stacked.sum(0)).abs().sum(-1) / size).max() if len(vectors) else torch.zeros(())
        dtype = self.acts[Site("resid_pre", layer)].dtype
        if not float(error) <= _TOLERANCES.get(dtype, _TOLERANCE_IN_HALVES):
            raise NumericsError(
                f"The update of layer {layer} to the residual stream is not the sum of its parts: they differ by "
                f"{float(error):.2g} of the largest part",
                fix="Edit q, k, v or pattern of a head instead of z, result or attn_out; without edits, use float32",
            )
