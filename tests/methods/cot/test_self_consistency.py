"""Votes of sampled chains, by hand on a scripted model."""

from collections import Counter

import numpy as np
import pytest

import mechxai as mx
from mechxai.methods.cot.self_consistency import majority
from tests.methods.cot.scripted import Scripted, reads_last, reads_question


def test_votes_by_hand(batch):
    """The first problem's chains end in 6, 6, 5 in turn; the second's always in 5."""
    drawn = lambda question, seed: (  # noqa: E731
        f" 3 plus 3 is {(6, 6, 5)[seed // 100_003 % 3]}." if question.startswith("1") else " 6 minus 1 is 5."
    )
    data = mx.SelfConsistency(samples=6, low=0.7)(Scripted(batch, reads_last, drawn), batch).data
    counts = Counter((6, 6, 5)[number % 3] for number in range(1, 7))
    assert counts == {6: 4, 5: 2}
    np.testing.assert_allclose(data["vote_share"].values, [4 / 6, 1])
    share = np.array([4 / 6, 2 / 6])
    np.testing.assert_allclose(data["entropy"].values, [-(share * np.log2(share)).sum(), 0])
    assert list(data["low_agreement"].values) == [1, 0]
    assert float(data["value"]) == float(data["accuracy"]) == 1
    assert float(data["accuracy_single"]) == pytest.approx((4 / 6 + 1) / 2)
    assert float(data["accuracy_by_n"].sel(n_samples=1)) == pytest.approx((4 / 6 + 1) / 2, abs=0.08)
    assert float(data["accuracy_by_n"].sel(n_samples=6)) == 1
    assert list(data["candidate"].values[0, :2]) == ["6", "5"]
    assert list(data["votes"].values[0, :3]) == [4, 2, 0]
    assert float(data["follows_chain"]) == 1
    assert int(data["n_astray"]) == 1
    deaf = mx.SelfConsistency(samples=6)(Scripted(batch, reads_question, drawn), batch).data
    assert float(deaf["follows_chain"]) == 0


def test_ties_go_to_what_came_first():
    assert majority(["3", "2", "2", "3"]) == "3"
    assert majority([None, "2", None]) == "2"
    assert majority([None, None]) is None
