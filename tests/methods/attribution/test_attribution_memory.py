"""A long prompt on a model of GPT-2 small's shape fits into bounded memory."""

import resource

import pytest
import torch

import mechxai as mx
from mechxai.engine.execution import Execution

N_TOKENS, GIB = 512, 2**30


@pytest.fixture(scope="module")
def gpt2_small():
    """The shape, with random weights."""
    from transformer_lens.model_bridge import TransformerBridge

    from benchmarks.shapes import GPT2_SMALL, hugging_face, one_token

    inner = TransformerBridge.boot_transformers("local", hf_model=hugging_face(GPT2_SMALL), tokenizer=one_token())
    return mx.wrap(inner.eval(), name="GPT-2-small shape")


def peak():
    """The most this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.slow
def test_fifty_steps_of_512_tokens_stay_within_four_gibibytes(gpt2_small):
    tokens = torch.randint(1, 50000, (1, N_TOKENS), generator=torch.Generator().manual_seed(0))
    batch = mx.ContrastBatch.from_tokens(tokens, tokens, torch.tensor([11]), torch.tensor([13]))
    mx.Saliency()(gpt2_small, batch)
    before = peak()
    result = mx.IntegratedGradients(n_steps=50, max_steps=50)(gpt2_small, batch)
    assert result.data["value"].notnull().all()
    assert peak() - before < 4 * GIB


@pytest.mark.slow
def test_a_smaller_budget_gives_the_same_scores(gpt2_small):
    tokens = torch.randint(1, 50000, (1, 64), generator=torch.Generator().manual_seed(0))
    batch = mx.ContrastBatch.from_tokens(tokens, tokens, torch.tensor([11]), torch.tensor([13]))
    method = mx.IntegratedGradients(n_steps=8, max_steps=8)
    whole = method(gpt2_small, batch).data["value"].values
    tight = method(gpt2_small, batch, execution=Execution(budget_bytes=1)).data["value"].values
    assert tight == pytest.approx(whole, abs=1e-4)
