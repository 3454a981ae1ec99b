"""Information flow routes: which edges of the residual stream's graph matter, read from one pass without any edit."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mechxai.core.architecture import Architecture
from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention
from mechxai.core.errors import ConfigError, SiteError, check_choice
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.result import Result, variable
from mechxai.core.site import Site
from mechxai.engine.contrast import RUNS
from mechxai.engine.execution import Execution
from mechxai.engine.progress import ProgressBar
from mechxai.methods.circuits._lib.flow_tracing import Tracing, sites_read
from mechxai.methods.result_parts import bounded, position_labels, run_info, token_texts
from mechxai.model.backends.limits import check_space
from mechxai.model.graph.writes import graph_blocks
from mechxai.model.hooked_model import HookedModel

_TOKENS_AT_ONCE = 1024  # of which activations are held
_NODES = ("prompt", "layer", "dest_pos")
# name -> its dims and what it is
_SHARES = {
    "attention": ((*_NODES, "src_pos"), "importance of what all heads bring from src_pos to dest_pos"),
    "head_importance": ((*_NODES, "head"), "importance of what each head brings from all positions to dest_pos"),
    "residual_attention": (_NODES, "importance of the residual stream as it stood before attention"),
    "bias": (_NODES, "importance of the output bias of attention"),
    "mlp": (_NODES, "importance of what the MLP writes"),
    "residual_mlp": (_NODES, "importance of the residual stream as it stood before the MLP"),
}
_CLOSENESS = "closeness is no causation: a part that nothing reads can be near the vector it is added into"


@final
@register(
    MethodCard(
        name="information_flow_routes",
        family="circuits",
        kind="routes",
        question="Along which edges, from token to token and layer to layer, did what stands at a position come there?",
        cost="one forward pass per prompt",
        source="Ferrando & Voita 2024 (arXiv 2403.00824), the method of the LLM Transparency Tool",
        pros="no counterfactual prompt, no answer, no edit: any text, any position, its whole graph from one pass",
        cons="closeness of vectors is no causation: an edge counts by size and direction, though nothing may read what "
        "it brings, and a small one that is read may decide; depends on how weights are folded",
    )
)
@dataclass(frozen=True)
class InformationFlowRoutes(Method):
    """Traces a position's last residual stream down to the tokens, along edges that matter to the vectors they end in.

    Nodes are the residual stream of each position before each block, after each attention, and after the last block.
    A vector ``y`` that is a sum of addends ``z`` takes from each of them ``max(0, ||y|| - ||y - z||)``, in the 1-norm,
    as a share of that of all: the importance of the edge. After attention the addends are the residual stream, what
    every head brings from every position (value biases included) and the output bias; after the MLP, the residual
    stream and what the MLP writes. In parallel blocks all of them end in one node; models without MLPs lack the second.

    The flow that reaches a node is the product of importances along a route, added up over all routes of edges above
    the threshold. Heads of one pair of positions are one edge, as in the authors' tool. An MLP's edge leads on to the
    node it reads, at the same position. The output bias leads nowhere, so its flow ends; the tool leaves it out. Folded
    weights hold value biases in it and centred vectors in the residual stream, so importances differ from raw ones.

    Closeness is no causation: a part that nothing reads can be near the vector it is added into. `Ablation` and
    `EdgePatching` say what an edge does.

    Attributes:
        threshold: edges of larger importance are followed, from 0 (all) to below 1.
        pos: position traced from, negative from each prompt's end, or a role; where the answer is said by default.
        run: ``clean`` or ``corrupted``.
        interventions: edits of the run, made before it is read; the pattern or value of a head, not its ``z``.

    Example:
        >>> import mechxai as mx
        >>> model = mx.load("zoo/handmade-induction")
        >>> r = mx.InformationFlowRoutes()(model, mx.tasks.induction(model, n=4))
        >>> r.data["head_flow"].dims
        ('layer', 'head')

    Source: Ferrando & Voita 2024, 'Information Flow Routes: Automatically Interpreting Language Models at Scale'.
    """

    threshold: float = 0.02
    pos: int | str | None = None
    run: str = "clean"
    interventions: Sequence[Intervention] = ()

    def _check_fields(self) -> None:
        check_choice("run", self.run, RUNS)
        if not 0 <= self.threshold < 1:
            raise ConfigError(f"information_flow_routes with threshold={self.threshold}", allowed="from 0 to below 1")

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """Importances of the edges into every node that is reached, and how much flow reaches it.

        Returns:
            ``head_flow`` [layer, head], the flow through each head (that at the nodes it writes to, times its
            importance), mean over prompts, with its interval; ``input`` [prompt, pos], the flow that arrives at each
            token; ``node`` [prompt, stream, pos], that at the residual stream before every block and after the last (1
            at ``start``), ``node_mid`` [prompt, layer, pos], that after attention; ``bias_flow`` [prompt], what ends in
            output biases; ``start`` [prompt], the position traced from; ``token`` [prompt, pos].

            Importances, [prompt, layer, dest_pos]: ``attention`` [..., src_pos] of all heads together,
            ``head_importance`` [..., head] of all positions together, ``residual_attention`` and ``bias``, which with
            ``attention`` add up to 1; ``mlp`` and ``residual_mlp``, likewise. In parallel blocks ``mlp`` belongs to the
            first sum, and there is no ``residual_mlp``. Flow is 0 at nodes that are not reached, their importances are
            NaN; so is everything beyond a prompt.

        Raises:
            ModelSupportError: a model whose residual stream is not known to be the sum of what its parts write.
            NumericsError: it is not: an intervention put something in that is no part, or precision is too low.
            SiteError: a position that a prompt does not have.
            NoSpaceError: more than fits into memory; says how much.

        Cost: one forward pass per prompt; and for every node that is reached a vector by head and position before it,
        a few at a time.
        """
        started = time.perf_counter()
        batch = batch.to(model.device)
        blocks, starts = graph_blocks(model), self._starts(batch)
        found = _room(model.architecture, batch)
        with ProgressBar("information flow routes", len(batch), shown=execution.progress, unit="prompts") as bar:
            for row, acts in self._runs(model, batch):
                routes = Tracing(blocks.dense, model.architecture, acts, self.threshold)
                _write(found, row, routes.follow(starts[row]))
                bar.advance(1)
        data = _variables(found) | {
            "start": variable(("prompt",), starts, "position", "position traced from"),
            "token": token_texts(model.text, batch.tokens(self.run), batch.lengths),
        }
        cost = {"forward_passes": float(len(batch)), "seconds": time.perf_counter() - started}
        info = run_info(self, model, batch, cost=cost, notes=(_CLOSENESS,))
        return Result(xr.Dataset(data, coords=_coords(model.architecture, batch)), info)

    def _starts(self, batch: ContrastBatch) -> list[int]:
        """The position each prompt is traced from."""
        if self.pos is None:
            return batch.answer_pos.tolist()
        at, valid = batch.layout.positions(self.pos)
        if not bool(valid.all()):
            short = int(batch.lengths.min())
            raise SiteError(
                f"Position {self.pos} was asked as the start of routes",
                got=f"a prompt of {short} tokens",
                allowed=f"{-short} to {short - 1}, which all prompts have",
            )
        return at.tolist()

    def _runs(self, model: HookedModel, batch: ContrastBatch) -> Iterator[tuple[int, dict[Site, Tensor]]]:
        """Every prompt's run; a few are run together.

        Yields:
            The prompt's number, and its activations without padding.
        """
        names = sites_read(model.architecture)
        for rows, part in batch.parts(max(1, _TOKENS_AT_ONCE // batch.n_pos)):
            acts = model.cache(
                part.tokens(self.run),
                names,
                lengths=part.lengths,
                interventions=[one.rows(rows) for one in self.interventions],
                layout=part.layout,
            )
            for row, n in enumerate(part.lengths.tolist()):
                yield rows.start + row, {site: _own(site, acts[site][row], n) for site in acts}


def _own(site: Site, activation: Tensor, n: int) -> Tensor:
    """A prompt's activation without padding."""
    return activation[:, :n, :n] if site.name == "pattern" else activation[:n]


