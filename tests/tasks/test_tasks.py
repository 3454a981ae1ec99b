"""Contrast tasks: reproducible, aligned, with their answers and roles at the right tokens."""

import re
from dataclasses import replace
from random import Random

import pytest
import torch

import mechxai as mx
from mechxai.core.errors import AlignmentError, ConfigError
from mechxai.core.metric import as_metric
from mechxai.model.text import TextCodec
from mechxai.tasks import TASKS, fact_tables, words
from mechxai.tasks.example import fill, in_split, is_held_out
from mechxai.tasks.grammars import GRAMMARS, IOI_TEMPLATES
from tests.conftest import has_hooked_transformer
from tests.tasks.conftest import UNKNOWN

TEXT_TASKS = ["ioi", "greater_than", "sva", "docstring", "facts"]
ROLES = {
    "ioi": {"IO", "S1", "S2"},
    "greater_than": {"NOUN", "YEAR"},
    "sva": {"SUBJECT"},
    "docstring": {"ANSWER_DEF", "PREVIOUS_DEF"},
    "facts": {"SUBJECT"},
}


@pytest.fixture(params=["whole_words", "byte_pairs"])
def model(request):
    return request.getfixturevalue(request.param)


def word(model, tokens):
    return model.tokenizer.decode([int(token) for token in tokens if token >= 0]).strip()


def spelled(model, batch, i, role, run="clean"):
    """The word a role points at in prompt i."""
    first, last = (int(batch.roles[name][i]) for name in (f"{role}_first", role))
    return word(model, batch.tokens(run)[i, first : last + 1]).replace(" ", "")


def same(one, other):
    return torch.equal(one.clean, other.clean) and torch.equal(one.corrupted, other.corrupted)


@pytest.mark.parametrize("task", TEXT_TASKS)
def test_decided_by_name_n_and_seed(whole_words, task):
    make = TASKS[task]
    first = make(whole_words, 6, 3)
    assert same(first, make(whole_words, n=6, seed=3))
    assert torch.equal(first.answers, make(whole_words, n=6, seed=3).answers)
    assert not same(first, make(whole_words, n=6, seed=4))
    assert make(whole_words, n=3, seed=3).strings == first.strings[:3], "more prompts of a seed go on where fewer end"


def test_tasks_draw_apart(whole_words):
    assert len({TASKS[task](whole_words, n=4, seed=0).strings for task in TEXT_TASKS}) == len(TEXT_TASKS)


@pytest.mark.parametrize("task", TEXT_TASKS)
def test_prompts_are_in_line_and_answers_are_single_tokens(model, task):
    if task == "greater_than" and model.name != "zoo/handmade-ioi":
        pytest.skip("byte pairs do not cut years in the middle")
    batch = TASKS[task](model, n=12, seed=1)
    assert len(batch) == 12
    assert batch.answers.shape[2] == batch.wrong.shape[2] == 1
    assert (batch.clean[:, 0] == model.text.bos).all()
    assert torch.equal(batch.answer_pos, batch.lengths - 1)
    assert (batch.first_difference < batch.lengths).all()
    beyond = ~batch.mask
    assert (batch.clean[beyond] == 0).all()
    assert (batch.corrupted[beyond] == 0).all()
    for i in range(12):
        right, wrong = (set(answers[i, :, 0].tolist()) - {-1} for answers in (batch.answers, batch.wrong))
        assert right
        assert wrong
        assert not right & wrong
    assert set(batch.roles) >= {*ROLES[task], "END"}
    for role, at in batch.roles.items():
        assert ((at > 0) & (at < batch.lengths)).all(), role
    assert batch.info["name"] == task
    assert batch.info["n"] == 12
    assert batch.info["seed"] == 1
    assert len(batch.groups) == 12


def test_ioi_roles_point_at_the_names(model):
    batch = mx.tasks.ioi(model, n=16, seed=2)
    for i in range(16):
        subject, recipient = spelled(model, batch, i, "S1"), spelled(model, batch, i, "IO")
        assert subject == spelled(model, batch, i, "S2") == word(model, batch.wrong[i, 0])
        assert recipient == word(model, batch.answers[i, 0])
        assert spelled(model, batch, i, "S2", "corrupted") == recipient, "swap repeats the other name"
        assert int(batch.roles["S1"][i]) < int(batch.roles["S2"][i])
        differing = (batch.clean[i] != batch.corrupted[i]).nonzero()[:, 0].tolist()
        assert differing == [int(batch.roles["S2"][i])]
        assert model.tokenizer.decode([int(batch.clean[i, batch.answer_pos[i]])]).strip() == "to"


