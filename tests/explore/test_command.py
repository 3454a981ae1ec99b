"""``mechxai explore``: the settings it accepts, and the errors it raises before the server starts."""

from dataclasses import replace

import numpy as np
import pytest

import mechxai as mx
from mechxai.cli import main
from mechxai.cli.explore import explorer_state
from mechxai.cli.explore import main as explore
from mechxai.core.errors import ConfigError
from mechxai.explore.commands import commands
from mechxai.explore.palette import LIGHT
from mechxai.explore.panel_answers import answer
from mechxai.explore.panel_context import panel_context


def test_help_teaches(capsys):
    assert main(["explore", "--help"]) == 0
    assert "mechxai explore run=RUN" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["modle=gpt2"], "model"),
        (["gpt2"], "NAME=VALUE"),
        (["port=x"], "port"),
        (["run=a", "model=b"], "cannot be given together"),
    ],
)
def test_what_cannot_be_opened_is_refused(arguments, word):
    with pytest.raises(ConfigError, match=word):
        explore(arguments)


def test_a_model_opens_with_an_example_of_its_task():
    state = explorer_state({"model": "zoo/planted-ioi", "device": "cpu"})
    assert next(iter(state.models)) == "zoo/planted-ioi"
    assert "zoo/sentiment" not in state.models
    assert state.first_view().answer
    assert answer(panel_context(state, state.first_view(), LIGHT))["panels"]["lens"]["figure"]["data"]


def test_a_tuned_lens_is_read_where_there_is_one(tmp_path, zoo):
    lens = mx.TunedLens.identity(zoo)
    state = explorer_state({"model": "zoo/ioi", "device": "cpu", "lens": str(lens.save(tmp_path / "lens"))})
    view = state.first_view()
    logit, tuned = (panel_context(state, replace(view, lens=name), LIGHT) for name in ("logit", "tuned"))
    a, b = (answer(one)["panels"]["lens"]["figure"]["data"][0]["z"] for one in (logit, tuned))
    np.testing.assert_allclose(a, b, atol=1e-5, err_msg="an identity lens is the logit lens")
    assert "method=tuned_lens" in commands(tuned)
    assert f"lens={tmp_path / 'lens'}" in commands(tuned)
    without = panel_context(explorer_state({"device": "cpu"}), view, LIGHT).analysis
    with pytest.raises(ConfigError, match="lens=FOLDER"):
        without.lens("tuned", [0], 1)


def test_a_run_opens_with_its_model_its_prompt_and_its_result(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["debug=tiny", "model=zoo/handmade-ioi", "task.template=0", "task.order=abba", "model.device=cpu"]
    assert main(["run", *asked, "method.site=z", "method.over=[layer,head]"]) == 0
    (folder,) = (tmp_path / "outputs/debug/run/zoo-handmade-ioi").iterdir()
    for name in (str(folder), folder.name[-10:]):
        state = explorer_state({"run": name})
        batch = mx.tasks.ioi(mx.load("zoo/handmade-ioi"), n=1, template=0, order="abba")
        assert panel_context(state, state.first_view(), LIGHT).analysis.tokens == batch.strings[0]
        (result,) = state.results.values()
        assert result.data["recovered"].dims == ("layer", "head")
