"""One model family: its transformers classes, its configuration, and its tiny random checkpoint."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
import transformers

from tests.families.tokenizers import TOKENIZERS

N_VOCAB = 512
WIDTH = 64
N_LAYERS = 3
N_HEADS = 4
N_KV_HEADS = 2
MLP_WIDTH = 128
N_CTX = 64
WINDOW = 10  # shorter than the prompts of the checks

SIZES = {
    "hidden_size": WIDTH,
    "intermediate_size": MLP_WIDTH,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": N_HEADS,
    "max_position_embeddings": N_CTX,
}
GROUPED = {**SIZES, "num_key_value_heads": N_KV_HEADS}
ROTARY = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
PAD = {"pad_token_id": 0}
WEIGHT_STD = 0.2
VECTOR_STD = 0.1  # biases, scales of norms, buffers

Task = Literal["causal", "masked", "sequence to sequence", "classifier", "encoder"]


@dataclass(frozen=True)
class Family:
    """How to build the tiny model of a family.

    Attributes:
        model: the model class in transformers.
        config: its configuration class.
        settings: arguments of the configuration beside the vocabulary and the special tokens.
        tokenizer: a name in `TOKENIZERS`.
        task: what the model does; decides how it is loaded and which checks run.
    """

    model: str
    config: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str = "plain"
    task: Task = "causal"

    def variant(self, **settings: Any) -> "Family":
        """The same family with other configuration switches."""
        return replace(self, settings={**self.settings, **settings})

    def with_tokenizer(self, tokenizer: str) -> "Family":
        return replace(self, tokenizer=tokenizer)


def causal(model: str, config: str, tokenizer: str = "plain", **settings: Any) -> Family:
    return Family(model, config, settings, tokenizer)


def build(family: Family, seed: int = 0) -> tuple[Any, Any]:
    """The random model, and its tokenizer.

    Every weight, bias, scale of a norm and stored buffer is random, so that a tensor that is dropped, folded wrongly or
    read from the wrong place changes the numbers.
    """
    tokenizer = TOKENIZERS[family.tokenizer]()
    settings = deepcopy(dict(family.settings))  # a configuration edits what it gets
    ids = {"vocab_size": N_VOCAB, **_special_tokens(tokenizer)}
    if "text_config" in settings:
        settings["text_config"] = {**ids, **settings["text_config"]}
    else:
        settings = {**ids, **settings}
    torch.manual_seed(seed)
    config = getattr(transformers, family.config)(**settings)
    model = getattr(transformers, family.model)(config)
    randomise(model)
    model.tie_weights()
    return model.eval(), tokenizer


@torch.no_grad()
def randomise(model: torch.nn.Module) -> None:
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=WEIGHT_STD)
        else:
            parameter.add_(VECTOR_STD * torch.randn_like(parameter))
    stored = model.state_dict()
    for name, buffer in model.named_buffers():
        if name in stored and buffer.is_floating_point():
            buffer.add_(VECTOR_STD * torch.randn_like(buffer))


def write(family: Family, folder: Path, seed: int = 0) -> Path:
    """Writes the checkpoint and its tokenizer into ``folder``; returns it."""
    model, tokenizer = build(family, seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _special_tokens(tokenizer: Any) -> dict[str, int | None]:
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if ids["pad_token_id"] is None:
        del ids["pad_token_id"]
    return ids
