"""``mechxai explore``: what it opens, and what it refuses before anything is served."""

import pytest

import mechxai as mx
from mechxai.cli import main
from mechxai.core.errors import ConfigError
from mechxai.explore.drawing import drawing
from mechxai.explore.palette import LIGHT
from mechxai.explore.scene import scene_of
from mechxai.launch.explore_command import explore, room_of


def test_help_teaches(capsys):
    assert main(["explore", "--help"]) == 0
    assert "mechxai explore run=RUN" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["modle=gpt2"], "model"), (["gpt2"], "NAME=VALUE"), (["port=x"], "port"), (["run=a", "model=b"], "together")],
)
def test_what_cannot_be_opened_is_refused(arguments, word):
    with pytest.raises(ConfigError, match=word):
        explore(arguments)


def test_a_model_opens_with_an_example_of_its_task():
    room = room_of({"model": "zoo/planted-ioi", "device": "cpu"})
    assert next(iter(room.models)) == "zoo/planted-ioi"
    assert "zoo/sentiment" not in room.models
    assert room.first().answer
    assert drawing(scene_of(room, room.first(), LIGHT)).figures["lens"]["data"]


def test_a_run_opens_with_its_model_its_prompt_and_its_result(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["debug=tiny", "model=zoo/handmade-ioi", "task.template=0", "task.order=abba", "model.device=cpu"]
    assert main(["run", *asked, "method.site=z", "method.over=[layer,head]"]) == 0
    (folder,) = (tmp_path / "outputs/debug/run/zoo-handmade-ioi").iterdir()
    for name in (str(folder), folder.name[-10:]):
        room = room_of({"run": name})
        batch = mx.tasks.ioi(mx.load("zoo/handmade-ioi"), n=1, template=0, order="abba")
        assert scene_of(room, room.first(), LIGHT).reading.tokens == batch.strings[0]
        (result,) = room.results.values()
        assert result.data["recovered"].dims == ("layer", "head")
