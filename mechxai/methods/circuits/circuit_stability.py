"""Would other prompts, or another seed, have given the same circuit? The discovery repeated on prompts drawn anew."""

import time
from dataclasses import dataclass, fields, replace
from typing import Any, final

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, check_choice
from mechxai.core.graph import Graph
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result, variable
from mechxai.engine.execution import Execution
from mechxai.engine.progress import ProgressBar
from mechxai.methods.circuits._lib.discovery import edge_method
from mechxai.methods.circuits._lib.edge_result import edge_coords
from mechxai.methods.circuits._lib.edge_selection import RANKS, highest
from mechxai.methods.result_parts import run_info
from mechxai.model.graph.writes import graph_blocks
from mechxai.model.hooked_model import HookedModel

_SEED_STEP = 1000
Scores = Float[np.ndarray, " edge"]


@final
@register(
    MethodCard(
        name="circuit_stability",
        family="circuits",
        kind="circuit_stability",
        question="Would other prompts, or another seed, have given the same circuit?",
        cost="the method that finds it, once (a score per prompt), or once per draw and half (none)",
        source="Mueller et al. 2025 (arXiv 2504.13151); Efron 1979 (the bootstrap)",
        pros="says how much of a circuit is chance, beside what chance alone would give",
        cons="prompts drawn anew from the same task are no other task",
    )
)
@dataclass(frozen=True)
class CircuitStability(Method):
    """Prompts are drawn anew with replacement, and each time the highest edges chosen; likewise on two halves of them.

    Where the method gives a score per prompt, their means are taken anew and the model is run once. Methods with chance
    of their own (a ``seed``) may take another with each draw.

    Attributes:
        of: the method that scores edges, or its name (with its defaults).
        top: share of the edges that is the circuit.
        rank: edges by ``absolute`` score, or ``signed``.
        draws: of prompts; and of halves.
        seeds: of the method, taken in turn.
        metric: what is explained, where the method is named.
        seed: of the draws.
    """

    of: Any = "edge_attribution"
    top: float = 0.02
    rank: str = "absolute"
    draws: int = 50
    seeds: int = 1
    metric: AnyMetric = "logit_diff"
    seed: int = 0

    def _check_fields(self) -> None:
        as_metric(self.metric)
        check_choice("rank", self.rank, RANKS)
        method = edge_method(self.of, self.metric)
        if not 0 < self.top < 1 or min(self.draws - 1, self.seeds) < 1:
            raise ConfigError(
                "circuit_stability",
                got=f"top={self.top}, draws={self.draws}, seeds={self.seeds}",
                allowed="top between 0 and 1, 2 or more draws, 1 or more seeds",
            )
        if self.seeds > 1 and "seed" not in {field.name for field in fields(method)}:  # type: ignore[arg-type]
            raise ConfigError(
                f"circuit_stability with seeds={self.seeds}", got="a method without chance", fix="seeds=1"
            )

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """How often edges are chosen, and how alike the choices are.

        Returns:
            ``frequency`` [reader, writer], the share of draws that choose the edge (only nodes that were ever chosen;
            NaN where there is no edge); ``edge_frequency`` [edge]; ``score`` [edge] on all prompts with 95 % of the
            draws between ``score_low`` and ``score_high``; ``jaccard`` [draw], of its choice with that of all prompts,
            ``spearman`` [draw], of its scores; ``halves_jaccard``, ``halves_spearman`` [draw], of two halves of the
            prompts; ``jaccard_chance``, of two random choices.

        Raises:
            ModelSupportError: a model whose residual stream is not the sum of what its nodes write.
            ConfigError: fewer than four prompts.
        """
        started = time.perf_counter()
        graph = graph_blocks(model).graph
        if len(batch) < 4:
            raise ConfigError("circuit_stability", got=f"{len(batch)} prompts", allowed="4 or more, to be drawn anew")
        scores = _Scores(edge_method(self.of, self.metric), self.seeds, model, batch, execution)
        whole = scores.of(np.arange(len(batch)), 0)
        drawn, halves = [], []
        generator = np.random.default_rng(self.seed)
        with ProgressBar("stability", self.draws, shown=execution.progress, unit="draws") as bar:
            for draw in range(self.draws):
                drawn.append(scores.of(generator.integers(0, len(batch), len(batch)), draw))
                order = generator.permutation(len(batch))
                halves.append([scores.of(part, draw) for part in np.array_split(order, 2)])
                bar.advance(1)
        data = self._variables(graph, whole, np.stack(drawn), np.array(halves), scores.unit)
        table = data["frequency"]
        coords = {"draw": list(range(self.draws)), **edge_coords(graph.edges)}
        coords |= {dim: table.coords[dim].values for dim in table.dims}
        cost = {"forward_passes": scores.passes, "seconds": time.perf_counter() - started}
        info = run_info(self, model, batch, cost=cost, notes=scores.notes)
        return Result(xr.Dataset(data, coords=coords), info)

    def _variables(  # noqa: PLR0917 - what was found
        self, graph: Graph, whole: Scores, drawn: np.ndarray, halves: np.ndarray, unit: str
    ) -> dict[str, xr.DataArray]:
        chosen, usual = self._chosen(drawn), self._chosen(whole[None])[0]
        of_halves = self._chosen(halves.reshape(-1, len(whole))).reshape(len(drawn), 2, -1)
        frequency = chosen.mean(0)
        low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
        keys = np.abs if self.rank == "absolute" else np.asarray
        n, k = len(whole), int(usual.sum())
        over, edge = ("draw",), ("edge",)
        share, alike = "of the edges chosen by either, chosen by both", "rank correlation of scores"
        ranks = _ranks(keys(whole)[None])[0]
        return {
            "frequency": _table(graph, frequency),
            "edge_frequency": variable(edge, frequency, "fraction", "draws of prompts that choose the edge"),
            "score": variable(edge, whole, unit, "score on all prompts"),
            "score_low": variable(edge, low, unit, "score, 95 % of the draws of prompts, low"),
            "score_high": variable(edge, high, unit, "score, 95 % of the draws of prompts, high"),
            "jaccard": variable(over, _jaccard(chosen, usual), "fraction", f"{share}, a draw beside all prompts"),
            "spearman": variable(
                over, _ranks(keys(drawn)) @ ranks, "correlation", f"{alike}, a draw beside all prompts"
            ),
            "halves_jaccard": variable(over, _jaccard(*of_halves.swapaxes(0, 1)), "fraction", f"{share}, two halves"),
            "halves_spearman": variable(
                over,
                (_ranks(keys(halves[:, 0])) * _ranks(keys(halves[:, 1]))).sum(1),
                "correlation",
                f"{alike}, two halves",
            ),
            "jaccard_chance": variable((), k / (2 * n - k), "fraction", f"{share}, two random choices"),
        }

    def _chosen(self, scores: Float[np.ndarray, "draw edge"]) -> Bool[np.ndarray, "draw edge"]:
        return np.stack([highest(one, [self.top], rank=self.rank)[0].numpy() for one in scores])


