"""Every kind of probe equals its scikit-learn counterpart on synthetic data; scores and codelength by hand."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestCentroid

from mechxai.methods.probes._lib.activation_block import activation_block
from mechxai.methods.probes._lib.codelength import codelength
from mechxai.methods.probes._lib.fitting import fit_probes
from mechxai.methods.probes._lib.likelihood import NUMBERS, Likelihood
from mechxai.methods.probes._lib.probe_scores import class_scores
from mechxai.methods.probes._lib.rows_read import ProbeRows

CPU = torch.device("cpu")


def blobs(n=600, d=20, n_classes=3, seed=0, noise=1.5):
    """Classes with means of their own, features of very different scale and offset."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, n_classes, (n,), generator=generator)
    means = torch.randn(n_classes, d, generator=generator)
    values = means[labels] + noise * torch.randn(n, d, generator=generator)
    return values * torch.logspace(-2, 2, d) + 10 * torch.randn(d, generator=generator), labels


def block_of(values, labels, n_train=400, n_validation=100, present=None):
    rows = torch.arange(len(values))
    present = torch.ones(len(values), dtype=torch.bool) if present is None else present
    read = ProbeRows("END", rows, rows, present, labels[:, None] if labels.ndim == 1 else labels)
    return activation_block(values, [read], (n_train, n_validation), {}, CPU)


def standardised(values, n_train=400):
    return ((values - values[:n_train].mean(0)) / values[:n_train].std(0, correction=0)).numpy()


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_logistic_equals_scikit_learn(n_classes, C):
    values, labels = blobs(n_classes=n_classes)
    block = block_of(values, labels)
    ours = fit_probes(block, "logistic", (C,), likelihood=Likelihood(n_classes), seed=0)
    x, y = standardised(values), labels.numpy()
    theirs = LogisticRegression(C=C, max_iter=5000, tol=1e-8).fit(x[:400], y[:400])
    likelihood = Likelihood(n_classes)
    probabilities = likelihood.probabilities(ours.outputs[0, :, 0]).numpy()
    assert np.abs(probabilities - theirs.predict_proba(x)).mean() < 5e-3
    right = likelihood.predicted(ours.outputs[0, 500:, 0]).numpy() == y[500:]
    assert abs(right.mean() - theirs.score(x[500:], y[500:])) <= 0.01 + 1e-9
    reached = objective(ours.W[0, :, 0], x, y, C, n_classes)
    assert reached <= 1.02 * sklearn_objective(theirs, x, y, C) + 5e-5


def objective(W, x, y, C, n_classes):
    likelihood = Likelihood(n_classes)
    outputs = torch.from_numpy(x[:400]) @ W[:-1] + W[-1]
    loss = likelihood.loss(outputs, likelihood.dense(torch.from_numpy(y[:400]))).mean()
    return float(loss + W[:-1].square().sum() / (2 * C * 400))


def sklearn_objective(model, x, y, C):
    own = np.log(np.clip(model.predict_proba(x[:400].astype(float)), 1e-30, 1))[np.arange(400), y[:400]]
    return -own.mean() + np.square(model.coef_).sum() / (2 * C * 400)


def test_ridge_equals_scikit_learn_on_numbers():
    values, _ = blobs()
    generator = torch.Generator().manual_seed(1)
    labels = (values / values.std(0)) @ torch.randn(20, generator=generator) + torch.randn(600, generator=generator)
    ours = fit_probes(block_of(values, labels), "ridge", (0.1,), likelihood=Likelihood(NUMBERS), seed=0)
    x = standardised(values)
    theirs = Ridge(alpha=10.0).fit(x[:400], labels[:400].numpy())
    assert np.allclose(ours.outputs[0, :, 0, 0].numpy(), theirs.predict(x), atol=1e-3)


def test_mass_mean_is_the_nearest_class_mean():
    values, labels = blobs(n_classes=3, noise=0.5)
    values = values / 10
    ours = fit_probes(block_of(values, labels), "mass_mean", (1.0,), likelihood=Likelihood(3), seed=0)
    theirs = NearestCentroid().fit(values[:400].numpy(), labels[:400].numpy())
    assert (ours.outputs[0, :, 0].argmax(-1).numpy() == theirs.predict(values.numpy())).mean() > 0.995
    two, which = blobs(n_classes=2)
    block = block_of(two, which)
    probe = fit_probes(block, "mass_mean", (1.0,), likelihood=Likelihood(2), seed=0)
    weight, _ = block.raw(probe.W[:, :, 0])
    difference = two[:400][which[:400] == 1].mean(0) - two[:400][which[:400] == 0].mean(0)
    assert torch.cosine_similarity(weight[0, 0], difference, dim=0) > 0.9999


