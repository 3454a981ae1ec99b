"""Shards: each process computes its waves, the last one merges them, and the result equals an unsharded run."""

import numpy as np
import pytest

import mechxai as mx
from mechxai.core.errors import ConfigError, UnfinishedError

SWEEP = mx.ActivationPatching("z", ("layer", "pos", "head"))


def execution(folder, shard=None):
    return mx.Execution(tokens_per_wave=40, cells=folder, shard=shard)


@pytest.mark.parametrize("engine_level", [4])
def test_shards_make_the_whole(model_of, pairs, tmp_path, engine_level):
    model = model_of("gpt2")
    batch = pairs(model, n=3)
    whole = SWEEP(model, batch, execution=execution(tmp_path / "whole"))
    assert int(whole.data["level"]) == engine_level
    for index in range(3):
        if index < 2:
            with pytest.raises(UnfinishedError, match=rf"Shard {index}/3 of patching z is done.*left to other"):
                SWEEP(model, batch, execution=execution(tmp_path / "cells", (index, 3)))
    last = SWEEP(model, batch, execution=execution(tmp_path / "cells", (2, 3)))  # finds the others' waves
    gathered = SWEEP(model, batch, execution=execution(tmp_path / "cells"))
    assert (
        gathered.info.cost["cells_reused"] == gathered.info.cost["cells"] - gathered.info.cost["cells_without_effect"]
    )
    for result in (last, gathered):
        np.testing.assert_array_equal(result.data["per_example"].values, whole.data["per_example"].values)
        np.testing.assert_array_equal(result.data["baseline_clean"].values, whole.data["baseline_clean"].values)


def test_a_shard_does_its_share_of_every_noise_draw(model_of, pairs, tmp_path):
    import torch

    model = model_of("gpt2")
    batch = pairs(model)
    batch = mx.ContrastBatch.from_tokens(
        batch.clean, batch.corrupted, batch.answers, batch.wrong, roles={"SUBJECT": torch.tensor([3, 3])}
    )
    trace = mx.CausalTracing(n_noise=2)
    with pytest.raises(UnfinishedError):
        trace(model, batch, execution=execution(tmp_path, (0, 2)))
    trace(model, batch, execution=execution(tmp_path, (1, 2)))
    gathered = trace(model, batch, execution=execution(tmp_path))
    np.testing.assert_array_equal(
        gathered.data["per_example"].values,
        trace(model, batch, execution=mx.Execution(tokens_per_wave=40)).data["per_example"].values,
    )


def test_a_shard_does_its_share_of_both_directions(model_of, pairs, tmp_path):
    model = model_of("gpt2")
    batch = pairs(model)
    for index in (0, 1):
        try:
            mx.HeadRoles()(model, batch, execution=execution(tmp_path, (index, 2)))
        except UnfinishedError:
            assert index == 0
    gathered = mx.HeadRoles()(model, batch, execution=execution(tmp_path))
    cost = gathered.info.cost
    assert cost["cells_reused"] == cost["cells"] - cost["cells_without_effect"]
    whole = mx.HeadRoles()(model, batch, execution=mx.Execution(tokens_per_wave=40))
    for name in ("effect", "effect_noise"):
        np.testing.assert_array_equal(gathered.data[name].values, whole.data[name].values)


@pytest.mark.parametrize(
    ("shard", "cells", "reason"),
    [((2, 2), True, "0/2 to 1/2"), ((-1, 2), True, "0/2"), ((0, 2), False, "no cells folder")],
)
def test_refused(tmp_path, shard, cells, reason):
    with pytest.raises(ConfigError, match=reason):
        mx.Execution(shard=shard, cells=tmp_path if cells else None)
