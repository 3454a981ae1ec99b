"""The kinds of tokenizer that the families have, each of 500 tokens."""

from collections.abc import Callable
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tests.checkpoints import CORPUS, byte_pair_tokenizer, word_piece_tokenizer

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for m in messages %}<|start_header|>{{ m['role'] }}<|end_header|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header|>assistant<|end_header|>{% endif %}"
)


def bos_tokenizer() -> Any:
    """Like Llama 3 and Gemma: tokens of its own for begin, end and padding; the post-processor adds the begin."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    begin, end, padding = "<|begin|>", "<|end|>", "<|pad|>"
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=[begin, end, padding, "<|start_header|>", "<|end_header|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS, trainer)
    core.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, 0)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token=begin, eos_token=end, pad_token=padding)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def qwen_tokenizer() -> Any:
    """Like Qwen: no begin token; the end token is the padding."""
    end = "<|endoftext|>"
    core = byte_pair_tokenizer().backend_tokenizer
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=end, pad_token=end)


TOKENIZERS: dict[str, Callable[[], Any]] = {
    "plain": byte_pair_tokenizer,
    "bos": bos_tokenizer,
    "qwen": qwen_tokenizer,
    "word pieces": word_piece_tokenizer,
}
