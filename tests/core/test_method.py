"""Methods refuse swapped arguments and texts in place of a batch, before anything else is checked."""

import inspect

import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ConfigError
from mechxai.core.method import METHODS
from mechxai.methods import registry  # noqa: F401 - registers every method

TOKENS = torch.tensor([[1, 2, 3]])
BATCH = mx.ContrastBatch.from_tokens(TOKENS, TOKENS + 1, torch.tensor([4]), torch.tensor([5]))


@pytest.mark.parametrize("method", [mx.ActivationPatching(), mx.Saliency(), mx.LogitLens(), mx.LinearProbes()])
def test_swapped_arguments_are_named(model_of, method):
    name = type(method).__name__
    with pytest.raises(ConfigError) as refusal:
        method(BATCH, model_of("gpt2"))
    expected = f"{name} takes (model, batch): the first argument is a ContrastBatch. Swap the arguments."
    assert str(refusal.value) == expected
    with pytest.raises(ConfigError, match="Swap the arguments"):
        method(model=BATCH, batch=model_of("gpt2"))


@pytest.mark.parametrize("method", [mx.ActivationPatching(), mx.Saliency()])
@pytest.mark.parametrize("texts", ["hello", ["hello", "there"], ("hello",)])
def test_texts_in_place_of_a_batch_are_named(model_of, method, texts):
    expected = f"{type(method).__name__} takes a batch of prompts, not the text 'hello'.*mx.ContrastBatch.from_prompts"
    with pytest.raises(ConfigError, match=expected):
        method(model_of("gpt2"), texts)


def test_signature_and_docstring_stay():
    for kind in METHODS.values():
        assert list(inspect.signature(kind.__call__).parameters) == ["self", "model", "batch", "execution"]
        assert kind.__call__.__doc__, kind
        assert kind.__call__.__name__ == "__call__"
