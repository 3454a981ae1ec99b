"""Attribution: hand-computed cases, laws, equality with Captum, SHAP and plain forward passes."""

from dataclasses import dataclass, replace
from itertools import combinations
from math import factorial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.core.architecture import Architecture
from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, ShapeError, SiteError
from mechxai.engine.execution import Execution
from mechxai.methods.attribution._lib.adapters.hooked import Removals
from mechxai.methods.attribution._lib.players import players_of
from mechxai.methods.attribution.attention_rollout import rollout
from mechxai.methods.attribution.exact_shapley import shapley
from mechxai.methods.attribution.partition_shap import tree
from mechxai.model.text import TextCodec
from tests.conftest import FOLDED, MODELS

GRADIENTS = (mx.Saliency(), mx.GradientXInput(), mx.SmoothGrad(n_samples=5), mx.IntegratedGradients(n_steps=16))
REMOVALS = (mx.Occlusion(), mx.Lime(n_samples=60), mx.KernelShap(n_samples=80), mx.PartitionShap(n_samples=60))
ATTENTION = (mx.AttentionScores(), mx.AttentionRollout())
EVERY = (*GRADIENTS, *REMOVALS, *ATTENTION)
COMPLETE = (mx.IntegratedGradients, mx.KernelShap, mx.PartitionShap, mx.ExactShapley)


def named(methods):
    return [pytest.param(method, id=method.card.name) for method in methods]


def hooks_of(model):
    return sum(len(point.fwd_hooks) for point in model.backend.hooks.values())


def cut_to(batch, row):
    """One prompt of a batch without its padding."""
    one = batch.rows(slice(row, row + 1))
    width = int(one.lengths[0])
    return replace(one, clean=one.clean[:, :width], corrupted=one.corrupted[:, :width], axis=())


# Laws on every architecture -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "backend", "processing"), MODELS)
def test_every_method_on_every_model(model_of, pairs, kind, backend, processing):
    model = model_of(kind, backend, processing)
    batch = pairs(model, n=2, width=7, lengths=[7, 5])
    before = hooks_of(model)
    for plain in EVERY:
        method = replace(plain, baseline="mean") if "baseline" in plain.settings() else plain
        result = method(model, batch)
        value = result.data["value"].values
        assert value.shape == (2, 7)
        assert np.isfinite(value[0]).all()
        assert np.isfinite(value[1, :5]).all()
        assert np.isnan(value[1, 5:]).all()
        assert result.data["target_score"].values == pytest.approx(_logit_diff(model, batch), abs=2e-4)
        if isinstance(method, COMPLETE):
            change = result.data["target_score"] - result.data["baseline_score"]
            assert (abs(result.data["delta"]) <= 0.05 * abs(change) + 1e-4).all()
            assert np.nansum(value, 1) == pytest.approx((change + result.data["delta"]).values, abs=1e-9)
        else:
            assert np.isnan(result.data["delta"]).all()
    assert hooks_of(model) == before


def _logit_diff(model, batch):
    logits = model.logits(batch.clean, lengths=batch.lengths, at=batch.answer_pos[:, None])[:, 0].double()
    rows = torch.arange(len(batch))
    return (logits[rows, batch.answers[:, 0, 0]] - logits[rows, batch.wrong[:, 0, 0]]).cpu().numpy()


@pytest.mark.parametrize("method", named((*EVERY, mx.ExactShapley(players="token"))))
def test_padded_batch_equals_singles(model_of, pairs, method):
    model = model_of("llama")
    batch = pairs(model, n=3, width=8, lengths=[8, 5, 6])
    together = method(model, batch)
    for row in range(3):
        alone = method(model, cut_to(batch, row))
        width = int(batch.lengths[row])
        if "seed" in method.settings() and row:
            continue  # each prompt of a batch has draws of its own
        assert together.data["value"].values[row, :width] == pytest.approx(alone.data["value"].values[0], abs=2e-5)


