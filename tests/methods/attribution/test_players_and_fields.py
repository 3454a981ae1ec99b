"""Players of a prompt, prompts without answers, and the refusal of bad fields and inputs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, ShapeError, SiteError
from mechxai.methods.attribution._lib.players import players_of


def test_words_are_tokens_without_a_space_between(model_of):
    model = model_of("gpt2")
    batch = mx.tasks.prompts(model, texts=["Mary and Johnson's cat, gave", "the store"])
    players = players_of(model.text, batch, "word")
    assert players.names[0] == ("Mary", " and", " Johnson's", " cat", ",", " gave")
    assert players.names[1] == ("the", " store")
    assert players.of_token[0, 0] == -1  # the beginning of sequence
    assert players_of(model.text, batch, "word", special=True).of_token[0, 0] == 0


def test_spans_are_the_roles_of_the_batch(zoo):
    batch = mx.tasks.ioi(zoo, n=2, template=0)
    result = mx.ExactShapley(players="span")(zoo, batch)
    names = result.data["player_name"].values
    assert all(set(row) <= set(batch.strings[i]) for i, row in enumerate(names))
    assert np.isnan(result.data["value"].values).sum() > 10
    assert result.data["player_value"].sum("player").values == pytest.approx(
        (result.data["target_score"] - result.data["baseline_score"]).values, abs=1e-4
    )


def test_a_players_score_is_spread_over_its_tokens(model_of):
    model = model_of("gpt2")
    batch = mx.tasks.prompts(model, texts=["Mary and Johnson's cat gave"])
    data = mx.Occlusion(players="word")(model, batch).data
    for player, value in enumerate(data["player_value"].values[0]):
        own = data["value"].values[0][data["player_index"].values[0] == player]
        assert own.sum() == pytest.approx(value)
        assert len(set(own.round(9))) == 1


def test_prompts_without_answers_get_the_models_top_tokens(model_of):
    model = model_of("gpt2")
    batch = mx.tasks.prompts(model, texts=["When Mary", "The war lasted"])
    logits = model.logits(batch.clean, lengths=batch.lengths, at=batch.answer_pos[:, None])[:, 0]
    top = logits.topk(2).indices
    assert batch.answers[:, 0, 0].tolist() == top[:, 0].tolist()
    assert batch.wrong[:, 0, 0].tolist() == top[:, 1].tolist()
    given = mx.tasks.prompts(model, texts=["When Mary"], answers=[" John"])
    assert int(given.wrong) == int(top[0, 0]) != int(given.answers)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"texts": []}, "There are no texts"),
        ({"texts": ["fine", "  "]}, r"Text 1 is empty"),
        ({"texts": ["fine"], "answers": []}, "answers"),
        ({"texts": ["a b", "c"], "counterfactuals": ["a b"]}, "counterfactuals"),
    ],
)
def test_bad_prompts_are_refused(model_of, settings, message):
    with pytest.raises(ConfigError, match=message):
        mx.tasks.prompts(model_of("gpt2"), **settings)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mx.Occlusion(baseline="padd"), "Did you mean 'pad'"),
        (lambda: mx.KernelShap(players="tokens"), "Did you mean 'token'"),
        (lambda: mx.IntegratedGradients(n_steps=0), "n_steps"),
        (lambda: mx.IntegratedGradients(metric="logit_dif"), "Did you mean 'logit_diff'"),
        (lambda: mx.SmoothGrad(noise=0.0), "noise"),
        (lambda: mx.Lime(n_samples=1), "n_samples"),
        (lambda: mx.AttentionRollout(residual=1.0), "residual"),
        (lambda: mx.AttentionScores(fusion="median"), "fusion"),
    ],
)
def test_bad_fields_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_bad_input_is_refused_before_any_pass(model_of, pairs, monkeypatch):
    model = model_of("gpt2")
    monkeypatch.setattr(type(model.backend), "run", lambda *a: pytest.fail("a pass was made"))
    same = pairs(model, same=True)
    with pytest.raises(ShapeError, match="outside the vocabulary"):
        mx.Saliency()(model, replace(same, clean=same.clean + 5000))
    with pytest.raises(ShapeError, match="n_ctx"):
        mx.Saliency()(model, pairs(model, width=70))
    with pytest.raises(ConfigError, match="span"):
        mx.Occlusion(players="span")(model, same)
    with pytest.raises(ShapeError, match="outside the vocabulary"):
        mx.Saliency()(model, replace(same, answers=same.answers + 5000))


def test_unsupported_inputs_are_refused(model_of, pairs, zoo):
    model = model_of("gpt2")
    with pytest.raises(ConfigError, match="its corrupted prompt is the clean one"):
        mx.Occlusion(baseline="counterfactual")(model, pairs(model, same=True))
    with pytest.raises(ConfigError, match="no such token"):
        mx.Occlusion(baseline="mask")(model, pairs(model))
    with pytest.raises(ConfigError, match="players=word or span"):
        mx.ExactShapley(players="token")(zoo, mx.tasks.ioi(zoo, n=2))
    with pytest.raises(ConfigError, match="special tokens only"):
        mx.Saliency()(
            model, ContrastBatch.from_tokens(*[torch.tensor([[0]])] * 2, torch.tensor([3]), torch.tensor([4]))
        )
    with pytest.raises(SiteError, match="Layer 9 is out of range"):
        mx.AttentionScores(layers=(9,))(model, pairs(model))
    with pytest.raises(SiteError, match="Head 7 is out of range"):
        mx.AttentionScores(heads=(7,))(model, pairs(model))
    with pytest.raises(ConfigError, match="regression is determined"):
        mx.KernelShap(n_samples=5)(model, pairs(model))
