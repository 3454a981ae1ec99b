"""Scores of probes on test rows, with intervals over prompts."""

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
    """The scores of a classifying probe on its test rows, accuracy with its interval and mean log-loss among them.

    scikit-learn computes balanced accuracy and AUROC (for several classes, the mean of one-against-rest over classes
    that occur in the test rows). ``calibration_error`` is the expected calibration error of the most probable class
    over 15 bins of equal width (Guo et al. 2017, arXiv 1706.04599, section 2).

    Args:
        outputs: the probe's outputs (see `Likelihood`), ``[row, column]``.
        labels: the true class of each row.
        prompts: the prompt of each row; intervals resample prompts.
        likelihood: likelihood of the labels.
    """
    probabilities = likelihood.probabilities(outputs).double().numpy()
    predicted = likelihood.predicted(outputs).numpy()
    correct = predicted == labels
    interval = ratio_interval(by_prompt(correct, prompts), by_prompt(np.ones(len(correct)), prompts))
    of_label = np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, 1)
    return {
        "accuracy": float(correct.mean()),
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
        "balanced_accuracy": _balanced(labels, predicted),
        "auroc": _auroc(probabilities, labels),
        "calibration_error": _calibration_error(probabilities.max(1), correct),
        "log_loss": float(-np.log(of_label).mean()),
    }


def number_scores(outputs: torch.Tensor, labels: np.ndarray, prompts: np.ndarray) -> dict[str, float | np.ndarray]:
    """The scores of a regression probe on its test rows: R squared with its interval, and the mean squared error."""
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
    """Test accuracy of always predicting the most frequent training label."""
    return float((test == np.bincount(train).argmax()).mean())


def selectivity(correct: np.ndarray, control: np.ndarray, prompts: np.ndarray) -> dict[str, float | np.ndarray]:
    """Accuracy of a probe minus the mean accuracy of its controls, with an interval.

    Args:
        correct: whether the probe is correct, ``[row]``.
        control: whether each control is correct, ``[row, draw]``.
        prompts: the prompt of each row.
    """
    gain = correct - control.mean(1)
    interval = ratio_interval(by_prompt(gain, prompts), by_prompt(np.ones(len(gain)), prompts))
    return {"selectivity": float(gain.mean()), "selectivity_low": interval.low, "selectivity_high": interval.high}


def by_prompt(values: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """Sums over the rows of each prompt."""
    _, prompt_index = np.unique(prompts, return_inverse=True)
    return np.bincount(prompt_index, weights=values)


def _balanced(labels: np.ndarray, predicted: np.ndarray) -> float:
    with warnings.catch_warnings():  # warns of classes that only predictions have, which do not count
        warnings.simplefilter("ignore", UserWarning)
        return float(balanced_accuracy_score(labels, predicted))


def _auroc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    present = np.unique(labels)
    if len(present) < 2:
        return float("nan")
    if probabilities.shape[1] == 2:
        return float(roc_auc_score(labels, probabilities[:, 1]))
    return float(np.mean([roc_auc_score(labels == klass, probabilities[:, klass]) for klass in present]))


def _calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(bins, weights=confidence - correct, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(correct))