def _room(a: Architecture, batch: ContrastBatch) -> dict[str, np.ndarray]:
    """Where every prompt's routes are written, NaN so far."""
    n, n_pos = len(batch), batch.n_pos
    sizes = {"prompt": n, "layer": a.n_layers, "dest_pos": n_pos, "src_pos": n_pos, "head": a.n_heads}
    absent = {"mlp", "residual_mlp"} if a.attn_only else {"residual_mlp"} if a.parallel else set[str]()
    shapes = {name: tuple(sizes[dim] for dim in dims) for name, (dims, _) in _SHARES.items() if name not in absent}
    check_space(4 * sum(map(math.prod, shapes.values())), f"the routes of {n} x {n_pos} tokens", torch.device("cpu"))
    found = {name: np.full(shape, np.nan, dtype=np.float32) for name, shape in shapes.items()}
    flows = {
        "node": (n, a.n_layers + 1, n_pos),
        "node_mid": (n, a.n_layers, n_pos),
        "head_flow": (n, a.n_layers, a.n_heads),
        "bias_flow": (n,),
    }
    return found | {name: np.full(shape, np.nan) for name, shape in flows.items()}


def _write(found: dict[str, np.ndarray], row: int, routes: Tracing) -> None:
    n = routes.node.shape[1]
    for name, value in routes.shares.items():
        sources = (slice(n),) if name == "attention" else ()
        found[name][(row, slice(None), slice(n), ..., *sources)] = value.cpu().numpy()
    found["node"][row, :, :n] = routes.node.cpu().numpy()
    found["node_mid"][row, :, :n] = routes.node_mid.cpu().numpy()
    found["head_flow"][row] = routes.head_flow.cpu().numpy()
    found["bias_flow"][row] = routes.bias_flow


def _variables(found: dict[str, np.ndarray]) -> dict[str, xr.DataArray]:
    through = "flow through each head: flow at the nodes it writes to, times its importance there"
    node, unit = found["node"], "fraction"
    return {
        **bounded("head_flow", ("layer", "head"), found["head_flow"], units=unit, meaning=through),
        "input": variable(("prompt", "pos"), node[:, 0], unit, "flow that arrives at each token"),
        "node": variable(("prompt", "stream", "pos"), node, unit, "flow that reaches the residual stream"),
        "node_mid": variable(
            ("prompt", "layer", "pos"), found["node_mid"], unit, "flow that reaches the residual stream after attention"
        ),
        "bias_flow": variable(("prompt",), found["bias_flow"], unit, "flow that ends in output biases of attention"),
        **{
            name: variable(dims, found[name], unit, meaning)
            for name, (dims, meaning) in _SHARES.items()
            if name in found
        },
    }


def _coords(a: Architecture, batch: ContrastBatch) -> dict[str, object]:
    """Layers and heads by number, streams from 0 (before the first block) up, positions by their tokens."""
    labels = position_labels(batch, range(batch.n_pos))
    numbers = {"prompt": len(batch), "layer": a.n_layers, "stream": a.n_layers + 1, "head": a.n_heads}
    coords: dict[str, object] = {dim: list(range(n)) for dim, n in numbers.items()}
    return coords | dict.fromkeys(("pos", "dest_pos", "src_pos"), labels)
