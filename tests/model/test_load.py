"""Loading: logits equal Hugging Face, nothing is printed or left changed, and errors name the way out."""

import json
import logging
import shutil
import sys
import threading
import warnings

import huggingface_hub
import pytest
import torch
import tqdm.auto
import tqdm.notebook
import transformers

import mechxai as mx
from mechxai.core.errors import ArtifactError, ConfigError, ModelSupportError
from mechxai.model.backends.device import quiet_loading
from mechxai.model.text import TextCodec
from tests.conftest import BACKENDS, MODELS, has_hooked_transformer

needs_hooked_transformer = pytest.mark.skipif(
    not has_hooked_transformer(), reason="TransformerLens 4 has no HookedTransformer"
)
WITHOUT = pytest.mark.skipif(has_hooked_transformer(), reason="about TransformerLens without HookedTransformer")


@pytest.fixture(scope="module")
def theirs(checkpoint):
    """kind -> transformers' own model."""
    import functools

    @functools.cache
    def load(kind):
        auto = transformers.AutoModelForMaskedLM if kind == "bert" else transformers.AutoModelForCausalLM
        return auto.from_pretrained(checkpoint(kind), attn_implementation="eager").eval()

    return load


def prompts(n_vocab, shape=(3, 11), seed=0):
    return torch.randint(10, n_vocab, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("kind", "backend", "processing"), [*MODELS, ("bert", "auto", "raw"), ("bert", "auto", "folded")]
)
def test_logits_are_those_of_transformers(model_of, theirs, kind, backend, processing):
    model = model_of(kind, backend, processing)
    tokens = prompts(model.architecture.d_vocab)
    with torch.no_grad():
        expected = theirs(kind)(tokens).logits
    found = model.logits(tokens)
    assert expected.std() > 0.1, "the fixture must say something"
    if processing == "raw":
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.log_softmax(-1), expected.log_softmax(-1), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("kind", "backend", "processing"), MODELS)
def test_what_is_recorded_is_so(model_of, checkpoint, kind, backend, processing):
    model = model_of(kind, backend, processing)
    info = model.info()
    assert (info["name"], info["backend"], info["processing"]) == (kind, backend, processing)
    assert (info["dtype"], info["device"]) == ("float32", "cpu")
    assert model.backend.name == backend
    a = model.architecture
    heads = 2 if kind == "llama" else 4
    assert (a.n_layers, a.n_heads, a.n_kv_heads, a.d_model, a.d_head, a.n_ctx) == (3, 4, heads, 64, 16, 64)
    assert a.d_mlp == (256 if kind == "gpt2" else 128)
    assert a.d_vocab == len(model.tokenizer)
    assert (a.parallel, a.causal, a.attn_only) == (kind == "neox", True, False)
    assert a.norm == ("RMS" if kind == "llama" else "LN")
    assert a.positions == ("standard" if kind == "gpt2" else "rotary")
    assert a.gated_mlp == (kind == "llama")
    assert model.inner.cfg is not None
    assert kind in repr(model)


def test_the_weight_hash_is_of_the_weights_alone(model_of, checkpoint, tmp_path):
    hashes = {
        (kind, backend, processing): model_of(kind, backend, processing).weight_hash
        for kind, backend, processing in MODELS
    }
    for kind in ("gpt2", "llama", "neox"):
        assert len({digest for key, digest in hashes.items() if key[0] == kind}) == 1
    assert len(set(hashes.values())) == 3
    shutil.copytree(checkpoint("gpt2"), tmp_path / "copy")
    assert mx.load(str(tmp_path / "copy"), device="cpu").weight_hash == hashes["gpt2", BACKENDS[0], "raw"]
    changed = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "copy")
    changed.transformer.h[1].mlp.c_fc.bias.data[3] += 1e-3
    changed.save_pretrained(tmp_path / "copy")
    assert mx.load(str(tmp_path / "copy"), device="cpu").weight_hash != hashes["gpt2", BACKENDS[0], "raw"]


