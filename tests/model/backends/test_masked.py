"""Masked models: bidirectional by their configuration, and read out through their own head; RoBERTa beside BERT."""

import importlib.util

import numpy as np
import pytest
import torch
import transformers

import mechxai as mx
from mechxai.core.errors import ModelSupportError
from tests.checkpoints import byte_pair_tokenizer, word_piece_tokenizer

LENGTHS = (9, 6)
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
HAS_ROBERTA = importlib.util.find_spec("transformer_lens.model_bridge.supported_architectures.roberta") is not None
KINDS = {"BertForMaskedLM": {"max_position_embeddings": 64}}
KINDS["RobertaForMaskedLM"] = {"max_position_embeddings": 66, "pad_token_id": 0}
needs_roberta = pytest.mark.skipif(not HAS_ROBERTA, reason="this TransformerLens has no RoBERTa")
MASKED = ["BertForMaskedLM", pytest.param("RobertaForMaskedLM", marks=needs_roberta)]


def write(folder, kind, *, tokenizer=None, **settings):
    """A random checkpoint of a model class with its tokenizer; returns the folder's name."""
    torch.manual_seed(0)
    tokenizer = tokenizer or word_piece_tokenizer()
    model_class = getattr(transformers, kind)
    model = model_class(model_class.config_class(vocab_size=len(tokenizer), **SIZES, **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.tie_weights()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """kind -> the loaded model, and Hugging Face's."""
    import functools

    @functools.cache
    def load(kind):
        name = write(tmp_path_factory.mktemp("masked") / kind, kind, **KINDS[kind])
        auto = transformers.AutoModelForMaskedLM
        return mx.load(name, device="cpu"), auto.from_pretrained(name, attn_implementation="eager").eval()

    return load


def contrast(model):
    generator = torch.Generator().manual_seed(1)
    clean = torch.randint(10, 190, (2, LENGTHS[0]), generator=generator)
    corrupted = clean.clone()
    corrupted[:, 2:4] = torch.randint(10, 190, (2, 2), generator=generator)
    mask = torch.arange(LENGTHS[0])[None] < torch.tensor(LENGTHS)[:, None]
    return mx.ContrastBatch.from_tokens(clean, corrupted, torch.tensor([50, 90]), torch.tensor([60, 120]), mask=mask)


def difference(hf, batch, row, tokens):
    """Hugging Face's logit difference of one prompt without padding."""
    with torch.no_grad():
        logits = hf(tokens[row : row + 1, : LENGTHS[row]]).logits[0, -1]
    return float(logits[int(batch.answers[row])] - logits[int(batch.wrong[row])])


@pytest.mark.parametrize("kind", MASKED)
def test_padded_prompts_have_their_own_logits(pair, kind):
    model, hf = pair(kind)
    batch = contrast(model)
    assert not model.architecture.causal
    together = model.logits(batch.clean, lengths=torch.tensor(LENGTHS)).log_softmax(-1)
    for row, length in enumerate(LENGTHS):
        with torch.no_grad():
            alone = hf(batch.clean[row : row + 1, :length]).logits[0].log_softmax(-1)
        torch.testing.assert_close(together[row, :length], alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", MASKED)
def test_the_last_lens_is_the_output(pair, kind):
    model, hf = pair(kind)
    batch = contrast(model)
    found = mx.LogitLens(k=3)(model, batch).data["target_logprob"].values[:, -1]
    for row, length in enumerate(LENGTHS):
        with torch.no_grad():
            logprobs = hf(batch.clean[row : row + 1, :length]).logits[0].log_softmax(-1)
        assert found[row, :length] == pytest.approx(logprobs[:, int(batch.answers[row])].numpy(), abs=1e-4)


@pytest.mark.parametrize("kind", MASKED)
def test_a_patch_is_that_of_hugging_face(pair, kind):
    """The residual stream of one position before block 1, patched by a hook on Hugging Face's own layer."""
    model, hf = pair(kind)
    batch = contrast(model)
    data = mx.ActivationPatching("resid_pre", ("layer", "pos"))(model, batch).data["per_example"]
    layer = hf.base_model.encoder.layer[1]
    stored = []

    def put(_, args):
        residual = args[0].clone()
        residual[:, 3] = stored[-1][:, 3]
        return (residual, *args[1:])

    for row in range(len(LENGTHS)):
        with layer.register_forward_pre_hook(lambda _, args: stored.append(args[0].clone())):
            difference(hf, batch, row, batch.clean)
        with layer.register_forward_pre_hook(put):
            expected = difference(hf, batch, row, batch.corrupted)
        found = data.transpose("prompt", "layer", "pos").values[row, 1, 3]
        assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", MASKED)
def test_patterns_are_hugging_faces(pair, kind):
    model, hf = pair(kind)
    batch = contrast(model)
    found = mx.AttentionPatterns(queries=False)(model, batch).data["pattern"].values
    for row, length in enumerate(LENGTHS):
        with torch.no_grad():
            expected = hf(batch.clean[row : row + 1, :length], output_attentions=True).attentions
        assert found[row, :, :, :length, :length] == pytest.approx(torch.cat(expected).numpy(), abs=1e-5)


@pytest.mark.parametrize("kind", MASKED)
@pytest.mark.parametrize("method", [mx.IntegratedGradients(), mx.KernelShap(n_samples=40, baseline="counterfactual")])
def test_attributions_explain_hugging_faces_difference(pair, kind, method):
    model, hf = pair(kind)
    batch = contrast(model)
    data = method(model, batch).data
    expected = [difference(hf, batch, row, batch.clean) for row in range(2)]
    assert data["target_score"].values == pytest.approx(expected, abs=1e-4)
    change = (data["target_score"] - data["baseline_score"]).values
    assert np.nansum(data["value"].values, 1) == pytest.approx(change, abs=0.05 * float(np.abs(change).max()))


@pytest.mark.parametrize("kind", MASKED)
def test_what_assumes_causal_attention_is_refused(pair, kind):
    model, _ = pair(kind)
    for method in (mx.DirectLogitAttribution(), mx.EdgePatching()):
        with pytest.raises(ModelSupportError, match=r"(?i)" + kind.removesuffix("ForMaskedLM")):
            method(model, contrast(model))
    with pytest.raises(ModelSupportError):
        model.generate("The capital", 3)


@pytest.mark.skipif(HAS_ROBERTA, reason="about TransformerLens without RoBERTa")
def test_roberta_is_refused_where_the_library_lacks_it(tmp_path):
    name = write(tmp_path / "mine", "RobertaForMaskedLM", **KINDS["RobertaForMaskedLM"])
    with pytest.raises(ModelSupportError, match="RobertaForMaskedLM"):
        mx.load(name, device="cpu")


def test_a_decoder_of_the_bert_family_is_causal(tmp_path):
    name = write(tmp_path / "mine", "BertLMHeadModel", is_decoder=True, max_position_embeddings=64)
    model = mx.load(name, device="cpu")
    assert model.architecture.causal
    hf = transformers.AutoModelForCausalLM.from_pretrained(name, attn_implementation="eager").eval()
    batch = contrast(model)
    found = mx.LogitLens(k=3)(model, batch).data["target_logprob"].values[0, -1]
    with torch.no_grad():
        expected = hf(batch.clean[:1]).logits[0].log_softmax(-1)[:, 50]
    assert found == pytest.approx(expected.numpy(), abs=1e-4)


def test_a_causal_model_that_sees_ahead_is_refused(tmp_path):
    """The configuration of a Gemma 3 that was made bidirectional, for embeddings."""
    settings = {"use_bidirectional_attention": True, "head_dim": 16, "num_key_value_heads": 2, "sliding_window": 8}
    name = write(tmp_path / "mine", "Gemma3ForCausalLM", tokenizer=byte_pair_tokenizer(), **settings)
    with pytest.raises(ModelSupportError, match="Gemma3ForCausalLM attends to later tokens"):
        mx.load(name, device="cpu")
