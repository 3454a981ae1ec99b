"""Stability over rephrasings: by hand, against chance, and refusals."""

import numpy as np
import pytest

import mechxai as mx
from mechxai.core.errors import ConfigError, ShapeError
from mechxai.methods.attribution.rephrasing_stability import (
    _bootstrap_interval,
    _pairwise_agreement,
    _word_scores,
    _word_shares,
)

IOI = (
    "When Mary and John went to the store , John gave a drink to",
    "Then , Mary and John went to the store . John gave a drink to",
    "After Mary and John went to the store , John decided to give a drink to",
)


def test_words_pairs_and_intervals_by_hand():
    rows = [
        _word_scores((" The", " cat", " the", "."), np.array([3.0, 2.0, 1.0, 9.0]), (".",)),
        _word_scores((" cat", " the", " the", " dog"), np.array([2.0, 3.0, 1.0, 5.0]), (".",)),
        _word_scores((" cat", " the", " the"), np.array([1.0, 2.0, 3.0]), (".",)),
    ]
    assert rows[0] == {("the", 0): 3.0, ("cat", 0): 2.0, ("the", 1): 1.0}
    shared, agreement = _pairwise_agreement(rows)
    assert shared.tolist() == [[3, 3, 3], [3, 4, 3], [3, 3, 3]]
    assert agreement[0, 1] == pytest.approx(1)
    assert np.isnan(agreement[0, 0])
    assert agreement[0, 2] == pytest.approx(-0.5)  # the, cat, the: ranks 3 2 1 against 2 1 3
    low, high = _bootstrap_interval(agreement)
    assert low <= np.nanmean(agreement) <= high
    words, shares = _word_shares(rows)
    assert set(words) == {"the", "cat", "the (2)"}
    assert shares[:, words.index("cat")] == pytest.approx([2 / 6, 2 / 11, 1 / 6])


def test_the_same_prompt_twice_is_perfectly_stable(zoo):
    batch = mx.tasks.prompts(zoo, texts=[IOI[0]] * 3, answers=[" Mary"] * 3, wrong=[" John"] * 3)
    data = mx.RephrasingStability("occlusion")(zoo, batch).data
    assert float(data["stability"]) == pytest.approx(1)
    assert float(data["stability_low"]) == pytest.approx(1)
    assert np.abs(data["spread"].values).max() < 1e-4
    assert abs(float(data["stability_random"])) < 0.2


def test_rephrasings_agree_better_than_chance(zoo):
    batch = mx.tasks.prompts(zoo, texts=IOI, answers=[" Mary"] * 3, wrong=[" John"] * 3)
    result = mx.RephrasingStability(mx.KernelShap(n_samples=300))(zoo, batch)
    assert float(result.data["stability"]) > 0.4 > float(result.data["stability_random"])
    assert result.data["word"].values[0] == "mary"
    assert mx.plot(result).layout.title.text


def test_rephrasings_without_shared_words_are_refused(zoo):
    one = mx.tasks.prompts(zoo, texts=IOI[:1])
    with pytest.raises(ShapeError, match="two or more"):
        mx.RephrasingStability("occlusion")(zoo, one)
    with pytest.raises(ShapeError, match="share 3 words"):
        mx.RephrasingStability("occlusion")(zoo, mx.tasks.prompts(zoo, texts=["Mary and John", "the store"]))
    with pytest.raises(ConfigError, match="Did you mean 'word'"):
        mx.RephrasingStability(players="words")
    with pytest.raises(ConfigError, match="shuffles"):
        mx.RephrasingStability(shuffles=0)
