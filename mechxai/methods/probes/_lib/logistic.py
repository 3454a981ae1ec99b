"""Logistic probes: L-BFGS over many problems at once, preconditioned by the covariance of the data.

Problems on the same rows share the expensive work: the covariance is computed and factorised once, and each step takes
two products of the data with the columns of all problems side by side. The outputs are linear in the step length, so
the line search needs no third pass over the data.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.methods.probes._lib.likelihood import Likelihood

_MEMORY = 10  # past steps that L-BFGS keeps
_MIN_LENGTH, _MAX_LENGTH = 0.05, 20.0  # bounds of a step's length
_HALVINGS = 8
_ROUNDING = 1e-6
_BLOCK = 256


@dataclass(frozen=True)
class LogisticProblems:
    """Logistic regressions on the same rows.

    Axes: ``set`` indexes row sets (positions), ``penalty`` regularisation strengths, ``target`` label vectors, and
    ``column`` outputs.

    Attributes:
        rows: standardised activations, ``[set, row, feature]``; the last feature is 1; absent rows are zero.
        dense: labels in the form of `Likelihood.dense`, ``[set, row, target, column]``.
        weights: weight of every row in each problem, ``[set, row, target]``; they sum to 1 over rows.
        penalties: L2 strengths per unit of mean loss, ``[set, penalty, target]`` (or 1 for all targets); the last
            feature (bias) is not penalised.
        likelihood: likelihood of the labels.
    """

    rows: Float[Tensor, "set row feature"]
    dense: Float[Tensor, "set row target column"]
    weights: Float[Tensor, "set row target"]
    penalties: Float[Tensor, "set penalty #target"]
    likelihood: Likelihood

    def outputs(self, W: Float[Tensor, "set penalty feature target column"]) -> Tensor:
        """``rows @ W``, ``[set, row, penalty, target, column]``."""
        n_sets, n_penalties, n_features, n_targets, n_columns = W.shape
        flat = W.movedim(1, 2).reshape(n_sets, n_features, -1)
        return torch.bmm(self.rows, flat).view(n_sets, -1, n_penalties, n_targets, n_columns)

    def pulled_back(self, residual: Float[Tensor, "set row penalty target column"]) -> Tensor:
        """``rows^T @ residual``, ``[set, penalty, feature, target, column]``."""
        n_sets, n_rows, n_penalties, n_targets, n_columns = residual.shape
        flat = torch.bmm(self.rows.mT, residual.reshape(n_sets, n_rows, -1))
        return flat.view(n_sets, -1, n_penalties, n_targets, n_columns).movedim(2, 1)

    def penalty(self) -> Float[Tensor, "set penalty feature some one"]:
        """The L2 strength of every feature; 0 for the bias."""
        strengths = self.penalties[:, :, None].repeat(1, 1, self.rows.shape[-1], 1)
        strengths[:, :, -1] = 0
        return strengths[..., None]


def covariance(rows: Float[Tensor, "set row feature"]) -> Tensor:
    """``rows^T rows / count``, ``[set, feature, feature]``; only the lower triangle is filled, in blocks.

    The last feature is 1 for present rows and 0 for absent ones.
    """
    counts = rows[..., -1].sum(1).clamp_min(1)
    n_features = rows.shape[-1]
    products = rows.new_zeros(len(rows), n_features, n_features)
    for first in range(0, n_features, _BLOCK):
        block = slice(first, first + _BLOCK)
        products[:, block, : first + _BLOCK] = torch.bmm(rows[..., block].mT, rows[..., : first + _BLOCK])
    return products / counts[:, None, None]


def factors(
    lower: Float[Tensor, "set feature feature"], strengths: Float[Tensor, "set penalty"]
) -> Float[Tensor, "set penalty feature feature"]:
    """Cholesky factors of ``covariance + strength``, from the covariance's lower triangle.

    The bias is penalised here too: the factors serve only as preconditioner.
    """
    shifted = lower[:, None].repeat(1, strengths.shape[1], 1, 1)
    shifted.diagonal(dim1=-2, dim2=-1).add_(strengths[..., None])
    cholesky, failed = torch.linalg.cholesky_ex(shifted)
    if bool(failed.any()):  # rounding made a matrix indefinite: raise its diagonal
        more = failed[..., None] * 1e-3 * shifted.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
        shifted.diagonal(dim1=-2, dim2=-1).add_(more)
        cholesky = torch.linalg.cholesky(shifted)
    return cholesky


def fit(
    problems: LogisticProblems,
    factor: Float[Tensor, "set penalty feature feature"],
    *,
    start: Tensor | None = None,
    tolerance: float = 1e-6,
    max_steps: int = 200,
) -> Float[Tensor, "set penalty feature target column"]:
    """The minimum of mean negative log-likelihood plus ``penalty / 2 |W|^2`` of every problem.

    Args:
        problems: the regressions to fit.
        factor: Cholesky factors of the covariance; see `factors`.
        start: initial weights; zero by default.
        tolerance: expected improvement of the next step in nats below which a problem is solved. Solved problems do not
            move while others go on, so a fit does not depend on which problems it is fitted with.
        max_steps: maximum number of steps.

    Cost: per step, two products of the rows with a matrix of problems times columns.
    """
    descent = _Descent(problems, factor, start, tolerance)
    for _ in range(max_steps):
        if descent.solved:
            break
        descent.step()
    return descent.W


class _Descent:
    """The state of the minimisation of all problems."""

    def __init__(self, problems: LogisticProblems, factor: Tensor, start: Tensor | None, tolerance: float) -> None:  # noqa: PLR0917
        self._tolerance, self._done = tolerance, torch.zeros((), dtype=torch.bool, device=problems.rows.device)
        self._problems, self._factor, self._strength = problems, factor, problems.penalty()
        shape = (*problems.penalties.shape[:2], problems.rows.shape[-1], *problems.dense.shape[2:])
        self.W = problems.rows.new_zeros(shape) if start is None else start
        self._outputs = problems.rows.new_zeros(len(problems.rows), problems.rows.shape[1], shape[1], *shape[3:])
        if start is not None:
            self._outputs = problems.outputs(start)
        self._weights = problems.weights[:, :, None, :]  # [set, row, penalty, target]
        self._dense = problems.dense[:, :, None]  # [set, row, penalty, target, column]
        self._past: list[tuple[Tensor, Tensor, Tensor]] = []  # steps, changes of gradient, 1 / their product
        self._loss = self._value(self._outputs, self.W)
        self._gradient = self._slope(self._outputs, self.W)
        self._update_direction()

    @property
    def solved(self) -> bool:
        """Whether every problem is solved."""
        return bool(self._done.all())

    def step(self) -> None:
        """Takes one step in every problem, shortened until its objective falls."""
        along = self._problems.outputs(self._direction)
        length = self._length(along)
        outputs, W, loss = self._moved(along, length)
        for _ in range(_HALVINGS):
            rises = loss > self._loss + _ROUNDING * (1 + self._loss.abs())
            if not bool(rises.any()):
                break
            length = torch.where(rises, length / 2, length)
            outputs, W, loss = self._moved(along, length)
        gradient = self._slope(outputs, W)
        change, moved = gradient - self._gradient, W - self.W
        product = _dot(moved, change)
        inverse = torch.where(product > 0, 1 / product.clamp_min(1e-30), 0)
        self._past = [*self._past[1 - _MEMORY :], (moved, change, inverse)]
        self.W, self._outputs, self._loss, self._gradient = W, outputs, loss, gradient
        self._update_direction()

    def _moved(self, along: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs, weights and objective after steps of this length."""
        outputs = torch.addcmul(self._outputs, along, length[:, None, ..., None])
        W = torch.addcmul(self.W, self._direction, length[:, :, None, :, None])
        return outputs, W, self._value(outputs, W)

    def _value(self, outputs: Tensor, W: Tensor) -> Tensor:
        """The objective, ``[set, penalty, target]``."""
        fit = (self._weights * self._problems.likelihood.loss(outputs, self._dense)).sum(1)
        return fit + (self._strength * W.square()).sum((2, 4)) / 2

    def _slope(self, outputs: Tensor, W: Tensor) -> Tensor:
        residual = self._problems.likelihood.residual(outputs, self._dense) * self._weights[..., None]
        return self._problems.pulled_back(residual) + self._strength * W

    def _update_direction(self) -> None:
        """The L-BFGS direction: minus the gradient times an inverse Hessian from past steps and the covariance."""
        q, used = self._gradient, []
        for moved, change, inverse in reversed(self._past):
            share = inverse * _dot(moved, q)
            used.append(share)
            q = q - _each(share) * change
        q = self._preconditioned(q)
        for (moved, change, inverse), share in zip(self._past, reversed(used), strict=True):
            q = q + _each(share - inverse * _dot(change, q)) * moved
        fall = -_dot(self._gradient, q)
        self._done = self._done | (fall > -2 * self._tolerance)  # a step is expected to gain half the first-order fall
        self._direction = torch.where(_each(self._done), torch.zeros_like(q), -q)
        self._fall = torch.where(self._done, 0, fall)

    def _preconditioned(self, gradient: Tensor) -> Tensor:
        flat = torch.cholesky_solve(gradient.flatten(3), self._factor)
        return flat.view_as(gradient) / self._problems.likelihood.curvature()

    def _length(self, along: Tensor) -> Tensor:
        """The step length at which the slope along the direction vanishes, from its values at 0 and 1 (secant)."""
        W = self.W + self._direction
        residual = self._problems.likelihood.residual(self._outputs + along, self._dense) * along
        slope = (self._weights * residual.sum(-1)).sum(1) + (self._strength * W * self._direction).sum((2, 4))
        bend = slope - self._fall
        return torch.where(bend > 0, -self._fall / bend.clamp_min(1e-30), 1.0).clamp(_MIN_LENGTH, _MAX_LENGTH)


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Inner product of every problem, ``[set, penalty, target]``."""
    return (left * right).sum((2, 4))


def _each(values: Tensor) -> Tensor:
    """``[set, penalty, target]`` with axes for features and columns."""
    return values[:, :, None, :, None]
