"""Text: one beginning-of-sequence token, words located in prompts, and padding without effect."""

import pytest
import torch
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from mechxai.core.errors import AlignmentError, ShapeError
from mechxai.model.text import TextCodec, padded
from tests import checkpoints
from tests.conftest import MODELS

TEXT = "When Mary and John went to the store, John gave a drink to"


@pytest.fixture(scope="module")
def plain():
    return checkpoints.byte_pair_tokenizer()


@pytest.fixture(scope="module")
def adding():
    """A tokenizer that puts the beginning-of-sequence token first by itself, as Llama's does."""
    core = checkpoints.byte_pair_tokenizer().backend_tokenizer
    core.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token=end, eos_token=end, unk_token=end)
    assert tokenizer("x")["input_ids"][0] == 0
    return tokenizer


@pytest.mark.parametrize("which", ["plain", "adding"])
def test_exactly_one_beginning(which, request):
    codec = TextCodec(request.getfixturevalue(which), 0)
    for text in (TEXT, "<|endoftext|>" + TEXT):
        ids = codec.ids(text)
        assert ids.count(0) == 1
        assert ids[0] == 0
        assert codec.tokenizer.decode(ids[1:]) == TEXT
    assert 0 not in TextCodec(request.getfixturevalue(which), None).ids(TEXT)


@pytest.mark.parametrize("kind", checkpoints.CAUSAL)
def test_loaded_models_put_one_beginning(model_of, kind):
    model = model_of(kind)
    tokens, lengths = model.tokens([TEXT, "Then,"])
    assert (tokens == model.tokenizer.bos_token_id).sum(1).tolist()[0] == 1
    assert tokens[:, 0].tolist() == [model.tokenizer.bos_token_id] * 2
    assert lengths.tolist() == [len(model.text.ids(TEXT)), len(model.text.ids("Then,"))]


def test_bert_has_its_own_special_tokens(model_of):
    model = model_of("bert")
    tokens, lengths = model.tokens(["The capital of [MASK] is Paris.", "The war"])
    special = model.tokenizer.cls_token_id, model.tokenizer.sep_token_id
    for row, length in zip(tokens, lengths, strict=True):
        assert (int(row[0]), int(row[length - 1])) == special
        assert row[length:].sum() == 0


def spelled(codec, text, place):
    first, last = place
    return "".join(codec.strings(codec.ids(text)[first : last + 1]))


@pytest.mark.parametrize("which", ["plain", "adding"])
@pytest.mark.parametrize("bos", [0, None])
@pytest.mark.parametrize("prefix", ["", "<|endoftext|>"])
def test_words_are_found_by_their_characters(which, bos, prefix, request):
    codec, text = TextCodec(request.getfixturevalue(which), bos), prefix + TEXT
    for word in ("When", "Mary", "store", "John gave", "to"):
        start = text.rfind(word)
        assert word in spelled(codec, text, codec.tokens_at(text, (start, start + len(word))))
        assert spelled(codec, text, codec.tokens_at(text, (start, start + len(word)))).strip() == word
    start = text.index("Mary")
    first, last = codec.tokens_at(text, (start, start + 1))
    assert first == last
    with pytest.raises(AlignmentError, match=r"No token covers characters \(500, 501\)"):
        codec.tokens_at(text, (500, 501))


def test_words_are_found_in_bert(model_of):
    codec, text = model_of("bert").text, "The capital of [MASK] is Paris."
    start = text.index("Paris")
    first, last = codec.tokens_at(text, (start, start + 5))
    assert codec.tokenizer.decode(codec.ids(text)[first : last + 1]).replace(" ", "") == "Paris"


def test_a_word_of_several_tokens_has_a_first_and_a_last(plain):
    codec, text = TextCodec(plain, 0), "The zyxwv is old"
    first, last = codec.tokens_at(text, (4, 9))
    assert last > first
    assert spelled(codec, text, (first, last)).strip() == "zyxwv"


def test_answers_are_what_they_add(plain):
    codec = TextCodec(plain, 0)
    assert codec.tokenizer.decode(codec.answer(TEXT, " Mary")) == " Mary"
    assert codec.answer(TEXT, " Mary and John") == codec.ids(TEXT + " Mary and John")[len(codec.ids(TEXT)) :]


@pytest.mark.parametrize(("prompt", "answer"), [("When M", "ary"), (TEXT, ""), ("The capital of France is ", "Paris")])
def test_an_answer_that_merges_with_the_prompt_is_refused(plain, prompt, answer):
    codec = TextCodec(plain, 0)
    with pytest.raises(AlignmentError, match=r"changes the prompt's tokens.*became.*End the prompt without a space"):
        codec.answer(prompt, answer)


def test_empty_prompts_are_refused(plain):
    with pytest.raises(ShapeError, match="Prompt 0 is empty"):
        TextCodec(plain, None).batch([""])
    with pytest.raises(ShapeError, match="There are no prompts"):
        TextCodec(plain, 0).batch([])


def test_strings_without_a_tokenizer_are_numbers():
    assert TextCodec(None, None).strings([3, 14]) == ("3", "14")
    assert padded([[1], [2, 3]]).tolist() == [[1, 0], [2, 3]]


def test_labels_where_all_agree(plain):
    codec = TextCodec(plain, 0)
    tokens, lengths = codec.batch(["The key is old", "The key near the table"])
    labels = codec.axis(tokens, lengths.tolist())
    assert labels[:3] == ("<|endoftext|>", "The", "key")
    assert set(labels[int(lengths.min()) :]) <= {""}


@pytest.mark.parametrize(
    ("kind", "backend", "processing"), [*MODELS, ("bert", "auto", "raw"), ("bert", "auto", "folded")]
)
def test_a_padded_batch_gives_what_each_prompt_gives_alone(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    texts = [TEXT, "Then, Tom", "The war lasted from the year 1741"]
    tokens, lengths = model.tokens(texts)
    assert lengths.unique().numel() == 3
    together = model.logits(tokens, lengths=lengths)
    for i, text in enumerate(texts):
        alone, (length,) = model.tokens(text)
        torch.testing.assert_close(together[i, :length], model.logits(alone)[0], atol=2e-5, rtol=0)
    at = model.logits(tokens, lengths=lengths, at=lengths[:, None] - 1)
    torch.testing.assert_close(at[:, 0], together[torch.arange(3), lengths - 1], atol=2e-5, rtol=0)


def test_bert_reads_its_padding_unless_told(model_of):
    """The test above would pass without a mask if padding could not be seen."""
    model = model_of("bert")
    tokens, lengths = model.tokens([TEXT, "Then, Tom"])
    told, untold = model.logits(tokens, lengths=lengths), model.logits(tokens)
    assert (told - untold)[1, : int(lengths[1])].abs().max() > 1e-3
