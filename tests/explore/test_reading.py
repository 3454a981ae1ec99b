"""What the panels draw is what the methods say."""

import json
import threading
from dataclasses import replace

import numpy as np
import pytest

import mechxai as mx
from mechxai.core.errors import ConfigError
from mechxai.explore.answers import ALL, answer
from mechxai.explore.palette import DARK, LIGHT
from mechxai.explore.panel import SWEEPS, pair, start
from mechxai.explore.panel_context import WIDEST, panel_context
from mechxai.explore.state import TASKS, ExplorerState, example_of
from mechxai.explore.view import COLORS, INPUTS, View
from mechxai.model.zoo.bundled import zoo_language_models

PANELS = {panel.name: panel for panel in SWEEPS}


@pytest.fixture
def room(zoo):
    return ExplorerState({"zoo/ioi": zoo})


@pytest.fixture
def view(room):
    return room.first()


def figures(scene, before=None):
    """Name -> figure, of the panels that are drawn anew."""
    return {name: one["figure"] for name, one in answer(scene, before)["panels"].items() if "figure" in one}


def figure(scene, name):
    return figures(scene)[name]


def done(room, panel, scene):
    start(panel, scene)
    sweep = room.sweeps.get(panel.key(scene))
    for _ in range(600):
        if not sweep.running:
            break
        threading.Event().wait(0.05)
    assert sweep.error == ""
    return sweep.result


def test_the_lens_is_the_logit_lens(room, view, zoo):
    scene = panel_context(room, view, LIGHT)
    batch = mx.tasks.prompts(zoo, texts=[view.prompt], answers=[scene.asked.answer], wrong=[scene.asked.wrong])
    right = mx.LogitLens(k=10)(zoo, batch).data
    places = list(range(scene.reading.n_pos))
    for name in ("target_logprob", "target_rank", "entropy", "kl_to_final", "top_token"):
        ours = getattr(scene.reading.lens("logit", places, scene.asked.answer), name).numpy()
        np.testing.assert_allclose(ours, right[name].values[0], atol=1e-5, err_msg=name)


def test_contributions_sum_to_the_logit_difference_at_any_position(room, view, zoo):
    for pos in (4, -1):
        scene = panel_context(room, View(prompt=view.prompt, pos=pos), LIGHT)
        data = scene.reading.contributions(scene.asked).data
        logits = zoo.logits(scene.reading.batch.clean)[0, scene.view.pos]
        right = float(logits[scene.asked.answer] - logits[scene.asked.wrong])
        assert right > 0
        assert float(data["value"].sum()) == pytest.approx(right, abs=1e-4)
        sums = figure(scene, "layers")["data"][0]["y"]
        assert sum(sums) == pytest.approx(right, abs=1e-4)


def test_sources_are_what_the_head_writes(room, view):
    scene = panel_context(room, View(prompt=view.prompt, layer=3, head=2), LIGHT)
    data = scene.reading.contributions(scene.asked).data
    by_token = figure(scene, "sources")["data"][0]["y"]
    assert sum(by_token) == pytest.approx(float(data["head_value"].values[3, 2]), abs=1e-4)


def test_attention_is_the_models(room, view, zoo):
    scene = panel_context(room, view, LIGHT)
    patterns = zoo.cache(scene.reading.batch.clean, ["pattern"])
    np.testing.assert_allclose(scene.reading.pattern(2, 5), patterns["pattern", 2][0, 5].numpy(), atol=1e-3)


def test_patching_is_activation_patching_and_others_may_look_meanwhile(room, view, zoo):
    scene = panel_context(room, view, LIGHT)
    patching = PANELS["patching"]
    right = mx.ActivationPatching(site="resid_pre", over=("layer", "pos"), direction="denoise")(zoo, pair(scene)).data
    found = []

    def look():
        for pos in range(3, 11):
            other = panel_context(room, View(prompt=view.prompt, pos=pos), LIGHT)
            found.append(other.reading.contributions(other.asked).data["logit_diff"].values[0])

    looking = threading.Thread(target=look)
    looking.start()
    result = done(room, patching, scene)
    looking.join()
    np.testing.assert_allclose(result.data["recovered"], right["recovered"], atol=1e-4)
    assert len(found) == 8
    assert all(value > 0 for value in found), "the model's first choice is above its next"
    drawn = figure(scene, "patching")["data"][0]
    np.testing.assert_allclose(drawn["z"], result.data["recovered"].values, atol=1e-6)


