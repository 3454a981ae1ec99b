"""What the panels draw is what the methods say."""

import json
import threading
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

import mechxai as mx
from mechxai.core.errors import ConfigError
from mechxai.explore.palette import DARK, LIGHT
from mechxai.explore.panel import ALL_PANELS, METHOD_PANELS, prompt_pair, start
from mechxai.explore.panel_answers import answer
from mechxai.explore.panel_context import WIDEST, panel_context
from mechxai.explore.state import TASKS, ExplorerState, example_of
from mechxai.explore.view import Color, TokenColor, View
from mechxai.model.zoo.bundled import zoo_language_models

PANELS = {panel.name: panel for panel in METHOD_PANELS}


@pytest.fixture
def state(zoo):
    return ExplorerState({"zoo/ioi": zoo})


@pytest.fixture
def view(state):
    return state.first_view()


def figures(context, before=None):
    """Name -> figure, of the panels that are drawn anew."""
    return {name: one["figure"] for name, one in answer(context, before)["panels"].items() if "figure" in one}


def figure(context, name):
    return figures(context)[name]


def done(state, panel, context):
    start(panel, context)
    run = state.background.get(panel.key(context))
    for _ in range(600):
        if not run.running:
            break
        threading.Event().wait(0.05)
    assert run.error == ""
    return run.result


def test_the_lens_is_the_logit_lens(state, view, zoo):
    context = panel_context(state, view, LIGHT)
    question = context.question
    batch = mx.tasks.prompts(zoo, texts=[view.prompt], answers=[question.answer], wrong=[question.wrong])
    right = mx.LogitLens(k=10)(zoo, batch).data
    places = list(range(context.analysis.n_pos))
    for name in ("target_logprob", "target_rank", "entropy", "kl_to_final", "top_token"):
        ours = getattr(context.analysis.lens("logit", places, context.question.answer), name).numpy()
        np.testing.assert_allclose(ours, right[name].values[0], atol=1e-5, err_msg=name)


def test_contributions_sum_to_the_logit_difference_at_any_position(state, view, zoo):
    for pos in (4, -1):
        context = panel_context(state, View(prompt=view.prompt, pos=pos), LIGHT)
        data = context.analysis.contributions(context.question).data
        logits = zoo.logits(context.analysis.batch.clean)[0, context.view.pos]
        right = float(logits[context.question.answer] - logits[context.question.wrong])
        assert right > 0
        assert float(data["value"].sum()) == pytest.approx(right, abs=1e-4)
        sums = figure(context, "layers")["data"][0]["y"]
        assert sum(sums) == pytest.approx(right, abs=1e-4)


def test_sources_are_what_the_head_writes(state, view):
    context = panel_context(state, View(prompt=view.prompt, layer=3, head=2), LIGHT)
    data = context.analysis.contributions(context.question).data
    by_token = figure(context, "sources")["data"][0]["y"]
    assert sum(by_token) == pytest.approx(float(data["head_value"].values[3, 2]), abs=1e-4)


def test_attention_is_the_models(state, view, zoo):
    context = panel_context(state, view, LIGHT)
    patterns = zoo.cache(context.analysis.batch.clean, ["pattern"])
    np.testing.assert_allclose(context.analysis.pattern(2, 5), patterns["pattern", 2][0, 5].numpy(), atol=1e-3)


def test_patching_is_activation_patching_and_others_may_look_meanwhile(state, view, zoo):
    context = panel_context(state, view, LIGHT)
    patching = PANELS["patching"]
    method = mx.ActivationPatching(site="resid_pre", over=("layer", "pos"), direction="denoise")
    right = method(zoo, prompt_pair(context)).data
    found = []

    def look():
        for pos in range(3, 11):
            other = panel_context(state, View(prompt=view.prompt, pos=pos), LIGHT)
            found.append(other.analysis.contributions(other.question).data["logit_diff"].values[0])

    looking = threading.Thread(target=look)
    looking.start()
    result = done(state, patching, context)
    looking.join()
    np.testing.assert_allclose(result.data["recovered"], right["recovered"], atol=1e-4)
    assert len(found) == 8
    assert all(value > 0 for value in found), "the model's first choice is above its next"
    drawn = figure(context, "patching")["data"][0]
    np.testing.assert_allclose(drawn["z"], result.data["recovered"].values, atol=1e-6)


