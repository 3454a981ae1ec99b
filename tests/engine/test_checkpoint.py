"""Checkpoints of every kind: what is loaded is what was saved, and faults of the disk never stop a run."""

import logging
import random

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.core.pieces import JsonLines
from mechxai.engine import checkpoint
from mechxai.engine.checkpoint import ARRAYS, TENSOR, TENSORS, CheckpointStore

TENSOR_VALUES = [
    torch.arange(6.0).view(2, 3),
    torch.tensor(3),
    torch.empty(0, 4),
    torch.tensor([True, False]),
    torch.ones(3, dtype=torch.bfloat16),
]


@pytest.mark.parametrize("value", TENSOR_VALUES, ids=str)
def test_tensors_come_back(tmp_path, value):
    CheckpointStore(tmp_path, "key", TENSOR).save(0, value)
    loaded = CheckpointStore(tmp_path, "key", TENSOR).load(0)
    assert loaded.dtype == value.dtype
    assert torch.equal(loaded, value)


def test_arrays_come_back(tmp_path):
    arrays = {"a": np.arange(6).reshape(2, 3), "b": np.array([np.nan, 1.5]), "c": np.ones((2, 4), order="F")}
    store = CheckpointStore(tmp_path, "key", ARRAYS)
    store.save("blocks.0.z", arrays)
    loaded = store.load("blocks.0.z")
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)


def test_no_flipped_bit_changes_a_value(tmp_path, caplog):
    value = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    store = CheckpointStore(tmp_path, "a" * 32, TENSOR)
    store.save(0, value)
    (file,) = tmp_path.iterdir()
    sound, draw = file.read_bytes(), random.Random(0)
    damaged = 0
    for _ in range(400):
        flipped = bytearray(sound)
        flipped[draw.randrange(len(sound))] ^= 1 << draw.randrange(8)
        file.write_bytes(flipped)
        loaded = store.load(0)
        damaged += loaded is None
        assert loaded is None or torch.equal(loaded, value)
    assert damaged > 380, "all but those of the header's padding"
    assert len(caplog.records) == 1, "each file is reported once"


def test_no_flipped_bit_changes_a_line(tmp_path):
    file = tmp_path / "answers.jsonl"
    answers = {f"key{i}": [f" the answer is {i}", True, -0.1 * i] for i in range(4)}
    JsonLines(file).save(answers)
    sound, draw = file.read_bytes(), random.Random(0)
    for _ in range(400):
        flipped = bytearray(sound)
        flipped[draw.randrange(len(sound))] ^= 1 << draw.randrange(8)
        file.write_bytes(flipped)
        lines = JsonLines(file)
        present = [key for key in answers if key in lines]
        assert len(present) >= len(answers) - 2
        assert all(lines[key] == answers[key] for key in present)


def test_a_piece_is_computed_once(tmp_path):
    store, calls = CheckpointStore(tmp_path, "key", TENSOR), []
    compute = lambda: calls.append(1) or torch.ones(2)  # noqa: E731
    assert [store.load_or_compute("x", compute)[1] for _ in range(3)] == [True, False, False]
    assert len(calls) == 1
    assert not store.holds_another("x")
    other = CheckpointStore(tmp_path, "other", TENSOR)
    assert other.holds_another("x")
    assert other.load("x") is None


def test_no_folder_keeps_nothing(tmp_path):
    store = CheckpointStore(None, "", TENSOR)
    assert [store.load_or_compute(0, lambda: torch.ones(1))[1] for _ in range(2)] == [True, True]
    assert store.failed is None


@pytest.fixture
def full_disk(monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)


def test_a_full_disk_costs_a_training_only_the_saving(model_of, tmp_path, full_disk, caplog):
    model = model_of("gpt2")
    tokens = torch.randint(3, 20, (4, 6), generator=torch.Generator().manual_seed(0))
    recipe = {"steps": 3, "tokens_per_step": 12, "checkpoint_every": 1}
    with caplog.at_level(logging.WARNING):
        lens = mx.TunedLens.train(model, tokens, checkpoints=tmp_path, **recipe)
    assert torch.equal(lens.A, mx.TunedLens.train(model, tokens, **recipe).A)
    assert caplog.text.count("cannot be kept") == 1
    assert not list(tmp_path.iterdir())


def test_a_write_that_must_succeed_raises(tmp_path, full_disk):
    with pytest.raises(OSError, match="No space left"):
        CheckpointStore(tmp_path, "key", TENSORS).write("00000", {"tokens": torch.ones(2)})


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_damaged_training_state_starts_again(model_of, tmp_path, caplog, optimizer):
    model = model_of("gpt2")
    tokens = torch.randint(3, 20, (4, 6), generator=torch.Generator().manual_seed(0))
    recipe = {"steps": 3, "tokens_per_step": 12, "checkpoint_every": 1, "optimizer": optimizer}
    first = mx.TunedLens.train(model, tokens, checkpoints=tmp_path, **recipe)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    again = mx.TunedLens.train(model, tokens, checkpoints=tmp_path, **recipe)
    assert torch.equal(again.A, first.A)
    assert torch.equal(again.b, first.b)
    assert "state.safetensors cannot be read" in caplog.text


def test_a_damaged_shard_is_written_again(model_of, tmp_path, caplog):
    model = model_of("gpt2")
    settings = {"sites": ["resid_post"], "batch_size": 1, "shard_tokens": 4}
    first = mx.ActivationStore.write(tmp_path, model, [[3, 4, 5], [6, 7, 8], [9, 10, 11]], **settings)
    values = first.read("blocks.1.resid_post")
    victim = tmp_path / "00001.safetensors"
    sound = victim.read_bytes()
    victim.write_bytes(sound[:-5])
    again = mx.ActivationStore.write(tmp_path, model, [[3, 4, 5], [6, 7, 8], [9, 10, 11]], **settings)
    assert torch.equal(again.read("blocks.1.resid_post"), values)
    assert "00001.safetensors cannot be read" in caplog.text


def test_plans_and_explanations_have_a_short_repr(model_of, pairs):
    model = model_of("gpt2")
    explanation = mx.explain_plan(mx.ActivationPatching("z", ("layer", "head")), model, pairs(model))
    assert len(repr(explanation).splitlines()) < 25
    assert len(repr(explanation.plan)) < 400
    assert explanation._repr_html_().startswith("<table>")