def test_auto_takes_hooked_transformer_where_it_exists(model_of):
    for kind in ("gpt2", "llama", "neox"):
        assert model_of(kind).backend.name == BACKENDS[0]
    assert model_of("bert").backend.name == "bridge"
    assert not model_of("bert").architecture.causal


@needs_hooked_transformer
def test_hooked_transformer_is_refused_for_bert_with_the_way_out(checkpoint):
    with pytest.raises(
        ModelSupportError,
        match=r"backend='hooked_transformer' does not support BertForMaskedLM.*Use backend='bridge' or 'auto'",
    ):
        mx.load(str(checkpoint("bert")), backend="hooked_transformer", device="cpu")


@WITHOUT
def test_hooked_transformer_is_refused_where_it_no_longer_exists(checkpoint):
    with pytest.raises(
        ModelSupportError, match=r"TransformerLens 4 no longer has HookedTransformer.*Use backend='bridge'"
    ):
        mx.load(str(checkpoint("gpt2")), backend="hooked_transformer", device="cpu")
    with pytest.raises(ModelSupportError, match="no longer has HookedTransformer"):
        mx.load("zoo/handmade-induction", backend="hooked_transformer", device="cpu")


@needs_hooked_transformer
def test_own_format_is_refused_as_bridge_where_it_cannot_be_converted():
    with pytest.raises(ModelSupportError, match=r"cannot convert its own format.*Use backend='hooked_transformer'"):
        mx.load("zoo/handmade-induction", backend="bridge", device="cpu")


@pytest.mark.parametrize("name", ["no/such-model", "./no/such/folder", "/no/such/folder", "nosuchmodel", ""])
def test_names_that_lead_nowhere_are_refused(name):
    with pytest.raises(ArtifactError, match=r"Model .* cannot be loaded.*Allowed: a zoo name.*Check the spelling"):
        mx.load(name, device="cpu")


def test_a_misspelt_bundled_model_is_answered_with_the_nearest():
    with pytest.raises(
        ArtifactError, match=r"Unknown bundled model 'zoo/handmade-inductoin'. Did you mean 'zoo/handmade-induction'"
    ):
        mx.load("zoo/handmade-inductoin")


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_folder_that_lacks_a_part_is_refused(checkpoint, tmp_path, missing):
    folder = tmp_path / "gpt2"
    shutil.copytree(checkpoint("gpt2"), folder)
    (folder / missing).unlink()
    if missing == "tokenizer.json":
        (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ArtifactError, match=r"gpt2.*a folder with config.json, .*safetensors and a tokenizer"):
        mx.load(str(folder), device="cpu")


def test_pickled_weights_are_not_read(checkpoint, tmp_path):
    folder = tmp_path / "gpt2"
    shutil.copytree(checkpoint("gpt2"), folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ArtifactError):
        mx.load(str(folder), device="cpu")


def test_code_that_comes_with_a_model_is_not_run(checkpoint, tmp_path):
    folder = tmp_path / "evil"
    shutil.copytree(checkpoint("gpt2"), folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')\n")
    with pytest.raises((ArtifactError, ModelSupportError), match="evil"):
        mx.load(str(folder), device="cpu")
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("folder", ["my-llama-7b/llama", "gemma2/gpt-neox-bloom"])
def test_the_path_says_nothing_about_the_model(checkpoint, tmp_path, theirs, folder):
    shutil.copytree(checkpoint("gpt2"), tmp_path / folder)
    model = mx.load(str(tmp_path / folder), device="cpu", processing="raw")
    tokens = prompts(model.architecture.d_vocab)
    with torch.no_grad():
        torch.testing.assert_close(model.logits(tokens), theirs("gpt2")(tokens).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"backend": "bridges"}, "backend='bridges' is not allowed. Did you mean 'bridge'"),
        ({"processing": "fold"}, "processing='fold' is not allowed.*folded"),
    ],
)
def test_unknown_settings_are_refused(checkpoint, settings, reason):
    with pytest.raises(ConfigError, match=reason):
        mx.load(str(checkpoint("gpt2")), **settings)


