"""Shared fixtures: tiny checkpoints on disk and the models loaded from them."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "disabled")

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests import checkpoints, typed

typed.install()
torch.set_num_threads(1)


def has_hooked_transformer() -> bool:
    """TransformerLens 3.9 has it, 4.x does not."""
    return importlib.util.find_spec("transformer_lens.HookedTransformer") is not None


BACKENDS = ("hooked_transformer", "bridge") if has_hooked_transformer() else ("bridge",)
# every causal fixture on every backend there is, raw and folded
MODELS = [
    (kind, backend, processing)
    for kind in checkpoints.CAUSAL
    for backend in BACKENDS
    for processing in ("raw", "folded")
]
FOLDED = [one for one in MODELS if one[2] == "folded"]


def _daily(kind: str, backend: str, processing: str) -> bool:
    """Every architecture on one backend, the other and unfolded weights on one architecture."""
    plain = backend == BACKENDS[0]
    return (plain and (processing == "folded" or kind == "gpt2")) or (kind == "llama" and processing == "folded")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What runs on every model is slow but for a model of each kind: all of them with `make test-slow`."""
    for item in items:
        given = getattr(item, "callspec", None)
        one = tuple(given.params.get(name) for name in ("kind", "backend", "processing")) if given else ()
        if one in MODELS and not _daily(*one):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Annotations are checked anew in each test and in what is set up for it."""
    typed.anew()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Callable[[str], Path]:
    """kind -> folder of a tiny random checkpoint in the Hugging Face format."""

    @functools.cache
    def make(kind: str) -> Path:
        return checkpoints.write(kind, tmp_path_factory.mktemp("checkpoint") / kind)

    return make


@pytest.fixture(scope="session")
def model_of(checkpoint):
    """(kind, backend, processing, dtype) -> the loaded model, each made once."""
    import mechxai as mx

    @functools.cache
    def load(kind: str, backend: str = "auto", processing: str = "folded", dtype: str = "float32"):
        model = mx.load(str(checkpoint(kind)), backend=backend, processing=processing, dtype=dtype, device="cpu")
        model.logits(torch.tensor([[10, 11]]))  # a bridge installs hooks of its own on its first pass
        return model

    return load


@pytest.fixture(scope="session")
def zoo():
    """The bundled model of six tasks."""
    import mechxai as mx

    return mx.load("zoo/ioi", device="cpu")


@pytest.fixture(scope="session")
def pairs():
    """(model, n, width, first, lengths) -> random token pairs that differ at position ``first`` and the next."""
    import mechxai as mx

    def make(model, n=2, width=9, first=4, lengths=None, seed=0, same=False):
        generator = torch.Generator().manual_seed(seed)
        top = min(model.architecture.d_vocab, 190)
        clean = torch.randint(10, top, (n, width), generator=generator)
        corrupted = clean.clone()
        if not same:
            corrupted[:, first : first + 2] = 10 + (clean[:, first : first + 2] - 10 + 7) % (top - 10)
        answers = torch.randint(10, top, (n,), generator=generator)
        wrong = 10 + (answers - 10 + 3) % (top - 10)
        mask = None
        if lengths is not None:
            mask = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
        return mx.ContrastBatch.from_tokens(clean, corrupted, answers, wrong, mask=mask)

    return make
