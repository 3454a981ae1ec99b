"""Functions from texts to scores are explained by what they say of texts with gaps; what looks inside is refused."""

import numpy as np
import pytest

import mechxai as mx
from mechxai.core.errors import ConfigError, ModelSupportError, ShapeError
from mechxai.model.sequence.word_pieces import Pieces

TEXTS = ["This film is not good, really.", "good"]
SCORES_ONLY = [mx.Occlusion(), mx.Lime(), mx.KernelShap(), mx.PartitionShap(), mx.ExactShapley()]


class Asked:
    """``good`` counts 2, unless ``not`` stands before it: then the pair counts -1. Writes down what it is asked."""

    def __init__(self):
        self.texts = []

    def __call__(self, texts):
        self.texts += texts
        return [[2.0 * ("good" in text) - 3.0 * ("not" in text and "good" in text), 0.0] for text in texts]


@pytest.fixture
def asked():
    return Asked()


@pytest.fixture
def box(asked):
    return mx.black_box(asked, ["positive", "negative"], name="film critic")


@pytest.fixture
def batch(box):
    return mx.tasks.prompts(box, texts=TEXTS, answers=["positive"] * 2, wrong=["negative"] * 2)


def test_by_hand(box, batch):
    occluded = mx.Occlusion()(box, batch).data
    assert occluded["value"].values[0].tolist() == [0, 0, 0, -3, -1, 0, 0, 0]
    assert occluded["target_score"].values.tolist() == [-1, 2]
    assert [name.strip() for name in occluded["player_name"].values[0]] == [
        "This",
        "film",
        "is",
        "not",
        "good",
        ",",
        "really",
        ".",
    ]
    assert occluded["target"].values[0] == "positive − negative"  # noqa: RUF001 - a minus sign
    for method in (mx.ExactShapley(), mx.KernelShap(), mx.PartitionShap(players="word")):
        found = method(box, batch).data
        assert found["value"].values[0] == pytest.approx([0, 0, 0, -1.5, 0.5, 0, 0, 0], abs=1e-6)
        assert found["delta"].values == pytest.approx([0, 0], abs=1e-6)


def test_it_sees_texts_with_gaps_and_each_once(asked, box, batch):
    asked.texts.clear()
    mx.Occlusion()(box, batch)
    assert "This film is good, really." in asked.texts
    assert " film is not good, really." in asked.texts
    assert len(asked.texts) <= 10 + 2 + 2, "gaps, wholes, nothing left"
    asked.texts.clear()
    mx.Lime()(box, batch)
    assert len(asked.texts) < 2**8 + 10


def test_an_ellipsis_may_stand_in_the_gap(asked, box, batch):
    asked.texts.clear()
    mx.Occlusion(baseline="mask", players="word")(box, batch)
    assert "This film is ... good, really." in asked.texts


def test_counterfactual_words_may_stand_in_the_gap(asked, box):
    batch = mx.tasks.prompts(
        box, texts=TEXTS[:1], answers=["positive"], wrong=["negative"], counterfactuals=["That play was so bad, today."]
    )
    asked.texts.clear()
    mx.Occlusion(baseline="counterfactual")(box, batch)
    assert "This film is so good, really." in asked.texts


def test_what_it_says_first_is_explained_by_default(box):
    batch = mx.tasks.prompts(box, texts=TEXTS)
    assert batch.answers[:, 0, 0].tolist() == [1, 0]
    assert mx.Occlusion()(box, batch).data["target_score"].values.tolist() == [1, 2]


def test_faithfulness_and_comparison(box, batch):
    compared = mx.CompareAttributions([mx.Occlusion(), mx.ExactShapley(), mx.Lime()])(box, batch)
    assert np.isfinite(compared.data["comprehensiveness"].values).all()
    judged = mx.Faithfulness(of="occlusion")(box, batch)
    assert np.isnan(judged.data["max_sensitivity"]), "nothing lies between two words"
    assert np.isnan(judged.data["randomisation_similarity"])


@pytest.mark.parametrize(
    "method",
    [mx.Saliency(), mx.GradientXInput(), mx.IntegratedGradients(), mx.SmoothGrad(), mx.AttentionScores(), mx.AttentionRollout()],  # noqa: E501
    ids=lambda method: method.card.name,
)  # fmt: skip
def test_what_looks_inside_is_refused_before_anything_is_asked(asked, box, batch, method):
    asked.texts.clear()
    with pytest.raises(ModelSupportError, match=r"film critic is a black box.*Use occlusion, lime"):
        method(box, batch)
    assert not asked.texts


def test_bad_input(box, batch):
    with pytest.raises(ConfigError, match="the word is left out"):
        mx.Occlusion(baseline="mean")(box, batch)
    with pytest.raises(ConfigError, match="positive"):
        mx.tasks.prompts(box, texts=TEXTS[:1], answers=["positiv"], wrong=["negative"])
    for outputs in (["one"], ["a", "a"], ["a", ""]):
        with pytest.raises(ConfigError, match="two or more, each once"):
            mx.black_box(len, outputs)
    for wrong in (lambda texts: [0.0] * len(texts), lambda texts: [[0.0, float("nan")]] * len(texts)):
        broken = mx.black_box(wrong, ["a", "b"])
        with pytest.raises(ShapeError, match="a row per text"):
            mx.tasks.prompts(broken, texts=TEXTS)


def test_pieces_put_together_are_the_text():
    for text in ("", "  two  spaces ", "don't (ever) stop!\nNow: <b>1,000</b> größer", "日本語 text"):
        pieces = Pieces()
        found = pieces(text, return_offsets_mapping=True)
        assert pieces.decode(found["input_ids"]) == text
        assert "".join(text[low:high] for low, high in found["offset_mapping"]) == text
        assert Pieces()(text)["input_ids"] == found["input_ids"], "the same numbers everywhere"
    assert Pieces()("a b")["input_ids"] != Pieces()("a c")["input_ids"]


def test_the_page_shows_the_words(box, batch):
    shown = mx.token_html(mx.Occlusion()(box, batch))
    assert "not" in shown
    assert "film critic" in shown or "good" in shown