def test_an_mlp_learns_what_no_line_separates():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2000, 4, generator=generator)
    labels = ((values[:, 0] * values[:, 1]) > 0).long()
    block = block_of(values, labels, 1400, 200)
    scores = {}
    for probe in ("logistic", "mlp"):
        outputs = fit_probes(block, probe, (1.0,), likelihood=Likelihood(2), seed=0).outputs[0, 1600:, 0, 0]
        scores[probe] = float(((outputs > 0) == labels[1600:].bool()).float().mean())
    assert scores["mlp"] > 0.9
    assert scores["logistic"] < 0.65


def test_regularisation_is_chosen_on_the_validation_rows():
    values, labels = blobs(n=600, d=200, n_classes=2, noise=6.0)
    block = block_of(values, labels)
    likelihood = Likelihood(2)
    grid = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    chosen = fit_probes(block, "logistic", grid, likelihood=likelihood, seed=0)
    losses = []
    for C in grid:
        outputs = fit_probes(block, "logistic", (C,), likelihood=likelihood, seed=0).outputs[0, 400:500, 0]
        losses.append(float(likelihood.loss(outputs, likelihood.dense(labels[400:500])).mean()))
    at = [pytest.approx(C) for C in grid].index(float(chosen.C[0, 0]))
    assert losses[at] <= min(losses) + 2e-3
    alone = fit_probes(block, "logistic", (float(chosen.C[0, 0]),), likelihood=likelihood, seed=0)
    assert (chosen.outputs - alone.outputs).abs().mean() < 0.02 * alone.outputs.abs().mean()


def test_rows_that_do_not_count_change_nothing():
    values, labels = blobs(n_classes=2)
    present = torch.rand(600, generator=torch.Generator().manual_seed(0)) > 0.3
    marked = block_of(torch.where(present[:, None], values, 1e6), torch.where(present, labels, -1), present=present)
    kept = present.nonzero()[:, 0]
    counts = int((kept < 400).sum()), int(((kept >= 400) & (kept < 500)).sum())
    alone = block_of(values[kept], labels[kept], *counts)
    for probe in ("logistic", "ridge", "mass_mean"):
        outputs = [fit_probes(one, probe, (0.1,), likelihood=Likelihood(2), seed=0).outputs for one in (marked, alone)]
        assert torch.allclose(outputs[0][:, kept], outputs[1], atol=1e-2), probe


def test_weights_for_activations_as_they_are():
    values, labels = blobs()
    block = block_of(values, labels)
    probe = fit_probes(block, "logistic", (1.0,), likelihood=Likelihood(3), seed=0)
    weight, bias = block.raw(probe.W[:, :, 0])
    assert torch.allclose(values @ weight[0].T + bias[0], probe.outputs[0, :, 0], atol=1e-2)


def test_scores_by_hand():
    outputs = torch.tensor([[2.0], [-1.0], [0.5], [-3.0]])
    labels = np.array([1, 1, 0, 0])
    found = class_scores(outputs, labels, np.arange(4), likelihood=Likelihood(2))
    assert found["accuracy"] == 0.5
    assert found["balanced_accuracy"] == 0.5
    assert found["auroc"] == 0.75 == roc_auc_score(labels, outputs[:, 0])
    p = 1 / (1 + np.exp(-outputs[:, 0].numpy().astype(float)))
    assert found["log_loss"] == pytest.approx(-np.log([p[0], p[1], 1 - p[2], 1 - p[3]]).mean())
    # confidences 0.88 right, 0.73 wrong, 0.62 wrong, 0.95 right, each in a bin of its own
    gaps = np.abs(np.maximum(p, 1 - p) - [1, 0, 0, 1])
    assert found["calibration_error"] == pytest.approx(gaps.mean())


def test_codelength_of_noise_is_uniform_and_of_a_copy_short():
    likelihood = Likelihood(2)
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (2500,), generator=generator)
    noise = torch.randn(2500, 5, generator=generator)
    copied = torch.cat([noise, 4.0 * labels[:, None] + 0.1 * noise[:, :1]], 1)
    found = {}
    for name, values in (("noise", noise), ("copy", copied)):
        block = block_of(values, labels, 2000, 250)
        bits, compression = codelength(block, torch.tensor([0.1]), likelihood, seed=0)
        found[name] = float(bits), float(compression)
    assert found["noise"][1] == pytest.approx(1, abs=0.03)
    assert found["copy"][1] > 5
    assert found["copy"][0] >= 2, "the first block is coded uniformly"
