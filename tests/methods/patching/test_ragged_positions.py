"""Sweeps over positions that some prompts lack say over how many prompts each number is."""

import numpy as np

import mechxai as mx

LENGTHS = [9, 5, 7]


def test_the_prompts_that_have_each_position_are_counted(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=3, lengths=LENGTHS, first=2)
    result = mx.ActivationPatching("resid_pre", ("layer", "pos"))(model, batch)
    counts = result.data["n_prompts"]
    assert counts.dims == ("layer", "pos")
    expected = [sum(length > pos for length in LENGTHS) for pos in range(9)]
    np.testing.assert_array_equal(counts.values, [expected] * 3)
    assert any("1 of 3 prompts" in note for note in result.info.notes)
    corrupted = result.data["baseline_corrupted"].values
    np.testing.assert_allclose(result.data["per_example"].values[1, :, 5:], corrupted[1], atol=1e-6)


def test_positions_from_the_end_may_be_missing_too(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=3, lengths=LENGTHS, first=2)
    data = mx.Ablation("mlp_out", ("pos", "layer"), edit="zero", pos=(-1, -6))(model, batch).data
    np.testing.assert_array_equal(data["n_prompts"].values, [[3] * 3, [2] * 3])


def test_equal_lengths_need_no_count(model_of, pairs):
    model = model_of("gpt2")
    assert "n_prompts" not in mx.ActivationPatching("resid_pre", ("layer", "pos"))(model, pairs(model)).data
    ragged = pairs(model, n=3, lengths=LENGTHS)
    assert "n_prompts" not in mx.ActivationPatching("z", ("layer", "head"))(model, ragged).data
