"""Planning of millions of rows: waves are ranges, so neither time nor memory grows with the number of rows."""

import time
import tracemalloc

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import mechxai as mx
from tests.checkpoints import byte_pair_tokenizer

N_PROMPTS, N_POS = 2000, 512
MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Layers, heads and positions of GPT-2 small, on which a plan depends, with narrow activations."""
    folder, tokenizer = tmp_path_factory.mktemp("gpt2") / "gpt2", byte_pair_tokenizer()
    config = GPT2Config(n_layer=12, n_head=12, n_embd=48, n_positions=N_POS, vocab_size=len(tokenizer))
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return mx.load(str(folder))


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    clean, other = (torch.randint(0, 90, (N_PROMPTS, N_POS), generator=generator) for _ in range(2))
    corrupted = clean.clone()
    corrupted[:, 5:8] = other[:, 5:8]
    ones = torch.ones(N_PROMPTS, dtype=torch.long)
    return mx.ContrastBatch.from_tokens(clean, corrupted, ones * 3, ones * 4)


@pytest.mark.parametrize("engine", ["auto", "packed", "hooked"])
def test_twelve_million_rows_are_planned_quickly(model, batch, engine):
    method, execution = mx.ActivationPatching(), mx.Execution(engine, budget_bytes=10**9)
    method.plan(model, batch.rows(slice(0, 2)), execution=execution)  # the model's blocks are checked once
    started = time.process_time()
    made = method.plan(model, batch, execution=execution)
    assert time.process_time() - started < 2.5
    assert made.n_rows + made.noops == made.forward_passes == 12 * N_POS * N_PROMPTS
    tracemalloc.start()
    method.plan(model, batch, execution=execution)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * MEBIBYTE


def test_the_first_waves_of_a_large_plan_come_at_once(model, batch):
    made = mx.ActivationPatching().plan(model, batch, execution=mx.Execution(budget_bytes=10**9))
    started = time.process_time()
    wave = next(iter(made.waves[0]))
    assert time.process_time() - started < 2.5
    assert 0 < (torch.tensor(wave.stops) - torch.tensor(wave.starts)).sum() <= 2048
