"""Probes where data runs short: absent classes, positions few prompts reach, other dtypes, shared folders."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ConfigError, ShapeError, SiteError
from mechxai.core.labels import numbered
from mechxai.engine.execution import Execution
from mechxai.methods.probes._lib.fitting import fit_probes
from mechxai.methods.probes._lib.likelihood import NUMBERS, Likelihood
from mechxai.runs.folder import run_id
from tests.methods.probes.test_fitting import blobs, block_of


@pytest.fixture(scope="module")
def numbers(zoo):
    return mx.tasks.subject_number(zoo, n=120)


def quick(**fields):
    return mx.LinearProbes(**{"layers": [0], "random_model": False, "control_draws": 1, **fields})


def test_positions_of_one_folder_do_not_take_each_others_place(zoo, numbers, tmp_path):
    for pos in ("END", "SUBJECT", "mean"):
        shared = quick(pos=[pos])(zoo, numbers, execution=Execution(cells=tmp_path))
        assert shared.data["accuracy"].identical(quick(pos=[pos])(zoo, numbers).data["accuracy"])
    assert len(list(tmp_path.glob("activations-*"))) == 1, "one store for all of them"


def test_other_names_are_another_run(zoo):
    tokens, labels = torch.randint(10, 90, (8, 4)), torch.arange(8) % 2
    ids = {
        run_id(zoo, mx.ProbeDataset.from_tokens(tokens, labels, names=names), quick(), seed=0)
        for names in (("a", "b"), ("c", "d"), ("a", "b", "c"))
    }
    assert len(ids) == 3


@pytest.mark.parametrize("probe", ["logistic", "ridge", "mass_mean", "mlp"])
def test_a_class_that_no_training_row_has_is_not_predicted(probe):
    values, labels = blobs(n_classes=2)
    outputs = fit_probes(block_of(values, labels), probe, (1.0,), likelihood=Likelihood(3), seed=0).outputs
    two = fit_probes(block_of(values, labels), probe, (1.0,), likelihood=Likelihood(2), seed=0).outputs
    found = outputs[0, 500:, 0].argmax(-1)
    assert (found < 2).float().mean() > 0.98
    assert (found == (two[0, 500:, 0, 0] > 0)).float().mean() > 0.93


def test_an_mlp_regresses_numbers_far_from_zero():
    values, _ = blobs(n=1600)
    labels = 1700 + 50 * (values[:, 3] - values[:, 3].mean()) / values[:, 3].std()
    outputs = fit_probes(
        block_of(values, labels, 1400, 100), "mlp", (1.0,), likelihood=Likelihood(NUMBERS), seed=0
    ).outputs
    residual = outputs[0, 1500:, 0, 0] - labels[1500:]
    assert residual.square().mean() < 0.2 * labels[1500:].var()


def test_only_prompts_that_have_the_position_are_edited_and_counted(zoo):
    dataset = mx.tasks.subject_number(zoo, n=120)
    few = mx.ProbeCausalCheck(pos=6, layers=[3], placebos=2)(zoo, dataset)
    whole = mx.ProbeCausalCheck(layers=[3], placebos=2)(zoo, dataset)
    assert few.data.sizes["prompt"] < whole.data.sizes["prompt"]
    labels = dataset.labels.clone()
    labels[::3] = -1
    some = mx.ProbeCausalCheck(layers=[3], placebos=2)(zoo, replace(dataset, labels=labels))
    assert some.data.sizes["prompt"] < whole.data.sizes["prompt"]


def test_a_role_of_the_dataset_alone_can_be_checked(zoo, numbers):
    named = replace(numbers, roles={**numbers.roles, "X": numbers.lengths - 2})
    assert mx.ProbeCausalCheck(pos="X", layers=[1], placebos=1)(zoo, named).data["accuracy"].notnull().all()


def test_a_position_with_too_few_labels_has_no_direction(zoo):
    tokens = torch.randint(10, 190, (80, 6), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(80) % 2
    mask = torch.arange(6)[None] < torch.where(labels == 1, 6, 4)[:, None]  # one class alone has position 5
    result = quick(pos=[1, 5])(zoo, mx.ProbeDataset.from_tokens(tokens, labels, mask=mask))
    assert result.data["accuracy"].isnull().values.tolist() == [[[False, True]]]
    assert mx.probe_direction(result, 0, pos=1).norm() == pytest.approx(1)
    with pytest.raises(SiteError, match=r"too few labels"):
        mx.probe_direction(result, 0, pos=5)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.uint8])
def test_labels_of_any_whole_dtype(zoo, dtype):
    tokens = torch.randint(10, 190, (60, 4), generator=torch.Generator().manual_seed(0))
    found = quick(pos=[3])(zoo, mx.ProbeDataset.from_tokens(tokens, (tokens[:, 3] % 2).to(dtype))).data
    assert found["accuracy"].notnull().all()


def test_labels_of_other_libraries():
    assert numbered(list(torch.tensor([0, 1, 0])), ())[1] == ("0", "1")
    assert numbered(list(np.array([1.5, 2.5], dtype=np.float32)), ())[1] == ()
    with pytest.raises(ShapeError, match=r"a text, a number, or None"):
        numbered([["a"]], ())


def test_the_mean_of_half_precision_does_not_overflow(zoo):
    model = mx.load("zoo/ioi", device="cpu", dtype="bfloat16")
    dataset = mx.tasks.subject_number(model, n=60)
    half, full = (quick(pos=["mean"])(one, dataset).data["accuracy"] for one in (model, zoo))
    assert abs(half - full).max() < 0.35


def test_hardly_any_rows_still_have_a_codelength(zoo):
    dataset = mx.ProbeDataset.from_texts(
        zoo, ["The key", "The keys"] * 3, ["a", "b"] * 3, splits=["train"] * 2 + ["validation"] * 2 + ["test"] * 2
    )
    assert quick(mdl=True)(zoo, dataset).data["compression"].notnull().all()


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda: mx.LinearProbes(pos=[]), ConfigError, r"pos is empty"),
        (lambda: mx.LinearProbes(site=[]), ConfigError, r"site is empty"),
        (lambda: mx.LinearProbes(seed=-1), ConfigError, r"seed is -1"),
    ],
)
def test_natural_mistakes_are_named(ask, error, message):
    with pytest.raises(error, match=message):
        ask()


def test_ranges_and_arrays_are_lists():
    probes = mx.LinearProbes(layers=range(2), pos=range(1, 3), C=(0.1, 1.0))
    assert probes == mx.LinearProbes(layers=[0, 1], pos=[1, 2], C=[0.1, 1.0])


def test_what_cannot_be_judged_is_refused_before_any_pass(zoo, numbers, monkeypatch):
    monkeypatch.setattr(type(zoo), "cache", lambda *a, **k: pytest.fail("a forward pass was made"))
    splits = tuple(("train", "validation", "test")[min(2, number // 2 % 4)] for number in range(120))
    lengths = numbers.lengths.clone()
    loose = mx.ProbeDataset(numbers.tokens, lengths, numbers.labels, numbers.names, splits=splits)
    labels = torch.where(torch.tensor([split == "validation" for split in splits]), -1, numbers.labels)
    with pytest.raises(ShapeError, match=r"No validation prompt has a label"):
        quick()(zoo, replace(loose, labels=labels))
    short = torch.tensor([split == "test" for split in splits])
    cut = replace(loose, lengths=torch.where(short, 3, lengths), roles={})
    with pytest.raises(ShapeError, match=r"No labelled test prompt"):
        quick(pos=[4])(zoo, cut)
    with pytest.raises(ShapeError, match=r"Prompt 0 has 1 spans and 2 labels"):
        mx.ProbeDataset.from_spans(zoo, ["Mary gave"], [[(0, 4)]], [["A", "B"]])
    with pytest.raises(ShapeError, match=r"do not match the tokens"):
        mx.ProbeDataset.from_tokens(torch.ones(2, 3, dtype=torch.long), torch.tensor([[0, 1], [1, 0]]))