def test_the_circuit_is_edge_attribution(state, view, zoo):
    context = panel_context(state, view, LIGHT)
    result = done(state, PANELS["circuit"], context)
    right = mx.EdgeAttribution(kind="eap_ig_inputs")(zoo, prompt_pair(context)).data["value"]
    np.testing.assert_allclose(result.data["value"], right, atol=1e-4)
    nodes = figure(context, "circuit")["data"][-1]
    assert "layer=1\x1fhead=5" in nodes["customdata"]


def test_routes_are_information_flow_routes(state, view, zoo, monkeypatch):
    context = panel_context(state, replace(view, pos=12, layer=2), LIGHT)
    data = mx.InformationFlowRoutes(pos=12)(zoo, context.analysis.batch).data
    nodes = figure(context, "routes")["data"][-1]
    places = {(int(layer), int(pos)) for layer, pos in np.argwhere(np.nan_to_num(data["node"].values[0]) > 0)}
    assert set(nodes["customdata"]) == {f"layer={layer}\x1fpos={pos}" for layer, pos in places}
    at = nodes["customdata"].index("layer=2\x1fpos=12")
    assert nodes["marker"]["line"]["color"][at] == LIGHT.accent
    assert nodes["marker"]["color"][at] == pytest.approx(float(data["node"].values[0, 2, 12]) ** 0.5)
    # where tracing takes long, somebody has to ask for it
    monkeypatch.setattr("mechxai.explore.panels.routes._QUICK", 1.0)
    other = panel_context(state, replace(view, pos=9), LIGHT)
    assert answer(other)["facts"]["has_run_button"]["routes"]
    assert "not run yet" in str(figure(other, "routes"))
    done(state, PANELS["routes"], other)
    assert figure(other, "routes")["data"][-1]["customdata"]


def test_factors_are_those_of_neurons(state, view, zoo):
    context = panel_context(state, view, LIGHT)
    data = mx.NeuronFactors(draws=0)(zoo, context.analysis.batch).data
    drawn = figure(context, "factors")["data"][0]
    np.testing.assert_allclose(drawn["z"], data["activity"].values[0], atol=1e-4)
    neuron = f"m{int(data['neuron_layer'][0, 0, 0])}.n{int(data['neuron'][0, 0, 0])}"
    assert all(neuron in text for text in drawn["hovertext"][0])


def test_a_sweep_that_is_stopped_says_so_and_can_be_run_again(state, view):
    context = panel_context(state, view, LIGHT)
    panel = PANELS["patching"]
    key = panel.key(context)
    with state.lock("zoo/ioi"):  # so that it waits
        start(panel, context)
        state.background.stop(key)
    for _ in range(200):
        if not state.background.get(key).running:
            break
        threading.Event().wait(0.02)
    assert state.background.get(key).error == "stopped"
    assert done(state, panel, context) is not None


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_every_choice_is_drawn(state, view, palette):
    for color in get_args(Color):
        shown = figures(panel_context(state, View(prompt=view.prompt, color=color), palette))
        assert set(shown) == {panel.name for panel in ALL_PANELS}
        assert np.isfinite(np.array(shown["lens"]["data"][0]["z"], float)).all()
    for inputs in get_args(TokenColor):
        buttons = answer(panel_context(state, View(prompt=view.prompt, inputs=inputs), palette))["tokens"]
        assert sum(one["chosen"] for one in buttons) == 1
        assert max(abs(one["share"]) for one in buttons) == 1
        assert len(buttons) == panel_context(state, view, palette).analysis.n_pos


def test_only_what_changes_is_drawn_again(state, view):
    first = answer(panel_context(state, view, LIGHT))
    again = answer(panel_context(state, view, LIGHT), first["stamps"])
    assert again["panels"] == {}
    assert again["tokens"] is None
    head = answer(panel_context(state, View.of({**vars(view), "head": 3}), LIGHT), first["stamps"])["panels"]
    assert {name for name, one in head.items() if "figure" in one} == {"attention", "sources"}
    (frame,) = head.pop("heads")["shapes"]
    assert (frame["x0"], frame["x1"]) == (2.5, 3.5)
    other = panel_context(state, View.of({**vars(view), "pos": 7}), LIGHT)
    pos = answer(other, first["stamps"])["panels"]
    assert {name for name, one in pos.items() if "shapes" in one} == {"lens", "attention", "factors"}
    assert pos["lens"]["shapes"] == figure(other, "lens")["layout"]["shapes"]


