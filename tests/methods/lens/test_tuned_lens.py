"""Tuned lenses: gradients equal autograd's, training resumes bit for bit, and the lens beats the logit lens."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ArtifactError, ConfigError, ModelSupportError
from mechxai.methods.lens._lib import lens_gradients as gradients_module
from mechxai.methods.lens._lib.lens_gradients import LensGradients
from mechxai.methods.lens._lib.training import trained
from mechxai.methods.lens._lib.training_settings import Recipe
from mechxai.methods.lens._lib.tuned_lens import TunedLens
from mechxai.model.readout import read_out
from tests.conftest import FOLDED


def tokens_of(model, n=12, width=10, seed=0):
    top = min(model.architecture.d_vocab, 190)
    return torch.randint(10, top, (n, width), generator=torch.Generator().manual_seed(seed))


def by_autograd(model, tokens, lengths, A, b, loss):
    """The same loss by the book, one layer after the other."""
    n_layers = model.architecture.n_layers
    sites = [*(mx.Site("resid_pre", layer) for layer in range(n_layers)), mx.Site("resid_post", n_layers - 1)]
    acts = model.cache(tokens, sites, lengths=lengths)
    real = torch.arange(tokens.shape[1])[None] < (lengths - int(loss == "ce"))[:, None]
    target = read_out(model, acts[sites[-1]][real]).detach().log_softmax(-1)
    losses = []
    for layer in range(n_layers):
        h = acts[sites[layer]][real]
        said = read_out(model, h + h @ A[layer].T + b[layer]).log_softmax(-1)
        if loss == "kl":
            losses.append((target.exp() * (target - said)).sum(-1).mean())
        else:
            losses.append(-said.gather(1, tokens.roll(-1, 1)[real][:, None]).mean())
    return torch.stack(losses)


@pytest.mark.parametrize("loss", ["kl", "ce"])
@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_gradients_are_those_of_autograd(model_of, kind, backend, processing, loss, monkeypatch):
    model = model_of(kind, backend, processing)
    a = model.architecture
    tokens, lengths = tokens_of(model, 3), torch.tensor([10, 7, 9])
    generator = torch.Generator().manual_seed(1)
    A = torch.nn.Parameter(torch.randn(a.n_layers, a.d_model, a.d_model, generator=generator) * 0.02)
    b = torch.nn.Parameter(torch.randn(a.n_layers, a.d_model, generator=generator) * 0.02)
    right = by_autograd(model, tokens, lengths, A, b, loss)
    right.sum().backward()
    expected = [parameter.grad.clone() for parameter in (A, b)]
    model.inner.zero_grad()
    monkeypatch.setitem(gradients_module._PLACES, "cpu", 7)
    monkeypatch.setitem(gradients_module._TOKENS_AT_ONCE, "cpu", 20)
    losses = LensGradients(model, loss, A, b).of_step(tokens, lengths)
    np.testing.assert_allclose(losses.numpy(), right.detach().numpy(), rtol=1e-4, atol=1e-6)
    for parameter, wanted in zip((A, b), expected, strict=True):
        assert float(wanted.abs().max()) > 1e-4
        np.testing.assert_allclose(parameter.grad.numpy(), wanted.numpy(), rtol=1e-3, atol=2e-6)
    assert all(parameter.grad is None for parameter in model.inner.parameters()), "the model takes no gradient"


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_loop_is_torchs_optimiser_on_those_losses(model_of, optimizer):
    """Four steps against a plain loop: linear decay, clipping, momentum, weight decay."""
    model = model_of("gpt2")
    tokens = tokens_of(model, 6)
    lengths = torch.full((6,), 10)
    recipe = Recipe(steps=4, tokens_per_step=30, optimizer=optimizer, clip=0.5, weight_decay=0.1)
    found = trained(model, tokens, recipe, lengths=None, execution=mx.Execution())
    a = model.architecture
    A = torch.nn.Parameter(torch.zeros(a.n_layers, a.d_model, a.d_model))
    b = torch.nn.Parameter(torch.zeros(a.n_layers, a.d_model))
    if optimizer == "sgd":
        plain = torch.optim.SGD([A, b], lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1)
    else:
        plain = torch.optim.Adam([A, b], lr=1e-3, amsgrad=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(plain, lambda step: 1 - step / 4)
    order = torch.cat([torch.randperm(6, generator=torch.Generator().manual_seed(epoch)) for epoch in range(2)])
    for step in range(4):
        rows = order[step * 3 : step * 3 + 3]
        loss = by_autograd(model, tokens[rows], lengths[rows], A, b, "kl")
        np.testing.assert_allclose(found.losses[step].numpy(), loss.detach().numpy(), rtol=1e-3, atol=1e-5)
        plain.zero_grad()
        loss.sum().backward()
        torch.nn.utils.clip_grad_norm_([A, b], 0.5)
        plain.step()
        schedule.step()
    np.testing.assert_allclose(found.A.detach().numpy(), A.detach().numpy(), atol=2e-5)
    np.testing.assert_allclose(found.b.detach().numpy(), b.detach().numpy(), atol=2e-5)


def test_step_0_is_the_logit_lens(model_of, pairs):
    model = model_of("llama")
    batch = pairs(model, n=2, lengths=[9, 7], first=3)
    plain = mx.LogitLens()(model, batch).data
    tuned = mx.TunedLensReading(TunedLens.identity(model))(model, batch).data
    for name in ("target_logprob", "entropy", "kl_to_final", "top_logprob"):
        np.testing.assert_allclose(tuned[name].values, plain[name].values, atol=1e-5)


@pytest.fixture(scope="module")
def ioi():
    model = mx.load("zoo/ioi", device="cpu")
    batch = mx.tasks.ioi(model, n=96, seed=1)
    recipe = {"steps": 120, "tokens_per_step": 800}
    tokens = torch.cat([batch.clean, batch.corrupted])
    lengths = batch.lengths.repeat(2)
    lens = TunedLens.train(model, tokens, lengths=lengths, **recipe)
    return model, lens, TunedLens.train(model, tokens, lengths=lengths, bias_only=True, **recipe)


@pytest.mark.slow  # trains two lenses
def test_held_out_the_lens_is_no_worse_at_any_layer_and_better_in_early_ones(ioi):
    model, lens, biases = ioi
    held_out = mx.tasks.ioi(model, n=32, seed=2)
    data = mx.TunedLensEvaluation(lens, biases)(model, held_out).data
    kl, plain, bias = (data[name].values for name in ("kl", "kl_logit_lens", "kl_bias_only"))
    assert (kl <= plain + 1e-6).all(), (kl, plain)
    assert (kl[:2] < 0.5 * plain[:2]).all(), (kl, plain)
    assert (kl[:2] < bias[:2]).all(), (kl, bias)
    assert (data["gain_low"].values[:2] > 0).all()
    assert list(data["lens"].values) == ["tuned lens", "logit lens", "biases alone"]
    np.testing.assert_allclose(data["gain"], data["value"].values[1] - data["value"].values[0])
    np.testing.assert_allclose(np.diag(data["transfer"].values), kl, rtol=1e-5)
    assert data["transfer"].dims == ("translator", "layer")
    assert float(lens.losses[-1].mean()) < 0.5 * float(lens.losses[0].mean())
    assert (biases.A == 0).all()


def test_on_random_text_too(model_of):
    model = model_of("gpt2")
    lens = TunedLens.train(model, tokens_of(model, 64, 16), steps=60, tokens_per_step=256)
    held_out = tokens_of(model, 16, 16, seed=9)
    batch = mx.ContrastBatch.from_tokens(held_out, held_out, torch.full((16,), 20), torch.full((16,), 21))
    data = mx.TunedLensEvaluation(lens, transfer=False)(model, batch).data
    assert (data["kl"].values <= data["kl_logit_lens"].values + 1e-6).all()
    assert data["kl"].values[0] < data["kl_logit_lens"].values[0]
    assert "transfer" not in data


def test_interrupted_training_goes_on_to_the_same_bits(model_of, tmp_path):
    model = model_of("gpt2")
    tokens = tokens_of(model, 7)
    recipe = {"steps": 9, "tokens_per_step": 30, "checkpoint_every": 2}
    whole = TunedLens.train(model, tokens, **recipe)

    def stopping(numbers):
        if numbers["lens/step"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TunedLens.train(model, tokens, checkpoints=tmp_path, log=stopping, **recipe)
    seen = []
    resumed = TunedLens.train(model, tokens, checkpoints=tmp_path, log=seen.append, **recipe)
    assert [numbers["lens/step"] for numbers in seen] == [5, 6, 7, 8, 9]
    assert set(seen[0]) >= {"lens/loss", "lens/loss_layer_0"}
    for name in ("A", "b", "losses"):
        assert torch.equal(getattr(resumed, name), getattr(whole, name)), name
    with pytest.raises(ArtifactError, match="checkpoints of another training"):
        TunedLens.train(model, tokens, checkpoints=tmp_path, **{**recipe, "seed": 1})


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.3])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, moment):
    command = [sys.executable, "-m", "mechxai.cli", "run", "experiment=tuned_lens_train", "debug=tiny", "tracker=none"]
    command += ["method.steps=40", "method.checkpoint_every=1", "method.tokens_per_step=200"]
    whole = subprocess.run([*command, f"output={tmp_path / 'whole'}"], cwd=tmp_path, check=False)
    assert whole.returncode == 0
    killed = subprocess.Popen([*command, f"output={tmp_path / 'killed'}"], cwd=tmp_path)
    end = time.monotonic() + 120
    while time.monotonic() < end and not list((tmp_path / "killed").rglob("state.safetensors")):
        time.sleep(0.02)
    time.sleep(moment)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not list((tmp_path / "killed").rglob("result.nc"))
    again = subprocess.run([*command, f"output={tmp_path / 'killed'}"], cwd=tmp_path, check=False)
    assert again.returncode == 0
    results = [mx.Result.load(next((tmp_path / name).rglob("result.nc"))).data for name in ("whole", "killed")]
    for name in ("A", "b", "loss"):
        np.testing.assert_array_equal(results[0][name].values, results[1][name].values)


# Folders --------------------------------------------------------------------------------------------------------------


def a_lens(model):
    return TunedLens.train(model, tokens_of(model), steps=3, tokens_per_step=60)


def test_saved_and_loaded(model_of, tmp_path):
    model = model_of("gpt2")
    lens = a_lens(model)
    folder = lens.save(tmp_path / "lens")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "translators.safetensors"]
    found = TunedLens.load(folder, model)
    for name in ("A", "b", "losses"):
        assert torch.equal(getattr(found, name), getattr(lens, name)), name
    assert found.recipe["steps"] == 3
    assert found.base["weight_hash"] == model.weight_hash
    assert found.name == lens.name


@pytest.mark.parametrize(
    ("kind", "processing", "reason"), [("llama", "folded", "name is 'llama'"), ("gpt2", "raw", "processing is 'raw'")]
)
def test_another_models_lens_is_refused(model_of, pairs, tmp_path, kind, processing, reason):
    lens, other = a_lens(model_of("gpt2")), model_of(kind, "auto", processing)
    with pytest.raises(ModelSupportError, match=f"{reason}.*train a lens for this one"):
        mx.TunedLensReading(lens)(other, pairs(other))
    with pytest.raises(ModelSupportError, match=reason):
        TunedLens.load(lens.save(tmp_path / "lens"), other)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_the_other_packages_format_there_and_back(model_of, tmp_path, kind):
    """``config.json`` and ``params.pt`` as tuned-lens documents them: the state of a list of linear layers."""
    model = model_of(kind, "auto", "raw")
    lens = a_lens(model)
    folder = lens.export(tmp_path / "theirs", model)
    config = json.loads((folder / "config.json").read_text())
    a = model.architecture
    assert config["lens_type"] == "linear_tuned_lens"
    assert (config["d_model"], config["num_hidden_layers"], config["bias"]) == (a.d_model, a.n_layers, True)
    state = torch.load(folder / "params.pt", weights_only=True)
    layers = torch.nn.ModuleList(torch.nn.Linear(a.d_model, a.d_model) for _ in range(a.n_layers))
    layers.load_state_dict(state)  # exactly these keys
    h = torch.randn(4, a.d_model)
    np.testing.assert_allclose(lens(1, h).numpy(), (h + layers[1](h)).detach().numpy(), atol=1e-6)
    back = TunedLens.load(folder, model)
    assert torch.equal(back.A, lens.A)
    assert torch.equal(back.b, lens.b)
    with pytest.raises(ModelSupportError, match=r"processing='folded'.*raw"):
        TunedLens.load(folder, model_of(kind))
    config["unembed_hash"] = "0" * 64
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelSupportError, match="another unembedding"):
        TunedLens.load(folder, model)


def test_no_lens_there(model_of, tmp_path):
    model = model_of("gpt2")
    with pytest.raises(ArtifactError, match=r"no config\.json"):
        TunedLens.load(tmp_path, model)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"neither translators\.safetensors nor params\.pt"):
        TunedLens.load(tmp_path, model)


def test_a_run_is_a_lens(model_of, pairs, tmp_path):
    model = model_of("gpt2")
    batch = pairs(model, n=4)
    result = mx.TunedLensTraining(steps=3, tokens_per_step=36)(model, batch)
    result.save(tmp_path / "result.nc")
    assert result.data["loss"].dims == ("step", "layer")
    assert result.data["value"].dims == ("step",)
    found = TunedLens.load(tmp_path, model)
    np.testing.assert_array_equal(found.A.numpy(), result.data["A"].values)
    read = mx.TunedLensReading(str(tmp_path))(model, batch)
    assert read.info.method["lens"] == str(tmp_path)


def test_the_loss_curve_goes_to_the_tracker(model_of, pairs):
    model, seen = model_of("gpt2"), []
    mx.TunedLensTraining(steps=3, tokens_per_step=36)(model, pairs(model), execution=mx.Execution(log=seen.append))
    assert [numbers["lens/step"] for numbers in seen] == [1, 2, 3]
    assert seen[0]["lens/loss"] > 0


def test_texts_are_joined_by_the_end_of_text(model_of):
    model = model_of("gpt2")
    rows = mx.lens_tokens(model, ["The keys are old.", "The war lasted."], 8)
    assert rows.shape[1] == 8
    assert (rows[:, 0] == model.text.bos).all()
    with pytest.raises(ArtifactError, match="Give more text"):
        mx.lens_tokens(model, ["The"], 64)


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ({"optimizer": "sdg"}, "optimizer='sdg'.*sgd"),
        ({"loss": "mse"}, "loss='mse'"),
        ({"steps": 0}, "steps is 0: it must be at least 1"),
        ({"lr_scale": 0.0}, "lr_scale is 0.0: it must be positive"),
    ],
)
def test_refused_recipes(recipe, reason):
    with pytest.raises(ConfigError, match=reason):
        mx.TunedLensTraining(**recipe)


def test_refused_models(model_of, pairs):
    bert = model_of("bert", "bridge")
    with pytest.raises(ModelSupportError, match="bidirectional"):
        TunedLens.train(bert, torch.full((2, 5), 7))
    model = model_of("gpt2")
    with pytest.raises(ConfigError, match=r"lens is empty.*tuned_lens_train"):
        mx.TunedLensReading()(model, pairs(model))