@pytest.mark.parametrize("dtype", ["int8", "float31", "Tensor"])
def test_unknown_dtypes_are_refused(checkpoint, dtype):
    with pytest.raises(ModelSupportError, match=f"dtype='{dtype}' is not a floating-point dtype. Allowed: float32"):
        mx.load(str(checkpoint("gpt2")), dtype=dtype)


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_unknown_devices_are_refused(checkpoint, device):
    with pytest.raises((ConfigError, ModelSupportError), match=device):
        mx.load(str(checkpoint("gpt2")), device=device)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_dtypes(model_of, backend, dtype):
    model = model_of("llama", backend, "folded", dtype)
    tokens = prompts(model.architecture.d_vocab)
    assert model.dtype == getattr(torch, dtype)
    assert {parameter.dtype for parameter in model.inner.parameters()} == {model.dtype}
    expected = model_of("llama", backend).logits(tokens).double().log_softmax(-1)
    found = model.logits(tokens).double().log_softmax(-1)
    torch.testing.assert_close(found, expected, atol=1e-4 if dtype == "float64" else 0.2, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("processing", ["raw", "folded"])
def test_loading_prints_nothing_and_changes_nothing(checkpoint, capfd, caplog, backend, processing):
    state = lambda: (  # noqa: E731
        logging.root.manager.disable,
        list(warnings.filters),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.random.get_rng_state().tolist(),
        transformers.utils.logging.get_verbosity(),
        transformers.utils.logging.is_progress_bar_enabled(),
        huggingface_hub.utils.are_progress_bars_disabled(),
        vars(tqdm.std.tqdm)["__init__"],
        (sys.stdout, sys.stderr),
        [(handler, handler.level) for handler in logging.root.handlers],
    )
    before = state()
    with warnings.catch_warnings(record=True) as warned:
        mx.load(str(checkpoint("gpt2")), backend=backend, processing=processing, device="cpu")
    assert state() == before
    assert not warned
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""
    assert not caplog.records


def test_a_failed_load_changes_nothing(tmp_path, capfd):
    before = logging.root.manager.disable, list(warnings.filters), transformers.utils.logging.is_progress_bar_enabled()
    with pytest.raises(ArtifactError):
        mx.load(str(tmp_path), device="cpu")
    assert (
        logging.root.manager.disable,
        list(warnings.filters),
        transformers.utils.logging.is_progress_bar_enabled(),
    ) == before
    assert capfd.readouterr().err == ""


# Wrapping -------------------------------------------------------------------------------------------------------------


def tiny_hooked_transformer():
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    torch.manual_seed(0)
    config = HookedTransformerConfig(
        n_layers=2, d_model=8, n_ctx=32, d_head=4, n_heads=2, d_vocab=50, act_fn="relu", seed=0, device="cpu"
    )
    return HookedTransformer(config)


@needs_hooked_transformer
def test_wrap_without_a_tokenizer_takes_tokens():
    inner = tiny_hooked_transformer()
    before = {name: value.clone() for name, value in inner.state_dict().items()}
    model = mx.wrap(inner, name="mine")
    tokens = prompts(50, (2, 7))
    assert model.inner is inner
    assert (model.name, model.processing, model.backend.name) == (
        "mine",
        "folded" if inner.cfg.normalization_type == "LNPre" else "raw",
        "hooked_transformer",
    )
    torch.testing.assert_close(model.logits(tokens), inner(tokens).detach(), atol=1e-6, rtol=0)
    batch = mx.ContrastBatch.from_tokens(tokens, tokens.roll(1, 1), torch.tensor([1, 2]), torch.tensor([3, 4]))
    result = mx.ActivationPatching("resid_pre", ("layer",))(model, batch)
    assert result.data["recovered"].values == pytest.approx(1.0, abs=1e-4)
    with pytest.raises(
        ModelSupportError,
        match=r"has no tokenizer: it takes token ids, not text.*from_tokens.*mx.wrap\(model, tokenizer=\.\.\.\)",
    ):
        model.tokens("hello")
    for text_given in (model, model.generate, lambda text: model.cache(text, ["embed"])):
        with pytest.raises(ModelSupportError, match="has no tokenizer: it takes token ids, not text"):
            text_given("hello")
    written = model.generate(tokens, 3)
    assert written.shape == (2, 3)
    assert torch.equal(written[:, 0], model.logits(tokens)[:, -1].argmax(-1))
    with pytest.raises(ModelSupportError, match="has no tokenizer"):
        mx.tasks.ioi(model, n=2)
    for name, value in inner.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("processing", ["raw", "folded"])
def test_wrap_of_either_kind_is_the_loaded_model(model_of, backend, processing):
    loaded = model_of("gpt2", backend, processing)
    model = mx.wrap(loaded.inner)
    assert (model.backend.name, model.processing, model.dtype, model.architecture) == (
        backend,
        processing,
        torch.float32,
        loaded.architecture,
    )
    tokens, lengths = model.tokens(["When Mary and John went", "Then, Tom"])
    assert torch.equal(tokens, loaded.tokens(["When Mary and John went", "Then, Tom"])[0])
    assert torch.equal(model.logits(tokens, lengths=lengths), loaded.logits(tokens, lengths=lengths))
    without = mx.wrap(loaded.inner, bos=False)
    assert len(without.tokens("Then, Tom")[0][0]) == len(model.tokens("Then, Tom")[0][0]) - 1


def test_wrap_with_a_tokenizer_given(model_of, checkpoint):
    inner = model_of("gpt2").inner
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint("gpt2"))
    model = mx.wrap(inner, tokenizer=tokenizer)
    assert model.tokenizer is tokenizer
    assert isinstance(model.text, TextCodec)


