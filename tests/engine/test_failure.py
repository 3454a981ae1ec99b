"""Failures of a sweep: out of memory, a wrong level, an interruption, a damaged file, a full disk."""

import logging
import stat
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import mechxai as mx
from mechxai.core.edit import AddNoise, Intervention, Steer
from mechxai.core.errors import NoSpaceError, NumericsError
from mechxai.core.metric import as_metric
from mechxai.engine import run as running
from mechxai.engine import run_part
from mechxai.engine.affected_range import NEVER
from mechxai.engine.checkpoint import TENSOR, CheckpointStore
from mechxai.engine.execution import LEVEL_NAMES
from mechxai.engine.run import run_sweep
from mechxai.engine.sweep import Sweep
from mechxai.model.dense import check as dense_check
from mechxai.model.dense.check import equivalence_check

SWEEP = mx.ActivationPatching("z", ("layer", "head"))


@pytest.fixture
def model(model_of):
    """A model that no other test's self-check has spoken for."""
    return replace(model_of("gpt2"))


def values(result):
    return result.data["per_example"].values


def shares_memory(tensor, other):
    storage = tensor.untyped_storage().data_ptr()
    return isinstance(other, torch.Tensor) and other.untyped_storage().data_ptr() == storage


class SmallDevice(TorchDispatchMode):
    """A device that holds no tensor of more than ``limit`` numbers: what makes a larger one runs out of memory."""

    def __init__(self, limit):
        super().__init__()
        self.limit, self.refused = limit, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        fresh = isinstance(out, torch.Tensor) and not any(shares_memory(out, one) for one in args)
        if fresh and out.numel() > self.limit:
            self.refused += 1
            raise torch.cuda.OutOfMemoryError("CUDA out of memory (not really)")
        return out


@pytest.mark.parametrize("engine", LEVEL_NAMES)
@pytest.mark.parametrize("limit", [9500, *(pytest.param(one, marks=pytest.mark.slow) for one in (4600, 26200))])
def test_out_of_memory_halves_the_wave_and_gives_the_same_values(model, pairs, engine, limit):
    """The whole run: runs, waves, check and baselines. The narrowest device holds one row of nine positions."""
    batch, execution = pairs(model, n=3), mx.Execution(engine)
    plenty = SWEEP(model, batch, execution=execution)
    weights = max(parameter.numel() for parameter in model.inner.parameters())  # these are not to be copied
    with SmallDevice(max(limit, weights)) as device:
        scarce = SWEEP(model, batch, execution=execution)
        largest = mx.Execution(engine, tokens_per_wave=10**6)
        again = SWEEP(replace(model), pairs(model, n=8), execution=largest)
    np.testing.assert_allclose(values(scarce), values(plenty), atol=2e-5)
    np.testing.assert_allclose(values(again), values(SWEEP(model, pairs(model, n=8), execution=largest)), atol=2e-5)
    assert device.refused or limit > 9500


@pytest.mark.parametrize("engine", LEVEL_NAMES)
def test_one_row_too_large_is_refused(model, pairs, engine):
    SWEEP(model, pairs(model), execution=mx.Execution(engine))
    what = "One cell on one prompt|The unedited runs"
    with SmallDevice(500), pytest.raises(NoSpaceError, match=f"({what}).*out of memory on cpu.*(shorter|smaller)"):
        SWEEP(model, pairs(model), execution=mx.Execution(engine))


# The self-check -------------------------------------------------------------------------------------------------------


def with_level(monkeypatch, level, function):
    changed = list(run_part.LEVELS)
    changed[level] = function
    monkeypatch.setattr(run_part, "LEVELS", tuple(changed))


FLAWS = {
    "offset": lambda found: found + 0.01,
    "swapped": lambda found: found.flip(0),
    "nan": lambda found: found * torch.nan,
    "one cell": lambda found: torch.cat([found[:1] + 0.5, found[1:]]),
}


@pytest.mark.parametrize("level", [1, 2, 3, 4])
@pytest.mark.parametrize("flaw", FLAWS)
def test_a_broken_level_is_caught_and_the_next_one_used(model, pairs, monkeypatch, caplog, flaw, level):
    batch, sound = pairs(model), run_part.LEVELS[level]
    right = SWEEP(model, batch, execution=mx.Execution("hooked"))
    with_level(monkeypatch, level, lambda chunk, wave: FLAWS[flaw](sound(chunk, wave)))
    with caplog.at_level(logging.WARNING, "mechxai.engine"):
        result = SWEEP(model, batch, execution=mx.Execution(LEVEL_NAMES[level]))
    assert int(result.data["level"]) == level - 1
    np.testing.assert_allclose(values(result), values(right), atol=1e-5)
    (record,) = caplog.records
    assert f"level {level} ({LEVEL_NAMES[level]}) differs from level 0 by" in record.getMessage()
    assert record.getMessage().endswith(f"on gpt2; using level {level - 1}")


