"""Groups of MLP neurons that fire together, on which tokens they do, and what the model says without them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
import xarray as xr

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention
from mechxai.core.errors import ConfigError, ModelSupportError, NumericsError, check_choice
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.result import Result, variable
from mechxai.engine.contrast import RUNS
from mechxai.engine.execution import Execution
from mechxai.engine.progress import ProgressBar
from mechxai.methods.fields import selected
from mechxai.methods.lens._lib.factoring import ROUNDS, Factors, factored
from mechxai.methods.lens._lib.silencing import divergence
from mechxai.methods.result_parts import position_labels, run_info, token_texts
from mechxai.model.backends.limits import check_space
from mechxai.model.hooked_model import HookedModel

_BYTES = 16  # per activation while it is factored: itself, in float64 for its rank, and the solver's copy
_PER_FACTOR = ("prompt", "factor")
_PER_RANK = ("prompt", "factor", "rank")
# name -> its dims, unit and what it is
_ARRAYS = {
    "activity": (("prompt", "factor", "pos"), "activation", "how strongly each group of neurons fires at each token"),
    "share": (_PER_FACTOR, "fraction", "share of the activations' sum of squares that each factor stands for"),
    "explained": (("prompt",), "fraction", "share of the activations' sum of squares that all factors stand for"),
    "nonnegative": (("prompt",), "fraction", "share of the sum of squares in activations that are not negative"),
    "layer_share": (("prompt", "factor", "layer"), "fraction", "share of each layer in the squared weights"),
    "neuron_layer": (_PER_RANK, "layer", "layer of the strongest neurons of each factor"),
    "neuron": (_PER_RANK, "neuron", "number of the strongest neurons of each factor"),
    "weight": (_PER_RANK, "1", "weight of the strongest neurons in each factor, of length 1"),
    "kl": (
        _PER_FACTOR,
        "nats",
        "KL divergence from the run without the factor's strongest neurons, where it is active",
    ),
    "kl_others": (_PER_FACTOR, "nats", "the same, there, without the strongest neurons of another factor"),
    "kl_random": (_PER_FACTOR, "nats", "the same, there, without random neurons of the same layers"),
}
_ABLATED = ("kl", "kl_others", "kl_random")
_WHOLE = ("neuron_layer", "neuron")  # numbers, -1 where there is none


@final
@register(
    MethodCard(
        name="neuron_factors",
        family="lens",
        kind="neuron_factors",
        question="Which groups of MLP neurons fire together, on which tokens, and does the model need them there?",
        cost="one forward pass and one factorisation per prompt; and n x (1 + draws) passes for the ablations",
        source="Alammar 2021, 'Ecco' (ACL demonstrations); Olah et al. 2018, 'The Building Blocks of Interpretability'",
        pros="thousands of neurons in a few rows, without labels or training; each group is ablated beside controls",
        cons="groups of one prompt only, which change with n; negative activations, half of those of gated MLPs, are "
        "not seen",
    )
)
@dataclass(frozen=True)
class NeuronFactors(Method):
    """Factors the activations of MLP neurons over a prompt's tokens into a few groups, and ablates each.

    The activations of all chosen layers side by side, ``[pos, neuron]`` with negative ones counted as 0 as in Ecco, are
    taken to be a sum of ``n`` products of one non-negative activity per token and one non-negative weight per neuron.
    scikit-learn's ``NMF`` does the factorisation, for each prompt by itself: squared error, coordinate descent, begun
    from the singular vectors (``nndsvd``), so that it gives the same each time (Ecco begins at random). Weights are
    scaled to length 1, so that activities are in units of the activations and can be compared between factors.

    What fires together need not matter. So each factor's ``k`` strongest neurons are set to zero, at all positions, and
    the next token's distribution is held against that of the untouched run, averaged over positions by the factor's
    activity; beside it the same without another factor's neurons (mean of all others) and without as many random
    neurons of the same layers (mean of ``draws``), which mostly are idle and so the weaker control. On 32 prompts of
    ``ioi``, ``zoo/ioi`` is moved where its top factor is active by 0.018 nats, by other factors' neurons 0.0016, by
    random ones 0.0003. Weak factors need not matter: the last of ``greater_than`` moves it by 0.0002, others there by
    0.0003.

    Attributes:
        n: factors; fewer where a prompt has fewer tokens, or its activations a lower rank.
        layers: whose neurons; all by default, negative from the last.
        k: strongest neurons of each factor to name and to ablate.
        draws: random sets of neurons ablated beside each factor's; 0: no ablation at all, the factors alone.
        skip_first: leave the first token out. Ecco keeps it, and so does this by default: on ``zoo/ioi`` the first
            token (BOS) holds 0.7 to 1 times as much as the mean token. In models whose first token holds most of the
            sum of squares, it takes the first factor for itself.
        run: ``clean`` or ``corrupted``.
        interventions: edits of the run, made before it is read.
        seed: of the random neurons; each prompt has the same draw whatever batch it is in.

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
    run: str = "clean"
    interventions: Sequence[Intervention] = ()
    seed: int = 0

    def _check_fields(self) -> None:
        check_choice("run", self.run, RUNS)
        for name, least in (("n", 1), ("k", 1), ("draws", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"neuron_factors with {name}={getattr(self, name)}", allowed=f"{least} or more")

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """The factors of every prompt, the largest share first.

        Returns:
            ``activity`` [prompt, factor, pos], the length of each factor's part of the activations; ``share`` [prompt,
            factor] of the activations' sum of squares, what a factor adds averaged over every order, which adds up to
            ``explained`` [prompt]; ``nonnegative`` [prompt], how much of it was left to explain; ``neuron_layer``,
            ``neuron`` and ``weight`` [prompt, factor, rank], the strongest neurons; ``layer_share`` [prompt, factor,
            layer], each layer's share of the squared weights; with ``draws``, ``kl``, ``kl_others`` and ``kl_random``
            [prompt, factor] in nats; ``token`` [prompt, pos]. NaN (-1 for a neuron) beyond a prompt, where a factor has
            no more neurons, and for factors that a prompt does not have.

        Raises:
            ModelSupportError: a model without MLPs.
            SiteError: a layer the model does not have.
            NumericsError: activations that are NaN or infinite.
            NoSpaceError: more than fits into memory; says how much.

        Cost: a prompt at a time; one forward pass, a factorisation, and ``n * (1 + draws)`` passes to ablate.
        """
        started = time.perf_counter()
        _check(model)
        a, batch = model.architecture, batch.to(model.device)
        layers = selected("layer", self.layers or (), a.n_layers)
        check_space(_BYTES * len(layers) * a.d_mlp * batch.n_pos, f"{batch.n_pos} tokens' neurons", torch.device("cpu"))
        found, unsettled, passes = self._room(batch, len(layers), a.d_mlp), list[int](), len(batch)
        with ProgressBar("neuron factors", len(batch), shown=execution.progress, unit="prompts") as bar:
            for row in range(len(batch)):
                factors = self._read(model, batch, row, layers=layers, found=found)
                unsettled += [] if factors.settled else [row]
                if self.draws and len(factors.share):
                    passes += self._ablate(model, batch, row, found=found, factors=factors)
                bar.advance(1)
        coords: dict[str, object] = {"prompt": list(range(len(batch))), "factor": list(range(self.n)), "layer": layers}
        ranks = list(range(found["neuron"].shape[2]))
        coords |= {"rank": ranks, "pos": position_labels(batch, range(batch.n_pos))}
        data = {name: _variable(name, values) for name, values in found.items()}
        data["token"] = token_texts(model.text, batch.tokens(self.run), batch.lengths)
        cost = {"forward_passes": float(passes), "seconds": time.perf_counter() - started}
        idle = np.flatnonzero(np.isnan(found["share"]).all(1)).tolist()
        info = run_info(self, model, batch, cost=cost, notes=_notes(unsettled, idle))
        return Result(xr.Dataset(data, coords=coords), info)

    def _room(self, batch: ContrastBatch, n_layers: int, d_mlp: int) -> dict[str, np.ndarray]:
        """Where every prompt's factors are written, empty so far."""
        sizes = {"prompt": len(batch), "factor": self.n, "pos": batch.n_pos, "layer": n_layers}
        sizes["rank"] = min(self.k, n_layers * d_mlp)
        return {
            name: np.full([sizes[dim] for dim in dims], -1 if name in _WHOLE else np.nan)
            for name, (dims, _, _) in _ARRAYS.items()
            if self.draws or name not in _ABLATED
        }

    def _read(
        self, model: HookedModel, batch: ContrastBatch, row: int, *, layers: list[int], found: dict[str, np.ndarray]
    ) -> Factors:
        """Factors one prompt and writes what was found."""
        only, first = slice(row, row + 1), int(self.skip_first)
        acts = model.cache(
            batch.tokens(self.run)[only],
            ["mlp_post"],
            layers,
            interventions=[one.rows(only) for one in self.interventions],
            layout=batch.layout.rows(only),
        )
        end = int(batch.lengths[row])
        every = torch.cat([acts["mlp_post", layer][0, first:end] for layer in layers], 1).float().cpu().numpy()
        if not np.isfinite(every).all():
            raise NumericsError(
                f"The neurons of prompt {row} were asked",
                got="activations that are NaN or infinite",
                fix="load the model with dtype='float32'",
            )
        positive = every.clip(0)
        factors = factored(positive, self.n)
        n = len(factors.share)
        found["activity"][row, :n, first:end] = factors.activity
        found["share"][row, :n] = factors.share
        if n:
            found["explained"][row] = factors.explained
            squared = [np.square(one, dtype=np.float64).sum() for one in (positive, every)]
            found["nonnegative"][row] = squared[0] / squared[1]
        by_layer = factors.weights.reshape(n, len(layers), model.architecture.d_mlp)
        found["layer_share"][row, :n] = np.square(by_layer).sum(2)
        for factor, weights in enumerate(factors.weights):
            strongest = np.argsort(-weights, kind="stable")[: self.k]
            strongest = strongest[weights[strongest] > 0]
            at = (row, factor, slice(len(strongest)))
            found["neuron_layer"][at] = np.array(layers)[strongest // by_layer.shape[2]]
            found["neuron"][at] = strongest % by_layer.shape[2]
            found["weight"][at] = weights[strongest]
        return factors

    def _ablate(
        self, model: HookedModel, batch: ContrastBatch, row: int, *, found: dict[str, np.ndarray], factors: Factors
    ) -> int:
        """Writes what the ablations of one prompt's factors do, and returns how many passes they took."""
        n, first = len(factors.share), int(self.skip_first)
        strongest = zip(found["neuron_layer"][row, :n], found["neuron"][row, :n], strict=True)
        sets = _sets(list(strongest), model.architecture.d_mlp, draws=self.draws, seed=self.seed)
        moved = divergence(model, batch, row, run=self.run, neurons=sets, interventions=self.interventions)
        total = factors.activity.sum(1, keepdims=True)
        where = np.divide(factors.activity, total, out=np.full_like(factors.activity, np.nan), where=total > 0)
        at = moved[:, first : int(batch.lengths[row])] @ where.T  # [set, factor where it is active]
        own = at[:n].diagonal()
        found["kl"][row, :n] = own
        found["kl_others"][row, :n] = (at[:n].sum(0) - own) / (n - 1) if n > 1 else np.nan
        drawn = at[n:].reshape(self.draws, n, n)
        found["kl_random"][row, :n] = drawn.diagonal(axis1=1, axis2=2).mean(0)
        return 1 + n * (1 + self.draws)


def _variable(name: str, values: np.ndarray) -> xr.DataArray:
    dims, units, meaning = _ARRAYS[name]
    return variable(dims, values, units, meaning)


def _check(model: HookedModel) -> None:
    if model.architecture.attn_only:
        raise ModelSupportError(
            f"Factors of the neurons of {model.name} were asked",
            got="an attention-only model, which has no MLPs",
            fix="use AttentionPatterns, or DirectLogitAttribution by head",
        )


def _sets(
    strongest: list[tuple[np.ndarray, np.ndarray]], d_mlp: int, *, draws: int, seed: int
) -> dict[int, np.ndarray]:
    """Layer -> the neurons of each set, ``[set, neuron]``: each factor's own, then ``draws`` times random ones instead.

    Args:
        strongest: for each factor the layers and numbers of its neurons, -1 for none.
        d_mlp: neurons of a layer.
        draws: random sets of each factor.
        seed: of the draws.
    """
    n, generator = len(strongest), np.random.default_rng(seed)
    layers = sorted({int(layer) for own, _ in strongest for layer in own if layer >= 0})
    sets = {layer: np.zeros((n * (1 + draws), d_mlp), dtype=bool) for layer in layers}
    for factor, (own_layers, neurons) in enumerate(strongest):
        for layer in layers:
            own = neurons[own_layers == layer]
            sets[layer][factor, own] = True
            free = np.setdiff1d(np.arange(d_mlp), own)
            for draw in range(1, 1 + draws):
                sets[layer][draw * n + factor, generator.choice(free, min(len(own), len(free)), replace=False)] = True
    return sets


def _notes(unsettled: list[int], idle: list[int]) -> tuple[str, ...]:
    notes = {
        "the factors of {} had not settled after "
        f"{ROUNDS} rounds: they explain what they say, and better ones exist; fewer factors settle sooner": unsettled,
        "no neuron fires in {}: there is nothing to factor": idle,
    }
    return tuple(note.format(_which(rows)) for note, rows in notes.items() if rows)


def _which(rows: list[int]) -> str:
    return f"{len(rows)} prompts ({', '.join(map(str, rows[:10]))}{', ...' if len(rows) > 10 else ''})"