class _Scores:
    """Scores on any choice of the prompts."""

    def __init__(  # noqa: PLR0917 - what a score takes
        self, method: Method, seeds: int, model: HookedModel, batch: ContrastBatch, execution: Execution
    ) -> None:
        self._method, self._seeds, self._model, self._batch, self._execution = method, seeds, model, batch, execution
        self._known: dict[int, np.ndarray] = {}
        self.passes, self.unit = 0.0, ""
        self._by_prompt = True
        self.notes: tuple[str, ...] = ()

    def of(self, prompts: np.ndarray, draw: int) -> Scores:
        """The mean score of every edge on some prompts. Cost: as the method, the first time or each."""
        seed = draw % self._seeds
        if self._by_prompt and seed not in self._known:
            found = self._run(self._batch, seed)
            self.unit = str(found.data["value"].attrs.get("units", ""))
            self._by_prompt = "per_example" in found.data and found.data["per_example"].dims == ("prompt", "edge")
            if self._by_prompt:
                self._known[seed] = found.data["per_example"].values.astype(np.float64)
            elif len(prompts) == len(self._batch) and (prompts == np.arange(len(prompts))).all():
                return found.data["value"].values.astype(np.float64)
        if self._by_prompt:
            return self._known[seed][prompts].mean(0)
        chosen = torch.from_numpy(np.sort(prompts)).to(self._batch.clean.device)
        return self._run(self._batch.rows(chosen), seed).data["value"].values.astype(np.float64)

    def _run(self, batch: ContrastBatch, seed: int) -> Result:
        method = self._method
        if self._seeds > 1:
            method = replace(method, seed=getattr(method, "seed", 0) + _SEED_STEP * seed)  # type: ignore[type-var]
        found = method(self._model, batch, execution=replace(self._execution, progress=False))
        self.passes += found.info.cost.get("forward_passes", 0.0)
        self.notes = found.info.notes
        return found


def _table(graph: Graph, frequency: Scores) -> xr.DataArray:
    """By reader and writer, those that were ever chosen."""
    table = np.full(graph.reads.shape, np.nan)
    table[graph.reads.numpy()] = frequency
    used = np.nan_to_num(table) > 0
    rows, columns = np.nonzero(used.any(1))[0][::-1], np.nonzero(used.any(0))[0]  # layers upward
    shown = variable(
        ("reader", "writer"), table[np.ix_(rows, columns)], "fraction", "draws of prompts that choose the edge"
    )
    readers, writers = [graph.readers[row] for row in rows], [graph.writers[column] for column in columns]
    return shown.assign_coords(reader=readers, writer=writers)


def _jaccard(
    one: Bool[np.ndarray, "draw edge"], other: Bool[np.ndarray, "draw edge"] | Bool[np.ndarray, " edge"]
) -> Float[np.ndarray, " draw"]:
    return (one & other).sum(1) / np.maximum((one | other).sum(1), 1)


def _ranks(scores: Float[np.ndarray, "draw edge"]) -> Float[np.ndarray, "draw edge"]:
    """Ranks of every row, centred and of length 1, so that their products are rank correlations."""
    ranks = rankdata(scores, axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    return ranks / np.maximum(np.linalg.norm(ranks, axis=1, keepdims=True), 1e-12)
