"""Calls under torch's ambient modes, on compiled and parallel models, and from several threads."""

import copy
import threading

import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ModelSupportError
from tests import checkpoints

CLEAN = torch.tensor([[5, 6, 7, 8]])
EDIT = mx.Intervention(mx.Site("resid_pre", 1), mx.AddNoise(std=3.0))
MODES = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}
KINDS = [("gpt2", "auto"), ("llama", "auto"), ("gpt2", "bridge"), ("neox", "bridge")]


def batch():
    return mx.ContrastBatch.from_tokens(
        CLEAN, torch.tensor([[5, 9, 7, 8]]), answers=torch.tensor([5]), wrong=torch.tensor([6])
    )


@pytest.fixture(params=KINDS, ids="-".join)
def inner(request, tmp_path):
    """A user's TransformerLens object whose parameters require gradients."""
    kind, backend = request.param
    model = mx.load(str(checkpoints.write(kind, tmp_path / kind)), backend=backend, processing="raw").inner
    return model.requires_grad_(requires_grad=True)


def every_call(model, prompts):
    """Numbers of one call of each kind."""
    values, gradients = model.gradients(prompts.clean, [mx.Site("resid_pre", 1)], lambda logits: logits[0, -1, 5])
    return [
        model.logits(prompts.clean),
        model.cache(prompts.clean, ["resid_post", "z"])["resid_post", 1],
        values["resid_pre", 1],
        gradients["resid_pre", 1],
        *(
            torch.from_numpy(method(model, prompts).data["value"].values)
            for method in (mx.ActivationPatching(), mx.LogitLens(), mx.Saliency(), mx.DirectLogitAttribution())
        ),
    ]


def own_logits(inner):
    return inner(CLEAN, return_type="logits", prepend_bos=False)


def traits(inner):
    return {
        name: (value.data_ptr(), value.stride(), value.requires_grad, value.is_inference(), value.grad)
        for name, value in inner.named_parameters()
    }


@pytest.mark.parametrize("mode", MODES)
def test_calls_in_a_mode_have_the_numbers_of_calls_outside_it_and_change_no_weight(inner, mode):
    expected = every_call(mx.wrap(inner), batch())
    before, training = traits(inner), [module.training for module in inner.modules()]
    with MODES[mode]():
        computed = every_call(mx.wrap(inner), batch())
    assert not any(number.is_inference() for number in computed[:4])
    for number, other in zip(computed, expected, strict=True):
        torch.testing.assert_close(number, other, atol=1e-6, rtol=0)
    assert traits(inner) == before
    assert [module.training for module in inner.modules()] == training
    own_logits(inner).sum().backward()
    assert any(value.grad is not None for value in inner.parameters())  # a bridge has some that no pass reads


def test_a_model_loaded_in_inference_mode_gives_gradients(tmp_path):
    with torch.inference_mode():
        model = mx.load(str(checkpoints.write("gpt2", tmp_path / "gpt2")))
        prompts = batch()
    assert not any(value.is_inference() for value in model.inner.parameters())
    mx.IntegratedGradients()(model, prompts)


def test_weights_made_in_inference_mode_are_refused(inner):
    with torch.inference_mode():
        copied = copy.deepcopy(inner)
        for module in copied.modules():
            for name, value in list(module._parameters.items()):
                if value is not None:
                    module._parameters[name] = torch.nn.Parameter(value.clone(), requires_grad=False)
    with pytest.raises(ModelSupportError, match="inference"):
        mx.wrap(copied)


@pytest.mark.parametrize("cover", [torch.compile, torch.nn.DataParallel], ids=["compile", "DataParallel"])
def test_a_compiled_or_parallel_model_is_taken_as_the_model_inside(inner, cover):
    model = mx.wrap(cover(inner))
    assert model.inner is inner
    torch.testing.assert_close(model.logits(CLEAN), mx.wrap(inner).logits(CLEAN), atol=0, rtol=0)


def test_hooks_work_in_a_model_compiled_in_place_and_it_stays_compiled(inner):
    expected = mx.wrap(copy.deepcopy(inner)).logits(CLEAN, interventions=[EDIT])
    calls = []
    inner._compiled_call_impl = compiled = lambda *args, **options: (
        calls.append(1) or inner._call_impl(*args, **options)
    )
    model = mx.wrap(inner)
    calls.clear()
    edited = model.logits(CLEAN, interventions=[EDIT])
    torch.testing.assert_close(edited, expected, atol=0, rtol=0)
    assert not calls
    assert inner._compiled_call_impl is compiled


def test_a_compiled_module_inside_a_model_is_refused(inner):
    model = mx.wrap(inner)
    inner.blocks[0] = torch.compile(inner.blocks[0])
    with pytest.raises(ModelSupportError, match=r"torch\.compile"):
        model.logits(CLEAN)


def test_two_threads_on_one_model_do_not_see_each_others_edits(inner):
    first, second = mx.wrap(inner), mx.wrap(inner)  # two wrappers share one lock
    edits = [EDIT]
    plain, edited = first.logits(CLEAN), first.logits(CLEAN, interventions=edits)
    differences, finished = [], []

    def repeat(model, interventions, expected):
        for _ in range(30):
            logits = model.logits(CLEAN, interventions=interventions)
            differences.append(float((logits - expected).abs().max()))
        finished.append(1)

    def patch():
        for _ in range(3):
            mx.ActivationPatching()(second, batch())
        finished.append(1)

    jobs = [
        threading.Thread(target=repeat, args=(first, (), plain), daemon=True),
        threading.Thread(target=repeat, args=(second, edits, edited), daemon=True),
        threading.Thread(target=patch, daemon=True),
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(120)
    assert len(finished) == len(jobs)  # no deadlock
    assert max(differences) == 0


def test_a_thread_may_use_a_model_inside_its_own_block_of_hooks(inner):
    model = mx.wrap(inner)
    with model.attached(()):
        model.logits(CLEAN)
        mx.ActivationPatching()(model, batch())


@pytest.mark.parametrize("mode", MODES)
def test_a_classifier_has_the_same_numbers_in_every_mode(tmp_path, mode):
    folder = str(checkpoints.write("bert-classifier", tmp_path / "classifier"))
    model = mx.load_classifier(folder)
    texts = ["the film was good", "bad"]
    prompts = model.contrast([texts[0]], [texts[0]], [0], [1])
    expected = model(texts), mx.IntegratedGradients()(model, prompts).data["value"].values
    with MODES[mode]():
        again = mx.load_classifier(folder)
        prompts = again.contrast([texts[0]], [texts[0]], [0], [1])
        assert torch.equal(again(texts), expected[0])
        computed = mx.IntegratedGradients()(again, prompts).data["value"].values
    torch.testing.assert_close(torch.tensor(computed), torch.tensor(expected[1]), atol=1e-6, rtol=0, equal_nan=True)