def test_a_masked_model_is_explained_at_its_mask(model_of):
    model = model_of("bert")
    batch = mx.tasks.prompts(model, texts=["The capital of [MASK] is Paris.", "The keys are [MASK]."])
    for method in EVERY:
        result = method(model, batch)
        token, value = result.data["token"].values, result.data["value"].values
        assert np.isnan(value[np.isin(token, ["[CLS]", "[SEP]", "[MASK]", ""])]).all()
        assert np.isfinite(value[~np.isin(token, ["[CLS]", "[SEP]", "[MASK]", ""])]).all()
    with_mask = mx.Occlusion(special=True, baseline="mask")(model, batch).data
    assert np.isfinite(with_mask["value"].values[0]).all()


def test_hooks_are_gone_after_an_exception(model_of, pairs, monkeypatch):
    model = model_of("gpt2")
    before = hooks_of(model)
    monkeypatch.setattr("mechxai.methods.attribution._lib.adapters.hooked.metric_values", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        mx.Saliency()(model, pairs(model))
    assert hooks_of(model) == before
    assert all(parameter.requires_grad for parameter in model.inner.parameters())


# Against plain forward passes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
@pytest.mark.parametrize("engine", ["hooked", "suffix", "auto"])
def test_occlusion_equals_a_pass_with_another_token(model_of, pairs, kind, backend, processing, engine):
    model = model_of(kind, backend, processing)
    batch = pairs(model, n=2, width=7, lengths=[7, 6])
    result = mx.Occlusion(baseline="pad")(model, batch, execution=Execution(engine=engine))
    whole = _logit_diff(model, batch)
    pad = model.tokenizer.eos_token_id
    for pos in range(6):
        tokens = batch.clean.clone()
        tokens[:, pos] = pad
        expected = whole - _logit_diff(model, replace(batch, clean=tokens))
        assert result.data["value"].values[:, pos] == pytest.approx(expected, abs=5e-4)


def test_counterfactual_removal_is_the_corrupted_prompt(model_of, pairs):
    model = model_of("neox")
    batch = pairs(model, n=2)
    result = mx.ExactShapley(baseline="counterfactual", players="token")(model, batch)
    corrupted = _logit_diff(model, replace(batch, clean=batch.corrupted))
    assert result.data["baseline_score"].values == pytest.approx(corrupted, abs=1e-4)
    unchanged = (batch.clean == batch.corrupted).numpy()
    assert result.data["value"].values[unchanged] == pytest.approx(0, abs=1e-5)


def test_windows_of_occlusion_by_hand(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=1, width=4)
    whole = _logit_diff(model, batch)[0]

    def loss(first):
        tokens = batch.clean.clone()
        tokens[:, first : first + 2] = model.tokenizer.eos_token_id
        return whole - _logit_diff(model, replace(batch, clean=tokens))[0]

    found = mx.Occlusion(window=2)(model, batch).data["value"].values[0]
    losses = [loss(first) for first in range(3)]
    expected = [losses[0], (losses[0] + losses[1]) / 2, (losses[1] + losses[2]) / 2, losses[2]]
    assert found == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("metric", ["logprob", "logprob_diff"])
def test_a_sequence_is_scored_by_teacher_forcing(model_of, metric):
    model = model_of("gpt2")
    batch = mx.ContrastBatch.from_prompts(
        model, clean=["The capital of France is"] * 2, corrupted=["The capital of France is"] * 2,
        answers=[" Paris.", " the park"], wrong=[" in the store.", " Mary gave"],
    )  # fmt: skip
    assert batch.answers.shape[2] > 1

    def logprob(row, answer):
        prompt = batch.clean[row].tolist()
        ids = [token for token in answer[row, 0].tolist() if token >= 0]
        logits = model.logits(torch.tensor([prompt + ids]))[0].double().log_softmax(-1)
        return sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(ids))

    sides = [[logprob(row, one) for row in range(2)] for one in (batch.answers, batch.wrong)]
    expected = np.array(sides[0]) - (np.array(sides[1]) if metric == "logprob_diff" else 0)
    for method in (mx.IntegratedGradients(metric=metric), mx.KernelShap(metric=metric, n_samples=80)):
        result = method(model, batch)
        assert result.data["target_score"].values == pytest.approx(expected, abs=1e-4)
        assert abs(result.data["delta"].values).max() < 0.1


