"""A model that is edited after loading has another hash, and nothing computed before is taken for it."""

import copy

import pytest
import torch

import mechxai as mx
from tests import checkpoints
from tests.conftest import BACKENDS


def load(folder, **options):
    return mx.load(str(folder), device="cpu", **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return checkpoints.write("gpt2", tmp_path_factory.mktemp("gpt2") / "gpt2")


@pytest.fixture(params=BACKENDS)
def model(folder, request):
    return load(folder, backend=request.param)


def mlp(model):
    return model.inner.blocks[1].mlp


def parameter(model):
    return max(model.inner.blocks[0].parameters(), key=torch.Tensor.numel)


def scale(model):
    parameter(model).data *= 2


def one_number(model):
    parameter(model).data.view(-1)[7] += 1e-3


def swap_columns(model):
    data = parameter(model).data
    data[:, [0, 2]] = data[:, [2, 0]].clone()


def swap_rows(model):
    data = parameter(model).data
    data[[0, 2]] = data[[2, 0]].clone()


def replace_parameter(model):
    owner = next(module for module in model.inner.blocks[0].modules() if module._parameters)
    name, old = next(iter(owner._parameters.items()))
    owner._parameters[name] = torch.nn.Parameter(old.detach() + 1)


def replace_forward(model):
    block = getattr(mlp(model), "original_component", mlp(model))  # of a bridge
    forward = block.forward
    block.forward = lambda *args, **kwargs: forward(*args, **kwargs) * 2


def register_hook(model):
    mlp(model).register_forward_hook(lambda module, args, output: output)


EDITS = [scale, one_number, swap_columns, swap_rows, replace_parameter, replace_forward, register_hook]


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_after_loading_changes_the_hash(model, edit):
    before = model.weight_hash
    assert before == model.loaded_hash == model.info()["weight_hash"]
    edit(model)
    after = model.weight_hash
    assert after != before
    assert after == model.weight_hash == model.info()["weight_hash"]


def test_the_hash_returns_with_the_weights(model):
    before, weights = model.weight_hash, parameter(model)
    saved = weights.detach().clone()
    scale(model)
    doubled = model.weight_hash
    weights.data.copy_(saved)
    assert model.weight_hash == before
    scale(model)
    assert model.weight_hash == doubled


def test_equal_edits_of_equal_models_have_equal_hashes(folder):
    first, second = load(folder), load(folder)
    for model in (first, second):
        scale(model)
        register_hook(model)
    assert first.weight_hash == second.weight_hash


def test_no_call_changes_the_hash(model):
    before, tokens = model.weight_hash, torch.tensor([[5, 6, 7, 8]])
    batch = mx.ContrastBatch.from_tokens(tokens, torch.tensor([[5, 9, 7, 8]]), torch.tensor([5]), torch.tensor([6]))
    model.cache(tokens, ["resid_post", "z"])
    for method in (mx.ActivationPatching(), mx.LogitLens(), mx.IntegratedGradients(), mx.EdgeAttribution()):
        method(model, batch)
        assert model.weight_hash == before


def test_a_copy_of_an_edited_model_has_its_own_hash(model):
    scale(model)
    copied = mx.wrap(copy.deepcopy(model.inner))
    assert copied.weight_hash == copied.loaded_hash != model.weight_hash


def test_cells_of_the_unedited_model_are_not_used(folder, tmp_path):
    model, batch = load(folder), short_batch()
    cells = mx.Execution(cells=tmp_path)
    before = mx.ActivationPatching()(model, batch, execution=cells)
    again = mx.ActivationPatching()(model, batch, execution=cells)
    assert again.info.cost["cells_reused"] > 0
    scale(model)
    after = mx.ActivationPatching()(model, batch, execution=cells)
    fresh = mx.ActivationPatching()(model, batch)
    assert after.info.cost["cells_reused"] == 0
    assert after.info.model["weight_hash"] != before.info.model["weight_hash"]
    torch.testing.assert_close(after.data["value"].values, fresh.data["value"].values)


def test_cells_of_another_function_are_not_used(folder, tmp_path):
    model, batch = load(folder), short_batch()
    cells = mx.Execution(cells=tmp_path)
    functions = [lambda x, b: x[:, -1].amax(-1), lambda x, b: x[:, -1].amin(-1)]
    for function in functions:
        method = mx.ActivationPatching(metric=function)
        resumed, fresh = method(model, batch, execution=cells), method(model, batch)
        assert resumed.info.cost["cells_reused"] == 0
        torch.testing.assert_close(resumed.data["value"].values, fresh.data["value"].values)
        assert method(model, batch, execution=cells).info.cost["cells_reused"] > 0


def short_batch():
    answers = torch.tensor([5]), torch.tensor([6])
    return mx.ContrastBatch.from_tokens(torch.tensor([[5, 6, 7]]), torch.tensor([[5, 9, 7]]), *answers)


def biases(model):
    for parameter in model.inner.blocks[0].mlp.parameters():
        if parameter.ndim == 1:
            parameter.data += 1


@pytest.mark.parametrize("edit", [scale, replace_forward, biases])
@pytest.mark.parametrize("kind", ["gpt2", "neox"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_lens_and_cache_follow_an_edit(tmp_path, kind, backend, edit):
    model = load(checkpoints.write(kind, tmp_path / kind), backend=backend)
    tokens = torch.tensor([[5, 6, 7, 8]])
    before, logits = model.cache(tokens, ["resid_post"]), model.logits(tokens)
    edit(model)
    dense, hooked = (model.cache(tokens, ["resid_post", "mlp_out"], hooked=hooked) for hooked in (False, True))
    for site in hooked.values:
        torch.testing.assert_close(dense[site], hooked[site])
    is_used = not torch.equal(logits, model.logits(tokens))  # a folded bridge computes with copies of some
    assert is_used != torch.equal(before["resid_post", 2], dense["resid_post", 2])


def test_a_classifier_is_hashed_as_it_is_now(tmp_path):
    model = mx.load_classifier(str(checkpoints.write("bert-classifier", tmp_path / "classifier")), device="cpu")
    before = model.weight_hash
    next(iter(model.inner.parameters())).data += 1
    assert model.weight_hash != before


def test_a_black_box_without_a_version_is_known_by_its_function():
    def box(factor, **options):
        return mx.black_box(lambda texts: [[len(text) * factor, 0.0] for text in texts], ["a", "b"], **options)

    assert box(1).info()["weight_hash"] == box(1).info()["weight_hash"] != box(2).info()["weight_hash"]
    assert box(1, version="3").info()["weight_hash"] == box(2, version="3").info()["weight_hash"]
