"""Neuron factors: by hand, against scikit-learn, laws, and the model with a group ablated."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from sklearn.decomposition import NMF

import mechxai as mx
from mechxai.core.edit import Edit, Replace
from mechxai.core.errors import ConfigError, ModelSupportError, NoSpaceError, NumericsError, SiteError
from mechxai.methods.lens import neuron_factors
from mechxai.methods.lens._lib import factoring
from mechxai.methods.lens._lib.factoring import nonnegative_factors
from mechxai.model.backends import limits
from tests.conftest import BACKENDS

# two groups: neurons 0 and 1 fire 4 : 3 at positions 0 and 2, neuron 5 fires at positions 1 and 3
STRONG, WEAK = np.array([2.0, 0, 1, 0, 0]), np.array([0, 1.0, 0, 2, 0])
FIRST, SECOND = np.array([4.0, 3, 0, 0, 0, 0]), np.array([0, 0, 0, 0, 0, 1.0])
TWO = (np.outer(STRONG, FIRST) + np.outer(WEAK, SECOND)).astype(np.float32)


def factors(model, batch, **settings):
    return mx.NeuronFactors(**settings)(model, batch).data


def activations(model, batch, row=0, run="clean"):
    """All layers side by side, ``[pos, neuron]``, negative ones as 0, read by TransformerLens where it can."""
    n = int(batch.lengths[row])
    _, cache = model.inner.run_with_cache(batch.tokens(run)[row : row + 1, :n])
    layers = range(model.architecture.n_layers)
    return torch.cat([cache[f"blocks.{layer}.mlp.hook_post"][0] for layer in layers], 1).numpy().clip(0)


def test_two_groups_by_hand():
    """|first|^2 = 25 and |strong|^2 = 5, so 125 of the sum of squares; the other group has 1 * 5 of it: 130 in all."""
    found = nonnegative_factors(TWO, 2)
    np.testing.assert_allclose(found.activity, [5 * STRONG, WEAK], atol=1e-5)
    np.testing.assert_allclose(found.weights, [FIRST / 5, SECOND], atol=1e-6)
    np.testing.assert_allclose(found.share, [125 / 130, 5 / 130], atol=1e-6)
    assert found.settled


def test_no_more_factors_than_the_rank():
    assert len(nonnegative_factors(TWO, 6).share) == 2
    assert len(nonnegative_factors(np.outer(STRONG, FIRST), 6).share) == 1
    assert len(nonnegative_factors(np.zeros((3, 8)), 6).share) == 0


def test_shares_are_what_a_factor_adds_over_every_order():
    X = np.random.default_rng(0).random((7, 30))
    found = nonnegative_factors(X, 3)
    parts = [np.outer(*pair) for pair in zip(found.activity, found.weights, strict=True)]

    def explained(chosen):
        return 1 - np.square(X - sum(parts[one] for one in chosen)).sum() / np.square(X).sum()

    orders = list(itertools.permutations(range(3)))
    added = np.zeros(3)
    for order in orders:
        for at, one in enumerate(order):
            added[one] += (explained(order[: at + 1]) - explained(order[:at])) / len(orders)
    np.testing.assert_allclose(found.share, added, atol=1e-9)
    np.testing.assert_allclose(found.explained, explained(range(3)), atol=1e-9)
    assert (np.diff(found.share) <= 0).all()
    np.testing.assert_allclose(np.linalg.norm(found.weights, axis=1), 1.0)


def test_groups_put_into_a_model_are_found(model_of, pairs):
    """With the tokens, layers and neurons that they were put at; negative activations do not count."""
    model = model_of("gpt2")
    batch, d_mlp = pairs(model, n=1, width=5, first=2), model.architecture.d_mlp
    layers = {1: np.zeros((5, d_mlp)), 2: np.full((5, d_mlp), -1.0)}
    layers[1][:, [7, 3]] = np.outer(STRONG, FIRST[:2])
    layers[2][:, 11] = np.where(WEAK > 0, WEAK, -1.0)
    puts = [
        mx.Intervention(
            mx.Site("mlp_post", layer),
            Replace(torch.tensor(values)[None].float(), torch.ones(1, 5, dtype=torch.bool)),
        )
        for layer, values in layers.items()
    ]
    data = factors(model, batch, layers=[-1, 1], interventions=puts, k=3, n=3).isel(prompt=0)
    np.testing.assert_allclose(data["activity"][:2], [5 * STRONG, WEAK], atol=1e-5)
    np.testing.assert_array_equal(data["neuron_layer"], [[1, 1, -1], [2, -1, -1], [-1, -1, -1]])
    np.testing.assert_array_equal(data["neuron"], [[7, 3, -1], [11, -1, -1], [-1, -1, -1]])
    np.testing.assert_allclose(data["weight"][0], [0.8, 0.6, np.nan], atol=1e-6)
    np.testing.assert_allclose(data["layer_share"], [[1, 0], [0, 1], [np.nan, np.nan]], atol=1e-6)
    assert data["layer"].values.tolist() == [1, 2]
    np.testing.assert_allclose(data["share"], [125 / 130, 5 / 130, np.nan], atol=1e-6)
    np.testing.assert_allclose(data["explained"], 1.0, atol=1e-6)
    np.testing.assert_allclose(data["nonnegative"], 130 / (130 + 5 * d_mlp - 2), atol=1e-6)


def test_the_numbers_are_scikit_learns(zoo):
    batch = mx.tasks.ioi(zoo, n=2, seed=0)
    data = factors(zoo, batch, n=5, k=4, draws=0).isel(prompt=1)
    X = activations(zoo, batch, 1)
    solver = NMF(5, init="nndsvd", solver="cd", max_iter=500, random_state=0)
    W, H = solver.fit_transform(X), solver.components_
    sizes = W * np.linalg.norm(H, axis=1)
    order = data["share"].values.argsort()[::-1]
    found = data["activity"].values[:, : len(X)]
    ours = [int(np.argmin([np.abs(one - column).max() for column in sizes.T])) for one in found]
    assert sorted(ours) == [0, 1, 2, 3, 4]
    assert order.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(found, sizes.T[ours], atol=1e-3)
    np.testing.assert_allclose(data["explained"], 1 - solver.reconstruction_err_**2 / np.square(X).sum(), atol=1e-5)
    strongest = H[ours[0]].argsort()[::-1][:4]
    d_mlp = zoo.architecture.d_mlp
    assert (data["neuron_layer"][0] * d_mlp + data["neuron"][0]).values.tolist() == strongest.tolist()
    assert "kl" not in data


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_laws(model_of, pairs, kind):
    """Gated MLPs and parallel blocks too; a padded batch gives what its prompts alone give, and so twice."""
    model = model_of(kind)
    batch = pairs(model, n=3, lengths=[9, 6, 7], first=3)
    data, again = (factors(model, batch, n=9, draws=2) for _ in range(2))
    assert data.identical(again)
    np.testing.assert_allclose(data["share"].sum("factor"), data["explained"], atol=1e-9)
    assert (data["explained"] > 0.98).all(), "as many factors as tokens"
    assert (factors(model, batch, n=3, draws=0)["explained"] < 0.9).all()
    assert (data["share"].diff("factor").fillna(-1) <= 0).all()
    there = data["share"].notnull().values
    np.testing.assert_array_equal(there.sum(1), [9, 6, 7])
    np.testing.assert_allclose(data["layer_share"].sum("layer").values[there], 1.0, atol=1e-5)
    assert np.isnan(data["activity"].values[1, :, 6:]).all()
    assert (data["activity"].values[0] >= 0).all()
    assert (data["neuron"].values[1, 6:] == -1).all()
    for row, n in enumerate(batch.lengths.tolist()):
        one = batch.rows(slice(row, row + 1))
        tokens = one.clean[:, :n]
        alone = mx.ContrastBatch.from_tokens(tokens, tokens, one.answers, one.wrong)
        own = factors(model, alone, n=n, draws=2)
        for name in ("share", "kl", "kl_others", "kl_random", "neuron"):
            np.testing.assert_allclose(data[name].values[row, :n], own[name].values[0], atol=1e-4, err_msg=name)
        np.testing.assert_allclose(data["activity"].values[row, :n, :n], own["activity"].values[0], atol=1e-3)


def test_the_first_token_can_be_left_out(zoo):
    batch = mx.tasks.ioi(zoo, n=2, seed=0)
    data = factors(zoo, batch, n=3, draws=1, skip_first=True)
    assert np.isnan(data["activity"].values[..., 0]).all()
    without = nonnegative_factors(activations(zoo, batch)[1:], 3)
    n = int(batch.lengths[0])
    np.testing.assert_allclose(data["activity"].values[0, :, 1:n], without.activity, atol=1e-3)
    assert data["kl"].notnull().all()


def test_ablations_are_what_transformer_lens_gives(model_of, pairs):
    model = model_of("gpt2", BACKENDS[0])
    batch = pairs(model, n=2, lengths=[9, 7])
    data = factors(model, batch, n=3, k=5, draws=1).isel(prompt=1)
    tokens = batch.clean[1:, :7]
    moved = []
    with torch.no_grad():
        before = model.inner(tokens)[0].log_softmax(-1)
        for factor in range(3):
            places = list(zip(data["neuron_layer"].values[factor], data["neuron"].values[factor], strict=True))

            def off(activation, hook, places=places):
                for layer, neuron in places:
                    if layer == hook.layer():
                        activation[:, :, neuron] = 0
                return activation

            hooks = [(f"blocks.{layer}.mlp.hook_post", off) for layer in range(3)]
            after = model.inner.run_with_hooks(tokens, fwd_hooks=hooks)[0].log_softmax(-1)
            moved.append((before.exp() * (before - after)).sum(-1).numpy())
    activity = data["activity"].values[:, :7]
    by_hand = np.array(moved) @ (activity / activity.sum(1, keepdims=True)).T
    np.testing.assert_allclose(data["kl"], by_hand.diagonal(), rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(data["kl_others"][0], by_hand[1:, 0].mean(), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("task", ["ioi", "facts"])
def test_a_group_matters_where_it_is_active(zoo, task):
    """More than other groups there, on nearly every prompt; more than random neurons, on every one."""
    batch = getattr(mx.tasks, task)(zoo, n=12, seed=0)
    top = factors(zoo, batch).sel(factor=0)
    assert (top["kl"] > top["kl_random"]).all()
    assert (top["kl"] > top["kl_others"]).mean() > 0.8
    assert top["kl"].mean() > 3 * top["kl_others"].mean() > 3 * top["kl_random"].mean()


def test_random_neurons_are_as_many_of_the_same_layers():
    strongest = [(np.array([0, 0, 2]), np.array([1, 4, 5])), (np.array([2, -1, -1]), np.array([0, -1, -1]))]
    sets = neuron_factors._neuron_sets(strongest, 6, draws=3, seed=0)
    assert sorted(sets) == [0, 2]
    np.testing.assert_array_equal(sets[0].sum(1), [2, 0] * 4)
    np.testing.assert_array_equal(sets[2].sum(1), [1, 1] * 4)
    assert sets[0][0].nonzero()[0].tolist() == [1, 4]
    assert not sets[0][2::2, [1, 4]].any(), "none of the factor's own"


def test_an_edited_run_is_factored_and_ablated_as_it_is(model_of, pairs):
    """Every row of the ablations gets its own prompt's part of the edit."""
    model = model_of("llama")
    batch = pairs(model, n=3, lengths=[9, 7, 8], first=3)
    patch = mx.Patch(model.cache(batch.corrupted, ["resid_pre"], layers=[0], lengths=batch.lengths))
    moved = factors(model, batch, n=3, draws=1, interventions=[mx.Intervention(mx.Site("resid_pre", 0), patch)])
    other = factors(model, batch, n=3, draws=1, run="corrupted")
    for name in ("activity", "kl", "kl_others", "kl_random"):
        np.testing.assert_allclose(moved[name], other[name], atol=1e-4, err_msg=name)


