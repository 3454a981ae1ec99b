"""Attribution of black boxes: by hand on a film critic, from texts with deletions; gradient methods are refused."""

import numpy as np
import pytest

import mechxai as mx
from mechxai.core.errors import ConfigError, ModelSupportError, ShapeError
from mechxai.model.sequence.word_pieces import Pieces

TEXTS = ["This film is not good, really.", "good"]
SCORES_ONLY = [mx.Occlusion(), mx.Lime(), mx.KernelShap(), mx.PartitionShap(), mx.ExactShapley()]


class Critic:
    """Scores ``good`` with 2, and a text with both ``not`` and ``good`` with -1; records the texts it scores."""

    def __init__(self):
        self.texts = []

    def __call__(self, texts):
        self.texts += texts
        return [[2.0 * ("good" in text) - 3.0 * ("not" in text and "good" in text), 0.0] for text in texts]


@pytest.fixture
def critic():
    return Critic()


@pytest.fixture
def box(critic):
    return mx.black_box(critic, ["positive", "negative"], name="film critic")


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


def test_it_scores_each_text_with_deletions_once(critic, box, batch):
    critic.texts.clear()
    mx.Occlusion()(box, batch)
    assert "This film is good, really." in critic.texts
    assert " film is not good, really." in critic.texts
    assert len(critic.texts) <= 10 + 2 + 2, "single deletions, full texts, empty texts"
    critic.texts.clear()
    mx.Lime()(box, batch)
    assert len(critic.texts) < 2**8 + 10


def test_an_ellipsis_can_replace_a_deleted_word(critic, box, batch):
    critic.texts.clear()
    mx.Occlusion(baseline="mask", players="word")(box, batch)
    assert "This film is ... good, really." in critic.texts


def test_counterfactual_words_can_replace_deleted_words(critic, box):
    batch = mx.tasks.prompts(
        box, texts=TEXTS[:1], answers=["positive"], wrong=["negative"], counterfactuals=["That play was so bad, today."]
    )
    critic.texts.clear()
    mx.Occlusion(baseline="counterfactual")(box, batch)
    assert "This film is so good, really." in critic.texts


def test_the_highest_output_is_the_default_answer(box):
    batch = mx.tasks.prompts(box, texts=TEXTS)
    assert batch.answers[:, 0, 0].tolist() == [1, 0]
    assert mx.Occlusion()(box, batch).data["target_score"].values.tolist() == [1, 2]


def test_faithfulness_and_comparison(box, batch):
    comparison = mx.CompareAttributions([mx.Occlusion(), mx.ExactShapley(), mx.Lime()])(box, batch)
    assert np.isfinite(comparison.data["comprehensiveness"].values).all()
    faithfulness = mx.Faithfulness(of="occlusion")(box, batch)
    assert np.isnan(faithfulness.data["max_sensitivity"]), "a black box has no embeddings to move"
    assert np.isnan(faithfulness.data["randomisation_similarity"])


@pytest.mark.parametrize(
    "method",
    [mx.Saliency(), mx.GradientXInput(), mx.IntegratedGradients(), mx.SmoothGrad(), mx.AttentionScores(), mx.AttentionRollout()],  # noqa: E501
    ids=lambda method: method.card.name,
)  # fmt: skip
def test_methods_that_need_internals_are_refused_before_any_call(critic, box, batch, method):
    critic.texts.clear()
    with pytest.raises(ModelSupportError, match=r"film critic is a black box.*Use occlusion, lime"):
        method(box, batch)
    assert not critic.texts


def test_bad_input(box, batch):
    with pytest.raises(ConfigError, match="the word is left out"):
        mx.Occlusion(baseline="mean")(box, batch)
    with pytest.raises(ConfigError, match="positive"):
        mx.tasks.prompts(box, texts=TEXTS[:1], answers=["positiv"], wrong=["negative"])
    for outputs in (["one"], ["a", "a"], ["a", ""]):
        with pytest.raises(ConfigError, match="two or more different names"):
            mx.black_box(len, outputs)
    for wrong in (lambda texts: [0.0] * len(texts), lambda texts: [[0.0, float("nan")]] * len(texts)):
        broken = mx.black_box(wrong, ["a", "b"])
        with pytest.raises(ShapeError, match="a row per text"):
            mx.tasks.prompts(broken, texts=TEXTS)


def test_joined_pieces_are_the_text():
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
