"""Pattern scores on patterns written by hand, on every architecture, and against plain loops."""

import dataclasses

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.methods.circuits._lib.head_names import RoleThresholds
from mechxai.methods.circuits._lib.pattern_scores import position_scores, random_tokens, repeated_scores, syntax_scores
from mechxai.tasks.dependencies import dependencies
from tests.conftest import MODELS


class Written:
    """Activations with patterns from the test."""

    def __init__(self, patterns):
        self.patterns = patterns

    def stack(self, name):
        assert name == "pattern"
        return self.patterns


def looking(n_pos, source):
    """A pattern in which every query attends to ``source(query)`` alone."""
    pattern = torch.zeros(n_pos, n_pos)
    for query in range(n_pos):
        pattern[query, max(source(query), 0)] = 1.0
    return pattern


@pytest.fixture
def planted(monkeypatch):
    """A model of one layer with patterns from the test."""
    model = mx.load("zoo/ioi", device="cpu")

    def plant(*heads):
        def cache(_, tokens, sites, lengths=None):
            made = [head(tokens.shape[1]).expand(len(tokens), -1, -1) for head in heads]
            return Written(torch.stack(made, 1)[None])

        small = dataclasses.replace(model.architecture, n_layers=1, n_heads=len(heads))
        monkeypatch.setattr(type(model), "cache", cache)
        monkeypatch.setitem(model.__dict__, "architecture", small)
        return model

    return plant


def test_positions_by_hand(planted, zoo):
    tokens = random_tokens(zoo, rows=2, length=20, seed=0)
    model = planted(
        lambda n: looking(n, lambda query: 0),
        lambda n: looking(n, lambda query: query),
        lambda n: looking(n, lambda query: query - 1),
        lambda n: looking(n, lambda query: query - 3),
        lambda n: torch.tril(torch.ones(n, n)) / torch.arange(1, n + 1)[:, None],
    )
    first, positional = position_scores(model, tokens)
    n_pos = 21
    assert first[0, :2].tolist() == [1.0, 0.0]
    assert first[0, 2] == pytest.approx(1 / (n_pos - 1))
    assert positional.distance[0, 1:4].tolist() == [0, 1, 3]
    assert positional.score[0, :4].tolist() == [0.0, 1.0, 1.0, 1.0]
    assert first[0, 4] == pytest.approx(np.mean([1 / n for n in range(2, n_pos + 1)]))
    assert positional.score[0, 4] < 0.3


def test_syntax_by_hand(planted, zoo):
    """A head along obl alone scores 1 against 0; a previous-token head scores the same off the relation."""
    known = dependencies(zoo, 16, sources=["greater_than"])
    obl = known.related[known.related[:, 0] == known.relations.index("obl")]

    def follows_obl(n):
        pattern = torch.zeros(len(known.tokens), n, n)
        pattern[:, :, 0] = 1.0
        for _, sentence, dest, src in obl.tolist():
            pattern[sentence, dest, 0], pattern[sentence, dest, src] = 0.0, 1.0
        return pattern

    model = planted(follows_obl, lambda n: looking(n, lambda query: query - 1))
    found = syntax_scores(model, known)
    at = {name: number for number, name in enumerate(found.relations)}
    assert found.related[at["obl"], 0, 0] == 1.0
    assert found.control[at["obl"], 0, 0] == 0.0
    assert found.related[at["det"], 0, 1] == found.control[at["det"], 0, 1] == 1.0
    assert found.related[at["obl"], 0, 1] == 0.0


def test_syntax_equals_plain_loops(zoo):
    known = dependencies(zoo, 40)
    found = syntax_scores(zoo, known)
    for number in (0, 3):
        sums = torch.zeros(2, zoo.architecture.n_layers, zoo.architecture.n_heads)
        for which, cells in enumerate((known.related, known.control)):
            for relation, sentence, dest, src in cells.tolist():
                if relation == number:
                    row = known.tokens[sentence : sentence + 1, : int(known.lengths[sentence])]
                    sums[which] += zoo.cache(row, ["pattern"]).stack("pattern")[:, 0, :, dest, src]
        torch.testing.assert_close(found.related[number], sums[0] / known.pairs[number], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.control[number], sums[1] / (4 * known.pairs[number]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "backend", "processing"), MODELS)
def test_scores_are_probabilities_on_every_model(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    tokens = random_tokens(model, rows=2, length=6, seed=0)
    first, positional = position_scores(model, tokens)
    scores = {**repeated_scores(model, tokens), "first": first, "positional": positional.score}
    for name, score in scores.items():
        assert score.shape == (model.architecture.n_layers, model.architecture.n_heads), name
        assert ((score >= 0) & (score <= 1 + 1e-6)).all(), name


def scores(**given):
    return {name: np.array([[value]]) for name, value in given.items()}


@pytest.mark.parametrize(
    ("given", "effect", "role", "looks"),
    [
        ({"first_token": 0.9}, 1.0, "first_token", "first_token"),
        ({"first_token": 0.9}, 0.0, "", "first_token"),
        ({"first_token": 0.9, "name_mover": 0.5, "copying": 0.9}, 1.0, "name_mover", "name_mover"),
        ({"first_token": 0.9, "name_mover": 0.5, "copying": 0.1}, 1.0, "first_token", "name_mover"),
        ({"positional": 0.5, "syntactic": 0.6}, 1.0, "positional, syntactic", "obj"),
        ({"positional": 0.6, "syntactic": 0.5}, 1.0, "positional, syntactic", "2 tokens back"),
        ({"induction": 0.5, "duplicate_token": 0.6}, 1.0, "duplicate_token, induction", "duplicate_token"),
        ({"induction": 0.3, "syntactic": 0.3}, 1.0, "", ""),
    ],
)
def test_roles_and_patterns(given, effect, role, looks):
    thresholds = RoleThresholds(attention=0.4, effect=0.05, copying=0.5)
    assert thresholds.roles(scores(**given), np.array([[effect]])).item() == role
    assert thresholds.attended_patterns(scores(**given), np.array([[2]]), np.array([["obj"]])).item() == looks


@pytest.mark.parametrize(("distance", "looks"), [(0, "itself"), (1, "previous_token"), (5, "5 tokens back")])
def test_labels_of_distances(distance, looks):
    thresholds = RoleThresholds(attention=0.4, effect=0.05, copying=0.5)
    attended = thresholds.attended_patterns(scores(positional=1.0), np.array([[distance]]), np.array([[""]]))
    assert attended.item() == looks
