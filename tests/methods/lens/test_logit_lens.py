"""The logit lens equals the model at the last layer and plain arithmetic before it."""

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ConfigError, SiteError
from mechxai.core.statistics import mean_interval
from mechxai.methods.lens._lib import stream_reading as reading_module
from mechxai.methods.lens._lib.stream_reading import reading
from tests.conftest import FOLDED, MODELS

EVERY = [*MODELS, ("bert", "bridge", "raw"), ("bert", "bridge", "folded")]


def logprobs(model, batch, run="clean"):
    return model.logits(batch.tokens(run), lengths=batch.lengths).double().log_softmax(-1)


@pytest.mark.parametrize(("kind", "backend", "processing"), EVERY)
def test_the_last_layer_is_the_models_own_output(model_of, pairs, kind, backend, processing):
    model = model_of(kind, backend, processing)
    batch = pairs(model, n=3, lengths=[9, 6, 7], first=3)
    data = mx.LogitLens(k=3)(model, batch).data
    right = logprobs(model, batch)
    real = batch.mask.numpy()
    top = right.topk(3, -1)
    np.testing.assert_allclose(data["top_logprob"].values[:, -1][real], top.values.numpy()[real], atol=1e-4)
    assert (data["top_token"].values[:, -1, :, 0][real] == top.indices.numpy()[real][:, 0]).all()
    wanted = right.gather(2, batch.answers[:, 0, :1].expand(-1, 9)[:, :, None])[:, :, 0]
    np.testing.assert_allclose(data["target_logprob"].values[:, -1][real], wanted.numpy()[real], atol=1e-4)
    entropy = -(right.exp() * right).sum(-1)
    np.testing.assert_allclose(data["entropy"].values[:, -1][real], entropy.numpy()[real], atol=1e-4)
    assert np.nanmax(data["kl_to_final"].values[:, -1]) < 1e-5
    for name in ("target_logprob", "entropy", "kl_to_final", "top_logprob"):
        assert np.isnan(data[name].values[:, :, ~real.all(0)][1]).any(), name
    assert (data["top_token"].values[1, :, 6:] == -1).all()
    assert list(data["layer"].values) == list(range(model.architecture.n_layers + 1))


