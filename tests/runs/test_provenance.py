"""What a tracker is told of models, of every kind of prompts, and of large arrays."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

import mechxai as mx
from mechxai.core.result import Result, RunInfo, variable
from mechxai.figures.selected_variable import select_variable
from mechxai.runs.provenance import MAX_PROMPTS, model_record, task_record
from mechxai.runs.tracking import cell_rows
from mechxai.tracking.plain import plain_mapping


@pytest.fixture(scope="module")
def model():
    return mx.load("zoo/ioi", device="cpu")


def told(model, prompts):
    """A task's name and record, as JSON holds it."""
    name, content = task_record(model, prompts)
    return name, json.loads(json.dumps(plain_mapping(content)))


def test_a_model_is_what_decides_its_numbers_not_where_it_runs(model):
    name, record = model_record(model)
    assert name == "model-zoo-ioi"
    assert record["weight_hash"] == model.weight_hash
    assert "device" not in record
    json.dumps(record)


def test_contrasts_are_texts_with_their_answers(model):
    batch = mx.tasks.ioi(model, n=3, seed=0)
    name, record = told(model, batch)
    assert name == f"task-ioi-{record['fingerprint'][:10]}"
    assert task_record(model, mx.tasks.ioi(model, n=3, seed=0))[0] == name
    assert task_record(model, mx.tasks.ioi(model, n=3, seed=1))[0] != name
    for row, clean, corrupted, length in zip(
        record["prompts"], batch.clean, batch.corrupted, batch.lengths, strict=True
    ):
        assert model.text.tokenizer.decode(clean[:length].tolist()) == row["clean"]
        assert model.text.tokenizer.decode(corrupted[:length].tolist()) == row["corrupted"]
        assert row["answers"] != row["wrong"]


def test_labels_go_by_their_names_and_unlabelled_tokens_by_none(model):
    tokens = torch.tensor([[5, 6, 7], [8, 9, 5]])
    labels = torch.tensor([[0, -1, 1], [1, 0, -1]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    dataset = mx.ProbeDataset.from_tokens(tokens, labels, names=["noun", "verb"], mask=mask)
    _, record = told(model, dataset)
    assert [row["label"] for row in record["prompts"]] == [["noun", None, "verb"], ["verb", "noun"]]
    numbers = mx.ProbeDataset.from_tokens(tokens, torch.tensor([0.5, 1.5]))
    assert [row["label"] for row in told(model, numbers)[1]["prompts"]] == [0.5, 1.5]


def test_problems_are_told_whole(model):
    batch = mx.tasks.cot_arithmetic(mx.load("zoo/cot", device="cpu"), n=2, seed=0)
    _, record = told(model, batch)
    problems = [row["problem"] for row in record["prompts"]]
    assert [one["question"] for one in problems] == [one.question for one in batch.problems]
    assert [one["steps"] for one in problems] == [list(one.steps) for one in batch.problems]


def test_without_a_tokenizer_prompts_are_token_ids_and_of_many_the_first_are_told(model):
    bare = replace(model, text=replace(model.text, tokenizer=None))
    n = MAX_PROMPTS + 5
    clean = torch.arange(2 * n).reshape(n, 2) % 90 + 10
    batch = mx.ContrastBatch.from_tokens(clean, clean + 1, clean[:, 0], clean[:, 0] + 1)
    _, record = told(bare, batch)
    assert (record["n"], record["left_out"], len(record["prompts"])) == (n, 5, MAX_PROMPTS)
    assert record["prompts"][0] == {"clean": [10, 11], "corrupted": [11, 12], "answers": [[10]], "wrong": [[11]]}


def test_of_many_cells_those_farthest_from_no_effect_in_their_order_and_no_gaps():
    values = np.array([[0.1, -3.0, np.nan], [2.0, 0.0, 1.0]])
    data = xr.Dataset(
        {
            "value": variable(("layer", "head"), values, "logits", "effect"),
            "value_low": variable(("layer", "head"), values - 1, "logits", "low"),
            "value_high": variable(("layer", "head"), values + 1, "logits", "high"),
        }
    )
    chosen = select_variable(Result(data, RunInfo()), "value")
    columns, rows = cell_rows(chosen, most=3)
    assert columns == ["layer", "head", "value", "low", "high"]
    assert rows == [[0, 1, -3.0, -4.0, -2.0], [1, 0, 2.0, 1.0, 3.0], [1, 2, 1.0, 0.0, 2.0]]
    assert len(cell_rows(chosen)[1]) == 5
