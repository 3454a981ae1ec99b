"""Labelled tasks: annotations fit their sentences, labels are balanced, groups are complete, files are checked."""

import json
import random

import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ArtifactError, ConfigError, ShapeError
from mechxai.tasks import annotated, grammars


@pytest.fixture(scope="module")
def model():
    return mx.load("zoo/ioi", device="cpu")


@pytest.mark.parametrize("source", annotated.SOURCES)
def test_every_word_has_an_annotation(source):
    rng = random.Random(0)
    for _ in range(500):
        example = grammars.GRAMMARS[source](rng)
        pairs = annotated.annotation(source, example)
        assert len(pairs) == len(annotated.word_spans(example.clean)), example.clean
        sentences = 1 + example.clean.count(".")
        assert sum(relation == "root" for _, relation, _ in pairs) == (
            0 if source == "sva" else sentences * int("is" not in _last(example))
        )
        for number, word in enumerate(pairs):
            assert word.head is None or (0 <= word.head < len(pairs) and word.head != number)


def _last(example):
    return [example.clean.split()[-1]] if example.template.endswith(" is") else []


def test_annotation_by_hand():
    example = next(
        one
        for one in (grammars.ioi(random.Random(seed)) for seed in range(2000))
        if one.template == "Then, {A} and {B} went to the {PLACE}. {S2} wanted to give the {OBJECT} to"
    )
    words = [example.clean[low:high] for low, high in annotated.word_spans(example.clean)]
    tags = [pos for pos, _, _ in annotated.annotation("ioi", example)]
    assert words[0] == "Then"
    expected = "ADV PUNCT PROPN CCONJ PROPN VERB ADP DET NOUN PUNCT PROPN VERB PART VERB DET NOUN ADP"
    assert " ".join(tags) == expected
    heads = [words[word.head] if word.head is not None else "*" for word in annotated.annotation("ioi", example)]
    first, second = words[2], words[4]
    assert (
        heads
        == (
            f"went * went {second} {first} * {words[8]} {words[8]} went * wanted * give wanted {words[15]} give *"
        ).split()
    )


def test_heads_by_hand():
    """Where a head stands depends on what is put together: a clause's on its sentence, an attractor's on a subject."""

    def heads(source, wanted):
        example = next(
            one
            for one in (grammars.GRAMMARS[source](random.Random(seed)) for seed in range(5000))
            if wanted(one.clean, one.template)
        )
        words = [example.clean[low:high] for low, high in annotated.word_spans(example.clean)]
        return [
            f"{text}<-{words[word.head]}" if word.head is not None else text
            for text, word in zip(words, annotated.annotation(source, example), strict=True)
        ]

    clause = heads("ioi", lambda _, frame: frame == "When {A} and {B} met near the {PLACE}, {S2} gave a {OBJECT} to")
    assert [clause[0], clause[4]] == ["When<-met", "met<-gave"]
    noun = heads("sva", lambda text, _: text.startswith("The old ") and " next to " in text and len(text.split()) == 7)
    subject, attractor = noun[2], noun[6].split("<-")[0]
    assert noun == [
        f"The<-{subject}", f"old<-{subject}", subject, f"next<-{attractor}", "to<-next", f"the<-{attractor}",
        f"{attractor}<-{subject}",
    ]  # fmt: skip
    assert heads("facts", lambda text, _: text.startswith("The Eiffel Tower")) == [
        "The<-Eiffel", "Eiffel<-located", "Tower", "is<-located", "located", "in<-city", "the<-city", "city<-located",
        "of",
    ]  # fmt: skip


@pytest.mark.parametrize("task", ["pos_tags", "syntactic_role"])
def test_tags_stand_at_the_last_token_of_their_word(model, task):
    made = getattr(mx.tasks, task)(model, n=12)
    tag = "PROPN" if task == "pos_tags" else "cc"
    for row in range(12):
        for pos, label in enumerate(made.labels[row].tolist()):
            text = made.strings[row][pos].strip() if pos < len(made.strings[row]) else ""
            if task == "pos_tags" and text in ("Mary", "John", "France"):
                assert made.names[label] == tag
            if task == "syntactic_role" and text == "and":
                assert made.names[label] == tag
    assert made.labelled.sum() > 60


@pytest.mark.parametrize(("task", "n_classes"), [("subject_number", 2), ("fact_relation", 3), ("sentence_source", 4)])
def test_prompts_of_every_class_in_equal_number(model, task, n_classes):
    made = getattr(mx.tasks, task)(model, n=24)
    assert len(made.names) == n_classes
    assert torch.bincount(made.labels).tolist() == [24 // n_classes] * n_classes
    again = getattr(mx.tasks, task)(model, n=24)
    assert torch.equal(made.tokens, again.tokens)


def test_subject_number_carries_the_verbs(model):
    made = mx.tasks.subject_number(model, n=20)
    verbs = [model.text.strings([token])[0].strip() for token in made.behaviour.answers[:, 0, 0].tolist()]
    plural = {"are", "were", "have", "look", "seem"}
    assert [made.names[label] for label in made.labels] == [
        "plural" if verb in plural else "singular" for verb in verbs
    ]
    assert (made.roles["SUBJECT"] < made.roles["END"]).all(), "there is an attractor between them"
    with pytest.raises(ConfigError, match=r"attractors=3"):
        mx.tasks.subject_number(model, attractors=3)
    with pytest.raises(ConfigError, match=r"Did you mean 'sva'"):
        mx.tasks.pos_tags(model, sources=["svaa"])


def test_jsonl_of_texts_and_of_words(model, tmp_path):
    path = tmp_path / "d.jsonl"
    rows = [{"text": "The key", "label": "one", "group": "k"}, {"text": "The keys", "label": "many", "group": "k"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    made = mx.tasks.labelled_jsonl(model, path)
    assert made.names == ("many", "one")
    assert made.groups == ("k", "k")
    path.write_text(json.dumps({"words": ["The", "key"], "labels": ["D", "N"]}))
    assert mx.tasks.labelled_jsonl(model, path).labels.tolist() == [[-1, 0, 1]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"line 2 is not JSON"),
        ('{"text": "a"}', r"line 2 lacks a field"),
        ('{"text": "The key", "label": "b", "lable": 1}', r"Unknown field 'lable'. Did you mean 'label'"),
        ('{"words": ["The"], "labels": ["D", "N"]}', r"line 2: labels .* do not match its words"),
        ('{"words": ["The"], "labels": ["D"]}', r"same fields on every line"),
        ('{"text": "The key", "label": "b", "split": "test"}', r"a split on 1 of 2 lines"),
    ],
)
def test_bad_lines_are_named(model, tmp_path, line, message):
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "The key", "label": "a"}\n' + line)
    with pytest.raises(ShapeError, match=message):
        mx.tasks.labelled_jsonl(model, path)
    with pytest.raises(ArtifactError, match=r"does not exist"):
        mx.tasks.labelled_jsonl(model, tmp_path / "none.jsonl")