def test_the_circuit_is_edge_attribution(room, view, zoo):
    scene = panel_context(room, view, LIGHT)
    result = done(room, PANELS["circuit"], scene)
    right = mx.EdgeAttribution(kind="eap_ig_inputs")(zoo, pair(scene)).data["value"]
    np.testing.assert_allclose(result.data["value"], right, atol=1e-4)
    nodes = figure(scene, "circuit")["data"][-1]
    assert "layer=1\x1fhead=5" in nodes["customdata"]


def test_routes_are_information_flow_routes(room, view, zoo, monkeypatch):
    scene = panel_context(room, replace(view, pos=12, layer=2), LIGHT)
    data = mx.InformationFlowRoutes(pos=12)(zoo, scene.reading.batch).data
    nodes = figure(scene, "routes")["data"][-1]
    places = {(int(layer), int(pos)) for layer, pos in np.argwhere(np.nan_to_num(data["node"].values[0]) > 0)}
    assert set(nodes["customdata"]) == {f"layer={layer}\x1fpos={pos}" for layer, pos in places}
    at = nodes["customdata"].index("layer=2\x1fpos=12")
    assert nodes["marker"]["line"]["color"][at] == LIGHT.accent
    assert nodes["marker"]["color"][at] == pytest.approx(float(data["node"].values[0, 2, 12]) ** 0.5)
    # where tracing takes long, somebody has to ask for it
    monkeypatch.setattr("mechxai.explore.panels.routes._QUICK", 1.0)
    other = panel_context(room, replace(view, pos=9), LIGHT)
    assert answer(other)["facts"]["started"]["routes"]
    assert "not run yet" in str(figure(other, "routes"))
    done(room, PANELS["routes"], other)
    assert figure(other, "routes")["data"][-1]["customdata"]


def test_factors_are_those_of_neurons(room, view, zoo):
    scene = panel_context(room, view, LIGHT)
    data = mx.NeuronFactors(draws=0)(zoo, scene.reading.batch).data
    drawn = figure(scene, "factors")["data"][0]
    np.testing.assert_allclose(drawn["z"], data["activity"].values[0], atol=1e-4)
    neuron = f"m{int(data['neuron_layer'][0, 0, 0])}.n{int(data['neuron'][0, 0, 0])}"
    assert all(neuron in text for text in drawn["hovertext"][0])


def test_a_sweep_that_is_stopped_says_so_and_can_be_run_again(room, view):
    scene = panel_context(room, view, LIGHT)
    panel = PANELS["patching"]
    key = panel.key(scene)
    with room.lock("zoo/ioi"):  # so that it waits
        start(panel, scene)
        room.sweeps.stop(key)
    for _ in range(200):
        if not room.sweeps.get(key).running:
            break
        threading.Event().wait(0.02)
    assert room.sweeps.get(key).error == "stopped"
    assert done(room, panel, scene) is not None


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_every_choice_is_drawn(room, view, palette):
    for color in COLORS:
        shown = figures(panel_context(room, View(prompt=view.prompt, color=color), palette))
        assert set(shown) == {panel.name for panel in ALL}
        assert np.isfinite(np.array(shown["lens"]["data"][0]["z"], float)).all()
    for inputs in INPUTS:
        buttons = answer(panel_context(room, View(prompt=view.prompt, inputs=inputs), palette))["tokens"]
        assert sum(one["chosen"] for one in buttons) == 1
        assert max(abs(one["share"]) for one in buttons) == 1
        assert len(buttons) == panel_context(room, view, palette).reading.n_pos


def test_only_what_changes_is_drawn_again(room, view):
    first = answer(panel_context(room, view, LIGHT))
    again = answer(panel_context(room, view, LIGHT), first["stamps"])
    assert again["panels"] == {}
    assert again["tokens"] is None
    head = answer(panel_context(room, View.of({**vars(view), "head": 3}), LIGHT), first["stamps"])["panels"]
    assert {name for name, one in head.items() if "figure" in one} == {"attention", "sources"}
    (frame,) = head.pop("heads")["shapes"]
    assert (frame["x0"], frame["x1"]) == (2.5, 3.5)
    other = panel_context(room, View.of({**vars(view), "pos": 7}), LIGHT)
    pos = answer(other, first["stamps"])["panels"]
    assert {name for name, one in pos.items() if "shapes" in one} == {"lens", "attention", "factors"}
    assert pos["lens"]["shapes"] == figure(other, "lens")["layout"]["shapes"]


