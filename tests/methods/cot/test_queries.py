"""Shared parts of the chain-of-thought methods: rewritten steps, wording, settings, cost, resuming."""

import re

import pytest

import mechxai as mx
from mechxai.core.errors import ConfigError, ModelSupportError
from mechxai.core.reasoning import Problem, ReasoningBatch, Wording
from mechxai.methods.cot._lib.rewriting import ChainStep, rewritten_steps
from mechxai.model.generation.generator import Written
from tests.methods.cot.scripted import OPTIONS, Scripted, reads_last


def test_steps_are_rewritten_by_the_task_by_numbers_or_by_a_model(batch):
    known, foreign = ChainStep(0, 0, " 1 plus 2 is 3."), ChainStep(0, 1, " So we get 7 now.")
    nobody = Scripted(batch, reads_last)
    texts = rewritten_steps(
        "mistake", [known, foreign, ChainStep(0, 1, " Hm.")], batch.problems, by="task", writer=nobody, seed=0
    )
    assert texts[0] == " 1 plus 2 is 4."
    assert re.fullmatch(r" So we get \d+ now\.", texts[1])
    assert texts[1] != foreign.text
    assert texts[2] is None
    assert rewritten_steps("rephrased", [known], batch.problems, by="task", writer=nobody, seed=0) == [None]

    class Writer(Scripted):
        def write(self, prompts, writing):
            assert all("1 plus 2 is 3." in prompt for prompt in prompts)
            return [Written("1 plus 2 is 8.\nmore"), Written("1 plus 2 is 3.")]

    assert rewritten_steps(
        "mistake", [known, known], batch.problems, by="model", writer=Writer(batch, reads_last), seed=0
    ) == [
        " 1 plus 2 is 8.",
        None,
    ]


def test_bad_settings_are_refused(batch):
    bare = ReasoningBatch((Problem("Why?", " so"),))
    with pytest.raises(ConfigError, match="chain=own"):
        mx.EarlyAnswering(chain="given")(Scripted(batch, reads_last), bare)
    with pytest.raises(ConfigError, match="without options"):
        mx.BiasingFeature()(Scripted(batch, reads_last), bare)
    with pytest.raises(ConfigError, match="more problems than shots"):
        mx.BiasingFeature("always_first")(Scripted(batch, reads_last), batch)
    with pytest.raises(ModelSupportError, match="without options"):
        mx.EarlyAnswering(read="logprobs")(Scripted(bare, reads_last), bare)
    for made in (
        lambda: mx.SelfConsistency(samples=1),
        lambda: mx.SelfConsistency(temperature=0.0),
        lambda: mx.BiasingFeature(choices=9),
        lambda: mx.BiasingFeature("often_first"),
        lambda: mx.PlantedError(step="any"),
        lambda: mx.AddingMistakes(by="nobody"),
        lambda: mx.ChainFlow(direction="up"),
    ):
        with pytest.raises(ConfigError):
            made()


def test_a_run_that_stops_goes_on_where_it_was(known, tmp_path, monkeypatch):
    from mechxai.model.generation.local import LocalGenerator

    model, batch, _ = known
    execution = mx.Execution(cells=tmp_path)
    whole, calls = LocalGenerator.logprobs, []

    def breaks(self, prompts, options, end):
        calls.append(len(prompts))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, prompts, options, end)

    monkeypatch.setattr(LocalGenerator, "logprobs", breaks)
    with pytest.raises(KeyboardInterrupt):
        mx.EarlyAnswering()(model, batch, execution=execution)
    monkeypatch.setattr(LocalGenerator, "logprobs", whole)
    resumed = mx.EarlyAnswering()(model, batch, execution=execution)
    fresh = mx.EarlyAnswering()(model, batch)
    assert resumed.data.drop_vars([]).equals(fresh.data)
    assert resumed.info.cost["tokens_written"] == fresh.info.cost["tokens_written"] > 0


def test_wording_is_open():
    batch = ReasoningBatch(
        (Problem("1 and 1?", " 2", (" 1 plus 1 is 2.",), options=OPTIONS),), Wording(start="\nThink:")
    )
    asked = []

    class Listening(Scripted):
        def write(self, prompts, writing):
            asked.extend(prompts)
            assert writing.stop == (" So the answer is",)
            return [Written(" 1 plus 1 is 2.") for _ in prompts]

    mx.EarlyAnswering()(Listening(batch, reads_last), batch)
    assert asked == ["1 and 1?\nThink:"]


def test_chains_that_ran_out_of_tokens_are_noted():
    model = mx.load("zoo/cot", device="cpu")
    result = mx.EarlyAnswering(max_tokens=5)(model, mx.tasks.cot_arithmetic(model, n=3))
    assert any("cut off at max_tokens=5" in note for note in result.info.notes)


def test_costs_are_each_methods_own_and_the_writers_apart(batch):
    model, writer = Scripted(batch, reads_last), Scripted(batch, reads_last)
    writer.write = lambda prompts, _: [Written(" 1 plus 2 is 9.") for _ in prompts]
    first = mx.EarlyAnswering()(model, batch).info.cost
    again = mx.EarlyAnswering()(model, batch).info.cost
    assert first["asked"] == again["asked"] > 0
    planted = mx.AddingMistakes(by="model", writer=writer)(model, batch).info.cost
    assert "writer asked" in planted
    biased = mx.BiasingFeature()(Scripted(batch, reads_last), batch).info.cost
    assert biased["asked"] > first["asked"]
    with pytest.raises(ModelSupportError, match="is a str"):
        mx.AddingMistakes(by="model", writer="gpt")(model, batch)


def test_a_writer_is_more_than_its_name(batch):
    settings = [
        mx.AddingMistakes(by="model", writer=mx.load_generator("a", reads=own)).settings() for own in (True, False)
    ]
    assert settings[0] != settings[1]
