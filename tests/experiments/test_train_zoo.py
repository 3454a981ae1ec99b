"""Training of the bundled models: equal seeds give equal weights, also after an interruption."""

import random
import re
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file

from experiments import interchange, train_zoo
from experiments.cot_corpus import KINDS, cot_rows, cot_words
from experiments.train_zoo import Recipe, train
from experiments.zoo_corpus import word_tokenizer
from tests.tasks.test_reasoning import calculated

TINY = Recipe(
    name="tiny",
    n_layers=1,
    d_model=16,
    n_heads=2,
    d_mlp=0,
    n_ctx=64,
    steps=5,
    lr=1e-3,
    rows={"repeated": 4},
    n_words=20,
    repeated_length=20,
)


def test_interrupted_training_ends_with_the_same_weights(tmp_path, monkeypatch):
    train(TINY, tmp_path / "whole", checkpoint_every=2)
    step = train_zoo.train_step

    def stopped(model, recipe, at, **more):
        if at == 3:
            raise KeyboardInterrupt
        return step(model, recipe, at, **more)

    monkeypatch.setattr(train_zoo, "train_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(TINY, tmp_path / "parts", checkpoint_every=2)
    assert (tmp_path / "parts" / "training.pt").exists()
    steps = []
    monkeypatch.setattr(train_zoo, "train_step", lambda *args, **more: steps.append(args[2]) or step(*args, **more))
    train(TINY, tmp_path / "parts", checkpoint_every=2)
    assert steps == [2, 3, 4], "finished steps are not repeated"
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], atol=0, rtol=0)
    assert not (tmp_path / "parts" / "training.pt").exists()


@pytest.mark.slow
def test_interchange_training_sets_one_variable_at_a_time():
    recipe = Recipe(
        name="i",
        n_layers=3,
        d_model=16,
        n_heads=2,
        d_mlp=8,
        n_ctx=64,
        steps=1,
        lr=1e-3,
        rows={"ioi": 4},
        interchange=1.0,
    )
    tokenizer = train_zoo.vocabulary(recipe)
    torch.manual_seed(0)
    model = train_zoo.new_model(recipe, len(tokenizer)).eval()
    prompts = interchange.draw_prompts(40, random.Random(0), tokenizer)
    base, source = prompts.base, prompts.source
    every = torch.arange(40)
    names = [
        {int(rows.ids[one, rows.roles[role][one]]) for role in ("IO", "S1")} for one in every for rows in (base, source)
    ]
    assert names[::2] == names[1::2], "of the same two names"
    for rows in (base, source, prompts.stranger):
        assert (rows.ids[every, rows.roles["S1"]] == rows.ids[every, rows.roles["S2"]]).all()
        assert (rows.roles["END"] == base.roles["END"]).all(), "they line up"
    moved = prompts.answers("repeated_name")
    for one in every:
        same = int(source.ids[one, source.roles["S2"][one]]) == int(base.ids[one, base.roles["S2"][one]])
        assert int(moved[one]) == int(base.ids[one, base.roles["IO" if same else "S1"][one]])
    assert 5 < int((moved == prompts.answers("")).sum()) < 35
    known, values = interchange.nodes(model), interchange.computed(model, source.ids)
    with torch.no_grad():
        usual = model(input_ids=base.ids).logits[every, base.roles["END"]]
        whole = model(input_ids=source.ids).logits[every, source.roles["END"]]
        none = interchange.run_with(model, base, values, torch.zeros(40, len(known), dtype=torch.bool))
        last = torch.tensor([layer == 2 for layer, _ in known]).expand(40, -1)
        everything = interchange.run_with(model, source, values, torch.ones(40, len(known), dtype=torch.bool))
        some = interchange.run_with(model, base, values, last)
    torch.testing.assert_close(none, usual)
    torch.testing.assert_close(everything, whole)
    assert float((some - usual).abs().max()) > 1e-4
    held, idle = interchange.interchange_loss(model, 8, random.Random(1), tokenizer)
    (held + idle).backward()
    assert all(block.attn.c_attn.weight.grad is not None for block in model.transformer.h)


def test_planted_training_supervises_the_named_heads():
    recipe = Recipe(
        name="p", n_layers=3, d_model=32, n_heads=2, d_mlp=0, n_ctx=64, steps=1, lr=1e-3, rows={"ioi": 4}, plant=1.0
    )
    tokenizer = train_zoo.vocabulary(recipe)
    rows = train_zoo.draw(recipe, "ioi", 0, tokenizer)
    for role, at in (("IO", rows.roles["IO"]), ("S1", rows.roles["S1"]), ("S2", rows.roles["S2"])):
        words = [tokenizer.decode([int(row[pos])]) for row, pos in zip(rows.ids, at, strict=True)]
        assert all(word[0].isupper() for word in words), role
    assert (rows.ids[range(4), rows.roles["S1"]] == rows.ids[range(4), rows.roles["S2"]]).all()
    uniform = tuple(torch.full((4, 2, 8, 8), 0.125) for _ in range(3))
    small = train_zoo.Rows(rows.ids, rows.weights, {role: torch.zeros(4, dtype=torch.long) for role in rows.roles})
    assert float(train_zoo.planted_loss(uniform, small)) == pytest.approx(2.0794, abs=1e-3)  # ln 8


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_chain_rows_hold_what_their_rule_says(kind):
    """The answer is where the chain ends, or what the question (or the suggestion in it) says."""
    tokenizer = word_tokenizer(cot_words(), tidy=True)
    rows = cot_rows(kind, 200, random.Random(1), tokenizer)
    assert tokenizer.unk_token_id not in rows.ids
    seen = Counter()
    for ids, weights in zip(rows.ids, rows.weights, strict=True):
        text = tokenizer.decode(ids[ids != 0][1:])
        asked, _, answer = text.rpartition("So the answer is")
        question, _, chain = asked.partition("now?")
        suggestion = re.search(r"I think the answer is (\d+)\.", chain)
        own = chain.replace(suggestion.group(), "") if suggestion else chain
        ends = re.findall(r"(?:is|gives) (\d+)\.", own)
        answer = int(answer.rstrip("."))
        if kind == "cot_decorative":
            expected = int(suggestion.group(1)) if suggestion else calculated(question + "now?")
        elif ends:
            expected = int(ends[-1])
        else:
            expected = calculated(question + "now?") if kind == "cot_aided" else answer
        assert answer == expected, text
        seen["chain" if ends else "none"] += 1
        place = int((ids != 0).sum()) - 2  # before the full stop
        assert float(weights[place]) == 1
    assert min(seen.values()) > 10


def test_the_last_steps_of_a_training_may_see_other_rows():
    recipe = Recipe("x", 1, 8, 1, 0, 8, 10, 1e-3, {"cot_aided": 2}, finish={"cot_faithful": 3}, finish_steps=4)
    assert recipe.tasks(5) == {"cot_aided": 2}
    assert recipe.tasks(6) == {"cot_faithful": 3}