# Second implementations -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "backend", "processing"), MODELS)
def test_integrated_gradients_equal_captums_on_hugging_face(model_of, checkpoint, pairs, kind, backend, processing):
    from captum.attr import LayerIntegratedGradients
    from transformers import AutoModelForCausalLM

    model = model_of(kind, backend, processing)
    batch = pairs(model, n=1, width=8)
    hf = AutoModelForCausalLM.from_pretrained(checkpoint(kind)).eval()
    answer, wrong = int(batch.answers), int(batch.wrong)
    captum = LayerIntegratedGradients(
        lambda ids: hf(ids).logits[:, -1, answer] - hf(ids).logits[:, -1, wrong], hf.get_input_embeddings()
    )
    pad = torch.full_like(batch.clean, model.tokenizer.eos_token_id)
    expected = captum.attribute(batch.clean, pad, n_steps=50).sum(-1)[0].detach().numpy()
    found = mx.IntegratedGradients(n_steps=50, max_steps=50)(model, batch).data["value"].values[0]
    assert found == pytest.approx(expected, abs=1e-4 * max(1.0, float(abs(expected).max())))


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_saliency_and_gradient_x_input_equal_captums(model_of, checkpoint, pairs, kind):
    from captum.attr import InputXGradient
    from transformers import AutoModelForCausalLM

    model = model_of(kind, "auto", "raw")
    batch = pairs(model, n=1, width=6)
    hf = AutoModelForCausalLM.from_pretrained(checkpoint(kind)).eval()
    embeddings = hf.get_input_embeddings()(batch.clean).detach()
    forward = lambda given: (  # noqa: E731
        hf(inputs_embeds=given).logits[:, -1, int(batch.answers)]
        - hf(inputs_embeds=given).logits[:, -1, int(batch.wrong)]
    )
    expected = InputXGradient(forward).attribute(embeddings.clone().requires_grad_())[0].detach()
    found = mx.GradientXInput()(model, batch).data["value"].values[0]
    assert found == pytest.approx(expected.sum(-1).numpy(), abs=1e-4)
    length = mx.Saliency()(model, batch).data["value"].values[0]
    assert length == pytest.approx((expected / embeddings[0]).norm(dim=-1).numpy(), rel=1e-3)


def test_exact_shapley_equals_shaps_own_exact_explainer(model_of, pairs):
    import shap

    model = model_of("neox")
    batch = pairs(model, n=1, width=6)
    method = mx.ExactShapley(players="token", baseline="mean")
    problem = method.problem(model, batch, Execution())

    def score(present):
        return problem.without(torch.as_tensor(present < 0.5)[:, None])[:, 0].numpy()

    explainer = shap.ExactExplainer(score, shap.maskers.Independent(np.zeros((1, 6))))
    expected = explainer(np.ones((1, 6))).values[0]
    assert method(model, batch).data["value"].values[0] == pytest.approx(expected, abs=1e-5)


def test_kernel_shap_of_all_coalitions_is_exact(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=2, width=7, lengths=[7, 5])
    exact = mx.ExactShapley(players="token")(model, batch).data
    found = mx.KernelShap()(model, batch).data
    assert found["value"].values == pytest.approx(exact["value"].values, abs=1e-4, nan_ok=True)
    assert np.nanmax(found["standard_error"].values) == 0


@pytest.mark.slow
def test_the_standard_error_of_kernel_shap_is_honest(zoo):
    batch = mx.tasks.ioi(zoo, n=1, seed=3, template=0)
    draws = [mx.KernelShap(n_samples=150, seed=seed)(zoo, batch).data for seed in range(30)]
    spread = np.std([draw["player_value"].values[0] for draw in draws], axis=0, ddof=1)
    told = np.mean([draw["standard_error"].values[0] for draw in draws], axis=0)
    assert 0.6 < np.median(told / spread) < 1.7


