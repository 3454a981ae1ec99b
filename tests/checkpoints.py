"""Tiny random checkpoints in the real Hugging Face format, each with a real fast tokenizer built here."""

from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

CORPUS = [
    "When Mary and John went to the store, John gave a drink to Mary.",
    "Then, Tom and James were working at the park. Tom passed a book to James.",
    "The war lasted from the year 1741 to the year 1765.",
    "The keys near the cabinet are on the table. The key near the cabinets is old.",
    "def load(self, size, name, path):",
    "The capital of France is Paris. The Eiffel Tower is located in the city of Paris.",
] * 40
WIDTH = 64
N_LAYERS = 3
N_CTX = 64


def byte_pair_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 500 tokens, as GPT-2, Llama and NeoX have."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(CORPUS, trainer)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token=end, eos_token=end, unk_token=end)


def word_piece_tokenizer() -> PreTrainedTokenizerFast:
    """A WordPiece of 500 tokens with BERT's special tokens."""
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    core.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    )
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _gpt2(n_vocab: int) -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=n_vocab, n_positions=N_CTX, n_embd=WIDTH, n_layer=N_LAYERS, n_head=4))


def _llama(n_vocab: int) -> PreTrainedModel:
    sizes = {"hidden_size": WIDTH, "intermediate_size": 128, "num_hidden_layers": N_LAYERS}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=n_vocab, max_position_embeddings=N_CTX, tie_word_embeddings=False, **sizes, **heads)
    return LlamaForCausalLM(config)


def _neox(n_vocab: int) -> PreTrainedModel:
    sizes = {"hidden_size": WIDTH, "intermediate_size": 128, "num_hidden_layers": N_LAYERS, "num_attention_heads": 4}
    config = GPTNeoXConfig(vocab_size=n_vocab, max_position_embeddings=N_CTX, use_parallel_residual=True, **sizes)
    return GPTNeoXForCausalLM(config)


def _bert(n_vocab: int) -> PreTrainedModel:
    sizes = {"hidden_size": WIDTH, "intermediate_size": 128, "num_hidden_layers": N_LAYERS, "num_attention_heads": 4}
    return BertForMaskedLM(BertConfig(vocab_size=n_vocab, max_position_embeddings=N_CTX, **sizes))


def _bert_config(n_vocab: int, **more: object) -> BertConfig:
    sizes = {"hidden_size": WIDTH, "intermediate_size": 128, "num_hidden_layers": N_LAYERS, "num_attention_heads": 4}
    return BertConfig(vocab_size=n_vocab, max_position_embeddings=N_CTX, **sizes, **more)


def _bert_classifier(n_vocab: int) -> PreTrainedModel:
    labels = {0: "NEGATIVE", 1: "NEUTRAL", 2: "POSITIVE"}
    names = {"id2label": labels, "label2id": {name: number for number, name in labels.items()}}
    return BertForSequenceClassification(_bert_config(n_vocab, num_labels=3, **names))


def _bert_regressor(n_vocab: int) -> PreTrainedModel:
    return BertForSequenceClassification(_bert_config(n_vocab, num_labels=1))


def _bert_encoder(n_vocab: int) -> PreTrainedModel:
    return BertModel(_bert_config(n_vocab))


def _gpt2_classifier(n_vocab: int) -> PreTrainedModel:
    sizes = {"n_positions": N_CTX, "n_embd": WIDTH, "n_layer": N_LAYERS, "n_head": 4}
    config = GPT2Config(vocab_size=n_vocab, **sizes, num_labels=2, pad_token_id=0)
    return GPT2ForSequenceClassification(config)


BUILDERS: dict[str, Callable[[int], PreTrainedModel]] = {"gpt2": _gpt2, "llama": _llama, "neox": _neox, "bert": _bert}
BUILDERS |= {
    "bert-classifier": _bert_classifier,
    "bert-regressor": _bert_regressor,
    "bert-encoder": _bert_encoder,
    "gpt2-classifier": _gpt2_classifier,
}
CAUSAL = ("gpt2", "llama", "neox")


def write(kind: str, folder: Path, seed: int = 0) -> Path:
    """Writes a random checkpoint of ``kind`` and its tokenizer into ``folder``; returns it."""
    torch.manual_seed(seed)
    tokenizer = word_piece_tokenizer() if kind.startswith("bert") else byte_pair_tokenizer()
    model = BUILDERS[kind](len(tokenizer))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)
        else:
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    model.config.bos_token_id = model.config.eos_token_id = tokenizer.eos_token_id
    model.tie_weights()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