@pytest.mark.parametrize("kind", ["llama", "neox"])
def test_other_architectures_are_shown_too(model_of, kind):
    model = model_of(kind)
    state = ExplorerState({model.name: model}, start=View(prompt="one two three four five six"))
    shown = figures(panel_context(state, state.first_view(), LIGHT)).values()
    assert all("failed" not in str(one["layout"].get("annotations", "")) for one in shown)


def test_prompts_that_cannot_be_read_are_refused_with_a_word(state, view):
    for prompt, word in (("", "empty"), ("to " * 100, "tokens")):
        with pytest.raises(ConfigError, match=word):
            panel_context(state, View(prompt=prompt), LIGHT)
    with pytest.raises(ConfigError, match="vocabulary"):
        panel_context(state, View(prompt=view.prompt, answer="Xanthippe"), LIGHT).check()
    with pytest.raises(ConfigError, match="open in this explorer"):
        panel_context(state, View(model="/etc", prompt="a"), LIGHT)
    with pytest.raises(ConfigError, match="corrupted"):
        prompt_pair(panel_context(state, View(prompt=view.prompt), LIGHT))


@pytest.mark.parametrize("task", TASKS)
def test_examples_are_texts_that_give_the_tasks_tokens(zoo, task):
    batch = TASKS[task](zoo, n=2, seed=3)
    one = example_of(zoo, batch, 1)
    length = int(batch.lengths[1])
    assert zoo.text.ids(one.prompt) == batch.clean[1, :length].tolist()
    assert zoo.text.bare_ids(one.answer) == [int(batch.answers[1, 0, 0])]


def test_long_prompts_are_shown_a_page_at_a_time(zoo):
    state = ExplorerState({"zoo/ioi": zoo})
    prompt = " ".join(["the"] * 60)
    near, far = (panel_context(state, View(prompt=prompt, pos=pos), LIGHT) for pos in (2, 58))
    assert near.positions == range(WIDEST)
    assert far.positions == range(near.analysis.n_pos - WIDEST, near.analysis.n_pos)
    assert 58 in far.positions


def test_a_click_on_what_the_answer_is_set_against_asks_about_it(state, view):
    context = panel_context(state, view, LIGHT)
    clicks = figure(context, "next")["data"][0]["customdata"]
    names = [one.split("\x1f")[0].removeprefix("answer=") for one in clicks]
    assert f"answer={view.wrong}\x1fwrong=" in clicks
    for name in names:
        after = {"answer": name} | ({"wrong": ""} if name == view.wrong else {})
        asked = panel_context(state, View.of({**vars(view), **after}), LIGHT).question
        assert context.analysis.token_name(asked.answer) == name


def test_every_token_has_a_name_that_finds_it(state, view, zoo):
    analysis = panel_context(state, view, LIGHT).analysis
    for token in range(zoo.architecture.d_vocab):
        assert analysis.question(3, analysis.token_name(token), "").answer == token


def test_a_masked_model_is_asked_at_its_mask(checkpoint):
    model = mx.load(str(checkpoint("bert")), device="cpu")
    state = ExplorerState({"bert": model})
    context = panel_context(state, state.first_view(), LIGHT)
    assert context.view.pos == context.analysis.answer_pos
    assert context.analysis.tokens[context.view.pos] == model.text.tokenizer.mask_token
    shown = answer(context)
    assert shown["panels"]["lens"]["figure"]["data"]
    assert len(shown["tokens"]) == context.analysis.n_pos


def test_what_cannot_be_had_is_tried_once(model_of):
    model = model_of("gpt2")
    analysis = panel_context(ExplorerState({"m": model}), View(prompt="one two"), LIGHT).analysis
    tried = []

    def fails():
        tried.append(1)
        raise ConfigError("no")

    for _ in range(3):
        with pytest.raises(ConfigError):
            analysis.cached("key", fails)
    assert tried == [1]


@pytest.mark.parametrize("name", zoo_language_models())
def test_every_panel_can_be_drawn_of_every_bundled_model(name):
    state = ExplorerState({name: mx.load(name, device="cpu")})
    view = state.first_view()
    context = panel_context(state, view, LIGHT)
    if view.corrupted:
        for panel in METHOD_PANELS:
            if panel.paired:
                done(state, panel, context)
    for inputs in get_args(TokenColor):
        shown = answer(panel_context(state, replace(view, inputs=inputs), LIGHT))
        assert "this panel failed" not in json.dumps(shown["panels"])
        assert len(shown["tokens"]) == context.analysis.n_pos