@pytest.mark.parametrize("name", ["zoo/handmade-ioi", "zoo/handmade-induction"])
def test_a_model_without_a_norm_is_read_as_it_is(name, pairs):
    model = mx.load(name, device="cpu")
    batch = pairs(model, n=2)
    data = mx.LogitLens()(model, batch).data
    right = model.logits(batch.clean).log_softmax(-1)
    for row, answer in enumerate(batch.answers[:, 0, 0].tolist()):
        ours = data["target_logprob"].values[row, -1]
        # log-probabilities reach -25 here: the relative part is eight units in their last place
        np.testing.assert_allclose(ours, right[row, :, answer].numpy(), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_every_layer_is_what_the_model_would_say_there(model_of, pairs, kind, backend, processing):
    """By intervention: the stream put in place of the last block's output makes the model say what the lens read."""
    model = model_of(kind, backend, processing)
    batch = pairs(model, n=2)
    data = mx.LogitLens(k=1)(model, batch).data
    last = model.architecture.n_layers - 1
    for layer in range(last + 1):
        stream = model.cache(batch.clean, [mx.Site("resid_pre", layer)])["resid_pre", layer]
        source = mx.Activations({mx.Site("resid_post", last): stream}, batch.layout)
        patch = mx.Intervention(mx.Site("resid_post", last), mx.Patch(source))
        said = model.logits(batch.clean, interventions=[patch]).double().log_softmax(-1)
        found = data["target_logprob"].values[:, layer]
        wanted = said.gather(2, batch.answers[:, 0, :1].expand(-1, 9)[:, :, None])[:, :, 0]
        np.testing.assert_allclose(found, wanted.numpy(), atol=2e-4)


def test_statistics_by_hand(model_of, monkeypatch):
    """Two layers, one place, three tokens: streams are logits, the readout changes nothing."""
    model = model_of("gpt2")
    monkeypatch.setattr(reading_module, "read_out", lambda _, stream, into: stream)
    early = torch.tensor([[0.5, 0.25, 0.25]]).log() + 7  # a constant changes nothing
    late = torch.tensor([[0.1, 0.7, 0.2]]).log()
    found = reading(model, [early, late], torch.tensor([[2, 1, -1]]), k=2)
    np.testing.assert_allclose(found.target_logprob[:, 0], np.log([0.25, 0.2]), atol=1e-6)
    assert found.target_rank[:, 0].tolist() == [1, 1]
    np.testing.assert_allclose(found.entropy[0, 0], 1.5 * np.log(2), atol=1e-6)
    divergence = 0.1 * np.log(0.1 / 0.5) + 0.7 * np.log(0.7 / 0.25) + 0.2 * np.log(0.2 / 0.25)
    np.testing.assert_allclose(found.kl_to_final[:, 0], [divergence, 0], atol=1e-6)
    assert found.top_token[1, 0].tolist() == [1, 2]
    np.testing.assert_allclose(found.chosen_logprob[:, 0, 0], np.log([0.25, 0.7]), atol=1e-6)
    assert bool(found.chosen_logprob[:, 0, 1].isnan().all())
    np.testing.assert_allclose(found.top_logprob[1, 0], np.log([0.7, 0.2]), atol=1e-6)


def test_a_few_places_at_a_time_give_the_same(model_of, pairs, monkeypatch):
    model = model_of("llama")
    batch = pairs(model, n=3)
    whole = mx.LogitLens(k=model.architecture.d_vocab)(model, batch).data
    monkeypatch.setitem(reading_module._LOGIT_BYTES, "cpu", 1)
    parts = mx.LogitLens(k=model.architecture.d_vocab)(model, batch).data
    for name in ("target_logprob", "entropy", "kl_to_final", "top_logprob"):
        np.testing.assert_allclose(parts[name].values, whole[name].values, atol=1e-5)
    # other batch shapes round otherwise: a rank may change by the tokens within 1e-5 nats of the target, no more
    near_ties = (np.abs(whole["top_logprob"] - whole["target_logprob"]) <= 1e-5).sum("k") - 1
    assert (np.abs(parts["target_rank"] - whole["target_rank"]) <= near_ties).all()
    assert (near_ties == 0).mean() > 0.95


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_padded_rows_equal_singles(model_of, pairs, kind, backend, processing):
    model = model_of(kind, backend, processing)
    batch = pairs(model, n=2, lengths=[9, 6], first=3)
    together = mx.LogitLens()(model, batch).data
    short = mx.ContrastBatch.from_tokens(
        batch.clean[1:, :6], batch.corrupted[1:, :6], batch.answers[1:], batch.wrong[1:]
    )
    alone = mx.LogitLens()(model, short).data
    for name in ("target_logprob", "entropy", "kl_to_final"):
        np.testing.assert_allclose(together[name].values[1, :, :6], alone[name].values[0], atol=1e-4)


def test_what_follows_is_the_target(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=2, lengths=[9, 6], first=3)
    data = mx.LogitLens(target="next")(model, batch).data
    right = logprobs(model, batch).numpy()
    tokens, answers = batch.clean.numpy(), batch.answers[:, 0, 0].numpy()
    found = data["target_logprob"].values[:, -1]
    np.testing.assert_allclose(found[0, 3], right[0, 3, tokens[0, 4]], atol=1e-4)
    np.testing.assert_allclose(found[0, 8], right[0, 8, answers[0]], atol=1e-4)
    np.testing.assert_allclose(found[1, 5], right[1, 5, answers[1]], atol=1e-4)


def test_value_is_the_mean_over_prompts(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=3)
    whole, answer = mx.LogitLens()(model, batch).data, mx.LogitLens(over=("layer",))(model, batch).data
    assert whole["value"].dims == ("layer", "pos")
    assert answer["value"].dims == ("layer",)
    np.testing.assert_allclose(whole["value"], whole["target_logprob"].values.mean(0))
    np.testing.assert_allclose(answer["value"], whole["target_logprob"].values[:, :, 8].mean(0))
    np.testing.assert_allclose(answer["value_low"], mean_interval(answer["per_example"].values).low)


def test_a_lens_reads_an_edited_run(model_of, pairs):
    """Patching the whole clean stream into the corrupted run makes it say what the clean run says, from there on."""
    model = model_of("llama")
    batch = pairs(model, n=2, lengths=[9, 7])
    acts = model.cache(batch.clean, [mx.Site("resid_pre", 1)], lengths=batch.lengths)
    patch = mx.Intervention(mx.Site("resid_pre", 1), mx.Patch(acts))
    clean, corrupted = (mx.LogitLens(run=run)(model, batch).data["entropy"].values for run in ("clean", "corrupted"))
    edited = mx.LogitLens(run="corrupted", interventions=[patch])(model, batch).data["entropy"].values
    np.testing.assert_allclose(edited[:, 0], corrupted[:, 0], atol=1e-5)
    np.testing.assert_allclose(edited[:, 1:], clean[:, 1:], atol=1e-5)
    assert np.nanmax(np.abs(clean - corrupted)[:, 1:]) > 1e-3


@pytest.mark.parametrize("site", ["attn_out", "mlp_out", "resid_mid"])
def test_other_sites_are_read_by_themselves(model_of, pairs, site):
    model = model_of("gpt2")
    batch = pairs(model)
    data = mx.LogitLens(site)(model, batch).data
    assert data.sizes["layer"] == model.architecture.n_layers + 1
    np.testing.assert_allclose(
        data["entropy"].values[:, -1], mx.LogitLens()(model, batch).data["entropy"].values[:, -1], atol=1e-5
    )


def test_trajectories_of_chosen_tokens(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=3, lengths=[9, 6, 7], first=3)
    result = mx.LogitLens(tokens=("answer", "wrong", 20))(model, batch)
    data = result.data
    assert list(data["choice"].values) == ["answer", "wrong", "20"]
    np.testing.assert_allclose(data["chosen_logprob"].values[..., 0], data["target_logprob"].values)
    right = logprobs(model, batch).numpy()
    rows, ends = np.arange(3), batch.answer_pos.numpy()
    at_end = [right[rows, ends, batch.wrong[:, 0, 0].numpy()].mean(), right[rows, ends, 20].mean()]
    np.testing.assert_allclose(data["trajectory"].values[1:, -1], at_end, atol=1e-4)
    assert (data["trajectory_low"] <= data["trajectory"]).all()
    figure = mx.plot(result, "trajectory")
    assert [trace.name for trace in figure.data if trace.showlegend] == ["answer", "wrong", "20"]
    with pytest.raises(ConfigError, match="0 to 408"):
        mx.LogitLens(tokens=(10**6,))(model, batch)


def test_when_a_token_comes_out_on_top():
    model = mx.load("zoo/ioi", device="cpu")
    batch = mx.tasks.ioi(model, n=8, seed=0)
    result = mx.LogitLens()(model, batch)
    name = model.text.strings([int(batch.answers[0, 0, 0])])[0]
    found = mx.first_top1(result, name)
    end = int(batch.answer_pos[0])
    tops = result.data["top_text"].values[0, :, end, 0] == name
    assert tops[-1], "the model knows the answer"
    first, stays = (int(found[part].values[0, end]) for part in ("first", "stays"))
    assert tops[first]
    assert not tops[:first].any()
    assert tops[stays:].all()
    assert stays == 0 or not tops[stays - 1]
    assert np.isnan(mx.first_top1(result, "nonsense")["first"].values).all()
    by_id = mx.first_top1(result, int(batch.answers[0, 0, 0]))
    np.testing.assert_array_equal(by_id["stays"].values, found["stays"].values)


@pytest.mark.parametrize(
    ("fields", "error", "reason"),
    [
        ({"site": "z"}, SiteError, "does not live in the residual stream.*resid_pre"),
        ({"over": ("pos",)}, ConfigError, r"over=\('pos',\)"),
        ({"run": "both"}, ConfigError, "run='both'"),
        ({"k": 0}, ConfigError, "k is 0: it must be at least 1"),
    ],
)
def test_refused_at_once(fields, error, reason):
    with pytest.raises(error, match=reason):
        mx.LogitLens(**fields)


@pytest.mark.parametrize(
    ("target", "reason"), [(10**6, "Allowed: 0 to 408"), ("Mary and John", "tokens: .*one token"), ("", "0 tokens")]
)
def test_a_target_that_is_not_one_token_is_refused_before_any_pass(model_of, pairs, monkeypatch, target, reason):
    model = model_of("gpt2")
    batch = pairs(model)
    monkeypatch.setattr(type(model.backend), "run", None)
    with pytest.raises(ConfigError, match=reason):
        mx.LogitLens(target=target)(model, batch)


@pytest.mark.parametrize("size", [3, 130, 640, 1000, 1025])
def test_the_highest_are_found_by_blocks(size):
    logits = torch.randn(7, size, generator=torch.Generator().manual_seed(0))
    logits[0, -1] = 9.0
    logits[1] = 0.0
    for k in (1, 3):
        values, places = reading_module._top(logits, k)
        assert torch.equal(values, logits.topk(k, -1).values)
        assert torch.equal(logits.gather(1, places), values)
        assert all(len(set(row)) == k for row in places.tolist())


def test_memory_is_a_few_positions_of_logits(model_of):
    """A vocabulary of 50,000, 13 layers, 1,024 positions: 2.6 GB of logits, of which 64 MiB are held at a time."""
    from torch.utils._python_dispatch import TorchDispatchMode

    model = model_of("gpt2")
    held = []

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            held.extend(one.numel() for one in (out if isinstance(out, tuple) else (out,)) if hasattr(one, "numel"))
            return out

    streams = [torch.randn(1024, 64) for _ in range(3)]
    wide = torch.randn(64, 50_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading_module, "read_out", lambda _, stream, into: stream @ wide)
        patch.setattr(reading_module, "_places_at_once", lambda _: reading_module._LOGIT_BYTES["cpu"] // (4 * 50_000))
        with Watching():
            reading(model, streams, torch.zeros(1024, 1, dtype=torch.long), k=5)
    assert max(held) * 4 <= 2**26
