"""A run against an endpoint: like any other, found when finished, and asking nothing twice."""

import pytest

from mechxai.cli import main
from mechxai.core.result import Result
from tests.serving import serving

TEXT = "When Mary and John went to the store, John gave a drink to"


@pytest.fixture
def command(zoo):
    with serving(zoo) as server:
        yield (
            server,
            [
                "run",
                "name=asked",
                "tracker=none",
                "figure=html",
                "model=endpoint",
                f"model.connection.base_url={server.url}",
                'model.outputs=[" Mary"," John"]',
                "task=prompts",
                f'task.texts=["{TEXT}"]',
                'task.answers=[" Mary"]',
                'task.wrong=[" John"]',
                "method=occlusion",
                "method.players=word",
            ],
        )


def test_a_run(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    server, arguments = command
    assert main(arguments) == 0
    (path,) = tmp_path.rglob("result.nc")
    data = Result.load(path).data
    assert data["player_name"].values[0, 9] == " John"
    scores = dict(zip(data["player_name"].values[0], data["player_value"].values[0], strict=True))
    assert scores[" Mary"] > 10 > abs(scores[","])
    asked = len(server.seen)
    assert main(arguments) == 0
    assert len(server.seen) == asked, "the run was found"
    assert main([*arguments, "method=exact_shapley", "method.players=span", "force=true"]) == 2
    assert main([*arguments, "method=integrated_gradients"]) == 1
    assert "Use occlusion, lime" in " ".join(capsys.readouterr().err.split())
    assert len(server.seen) == asked, "refused before anything was asked"
    for one in tmp_path.rglob("*"):
        assert one.is_dir() or b"sk-very-secret" not in one.read_bytes()


def test_it_goes_on_after_the_server_fell_over(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    server, arguments = command
    server.faults = [""] * 9 + ["400"]
    assert main([*arguments, "model.connection.at_once=1"]) == 1
    assert len(server.seen) in (10, 11), "one may have been under way"
    assert main(arguments) == 0
    texts = [str(body) for body in server.seen]
    assert len(set(texts)) == len(texts) - 1, "only what failed was asked again"
