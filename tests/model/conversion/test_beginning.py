"""The tokens before a text are the tokenizer's own, whatever TransformerLens does to a tokenizer."""

import pytest
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import mechxai as mx
from mechxai.model.conversion.beginning import special_prefix, text_codec
from tests.checkpoints import CORPUS, byte_pair_tokenizer, word_piece_tokenizer
from tests.conftest import BACKENDS
from tests.model.conversion.test_comparison import write

TEXTS = [
    "The war lasted",
    " a drink",
    "a",
    "When Mary and John went to the store, John",
    "<start>user",
    "caf\u00e9 \U0001f600",
]


def byte_level(*special):
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(CORPUS, trainer)
    return core


def template(core, single):
    names = [word for word in single.split() if word.startswith(("<", "["))]
    core.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[(name, core.token_to_id(name)) for name in names]
    )
    return core


def unigram(*special):
    """As SentencePiece makes them: spaces are written as a mark, with one before the text."""
    core = Tokenizer(models.Unigram())
    core.normalizer = normalizers.Sequence([normalizers.NFKC()])
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<unk>", *special], unk_token="<unk>", show_progress=False
    )
    core.train_from_iterator(CORPUS, trainer)
    return core


def fast(core, **special):
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, **special)


# name -> tokenizer, and the tokens that stand before a text
TOKENIZERS = {
    "gpt2": (byte_pair_tokenizer, ["<|endoftext|>"]),
    "qwen": (lambda: fast(byte_level("<end>", "<start>"), eos_token="<end>", pad_token="<end>"), []),
    "no special tokens": (lambda: fast(byte_level()), []),
    "llama3": (
        lambda: fast(template(byte_level("<bos>", "<end>"), "<bos> $A"), bos_token="<bos>", eos_token="<end>"),
        ["<bos>"],
    ),
    "llama2": (
        lambda: fast(
            template(unigram("<s>", "</s>"), "<s> $A"), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
        ),
        ["<s>"],
    ),
    "t5": (lambda: fast(template(unigram("</s>"), "$A </s>"), eos_token="</s>", unk_token="<unk>"), []),
    "both ends": (
        lambda: fast(template(byte_level("<s>", "</s>"), "<s> $A </s>"), bos_token="<s>", eos_token="</s>"),
        ["<s>"],
    ),
    "xglm": (
        lambda: fast(template(byte_level("<s>", "</s>"), "</s> $A"), bos_token="<s>", eos_token="</s>"),
        ["</s>"],
    ),
    "glm": (lambda: fast(template(byte_level("[gMASK]", "<sop>", "<end>"), "[gMASK] <sop> $A"), eos_token="<end>"),
            ["[gMASK]", "<sop>"]),
    "word piece": (word_piece_tokenizer, ["[CLS]"]),
}  # fmt: skip


@pytest.mark.parametrize("name", TOKENIZERS)
def test_texts_have_the_tokens_of_the_tokenizer_behind_its_own_beginning(name):
    make, beginning = TOKENIZERS[name]
    tokenizer = make()
    codec = text_codec(tokenizer, bos=True, masked=False)
    before = tokenizer.convert_tokens_to_ids(beginning)
    for text in TEXTS:
        body = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert codec.ids(text) == [*before, *body]
        assert codec.bare_ids(text) == body
        assert tokenizer(text)["input_ids"][: len(body) + len(special_prefix(tokenizer))] in (
            codec.ids(text),
            body,  # a tokenizer that puts nothing there
        )
    assert (codec.bos is None) == (not beginning)
    without = text_codec(tokenizer, bos=False, masked=False)
    assert (without.bos, without.ids("The war")) == (None, without.bare_ids("The war"))
    if beginning:  # a text that is written with its beginning does not get another
        assert codec.ids("".join(beginning) + "The war").count(before[0]) == 1


def test_masked_language_models_get_all_special_tokens():
    tokenizer = word_piece_tokenizer()
    assert text_codec(tokenizer, bos=True, masked=True).ids("The war") == tokenizer("The war")["input_ids"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["gpt2", "qwen", "llama3", "t5"])
def test_a_loaded_and_a_wrapped_model_begin_texts_alike(tmp_path, backend, name):
    folder = write(tmp_path / "model", "Llama", bos_token_id=None)
    make, beginning = TOKENIZERS[name]
    make().save_pretrained(folder)
    plain = transformers.AutoTokenizer.from_pretrained(folder)
    model = mx.load(folder, backend=backend, device="cpu")
    assert model.tokenizer.special_tokens_map == plain.special_tokens_map, "TransformerLens changed the tokenizer"
    assert (model.tokenizer.padding_side, model.tokenizer.bos_token) == (plain.padding_side, plain.bos_token)
    wrapped = mx.wrap(model.inner)
    assert wrapped.tokenizer.bos_token is not None, "TransformerLens sets one"
    for text in TEXTS[:4]:
        expected = [*plain.convert_tokens_to_ids(beginning), *plain(text, add_special_tokens=False)["input_ids"]]
        assert model.tokens(text)[0][0].tolist() == expected
        assert wrapped.tokens(text)[0][0].tolist() == expected
