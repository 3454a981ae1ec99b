"""Overflow never comes back as a number; padding, special tokens and missing positions do."""

import numpy as np
import pytest
import torch
import xarray as xr

import mechxai as mx
from mechxai.core.errors import ModelSupportError, NumericsError
from mechxai.core.finite import check_result
from mechxai.core.result import Result, RunInfo, variable

NAN = np.nan


def result(kind="attribution", **arrays):
    data = {name: variable(dims, values, units, name) for name, (dims, values, units) in arrays.items()}
    return Result(xr.Dataset(data), RunInfo(method={"name": "probe"}, kind=kind))


def test_missing_positions_are_no_overflow():
    padded = np.array([[[1.0, 2.0, NAN], [3.0, 4.0, NAN]]])  # [prompt, layer, pos]
    check_result(result("lens", value=(("prompt", "layer", "pos"), padded, "nats")))
    scores, players = np.array([[NAN, 1.0, NAN]]), np.array([[-1, 0, -1]])
    check_result(
        result(value=(("prompt", "pos"), scores, "logits"), player_index=(("prompt", "pos"), players, "number"))
    )
    check_result(result("probes", value=(("layer",), np.array([NAN, 0.5]), "accuracy")))
    check_result(result("lens", value=(("layer",), np.array([-np.inf, -1.0]), "nats")))
    check_result(result(delta=(("prompt",), np.array([NAN]), "logits")))


@pytest.mark.parametrize(
    ("kind", "dims", "values"),
    [
        ("lens", ("prompt", "layer", "pos"), [[[1.0, 2.0], [3.0, NAN]]]),  # one layer only
        ("lens", ("prompt", "pos"), [[1.0, 2.0], [NAN, NAN]]),  # a whole prompt
        ("patching", ("layer",), [1.0, NAN]),
        ("edges", ("edge",), [1.0, np.inf]),
        ("probes", ("layer",), [1.0, np.inf]),
    ],
)
def test_overflow_is_refused_by_place(kind, dims, values):
    with pytest.raises(NumericsError, match=r"probe: value is (nan|inf) at .*float32 or bfloat16"):
        check_result(result(kind, value=(dims, np.array(values), "logits")))


def test_a_token_with_a_player_needs_a_score():
    scores, players = np.array([[NAN, NAN, 1.0]]), np.array([[-1, 0, 1]])
    with pytest.raises(NumericsError, match="pos 1, and 1 of 3"):
        check_result(
            result(value=(("prompt", "pos"), scores, "logits"), player_index=(("prompt", "pos"), players, "number"))
        )


METHODS = {
    "ig": lambda: mx.IntegratedGradients(n_steps=4, max_steps=4),
    "gradient_x_input": mx.GradientXInput,
    "saliency": mx.Saliency,
    "smooth_grad": lambda: mx.SmoothGrad(n_samples=3),
    "lens": mx.LogitLens,
    "dla": mx.DirectLogitAttribution,
    "patching": lambda: mx.ActivationPatching("z", ("layer", "head")),
    "attribution_patching": mx.AttributionPatching,
}


@pytest.mark.parametrize("layer", [1, *(pytest.param(layer, marks=pytest.mark.slow) for layer in (0, 2))])
@pytest.mark.parametrize("method", list(METHODS))
def test_overflow_in_float16_is_never_silent(checkpoint, pairs, method, layer):
    model = mx.load(str(checkpoint("gpt2")), dtype="float16", device="cpu")
    batch = pairs(model, n=2, lengths=[9, 6])
    bias = {name: parameter for name, parameter in model.inner.named_parameters() if f".{layer}." in name}
    name = next(name for name in bias if "b_out" in name or (name.endswith("c_proj.bias") and "mlp" in name))
    with torch.no_grad():
        bias[name].fill_(6e4)
    try:
        data = METHODS[method]()(model, batch).data
    except (NumericsError, ModelSupportError):
        return
    for variable_name in ("value", "per_example", "target_logprob"):
        if variable_name in data:
            values = data[variable_name].values
            known = np.ones(values.shape, bool)
            if variable_name == "value" and "player_index" in data:
                known = data["player_index"].values >= 0
            if data[variable_name].dims == ("prompt", "layer", "pos"):
                known = np.broadcast_to(batch.mask.numpy()[:, None], values.shape)
            assert np.isfinite(values[known]).all()


@pytest.mark.parametrize("method", list(METHODS))
def test_sound_models_with_padding_pass(model_of, pairs, method):
    model = model_of("gpt2")
    METHODS[method]()(model, pairs(model, n=3, lengths=[9, 5, 7]))
