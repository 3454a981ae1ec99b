"""Damaged, incomplete and foreign files are refused before a weight is read, with the file's name and the way out."""

import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file

import mechxai as mx
from mechxai.core.errors import ArtifactError, ModelSupportError
from mechxai.model.checkpoint.files import check_folder
from tests.model.checkpoint import faults


@pytest.fixture
def folder(checkpoint, tmp_path):
    """A copy of the tiny Llama."""
    return faults.copy(checkpoint("llama"), tmp_path / "mine")


@pytest.fixture
def sharded(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return folder


def shard(folder, number):
    return sorted(folder.glob("model-*.safetensors"))[number]


def refusal(folder, load=mx.load):
    with pytest.raises((ArtifactError, ModelSupportError)) as caught:
        load(str(folder), device="cpu")
    assert "Check the spelling" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("load", [mx.load, mx.load_classifier])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[: len(data) // 2], "truncated or damaged"),
        (lambda data: data[:-4], "truncated or damaged"),
        (lambda data: b"\xff" * 8 + data[8:], "truncated or damaged.*header too large"),
        (lambda data: b"", r"\(0 bytes\) is truncated or damaged"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer.*Run git lfs pull"),
    ],
)
def test_damaged_weights(folder, damage, reason, load):
    path = folder / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ArtifactError, match=rf"model\.safetensors .*{reason}"):
        load(str(folder), device="cpu")


def test_sharded_weights_load_as_the_single_file(checkpoint, sharded):
    assert dict(check_folder(sharded, "mine")) == dict(check_folder(checkpoint("llama"), "llama"))
    whole = mx.load(str(checkpoint("llama")), device="cpu")
    assert mx.load(str(sharded), device="cpu").weight_hash == whole.weight_hash


def test_a_shard_that_is_not_there(sharded):
    lost = shard(sharded, 1)
    lost.unlink()
    assert f"its index names {lost.name}, which the folder lacks" in refusal(sharded)


def test_a_shard_with_the_content_of_another(sharded):
    shutil.copy(shard(sharded, 0), shard(sharded, 1))
    assert f"{shard(sharded, 1).name} lacks the tensor model." in refusal(sharded)


def test_a_truncated_shard(sharded):
    path = shard(sharded, 2)
    path.write_bytes(path.read_bytes()[:-10])
    assert f"{path.name} ({path.stat().st_size} bytes) is truncated or damaged" in refusal(sharded)


def test_an_index_without_a_map(sharded):
    (sharded / "model.safetensors.index.json").write_text("{}")
    assert "model.safetensors.index.json has no weight_map" in refusal(sharded)


@pytest.mark.parametrize("load", [mx.load, mx.load_classifier])
@pytest.mark.parametrize("file", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickled_weights(folder, file, load):
    torch.save(load_file(folder / "model.safetensors"), folder / file)
    (folder / "model.safetensors").unlink()
    message = refusal(folder, load)
    assert f"its weights are pickled ({file})" in message
    assert "save_pretrained into a new folder" in message


@pytest.mark.parametrize("with_config", [True, False])
def test_gguf(folder, with_config):
    (folder / "model.safetensors").rename(folder / "mine-Q4.gguf")
    if not with_config:
        (folder / "config.json").unlink()
    for name in (folder, folder / "mine-Q4.gguf"):
        message = refusal(name)
        assert "mine-Q4.gguf is a GGUF file" in message
        assert "gguf_file" in message


@pytest.mark.parametrize(("file", "library"), [("tf_model.h5", "TensorFlow"), ("flax_model.msgpack", "Flax")])
def test_weights_of_other_libraries(folder, file, library):
    (folder / "model.safetensors").rename(folder / file)
    assert f"its weights are in {library}'s format ({file})" in refusal(folder)


def test_an_adapter_without_its_model(folder):
    (folder / "config.json").unlink()
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "my/base", "peft_type": "LORA"}))
    message = refusal(folder)
    assert "holds an adapter (adapter_config.json) of the model 'my/base'" in message
    assert "merge_and_unload()" in message


def test_a_link_to_nothing(folder):
    """Caches of downloads are folders of links."""
    (folder / "model.safetensors").rename(folder / "blob")
    (folder / "model.safetensors").symlink_to(folder / "blob")
    mx.load(str(folder), device="cpu")
    (folder / "blob").unlink()
    assert f"model.safetensors is a link to {folder / 'blob'}, which does not exist" in refusal(folder)


def test_weights_of_another_name_are_listed(folder):
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    assert "has no model.safetensors (it has weights.safetensors)" in refusal(folder)


@pytest.mark.parametrize(
    ("content", "reason"), [("{", "config.json is not valid JSON"), ("[]", "config.json holds a list, not a table")]
)
def test_a_damaged_configuration(folder, content, reason):
    (folder / "config.json").write_text(content)
    assert reason in refusal(folder)
    assert reason in refusal(folder, mx.load_classifier)