def test_a_level_that_fails_short_prompts_only_is_caught_wherever_they_are(model, pairs, monkeypatch, caplog):
    """And though the level has been trusted on prompts of one length before."""
    sound = run_part.LEVELS[4]

    def flawed(chunk, wave):
        lengths = chunk.batch.lengths[[prompt - chunk.prompts.start for prompt in wave.prompts]]
        return sound(chunk, wave) + 0.1 * (lengths < chunk.batch.n_pos)

    with_level(monkeypatch, 4, flawed)
    assert int(SWEEP(model, pairs(model)).data["level"]) == 4
    batch = pairs(model, n=4, first=3, lengths=[9, 9, 9, 6])
    result = SWEEP(model, batch)
    assert int(result.data["level"]) == 3
    assert "level 4 (fused) differs" in caplog.text
    np.testing.assert_allclose(values(result), values(SWEEP(model, batch, execution=mx.Execution("hooked"))), atol=1e-5)


def swap_heads(weight):
    return torch.cat([weight[:, 16:32], weight[:, :16], weight[:, 32:]], 1)


# Mutations of the plain blocks, each a mistake one could really make.
def with_attention(block, **parts):
    return replace(block, attention=replace(block.attention, **parts))


def with_weight(affine, weight):
    return replace(affine, weight=weight)


