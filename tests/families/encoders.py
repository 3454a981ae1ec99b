"""Masked models, encoder-decoders, classifiers and text encoders."""

from dataclasses import replace
from typing import Any

from tests.families.family import (
    GROUPED,
    MLP_WIDTH,
    N_CTX,
    N_HEADS,
    N_LAYERS,
    PAD,
    ROTARY,
    SIZES,
    WIDTH,
    Family,
    Task,
)

ROBERTA_SIZES = {**SIZES, "max_position_embeddings": N_CTX + 2, **PAD}
MODERNBERT = {**SIZES, **PAD, "local_attention": 8, "cls_token_id": 2, "sep_token_id": 3}
DISTILBERT = {
    "dim": WIDTH,
    "hidden_dim": MLP_WIDTH,
    "n_layers": N_LAYERS,
    "n_heads": N_HEADS,
    "max_position_embeddings": N_CTX,
}
DEBERTA = {**SIZES, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
NARROW_EMBEDDING = {**SIZES, "embedding_size": 32}
T5_SIZES = {"d_model": WIDTH, "d_kv": 16, "d_ff": MLP_WIDTH, "num_layers": N_LAYERS, "num_heads": N_HEADS}
BART_SIZES = {
    "d_model": WIDTH,
    "encoder_layers": N_LAYERS,
    "decoder_layers": N_LAYERS,
    "encoder_ffn_dim": MLP_WIDTH,
    "decoder_ffn_dim": MLP_WIDTH,
    "encoder_attention_heads": N_HEADS,
    "decoder_attention_heads": N_HEADS,
    "max_position_embeddings": N_CTX,
}
NAMES = {0: "NEG", 1: "NEU", 2: "POS"}
LABELS = {"num_labels": 3, "id2label": NAMES, "label2id": {name: number for number, name in NAMES.items()}}


def _family(task: Task, model: str, config: str, settings: dict[str, Any]) -> Family:
    return Family(model, config, settings, "word pieces", task)


def _masked(stem: str, settings: dict[str, Any]) -> Family:
    return _family("masked", f"{stem}ForMaskedLM", f"{stem}Config", settings)


def _classifier(stem: str, settings: dict[str, Any], tokenizer: str = "word pieces") -> Family:
    model = f"{stem}ForSequenceClassification"
    return Family(model, f"{stem}Config", {**settings, **LABELS}, tokenizer, "classifier")


def _encoder(stem: str, settings: dict[str, Any]) -> Family:
    return _family("encoder", f"{stem}Model", f"{stem}Config", settings)


def _sequence_to_sequence(model: str, config: str, **settings: Any) -> Family:
    return Family(model, config, settings, "plain", "sequence to sequence")


MASKED: dict[str, Family] = {
    "bert": _masked("Bert", SIZES),
    "roberta": _masked("Roberta", ROBERTA_SIZES),
    "modernbert": _masked("ModernBert", MODERNBERT),
    "distilbert": _masked("DistilBert", DISTILBERT),
    "electra": _masked("Electra", NARROW_EMBEDDING),
    "albert": _masked("Albert", NARROW_EMBEDDING),
    "xlm-roberta": _masked("XLMRoberta", ROBERTA_SIZES),
    "deberta": _masked("DebertaV2", DEBERTA),
}
SEQUENCE_TO_SEQUENCE: dict[str, Family] = {
    "t5": _sequence_to_sequence("T5ForConditionalGeneration", "T5Config", **T5_SIZES),
    "bart": _sequence_to_sequence("BartForConditionalGeneration", "BartConfig", **BART_SIZES),
    "marian": _sequence_to_sequence("MarianMTModel", "MarianConfig", **PAD, decoder_start_token_id=0, **BART_SIZES),
}
CLASSIFIERS: dict[str, Family] = {
    "c-bert": _classifier("Bert", SIZES),
    "c-roberta": _classifier("Roberta", ROBERTA_SIZES),
    "c-distilbert": _classifier("DistilBert", DISTILBERT),
    "c-modernbert": _classifier("ModernBert", MODERNBERT),
    "c-electra": _classifier("Electra", NARROW_EMBEDDING),
    "c-deberta": _classifier("DebertaV2", DEBERTA),
    "c-albert": _classifier("Albert", NARROW_EMBEDDING),
    "c-llama": _classifier("Llama", {**GROUPED, **ROTARY}, "bos"),
    "c-qwen3": _classifier("Qwen3", {**GROUPED, **ROTARY, "head_dim": 24}, "qwen"),
    "c-t5": _classifier("T5", T5_SIZES, "plain"),
    "c-bart": _classifier("Bart", BART_SIZES, "plain"),
}
ENCODERS: dict[str, Family] = {
    "e-bert": _encoder("Bert", SIZES),
    "e-mpnet": _encoder("MPNet", {**SIZES, **PAD}),
    "e-modernbert": _encoder("ModernBert", MODERNBERT),
    "e-distilbert": _encoder("DistilBert", DISTILBERT),
    "e-qwen3": replace(_encoder("Qwen3", {**GROUPED, **ROTARY, "head_dim": 24}), tokenizer="qwen"),
}
