"""A hooked model takes texts in place of tokens, and shows itself in a few lines."""

import inspect

import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ConfigError, ShapeError
from mechxai.model.backends.limits import check_tokens
from mechxai.model.text import TextCodec
from tests.conftest import FOLDED

TEXTS = ["When Mary and John went to the store", "Then, Tom", "The war lasted from the year 1741"]


@pytest.mark.parametrize(("kind", "backend", "processing"), [*FOLDED, ("bert", "auto", "raw")])
def test_a_padded_list_of_texts_has_the_numbers_of_single_texts(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    together, cached = model(TEXTS), model.cache(TEXTS, ["resid_post", "z"])
    values, gradients = model.gradients(TEXTS, [mx.Site("resid_pre", 1)], lambda logits: logits[:, 0, 7].sum())
    assert torch.equal(together, model.logits(TEXTS))
    for row, text in enumerate(TEXTS):
        tokens, (length,) = model.tokens(text)
        alone = model(text)
        assert alone.shape == (1, length, model.architecture.d_vocab)
        assert torch.equal(alone, model.logits(tokens))
        torch.testing.assert_close(together[row, :length], alone[0], atol=2e-5, rtol=0)
        single = model.cache(text, ["resid_post", "z"])
        for site in single:
            torch.testing.assert_close(cached[site][row, :length], single[site][0], atol=2e-5, rtol=0)
        own_values, own_gradients = model.gradients(
            text, [mx.Site("resid_pre", 1)], lambda logits: logits[:, 0, 7].sum()
        )
        for found, expected in ((values, own_values), (gradients, own_gradients)):
            torch.testing.assert_close(
                found["resid_pre", 1][row, :length], expected["resid_pre", 1][0], atol=2e-5, rtol=0
            )


def test_prompts_that_are_no_texts_are_refused(model_of):
    with pytest.raises(ConfigError, match=r"texts or token ids \[batch, pos\], not a list of int"):
        inspect.unwrap(TextCodec.texts)(model_of("gpt2").text, [11, 12])
    with pytest.raises(ShapeError, match=r"not int64 \[3\]\. Add a batch dimension with tokens\[None\]"):
        check_tokens(torch.tensor([1, 2, 3]), model_of("gpt2").architecture, "gpt2")


def test_models_show_themselves_in_a_few_lines(model_of):
    box = mx.black_box(lambda texts: [[0.0] * 9 for _ in texts], [f"output {number}" for number in range(9)])
    for model in (model_of("gpt2"), mx.load_classifier("zoo/sentiment", device="cpu"), box):
        for shown in (repr(model), model._repr_html_()):
            assert model.name in shown
            assert model.architecture.family in shown
            assert len(shown.splitlines()) <= 25
    assert "'output 5' and 3 more" in repr(box)
    for part in ("3 layers, 4 heads, d_model 64", model_of("gpt2").backend.name, "folded, float32, cpu"):
        assert part in repr(model_of("gpt2"))


def test_models_with_named_outputs_take_texts():
    model = mx.load_classifier("zoo/sentiment", device="cpu")
    texts = ["a wonderful film", "dull"]
    tokens, lengths = model.tokens(texts)
    assert torch.equal(model(texts), model.logits(tokens, lengths=lengths))
    assert model("dull").shape == (1, 1, len(model.outputs))
