"""Models for the tasks: a bundled one with whole-word tokens, and one whose byte pairs split some words."""

from random import Random

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

UNKNOWN = ("Mary", "John", "Tom", "James", "Paris", "France", "Rome", "1741")


def _texts():
    from mechxai.tasks.grammars import GRAMMARS

    rng = Random(0)
    for draw in GRAMMARS.values():
        for _ in range(250):
            example = draw(rng)
            yield from (example.clean, example.clean + example.answers[0], example.clean + example.wrong[0])


@pytest.fixture(scope="session")
def whole_words():
    """Every word of the grammars is one token."""
    import mechxai as mx

    return mx.load("zoo/handmade-ioi", device="cpu")


@pytest.fixture(scope="session")
def byte_pairs(tmp_path_factory):
    """A byte-level BPE that has never seen some of the grammars' words and splits them."""
    import mechxai as mx

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=5000, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator([text for text in _texts() if not any(word in text for word in UNKNOWN)], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="<s>", unk_token="<s>")
    folder = tmp_path_factory.mktemp("byte_pairs") / "model"
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 128}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0, **sizes)).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)
    return mx.load(str(folder), device="cpu")
