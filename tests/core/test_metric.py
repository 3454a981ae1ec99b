"""Metrics against hand-computed numbers and second implementations."""

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ConfigError, NumericsError, ShapeError
from mechxai.core.metric import METRICS, MetricName, as_metric, check_finite
from mechxai.engine.sweep import run_tokens

LN2 = math.log(2.0)
# two prompts of three tokens over six words; the answer positions (2 and 1) hold the numbers that count
LOGITS = torch.full((2, 3, 6), 9.0)
LOGITS[0, 2] = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
LOGITS[1, 1] = torch.tensor([LN2, 0.0, 0.0, 0.0, LN2, 2 * LN2])  # probabilities 2 1 1 1 2 4 of 11


def batch(answers, wrong):
    tokens = torch.tensor([[1, 2, 3], [4, 5, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    return mx.ContrastBatch.from_tokens(tokens, tokens, torch.tensor(answers), torch.tensor(wrong), mask=mask)


def test_logit_diff_by_hand():
    assert as_metric("logit_diff")(LOGITS, batch([5, 5], [2, 0])).tolist() == pytest.approx([3.0, LN2])


def test_logit_diff_of_alternatives_takes_their_means():
    # prompt 0: mean(5, 4) - mean(0, 1, 2) = 3.5; prompt 1: 2 ln 2 - mean(ln 2, 0) = 1.5 ln 2
    several = batch([[[5], [4]], [[5], [-1]]], [[[0], [1], [2]], [[0], [1], [-1]]])
    assert as_metric("logit_diff")(LOGITS, several).tolist() == pytest.approx([3.5, 1.5 * LN2])


def test_probabilities_by_hand():
    several = batch([[[5], [4]], [[5], [-1]]], [[[0], [1], [2]], [[0], [1], [-1]]])
    total = sum(math.exp(k) for k in range(6))
    first = (math.exp(5) + math.exp(4)) / total
    assert as_metric("prob")(LOGITS, several).tolist() == pytest.approx([first, 4 / 11])
    wrong = (1 + math.e + math.e**2) / total
    assert as_metric("prob_diff")(LOGITS, several).tolist() == pytest.approx([first - wrong, 4 / 11 - 3 / 11])


def test_logprob_of_one_token_by_hand():
    assert as_metric("logprob")(LOGITS, batch([5, 1], [0, 0])).tolist() == pytest.approx(
        [5 - math.log(sum(math.exp(k) for k in range(6))), -math.log(11)]
    )


def test_answer_rank_by_hand():
    rank = as_metric("answer_rank")
    assert rank(LOGITS, batch([5, 5], [0, 0])).tolist() == [0, 0]
    assert rank(LOGITS, batch([0, 1], [5, 5])).tolist() == [5, 3], "ties do not count as higher"
    assert rank(LOGITS, batch([[[0], [4]], [[1], [-1]]], [5, 5])).tolist() == [1, 3], "the best alternative counts"


def test_kl_divergence_equals_torch():
    generator = torch.Generator().manual_seed(0)
    other = torch.randn(2, 3, 6, generator=generator)
    at = torch.tensor([2, 1])
    reference = LOGITS[torch.arange(2), at].log_softmax(-1)
    asked = replace(batch([5, 5], [0, 0]), reference=reference)
    expected = torch.nn.functional.kl_div(
        other[torch.arange(2), at].log_softmax(-1), reference, log_target=True, reduction="none"
    ).sum(-1)
    torch.testing.assert_close(as_metric("kl_divergence")(other, asked), expected)
    assert as_metric("kl_divergence")(LOGITS, asked).abs().max() < 1e-6
    assert (expected > 0.1).all()
    with pytest.raises(ShapeError, match=r"clean run's distribution.*batch\.reference is None"):
        as_metric("kl_divergence")(other, batch([5, 5], [0, 0]))


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_logprob_of_two_tokens_is_the_chain_rule(model_of, kind):
    model = model_of(kind)
    texts = mx.ContrastBatch.from_tokens(
        torch.tensor([[11, 12, 13, 14], [21, 22, 23, 0]]),
        torch.tensor([[11, 12, 13, 15], [21, 22, 24, 0]]),
        torch.tensor([[31, 32], [41, -1]]),
        torch.tensor([33, 43]),
        mask=torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
    )
    metric = as_metric("logprob")
    tokens, lengths = run_tokens(texts, "clean", metric)
    assert tokens[0].tolist() == [11, 12, 13, 14, 31], "the last answer token is never read"
    assert int(lengths[0]) == 5
    ours = metric(model.logits(tokens, lengths=lengths), texts)

    def logprob(prompt, answer):
        return float(model.logits(torch.tensor([prompt]))[0, -1].log_softmax(-1)[answer])

    chain = logprob([11, 12, 13, 14], 31) + logprob([11, 12, 13, 14, 31], 32)
    assert ours.tolist() == pytest.approx([chain, logprob([21, 22, 23], 41)], abs=1e-4)


def test_logprob_through_a_method_reads_the_patched_run(model_of):
    """A patch of everything gives the clean prompt's own score, answers of several tokens included."""
    model = model_of("gpt2")
    texts = mx.ContrastBatch.from_tokens(
        torch.tensor([[11, 12, 13, 14], [21, 22, 23, 24]]),
        torch.tensor([[11, 12, 19, 14], [21, 22, 29, 24]]),
        torch.tensor([[31, 32, 33], [41, 42, -1]]),
        torch.tensor([34, 43]),
    )
    result = mx.ActivationPatching("resid_pre", ("layer",), metric="logprob")(model, texts)
    clean = result.data["baseline_clean"].values
    assert abs(clean - result.data["baseline_corrupted"].values).max() > 1e-3
    for layer in range(model.architecture.n_layers):
        assert result.data["per_example"].values[:, layer] == pytest.approx(clean, abs=1e-4)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(ConfigError, match=r"Unknown metric 'logit_dif'. Did you mean 'logit_diff'"):
        as_metric("logit_dif")


def test_nan_names_its_prompt():
    with pytest.raises(NumericsError, match=r"The metric is not finite at blocks.0.z: nan on prompt 2"):
        check_finite(torch.tensor([1.0, 2.0, math.nan, math.inf]), "blocks.0.z")
    with pytest.raises(NumericsError, match="inf on prompt 1"):
        check_finite(torch.tensor([[1.0, 2.0], [3.0, math.inf]]), "here")
    check_finite(torch.tensor([1e30, -1e30]), "here")


@pytest.mark.parametrize("name", ["logit_diff", "prob", "prob_diff", "answer_rank"])
def test_several_tokens_are_refused_with_the_way_out(name):
    with pytest.raises(
        ShapeError, match=f"{name} reads one token per answer.*answers have 2 tokens.*Use metric=logprob"
    ):
        as_metric(name).check(batch([[1, 2], [1, 2]], [3, 3]))


def test_wrong_answers_of_several_tokens_are_refused_where_they_are_read():
    several = batch([1, 1], [[2, 3], [2, 3]])
    for name in ("logit_diff", "prob_diff"):
        with pytest.raises(ShapeError, match="one token per answer"):
            as_metric(name).check(several)
    for name in ("prob", "answer_rank", "logprob"):
        as_metric(name).check(several)


def test_logprob_refuses_alternatives_and_an_early_answer():
    with pytest.raises(ShapeError, match=r"one answer per prompt.*2 alternatives"):
        as_metric("logprob").check(batch([[[1], [2]], [[1], [2]]], [3, 3]))
    early = replace(batch([[1, 2], [1, 2]], [3, 3]), answer_pos=torch.tensor([0, 0]))
    with pytest.raises(ShapeError, match="follow the prompt's last token"):
        as_metric("logprob").check(early)


def test_a_function_must_give_one_value_per_prompt():
    mine = as_metric(lambda logits, rows: logits[:, -1, 0])
    assert mine(LOGITS, batch([5, 5], [0, 0])).tolist() == [0.0, 9.0]
    with pytest.raises(ShapeError, match=r"returned shape \(2, 6\).*one value per prompt.*\(2,\)"):
        as_metric(lambda logits, rows: logits[:, -1])(LOGITS, batch([5, 5], [0, 0]))


def test_the_names_of_metrics_are_stated_once():
    assert set(get_args(MetricName)) == set(METRICS)


def test_every_metric_states_its_unit_and_direction():
    for name, kind in METRICS.items():
        assert kind.name == name
        assert kind.unit
        assert kind.higher_is
