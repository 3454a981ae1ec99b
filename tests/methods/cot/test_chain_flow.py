"""The flow of the answer through steps, on two models whose answer is known to come from one part."""

from collections import Counter

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.core.edit import Intervention, Patch
from mechxai.core.errors import ConfigError, ModelSupportError
from mechxai.core.site import Site
from tests.methods.cot.scripted import Scripted, reads_last


@pytest.mark.parametrize("direction", ["noise", pytest.param("denoise", marks=pytest.mark.slow)])
def test_the_answer_flows_through_the_last_step_or_past_all_of_them(known, direction):
    model, batch, drives = known
    result = mx.ChainFlow(direction, by_layer=False)(model, batch)
    flow = result.data["recovered"].to_series()
    last = [part for part in flow.index if part.startswith("STEP")][-1]
    where, elsewhere = (last, "QUESTION") if drives else ("QUESTION", last)
    assert flow[where] > 0.8
    assert abs(flow[elsewhere]) < 0.2
    assert float(result.data["recovered_low"].sel(part=where)) > 0.5
    assert result.data["text"].values[0, 0] == result_question(batch)


def result_question(batch):
    common = Counter(len(one.steps) for one in batch.problems).most_common(1)[0][0]
    return next(one.question for one in batch.problems if len(one.steps) == common)


def test_flow_equals_edits_by_hand_and_level_0(known):
    model, batch, _ = known
    pairs, layers = batch.pairs.rows(torch.arange(2)), range(model.architecture.n_layers)
    found = mx.ChainFlow()(model, pairs)
    slow = mx.ChainFlow()(model, pairs, execution=mx.Execution("hooked"))
    np.testing.assert_allclose(found.data["per_example"], slow.data["per_example"], atol=2e-3)
    np.testing.assert_allclose(found.data["flow"], slow.data["flow"], atol=2e-3)
    for row in range(2):
        one = pairs.rows(torch.tensor([row]))
        acts = model.cache(one.corrupted, ["resid_pre"], lengths=one.lengths)
        places = range(int(one.roles["STEP2_first"][0]), int(one.roles["STEP2"][0]) + 1)
        edits = [Intervention(Site("resid_pre", layer, pos=place), Patch(acts)) for layer in layers for place in places]
        logits = model.logits(one.clean, lengths=one.lengths, at=one.answer_pos[:, None], interventions=edits)[0, 0]
        by_hand = float(logits[one.answers[0, 0, 0]] - logits[one.wrong[0, 0, 0]])
        assert float(found.data["per_example"].sel(prompt=row, part="STEP2")) == pytest.approx(by_hand, abs=2e-3)


def test_flow_needs_a_model_that_opens_and_pairs_with_spans(known, batch):
    model, own, _ = known
    with pytest.raises(ModelSupportError, match="can be patched"):
        mx.ChainFlow()(Scripted(batch, reads_last), own)
    with pytest.raises(ConfigError, match="makes them"):
        mx.ChainFlow()(model, batch)
    bare = mx.ContrastBatch.from_prompts(model, ["Tom has 4"], ["Tom has 5"], [" coins"], [" miles"])
    with pytest.raises(ConfigError, match="spans"):
        mx.ChainFlow()(model, bare)
