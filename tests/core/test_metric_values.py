"""Metric functions of one or two arguments, and everything that they return."""

import numpy as np
import pandas as pd
import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ConfigError, ShapeError
from mechxai.core.metric import Metric, as_metric

BATCH = mx.ContrastBatch.from_tokens([[1, 2], [1, 3]], [[1, 4], [1, 5]], [5, 6], [6, 5])
LOGITS = torch.arange(24.0).reshape(2, 2, 6)
LAST = [11.0, 23.0]  # LOGITS[:, -1, 5]


@pytest.mark.parametrize(
    "convert",
    [
        lambda value: value,
        lambda value: value.double(),
        lambda value: value.int(),
        lambda value: value.numpy(),
        lambda value: value.tolist(),
        lambda value: tuple(value.tolist()),
        list,  # of tensors without axes
        lambda value: [np.float32(number) for number in value],
        lambda value: pd.Series(value.numpy(), index=[7, 3]),
    ],
    ids=["tensor", "double", "int", "numpy", "list", "tuple", "tensors", "numpy numbers", "series"],
)
def test_one_number_per_prompt_is_taken_in_any_form(convert):
    values = as_metric(lambda logits, batch: convert(logits[:, -1, 5]))(LOGITS, BATCH)
    assert values.is_floating_point()
    assert values.tolist() == LAST


def test_truth_values_count_as_zero_and_one():
    assert as_metric(lambda logits, batch: logits[:, -1, 5] > 12)(LOGITS, BATCH).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    "value",
    [1.5, np.float64(2), None, "no", torch.tensor(1.0), torch.zeros(2, 1), torch.zeros(3), [1.0], [[1.0], [2.0, 3.0]],
     ["a", "b"], [None, 1.0], {"a": 1}, np.zeros((2, 2)), torch.zeros(2, dtype=torch.complex64), torch.zeros(0)],
    ids=repr,
)  # fmt: skip
def test_anything_else_is_refused_in_a_sentence(value):
    with pytest.raises(ShapeError, match=r"The custom metric returned .*one value per prompt"):
        as_metric(lambda logits, batch: value)(LOGITS, BATCH)


def test_a_metric_class_of_a_user_is_checked_alike():
    class Mine(Metric):
        name, unit = "mine", "logits"

        def __init__(self, value):
            self.value = value

        def score(self, logits, batch):
            return self.value

    assert Mine([1, 2])(LOGITS, BATCH).tolist() == [1.0, 2.0]
    with pytest.raises(ShapeError, match="one value per prompt"):
        Mine(torch.zeros(2, 1))(LOGITS, BATCH)


class OneArgument:
    def __call__(self, logits):
        return logits[:, -1, 5]


@pytest.mark.parametrize(
    "function",
    [
        lambda logits: logits[:, -1, 5],
        lambda logits, token=5: logits[:, -1, token],
        lambda logits, batch, token=5: logits[:, -1, token],
        lambda logits, batch=None: logits[:, -1, 5] + (0 if batch is BATCH else torch.nan),
        lambda *both: both[0][:, -1, 5],
        OneArgument(),
    ],
)
def test_a_metric_may_take_the_logits_alone(function):
    assert as_metric(function)(LOGITS, BATCH).tolist() == LAST


@pytest.mark.parametrize("function", [lambda: 1, lambda a, b, c: a, lambda logits, *, mine: logits])
def test_a_metric_that_cannot_be_called_is_refused(function):
    with pytest.raises(ConfigError, match=r"takes .*Allowed: \(logits, batch\), or \(logits\)"):
        as_metric(function)


@pytest.mark.parametrize(
    "function", [lambda logits: logits[:, -1, 5].tolist(), lambda logits: logits[:, -1].argmax(-1)]
)
def test_a_metric_without_a_gradient_is_refused_by_methods_that_need_one(model_of, function):
    model = model_of("gpt2", "auto", "raw")
    with pytest.raises(ShapeError, match="without a gradient"):
        mx.AttributionPatching(metric=function)(model, BATCH)
    mx.ActivationPatching(metric=function)(model, BATCH)


@pytest.mark.parametrize(("name", "answers"), [("answers", [10**6, 6]), ("answers", [6, 409]), ("clean", None)])
@pytest.mark.parametrize("method", [mx.ActivationPatching(), mx.LogitLens(), mx.Saliency(), mx.EdgePatching()])
def test_ids_outside_the_vocabulary_are_refused_by_every_kind_of_method(model_of, method, name, answers):
    model = model_of("gpt2", "auto", "raw")
    d_vocab = model.architecture.d_vocab
    clean = [[1, 2], [1, d_vocab if name == "clean" else 3]]
    batch = mx.ContrastBatch.from_tokens(clean, [[1, 4], [1, 5]], answers or [5, 6], [7, 8])
    with pytest.raises(ShapeError, match=rf"{name}: token \d+ of prompt \d is outside the vocabulary"):
        method(model, batch)
