"""Circuit stability: how much of a circuit survives on bootstrap samples and halves of the prompts, or another seed."""

from dataclasses import dataclass, fields, replace
from typing import Any, final

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError
from mechxai.core.graph import Graph
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result, variable
from mechxai.core.work_clock import work_seconds
from mechxai.engine.checkpoint import ARRAYS
from mechxai.engine.execution import Execution
from mechxai.engine.finished import FinishedPieces
from mechxai.engine.progress import ProgressBar
from mechxai.methods.circuits._lib.discovery import edge_method
from mechxai.methods.circuits._lib.edge_result import edge_coords
from mechxai.methods.circuits._lib.edge_selection import Rank, ranked_sizes, top_edges
from mechxai.methods.circuits._lib.field_checks import check_at_least
from mechxai.methods.result_parts import run_info
from mechxai.model.graph.writes import graph_blocks
from mechxai.model.hooked_model import HookedModel

_FEWEST_PROMPTS = 4
_SEED_STEP = 1000
Scores = Float[np.ndarray, " edge"]


@final
@register(
    MethodCard(
        name="circuit_stability",
        family="circuits",
        kind="circuit_stability",
        question="Would other prompts, or another seed, give the same circuit?",
        cost="the method that finds it: once if it scores every prompt, else once per draw and half",
        source="Mueller et al. 2025 (arXiv 2504.13151); Efron 1979 (the bootstrap)",
        pros="shows how much of a circuit is chance, beside the overlap of random circuits",
        cons="resampled prompts come from the same task",
    )
)
@dataclass(frozen=True)
class CircuitStability(Method):
    """The highest edges on bootstrap samples of the prompts, and on random halves of them.

    Where the method gives a score per prompt, the scores of the sampled prompts are averaged and the model runs once.
    Methods with random draws (a field ``seed``) can use another seed with each draw.

    Attributes:
        of: the method that scores edges, or its name (with its defaults).
        top: share of the edges in the circuit.
        rank: edges by ``absolute`` score, or ``signed``.
        draws: bootstrap samples of the prompts; and splits into halves.
        seeds: seeds of the method, taken in turn.
        metric: the metric to explain, for a method given by name.
        seed: of the draws.
    """

    of: Any = "edge_attribution"
    top: float = 0.02
    rank: Rank = "absolute"
    draws: int = 50
    seeds: int = 1
    metric: AnyMetric = "logit_diff"
    seed: int = 0

    def _check_fields(self) -> None:
        as_metric(self.metric)
        method = edge_method(self.of, self.metric)
        if not 0 < self.top < 1:
            raise ConfigError(f"top is {self.top}: it must be above 0 and below 1")
        check_at_least(2, draws=self.draws)
        check_at_least(1, seeds=self.seeds)
        if self.seeds > 1 and "seed" not in {field.name for field in fields(method)}:  # type: ignore[arg-type]
            raise ConfigError(f"seeds is {self.seeds}, but {method.card.name} has no seed", fix="Use seeds=1")

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """How often edges are in the circuit, and how similar the circuits are.

        Returns:
            ``frequency`` [reader, writer], the share of draws whose circuit has the edge (only nodes with an edge in
            some draw; NaN where there is no edge); ``edge_frequency`` [edge]; ``score`` [edge] on all prompts with 95 %
            of the draws between ``score_low`` and ``score_high``; ``jaccard`` [draw], of the draw's circuit with that
            of all prompts, ``spearman`` [draw], of their scores; ``halves_jaccard``, ``halves_spearman`` [draw], of two
            halves of the prompts; ``jaccard_chance``, of two random circuits.

        Raises:
            ModelSupportError: a model whose residual stream is not the sum of what its nodes write.
            ConfigError: fewer than four prompts.
        """
        started = work_seconds()
        graph = graph_blocks(model).graph
        n = len(batch)
        if n < _FEWEST_PROMPTS:
            raise ConfigError(f"circuit_stability needs {_FEWEST_PROMPTS} or more prompts to resample, not {n}")
        scorer = _Scorer(edge_method(self.of, self.metric), self.seeds, model, batch, execution)
        all_prompts = scorer.scores(np.arange(n), 0)
        samples, halves = [], []
        generator = np.random.default_rng(self.seed)
        with scorer.finished, ProgressBar("stability", self.draws, shown=execution.progress, unit="draws") as bar:
            for draw in range(self.draws):
                samples.append(scorer.scores(generator.integers(0, n, n), draw))
                order = generator.permutation(n)
                halves.append([scorer.scores(half, draw) for half in np.array_split(order, 2)])
                bar.advance(1)
        data = {
            **_frequencies(graph, self._circuits(np.stack(samples))),
            **_score_variables(all_prompts, np.stack(samples), scorer.unit),
            **self._overlaps(all_prompts, np.stack(samples), np.array(halves)),
        }
        table = data["frequency"]
        coords = {"draw": list(range(self.draws)), **edge_coords(graph.edges)}
        coords |= {dim: table.coords[dim].values for dim in table.dims}
        cost = {"forward_passes": scorer.passes, "seconds": work_seconds() - started}
        info = run_info(self, model, batch, cost=cost, notes=scorer.notes)
        return Result(xr.Dataset(data, coords=coords), info)

    def _overlaps(
        self, all_prompts: Scores, samples: Float[np.ndarray, "draw edge"], halves: Float[np.ndarray, "draw half edge"]
    ) -> dict[str, xr.DataArray]:
        """The similarity of circuits and of scores: samples with all prompts, and halves with each other."""
        circuits, circuit = self._circuits(samples), self._circuits(all_prompts[None])[0]
        half_circuits = self._circuits(halves.reshape(-1, len(all_prompts))).reshape(len(samples), 2, -1)
        sample_ranks, first_ranks, second_ranks = (
            _ranks(ranked_sizes(scores, self.rank)) for scores in (samples, halves[:, 0], halves[:, 1])
        )
        ranks = _ranks(ranked_sizes(all_prompts, self.rank)[None])[0]
        n, k = len(all_prompts), int(circuit.sum())
        shared, correlation = "shared edges of two circuits as a share of their union", "rank correlation of scores"

        def similarity(values: np.ndarray, unit: str, meaning: str) -> xr.DataArray:
            return variable(("draw",), values, unit, meaning)

        return {
            "jaccard": similarity(_jaccard(circuits, circuit), "fraction", f"{shared}, a draw and all prompts"),
            "spearman": similarity(sample_ranks @ ranks, "correlation", f"{correlation}, a draw and all prompts"),
            "halves_jaccard": similarity(_jaccard(*half_circuits.swapaxes(0, 1)), "fraction", f"{shared}, two halves"),
            "halves_spearman": similarity(
                (first_ranks * second_ranks).sum(1), "correlation", f"{correlation}, two halves"
            ),
            "jaccard_chance": variable((), k / (2 * n - k), "fraction", f"{shared}, two random circuits"),
        }

    def _circuits(self, scores: Float[np.ndarray, "draw edge"]) -> Bool[np.ndarray, "draw edge"]:
        return np.stack([top_edges(draw, [self.top], rank=self.rank)[0].numpy() for draw in scores])