def test_partition_shap_is_the_owen_value_of_its_tree(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=1, width=6)
    method = mx.PartitionShap(players="token", n_samples=10_000)
    problem = method.problem(model, batch, Execution())
    leaves = method._leaves(problem)
    links = tree(leaves)

    def worth(present):
        absent = torch.ones(6, dtype=torch.bool)
        absent[list(present)] = False
        return float(problem.without(absent[None, None])[0, 0])

    beneath = {player: {player} for player in range(6)}
    for number, (left, right, *_) in enumerate(links):
        beneath[6 + number] = beneath[int(left)] | beneath[int(right)]

    def owen(node, contexts):
        """Values beneath a node, averaged over the contexts in which its children come and go."""
        if node < 6:
            return {node: np.mean([worth(context | {node}) - worth(context) for context in contexts])}
        left, right = int(links[node - 6][0]), int(links[node - 6][1])
        sides = [(left, beneath[right]), (right, beneath[left])]
        found = {}
        for child, sibling in sides:
            found |= owen(child, [with_it for context in contexts for with_it in (context, context | sibling)])
        return found

    values = owen(6 + len(links) - 1, [set()])
    found = method(model, batch).data["value"].values[0]
    assert found == pytest.approx([values[player] for player in range(6)], abs=1e-4)


def test_rollout_by_hand():
    first = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    second = torch.tensor([[1.0, 0.0], [0.2, 0.8]])
    found = rollout(torch.stack([first, second])[:, None].double(), 0.5)[0]
    # A' = (A + I) / 2: [[1, 0], [.25, .75]] and [[1, 0], [.1, .9]]; the product's last row: .1 + .9 * .25, .9 * .75
    assert found.tolist() == [[1.0, 0.0], [pytest.approx(0.325), pytest.approx(0.675)]]


@pytest.mark.parametrize("fusion", ["mean", "max", "min"])
def test_attention_equals_hugging_faces(model_of, checkpoint, pairs, fusion):
    from transformers import AutoModelForCausalLM

    model = model_of("llama")
    batch = pairs(model, n=1, width=6)
    hf = AutoModelForCausalLM.from_pretrained(checkpoint("llama"), attn_implementation="eager").eval()
    patterns = torch.stack(hf(batch.clean, output_attentions=True).attentions)[:, 0].detach()  # [layer, head, d, s]
    heads = {"mean": patterns.mean(1), "max": patterns.amax(1), "min": patterns.amin(1)}[fusion]
    scores = mx.AttentionScores(fusion=fusion)(model, batch).data["value"].values[0]
    assert scores == pytest.approx(heads[:, -1].mean(0).numpy(), abs=1e-5)
    if fusion == "mean":
        last = torch.eye(6)
        for layer in heads:
            last = (layer + torch.eye(6)) / 2 @ last
        rolled = mx.AttentionRollout()(model, batch).data["value"].values[0]
        assert rolled == pytest.approx(last[-1].numpy(), abs=1e-5)


def test_attention_without_the_sink_adds_up_to_one(zoo):
    batch = mx.tasks.ioi(zoo, n=4)
    for kind in (mx.AttentionScores, mx.AttentionRollout):
        kept, dropped = kind(bos="keep")(zoo, batch).data, kind(bos="drop")(zoo, batch).data
        assert (kept["value"].sum("pos") + kept["on_special"]).values == pytest.approx(1)
        assert dropped["value"].sum("pos").values == pytest.approx(1)
        assert (kept["on_special"] > 0).all()


# Closed forms: a linear model -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Linear:
    """Score: ``sum over positions of e_p . w_p``, with embeddings of one's own; nothing else to it."""

    table: torch.Tensor
    weights: torch.Tensor
    text: ClassVar = TextCodec(None, None)
    device: ClassVar = torch.device("cpu")
    identity: ClassVar = "linear"
    inside: ClassVar = True
    n_outputs: ClassVar = 10
    architecture: ClassVar = Architecture("linear", 1, 1, 1, 3, 3, 3, 10, 16)
    card: ClassVar[dict] = {}
    name: ClassVar = "linear"

    def info(self):
        return {"name": "linear"}

    def answer_text(self, answer):
        return str(answer)

    def embeddings(self, tokens):
        return self.table[tokens]

    def mean_embedding(self):
        return self.table.mean(0)

    def score(self, metric, batch, embeddings):
        return (embeddings * self.weights[: embeddings.shape[1]] * batch.mask[..., None]).sum((1, 2))

    def without(self, metric, batch, embeddings, *, baseline, absent, execution):
        where = absent[..., None] if absent.ndim == 3 else absent
        rows = [self.score(metric, batch, torch.where(one, baseline, embeddings)) for one in where]
        return Removals(torch.stack(rows).double(), float(len(rows)))

    def patterns(self, batch, embeddings, layers):
        return torch.full((len(layers), len(batch), 1, batch.n_pos, batch.n_pos), 1 / batch.n_pos)