@pytest.mark.parametrize("kind", ["llama", "neox"])
def test_other_architectures_are_shown_too(model_of, kind):
    model = model_of(kind)
    room = ExplorerState({model.name: model}, start=View(prompt="one two three four five six"))
    shown = figures(panel_context(room, room.first(), LIGHT)).values()
    assert all("failed" not in str(one["layout"].get("annotations", "")) for one in shown)


def test_prompts_that_cannot_be_read_are_refused_with_a_word(room, view):
    for prompt, word in (("", "nothing"), ("to " * 100, "tokens")):
        with pytest.raises(ConfigError, match=word):
            panel_context(room, View(prompt=prompt), LIGHT)
    with pytest.raises(ConfigError, match="vocabulary"):
        _ = panel_context(room, View(prompt=view.prompt, answer="Xanthippe"), LIGHT).asked
    with pytest.raises(ConfigError, match="open in this explorer"):
        panel_context(room, View(model="/etc", prompt="a"), LIGHT)
    with pytest.raises(ConfigError, match="corrupted"):
        pair(panel_context(room, View(prompt=view.prompt), LIGHT))


@pytest.mark.parametrize("task", TASKS)
def test_examples_are_texts_that_give_the_tasks_tokens(zoo, task):
    batch = TASKS[task](zoo, n=2, seed=3)
    one = example_of(zoo, batch, 1)
    length = int(batch.lengths[1])
    assert zoo.text.ids(one.prompt) == batch.clean[1, :length].tolist()
    assert zoo.text.bare_ids(one.answer) == [int(batch.answers[1, 0, 0])]


def test_long_prompts_are_shown_a_page_at_a_time(zoo):
    room = ExplorerState({"zoo/ioi": zoo})
    prompt = " ".join(["the"] * 60)
    near, far = (panel_context(room, View(prompt=prompt, pos=pos), LIGHT) for pos in (2, 58))
    assert near.places == range(WIDEST)
    assert far.places == range(near.reading.n_pos - WIDEST, near.reading.n_pos)
    assert 58 in far.places


def test_a_click_on_what_the_answer_is_set_against_asks_about_it(room, view):
    scene = panel_context(room, view, LIGHT)
    clicks = figure(scene, "next")["data"][0]["customdata"]
    names = [one.split("\x1f")[0].removeprefix("answer=") for one in clicks]
    assert f"answer={view.wrong}\x1fwrong=" in clicks
    for name in names:
        after = {"answer": name} | ({"wrong": ""} if name == view.wrong else {})
        asked = panel_context(room, View.of({**vars(view), **after}), LIGHT).asked
        assert scene.reading.name_of(asked.answer) == name


def test_every_token_has_a_name_that_finds_it(room, view, zoo):
    reading = panel_context(room, view, LIGHT).reading
    for token in range(zoo.architecture.d_vocab):
        assert reading.asked(3, reading.name_of(token), "").answer == token


def test_a_masked_model_is_asked_at_its_mask(checkpoint):
    model = mx.load(str(checkpoint("bert")), device="cpu")
    room = ExplorerState({"bert": model})
    scene = panel_context(room, room.first(), LIGHT)
    assert scene.view.pos == scene.reading.end
    assert scene.reading.tokens[scene.view.pos] == model.text.tokenizer.mask_token
    shown = answer(scene)
    assert shown["panels"]["lens"]["figure"]["data"]
    assert len(shown["tokens"]) == scene.reading.n_pos


def test_what_cannot_be_had_is_tried_once(model_of):
    model = model_of("gpt2")
    reading = panel_context(ExplorerState({"m": model}), View(prompt="one two"), LIGHT).reading
    tried = []

    def fails():
        tried.append(1)
        raise ConfigError("no")

    for _ in range(3):
        with pytest.raises(ConfigError):
            reading.once("key", fails)
    assert tried == [1]


@pytest.mark.parametrize("name", zoo_language_models())
def test_every_panel_can_be_drawn_of_every_bundled_model(name):
    room = ExplorerState({name: mx.load(name, device="cpu")})
    view = room.first()
    scene = panel_context(room, view, LIGHT)
    if view.corrupted:
        for panel in SWEEPS:
            if panel.paired:
                done(room, panel, scene)
    for inputs in INPUTS:
        shown = answer(panel_context(room, replace(view, inputs=inputs), LIGHT))
        assert "this panel failed" not in json.dumps(shown["panels"])
        assert len(shown["tokens"]) == scene.reading.n_pos