def test_few_logits_are_held_together(model_of, pairs, monkeypatch):
    from mechxai.methods.lens._lib import silencing

    model = model_of("gpt2")
    batch = pairs(model, n=2, lengths=[9, 7])
    together = factors(model, batch, n=3, draws=2)
    monkeypatch.setattr(silencing, "_ELEMENTS", 2 * 9 * model.architecture.d_vocab)
    in_parts = factors(model, batch, n=3, draws=2)
    np.testing.assert_allclose(in_parts["kl_random"], together["kl_random"], rtol=1e-3, atol=1e-7)


def test_factors_that_have_not_settled_are_told(zoo, monkeypatch):
    for module in (factoring, neuron_factors):
        monkeypatch.setattr(module, "ROUNDS", 2)
    batch = mx.tasks.ioi(zoo, n=2, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = mx.NeuronFactors(draws=0)(zoo, batch)
    assert result.info.notes[0].startswith("the factors of 2 prompts (0, 1) had not converged after 2 rounds")


class Broken(Edit):
    def __call__(self, activation, site):
        return torch.full_like(activation, torch.nan)


def test_refused_and_no_hook_left(model_of, pairs, monkeypatch):
    for name, value in (("n", 0), ("k", 0), ("draws", -1)):
        with pytest.raises(ConfigError, match=f"{name} is {value}: it must be at least"):
            mx.NeuronFactors(**{name: value})
    with pytest.raises(ConfigError, match="run='both'"):
        mx.NeuronFactors(run="both")
    handmade = mx.load("zoo/handmade-induction", device="cpu")
    with pytest.raises(ModelSupportError, match="attention-only"):
        factors(handmade, mx.tasks.induction(handmade, n=2))
    model = model_of("gpt2")
    batch = pairs(model)
    with pytest.raises(SiteError, match=r"Layer 3 is out of range: this model has 3 layers"):
        factors(model, batch, layers=[3])
    broken = mx.Intervention(mx.Site("mlp_post", 1), Broken())
    with pytest.raises(NumericsError, match=r"Prompt 0.*NaN"):
        factors(model, batch, interventions=[broken])
    with monkeypatch.context() as patched:
        patched.setattr(limits, "available_bytes", lambda device: 1000)
        with pytest.raises(NoSpaceError, match="9 tokens' neurons"):
            factors(model, batch)
    monkeypatch.setattr(neuron_factors, "_neuron_sets", lambda *_, **__: {9: np.ones((1, 4), dtype=bool)})
    with pytest.raises(SiteError):
        factors(model, batch)
    assert not any(point.fwd_hooks for point in model.backend.hooks.values())


def test_where_no_neuron_fires_there_is_nothing_to_factor():
    """The MLPs of `zoo/planted-ioi` are zero."""
    model = mx.load("zoo/planted-ioi", device="cpu")
    batch = mx.tasks.ioi(model, n=2, seed=0, template=0)
    for draws in (0, 1):
        result = mx.NeuronFactors(draws=draws)(model, batch)
        assert np.isnan(result.data["share"]).all()
        assert (result.data["neuron"] == -1).all()
        assert any("no neuron fires in 2 prompts (0, 1)" in note for note in result.info.notes)
        mx.plot(result)


def test_a_picture_of_tokens_by_factors(zoo):
    """Of one prompt, with its own tokens, without the padding and the factors that it lacks."""
    texts = ["Then, Tom and James were working at the park. Tom passed a book to", "When Mary and"]
    result = mx.NeuronFactors(n=6, draws=0)(zoo, mx.tasks.prompts(zoo, texts=texts))
    shares = result.data["share"].values
    for figure in (mx.plot(result, select={"prompt": 1}), mx.plot(result, "activity", select={"prompt": 1})):
        (drawn,) = figure.data
        np.testing.assert_allclose(drawn.z, result.data["activity"].values[1, :4, :4])
        assert list(figure.layout.xaxis.ticktext) == ["0: &lt;bos&gt;", "1: When", "2: Mary", "3: and"]
        assert list(figure.layout.yaxis.ticktext) == [f"{at} ({share:.0%})" for at, share in enumerate(shares[1, :4])]
    figure = mx.plot(result)
    assert figure.data[0].z.shape == (6, len(result.data["pos"]))
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("position", "factor")
    assert "activity of each group of neurons" in figure.layout.title.text.replace("<br>", " ")
    assert mx.plot(result, "share").data[0].z.shape == (2, 6)
    with pytest.raises(ConfigError, match="Prompt 2"):
        mx.plot(result, select={"prompt": 2})
