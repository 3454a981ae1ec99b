"""Head roles on models with a known circuit."""

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ConfigError, ModelSupportError
from mechxai.methods.circuits._lib.copying import copying_scores


def other_sequences(model, n, seed=0):
    """Repeated sequences against other random ones; `mx.tasks.induction` does not corrupt the previous-token head."""
    clean, other = (mx.tasks.induction(model, n=n, seed=seed + step) for step in (0, 1000))
    return mx.ContrastBatch.from_tokens(clean.clean, other.clean, clean.answers, other.answers)


TASKS = {
    "zoo/handmade-induction": other_sequences,
    "zoo/handmade-ioi": mx.tasks.ioi,
}


@pytest.fixture(scope="module", params=TASKS)
def known(request):
    model = mx.load(request.param, device="cpu")
    return model, TASKS[request.param](model, n=24, seed=0)


def named(result):
    roles = result.data["role"].values
    return {
        f"a{layer}.h{head}": str(roles[layer, head]) for layer, head in np.ndindex(roles.shape) if roles[layer, head]
    }


def truth(model):
    return {node["node"]: node["role"] for node in model.card["truth"]["nodes"]}


def place(node):
    return tuple(int(part) for part in node.removeprefix("a").split(".h"))


@pytest.fixture(scope="module")
def found(known):
    return mx.HeadRoles()(*known)


def test_roles_are_exactly_the_known_ones(known, found):
    assert named(found) == truth(known[0])


def test_a_head_whose_input_is_not_corrupted_has_no_effect():
    """`mx.tasks.induction` changes only the answer, so only heads that the truth file calls visible get a role."""
    model = mx.load("zoo/handmade-induction", device="cpu")
    visible = {edge["src"] for edge in model.card["truth"]["visible_answer"]}
    result = mx.HeadRoles()(model, mx.tasks.induction(model, n=24))
    assert (
        named(result)
        == {node: role for node, role in truth(model).items() if node in visible}
        == {"a1.h1": "induction"}
    )
    assert result.data["previous_token"].values[0, 2] > 0.99, "its score is there all the same"


def test_idle_heads_have_no_effect_and_no_role(known, found):
    model, _ = known
    inactive = model.card["truth"]["inactive"]
    assert len(inactive) == model.architecture.n_layers * model.architecture.n_heads - len(truth(model))
    for node in inactive:
        assert found.data["role"].values[place(node)] == ""
        for effect in ("effect", "effect_noise"):
            assert abs(found.data[effect].values[place(node)]) < 1e-3, f"{node}: {effect}"


def test_scores_of_the_known_heads(known, found):
    for node, role in truth(known[0]).items():
        assert found.data[role].values[place(node)] > 0.8, f"{node} {role}"


def test_effect_of_the_last_head(known, found):
    """The head that writes the answer carries all of the difference in both directions."""
    last = list(truth(known[0]))[-1]
    for effect in ("effect", "effect_noise"):
        assert found.data[effect].values[place(last)] == pytest.approx(1.0, abs=0.05)


def test_another_seed_and_held_out_prompts_give_the_same_roles(known):
    model, _ = known
    again = TASKS[model.name](model, n=12, seed=9)
    assert named(mx.HeadRoles(seed=4, n_random=8)(model, again)) == truth(model)


def test_idle_heads_have_a_pattern_but_no_role(known, found):
    """Head 0.0 of both handmade models attends to its own token, which has no effect."""
    assert found.data["attends_to"].values[0, 0] == "itself"
    assert found.data["positional"].values[0, 0] == pytest.approx(1.0, abs=1e-3)
    assert found.data["role"].values[0, 0] == ""


def test_no_sentences_no_syntactic_scores():
    model = mx.load("zoo/handmade-ioi", device="cpu")
    result = mx.HeadRoles(syntax=0)(model, mx.tasks.ioi(model, n=4))
    assert "syntactic" not in result.data
    assert "relation" not in result.data.coords
    assert not any("syntactic" in note for note in result.info.notes)


def test_a_pattern_without_an_effect_gives_no_role(known):
    model, batch = known
    strict = mx.HeadRoles(effect=2.0)(model, batch)
    assert named(strict) == {}
    assert (
        mx.HeadRoles(attention=1.1)(model, batch).data["role"].values.tolist()
        == np.full((model.architecture.n_layers, 4), "").tolist()
    )


