"""Neuron factors: groups of MLP neurons that fire together, the tokens on which they do, and their ablation."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

import numpy as np
import torch
import xarray as xr

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention
from mechxai.core.errors import ConfigError, ModelSupportError, NumericsError
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.result import Result, variable
from mechxai.core.work_clock import work_seconds
from mechxai.engine.checkpoint import ARRAYS
from mechxai.engine.contrast import Run
from mechxai.engine.execution import Execution
from mechxai.engine.finished import FinishedPieces
from mechxai.engine.progress import ProgressBar
from mechxai.methods.layer_selection import selected
from mechxai.methods.lens._lib.factoring import ROUNDS, Factors, nonnegative_factors
from mechxai.methods.lens._lib.silencing import divergence
from mechxai.methods.result_parts import position_labels, run_info, token_texts
from mechxai.model.backends.limits import check_space
from mechxai.model.hooked_model import HookedModel

_BYTES = 16  # per activation during factorisation: the activation, its float64 copy for the rank, and the solver's copy
_PER_FACTOR = ("prompt", "factor")
_PER_RANK = ("prompt", "factor", "rank")
# name -> dims, unit and meaning
_ARRAYS = {
    "activity": (("prompt", "factor", "pos"), "activation", "activity of each group of neurons at each token"),
    "share": (_PER_FACTOR, "fraction", "share of the activations' sum of squares that each factor explains"),
    "explained": (("prompt",), "fraction", "share of the activations' sum of squares that all factors explain"),
    "nonnegative": (("prompt",), "fraction", "share of the sum of squares in activations that are not negative"),
    "layer_share": (("prompt", "factor", "layer"), "fraction", "share of each layer in the squared weights"),
    "neuron_layer": (_PER_RANK, "layer", "layer of the strongest neurons of each factor"),
    "neuron": (_PER_RANK, "neuron", "index of the strongest neurons of each factor"),
    "weight": (_PER_RANK, "1", "weight of the strongest neurons in each factor, of norm 1"),
    "kl": (_PER_FACTOR, "nats", "KL divergence from the run without the factor's top neurons, where it is active"),
    "kl_others": (_PER_FACTOR, "nats", "KL divergence at the same tokens without the top neurons of another factor"),
    "kl_random": (_PER_FACTOR, "nats", "KL divergence at the same tokens without random neurons of the same layers"),
}
_ABLATED = ("kl", "kl_others", "kl_random")
_INTEGERS = ("neuron_layer", "neuron")  # indices, -1 for none


@final
@register(
    MethodCard(
        name="neuron_factors",
        family="lens",
        kind="neuron_factors",
        question="Which groups of MLP neurons fire together, on which tokens, and does the model need them there?",
        cost="one forward pass and one factorisation per prompt; and n x (1 + draws) passes for the ablations",
        source="Alammar 2021, 'Ecco' (ACL demonstrations); Olah et al. 2018, 'The Building Blocks of Interpretability'",
        pros="thousands of neurons in a few rows, without labels or training; each group is ablated with controls",
        cons="groups of one prompt only, which change with n; negative activations, half of those of gated MLPs, are "
        "not seen",
    )
)
@dataclass(frozen=True)
class NeuronFactors(Method):
    """Factors the activations of MLP neurons over a prompt's tokens into a few groups, and ablates each.

    The activations of all chosen layers, concatenated to ``[pos, neuron]`` with negative ones set to 0 as in Ecco, are
    approximated by a sum of ``n`` products of one non-negative activity per token and one non-negative weight per
    neuron. scikit-learn's ``NMF`` factorises each prompt by itself: squared error, coordinate descent, initialised from
    the singular vectors (``nndsvd``), so that results are reproducible (Ecco starts at random). Weights have norm 1, so
    activities are in units of the activations and can be compared between factors.

    Neurons that fire together need not matter. So each factor's ``k`` strongest neurons are set to zero at all
    positions, and the KL divergence of the next-token distribution from that of the unablated run is averaged over
    positions, weighted by the factor's activity. Two controls are averaged in the same way: the neurons of other
    factors (mean of all others), and as many random neurons of the same layers (mean of ``draws``), which are mostly
    idle and so the weaker control. On 32 prompts of ``ioi``, ablating the top factor of ``zoo/ioi`` where it is active
    gives 0.018 nats, other factors' neurons 0.0016, and random neurons 0.0003. Weak factors need not matter: the last
    one of ``greater_than`` gives 0.0002 nats, other factors there 0.0003.

    Attributes:
        n: number of factors; fewer if a prompt has fewer tokens or its activations a lower rank.
        layers: the layers whose neurons to factorise; all by default, negative from the last.
        k: strongest neurons of each factor to list and to ablate.
        draws: random sets of neurons to ablate as control for each factor; 0 skips all ablations.
        skip_first: leave the first token out. By default it is included, as in Ecco: on ``zoo/ioi`` the first token
            (BOS) holds 0.7 to 1 times as much of the sum of squares as the mean token. In models whose first token
            holds most of the sum of squares, it takes up the first factor.
        run: ``clean`` or ``corrupted``.
        interventions: edits of the run, applied before it is read.
        seed: seed of the random neurons; a prompt's draw does not depend on its batch.

    Example:
        >>> import mechxai as mx
        >>> model = mx.load("zoo/ioi")
        >>> r = mx.NeuronFactors(n=4)(model, mx.tasks.ioi(model, n=2))
        >>> r.data["activity"].dims
        ('prompt', 'factor', 'pos')

    Source: Alammar 2021, 'Ecco: An Open Source Library for the Explainability of Transformer Language Models'.
    """

    n: int = 6
    layers: Sequence[int] | None = None
    k: int = 10
    draws: int = 4
    skip_first: bool = False
    run: Run = "clean"
    interventions: Sequence[Intervention] = ()
    seed: int = 0

    def _check_fields(self) -> None:
        for name, least in (("n", 1), ("k", 1), ("draws", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least {least}")

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """Factorises and ablates every prompt; factors come largest share first.

        Returns:
            ``activity`` [prompt, factor, pos], the length of each factor's part of the activations; ``share`` [prompt,
            factor], the part of the activations' sum of squares that a factor explains, averaged over every order of
            adding factors; shares add up to ``explained`` [prompt]; ``nonnegative`` [prompt], the share of the sum of
            squares in non-negative activations; ``neuron_layer``, ``neuron`` and ``weight`` [prompt, factor, rank], the
            strongest neurons; ``layer_share`` [prompt, factor, layer], each layer's share of the squared weights; with
            ``draws``, ``kl``, ``kl_others`` and ``kl_random`` [prompt, factor] in nats; ``token`` [prompt, pos]. NaN
            (-1 for neurons) for padding, for ranks beyond a factor's neurons, and for factors that a prompt lacks.

        Raises:
            ModelSupportError: a model without MLPs.
            SiteError: a layer that the model does not have.
            NumericsError: activations that are NaN or infinite.
            NoSpaceError: activations that do not fit into memory; the message names their size.

        Cost: per prompt, one forward pass, one factorisation, and ``n * (1 + draws)`` passes for the ablations.
        """
        started = work_seconds()
        _check_mlps(model)
        a, batch = model.architecture, batch.to(model.device)
        layers = selected("layer", self.layers or (), a.n_layers)
        check_space(_BYTES * len(layers) * a.d_mlp * batch.n_pos, f"{batch.n_pos} tokens' neurons", torch.device("cpu"))
        arrays, unsettled, passes = self._empty_arrays(batch, len(layers), a.d_mlp), list[int](), len(batch)
        with (
            FinishedPieces(execution.cells, "neuron factors", self, model, batch, serializer=ARRAYS) as finished,
            ProgressBar("neuron factors", len(batch), shown=execution.progress, unit="prompts") as bar,
        ):
            for row in range(len(batch)):
                piece = finished.take(row, partial(self._row, model, batch, row, layers=layers, arrays=arrays))
                for name, values in arrays.items():
                    values[row] = piece[name]
                unsettled += [] if piece["settled"] else [row]
                passes += int(piece["passes"])
                bar.advance(1)
        coords: dict[str, object] = {"prompt": list(range(len(batch))), "factor": list(range(self.n)), "layer": layers}
        ranks = list(range(arrays["neuron"].shape[2]))
        coords |= {"rank": ranks, "pos": position_labels(batch, range(batch.n_pos))}
        data = {name: _variable(name, values) for name, values in arrays.items()}
        data["token"] = token_texts(model.text, batch.tokens(self.run), batch.lengths)
        cost = {"forward_passes": float(passes), "seconds": work_seconds() - started}
        idle = np.flatnonzero(np.isnan(arrays["share"]).all(1)).tolist()
        info = run_info(self, model, batch, cost=cost, notes=_notes(unsettled, idle))
        return Result(xr.Dataset(data, coords=coords), info)

    def _row(
        self, model: HookedModel, batch: ContrastBatch, row: int, *, layers: list[int], arrays: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """One prompt's rows of the arrays; whether its factors have ``settled``, and the ``passes`` of ablations."""
        factors, passes = self._write_factors(model, batch, row, layers=layers, arrays=arrays), 0
        if self.draws and len(factors.share):
            passes = self._write_ablations(model, batch, row, arrays=arrays, factors=factors)
        facts = {"settled": np.asarray(factors.settled), "passes": np.asarray(passes)}
        return {name: values[row] for name, values in arrays.items()} | facts

    def _empty_arrays(self, batch: ContrastBatch, n_layers: int, d_mlp: int) -> dict[str, np.ndarray]:
        """The arrays of the result, filled with NaN or -1."""
        sizes = {"prompt": len(batch), "factor": self.n, "pos": batch.n_pos, "layer": n_layers}
        sizes["rank"] = min(self.k, n_layers * d_mlp)
        return {
            name: np.full([sizes[dim] for dim in dims], -1 if name in _INTEGERS else np.nan)
            for name, (dims, _, _) in _ARRAYS.items()
            if self.draws or name not in _ABLATED
        }

    def _write_factors(
        self, model: HookedModel, batch: ContrastBatch, row: int, *, layers: list[int], arrays: dict[str, np.ndarray]
    ) -> Factors:
        """Factorises one prompt, writes its factors into the arrays, and returns them."""
        only, first = slice(row, row + 1), int(self.skip_first)
        acts = model.cache(
            batch.tokens(self.run)[only],
            ["mlp_post"],
            layers,
            interventions=[intervention.rows(only) for intervention in self.interventions],
            layout=batch.layout.rows(only),
        )
        end = int(batch.lengths[row])
        activations = torch.cat([acts["mlp_post", layer][0, first:end] for layer in layers], 1).float().cpu().numpy()
        if not np.isfinite(activations).all():
            raise NumericsError(
                f"Prompt {row} has MLP activations that are NaN or infinite",
                fix="Load the model with dtype='float32'",
            )
        positive = activations.clip(0)
        factors = nonnegative_factors(positive, self.n)
        n = len(factors.share)
        arrays["activity"][row, :n, first:end] = factors.activity
        arrays["share"][row, :n] = factors.share
        if n:
            arrays["explained"][row] = factors.explained
            squared = [np.square(values, dtype=np.float64).sum() for values in (positive, activations)]
            arrays["nonnegative"][row] = squared[0] / squared[1]
        by_layer = factors.weights.reshape(n, len(layers), model.architecture.d_mlp)
        arrays["layer_share"][row, :n] = np.square(by_layer).sum(2)
        for factor, weights in enumerate(factors.weights):
            strongest = np.argsort(-weights, kind="stable")[: self.k]
            strongest = strongest[weights[strongest] > 0]
            at = (row, factor, slice(len(strongest)))
            arrays["neuron_layer"][at] = np.array(layers)[strongest // by_layer.shape[2]]
            arrays["neuron"][at] = strongest % by_layer.shape[2]
            arrays["weight"][at] = weights[strongest]
        return factors

    def _write_ablations(
        self, model: HookedModel, batch: ContrastBatch, row: int, *, arrays: dict[str, np.ndarray], factors: Factors
    ) -> int:
        """Ablates one prompt's factors, writes the divergences, and returns the number of forward passes."""
        n, first = len(factors.share), int(self.skip_first)
        strongest = zip(arrays["neuron_layer"][row, :n], arrays["neuron"][row, :n], strict=True)
        sets = _neuron_sets(list(strongest), model.architecture.d_mlp, draws=self.draws, seed=self.seed)
        divergences = divergence(model, batch, row, run=self.run, neurons=sets, interventions=self.interventions)
        total = factors.activity.sum(1, keepdims=True)
        weights = np.divide(factors.activity, total, out=np.full_like(factors.activity, np.nan), where=total > 0)
        at = divergences[:, first : int(batch.lengths[row])] @ weights.T  # [set, factor where it is active]
        kl = at[:n].diagonal()
        arrays["kl"][row, :n] = kl
        arrays["kl_others"][row, :n] = (at[:n].sum(0) - kl) / (n - 1) if n > 1 else np.nan
        drawn = at[n:].reshape(self.draws, n, n)
        arrays["kl_random"][row, :n] = drawn.diagonal(axis1=1, axis2=2).mean(0)
        return 1 + n * (1 + self.draws)


def _variable(name: str, values: np.ndarray) -> xr.DataArray:
    dims, units, meaning = _ARRAYS[name]
    return variable(dims, values, units, meaning)


def _check_mlps(model: HookedModel) -> None:
    if model.architecture.attn_only:
        raise ModelSupportError(
            f"{model.name} is an attention-only model and has no MLP neurons",
            fix="Use AttentionPatterns, or DirectLogitAttribution by head",
        )


def _neuron_sets(
    strongest: list[tuple[np.ndarray, np.ndarray]], d_mlp: int, *, draws: int, seed: int
) -> dict[int, np.ndarray]:
    """For each layer, masks of neurons ``[set, neuron]``: the sets of all factors, then ``draws`` random sets for each.

    Args:
        strongest: for each factor, layers and indices of its neurons, -1 for none.
        d_mlp: number of neurons in a layer.
        draws: number of random sets for each factor.
        seed: seed of the draws.
    """
    n, generator = len(strongest), np.random.default_rng(seed)
    layers = sorted({int(layer) for of_factor, _ in strongest for layer in of_factor if layer >= 0})
    sets = {layer: np.zeros((n * (1 + draws), d_mlp), dtype=bool) for layer in layers}
    for factor, (neuron_layers, neurons) in enumerate(strongest):
        for layer in layers:
            members = neurons[neuron_layers == layer]
            sets[layer][factor, members] = True
            free = np.setdiff1d(np.arange(d_mlp), members)
            for draw in range(1, 1 + draws):
                sets[layer][draw * n + factor, generator.choice(free, min(len(members), len(free)), replace=False)] = (
                    True
                )
    return sets


def _notes(unsettled: list[int], idle: list[int]) -> tuple[str, ...]:
    notes = {
        "the factors of {} had not converged after "
        f"{ROUNDS} rounds: their shares are exact, but better factors exist; fewer factors converge sooner": unsettled,
        "no neuron fires in {}: there is nothing to factorise": idle,
    }
    return tuple(note.format(_prompt_list(rows)) for note, rows in notes.items() if rows)


def _prompt_list(rows: list[int]) -> str:
    return f"{len(rows)} prompts ({', '.join(map(str, rows[:10]))}{', ...' if len(rows) > 10 else ''})"
