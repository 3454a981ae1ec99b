"""How good probes are on rows they have not seen, with intervals over prompts."""

import warnings

import numpy as np
import torch
from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score

from mechxai.core.statistics import ratio_interval
from mechxai.methods.probes._lib.likelihood import Likelihood

_BINS = 15


def class_scores(
    outputs: torch.Tensor, labels: np.ndarray, prompts: np.ndarray, *, likelihood: Likelihood
) -> dict[str, float | np.ndarray]:
    """Of one probe on its test rows, from outputs ``[row, column]``; the probabilities' mean log-loss among them.

    scikit-learn gives balanced accuracy and AUROC (of several classes: the mean of each against the rest, classes
    absent from the test rows left out). ``calibration_error`` is the expected calibration error of the likeliest class
    over 15 bins of equal width (Guo et al. 2017, arXiv 1706.04599, section 2).

    Args:
        outputs: as `Likelihood` describes them.
        labels: the true class of each row.
        prompts: of each row; intervals resample them.
        likelihood: of the labels.
    """
    probabilities = likelihood.probabilities(outputs).double().numpy()
    predicted = likelihood.predicted(outputs).numpy()
    right = predicted == labels
    interval = ratio_interval(by_prompt(right, prompts), by_prompt(np.ones(len(right)), prompts))
    own = np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, 1)
    return {
        "accuracy": float(right.mean()),
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
        "balanced_accuracy": _balanced(labels, predicted),
        "auroc": _auroc(probabilities, labels),
        "calibration_error": _calibration_error(probabilities.max(1), right),
        "log_loss": float(-np.log(own).mean()),
    }


def number_scores(outputs: torch.Tensor, labels: np.ndarray, prompts: np.ndarray) -> dict[str, float | np.ndarray]:
    """Of one regression on its test rows: R squared with its interval over prompts, and the mean squared error."""
    predicted = outputs[:, 0].double().numpy()
    errors, spread = np.square(labels - predicted), np.square(labels - labels.mean())
    interval = ratio_interval(by_prompt(errors, prompts), by_prompt(spread, prompts))
    return {
        "r2": float(r2_score(labels, predicted)),
        "r2_low": 1 - interval.high,
        "r2_high": 1 - interval.low,
        "mean_squared_error": float(errors.mean()),
    }


def majority_baseline(train: np.ndarray, test: np.ndarray) -> float:
    """Accuracy on the test labels of always saying the commonest training label."""
    return float((test == np.bincount(train).argmax()).mean())


def selectivity(own: np.ndarray, control: np.ndarray, prompts: np.ndarray) -> dict[str, float | np.ndarray]:
    """How much more often a probe is right than its controls, ``[row]`` and ``[row, draw]``, with an interval."""
    gain = own - control.mean(1)
    interval = ratio_interval(by_prompt(gain, prompts), by_prompt(np.ones(len(gain)), prompts))
    return {"selectivity": float(gain.mean()), "selectivity_low": interval.low, "selectivity_high": interval.high}


def by_prompt(values: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """Sums over the rows of each prompt."""
    _, where = np.unique(prompts, return_inverse=True)
    return np.bincount(where, weights=values)


def _balanced(labels: np.ndarray, predicted: np.ndarray) -> float:
    with warnings.catch_warnings():  # of classes that occur among predictions alone, which count for nothing
        warnings.simplefilter("ignore", UserWarning)
        return float(balanced_accuracy_score(labels, predicted))


def _auroc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    present = np.unique(labels)
    if len(present) < 2:
        return float("nan")
    if probabilities.shape[1] == 2:
        return float(roc_auc_score(labels, probabilities[:, 1]))
    return float(np.mean([roc_auc_score(labels == one, probabilities[:, one]) for one in present]))


def _calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(right))