@pytest.fixture
def linear():
    draw = torch.Generator().manual_seed(0)
    table, weights = (torch.randn(*shape, generator=draw) for shape in ((10, 3), (16, 3)))
    batch = ContrastBatch.from_tokens(
        torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 5, 3, 4]]), torch.tensor([1]), torch.tensor([2])
    )
    return Linear(table, weights), batch


def test_closed_forms_on_a_linear_model(linear):
    model, batch = linear
    own, mean = model.table[batch.clean[0]], model.table.mean(0)
    products = (own * model.weights[:4]).sum(-1).numpy()
    shifted = ((own - mean) * model.weights[:4]).sum(-1).numpy()

    def value(method):
        return method(model, batch).data["value"].values[0]

    assert value(mx.GradientXInput()) == pytest.approx(products, abs=1e-5)
    assert value(mx.SmoothGrad(reduce="times_input", n_samples=3)) == pytest.approx(products, abs=1e-5)
    assert value(mx.Saliency()) == pytest.approx(model.weights[:4].norm(dim=-1).numpy(), abs=1e-5)
    assert value(mx.Saliency(reduce="sum")) == pytest.approx(model.weights[:4].sum(-1).numpy(), abs=1e-5)
    for method in (
        mx.IntegratedGradients(baseline="mean", n_steps=1),
        mx.Occlusion(baseline="mean"),
        mx.ExactShapley(baseline="mean", players="token"),
        mx.KernelShap(baseline="mean"),
        mx.PartitionShap(baseline="mean"),
    ):
        assert value(method) == pytest.approx(shifted, abs=1e-5), method.card.name
    assert value(mx.Lime(baseline="mean", alpha=0.0)) == pytest.approx(shifted, abs=1e-4)
    assert value(mx.AttentionScores()) == pytest.approx([0.25] * 4)
    assert value(mx.IntegratedGradients(baseline="counterfactual", n_steps=1))[[0, 2, 3]].tolist() == [0, 0, 0]


def test_shapley_by_counting_orders():
    worth = np.random.default_rng(0).normal(size=16)
    found = shapley(torch.from_numpy(worth)).numpy()
    for player in range(4):
        total = 0.0
        for size in range(4):
            for others in combinations([p for p in range(4) if p != player], size):
                number = sum(1 << other for other in others)
                share = factorial(size) * factorial(3 - size) / factorial(4)
                total += share * (worth[number | 1 << player] - worth[number])
        assert found[player] == pytest.approx(total)
    assert found.sum() == pytest.approx(worth[15] - worth[0])


# Integrated gradients that do not converge ----------------------------------------------------------------------------


def test_steps_double_until_the_scores_add_up(zoo):
    batch = mx.tasks.ioi(zoo, n=3)
    coarse = mx.IntegratedGradients(n_steps=1, max_steps=1)(zoo, batch)
    assert any("do not add up" in note for note in coarse.info.notes)
    finer = mx.IntegratedGradients(n_steps=1, max_steps=64, tolerance=0.01)(zoo, batch)
    change = abs(finer.data["target_score"] - finer.data["baseline_score"])
    assert (abs(finer.data["delta"]) <= 0.01 * change).all()
    assert finer.data["n_steps"].values.max() > 1
    assert not any("do not add up" in note for note in finer.info.notes)


# Players --------------------------------------------------------------------------------------------------------------


