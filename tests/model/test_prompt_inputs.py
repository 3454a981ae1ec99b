"""Prompts and answers as lists, tuples, numpy arrays, pandas Series and tensors."""

import numpy as np
import pandas as pd
import pytest
import torch

import mechxai as mx
from mechxai.core.errors import MechXAIError

TEXTS = ["When Mary and John went to the store", "Then, Tom"]
IDS = [[5, 6, 7], [8, 9, 10]]


@pytest.fixture
def model(model_of):
    return model_of("gpt2", "auto", "raw")


@pytest.mark.parametrize("form", [tuple, np.array, lambda texts: np.array(texts, dtype=object), pd.Series])
def test_texts_in_any_form_have_the_numbers_of_a_list(model, form):
    assert torch.equal(model(form(TEXTS)), model(TEXTS))
    assert torch.equal(model.cache(form(TEXTS), ["z"])["z", 1], model.cache(TEXTS, ["z"])["z", 1])
    assert model.generate(form(TEXTS[1:]), max_new_tokens=2) == model.generate(TEXTS[1:], max_new_tokens=2)


@pytest.mark.parametrize("form", [list, np.array, pd.Series, lambda ids: np.array(ids, np.int32)])
def test_token_ids_in_any_form_have_the_numbers_of_a_tensor(model, form):
    assert torch.equal(model(form(IDS)), model(torch.tensor(IDS)))


@pytest.mark.parametrize(
    "prompts",
    [None, 5, b"text", {"a": 1}, [], (), np.array([]), [None], ["a", None], pd.Series(["a", np.nan]), [1.5], [b"a"],
     [[1, 2], [3]], [[1.5, 2.0]], [[]], torch.zeros(1, 0, dtype=torch.long), np.array("a"), [["a", "b"]],
     torch.tensor([[10**6]]), [[-1]], torch.tensor([[0.5]]), torch.tensor(3), [5, 6]],
    ids=repr,
)  # fmt: skip
def test_other_prompts_are_refused_in_a_sentence(model, prompts):
    for call in (model, model.logits, lambda wrong: model.cache(wrong, ["z"])):
        with pytest.raises(MechXAIError):
            call(prompts)


FORMS = {
    "numpy": (np.array, np.array),
    "series": (pd.Series, lambda values: pd.Series(values, index=range(4, 4 + len(values)))),
    "tensors": (tuple, torch.tensor),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_takes_texts_and_answers_in_any_form(model, form):
    texts, answers = FORMS[form]
    clean, corrupted = ["Mary and John", "Mary and Tom"], ["Mary and Tom", "Mary and John"]
    expected = model.contrast(clean, corrupted, [5, 6], [7, 8])
    for make in (model.contrast, lambda *columns: mx.ContrastBatch.from_prompts(model, *columns)):
        made = make(texts(clean), texts(corrupted), answers([5, 6]), answers([7, 8]))
        assert all(torch.equal(one, other) for one, other in zip(made.identity, expected.identity, strict=True))


@pytest.mark.parametrize(
    "columns",
    [
        {"answers": [None]},
        {"answers": [1.5]},
        {"answers": [True]},
        {"answers": [10**6]},
        {"answers": [-1]},
        {"answers": "Mary"},
        {"answers": 5},
        {"answers": np.array(5)},
        {"answers": [[]]},
        {"answers": [""]},
        {"answers": []},
        {"clean": [None]},
        {"clean": [5]},
        {"clean": "Mary"},
        {"clean": np.array("Mary")},
        {"clean": pd.Series([np.nan])},
        {"clean": [b"Mary"]},
    ],
    ids=repr,
)
def test_other_columns_are_refused_in_a_sentence(model, columns):
    given = {"clean": ["Mary and"], "corrupted": ["John and"], "answers": [5], "wrong": [6], **columns}
    with pytest.raises(MechXAIError):
        model.contrast(**given)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_tokens_and_answers_of_any_whole_dtype_have_the_numbers_of_longs(model, dtype):
    expected = mx.ContrastBatch.from_tokens(IDS, [[5, 9, 7], [8, 11, 10]], [5, 6], [7, 8])
    made = mx.ContrastBatch.from_tokens(
        *(torch.tensor(ids, dtype=dtype) for ids in (IDS, [[5, 9, 7], [8, 11, 10]], [5, 6], [7, 8]))
    )
    results = [mx.ActivationPatching()(model, batch).data["value"].values for batch in (made, expected)]
    assert np.array_equal(*results)
    assert torch.equal(model(torch.tensor(IDS, dtype=dtype)), model(torch.tensor(IDS)))


@pytest.mark.parametrize("form", [list, np.array, pd.Series, torch.tensor])
def test_lengths_and_positions_in_any_form(model, form):
    expected = model.logits(IDS, lengths=torch.tensor([3, 2]))[:, :1]
    assert torch.equal(model.logits(IDS, lengths=form([3, 2]))[:, :1], expected)
    at = [[0], [0]] if form is pd.Series else form([[0], [0]])
    assert torch.equal(model.logits(IDS, at=at), model.logits(IDS, at=torch.tensor([[0], [0]])))


@pytest.mark.parametrize(
    "options", [{"lengths": [3]}, {"lengths": [3, 4]}, {"lengths": [0, 1]}, {"lengths": "ab"}, {"lengths": [1.5, 2]},
                {"at": [[3], [0]]}, {"at": [0, 0]}, {"at": [[-1], [0]]}, {"at": [[0]]}], ids=repr,
)  # fmt: skip
def test_lengths_and_positions_that_the_prompts_do_not_have_are_refused(model, options):
    with pytest.raises(MechXAIError):
        model.logits(IDS, **options)


@pytest.mark.parametrize(
    "score", [lambda logits: 1.0, lambda logits: logits[0, 0], lambda logits: logits.sum().detach()]
)
def test_a_score_without_a_gradient_is_refused(model, score):
    with pytest.raises(MechXAIError, match="The score is"):
        model.gradients(IDS, [mx.Site("z", 0)], score)


@pytest.mark.parametrize(
    "tokens",
    [5, [5, 6], np.zeros((1, 0), int), np.zeros((0, 2), int), np.array([[2**63 + 5]], dtype=np.uint64)],
    ids=repr,
)
def test_tokens_that_are_no_batch_are_refused(tokens):
    with pytest.raises(MechXAIError):
        mx.ContrastBatch.from_tokens(tokens, tokens, [1], [2])


@pytest.mark.parametrize("prompts", [None, {"clean": 1}, torch.tensor([[1]]), np.array(["a"]), "hello"], ids=repr)
def test_a_method_refuses_what_is_no_batch_and_what_is_no_model(model, prompts):
    with pytest.raises(MechXAIError, match="takes a batch of prompts"):
        mx.Saliency()(model, prompts)
    batch = mx.ContrastBatch.from_tokens(IDS, [[5, 9, 7], [8, 11, 10]], [5, 6], [7, 8])
    for wrong in (None, "gpt2", model.inner):
        with pytest.raises(MechXAIError, match="takes a model of"):
            mx.Saliency()(wrong, batch)
