"""A classifier goes through a run like any model: folders, figures, report, and found when finished."""

from pathlib import Path

from mechxai.cli import main


def test_attention_against_gradients_on_a_classifier(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    texts = '["Mary gave a drink to John.", "The keys are on the table."]'
    command = [
        "run",
        "experiment=exercise_attention_vs_ig",
        "model=classifier",
        f"model.name={checkpoint('bert-classifier')}",
        "task=prompts",
        f"task.texts={texts}",
        "task.n=null",
        "method.truth=[]",
        "tracker=none",
        "figure=html",
        "method.soft_draws=1",
    ]
    assert main(command) == 0
    (report,) = Path(tmp_path).rglob("report.html")
    assert "Attributions of bert-classifier" in report.read_text()
    assert "attention weights alone" in report.read_text()
    capsys.readouterr()
    assert main(command) == 0
    assert "already finished" in capsys.readouterr().out


def test_methods_that_look_inside_say_what_a_classifier_allows(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["run", "method=activation_patching", "model=classifier", f"model.name={checkpoint('bert-classifier')}"]
    assert main([*command, "task=prompts", 'task.texts=["Mary gave a drink."]', "tracker=none"]) != 0
    shown = capsys.readouterr()
    assert "methods of the family attribution" in " ".join((shown.out + shown.err).split())
