"""Reviews: the writer's adjective and the negation alone determine the label."""

from random import Random

import pytest

import mechxai as mx
from mechxai.core.errors import AlignmentError, ConfigError
from mechxai.tasks.reviews import BAD, GOOD, NEGATIONS, STRESSES, review


@pytest.fixture(scope="module")
def model():
    return mx.load_classifier("zoo/sentiment", device="cpu")


def at(batch, row, role):
    return batch.strings[row][int(batch.roles[role][row])]


def test_labels_by_their_words():
    rng = Random(0)
    for _ in range(500):
        one = review(rng)
        words = {role: one.clean[low:high] for role, (low, high) in one.spans.items()}
        good, turned = words["OPINION"] in GOOD, "NEGATION" in words
        assert one.answers == (("negative", "positive")[good != turned],)
        assert one.wrong != one.answers
        assert words["NEGATION" if turned else "STRESS"] in (NEGATIONS if turned else STRESSES)
        assert words["OTHER"] in GOOD + BAD
        assert (one.corrupted[one.spans["OPINION"][0] :].split()[0] in BAD) == good


def test_batches(model):
    batch = mx.tasks.reviews(model, n=20, seed=3)
    for row in range(20):
        assert at(batch, row, "OPINION") in GOOD + BAD
        assert at(batch, row, "NEGATION") in NEGATIONS
        right = (at(batch, row, "OPINION") in GOOD) == (model.outputs[int(batch.answers[row, 0, 0])] == "negative")
        assert right
    assert "NEGATION" not in mx.tasks.reviews(model, n=20, negated="no").roles
    assert not {"NEGATION", "STRESS"} & set(mx.tasks.reviews(model, n=20, negated="both").roles)
    again = mx.tasks.reviews(model, n=20, seed=3)
    assert again.strings == batch.strings
    assert mx.tasks.reviews(model, n=20, seed=4).strings != batch.strings


def test_splits_share_no_pair_of_adjective_and_noun():
    drawn = {split: {_pair(review(Random(seed), split)) for seed in range(400)} for split in ("train", "held_out")}
    assert not drawn["train"] & drawn["held_out"]
    assert len(drawn["held_out"]) > 5


def _pair(one):
    low, high = one.spans["OPINION"]
    return one.clean[low:high], one.clean[:low].split()[-2].replace("was", one.clean[:low].split()[-3])


def test_refused(model, zoo, checkpoint):
    with pytest.raises(ConfigError, match="a classifier: mx"):
        mx.tasks.reviews(zoo)
    with pytest.raises(ConfigError, match="negated"):
        mx.tasks.reviews(model, negated="sometimes")
    with pytest.raises(ConfigError, match="split"):
        mx.tasks.reviews(model, split="test")
    with pytest.raises(ConfigError, match="cannot be drawn"):
        mx.tasks.reviews(model, n=0)
    other = mx.load_classifier(str(checkpoint("bert-classifier")), device="cpu")
    with pytest.raises((AlignmentError, ConfigError), match=other.name):
        mx.tasks.reviews(other)
