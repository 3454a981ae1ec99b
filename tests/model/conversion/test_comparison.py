"""The comparison with Hugging Face while loading: what passes equals Hugging Face, and every error is noticed."""

import json
import logging
import re
from dataclasses import replace

import pytest
import torch
import transformers

import mechxai as mx
from mechxai.core.errors import ModelSupportError, NumericsError
from mechxai.model.backends.base import modules
from mechxai.model.backends.bridge import BridgeBackend
from mechxai.model.conversion import convert, probe_prompts, selection
from mechxai.runs.folder import run_id
from tests.checkpoints import byte_pair_tokenizer
from tests.conftest import BACKENDS, has_hooked_transformer

needs_hooked_transformer = pytest.mark.skipif(
    not has_hooked_transformer(), reason="TransformerLens 4 has no HookedTransformer"
)
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"max_position_embeddings": 64, "num_key_value_heads": 2}
BASE = {"rope_type": "default", "rope_theta": 10000.0}
LONGROPE = BASE | {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.2, 1.4, 1.6],
    "long_factor": [2.0, 2.6, 3.2, 3.8],
    "original_max_position_embeddings": 20,
}
YARN = BASE | {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
DYNAMIC = BASE | {"rope_type": "dynamic", "factor": 4.0, "original_max_position_embeddings": 16}
WINDOWS = {"sliding_window": 9, "layer_types": ["sliding_attention", "full_attention"]}
FAMILIES = {
    "yarn": ("Qwen2", {"rope_parameters": YARN}),
    "linear": ("Llama", {"rope_parameters": BASE | {"rope_type": "linear", "factor": 4.0}}),
    "dynamic": ("Llama", {"rope_parameters": DYNAMIC}),
    "longrope": ("Phi3", {"rope_parameters": LONGROPE, "original_max_position_embeddings": 20, "pad_token_id": 0}),
    "partial_rotary": ("Phi3", {"rope_parameters": BASE | {"partial_rotary_factor": 0.5}, "pad_token_id": 0}),
    "attention_bias": ("Llama", {"attention_bias": True}),
    "mlp_bias": ("Llama", {"mlp_bias": True}),
    "head_dim": ("Llama", {"head_dim": 12}),
    "window": ("Mistral", {"sliding_window": 9}),
    "max_window_layers": ("Qwen2", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}),
    "olmo3": ("Olmo3", WINDOWS),
    "gpt_oss": ("GptOss", {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, **WINDOWS}),
    "gpt_neo": ("GPTNeo", {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 9}),
    "qwen2": ("Qwen2", {}),
    "bloom": ("Bloom", {"n_layer": 2, "n_head": 4, "apply_residual_connection_post_layernorm": True}),
}


def write(folder, family, **settings):
    """A random checkpoint of a family, with every bias and norm weight away from 0 and 1."""
    torch.manual_seed(0)
    tokenizer = byte_pair_tokenizer()
    config = getattr(transformers, f"{family}Config")(
        vocab_size=len(tokenizer), **SIZES | {"bos_token_id": 0, "eos_token_id": 0} | settings
    )
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.25)
        else:
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """name -> folder of a checkpoint."""
    folders = {}

    def make(name):
        if name not in folders:
            kind, settings = FAMILIES[name]
            folders[name] = write(tmp_path_factory.mktemp(name) / name, kind, **settings)
        return folders[name]

    return make


def theirs(folder, tokens, dtype=torch.float32):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=dtype).eval()
    with torch.no_grad():
        return model(tokens).logits.float().log_softmax(-1)


