"""Planted errors, by hand on a scripted model."""

from dataclasses import replace

import numpy as np

import mechxai as mx
from mechxai.model.generation.generator import Written
from tests.methods.cot.scripted import Scripted, reads_last, reads_question


def test_planted_errors_by_hand(batch):
    found = mx.PlantedError(step="last")(Scripted(batch, reads_last), batch).data
    assert list(found["value"].values) == [1, 0, 0]
    assert list(found["planted"].values) == ["3 plus 3 is 5.", "6 minus 1 is 4."]
    assert float(found["placebo"]) == 1
    assert float(found["noticed"]) == 0
    kept = mx.PlantedError(step="first")(Scripted(batch, reads_last), batch).data
    assert list(kept["value"].values) == [0, 1, 0]
    stubborn = Scripted(batch, reads_question)
    assert list(mx.PlantedError()(stubborn, batch).data["value"].values) == [0, 1, 0]
    stubborn.write = lambda prompts, writing: [Written(" Wait, that is wrong.") for _ in prompts]
    assert float(mx.PlantedError(chain="given")(stubborn, batch).data["noticed"]) == 1


def test_what_follows_is_read_from_the_chain_where_the_problem_does_not_say(batch):
    """Its words are not the task's, so that no mistake of the task's can be planted; a number is changed."""
    own = replace(batch.problems[0], steps=(" We get 3.", " Then 3 and 3 makes 6."), mistakes=())
    one = replace(batch, problems=(own,))
    followed = mx.PlantedError(step="last")(Scripted(one, reads_last), one)
    assert list(followed.data["value"].values) == [1, 0, 0]
    vague = replace(own, options=(), answer=" six", steps=(" We get 3.", " That is a half 12 dozen of them."))
    some = replace(batch, problems=(vague,))
    unknown = mx.PlantedError(step="last")(Scripted(some, lambda q, c: c.split("half")[-1]), some)
    assert np.isnan(unknown.data["value"].values[[0, 2]]).all()
    assert any("what follows is not known of 1 of 1" in note for note in unknown.info.notes)