def _frequencies(graph: Graph, circuits: Bool[np.ndarray, "draw edge"]) -> dict[str, xr.DataArray]:
    """The share of draws whose circuit has each edge."""
    frequency = circuits.mean(0)
    meaning = "draws of prompts whose circuit has the edge"
    return {
        "frequency": _reader_writer_table(graph, frequency, meaning),
        "edge_frequency": variable(("edge",), frequency, "fraction", meaning),
    }


def _score_variables(
    all_prompts: Scores, samples: Float[np.ndarray, "draw edge"], unit: str
) -> dict[str, xr.DataArray]:
    """The scores on all prompts, with 95 % of the samples' scores."""
    low, high = np.percentile(samples, [2.5, 97.5], axis=0)
    interval = "score, 95 % of the draws of prompts"
    return {
        "score": variable(("edge",), all_prompts, unit, "score on all prompts"),
        "score_low": variable(("edge",), low, unit, f"{interval}, low"),
        "score_high": variable(("edge",), high, unit, f"{interval}, high"),
    }


class _Scorer:
    """Mean edge scores on any selection of the prompts.

    Attributes:
        passes: forward passes so far.
        unit: of the scores.
        notes: of the method's last result.
    """

    def __init__(  # noqa: PLR0917 - the arguments of a method's call
        self, method: Method, seeds: int, model: HookedModel, batch: ContrastBatch, execution: Execution
    ) -> None:
        self._method, self._seeds, self._model, self._batch, self._execution = method, seeds, model, batch, execution
        self._per_prompt: dict[int, np.ndarray] = {}
        question = ("circuit stability", method, seeds, model, batch)
        self.finished = FinishedPieces[dict[str, np.ndarray]](execution.cells, *question, serializer=ARRAYS)
        self.passes, self.unit = 0.0, ""
        self._has_prompt_scores = True
        self.notes: tuple[str, ...] = ()

    def scores(self, prompts: np.ndarray, draw: int) -> Scores:
        """The mean score of every edge on some prompts.

        Cost: a call of the method: once per seed if it scores every prompt, else each time.
        """
        seed = draw % self._seeds
        if self._has_prompt_scores and seed not in self._per_prompt:
            result = self._run(self._batch, seed)
            self.unit = str(result.data["value"].attrs.get("units", ""))
            per_example = result.data.get("per_example")
            self._has_prompt_scores = per_example is not None and per_example.dims == ("prompt", "edge")
            if per_example is not None and self._has_prompt_scores:
                self._per_prompt[seed] = per_example.values.astype(np.float64)
            elif len(prompts) == len(self._batch) and (prompts == np.arange(len(prompts))).all():
                return result.data["value"].values.astype(np.float64)
        if self._has_prompt_scores:
            return self._per_prompt[seed][prompts].mean(0)
        rows = torch.from_numpy(np.sort(prompts)).to(self._batch.clean.device)
        drawn = self.finished.take((seed, rows), lambda: self._drawn(self._batch.rows(rows), seed))
        self.passes += float(drawn["passes"])
        return drawn["scores"]

    def _drawn(self, batch: ContrastBatch, seed: int) -> dict[str, np.ndarray]:
        """The scores on some prompts, and the passes that they took."""
        before = self.passes
        scores = self._run(batch, seed).data["value"].values.astype(np.float64)
        passes, self.passes = self.passes - before, before
        return {"scores": scores, "passes": np.asarray(passes)}

    def _run(self, batch: ContrastBatch, seed: int) -> Result:
        method = self._method
        if self._seeds > 1:
            method = replace(method, seed=getattr(method, "seed", 0) + _SEED_STEP * seed)  # type: ignore[type-var]
        result = method(self._model, batch, execution=replace(self._execution, progress=False))
        self.passes += result.info.cost.get("forward_passes", 0.0)
        self.notes = result.info.notes
        return result


