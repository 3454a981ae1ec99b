"""Attribution of classifiers and encoders equals Captum, plain forward passes, and texts run one at a time."""

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ArtifactError, ConfigError, ModelSupportError, ShapeError
from mechxai.engine.execution import Execution
from tests.methods.attribution.cases import ATTENTION, COMPLETE, EVERY

TEXTS = ["Mary gave a drink to John.", "The keys are on the table, near the cabinet."]


@pytest.fixture(scope="session", params=["bert-classifier", "gpt2-classifier"])
def classifier(checkpoint, request):
    return mx.load_classifier(str(checkpoint(request.param)), device="cpu")


@pytest.fixture(scope="session")
def encoder(checkpoint):
    return mx.load_encoder(str(checkpoint("bert-encoder")), references=["a drink", "the old table"], device="cpu")


@pytest.mark.parametrize("method", EVERY, ids=lambda method: method.card.name)
def test_every_method_explains_a_classifier(classifier, method):
    batch = mx.tasks.prompts(classifier, texts=TEXTS)
    data = method(classifier, batch).data
    free = data["player_index"].values >= 0
    assert np.isfinite(data["value"].values[free]).all()
    assert np.isnan(data["value"].values[~free]).all()
    logits = classifier.logits(*[batch.clean], lengths=batch.lengths)[:, 0]
    top = logits.topk(2).values
    assert data["target_score"].values == pytest.approx((top[:, 0] - top[:, 1]).numpy(), abs=1e-5)
    if isinstance(method, COMPLETE):
        change = data["target_score"] - data["baseline_score"]
        assert (abs(data["delta"]) <= 0.05 * abs(change) + 1e-4).all()


@pytest.mark.parametrize("method", EVERY, ids=lambda method: method.card.name)
def test_padded_texts_equal_singles(classifier, method):
    together = method(classifier, mx.tasks.prompts(classifier, texts=TEXTS)).data["value"].values[0]
    alone = method(classifier, mx.tasks.prompts(classifier, texts=TEXTS[:1])).data["value"].values[0]
    assert together[: len(alone)] == pytest.approx(alone, abs=2e-5, nan_ok=True)


def test_texts_in_chunks_have_the_same_scores(classifier):
    batch = mx.tasks.prompts(classifier, texts=TEXTS)
    together = mx.Occlusion()(classifier, batch).data["value"].values
    one_by_one = mx.Occlusion()(classifier, batch, execution=Execution(tokens_per_wave=1)).data["value"].values
    assert one_by_one == pytest.approx(together, abs=2e-5, nan_ok=True)


def test_outputs_equal_hugging_faces(checkpoint, classifier):
    from transformers import AutoModelForSequenceClassification

    hf = AutoModelForSequenceClassification.from_pretrained(checkpoint(classifier.name)).eval()
    for text in TEXTS:
        tokens, lengths = classifier.tokens(text)
        found = classifier.logits(tokens, lengths=lengths)[0, 0]
        assert found.tolist() == pytest.approx(hf(tokens).logits[0].tolist(), abs=1e-5)
    tokens, lengths = classifier.tokens(TEXTS)
    padded = classifier.logits(tokens, lengths=lengths)[:, 0]
    assert padded[0].tolist() == pytest.approx(hf(classifier.tokens(TEXTS[0])[0]).logits[0].tolist(), abs=1e-5)


def test_integrated_gradients_of_a_class_equal_captums(checkpoint):
    from captum.attr import LayerIntegratedGradients
    from transformers import AutoModelForSequenceClassification

    model = mx.load_classifier(str(checkpoint("bert-classifier")), device="cpu")
    hf = AutoModelForSequenceClassification.from_pretrained(checkpoint("bert-classifier")).eval()
    batch = mx.tasks.prompts(model, texts=TEXTS[:1], answers=["POSITIVE"])
    assert model.outputs == ("NEGATIVE", "NEUTRAL", "POSITIVE")
    away = torch.where(batch.clean > 4, model.text.tokenizer.pad_token_id, batch.clean)
    captum = LayerIntegratedGradients(lambda ids: hf(ids).logits[:, 2], hf.bert.embeddings.word_embeddings)
    expected = captum.attribute(batch.clean, away, n_steps=50).sum(-1)[0].detach().numpy()
    found = mx.IntegratedGradients(metric="logit", max_steps=50)(model, batch).data["value"].values[0]
    there = ~np.isnan(found)
    assert found[there] == pytest.approx(expected[there], abs=1e-4)


def test_attention_of_a_classifier_is_its_answer_positions(classifier):
    batch = mx.tasks.prompts(classifier, texts=TEXTS)
    for method in ATTENTION:
        data = method(classifier, batch).data
        total = data["value"].sum("pos") + data["on_special"]
        assert total.values == pytest.approx(1, abs=1e-5)
    expected = [0, 0] if classifier.name.startswith("bert") else [int(n) - 1 for n in batch.lengths]
    assert batch.answer_pos.tolist() == expected


def test_an_encoder_is_scored_by_cosine_similarity(encoder):
    batch = mx.tasks.prompts(encoder, texts=TEXTS, answers=["a drink", "the old table"], wrong=["nothing", "a drink"])
    data = mx.Occlusion()(encoder, batch).data
    similar = encoder.logits(batch.clean, lengths=batch.lengths)[:, 0]
    assert float(similar.abs().max()) <= 1 + 1e-6
    assert (similar[:, 2] == 0).all()
    assert data["target_score"].values[0] == pytest.approx(float(similar[0, 0]), abs=1e-6)
    assert data["target_score"].values[1] == pytest.approx(float(similar[1, 1] - similar[1, 0]), abs=1e-6)
    own = encoder.logits(*encoder.tokens("a drink")[:1])[0, 0, 0]
    assert float(own) == pytest.approx(1, abs=1e-5)


def test_attributions_of_a_classifier_are_evaluated_and_compared(classifier):
    batch = mx.tasks.prompts(classifier, texts=TEXTS)
    few = {"random_draws": 3, "infidelity_draws": 6, "soft_draws": 1}
    result = mx.CompareAttributions(("integrated_gradients", "attention_scores", "occlusion"), **few)(classifier, batch)
    assert result.data.sizes["method"] == 3
    assert np.isfinite(result.data["comprehensiveness"].values).all()
    faithfulness = mx.Faithfulness("occlusion", **few, sensitivity_draws=1)(classifier, batch)
    assert np.isfinite(float(faithfulness.data["max_sensitivity"]))


def test_a_checkpoint_of_another_kind_is_refused(checkpoint, tmp_path):
    with pytest.raises(ModelSupportError, match="one label"):
        mx.load_classifier(str(checkpoint("bert-regressor")))
    with pytest.raises(ModelSupportError, match="load_classifier"):
        mx.load(str(checkpoint("bert-classifier")))
    with pytest.raises(ArtifactError, match="nowhere"):
        mx.load_classifier("nowhere-to-be-found")
    with pytest.raises(ConfigError, match="references"):
        mx.load_encoder(str(checkpoint("bert-encoder")), references=[])


def test_unknown_classes_are_refused(classifier):
    with pytest.raises(ConfigError, match="'HAPPY'"):
        mx.tasks.prompts(classifier, texts=TEXTS[:1], answers=["HAPPY"])
    with pytest.raises(ConfigError, match="9"):
        mx.tasks.prompts(classifier, texts=TEXTS[:1], answers=[9])
    with pytest.raises(ShapeError, match="n_ctx"):
        mx.tasks.prompts(classifier, texts=["Mary gave " * 60])
