"""What a model writes is what Hugging Face's ``generate`` writes: windows, states and rotary tables of all kinds."""

import copy
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import transformers
from transformers import PreTrainedModel

import mechxai as mx
from mechxai.core.errors import ModelSupportError
from mechxai.model.backends.config_lengths import config_lengths
from mechxai.model.generation.cache_check import cache_check
from tests.checkpoints import byte_pair_tokenizer

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
HEADS = {"num_key_value_heads": 2, "max_position_embeddings": 64}
FACTORS = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 2.3, 2.6, 2.9]}
LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 16, **FACTORS}
LINEAR = {"linear_num_value_heads": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
FAMILIES = {
    "Mistral": {"sliding_window": 6, **SIZES, **HEADS},
    "Gemma2": {"sliding_window": 6, "head_dim": 8, **SIZES, **HEADS},
    "Phi3": {
        "rope_parameters": LONGROPE,
        "original_max_position_embeddings": 16,
        "sliding_window": None,
        "pad_token_id": 0,
        **SIZES,
        **HEADS,
    },
    "Llama": {"rope_parameters": {**LONGROPE, "factor": 4.0}, **SIZES, **HEADS},
    "Mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "Qwen3Next": {
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
        "head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"],
        **LINEAR,
        **SIZES,
        **HEADS,
    },
    "Falcon": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "alibi": True,
        "new_decoder_architecture": False,
        "multi_query": False,
        "parallel_attn": False,
    },
}
PROMPT_LENGTHS = (3, 9, 1, 20)


def written_model(family: str, folder: Path, **changes: object) -> PreTrainedModel:
    """A tiny random model of a family, saved to a folder with a tokenizer."""
    tokenizer = byte_pair_tokenizer()
    config = getattr(transformers, f"{family}Config")
    torch.manual_seed(0)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = getattr(transformers, f"{family}ForCausalLM")(config(vocab_size=512, **ids, **FAMILIES[family]))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.25)
    for name, value in changes.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def prompts() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(8, 500, (length,), generator=generator) for length in PROMPT_LENGTHS]


def generated(hf_model: PreTrainedModel, prompt: torch.Tensor, n: int, ends: Sequence[int] = (0,)) -> list[int]:
    """What Hugging Face writes behind one prompt alone, without the token that ends it."""
    ids = prompt[None]
    options = {"attention_mask": torch.ones_like(ids), "do_sample": False, "pad_token_id": 0}
    written = hf_model.generate(ids, max_new_tokens=n, **options)[0, len(prompt) :].tolist()
    end = next((at for at, token in enumerate(written) if token in ends), len(written))
    return written[:end]


def continuations(model: mx.HookedModel, rows: Sequence[torch.Tensor], n: int) -> list[list[int]]:
    """What the model writes behind prompts of different lengths in one call."""
    tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for row, prompt in zip(tokens, rows, strict=True):
        row[: len(prompt)] = prompt
    lengths = torch.tensor([len(row) for row in rows])
    return [[token for token in row if token >= 0] for row in model.generate(tokens, n, lengths=lengths).tolist()]


@pytest.mark.parametrize("family", FAMILIES)
def test_ragged_prompts_continue_as_hugging_face_continues_each(family, tmp_path):
    theirs = written_model(family, tmp_path)
    model = mx.load(str(tmp_path), backend="bridge", processing="raw")
    rows = prompts()
    assert continuations(model, rows, 12) == [generated(copy.deepcopy(theirs), row, 12) for row in rows]


def test_a_cache_that_changes_the_logits_is_replaced_with_full_passes(tmp_path, monkeypatch, caplog):
    theirs = written_model("Mistral", tmp_path)
    model = mx.load(str(tmp_path), backend="bridge", processing="raw")
    kind = type(model.backend)
    monkeypatch.setattr(kind, "run_cached", lambda self, tokens, cache: self.run(tokens, None))  # forgets the prompt
    rows = prompts()
    with caplog.at_level(logging.WARNING, logger="mechxai.model"):
        found = [continuations(model, rows, 8) for _ in range(2)]
    assert found == [[generated(theirs, row, 8) for row in rows]] * 2
    assert [record.message.count("costs a pass over the whole text") for record in caplog.records] == [1]
    assert "changes the logits" in cache_check(model.backend).fault


def test_a_cache_that_cannot_be_made_is_replaced_with_full_passes(tmp_path, monkeypatch):
    theirs = written_model("Mistral", tmp_path)
    model = mx.load(str(tmp_path), backend="bridge", processing="raw")
    monkeypatch.setattr(type(model.backend), "new_cache", lambda *_: 3)
    assert continuations(model, prompts(), 6) == [generated(theirs, row, 6) for row in prompts()]
    assert "cannot be used" in cache_check(model.backend).fault


def test_a_window_is_checked_once_texts_outgrow_it(tmp_path, monkeypatch):
    theirs = written_model("Mistral", tmp_path)
    model = mx.load(str(tmp_path), backend="bridge", processing="raw")
    assert config_lengths(model.backend).windows == (6,)
    kind = type(model.backend)
    monkeypatch.setattr(kind, "new_cache", lambda *_: transformers.DynamicCache())  # too long for the window's mask
    cached = kind.run_cached
    halved = lambda self, tokens, cache: cached(self, tokens, cache) * (1 if cache.get_seq_length() < 7 else 0.5)  # noqa: E731
    monkeypatch.setattr(kind, "run_cached", halved)
    monkeypatch.setattr("mechxai.model.generation.cache_check._N_SHORT", 4)
    continuations(model, prompts()[:1], 2)
    assert not cache_check(model.backend).fault
    assert continuations(model, prompts(), 6) == [generated(theirs, row, 6) for row in prompts()]
    assert "longer than 6 tokens" in cache_check(model.backend).fault


@pytest.mark.parametrize("backend", ["auto", "bridge"])
def test_every_end_of_the_generation_settings_ends_a_row(tmp_path, backend):
    theirs = written_model("Mistral", tmp_path)
    plain = generated(theirs, prompts()[0], 12)
    ends = [0, plain[3]]  # the tokenizer knows the first only
    theirs.generation_config.eos_token_id = ends
    theirs.save_pretrained(tmp_path)
    model = mx.load(str(tmp_path), backend=backend, processing="raw")
    expected = plain[: plain.index(plain[3])]
    assert continuations(model, prompts()[:1], 12) == [expected] == [generated(theirs, prompts()[0], 12, ends)]


def test_settings_that_are_not_applied_are_announced_once(tmp_path, caplog):
    written_model("Mistral", tmp_path, repetition_penalty=1.3)
    model = mx.load(str(tmp_path), backend="bridge", processing="raw")
    with caplog.at_level(logging.WARNING, logger="mechxai.model"):
        for _ in range(2):
            continuations(model, prompts()[:1], 2)
    assert ["repetition_penalty=1.3" in record.message for record in caplog.records] == [True]


def test_virtual_tokens_are_refused(tmp_path):
    peft = pytest.importorskip("peft")
    bridge = pytest.importorskip("transformer_lens.model_bridge").TransformerBridge
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    adapted = peft.get_peft_model(written_model("Mistral", tmp_path), config)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    inner = bridge.boot_transformers("local", hf_model=adapted, tokenizer=tokenizer, device="cpu")
    with pytest.raises(ModelSupportError, match="virtual tokens"):
        mx.wrap(inner)