def _reader_writer_table(graph: Graph, frequency: Scores, meaning: str) -> xr.DataArray:
    """Frequencies by reader and writer, for nodes with an edge in some draw."""
    table = np.full(graph.reads.shape, np.nan)
    table[graph.reads.numpy()] = frequency
    used = np.nan_to_num(table) > 0
    rows, columns = np.nonzero(used.any(1))[0][::-1], np.nonzero(used.any(0))[0]  # layers upward
    shown = variable(("reader", "writer"), table[np.ix_(rows, columns)], "fraction", meaning)
    readers, writers = [graph.readers[row] for row in rows], [graph.writers[column] for column in columns]
    return shown.assign_coords(reader=readers, writer=writers)


def _jaccard(
    first: Bool[np.ndarray, "draw edge"], second: Bool[np.ndarray, "draw edge"] | Bool[np.ndarray, " edge"]
) -> Float[np.ndarray, " draw"]:
    return (first & second).sum(1) / np.maximum((first | second).sum(1), 1)


def _ranks(scores: Float[np.ndarray, "draw edge"]) -> Float[np.ndarray, "draw edge"]:
    """Ranks of every row, centred and of length 1, so that their products are rank correlations."""
    ranks = rankdata(scores, axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    return ranks / np.maximum(np.linalg.norm(ranks, axis=1, keepdims=True), 1e-12)
