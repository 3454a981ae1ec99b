"""`model.cache` through dense blocks equals the cache filled by hooks, whole and in parts."""

import dataclasses

import pytest
import torch

import mechxai as mx
from mechxai.model.dense import cache as cache_run
from mechxai.model.dense.check import equivalence_check
from mechxai.model.dense.run import DENSE_SITES
from tests.conftest import FOLDED, MODELS
from tests.model.dense.comparison import BERT, alike, hooked, names_of, tokens_of


@pytest.mark.parametrize(("kind", "backend", "processing"), MODELS)
def test_dense_values_are_the_hooked_ones(model_of, passes, kind, backend, processing):
    model = model_of(kind, backend, processing)
    tokens = tokens_of(model)
    explicit = ("attn_scores", "pattern")
    for names in (names_of(model), [name for name in names_of(model) if name not in explicit]):
        alike(model.cache(tokens, names), hooked(model, tokens, names))
    before = ["embed", *names_of(model, ["pos_embed"])]
    alike(model.cache(tokens, [*before, "resid_post"]), hooked(model, tokens, [*before, "resid_post"]))
    alike(model.cache(tokens, before), hooked(model, tokens, before))
    # a raw bridge shows masked scores as a large number, not as -inf: those are left to hooks
    found = equivalence_check(model.backend)
    assert len(passes) == (3 if "attn_scores" in found.sites else 2)
    assert found.sites >= set(names_of(model)) - {"attn_scores"}
    assert found.dense is not None


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
@pytest.mark.parametrize("name", DENSE_SITES)
def test_each_site_alone(model_of, kind, backend, processing, name):
    model = model_of(kind, backend, processing)
    if names_of(model, [name]):
        tokens = tokens_of(model, (1, 7))
        alike(model.cache(tokens, [name], layers=[1]), hooked(model, tokens, [name], layers=[1]))


@pytest.mark.parametrize("name", ["planted-ioi", "handmade-induction"])
def test_zoo_models(passes, name):
    model = mx.load(f"zoo/{name}", device="cpu")
    tokens = torch.randint(0, model.architecture.d_vocab, (2, 12), generator=torch.Generator().manual_seed(0))
    names = [one for one in names_of(model) if one in equivalence_check(model.backend).sites]
    assert {"resid_post", "z", "pattern"} <= set(names)
    alike(model.cache(tokens, names), hooked(model, tokens, names), atol=1e-4)
    assert passes


@pytest.mark.parametrize(("kind", "backend", "processing"), [*FOLDED, *BERT])
def test_padded_rows(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    tokens, lengths = tokens_of(model), torch.tensor([21, 6, 13])
    acts = model.cache(tokens, ["resid_post", "q"], lengths=lengths)
    alike(acts, hooked(model, tokens, ["resid_post", "q"], lengths=lengths))
    for row, length in enumerate(lengths.tolist()):
        alone = model.cache(tokens[row : row + 1, :length], ["resid_post"])
        torch.testing.assert_close(
            acts.stack("resid_post")[:, row, :length], alone.stack("resid_post")[:, 0], atol=2e-5, rtol=1e-5
        )
    end = acts[mx.Site("resid_post", 2, pos=-1)]
    assert torch.equal(end, acts["resid_post", 2][torch.arange(3), lengths - 1])


def test_positions_and_dtype(model_of, passes):
    model = model_of("llama")
    tokens = tokens_of(model)
    whole = model.cache(tokens, ["resid_mid", "pattern"])
    some = model.cache(tokens, ["resid_mid", "pattern"], layers=[2, 0], pos=[-1, 3], dtype="bfloat16")
    for layer in (0, 2):
        assert torch.equal(some["resid_mid", layer], whole["resid_mid", layer][:, [20, 3]].bfloat16())
        assert torch.equal(some["pattern", layer], whole["pattern", layer][:, :, [20, 3]].bfloat16())
    assert some.stack("pattern").shape == (2, 3, 4, 2, 21)
    assert len(passes) == 2


def test_low_precision_models(model_of, passes):
    model = model_of("gpt2", "auto", "folded", "bfloat16")
    tokens = tokens_of(model)
    ours, theirs = model.cache(tokens, ["resid_post", "z"]), hooked(model, tokens, ["resid_post", "z"])
    assert ours["z", 0].dtype == torch.bfloat16
    for site, value in theirs.values.items():
        difference = (ours.values[site] - value).float().abs().max()
        assert difference < 0.05 * value.float().abs().max(), site
    assert passes


@pytest.mark.parametrize(("kind", "backend", "processing"), [*FOLDED, *BERT])
@pytest.mark.parametrize("names", [["resid_post", "mlp_post", "pattern"], ["ln1_scale", "z"]])
def test_parts_are_the_whole(model_of, monkeypatch, kind, backend, processing, names):
    model = model_of(kind, backend, processing)
    tokens, lengths = tokens_of(model, (5, 9)), torch.tensor([9, 4, 9, 2, 7])
    whole = model.cache(tokens, names, lengths=lengths)
    monkeypatch.setattr(cache_run, "_PART", {"cpu": 20})
    alike(model.cache(tokens, names, lengths=lengths), whole)
    alike(model.cache(tokens, names, lengths=lengths, dtype="float64"), whole_as(whole, torch.float64))


def whole_as(acts, dtype):
    return dataclasses.replace(acts, values={site: value.to(dtype) for site, value in acts.values.items()})


@pytest.mark.parametrize(
    ("n_prompts", "n_pos", "sizes"),
    [
        (8, 256, [2] * 4),
        (5, 256, [2, 2, 1]),
        (4, 200, [2, 2]),
        (3, 2000, [1] * 3),
        (9, 4, [9]),
        (1, 1, [1]),
        (0, 9, [0]),
    ],
)
def test_sizes_of_parts(n_prompts, n_pos, sizes):
    found = cache_run.parts(n_prompts, n_pos, torch.device("cpu"))
    assert [len(range(n_prompts)[rows]) for rows in found] == sizes
    assert [row for rows in found for row in range(n_prompts)[rows]] == list(range(n_prompts))


def test_parts_run_one_after_the_other(model_of, monkeypatch, passes):
    model = model_of("gpt2")
    monkeypatch.setattr(cache_run, "_PART", {"cpu": 50})
    model.cache(tokens_of(model, (5, 21)), ["resid_post"])
    assert passes == [2, 2, 1]