def test_effects_equal_activation_patching(known, found):
    model, batch = known
    for direction, name in (("denoise", "effect"), ("noise", "effect_noise")):
        patched = mx.ActivationPatching("z", ("layer", "head"), direction=direction)(model, batch)
        np.testing.assert_allclose(found.data[name], patched.data["recovered"], atol=1e-4)


def test_only_the_name_mover_copies():
    model = mx.load("zoo/handmade-ioi", device="cpu")
    batch = mx.tasks.ioi(model, n=24)
    scores, against = copying_scores(model, batch.answers[:, 0, 0].unique())
    assert scores.shape == (3, 4)
    assert scores[2, 2] == 1.0
    scores[2, 2] = 0.0
    inactive = [place(node) for node in model.card["truth"]["inactive"]]
    assert max(float(scores[at]) for at in inactive) < 1.0
    assert against[2, 2] == 0.0


def test_a_negated_name_mover_is_a_negative_name_mover():
    model = mx.load("zoo/handmade-ioi", device="cpu")
    with torch.no_grad():
        model.inner.blocks[2].attn.W_O[2] *= -0.5
    turned = mx.wrap(model.inner, name="turned", tokenizer=model.text.tokenizer)
    batch = mx.tasks.ioi(turned, n=16)
    data = mx.HeadRoles()(turned, batch).data
    assert float(data["suppressing"][2, 2]) == 1.0
    assert float(data["copying"][2, 2]) == 0.0
    assert str(data["role"].values[2, 2]) == "negative_name_mover"


def test_s_inhibition_heads_reach_the_name_movers_queries():
    model = mx.load("zoo/handmade-ioi", device="cpu")
    batch = mx.tasks.ioi(model, n=16)
    data = mx.HeadRoles()(model, batch).data
    path = mx.PathPatching(("a*",), ("a2.h2.q",))(model, batch).data["recovered"].to_series()
    for edge, value in path.items():
        layer, head = map(int, str(edge).split(" -> ")[0][1:].split(".h"))
        assert float(data["s_inhibition_path"][layer, head]) == pytest.approx(value, abs=1e-6)
    role = data["role"].values
    known = {node["node"]: node["role"] for node in model.card["truth"]["nodes"] if ".h" in node["node"]}
    assert {f"a{one}.h{two}": role[one, two] for one, two in np.ndindex(role.shape) if role[one, two]} == known


def test_variables_and_units(known, found):
    shared = {"previous_token", "duplicate_token", "induction", "first_token", "positional", "copying"}
    shared |= {"effect", "effect_noise", "role", "attends_to"}
    expected = shared | ({"s_inhibition", "name_mover", "syntactic"} if known[0].name == "zoo/handmade-ioi" else set())
    assert expected <= set(found.data.data_vars)
    if "syntactic" in expected:
        for name in ("syntax", "syntax_control"):
            assert found.data[name].dims == ("relation", "layer", "head")
        selective = (found.data["syntax"] - found.data["syntax_control"]).max("relation").clip(0)
        np.testing.assert_allclose(found.data["syntactic"], selective, atol=1e-6)
    else:
        assert any("no syntactic scores" in note for note in found.info.notes)
    if known[0].name == "zoo/handmade-induction":
        assert "name_mover" not in found.data
    for name in expected:
        assert found.data[name].dims == ("layer", "head")
        assert found.data[name].attrs["units"]
        assert found.data[name].attrs["long_name"]
    for name in expected - {"role", "attends_to", "effect", "effect_noise"}:
        assert ((found.data[name] >= 0) & (found.data[name] <= 1 + 1e-6)).all(), name
    assert found.info.method["name"] == "head_roles"
    assert found.info.cost["forward_passes"] > 0


def test_equal_runs_are_noted(pairs, model_of):
    model = model_of("gpt2")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = mx.HeadRoles(n_random=2, period=4)(model, pairs(model, same=True))
    assert named(result) == {}
    assert any("differ" in note for note in result.info.notes)


def test_refused(model_of, pairs):
    with pytest.raises(ModelSupportError, match=r"bidirectional model.*Use a causal language model"):
        mx.HeadRoles()(model_of("bert"), pairs(model_of("bert")))
    for settings, problem in (
        ({"period": 1}, "period is 1: it must be at least 2"),
        ({"n_random": 0}, "n_random is 0: it must be at least 1"),
        ({"syntax": -1}, "syntax is -1: it must be at least 0"),
    ):
        with pytest.raises(ConfigError, match=problem):
            mx.HeadRoles(**settings)