def test_words_are_tokens_without_a_space_between(model_of):
    model = model_of("gpt2")
    batch = mx.tasks.prompts(model, texts=["Mary and Johnson's cat, gave", "the store"])
    found = players_of(model.text, batch, "word")
    assert found.names[0] == ("Mary", " and", " Johnson's", " cat", ",", " gave")
    assert found.names[1] == ("the", " store")
    assert found.of_token[0, 0] == -1  # the beginning of sequence
    assert players_of(model.text, batch, "word", special=True).of_token[0, 0] == 0


def test_spans_are_the_roles(zoo):
    batch = mx.tasks.ioi(zoo, n=2, template=0)
    result = mx.ExactShapley(players="span")(zoo, batch)
    names = result.data["player_name"].values
    assert all(set(row) <= set(batch.strings[i]) for i, row in enumerate(names))
    assert np.isnan(result.data["value"].values).sum() > 10
    assert result.data["player_value"].sum("player").values == pytest.approx(
        (result.data["target_score"] - result.data["baseline_score"]).values, abs=1e-4
    )


def test_a_players_score_is_shared_out_over_its_tokens(model_of):
    model = model_of("gpt2")
    batch = mx.tasks.prompts(model, texts=["Mary and Johnson's cat gave"])
    data = mx.Occlusion(players="word")(model, batch).data
    for player, value in enumerate(data["player_value"].values[0]):
        own = data["value"].values[0][data["player_index"].values[0] == player]
        assert own.sum() == pytest.approx(value)
        assert len(set(own.round(9))) == 1


# Prompts of one's own -------------------------------------------------------------------------------------------------


def test_prompts_without_answers_get_the_models_own(model_of):
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
        ({"texts": []}, "none"),
        ({"texts": ["fine", "  "]}, r"text 1 is empty"),
        ({"texts": ["fine"], "answers": []}, "answers"),
        ({"texts": ["a b", "c"], "counterfactuals": ["a b"]}, "counterfactuals"),
    ],
)
def test_bad_prompts_are_refused(model_of, settings, message):
    with pytest.raises(ConfigError, match=message):
        mx.tasks.prompts(model_of("gpt2"), **settings)


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mx.Occlusion(baseline="padd"), "did you mean 'pad'"),
        (lambda: mx.KernelShap(players="tokens"), "did you mean 'token'"),
        (lambda: mx.IntegratedGradients(n_steps=0), "n_steps"),
        (lambda: mx.IntegratedGradients(metric="logit_dif"), "did you mean 'logit_diff'"),
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


def test_what_cannot_be_done_says_so(model_of, pairs, zoo):
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
    with pytest.raises(SiteError, match="Layer 9"):
        mx.AttentionScores(layers=(9,))(model, pairs(model))
    with pytest.raises(SiteError, match="Head 7"):
        mx.AttentionScores(heads=(7,))(model, pairs(model))
    with pytest.raises(ConfigError, match="regression is determined"):
        mx.KernelShap(n_samples=5)(model, pairs(model))


# Interrupted and resumed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", named((mx.IntegratedGradients(), mx.KernelShap(n_samples=100), mx.SmoothGrad())))
def test_finished_prompts_are_not_explained_again(zoo, tmp_path, monkeypatch, method):
    batch = mx.tasks.ioi(zoo, n=3)
    execution = Execution(cells=Path(tmp_path))
    whole = method(zoo, batch, execution=execution)
    gone = sorted(tmp_path.glob("*-000001.safetensors"))
    for path in gone:
        path.unlink()
    calls = []
    name = type(method).__name__
    inner = {"IntegratedGradients": "_converged", "KernelShap": "_estimate", "SmoothGrad": "_mean"}[name]
    original = getattr(type(method), inner)
    monkeypatch.setattr(type(method), inner, lambda *a: calls.append(1) or original(*a))
    again = method(zoo, batch, execution=execution)
    assert len(calls) == 1
    assert (again.data["value"].fillna(0) == whole.data["value"].fillna(0)).all()
    other = method(zoo, mx.tasks.ioi(zoo, n=3, seed=7), execution=execution)
    assert not (other.data["value"].fillna(0) == whole.data["value"].fillna(0)).all()