def test_ioi_settings(whole_words):
    for order, first in (("abba", "IO"), ("baba", "S1")):
        batch = mx.tasks.ioi(whole_words, n=8, order=order)
        second = {"IO": "S1", "S1": "IO"}[first]
        assert (batch.roles[first] < batch.roles[second]).all()
    both = mx.tasks.ioi(whole_words, n=40)
    assert 0 < int((both.roles["IO"] < both.roles["S1"]).sum()) < 40
    abc = mx.tasks.ioi(whole_words, n=8, corruption="abc")
    for i in range(8):
        names = [spelled(whole_words, abc, i, role, "corrupted") for role in ("IO", "S1", "S2")]
        assert len(set(names)) == 3, "nothing is repeated"
    one = mx.tasks.ioi(whole_words, n=8, template=5)
    assert set(one.groups) == {IOI_TEMPLATES[5]}
    assert one.lengths.unique().numel() == 1
    for role in ("IO", "S1", "S2"):
        assert one.roles[role].numel() == 8
    assert [label for label in one.axis if label], "prompts of one template share words"


def test_years_that_do_not_split_in_the_middle_are_refused(byte_pairs):
    with pytest.raises(
        AlignmentError,
        match=r"greater_than: 0 of 4 prompts fit the tokenizer.*the answer merges with the prompt's tokens",
    ):
        mx.tasks.greater_than(byte_pairs, n=4)


def test_greater_than_roles_and_years(whole_words):
    model = whole_words
    batch = mx.tasks.greater_than(model, n=8, seed=0)
    for i in range(8):
        year = int(spelled(model, batch, i, "YEAR")[-2:])
        right = {int(word(model, token)) for token in batch.answers[i] if token[0] >= 0}
        wrong = {int(word(model, token)) for token in batch.wrong[i] if token[0] >= 0}
        assert right == set(range(year + 1, 100))
        assert wrong == set(range(year + 1))
        assert spelled(model, batch, i, "YEAR", "corrupted")[-2:] == "01"
        assert spelled(model, batch, i, "NOUN") in words.EVENTS


def test_sva_agrees_in_number(model):
    number = {noun: i for pair in words.NOUNS for i, noun in enumerate(pair)}
    verbs = {verb: i for pair in words.VERBS for i, verb in enumerate(pair)}
    batch = mx.tasks.sva(model, n=16, seed=0)
    for i in range(16):
        clean, corrupted = (spelled(model, batch, i, "SUBJECT", run) for run in ("clean", "corrupted"))
        assert verbs[word(model, batch.answers[i, 0])] == number[clean] == 1 - number[corrupted]
        assert verbs[word(model, batch.wrong[i, 0])] == number[corrupted]
    assert len(set(batch.groups)) > 1


def test_docstring_names_the_next_argument(model):
    batch = mx.tasks.docstring(model, n=8, seed=0)
    for i in range(8):
        assert spelled(model, batch, i, "ANSWER_DEF") == word(model, batch.answers[i, 0])
        assert spelled(model, batch, i, "ANSWER_DEF", "corrupted") == word(model, batch.wrong[i, 0])
        assert int(batch.roles["PREVIOUS_DEF"][i]) < int(batch.roles["ANSWER_DEF"][i])


def test_facts_are_true(model):
    batch = mx.tasks.facts(model, n=16, seed=0)
    tables = [
        {key.replace(" ", ""): value for key, value in table.items()}
        for table in (fact_tables.CAPITALS, fact_tables.LANDMARKS, fact_tables.LANGUAGES)
    ]
    for i in range(16):
        for run, answers in (("clean", batch.answers), ("corrupted", batch.wrong)):
            subject, answer = spelled(model, batch, i, "SUBJECT", run), word(model, answers[i, 0])
            assert any(table.get(subject) == answer for table in tables), (subject, answer)
    only = mx.tasks.facts(model, n=8, relation="language")
    assert all(word(model, answer[0]) in fact_tables.LANGUAGES.values() for answer in only.answers)


def test_rejected_examples_are_counted(byte_pairs):
    codec = byte_pairs.text
    for name in UNKNOWN[:4]:
        assert len(codec.ids(f" {name}")) > 2, "the fixture must split it"
    batch = mx.tasks.ioi(byte_pairs, n=60, seed=0)
    dropped = batch.info["dropped"]
    assert sum(dropped.values()) > 0
    assert set(dropped) <= {"an answer of several tokens", "clean and corrupted differ in length"}
    for i in range(60):
        assert word(byte_pairs, batch.answers[i, 0]) not in UNKNOWN
        assert word(byte_pairs, batch.wrong[i, 0]) not in UNKNOWN
    assert mx.tasks.ioi(byte_pairs, n=60, seed=0).info == batch.info
    # the same draws, fit or not: as many as were kept and dropped
    rng, n_tried = Random("ioi/0"), 60 + sum(dropped.values())
    split = [GRAMMARS["ioi"](rng) for _ in range(n_tried)]
    assert sum(any(name in text for name in UNKNOWN for text in (one.answers[0], one.wrong[0])) for one in split) >= 1


