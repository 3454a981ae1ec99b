"""What a library raises while a model loads becomes one plain error with the family and the way out."""

import json

import pytest
import transformers

import mechxai as mx
from mechxai.core.errors import ArtifactError, ConfigError, MechXAIError, ModelSupportError, NoSpaceError
from mechxai.model.checkpoint.errors import LoadingErrors
from tests.model.checkpoint import faults


@pytest.fixture
def changed(checkpoint, tmp_path):
    """Settings of config.json -> the name of a Llama with these."""
    return lambda **settings: str(faults.set_config(faults.copy(checkpoint("llama"), tmp_path / "mine"), **settings))


def refusal(name, load=mx.load):
    with pytest.raises(MechXAIError) as caught:
        load(name, device="cpu")
    assert "Check the spelling" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("load", [mx.load, mx.load_classifier])
@pytest.mark.parametrize(
    ("method", "package"), [("gptq", "optimum"), ("awq", "gptqmodel"), ("torchao", "torchao"), ("eetq", "kernels")]
)
def test_quantised_checkpoints_without_their_package(changed, monkeypatch, load, method, package):
    monkeypatch.setattr("transformers.quantizers.auto.AutoHfQuantizer.from_config", raising_import_error(package))
    message = refusal(changed(quantization_config={"quant_method": method, "bits": 4, "group_size": 32}), load)
    assert f"it needs the package {package}" in message
    assert f"Run: pip install {package}." in message
    assert "(LlamaForCausalLM)" in message


def raising_import_error(package):
    def from_config(*args, **kwargs):
        raise ImportError(f"Loading this quantized model requires {package} (`pip install {package}`)")

    return from_config


def test_a_quantisation_that_transformers_does_not_know(changed):
    assert "quant_method='mine'" in refusal(changed(quantization_config={"quant_method": "mine"}))


def test_an_unknown_architecture(changed):
    message = refusal(changed(model_type="zzz", architectures=["ZzzForCausalLM"]))
    assert f"transformers {transformers.__version__} does not know its model_type 'zzz'" in message
    assert "(ZzzForCausalLM)" in message
    assert "Upgrade transformers" in message


def test_a_configuration_without_a_model_type(checkpoint, tmp_path):
    folder = faults.copy(checkpoint("llama"), tmp_path / "mine")
    (folder / "config.json").write_text("{}")
    assert "config.json without model_type" in refusal(str(folder))


def test_code_of_its_own(changed):
    message = refusal(changed(model_type="zzz", auto_map={"AutoConfig": "zzz.Config", "AutoModelForCausalLM": "zzz.M"}))
    assert "Python code of its own, which MechXAI never runs" in message


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"hidden_act": "nonsense"}, "'nonsense' is unknown"), ({"rope_parameters": {"rope_type": "odd"}}, "'odd'")],
)
def test_settings_that_the_library_does_not_know(changed, settings, reason):
    message = refusal(changed(**settings))
    assert reason in message
    assert "(LlamaForCausalLM)" in message


@pytest.mark.parametrize("content", ["{", '{"model": 3}'])
def test_a_damaged_tokenizer(checkpoint, tmp_path, content):
    folder = faults.copy(checkpoint("llama"), tmp_path / "mine")
    (folder / "tokenizer.json").write_text(content)
    refusal(str(folder))


@pytest.mark.parametrize(
    ("model_class", "settings", "reason"),
    [
        ("BertForQuestionAnswering", {}, "it is not a language model"),
        ("BertForTokenClassification", {}, "it is not a language model"),
        ("DistilBertForMaskedLM", {"dim": 64, "hidden_dim": 128, "n_layers": 2, "n_heads": 4}, "TransformerLens"),
        ("AlbertForMaskedLM", {"embedding_size": 32}, "TransformerLens"),
        ("ElectraForMaskedLM", {"embedding_size": 32}, "TransformerLens"),
        ("XLMRobertaForMaskedLM", {"pad_token_id": 0}, "TransformerLens"),
    ],
)
def test_models_of_another_kind(checkpoint, tmp_path, model_class, settings, reason):
    folder = faults.copy(checkpoint("bert"), tmp_path / "mine")
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    kind = getattr(transformers, model_class)
    kind(kind.config_class(vocab_size=300, **sizes, **settings)).save_pretrained(folder)
    message = refusal(str(folder))
    assert model_class in message
    assert reason in message


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (ImportError("this needs `pip install -U gptqmodel`"), ModelSupportError, "Run: pip install gptqmodel"),
        (ModuleNotFoundError("No module named 'awq.nn'", name="awq.nn"), ModelSupportError, "Run: pip install awq"),
        (
            ValueError("Install sentencepiece to convert it"),
            ModelSupportError,
            "its tokenizer needs the package sentencep",
        ),
        (
            ValueError("Could not determine supported architecture"),
            ModelSupportError,
            "TransformerLens .* does not support",
        ),
        (OSError("Disk quota exceeded"), ArtifactError, "transformers stops with OSError: Disk quota exceeded"),
        (MemoryError("8 bytes"), NoSpaceError, r"the memory does not suffice \(8 bytes\)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), NoSpaceError, "the memory does not suffice"),
        (RuntimeError("odd"), ModelSupportError, "stops with RuntimeError: odd"),
        (AssertionError(), ModelSupportError, "stops with AssertionError: no reason was given"),
        (Exception("plain"), ModelSupportError, "stops with Exception: plain"),
    ],
)
def test_any_exception(tmp_path, error, kind, reason):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["OddForCausalLM"]}))
    with (
        pytest.raises(kind, match=rf"\(OddForCausalLM\) cannot be loaded.*{reason}") as caught,
        LoadingErrors(str(tmp_path)),
    ):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [ConfigError("mine"), KeyboardInterrupt()])
def test_own_errors_and_interrupts_pass(error):
    with pytest.raises(type(error)) as caught, LoadingErrors("mine"):
        raise error
    assert caught.value is error


def test_an_id_that_leads_nowhere():
    with pytest.raises(ArtifactError, match="Check the spelling, or the network"):
        mx.load_classifier("no/such-model", device="cpu")
