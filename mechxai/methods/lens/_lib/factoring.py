"""Non-negative matrix factorisation of neurons' activations: groups of neurons that fire together, and where."""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

ROUNDS = 500  # of the solver, as in Ecco
_NOISE = 1e-12  # eigenvalues of the Gram matrix below so much of the largest are rounding


@dataclass(frozen=True)
class Factors:
    """Factors of one prompt's activations, largest share first; ``activity.T @ weights`` stands for the activations.

    Attributes:
        activity: how strongly each factor is there at each position, ``[factor, pos]``, in units of the activations:
            the length of the factor's part of them.
        weights: of the neurons in each factor, ``[factor, neuron]``, of length 1 (all 0 in a factor that fell away).
        share: of the activations' sum of squares that each factor stands for: what it adds to the part explained,
            averaged over every order in which factors could be added (its Shapley value). Shares add up to `explained`.
        settled: whether the solver ended before its last round.
    """

    activity: np.ndarray
    weights: np.ndarray
    share: np.ndarray
    settled: bool

    @property
    def explained(self) -> float:
        """One minus the squared error as a share of the activations' sum of squares."""
        return float(self.share.sum())


def factored(activations: np.ndarray, n: int) -> Factors:
    """At most ``n`` factors of ``[pos, neuron]``: as many as the rank of the activations, where that is lower.

    scikit-learn's ``NMF`` does it: squared error, coordinate descent, begun from the singular vectors (``nndsvd``).

    Args:
        activations: none of them negative, NaN or infinite.
        n: factors asked.
    """
    count = min(n, _rank(activations))
    if not count:
        return Factors(np.zeros((0, len(activations))), np.zeros((0, activations.shape[1])), np.zeros(0), settled=True)
    solver = NMF(
        count,  # pyright: ignore[reportArgumentType]  # taken for a text, since that is what it is by default
        init="nndsvd",
        solver="cd",
        max_iter=ROUNDS,
        random_state=0,
    )
    with warnings.catch_warnings():  # `settled` says it
        warnings.simplefilter("ignore", ConvergenceWarning)
        at_positions = solver.fit_transform(activations)
    weights = np.asarray(solver.components_)
    length = np.linalg.norm(weights, axis=1)
    activity = (at_positions * length).T.astype(np.float64)
    weights = weights / np.where(length > 0, length, 1.0)[:, None]
    share = _shares(activations, activity, weights)
    order = np.argsort(-share, kind="stable")
    return Factors(activity[order], weights[order], share[order], settled=solver.n_iter_ < ROUNDS)


def _rank(activations: np.ndarray) -> int:
    """How many factors there can be before singular vectors are made of rounding."""
    smaller = activations if activations.shape[0] <= activations.shape[1] else activations.T
    exact = smaller.astype(np.float64)
    found = np.linalg.eigvalsh(exact @ exact.T)
    return int((found > _NOISE * found[-1]).sum()) if found[-1] > 0 else 0


def _shares(activations: np.ndarray, activity: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Each factor's Shapley value in ``|X|^2 - |X - F|^2 = 2 <X, F> - <F, F>``, whose last part falls to pairs."""
    whole = np.square(activations, dtype=np.float64).sum()
    with_all = ((activations @ weights.T).T * activity).sum(1)  # <X, F_f>
    own = weights.astype(np.float64)
    among = ((activity @ activity.T) * (own @ own.T)).sum(1)  # <F_f, F>
    return (2 * with_all - among) / whole