def test_wrap_refuses_what_is_neither(theirs):
    with pytest.raises(ModelSupportError, match=r"GPT2LMHeadModel.*HookedTransformer, TransformerBridge.*mx.load"):
        mx.wrap(theirs("gpt2"))


def test_a_model_is_loaded_in_silence_while_others_may_speak(capsys):
    def told():
        sys.stdout.write("a job has ended\n")

    with quiet_loading():
        sys.stdout.write("a notice of a library\n")
        thread = threading.Thread(target=told)
        thread.start()
        thread.join()
    assert capsys.readouterr().out == "a job has ended\n"


@pytest.mark.parametrize("bar", [tqdm.std.tqdm, tqdm.auto.tqdm, tqdm.notebook.tqdm, huggingface_hub.utils.tqdm])
def test_progress_bars_are_silent_while_a_model_is_loaded(capfd, bar):
    """Those of notebooks would fail here, where there are no widgets, if they were shown at all."""
    with quiet_loading():
        assert list(bar(range(3), desc="Loading weights")) == [0, 1, 2]
        thread = threading.Thread(target=lambda: list(bar(range(3), desc="Fetching files")))
        thread.start()
        thread.join()
        sys.stderr.write("a notice of a library\n")
        warnings.warn("a warning of a library", stacklevel=1)
        logging.getLogger("transformers").warning("a message of a library")
    assert capfd.readouterr() == ("", "")
    list(tqdm.std.tqdm(range(3), desc="A job"))
    assert "A job" in capfd.readouterr().err


def test_bars_of_other_threads_go_on_while_a_model_is_loaded(capfd):
    go_on = threading.Event()

    def job():
        go_on.wait()
        list(tqdm.std.tqdm(range(3), desc="A job"))

    thread = threading.Thread(target=job)
    thread.start()
    with quiet_loading():
        go_on.set()
        thread.join()
    assert "A job" in capfd.readouterr().err


def test_threads_load_one_after_the_other(checkpoint):
    before = vars(tqdm.std.tqdm)["__init__"], sys.stdout, sys.stderr, logging.root.manager.disable
    models = []
    threads = [
        threading.Thread(target=lambda: models.append(mx.load(str(checkpoint("gpt2")), device="cpu"))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({model.weight_hash for model in models}) == 1
    assert len(models) == 3
    assert (vars(tqdm.std.tqdm)["__init__"], sys.stdout, sys.stderr, logging.root.manager.disable) == before