def test_too_few_that_fit_is_refused_with_the_reasons(model_of):
    with pytest.raises(
        AlignmentError, match=r"ioi: \d+ of 64 prompts fit the tokenizer of gpt2; dropped: \d+ \(.*\).*from_prompts"
    ):
        mx.tasks.ioi(model_of("gpt2"), n=64)


def test_words_outside_the_vocabulary_are_dropped():
    model = mx.load("zoo/handmade-induction", device="cpu")
    with pytest.raises(AlignmentError, match="a word outside the vocabulary"):
        mx.tasks.sva(model, n=2)


def test_prompts_longer_than_the_context_are_dropped(whole_words):
    from mechxai.model.hooked_model import HookedModel

    short = replace(whole_words)
    assert isinstance(short, HookedModel)
    object.__setattr__(short, "architecture", replace(whole_words.architecture, n_ctx=17))
    batch = mx.tasks.ioi(short, n=8)
    assert batch.info["dropped"]["longer than the model's context"] > 0
    assert batch.n_pos <= 17


@pytest.mark.parametrize("task", ["ioi", "greater_than", "sva", "docstring"])
def test_train_and_held_out_do_not_overlap(whole_words, task):
    def texts(split):
        rng = Random(0)
        return {GRAMMARS[task](rng, split=split).clean for _ in range(200)}

    assert not texts("train") & texts("held_out")
    batch = TASKS[task](whole_words, n=4, split="held_out")
    assert batch.info["split"] == "held_out"


def test_ioi_splits_share_no_pair_of_names(whole_words):
    def pairs(split):
        batch = mx.tasks.ioi(whole_words, n=150, split=split)
        return {(spelled(whole_words, batch, i, "IO"), spelled(whole_words, batch, i, "S2")) for i in range(150)}, set(
            batch.groups
        )

    (train, train_groups), (held_out, held_out_groups) = pairs("train"), pairs("held_out")
    assert not train & held_out
    assert not train_groups & held_out_groups
    assert all(is_held_out(*pair) for pair in held_out)
    share = sum(is_held_out(a, b) for a in words.NAMES for b in words.NAMES if a != b) / (
        len(words.NAMES) * (len(words.NAMES) - 1)
    )
    assert 0.07 < share < 0.13
    for parts in (("Mary", "John"), ("x",)):
        assert in_split("all", *parts)
        assert in_split("train", *parts) != in_split("held_out", *parts)


@pytest.mark.parametrize("task", [*TEXT_TASKS, "induction"])
def test_padding_side_does_not_matter(model_of, whole_words, task):
    model = whole_words
    batch = TASKS[task](model, n=5, seed=0)
    shift = batch.n_pos - batch.lengths

    def rolled(rows):
        return torch.stack([row.roll(int(n)) for row, n in zip(rows, shift, strict=True)])

    roles = {role: at + shift for role, at in batch.roles.items()}
    left = mx.ContrastBatch.from_tokens(
        rolled(batch.clean), rolled(batch.corrupted), batch.answers, batch.wrong, mask=rolled(batch.mask), roles=roles
    )
    metric = as_metric("prob_diff")
    for run in ("clean", "corrupted"):
        ours, theirs = (metric(model.logits(one.tokens(run), lengths=one.lengths), one) for one in (batch, left))
        assert torch.equal(ours, theirs)
        alone = [
            metric(model.logits(one.tokens(run)[:, : int(one.lengths[0])]), one)
            for one in (batch.rows(slice(i, i + 1)) for i in range(5))
        ]
        torch.testing.assert_close(ours, torch.cat(alone), atol=1e-5, rtol=0)
    for role in batch.roles:
        assert torch.equal(left.roles[role], batch.roles[role])


def test_the_bundled_model_can_do_ioi(whole_words):
    batch = mx.tasks.ioi(whole_words, n=32, seed=5)
    metric = as_metric("logit_diff")
    assert metric(whole_words.logits(batch.clean, lengths=batch.lengths), batch).min() > 5
    assert metric(whole_words.logits(batch.corrupted, lengths=batch.lengths), batch).max() < -5


# Induction ------------------------------------------------------------------------------------------------------------


