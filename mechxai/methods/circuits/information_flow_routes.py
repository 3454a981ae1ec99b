"""Information flow routes: the important edges of the residual stream's graph, from one forward pass without edits."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import final

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mechxai.core.activations import Activations
from mechxai.core.architecture import Architecture
from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention
from mechxai.core.errors import ConfigError, ModelSupportError, SiteError
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.result import Result, variable
from mechxai.core.site import Site
from mechxai.core.work_clock import work_seconds
from mechxai.engine.checkpoint import ARRAYS
from mechxai.engine.contrast import Run
from mechxai.engine.execution import Execution
from mechxai.engine.finished import FinishedPieces
from mechxai.engine.progress import ProgressBar
from mechxai.methods.circuits._lib.flow_tracing import RouteTracer, sites_read
from mechxai.methods.result_parts import bounded, position_labels, run_info, token_texts
from mechxai.model.backends.limits import check_space
from mechxai.model.graph.writes import graph_blocks
from mechxai.model.hooked_model import HookedModel

_TOKENS_AT_ONCE = 1024  # whose activations are in memory
_NODES = ("prompt", "layer", "dest_pos")
# name -> dims and meaning
_SHARES = {
    "attention": ((*_NODES, "src_pos"), "importance of the output of all heads from src_pos at dest_pos"),
    "head_importance": ((*_NODES, "head"), "importance of each head's output at dest_pos"),
    "residual_attention": (_NODES, "importance of the residual stream before attention"),
    "bias": (_NODES, "importance of the output bias of attention"),
    "mlp": (_NODES, "importance of the MLP's output"),
    "residual_mlp": (_NODES, "importance of the residual stream before the MLP"),
}
_CLOSENESS = "closeness is not causation: an addend that nothing reads can be near the vector it is added to"


@final
@register(
    MethodCard(
        name="information_flow_routes",
        family="circuits",
        kind="routes",
        question="Along which edges, token to token and layer to layer, does information reach a position?",
        cost="one forward pass per prompt",
        source="Ferrando & Voita 2024 (arXiv 2403.00824), the method of the LLM Transparency Tool",
        pros="no counterfactual prompt, no answer, no edit: any text, any position, its whole graph from one pass",
        cons="closeness of vectors is not causation: an edge counts by size and direction, even if nothing reads "
        "it, and a small edge may decide; depends on how weights are folded",
    )
)
@dataclass(frozen=True)
class InformationFlowRoutes(Method):
    """Traces a position's last residual stream down to the tokens, along edges above a threshold of importance.

    Nodes are the residual stream of each position before each block, after each attention, and after the last block.
    The importance of an edge is the proximity ``max(0, ||y|| - ||y - z||)`` of its addend ``z`` to the node's vector
    ``y``, in the 1-norm, as a share of the proximities of all addends. After attention the addends are the residual
    stream, every head's output from every position (value biases included) and the output bias; after the MLP, the
    residual stream and the MLP's output. In parallel blocks all of them end in one node; models without MLPs have only
    the first.

    The flow that reaches a node is the product of importances along a route, summed over all routes of edges above
    the threshold. Heads of one pair of positions are one edge, as in the authors' tool. An MLP's edge leads on to the
    node it reads, at the same position. The output bias leads nowhere, so its flow ends; the tool ignores it. Folded
    weights move value biases into it and centre the residual stream, so importances differ from those of raw weights.

    Closeness is not causation: an addend that nothing reads can be near the vector it is added to. `Ablation` and
    `EdgePatching` measure the effect of an edge.

    Attributes:
        threshold: edges of larger importance are followed, from 0 (all) to below 1.
        pos: position to trace from, negative from each prompt's end, or a role; the answer position by default.
        run: ``clean`` or ``corrupted``.
        interventions: edits of the run before it is read; of the pattern or value of a head, not its ``z``.

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
    run: Run = "clean"
    interventions: Sequence[Intervention] = ()

    def _check_fields(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ConfigError(f"threshold is {self.threshold}", allowed="from 0 to below 1")

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """Importances of the edges into every node that flow reaches, and the flow at each node.

        Returns:
            ``head_flow`` [layer, head], the flow through each head (the flow at the nodes it writes to, times its
            importance), mean over prompts, with its interval; ``input`` [prompt, pos], the flow at each token; ``node``
            [prompt, stream, pos], the flow at the residual stream before every block and after the last (1 at
            ``start``); ``node_mid`` [prompt, layer, pos], the flow after attention; ``bias_flow`` [prompt], the flow
            that ends in output biases; ``start`` [prompt], the position traced from; ``token`` [prompt, pos].

            Importances, [prompt, layer, dest_pos]: ``attention`` [..., src_pos] of all heads together,
            ``head_importance`` [..., head] of all positions together, ``residual_attention`` and ``bias``, which with
            ``attention`` add up to 1; ``mlp`` and ``residual_mlp``, which add up to 1. In parallel blocks ``mlp``
            belongs to the first sum, and there is no ``residual_mlp``. At nodes that no flow reaches the flow is 0 and
            importances are NaN; beyond a prompt's end everything is NaN.

        Raises:
            ModelSupportError: a model whose residual stream is not known to be the sum of its parts.
            NumericsError: a residual stream that is not the sum of its parts: an intervention changed it elsewhere, or
                precision is too low.
            SiteError: a position that a prompt does not have.
            NoSpaceError: importances that do not fit into memory; says how much they take.

        Cost: one forward pass per prompt; and for every node that flow reaches one vector per head and earlier
        position, a few at a time.
        """
        started = work_seconds()
        batch = batch.to(model.device)
        blocks, starts = graph_blocks(model, batch.n_pos), self._starts(batch)
        if blocks.normed_layers():
            raise ModelSupportError(
                f"{model.name} has a norm behind its attention, so that what enters its residual stream is not the sum "
                "of its heads and information_flow_routes cannot share it among them",
                fix="Use mx.EdgePatching or mx.DirectLogitAttribution, which let the norm respond",
            )
        arrays = _empty_arrays(model.architecture, batch)

        def traced(row: int, acts: Callable[[], dict[Site, Tensor]]) -> dict[str, np.ndarray]:
            tracer = RouteTracer(blocks.dense, model.architecture, acts(), self.threshold)
            tracer.trace(starts[row])
            _write_row(arrays, row, tracer)
            return {name: np.asarray(values[row]) for name, values in arrays.items()}

        with (
            FinishedPieces(execution.cells, "flow routes", self, model, batch, serializer=ARRAYS) as finished,
            ProgressBar("information flow routes", len(batch), shown=execution.progress, unit="prompts") as bar,
        ):
            for row, acts in self._runs(model, batch):
                for name, values in finished.take(row, partial(traced, row, acts)).items():
                    arrays[name][row] = values
                bar.advance(1)
        data = _variables(arrays) | {
            "start": variable(("prompt",), starts, "position", "position traced from"),
            "token": token_texts(model.text, batch.tokens(self.run), batch.lengths),
        }
        cost = {"forward_passes": float(len(batch)), "seconds": work_seconds() - started}
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
                f"Position {self.pos} is out of range: the shortest prompt has {short} tokens",
                allowed=f"{-short} to {short - 1}, which all prompts have",
            )
        return at.tolist()

    def _runs(self, model: HookedModel, batch: ContrastBatch) -> Iterator[tuple[int, Callable[[], dict[Site, Tensor]]]]:
        """The activations of every prompt; a few prompts run together, when the first of them is needed.

        Yields:
            The prompt's row, and a function that gives its activations without padding.
        """
        for rows, sub_batch in batch.parts(max(1, _TOKENS_AT_ONCE // batch.n_pos)):
            run = cache(partial(self._activations, model, sub_batch, rows))

            for row, n in enumerate(sub_batch.lengths.tolist()):
                yield rows.start + row, partial(_of_row, run, row, n)

    def _activations(self, model: HookedModel, sub_batch: ContrastBatch, rows: slice) -> Activations:
        return model.cache(
            sub_batch.tokens(self.run),
            sites_read(model.architecture),
            lengths=sub_batch.lengths,
            interventions=[intervention.rows(rows) for intervention in self.interventions],
            layout=sub_batch.layout,
        )


def _of_row(run: Callable[[], Activations], row: int, n: int) -> dict[Site, Tensor]:
    """The activations of one of the prompts that run together, at its own positions."""
    acts = run()
    return {site: _without_padding(site, acts[site][row], n) for site in acts}


def _without_padding(site: Site, activation: Tensor, n: int) -> Tensor:
    """The activation at a prompt's own positions."""
    return activation[:, :n, :n] if site.name == "pattern" else activation[:n]


def _empty_arrays(a: Architecture, batch: ContrastBatch) -> dict[str, np.ndarray]:
    """Arrays of NaN for the routes of every prompt."""
    n, n_pos = len(batch), batch.n_pos
    sizes = {"prompt": n, "layer": a.n_layers, "dest_pos": n_pos, "src_pos": n_pos, "head": a.n_heads}
    absent = {"mlp", "residual_mlp"} if a.attn_only else {"residual_mlp"} if a.parallel else set[str]()
    shapes = {name: tuple(sizes[dim] for dim in dims) for name, (dims, _) in _SHARES.items() if name not in absent}
    check_space(4 * sum(map(math.prod, shapes.values())), f"the routes of {n} x {n_pos} tokens", torch.device("cpu"))
    importances = {name: np.full(shape, np.nan, dtype=np.float32) for name, shape in shapes.items()}
    flows = {
        "node": (n, a.n_layers + 1, n_pos),
        "node_mid": (n, a.n_layers, n_pos),
        "head_flow": (n, a.n_layers, a.n_heads),
        "bias_flow": (n,),
    }
    return importances | {name: np.full(shape, np.nan) for name, shape in flows.items()}


def _write_row(arrays: dict[str, np.ndarray], row: int, tracer: RouteTracer) -> None:
    """Writes the routes of one prompt into its row of the arrays."""
    n = tracer.node.shape[1]
    for name, value in tracer.shares.items():
        sources = (slice(n),) if name == "attention" else ()
        arrays[name][(row, slice(None), slice(n), ..., *sources)] = value.cpu().numpy()
    arrays["node"][row, :, :n] = tracer.node.cpu().numpy()
    arrays["node_mid"][row, :, :n] = tracer.node_mid.cpu().numpy()
    arrays["head_flow"][row] = tracer.head_flow.cpu().numpy()
    arrays["bias_flow"][row] = tracer.bias_flow


def _variables(arrays: dict[str, np.ndarray]) -> dict[str, xr.DataArray]:
    through_head = "flow through each head: flow at the nodes it writes to, times its importance there"
    node, unit = arrays["node"], "fraction"
    return {
        **bounded("head_flow", ("layer", "head"), arrays["head_flow"], units=unit, meaning=through_head),
        "input": variable(("prompt", "pos"), node[:, 0], unit, "flow that arrives at each token"),
        "node": variable(("prompt", "stream", "pos"), node, unit, "flow that reaches the residual stream"),
        "node_mid": variable(
            ("prompt", "layer", "pos"),
            arrays["node_mid"],
            unit,
            "flow that reaches the residual stream after attention",
        ),
        "bias_flow": variable(("prompt",), arrays["bias_flow"], unit, "flow that ends in output biases of attention"),
        **{
            name: variable(dims, arrays[name], unit, meaning)
            for name, (dims, meaning) in _SHARES.items()
            if name in arrays
        },
    }


def _coords(a: Architecture, batch: ContrastBatch) -> dict[str, object]:
    """Layers and heads by number, streams from 0 (before the first block) up, positions by their tokens."""
    labels = position_labels(batch, range(batch.n_pos))
    numbers = {"prompt": len(batch), "layer": a.n_layers, "stream": a.n_layers + 1, "head": a.n_heads}
    coords: dict[str, object] = {dim: list(range(n)) for dim, n in numbers.items()}
    return coords | dict.fromkeys(("pos", "dest_pos", "src_pos"), labels)
