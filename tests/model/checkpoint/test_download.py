"""Hugging Face ids: the files in the cache are checked like a folder's, and an id that exists is never doubted."""

import json

import huggingface_hub
import pytest
from safetensors.torch import load_file, save_file

import mechxai as mx
from mechxai.core.errors import ArtifactError, ModelSupportError
from tests import checkpoints
from tests.model.checkpoint import faults

COMMIT = "a" * 40
QUERY = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """kind -> (an id, its folder in a cache of downloads), without a network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def write(kind="llama"):
        repository = tmp_path / "models--someone--mine"
        folder = repository / "snapshots" / COMMIT
        checkpoints.write(kind, folder)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(COMMIT)
        return "someone/mine", folder

    return write


def test_a_whole_one_loads_as_its_folder(cached):
    name, folder = cached()
    model = mx.load(name, device="cpu")
    assert model.name == name
    assert model.weight_hash == mx.load(str(folder), device="cpu").weight_hash


@pytest.mark.parametrize("load", [mx.load, mx.load_classifier])
def test_weights_in_another_format(cached, load):
    name, folder = cached()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match=r"'someone/mine' \(LlamaForCausalLM\).*no weights in the safetensors") as e:
        load(name, device="cpu")
    assert "save_pretrained" in str(e.value)
    assert "spelling" not in str(e.value)


def test_a_truncated_file(cached):
    name, folder = cached()
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ArtifactError, match=r"model.safetensors \(\d+ bytes\) is truncated or damaged"):
        mx.load(name, device="cpu")


def test_a_shard_that_was_never_downloaded(cached):
    name, folder = cached()
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = dict.fromkeys(tensors, "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    with pytest.raises(ArtifactError, match="not all of its files are in the cache") as e:
        mx.load(name, device="cpu")
    assert "spelling" not in str(e.value)
    save_file(tensors, folder / "model-00001-of-00001.safetensors", metadata={"format": "pt"})
    mx.load(name, device="cpu")


def test_sizes_beyond_the_files_are_found_before_memory_is_allocated(cached):
    name, folder = cached()
    faults.set_config(folder, intermediate_size=9_000_000)
    with pytest.raises(ArtifactError, match=r"a model of \d+ parameters, but its files hold \d+"):
        mx.load(name, device="cpu")


@pytest.mark.parametrize("with_base", [False, True])
def test_an_adapter(cached, with_base):
    """Beside a whole model too: transformers would put it into the weights."""
    name, folder = cached()
    if not with_base:
        (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "someone/base"}))
    with pytest.raises(ModelSupportError, match=r"holds an adapter .* of the model 'someone/base'"):
        mx.load(name, device="cpu")


def test_missing_tensors(cached):
    name, folder = cached()
    faults.edit_tensors(folder, lambda tensors: tensors.pop(QUERY))
    with pytest.raises(ArtifactError, match=rf"\(LlamaForCausalLM\).*its files lack tensors of the model: {QUERY}"):
        mx.load(name, device="cpu")
