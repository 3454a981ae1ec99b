"""Fits a block of probes on its training rows, with the regularisation chosen on its validation rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.errors import ConfigError
from mechxai.methods.probes._lib.activation_block import Block
from mechxai.methods.probes._lib.likelihood import Likelihood
from mechxai.methods.probes._lib.logistic import LogisticProblems, covariance, factors, fit
from mechxai.methods.probes._lib.mass_mean import mass_mean
from mechxai.methods.probes._lib.mlp import Examples, mlp_outputs
from mechxai.methods.probes._lib.ridge import ridge

ProbeKind = Literal["logistic", "ridge", "mass_mean", "mlp"]
LinearProbeKind = Literal["logistic", "ridge", "mass_mean"]
_SELECTION_TOLERANCE = 1e-5  # nats of expected improvement at which a fit is good enough to choose its C


@dataclass(frozen=True)
class FittedProbes:
    """The fitted probes of a block.

    Attributes:
        outputs: outputs for all rows, ``[set, row, target, column]``.
        W: weights for the standardised rows, ``[set, feature, target, column]``; None for an MLP.
        C: the chosen inverse regularisation, ``[set, target]``; NaN for probes without one.
    """

    outputs: Float[Tensor, "set row target column"]
    W: Float[Tensor, "set feature target column"] | None
    C: Float[Tensor, "set target"]


def check_strengths(C: Sequence[float]) -> None:
    """Refuses an empty list of inverse regularisation strengths, and strengths that are not positive.

    Raises:
        ConfigError: names the value.
    """
    if not C or not all(strength > 0 for strength in C):
        raise ConfigError(f"C is {C}: it needs one or more values, all C > 0")


def fit_probes(
    block: Block, probe: ProbeKind, C: Sequence[float], *, likelihood: Likelihood, seed: int
) -> FittedProbes:
    """The fitted probes of a block.

    Args:
        block: rows and labels.
        probe: the kind of probe.
        C: inverse strengths of L2 regularisation to choose from, in scikit-learn's unit (a sum over examples).
        likelihood: likelihood of the labels.
        seed: seed of an MLP's weights.
    """
    n_targets = block.labels.shape[2]
    none = torch.full((len(block.rows), n_targets), torch.nan, device=block.rows.device)
    if probe == "mlp":
        train, validation = _examples(block, block.parts[0], likelihood), _selection_examples(block, likelihood)
        outputs = mlp_outputs(train, validation, block.rows, likelihood=likelihood, seed=seed)
        return FittedProbes(outputs, None, none)
    problems = regression_problems(block, C, likelihood)
    if probe == "mass_mean":
        W, chosen_C = mass_mean(problems, block.scale)[:, 0], none
    else:
        W, best = _best_weights(block, problems, probe)
        chosen_C = torch.tensor(C, device=best.device)[best]
    return FittedProbes(_outputs(block.rows, W), W, chosen_C)


def regression_problems(block: Block, C: Sequence[float], likelihood: Likelihood) -> LogisticProblems:
    """The regressions on a block's training rows, one for each target and regularisation strength."""
    examples = _examples(block, block.parts[0], likelihood)
    counts = block.present[:, block.parts[0]].sum(1).clamp_min(1).float()
    penalties = 1 / (torch.tensor(C, device=counts.device)[None] * counts[:, None])[..., None]
    return LogisticProblems(examples.rows, examples.dense, examples.weights, penalties, likelihood)


def covariance_factors(problems: LogisticProblems) -> Tensor:
    """Cholesky factors of the rows' covariance at the regularisation strengths of the problems."""
    return factors(covariance(problems.rows), problems.penalties.mean(-1) / problems.likelihood.curvature())


def _best_weights(block: Block, problems: LogisticProblems, probe: ProbeKind) -> tuple[Tensor, Tensor]:
    """Each target's weights at the strength with the least validation loss, and the index of that strength."""
    if probe == "ridge":
        by_strength = ridge(problems, covariance(problems.rows))
        best = _best_strength(block, by_strength, problems.likelihood, squares=True)
        return _at_strength(by_strength, best), best
    factor = covariance_factors(problems)
    if problems.penalties.shape[1] == 1:
        W = fit(problems, factor)[:, 0]
        return W, torch.zeros(len(W), W.shape[2], dtype=torch.long, device=W.device)
    rough = fit(problems, factor, tolerance=_SELECTION_TOLERANCE)
    best = _best_strength(block, rough, problems.likelihood)
    W = _at_strength(rough, best)
    for strength in best.unique().tolist():  # only the chosen strengths are fitted to the end
        targets = (best == strength).any(0).nonzero()[:, 0]
        chosen = LogisticProblems(
            problems.rows,
            problems.dense[:, :, targets],
            problems.weights[:, :, targets],
            problems.penalties[:, strength : strength + 1],
            problems.likelihood,
        )
        index = slice(strength, strength + 1)
        exact = fit(chosen, factor[:, index], start=rough[:, index][:, :, :, targets])[:, 0]
        W[:, :, targets] = torch.where((best[:, targets] == strength)[:, None, :, None], exact, W[:, :, targets])
    return W, best


def _best_strength(block: Block, by_strength: Tensor, likelihood: Likelihood, *, squares: bool = False) -> Tensor:
    """Index of the strength with the least validation loss (or squared error), ``[set, target]``."""
    examples = _selection_examples(block, likelihood)
    losses = []
    for strength in range(by_strength.shape[1]):
        outputs = _outputs(examples.rows, by_strength[:, strength])
        error = (outputs - likelihood.regressed(examples.dense)).square().sum(-1)
        loss = error if squares else likelihood.loss(outputs, examples.dense)
        losses.append((loss * examples.weights).sum(1))
    return torch.stack(losses).argmin(0)


def _at_strength(by_strength: Tensor, strength: Tensor) -> Tensor:
    index = strength[:, None, None, :, None].expand(-1, 1, by_strength.shape[2], -1, by_strength.shape[4])
    return by_strength.gather(1, index)[:, 0]


def _outputs(rows: Tensor, W: Tensor) -> Tensor:
    return torch.bmm(rows, W.flatten(2)).view(*rows.shape[:2], *W.shape[2:])


def _selection_examples(block: Block, likelihood: Likelihood) -> Examples:
    """The validation rows, or the training rows if a position has no validation row."""
    _, validation, _ = block.parts
    if bool(block.present[:, validation].any(1).all()):
        return _examples(block, validation, likelihood)
    return _examples(block, block.parts[0], likelihood)


def _examples(block: Block, part: slice, likelihood: Likelihood) -> Examples:
    labels = block.labels[:, part]
    weights = block.weights(part)[..., None].expand(-1, -1, labels.shape[2])
    return Examples(block.rows[:, part], likelihood.dense(labels.nan_to_num()), weights)