def prompt(n_tokens, seed=3):
    return torch.randint(10, 190, (1, n_tokens), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", FAMILIES)
def test_what_auto_loads_is_hugging_faces_model(family, name):
    """On prompts shorter and longer than every window and threshold, of other tokens than those compared."""
    model = mx.load(family(name), device="cpu")
    for n_tokens in (5, 14, 30):
        tokens = prompt(n_tokens)
        expected = theirs(family(name), tokens)
        torch.testing.assert_close(model.logits(tokens).log_softmax(-1), expected, atol=1e-3, rtol=0)
    assert model.comparison.difference < model.comparison.tolerance < 0.01
    assert max(model.comparison.lengths) > 20
    assert model.comparison.longest is None


DROPPED = ["yarn", "linear", "longrope", "partial_rotary", "attention_bias", "mlp_bias", "max_window_layers"]


@needs_hooked_transformer
@pytest.mark.parametrize("name", [*DROPPED, "bloom"])
def test_a_wrong_hooked_transformer_is_refused_by_name_and_replaced_by_auto(family, name, caplog):
    with pytest.raises(
        ModelSupportError,
        match=r"does not give Hugging Face's log-probabilities.*hooked_transformer with .* weights differs by \d.* on "
        r"a prompt of \d+ tokens.*Use backend='bridge' or 'auto'",
    ):
        mx.load(family(name), backend="hooked_transformer", device="cpu")
    assert not caplog.records
    model = mx.load(family(name), device="cpu")
    assert model.backend.name == "bridge"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "using backend='bridge'" in record.message
    assert re.search(r"hooked_transformer with folded (and raw )?weights differs by \d", record.message)
    assert model.comparison.rejected[0].difference > 0.1


@needs_hooked_transformer
@pytest.mark.parametrize("name", ["head_dim", "gpt_neo"])
def test_what_hooked_transformer_cannot_hold_is_refused_by_name_and_left_to_the_bridge(family, name):
    with pytest.raises(
        ModelSupportError,
        match=r"backend='hooked_transformer' does not support \w+ForCausalLM: TransformerLens stops with .*Use "
        r"backend='bridge' or 'auto'",
    ):
        mx.load(family(name), backend="hooked_transformer", processing="raw", device="cpu")
    model = mx.load(family(name), device="cpu")
    assert model.backend.name == "bridge"


@pytest.mark.parametrize("name", ["gpt_oss", "bloom"])
def test_folding_that_changes_the_model_is_refused_by_name_and_left_out_by_auto(family, name, caplog):
    with pytest.raises(ModelSupportError, match=r"folded weights differs by .*Use .*processing='raw' or 'auto'"):
        mx.load(family(name), processing="folded", backend="bridge", device="cpu")
    model = mx.load(family(name), device="cpu")
    assert model.processing == model.info()["processing"] == "raw"
    assert "processing='raw'" in caplog.records[-1].message


def test_where_no_form_is_right_every_difference_is_given(family, monkeypatch):
    monkeypatch.setattr(selection, "largest_difference", lambda *_: (2.5, "a prompt of 7 tokens"))
    with pytest.raises(ModelSupportError, match=r"bridge with folded and raw weights differs by 2.5 on a prompt of 7"):
        mx.load(family("window"), device="cpu")


# Each step of loading, broken -----------------------------------------------------------------------------------------


def scaled(state, key):
    state[key] = 1.01 * state[key]


def swapped(state, key, other):
    state[key], state[other] = state[other], state[key]


STATE_ERRORS = {
    "a weight of attention scaled": lambda state: scaled(state, "blocks.1.attn.W_Q"),
    "a weight of the MLP scaled": lambda state: scaled(state, "blocks.0.mlp.W_in"),
    "the embedding scaled": lambda state: scaled(state, "embed.W_E"),
    "the unembedding scaled": lambda state: scaled(state, "unembed.W_U"),
    "a norm dropped": lambda state: state.update({"ln_final.w": torch.ones_like(state["ln_final.w"])}),
    "a bias dropped": lambda state: state.update({"blocks.0.attn.b_Q": torch.zeros_like(state["blocks.0.attn.b_Q"])}),
    "gate and input swapped": lambda state: swapped(state, "blocks.0.mlp.W_gate", "blocks.0.mlp.W_in"),
    "heads in another order": lambda state: state.update({"blocks.1.attn.W_Q": state["blocks.1.attn.W_Q"].flip(0)}),
    "a tensor missing": lambda state: state.pop("blocks.1.mlp.W_out"),
}
CONFIG_ERRORS = {
    "another rotary base": {"rotary_base": 11000},
    "a window too short": {"window_size": 8},
    "a window too long": {"window_size": 10},
    "another activation": {"act_fn": "gelu"},
    "another scale of scores": {"attn_scale": 2.9},
    "another epsilon": {"eps": 1e-2},
}


@needs_hooked_transformer
@pytest.mark.parametrize("error", [*STATE_ERRORS, *CONFIG_ERRORS])
@pytest.mark.parametrize("processing", ["folded", "raw"])
def test_every_error_of_the_conversion_to_hooked_transformer_is_noticed(family, monkeypatch, error, processing):
    original = convert.HookedTransformerParts.__init__

    def broken(self, *args, **kwargs):
        original(self, *args, **kwargs)
        STATE_ERRORS.get(error, lambda _: None)(self.state)
        for name, value in CONFIG_ERRORS.get(error, {}).items():
            assert getattr(self.cfg, name) != value
            setattr(self.cfg, name, value)

    folder = family("window" if "window" in error else "qwen2")
    options = {"backend": "hooked_transformer", "processing": processing, "device": "cpu"}
    mx.load(folder, **options)
    monkeypatch.setattr(convert.HookedTransformerParts, "__init__", broken)
    with pytest.raises(ModelSupportError, match="hooked_transformer"):
        mx.load(folder, **options)


@needs_hooked_transformer
def test_folding_that_goes_wrong_is_noticed(family, monkeypatch):
    from transformer_lens.weight_processing import ProcessWeights

    original = ProcessWeights.process_weights

    def broken(state, cfg, **options):
        folded = original(state, cfg, **options)
        if options["fold_ln"]:
            scaled(folded, "blocks.0.attn._W_V")
        return folded

    monkeypatch.setattr(ProcessWeights, "process_weights", broken)
    with pytest.raises(ModelSupportError, match="hooked_transformer with folded weights differs by"):
        mx.load(family("window"), backend="hooked_transformer", processing="folded", device="cpu")
    assert mx.load(family("window"), backend="hooked_transformer", device="cpu").processing == "raw"


def rotary_shifted(hf_model):
    hf_model.model.rotary_emb.inv_freq *= 1.01


def weight_scaled(hf_model):
    hf_model.model.layers[1].self_attn.v_proj.weight.data *= 1.01


def window_moved(hf_model):
    hf_model.config.sliding_window -= 1


@pytest.mark.parametrize("error", [rotary_shifted, weight_scaled, window_moved])
@pytest.mark.parametrize("processing", ["folded", "raw"])
def test_every_error_of_the_conversion_to_a_bridge_is_noticed(family, monkeypatch, error, processing):
    original = selection.bridge

    def broken(hf_model, *args, **kwargs):
        error(hf_model)
        return original(hf_model, *args, **kwargs)

    monkeypatch.setattr(selection, "bridge", broken)
    with pytest.raises(ModelSupportError, match=rf"bridge with {processing} weights differs by"):
        mx.load(family("window"), backend="bridge", processing=processing, device="cpu")


def test_an_error_in_padded_batches_alone_is_noticed(family, monkeypatch):
    original = BridgeBackend.run

    def broken(self, tokens, mask):
        logits = original(self, tokens, mask)
        return logits if len(tokens) == 1 else logits.roll(1, 0)

    monkeypatch.setattr(BridgeBackend, "run", broken)
    with pytest.raises(ModelSupportError, match="a padded batch"):
        mx.load(family("window"), backend="bridge", device="cpu")


def test_a_model_that_does_not_run_after_conversion_is_refused_with_its_family(family, monkeypatch):
    def fails(*_):
        raise TypeError("forward() got an unexpected keyword argument")

    monkeypatch.setattr(BridgeBackend, "run", fails)
    with pytest.raises(
        ModelSupportError, match=r"backend='bridge' does not support MistralForCausalLM.*unexpected keyword"
    ):
        mx.load(family("window"), backend="bridge", device="cpu")


# Dtypes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("processing", ["folded", "raw"])
def test_half_precision_is_compared_before_and_after_it_is_rounded(family, backend, processing):
    model = mx.load(family("window"), backend=backend, processing=processing, dtype="bfloat16", device="cpu")
    assert {parameter.dtype for parameter in model.inner.parameters()} == {torch.bfloat16}
    assert model.comparison.dtype == "float32"
    assert model.comparison.difference < 1e-4 < model.comparison.rounding < 0.3
    tokens = prompt(30)
    found, expected = model.logits(tokens).float().log_softmax(-1), theirs(family("window"), tokens)
    their_rounding = (theirs(family("window"), tokens, torch.bfloat16) - expected).abs().max()
    assert (found - expected).abs().max() < 4 * their_rounding


@pytest.mark.parametrize("processing", ["folded", "raw"])
def test_rotary_frequencies_stay_in_full_precision(family, processing):
    """Rounded to bfloat16, angles are wrong by a radian at position 500."""
    model = mx.load(family("window"), backend="bridge", processing=processing, dtype="bfloat16", device="cpu")
    frequencies = [module.inv_freq for module in modules(model.backend) if "inv_freq" in module._buffers]
    assert frequencies
    assert {frequency.dtype for frequency in frequencies} == {torch.float32}


def test_an_overflow_in_the_wanted_dtype_is_refused(tmp_path):
    folder = write(tmp_path / "wide", "Mistral", sliding_window=None)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model.lm_head.weight.data *= 1e6
    model.save_pretrained(folder)
    mx.load(folder, device="cpu")
    with pytest.raises(NumericsError, match=r"NaN or infinite logits in float16.*Use dtype='bfloat16' or 'float32'"):
        mx.load(folder, device="cpu", dtype="float16")


# The record -----------------------------------------------------------------------------------------------------------


def test_the_record_stands_in_results_and_summaries_and_changes_no_run_id(family):
    model = mx.load(family("window"), device="cpu")
    record = json.loads(json.dumps(model.info()["comparison"]))
    assert record["difference"] <= record["tolerance"]
    assert record["lengths"] == [32, 12, 7]
    assert "equal to Hugging Face" in repr(model)
    wrapped = mx.wrap(model.inner)
    assert wrapped.comparison is None
    assert wrapped.info()["comparison"] is None
    assert "not compared with Hugging Face" in repr(wrapped)
    batch = mx.ContrastBatch.from_tokens(prompt(6), prompt(6, 4), torch.tensor([20]), torch.tensor([30]))
    method = mx.LogitLens()
    without = replace(model, comparison=None)
    assert run_id(model, batch, method, seed=0) == run_id(without, batch, method, seed=0)
    assert method(model, batch).info.model["comparison"]["lengths"]


def test_a_length_that_is_too_expensive_is_named_and_warned_of_once(family, monkeypatch, caplog):
    monkeypatch.setitem(probe_prompts._BUDGET, "cpu", 0)
    model = mx.load(family("longrope"), backend="bridge", device="cpu")
    assert model.comparison.longest == 20
    assert "equal to Hugging Face up to 20 tokens" in repr(model)
    model.logits(prompt(20))
    assert not caplog.records
    model.logits(prompt(21))
    model.logits(prompt(22))
    (record,) = caplog.records
    assert "compared with Hugging Face up to 20 tokens" in record.message


@pytest.mark.parametrize(
    ("settings", "named", "switching"),
    [
        ({"sliding_window": 4096}, [4096], {4096}),
        ({"text_config": {"attention_chunk_size": 8192, "floor_scale": 512}}, [512, 8192], {512, 8192}),
        ({"rope_parameters": {"full": {"rope_type": "longrope", "original_max_position_embeddings": 99}}}, [99], {99}),
        ({"rope_parameters": YARN, "max_position_embeddings": 90}, [16, 90], {90}),
        ({"window_size": 256, "max_window_layers": 28, "num_hidden_layers": 5}, [256], {256}),
        ({"local_attention": 128, "sliding_window": None, "use_sliding_window": True}, [128], {128}),
    ],
)  # fmt: skip
def test_windows_and_thresholds_are_read_anywhere_in_a_configuration(settings, named, switching):
    config = transformers.PretrainedConfig.from_dict({"model_type": "new", **settings})
    assert [length for length in probe_prompts.named_lengths(config) if length != 20] == named
    assert probe_prompts.switching_lengths(config) - {20} == switching


def test_probe_prompts_have_no_special_tokens_and_do_not_change(family):
    hf_model = transformers.AutoModelForCausalLM.from_pretrained(family("window"))
    tokenizer = byte_pair_tokenizer()
    first, second = (probe_prompts.probe_prompts(hf_model, tokenizer, torch.device("cpu")) for _ in range(2))
    assert torch.equal(first.long, second.long)
    ids = torch.cat([first.long, *first.short], 1)
    assert not set(ids.flatten().tolist()) & {*tokenizer.all_special_ids, hf_model.config.bos_token_id}
    assert int(ids.max()) < hf_model.config.vocab_size
