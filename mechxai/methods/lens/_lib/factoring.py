"""Non-negative matrix factorisation of MLP activations into groups of neurons that fire together."""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

ROUNDS = 500  # of the solver, as in Ecco
_NOISE = 1e-12  # eigenvalues of the Gram matrix below this share of the largest are rounding


@dataclass(frozen=True)
class Factors:
    """Factors of one prompt's activations, largest share first; ``activity.T @ weights`` approximates the activations.

    Attributes:
        activity: activity of each factor at each position, ``[factor, pos]``, in units of the activations: the length
            of the factor's part of them.
        weights: weights of the neurons in each factor, ``[factor, neuron]``, with norm 1 (all 0 in a factor that
            vanished).
        share: share of the activations' sum of squares that each factor explains, averaged over every order in which
            factors could be added (its Shapley value), ``[factor]``. Shares add up to `explained`.
        settled: whether the solver converged before its last round.
    """

    activity: np.ndarray
    weights: np.ndarray
    share: np.ndarray
    settled: bool

    @property
    def explained(self) -> float:
        """The share of the activations' sum of squares that all factors explain: 1 minus the relative squared error."""
        return float(self.share.sum())


def nonnegative_factors(activations: np.ndarray, n: int) -> Factors:
    """The ``n`` factors of activations ``[pos, neuron]``; fewer if the activations have a lower rank.

    Uses scikit-learn's ``NMF``: squared error, coordinate descent, initialised from the singular vectors (``nndsvd``).

    Args:
        activations: finite and non-negative.
        n: number of factors.
    """
    count = min(n, _rank(activations))
    if not count:
        return Factors(np.zeros((0, len(activations))), np.zeros((0, activations.shape[1])), np.zeros(0), settled=True)
    solver = NMF(
        count,  # pyright: ignore[reportArgumentType]  # typed as a string, after its default
        init="nndsvd",
        solver="cd",
        max_iter=ROUNDS,
        random_state=0,
    )
    with warnings.catch_warnings():  # `settled` reports it
        warnings.simplefilter("ignore", ConvergenceWarning)
        at_positions = solver.fit_transform(activations)
    weights = np.asarray(solver.components_)
    norms = np.linalg.norm(weights, axis=1)
    activity = (at_positions * norms).T.astype(np.float64)
    weights = weights / np.where(norms > 0, norms, 1.0)[:, None]
    share = _shares(activations, activity, weights)
    order = np.argsort(-share, kind="stable")
    return Factors(activity[order], weights[order], share[order], settled=solver.n_iter_ < ROUNDS)


def _rank(activations: np.ndarray) -> int:
    """The numerical rank: the number of singular vectors that are more than rounding."""
    smaller = activations if activations.shape[0] <= activations.shape[1] else activations.T
    exact = smaller.astype(np.float64)
    eigenvalues = np.linalg.eigvalsh(exact @ exact.T)
    return int((eigenvalues > _NOISE * eigenvalues[-1]).sum()) if eigenvalues[-1] > 0 else 0


def _shares(activations: np.ndarray, activity: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Each factor's Shapley value of ``|X|^2 - |X - F|^2 = 2 <X, F> - <F, F>``; pairs share the last term equally."""
    total = np.square(activations, dtype=np.float64).sum()
    with_activations = ((activations @ weights.T).T * activity).sum(1)  # <X, F_f>
    exact = weights.astype(np.float64)
    with_factors = ((activity @ activity.T) * (exact @ exact.T)).sum(1)  # <F_f, F>
    return (2 * with_activations - with_factors) / total