def check_induction(model, batch, period, start):
    assert batch.clean.shape == (7, start + 2 * period - 1)
    body = batch.clean[:, start:]
    assert torch.equal(body[:, :period][:, : period - 1], body[:, period:]), "the sequence is repeated"
    assert torch.equal(body[:, period - 1], batch.answers[:, 0, 0])
    for row in body[:, :period]:
        assert row.unique().numel() == period
    differs = (batch.clean != batch.corrupted).nonzero()
    assert differs.tolist() == [[i, start + period - 1] for i in range(7)]
    assert torch.equal(batch.corrupted[:, start + period - 1], batch.wrong[:, 0, 0])
    assert batch.roles["FIRST"].tolist() == [start + period - 1] * 7
    assert batch.roles["PREVIOUS"].tolist() == [start + period - 2] * 7
    first = batch.clean[torch.arange(7), batch.roles["PREVIOUS"]]
    assert torch.equal(first, batch.clean[torch.arange(7), batch.answer_pos]), "END repeats the token before the answer"


@pytest.mark.parametrize("period", [2, 5, 12])
def test_induction_repeats_and_answers(model_of, period):
    model = model_of("gpt2")
    batch = mx.tasks.induction(model, n=7, seed=1, period=period)
    assert (batch.clean[:, 0] == model.text.bos).all()
    assert (batch.clean[:, 1:] != model.text.bos).all(), "special tokens are left out"
    check_induction(model, batch, period, 1)
    assert same(batch, mx.tasks.induction(model, n=7, seed=1, period=period))
    assert not same(batch, mx.tasks.induction(model, n=7, seed=2, period=period))
    assert batch.info == {"name": "induction", "n": 7, "seed": 1, "period": period, "dropped": {}}


@pytest.mark.skipif(not has_hooked_transformer(), reason="TransformerLens 4 has no HookedTransformer")
def test_induction_needs_no_tokenizer():
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    model = mx.wrap(
        HookedTransformer(
            HookedTransformerConfig(n_layers=1, d_model=8, n_ctx=32, d_head=4, d_vocab=40, act_fn="relu", device="cpu")
        )
    )
    batch = mx.tasks.induction(model, n=7, period=6)
    check_induction(model, batch, 6, 0)
    assert batch.strings[0] == tuple(str(token) for token in batch.clean[0].tolist())


@pytest.mark.parametrize("backend", ["auto"])
def test_induction_without_a_tokenizer_on_a_codec_of_none(model_of, backend):
    model = replace(model_of("llama", backend), text=TextCodec(None, None))
    check_induction(model, mx.tasks.induction(model, n=7, period=4), 4, 0)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"period": 1}, "period=1 does not fit the model's context. Allowed: 2 to 31"),
        ({"period": 32}, "2 to 31"),
        ({"n": 0}, "n=0"),
        ({"n": -1}, "n=-1"),
    ],
)
def test_induction_refused(model_of, settings, reason):
    with pytest.raises(ConfigError, match=reason):
        mx.tasks.induction(model_of("gpt2"), **settings)


def test_a_vocabulary_smaller_than_the_period_is_refused(model_of):
    model = replace(model_of("gpt2"), text=TextCodec(None, None))
    object.__setattr__(model, "architecture", replace(model.architecture, d_vocab=10))
    with pytest.raises((ConfigError, AlignmentError)):
        mx.tasks.induction(model, n=2, period=12)


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "settings", "reason"),
    [
        ("ioi", {"n": 0}, "ioi: n=0 prompts cannot be drawn"),
        ("ioi", {"n": 10**8}, "ioi: n=100000000 prompts cannot be drawn"),
        ("induction", {"n": 10**8}, "induction: n=100000000 prompts cannot be drawn"),
        ("eiffel", {"n": 10**8}, "eiffel: n=100000000 prompts cannot be drawn"),
        ("ioi", {"order": "abab"}, "order='abab' is not allowed. Did you mean '(abba|baba)'"),
        ("ioi", {"corruption": "abd"}, "corruption='abd'.*Did you mean 'abc'"),
        ("ioi", {"split": "heldout"}, "split='heldout' is not allowed. Did you mean 'held_out'"),
        ("ioi", {"template": 10_000}, "template=10000 does not exist. Allowed: 0 to"),
        ("sva", {"split": "test"}, "split='test'"),
        ("facts", {"relation": "capitals"}, "relation='capitals' is not allowed. Did you mean 'capital'"),
    ],
)
def test_refused(whole_words, task, settings, reason):
    with pytest.raises(ConfigError, match=reason):
        TASKS[task](whole_words, **settings)


def test_fill_returns_the_text_and_the_spans_of_fields():
    text, spans = fill("{A} and {B}, {A2}.", {"A": "Mary", "B": "John", "A2": "Mary"})
    assert text == "Mary and John, Mary."
    assert {role: text[low:high] for role, (low, high) in spans.items()} == {"A": "Mary", "B": "John", "A2": "Mary"}
    assert len(set(IOI_TEMPLATES)) == len(IOI_TEMPLATES)
    assert not any(re.search(r"\{(?!A\}|B\}|PLACE\}|OBJECT1?\}|S2\})", template) for template in IOI_TEMPLATES)
