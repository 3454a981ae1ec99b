"""Unknown words: no special tokens, announced once per batch, refused as answers."""

import logging

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import mechxai as mx
from mechxai.core.errors import ConfigError
from mechxai.model.text import TextCodec
from mechxai.model.unknown_words import unknown_words
from tests import checkpoints

EMOJI = "\N{CAT FACE}"


def words_tokenizer(**special):
    """Whole words, lower case; some of them special."""
    vocabulary = ["<unk>", "<s>", "</s>", "<pad>", "the", "cat", "sat", "on", "mat", "dog"]
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(vocabulary)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", **special)


def test_unknown_words_are_named_by_their_text():
    tokenizer = checkpoints.word_piece_tokenizer()
    assert unknown_words(tokenizer, f"The {EMOJI} war lasted") == [EMOJI]
    assert unknown_words(tokenizer, "The [UNK] war") == []  # written out by the user
    assert unknown_words(tokenizer, "The war lasted") == []
    assert unknown_words(words_tokenizer(), "the xylophone sat", first=4) == ["xylophone"]
    assert unknown_words(words_tokenizer(), "xylophone the", first=10) == []
    assert unknown_words(checkpoints.byte_pair_tokenizer(), f"The {EMOJI}") == []  # bytes know everything


@pytest.mark.parametrize("role", ["bos_token", "eos_token", "cls_token", "sep_token", "mask_token"])
def test_a_token_with_another_role_stays_special(role):
    codec = TextCodec(words_tokenizer(**{role: "<unk>"}), None)
    assert codec.unknown is None
    assert 0 in codec.special_ids()


def test_the_unknown_token_is_not_special():
    for tokenizer in (words_tokenizer(bos_token="<s>", eos_token="</s>"), words_tokenizer(pad_token="<unk>")):
        codec = TextCodec(tokenizer, tokenizer.bos_token_id)
        assert codec.unknown == 0
        assert 0 not in codec.special_ids()
        assert 0 not in codec.plain_ids(10)
        assert codec.special_ids() <= {1, 2, 3}


def test_a_classifiers_unknown_word_gets_a_score(checkpoint, caplog):
    model = mx.load_classifier(str(checkpoint("bert-classifier")), device="cpu")
    with caplog.at_level(logging.WARNING, "mechxai.model"):
        batch = mx.ContrastBatch.from_prompts(
            model, [f"The {EMOJI} war lasted"] * 2, ["The war war lasted"] * 2, ["POSITIVE"] * 2, ["NEGATIVE"] * 2
        )
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1, "once per batch"
    assert repr(EMOJI) in warnings[0]
    assert "[UNK]" in warnings[0]
    data = mx.Occlusion(baseline="pad")(model, batch).data
    unknown = int((batch.clean[0] == model.text.tokenizer.unk_token_id).nonzero()[0])
    changed = batch.clean.clone()
    changed[:, unknown] = model.text.tokenizer.pad_token_id
    with torch.no_grad():
        hf = model.inner.eval()
        logits = [
            hf(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0] for ids in (batch.clean[:1], changed[:1])
        ]
    right, wrong = batch.answers[0, 0, 0], batch.wrong[0, 0, 0]
    full, without = (float(row[right] - row[wrong]) for row in logits)
    assert np.isfinite(data["value"].values[0, unknown])
    assert data["value"].values[0, unknown] == pytest.approx(full - without, abs=1e-5)
    assert np.isnan(data["value"].values[0, 0])  # [CLS] stays special


def test_unknown_prompts_are_announced_and_unknown_answers_refused(model_of, caplog):
    model = model_of("bert")
    prompts = ["The capital of [MASK] is Paris."]
    with caplog.at_level(logging.WARNING, "mechxai.model"):
        model.tokens([f"The {EMOJI} of [MASK]", f"A {EMOJI} in [MASK]"])
    assert [record.getMessage().count(EMOJI) for record in caplog.records] == [1]
    for answer in (EMOJI, "[UNK]", model.text.tokenizer.unk_token_id):
        with pytest.raises(ConfigError, match="outside the vocabulary"):
            mx.ContrastBatch.from_prompts(model, prompts, prompts, [answer], ["France"])
        with pytest.raises(ConfigError, match="outside the vocabulary"):
            mx.ContrastBatch.from_prompts(model, prompts, prompts, [["France", answer]], ["Paris"])


def test_known_words_announce_nothing(model_of, caplog):
    model = model_of("gpt2")
    with caplog.at_level(logging.WARNING, "mechxai.model"):
        mx.ContrastBatch.from_prompts(model, [f"The {EMOJI} war"], [f"The {EMOJI} war"], [" the"], [" a"])
    assert not caplog.records
