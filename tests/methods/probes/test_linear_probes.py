"""Probes: each kind against scikit-learn, laws of controls, padding, resuming, every architecture, what is refused."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestCentroid

import mechxai as mx
from mechxai.core.errors import ConfigError, ShapeError, SiteError
from mechxai.engine.execution import Execution
from mechxai.methods.probes._lib.activation_block import activation_block
from mechxai.methods.probes._lib.codelength import codelength
from mechxai.methods.probes._lib.fitting import fit_probes
from mechxai.methods.probes._lib.likelihood import NUMBERS, Likelihood
from mechxai.methods.probes._lib.probe_scores import class_scores
from mechxai.methods.probes._lib.rows_read import ProbeRows
from mechxai.methods.probes._lib.splits import split_of
from mechxai.model.backends.randomised import randomised
from tests.conftest import FOLDED

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


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_every_architecture_equals_scikit_learn_and_padded_rows_equal_singles(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    generator = torch.Generator().manual_seed(0)
    lengths = 3 + torch.arange(120) % 4
    tokens = torch.randint(10, 190, (120, 6), generator=generator)
    tokens[:, 1] = 10 + 60 * (torch.arange(120) % 2) + tokens[:, 1] % 60  # the class is written into the prompt
    labels = (tokens[:, 1] >= 70).long()
    mask = torch.arange(6)[None] < lengths[:, None]
    dataset = mx.ProbeDataset.from_tokens(tokens, labels, mask=mask)
    probes = mx.LinearProbes(pos=[1, -1], C=[0.1], control="none", random_model=False)
    result = probes(model, dataset)
    split = split_of(dataset, 0)
    train, test = split.order[: split.n_train], split.order[split.n_train + split.n_validation :]
    for layer in range(model.architecture.n_layers):
        acts = torch.stack(
            [
                model.cache(row[None, :length], ["resid_post"], layers=[layer], hooked=True)["resid_post", layer][0, -1]
                for row, length in zip(tokens, lengths.tolist(), strict=True)
            ]
        )
        center, scale = acts[train].mean(0), acts[train].std(0, correction=0)
        x = ((acts - center) / scale).numpy()
        theirs = LogisticRegression(C=0.1, max_iter=5000).fit(x[train], labels[train])
        ours = result.data["accuracy"].sel(layer=layer, pos="-1").item()
        assert abs(ours - theirs.score(x[test], labels[test])) <= 1 / len(test) + 1e-9


def test_a_bidirectional_model_padded_or_not(model_of):
    model = model_of("bert", "bridge", "raw")
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(10, 90, (60, 6), generator=generator)
    lengths = 4 + torch.arange(60) % 3
    labels = (tokens[:, 2] > 50).long()
    dataset = mx.ProbeDataset.from_tokens(tokens, labels, mask=torch.arange(6)[None] < lengths[:, None])
    found = mx.LinearProbes(pos=[2, "mean"], random_model=False)(model, dataset).data
    assert found["accuracy"].notnull().all()
    row = dataset.rows(slice(0, 1))
    alone = model.cache(row.tokens[:, :4], ["resid_post"], lengths=row.lengths)["resid_post", 0]
    padded = model.cache(row.tokens, ["resid_post"], lengths=row.lengths)["resid_post", 0][:, :4]
    assert torch.allclose(alone, padded, atol=1e-5)


@pytest.fixture(scope="module")
def numbers(zoo):
    return mx.tasks.subject_number(zoo, n=120)


def test_the_controls_of_a_known_model(zoo, numbers):
    found = mx.LinearProbes(mdl=True)(zoo, numbers).data
    for name in ("accuracy", "balanced_accuracy", "auroc", "selectivity", "control_accuracy", "majority_baseline"):
        assert found[name].dims == ("site", "layer", "pos")
    assert found["accuracy"][0, -1, 0] > 0.95, "the model agrees its verbs, so it knows the number at the end"
    assert (found["control_accuracy"] < 0.75).all()
    assert np.allclose(found["selectivity"], found["accuracy"] - found["control_accuracy"])
    assert (found["accuracy_low"] <= found["accuracy"]).all()
    assert (found["accuracy_high"] >= found["accuracy"]).all()
    assert (found["random_model_accuracy"] < 0.8).all()
    assert found["compression"][0, -1, 0] > found["compression"][0, 0, 0]


def test_labels_shuffled_beforehand_leave_nothing_to_read(zoo, numbers):
    order = torch.randperm(len(numbers), generator=torch.Generator().manual_seed(3))
    shuffled = mx.ProbeDataset(numbers.tokens, numbers.lengths, numbers.labels[order], numbers.names, numbers.groups)
    found = mx.LinearProbes(pos=["END"], random_model=False)(zoo, shuffled).data
    assert abs(float(found["accuracy"].mean()) - 0.5) < 0.15
    assert abs(float(found["selectivity"].mean())) < 0.15


def test_word_types_control_labels_of_tokens(zoo):
    dataset = mx.tasks.pos_tags(zoo, n=80)
    result = mx.LinearProbes(layers=[0, 3])(zoo, dataset)
    assert result.info.notes == ("control: word_type",)
    assert result.data["pos"].values.tolist() == ["tokens"]
    assert (result.data["accuracy"] > 0.85).all()
    assert (result.data["selectivity_low"] > 0).all()


def test_several_sites_and_positions_in_one_result(zoo, numbers):
    found = mx.LinearProbes(site=["resid_post", "z"], pos=["SUBJECT", "mean", 2], random_model=False)(zoo, numbers).data
    assert dict(found.sizes) | {"d": 128, "klass": 1} == dict(found.sizes)
    assert found["site"].values.tolist() == ["resid_post", "z"]
    assert (found["accuracy"].sel(site="resid_post", pos="SUBJECT") > 0.8).all(), "the noun itself tells"


def test_a_direction_steers(zoo, numbers):
    result = mx.LinearProbes(probe="mass_mean", random_model=False)(zoo, numbers)
    direction = mx.probe_direction(result, 2)
    assert direction.norm() == pytest.approx(1)
    batch = numbers.behaviour
    towards = mx.Intervention(mx.Site("resid_post", 2, pos="END"), mx.Steer(direction, scale=10.0))
    plural = numbers.labels == 1
    at = batch.answer_pos[:, None]
    logits = zoo.logits(batch.clean, at=at, layout=batch.layout, interventions=[towards])[:, 0]
    before = zoo.logits(batch.clean, at=at, layout=batch.layout)[:, 0]
    rows = torch.arange(len(batch))

    def gap(found):
        return found[rows, batch.answers[:, 0, 0]] - found[rows, batch.wrong[:, 0, 0]]

    moved = gap(logits) - gap(before)
    assert moved[plural].mean() > 0.3 > -0.3 > moved[~plural].mean()
    with pytest.raises(SiteError, match=r"layer='?9"):
        mx.probe_direction(result, 9)


def test_a_run_cut_short_goes_on_and_ends_the_same(zoo, numbers, tmp_path, monkeypatch):
    from mechxai.methods.probes._lib import probe_run

    probes = mx.LinearProbes(random_model=False)
    whole = probes(zoo, numbers)
    real, calls = probe_run.layer_scores, []

    def third_fails(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **keywords)

    monkeypatch.setattr(probe_run, "layer_scores", third_fails)
    with pytest.raises(KeyboardInterrupt):
        probes(zoo, numbers, execution=Execution(cells=tmp_path))
    again = probes(zoo, numbers, execution=Execution(cells=tmp_path))
    assert len(calls) == 5, "two layers were kept, two were left"
    assert again.data.identical(whole.data)


def test_regression_of_a_number(zoo):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(10, 190, (200, 5), generator=generator)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = mx.LinearProbes(probe="ridge", pos=[2])(
            zoo, mx.ProbeDataset.from_tokens(tokens, (tokens[:, 2] % 3).float())
        ).data
    assert found["control_r2"].max() < 0.3
    assert np.allclose(found["value"], found["r2"])
    assert "accuracy" not in found
    assert (found["r2_low"] <= found["r2"]).all()


def test_positions_without_labels_are_nan(zoo):
    tokens = torch.randint(10, 190, (40, 6))
    lengths = torch.tensor([3] * 38 + [6] * 2)
    dataset = mx.ProbeDataset.from_tokens(tokens, torch.arange(40) % 2, mask=torch.arange(6)[None] < lengths[:, None])
    found = mx.LinearProbes(pos=["each"], random_model=False)(zoo, dataset).data
    assert not found["accuracy"][..., :3].isnull().any()
    assert found["accuracy"][..., 3:].isnull().all() or int(found["n_train"][0, 0, 3]) >= 2


def test_splits_keep_groups_together_and_classes_apart(numbers):
    split = split_of(numbers, 0)
    parts = split.order[: split.n_train], split.order[split.n_train + split.n_validation :]
    groups = [{numbers.groups[row] for row in part.tolist()} for part in parts]
    assert not groups[0] & groups[1]
    assert sorted(split.order.tolist()) == list(range(len(numbers)))
    assert 0.5 < split.n_train / len(numbers) < 0.85


def test_a_random_model_is_another_and_leaves_the_first_alone(zoo):
    tokens = torch.tensor([[1, 20, 30]])
    before = zoo.logits(tokens)
    random = randomised(zoo, 1)
    assert not torch.allclose(random.logits(tokens), before)
    assert torch.equal(zoo.logits(tokens), before)
    assert random.weight_hash != zoo.weight_hash
    assert torch.equal(randomised(zoo, 1).logits(tokens), random.logits(tokens))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"probe": "logistc"}, ConfigError, r"Did you mean 'logistic'"),
        ({"site": "pattern"}, ConfigError, r"pattern has axes.*first axis is pos"),
        ({"site": "resid_pots"}, SiteError, r"Did you mean 'resid_post'"),
        ({"C": [0.0]}, ConfigError, r"C > 0"),
        ({"mdl": True, "probe": "ridge"}, ConfigError, r"Use probe=logistic"),
        ({"control": "word"}, ConfigError, r"word_type"),
    ],
)
def test_bad_fields_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        mx.LinearProbes(**arguments)


def test_bad_data_is_refused_before_any_pass(zoo, numbers, monkeypatch):
    monkeypatch.setattr(type(zoo), "cache", lambda *a, **k: pytest.fail("a forward pass was made"))
    probes = mx.LinearProbes()
    with pytest.raises(ConfigError, match=r"need a ProbeDataset"):
        probes._checked(mx.tasks.sva(zoo, n=2))
    with pytest.raises(SiteError, match=r"Did you mean 'SUBJECT'"):
        mx.LinearProbes(pos=["SUBJET"])(zoo, numbers)
    with pytest.raises(SiteError, match=r"pos='tokens' does not fit.*one label for each prompt"):
        mx.LinearProbes(pos=["tokens"])(zoo, numbers)
    with pytest.raises(ConfigError, match=r"word_type"):
        mx.LinearProbes(control="word_type")(zoo, numbers)
    few = mx.ProbeDataset(numbers.tokens, numbers.lengths, numbers.labels, numbers.names, ("a", "b") * 60)
    with pytest.raises(ShapeError, match=r"2 groups"):
        probes(zoo, few)
    with pytest.raises(ConfigError, match=r"cannot predict numbers"):
        probes(zoo, mx.ProbeDataset.from_tokens(numbers.tokens, torch.rand(120)))
    by_class = tuple("train" if label == 0 else "test" for label in numbers.labels[1:].tolist())
    splits = ("validation", *by_class)
    lone = mx.ProbeDataset(numbers.tokens, numbers.lengths, numbers.labels, numbers.names, splits=splits)
    with pytest.raises(ShapeError, match=r"in the training prompts.*all 'singular'"):
        probes(zoo, lone)


def activations_vary(model, dataset, positions):
    """Whether the activations at each layer and position differ between prompts by more than rounding.

    The floor is 1e-5 of the largest activation there: about a hundred units in the last place of float32, and a
    ten-thousandth of what prompts differ by where the tokens before a position differ.
    """
    cache = model.cache(dataset.tokens, ["resid_post"], lengths=dataset.lengths)
    rows = torch.arange(len(dataset))
    read = torch.stack([cache.stack("resid_post")[:, rows, at] for at in positions], 1)  # [layer, pos, prompt, d]
    return (read.std(2).amax(-1) > 1e-5 * read.abs().amax((2, 3))).numpy()


def test_positions_fitted_together_equal_positions_one_by_one(zoo, numbers, monkeypatch):
    """On a GPU as many positions as fit are one block; the same code, on the CPU."""
    from mechxai.methods.probes._lib import layer_probes as layer

    probes = mx.LinearProbes(pos=["SUBJECT", 1, "END", 4], mdl=True, random_model=False)
    singly = probes(zoo, numbers)
    monkeypatch.setattr(layer, "blocks", lambda reads, n_features, device: iter([list(range(len(reads)))]))
    together = probes(zoo, numbers)
    apart = np.abs(singly.data["weight"] - together.data["weight"]).max("d")
    largest = np.abs(singly.data["weight"]).max("d")
    varies = activations_vary(zoo, numbers, [numbers.roles["SUBJECT"], 1, numbers.lengths - 1, 4])
    # every prompt has the same first word: there, activations differ by rounding only, and weights mean nothing
    assert varies.all(0).tolist() == [True, False, True, True]
    assert (apart <= 1e-4 * largest).values[0, :, :, 0][varies].all()
    for name in ("accuracy", "selectivity", "auroc", "compression"):
        assert np.allclose(singly.data[name], together.data[name], atol=0.03), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_what_a_cpu_gives():
    found = []
    for device in ("cpu", "cuda"):
        model = mx.load("zoo/ioi", device=device)
        found.append(
            mx.LinearProbes(pos=["each"], random_model=False)(model, mx.tasks.subject_number(model, n=120)).data
        )
    cpu, gpu = (one["accuracy"].values for one in found)
    telling = cpu > 0.9  # elsewhere a probe reads rounding, which differs
    assert telling.sum() > 5
    assert (gpu[telling] > 0.85).all()
