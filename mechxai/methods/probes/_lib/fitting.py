"""One block of probes fitted on its training rows, regularisation chosen on its validation rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.methods.probes._lib.activation_block import Block
from mechxai.methods.probes._lib.likelihood import Likelihood
from mechxai.methods.probes._lib.logistic import LogisticProblems, covariance, factors, fit
from mechxai.methods.probes._lib.mass_mean import mass_mean
from mechxai.methods.probes._lib.mlp import Examples, mlp_outputs
from mechxai.methods.probes._lib.ridge import ridge

PROBES = ("logistic", "ridge", "mass_mean", "mlp")
_CHOOSING = 1e-5  # nats that the next step promises, at which a fit is good enough to choose by


@dataclass(frozen=True)
class Fitted:
    """What came of a block.

    Attributes:
        outputs: of all rows, ``[set, row, target, column]``.
        W: of the standardised rows, ``[set, feature, target, column]``; an MLP has none.
        C: the inverse regularisation chosen, ``[set, target]``; NaN where there is none.
    """

    outputs: Float[Tensor, "set row target column"]
    W: Float[Tensor, "set feature target column"] | None
    C: Float[Tensor, "set target"]


def fitted(block: Block, probe: str, C: Sequence[float], *, likelihood: Likelihood, seed: int) -> Fitted:
    """The probes of a block.

    Args:
        block: rows and labels.
        probe: one of `PROBES`.
        C: inverse strengths of L2 regularisation to choose from, in scikit-learn's unit (a sum over examples).
        likelihood: of the labels.
        seed: of an MLP's weights.
    """
    n_targets = block.labels.shape[2]
    none = torch.full((len(block.rows), n_targets), torch.nan, device=block.rows.device)
    if probe == "mlp":
        train, choosing = _examples(block, block.parts[0], likelihood), _choosing(block, likelihood)
        outputs = mlp_outputs(train, choosing, block.rows, likelihood=likelihood, seed=seed)
        return Fitted(outputs, None, none)
    problems = problems_of(block, C, likelihood)
    if probe == "mass_mean":
        W, chosen = mass_mean(problems, block.scale)[:, 0], none
    else:
        W, at = _chosen(block, problems, probe)
        chosen = torch.tensor(C, device=at.device)[at]
    return Fitted(_outputs(block.rows, W), W, chosen)


def problems_of(block: Block, C: Sequence[float], likelihood: Likelihood) -> LogisticProblems:
    """The regressions that the training rows of a block pose, one for each target and strength."""
    examples = _examples(block, block.parts[0], likelihood)
    counts = block.present[:, block.parts[0]].sum(1).clamp_min(1).float()
    penalties = 1 / (torch.tensor(C, device=counts.device)[None] * counts[:, None])[..., None]
    return LogisticProblems(examples.rows, examples.dense, examples.weights, penalties, likelihood)


def factored(problems: LogisticProblems) -> Tensor:
    """Factors of the rows' covariance at the problems' strengths."""
    return factors(covariance(problems.rows), problems.penalties.mean(-1) / problems.likelihood.curvature())


def _chosen(block: Block, problems: LogisticProblems, probe: str) -> tuple[Tensor, Tensor]:
    """Weights of every target at the strength that does best on the validation rows, and which that is."""
    if probe == "ridge":
        every = ridge(problems, covariance(problems.rows))
        at = _best(block, every, problems.likelihood, squares=True)
        return _picked(every, at), at
    factor = factored(problems)
    if problems.penalties.shape[1] == 1:
        W = fit(problems, factor)[:, 0]
        return W, torch.zeros(len(W), W.shape[2], dtype=torch.long, device=W.device)
    rough = fit(problems, factor, tolerance=_CHOOSING)
    at = _best(block, rough, problems.likelihood)
    W = _picked(rough, at)
    for strength in at.unique().tolist():  # the rest of the way, for the winners alone
        targets = (at == strength).any(0).nonzero()[:, 0]
        own = LogisticProblems(
            problems.rows,
            problems.dense[:, :, targets],
            problems.weights[:, :, targets],
            problems.penalties[:, strength : strength + 1],
            problems.likelihood,
        )
        one = slice(strength, strength + 1)
        exact = fit(own, factor[:, one], start=rough[:, one][:, :, :, targets])[:, 0]
        W[:, :, targets] = torch.where((at[:, targets] == strength)[:, None, :, None], exact, W[:, :, targets])
    return W, at


def _best(block: Block, every: Tensor, likelihood: Likelihood, *, squares: bool = False) -> Tensor:
    """The strength of the least validation loss (or squared error), ``[set, target]``."""
    examples = _choosing(block, likelihood)
    losses = []
    for strength in range(every.shape[1]):
        outputs = _outputs(examples.rows, every[:, strength])
        error = (outputs - likelihood.regressed(examples.dense)).square().sum(-1)
        loss = error if squares else likelihood.loss(outputs, examples.dense)
        losses.append((loss * examples.weights).sum(1))
    return torch.stack(losses).argmin(0)


def _picked(every: Tensor, at: Tensor) -> Tensor:
    index = at[:, None, None, :, None].expand(-1, 1, every.shape[2], -1, every.shape[4])
    return every.gather(1, index)[:, 0]


def _outputs(rows: Tensor, W: Tensor) -> Tensor:
    return torch.bmm(rows, W.flatten(2)).view(*rows.shape[:2], *W.shape[2:])


def _choosing(block: Block, likelihood: Likelihood) -> Examples:
    """What to choose by: the validation rows; the training rows where a position has no validation row."""
    _, validation, _ = block.parts
    if bool(block.present[:, validation].any(1).all()):
        return _examples(block, validation, likelihood)
    return _examples(block, block.parts[0], likelihood)


def _examples(block: Block, part: slice, likelihood: Likelihood) -> Examples:
    labels = block.labels[:, part]
    weights = block.weights(part)[..., None].expand(-1, -1, labels.shape[2])
    return Examples(block.rows[:, part], likelihood.dense(labels.nan_to_num()), weights)
