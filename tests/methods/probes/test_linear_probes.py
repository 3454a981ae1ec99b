"""Linear probes on models: all architectures, controls, padding, resuming, errors."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import mechxai as mx
from mechxai.core.errors import ConfigError, ShapeError, SiteError
from mechxai.engine.execution import Execution
from mechxai.methods.probes._lib.splits import split_of
from mechxai.model.backends.randomised import randomised
from tests.conftest import FOLDED


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