MUTATIONS = {
    "scale": lambda block: with_attention(
        block, rule=replace(block.attention.rule, scale=block.attention.rule.scale * 1.02)
    ),
    "window": lambda block: with_attention(block, rule=replace(block.attention.rule, window=3)),
    "softcap": lambda block: with_attention(block, rule=replace(block.attention.rule, softcap=1.0)),
    "sinks": lambda block: with_attention(block, rule=replace(block.attention.rule, sinks=torch.zeros(4))),
    "slopes": lambda block: with_attention(block, rule=replace(block.attention.rule, slopes=torch.full((4,), 0.1))),
    "activation": lambda block: replace(block, mlp=replace(block.mlp, activation=torch.relu)),
    "norm": lambda block: replace(block, norm2=replace(block.norm2, eps=1e-2)),
    "post norm": lambda block: replace(block, post1=replace(block.norm2)),
    "bias": lambda block: with_attention(block, o=replace(block.attention.o, bias=None)),
    "heads": lambda block: with_attention(
        block, q=with_weight(block.attention.q, swap_heads(block.attention.q.weight))
    ),
    "transposed": lambda block: with_attention(block, o=with_weight(block.attention.o, block.attention.o.weight.T)),
    "parallel": lambda block: replace(block, parallel=True),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_wrong_plain_blocks_are_caught(model, pairs, monkeypatch, caplog, mutation):
    sound = equivalence_check(model.backend)
    first, second, third = sound.dense.blocks
    wrong = replace(sound.dense, blocks=[first, MUTATIONS[mutation](second), third])
    monkeypatch.setattr(dense_check._entries[model.backend], "check", replace(sound, dense=wrong))
    batch = pairs(model)  # the check still vouches for the blocks; the oracle of the engine must not use them
    result = SWEEP(model, batch)
    assert int(result.data["level"]) == 3
    assert "level 4 (fused)" in caplog.text
    np.testing.assert_allclose(values(result), values(SWEEP(model, batch, execution=mx.Execution("hooked"))), atol=1e-5)


def test_wrong_ideas_of_what_has_no_effect_are_caught(model, pairs, monkeypatch, caplog):
    """The cells that a plan leaves out are checked as well."""
    from mechxai.engine import plan as planning

    sound = planning.affected_range

    def blind(sweep, n_layers):
        found = sound(sweep, n_layers)
        never = np.full((1, found.starts.shape[1]), NEVER)
        kinds = np.where(found.entry > 0, found.kind, len(found.starts))
        return replace(
            found, kind=kinds, starts=np.vstack([found.starts, never]), stops=np.vstack([found.stops, never])
        )

    monkeypatch.setattr(planning, "affected_range", blind)
    result = SWEEP(model, pairs(model))
    assert int(result.data["level"]) == 1, "every level that leaves them out is wrong"
    assert caplog.text.count("differs from level 0") == 3


def test_a_level_that_raises_is_dropped(model, pairs, monkeypatch, caplog):
    def raising(chunk, wave):
        raise AttributeError("no such thing on this model")

    with_level(monkeypatch, 4, raising)
    assert int(SWEEP(model, pairs(model)).data["level"]) == 3
    assert "level 4 (fused) failed (AttributeError: no such thing on this model)" in caplog.text


def test_a_sound_level_is_checked_once(model, pairs, monkeypatch, caplog):
    calls, sound = [], run_part.LEVELS[4]
    with_level(monkeypatch, 4, lambda chunk, wave: calls.append(1) or sound(chunk, wave))
    with caplog.at_level(logging.WARNING, "mechxai.engine"):
        for _ in range(3):
            assert int(SWEEP(model, pairs(model)).data["level"]) == 4
    assert len(calls) == 1 + 3, "one check, and one wave for each of the three sweeps"
    mx.ActivationPatching("resid_pre")(model, pairs(model))
    assert len(calls) == 1 + 3 + 1 + 1, "another site is another check"
    assert not caplog.records


def test_the_noise_floor_is_small_and_not_negative(model, pairs):
    floor = float(SWEEP(model, pairs(model)).data["noise_floor"])
    assert 0 <= floor < 1e-5


# Finished waves -------------------------------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch):
    """Counts what is computed (runs of chunks, and waves), and stops after ``counted["limit"]``."""
    count = {"n": 0, "limit": 10**9}
    sound = running.work_items

    def counting(*arguments):
        for item in sound(*arguments):

            def compute(item=item):
                if count["n"] >= count["limit"]:
                    raise KeyboardInterrupt
                count["n"] += 1
                return item.compute()

            yield replace(item, compute=compute)

    monkeypatch.setattr(running, "work_items", counting)
    return count


def kept_in(folder, **settings):
    return mx.Execution(cells=folder, tokens_per_wave=45, **settings)


def test_an_interrupted_sweep_goes_on_where_it_stopped(model, pairs, tmp_path, counted):
    batch = pairs(model, n=4)
    whole = SWEEP(model, batch, execution=kept_in(tmp_path / "whole"))
    n_waves = counted["n"]
    assert n_waves > 4
    counted.update(n=0, limit=3)
    with pytest.raises(KeyboardInterrupt):
        SWEEP(model, batch, execution=kept_in(tmp_path / "cells"))
    assert len(list((tmp_path / "cells").iterdir())) == 3
    counted.update(n=0, limit=10**9)
    resumed = SWEEP(model, batch, execution=kept_in(tmp_path / "cells"))
    assert counted["n"] == n_waves - 3
    np.testing.assert_array_equal(values(resumed), values(whole))
    assert resumed.info.cost["cells_reused"] > 0
    assert whole.info.cost["cells_reused"] == 0
    counted["n"] = 0
    again = SWEEP(model, batch, execution=kept_in(tmp_path / "cells"))
    assert counted["n"] == 0
    assert again.info.cost["cells_reused"] == again.info.cost["cells"]
    np.testing.assert_array_equal(values(again), values(whole))


@pytest.mark.parametrize("damage", ["cut", "empty", "noise"])
def test_a_damaged_wave_is_computed_again(model, pairs, tmp_path, counted, caplog, damage):
    batch = pairs(model)
    first = SWEEP(model, batch, execution=kept_in(tmp_path))
    victim = sorted(tmp_path.iterdir())[1]
    whole = victim.read_bytes()
    victim.write_bytes({"cut": whole[:-20], "empty": b"", "noise": b"\xff" * len(whole)}[damage])
    counted["n"] = 0
    with caplog.at_level(logging.WARNING, "mechxai.engine"):
        second = SWEEP(model, batch, execution=kept_in(tmp_path))
    assert counted["n"] == 1
    assert f"{victim.name} cannot be read" in caplog.text
    np.testing.assert_array_equal(values(second), values(first))
    assert victim.is_file()


def test_waves_of_another_question_are_not_read(model, model_of, pairs, tmp_path, counted):
    batch = pairs(model)
    SWEEP(model, batch, execution=kept_in(tmp_path))
    n_waves = counted["n"]
    for asked, other, rows in (
        (SWEEP, model, pairs(model, seed=1)),
        (replace(SWEEP, metric="prob"), model, batch),
        (replace(SWEEP, direction="noise"), model, batch),
        (SWEEP, model_of("gpt2", "auto", "raw"), batch),
    ):
        counted["n"] = 0
        fresh = asked(other, rows, execution=kept_in(tmp_path))
        assert counted["n"] == n_waves
        np.testing.assert_array_equal(
            values(fresh), values(asked(other, rows, execution=mx.Execution(tokens_per_wave=45)))
        )


def test_a_file_under_the_right_name_with_another_key_is_not_read(tmp_path):
    store = CheckpointStore(tmp_path, "a" * 12 + "one", TENSOR)
    store.save(0, torch.ones(2, 3))
    assert torch.equal(store.load(0), torch.ones(2, 3))
    assert CheckpointStore(tmp_path, "a" * 12 + "two", TENSOR).load(0) is None
    assert store.load(1) is None


def steered(batch, vector):
    return Sweep(batch, "clean", [(Intervention(mx.Site("resid_pre", 1), Steer(vector)),)], as_metric("logit_diff"))


def test_the_key_knows_everything_that_decides_the_values(model, pairs):
    batch = pairs(model, n=3)
    noise = AddNoise(1.0, 0, torch.ones(3, 9, dtype=torch.bool))
    cell = (Intervention(mx.Site("embed"), noise),)
    other_noise = (Intervention(mx.Site("embed"), replace(noise, where=~noise.where)),)
    by_role = (Intervention(mx.Site("z", 0, pos="S"), mx.ZeroAblate()),)
    metric = as_metric("logit_diff")
    with_role, elsewhere = (replace(batch, roles={"S": torch.full((3,), place)}) for place in (1, 2))
    reached = [
        steered(batch, torch.ones(64)),
        steered(batch, torch.zeros(64)),
        Sweep(batch, "clean", [cell], metric),
        Sweep(batch, "clean", [other_noise], metric),
        Sweep(with_role, "clean", [by_role], metric),
        Sweep(elsewhere, "clean", [by_role], metric),
        Sweep(replace(batch, answer_pos=batch.answer_pos - 1), "clean", [cell], metric),
    ]
    digests = [sweep.digest() for sweep in reached]
    assert digests == [sweep.digest() for sweep in reached]
    assert len(set(digests)) == len(digests), [digests.index(one) for one in digests]


@pytest.mark.parametrize("change", [{"reference": "corrupted"}, {"per_position": True}, {"edit": "zero"}])
def test_an_ablation_does_not_take_up_another_ones_waves(model, pairs, tmp_path, counted, change):
    batch, first = pairs(model, n=3), mx.Ablation("z", edit="mean")
    first(model, batch, execution=kept_in(tmp_path))
    n_waves = counted["n"]
    counted["n"] = 0
    second = replace(first, **change)
    found = second(model, batch, execution=kept_in(tmp_path))
    assert counted["n"] == n_waves
    np.testing.assert_allclose(values(found), values(second(model, batch)), atol=1e-5)


def test_a_folder_that_cannot_be_written_costs_only_the_saving(model, pairs, tmp_path, caplog):
    batch, plain = pairs(model), None
    plain = SWEEP(model, batch, execution=mx.Execution(tokens_per_wave=45))
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING, "mechxai.engine"):
        result = SWEEP(model, batch, execution=kept_in(tmp_path / "file" / "cells"))
    np.testing.assert_array_equal(values(result), values(plain))
    assert any("finished cells could not be kept on disk" in note for note in result.info.notes)
    assert len([record for record in caplog.records if "cannot be kept" in record.getMessage()]) == 1
    assert stat.S_ISREG((tmp_path / "file").stat().st_mode)


def test_a_disk_that_fills_up_costs_only_the_saving(model, pairs, tmp_path, monkeypatch):
    from mechxai.engine import checkpoint as wave_store

    batch = pairs(model)
    plain = SWEEP(model, batch, execution=mx.Execution(tokens_per_wave=45))

    def full(tensors, path, **_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(wave_store, "save_file", full)
    result = SWEEP(model, batch, execution=kept_in(tmp_path))
    np.testing.assert_array_equal(values(result), values(plain))
    assert any("No space left" in note for note in result.info.notes)
    assert not list(tmp_path.iterdir())


def test_an_empty_sweep_gives_nothing(model, pairs):
    outcome = run_sweep(model, Sweep(pairs(model), "clean", [], as_metric("logit_diff")), mx.Execution())
    assert outcome.values.shape == (0, 2)


def test_a_metric_that_is_no_number_is_said_once(model, pairs, caplog):
    def broken(logits, batch):
        return logits[:, -1, 0] * torch.nan

    with pytest.raises(NumericsError):
        mx.ActivationPatching("resid_pre", metric=broken)(model, pairs(model))
    assert not [record for record in caplog.records if "differs from level 0" in record.getMessage()]
