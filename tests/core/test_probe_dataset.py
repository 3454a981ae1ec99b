"""Probe datasets: labels, the tokens of labelled words, and the input that they refuse."""

import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ConfigError, ShapeError


@pytest.fixture(scope="module")
def model():
    return mx.load("zoo/ioi", device="cpu")


def test_a_label_per_text(model):
    made = mx.ProbeDataset.from_texts(model, ["The key", "The keys near", "The boys"], ["one", "many", "many"])
    assert made.names == ("many", "one")
    assert made.labels.tolist() == [1, 0, 0]
    assert not made.per_token
    assert made.groups == ("0", "1", "2")
    assert made.roles["END"].tolist() == [2, 3, 2]


def test_a_label_per_word_goes_to_its_last_token(model):
    made = mx.ProbeDataset.from_texts(model, [["The", "key"], ["The", "keys", "near"]], [["D", "N"], ["D", "N", None]])
    assert made.per_token
    assert made.labels.tolist() == [[-1, 0, 1, -1], [-1, 0, 1, -1]]
    assert made.labelled.sum() == 4


def test_numbers_are_regressed(model):
    made = mx.ProbeDataset.from_texts(model, ["The key", "The keys", "The boys"], [1.5, None, 2])
    assert made.is_numbers
    assert made.labels[0] == 1.5
    assert torch.isnan(made.labels[1])


def test_left_padding_moves_tokens_and_labels_together():
    tokens = torch.tensor([[0, 5, 6], [7, 8, 9]])
    labels = torch.tensor([[-1, 0, 1], [1, 0, -1]])
    made = mx.ProbeDataset.from_tokens(tokens, labels, names=["a", "b"], mask=torch.tensor([[0, 1, 1], [1, 1, 1]]))
    assert made.tokens.tolist() == [[5, 6, 0], [7, 8, 9]]
    assert made.labels[0, :2].tolist() == [0, 1]
    assert made.labelled.tolist() == [[True, True, False], [True, True, False]]


def test_rows_select_every_field(model):
    made = mx.tasks.subject_number(model, n=8)
    part = made.rows(torch.tensor([3, 1]))
    assert torch.equal(part.tokens, made.tokens[[3, 1]])
    assert part.groups == (made.groups[3], made.groups[1])
    assert torch.equal(part.behaviour.clean, part.tokens)


@pytest.mark.parametrize(
    ("texts", "labels", "extra", "message"),
    [
        (["The key"], ["a", "b"], {}, r"1 text and 2 labels do not match"),
        (["The key", "The keys"], ["a", "a"], {}, r"at least two classes: the dataset has 2 labels, all 'a'"),
        ([["The", "key"]], [["D"]], {}, r"Prompt 0 has 2 words and 1 label: the labels do not match its words"),
        (["The key", "The keys"], ["a", 1], {}, r"must be of one type"),
        (["The key", "The keys"], [1.0, 1.0], {}, r"do not vary"),
        (["The key", "The keys"], ["a", "b"], {"groups": ["x"]}, r"groups has 1 of 2 entries"),
        (["The key", "The keys"], ["a", "b"], {"names": ["a", "c"]}, r"Unknown label 'b'"),
        (
            ["The key", "The keys", "The boy"],
            ["a", "b", "a"],
            {"groups": ["x", "x", "y"], "splits": ["train", "test", "validation"]},
            r"Group 'x' is in two splits, train and test",
        ),
    ],
)
def test_bad_labels_are_refused(model, texts, labels, extra, message):
    with pytest.raises(ShapeError, match=message):
        mx.ProbeDataset.from_texts(model, texts, labels, **extra)


def test_a_split_is_spelt_right_and_none_is_empty(model):
    texts, labels = ["The key", "The keys", "The boy"], ["a", "b", "a"]
    with pytest.raises(ConfigError, match=r"Did you mean 'train'"):
        mx.ProbeDataset.from_texts(model, texts, labels, splits=["trian", "test", "validation"])
    with pytest.raises(ConfigError, match=r"No prompt is in the 'validation' split"):
        mx.ProbeDataset.from_texts(model, texts, labels, splits=["train", "test", "train"])


def test_a_behaviour_of_other_prompts_is_refused(model):
    batch = mx.tasks.sva(model, n=3)
    with pytest.raises(ShapeError, match=r"differ from the dataset's prompts"):
        mx.ProbeDataset(batch.clean + 1, batch.lengths, torch.tensor([0, 1, 0]), ("a", "b"), behaviour=batch)
