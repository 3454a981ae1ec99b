"""`model.cache` through plain blocks: the values of the hooked way, in parts, in place, and only where it is proven."""

import dataclasses
import weakref

import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ModelSupportError, SiteError
from mechxai.core.site_table import SITES
from mechxai.model.backends.capture import AllCached, Keeper
from mechxai.model.dense import cache as cache_run
from mechxai.model.dense import check as dense_check
from mechxai.model.dense import run as dense_run
from mechxai.model.dense.blocks import Affine, Norm
from mechxai.model.dense.buffers import Buffers
from mechxai.model.dense.check import dense_blocks, equivalence_check
from mechxai.model.dense.run import DENSE_SITES, pass_dense, run_dense
from tests.conftest import FOLDED, MODELS

BERT = [("bert", "auto", "raw")]
N_LAYERS = 3


def tokens_of(model, shape=(3, 21), seed=0):
    return torch.randint(10, model.architecture.d_vocab, shape, generator=torch.Generator().manual_seed(seed))


def names_of(model, candidates=DENSE_SITES):
    found = []
    for name in candidates:
        try:
            model.backend.check(mx.Site(name, 0 if SITES[name].has_layer else None))
        except (SiteError, ModelSupportError):
            continue
        found.append(name)
    return found


def hooked(model, *args, **kwargs):
    """The cache made with hooks, whatever is proven."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_run, "_trusted", lambda *_: None)
        return model.cache(*args, **kwargs)


@pytest.fixture
def passes(monkeypatch):
    """Prompts of every pass through plain blocks that is made."""
    seen = []

    def counted(plain, residual, *args, **kwargs):
        seen.append(len(residual))
        return pass_dense(plain, residual, *args, **kwargs)

    monkeypatch.setattr(cache_run, "pass_dense", counted)
    return seen


@pytest.fixture
def unknown(monkeypatch):
    """Nothing is known of any model yet."""
    monkeypatch.setattr(dense_check, "_entries", weakref.WeakKeyDictionary())


def alike(ours, theirs, atol=2e-5):
    assert list(ours) == list(theirs)
    for site, value in ours.values.items():
        torch.testing.assert_close(value, theirs.values[site], atol=atol, rtol=1e-5, msg=lambda m, s=site: f"{s}: {m}")


# Equality -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "backend", "processing"), MODELS)
def test_plain_values_are_the_hooked_ones(model_of, passes, kind, backend, processing):
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
    assert found.final


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


# Parts ----------------------------------------------------------------------------------------------------------------


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


# Stacks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [["resid_post", "z"], ["resid_post", "ln1_scale"]])
def test_a_stack_is_no_copy(model_of, names):
    model = model_of("gpt2")
    acts = model.cache(tokens_of(model), names, layers=[2, 0, 1])
    for name in names:
        stack = acts.stack(name)
        assert stack.data_ptr() == acts[name, 0].data_ptr()
        assert stack.untyped_storage().nbytes() == stack.nelement() * 4
        assert torch.equal(stack, torch.stack([acts[name, layer] for layer in range(N_LAYERS)]))


def test_other_stacks_are_right_too(model_of):
    model = model_of("gpt2")
    tokens = tokens_of(model)
    acts = model.cache(tokens, ["resid_post"])
    expected = torch.stack([acts["resid_post", layer] for layer in range(N_LAYERS)])
    rows = acts.rows(slice(1, 3))
    assert torch.equal(rows.stack("resid_post"), expected[:, 1:3])
    assert rows.stack("resid_post").data_ptr() == acts["resid_post", 0][1].data_ptr()
    assert torch.equal(acts.rows(torch.tensor([2, 0])).stack("resid_post"), expected[:, [2, 0]])
    assert torch.equal(model.cache(tokens, ["resid_post"], layers=[1]).stack("resid_post"), expected[1:2])
    assert torch.equal(model.cache(tokens, ["resid_post"], layers=[2, 0]).stack("resid_post"), expected[[0, 2]])
    one = acts["resid_post", 1]
    for values in (
        [expected[2], expected[1], expected[0]],
        [expected[0], expected[2], expected[1]],
        [one, one, one],
        [expected[0], expected[1], expected[2].clone()],
        [expected[0], expected[1], expected[2].double()],
        [expected[0, :, :, :8], expected[1, :, :, :8], expected[2, :, :, :8]],
    ):
        made = dataclasses.replace(acts, values={mx.Site("resid_post", at): value for at, value in enumerate(values)})
        if values[2].dtype == torch.float32:
            assert torch.equal(made.stack("resid_post"), torch.stack(values))
    grown = {mx.Site("resid_post", at): expected[at].clone().requires_grad_() for at in range(N_LAYERS)}
    assert dataclasses.replace(acts, values=grown).stack("resid_post").requires_grad


def test_layers_of_other_sizes_get_their_own_place():
    sites = [mx.Site("mlp_post", layer) for layer in range(3)]
    keeper = Keeper(sites, None, torch.float32, torch.device("cpu"), 4)
    given = [torch.randn(4, 5, width) for width in (6, 8, 6)]
    for rows in (slice(0, 3), slice(3, 4)):
        keeper.begin(rows)
        keeper.keep(sites[0], given[0][rows])
        keeper.keep(sites[1], given[1][rows])
        with pytest.raises(AllCached):
            keeper.keep(sites[2], given[2][rows])
    for site, value in zip(sites, given, strict=True):
        assert torch.equal(keeper.values[site], value)


# No more than is wanted -----------------------------------------------------------------------------------------------


def refuse(*_, **__):
    raise AssertionError("this was not to be run")


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_nothing_runs_after_the_last_wanted_site(model_of, monkeypatch, kind, backend, processing):
    model = model_of(kind, backend, processing)
    tokens = tokens_of(model)
    expected = hooked(model, tokens, ["resid_post", "z", "attn_out"])
    plain = dense_blocks(model.backend)
    equivalence_check(model.backend)
    first, second, _ = plain.blocks
    only_attention = dataclasses.replace(second, norm2=Norm("LN", 1e-5, torch.zeros(1)), activation=refuse)
    only_z = dataclasses.replace(only_attention, o=Affine(torch.zeros(1, 1), None))
    for name, blocks in (
        ("resid_post", [first, second]),
        ("attn_out", [first, only_attention]),
        ("z", [first, only_z]),
    ):
        monkeypatch.setattr(cache_run, "dense_blocks", lambda _, b=blocks: dataclasses.replace(plain, blocks=b))
        acts = model.cache(tokens, [name], layers=[0, 1])
        for layer in (0, 1):
            torch.testing.assert_close(acts[name, layer], expected[name, layer], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_of_the_model_itself_only_the_embedding_is_run(model_of, monkeypatch, kind, backend, processing):
    model = model_of(kind, backend, processing)
    equivalence_check(model.backend)
    first = model.inner.blocks[0]  # where the embedding ends
    for module in (first.attn, first.mlp, *model.inner.blocks[1:], model.inner.ln_final, model.inner.unembed):
        monkeypatch.setitem(vars(module), "forward", refuse)
    model.cache(tokens_of(model), ["resid_post"])


def test_keys_and_values_are_not_held(model_of, monkeypatch):
    model = model_of("llama")
    plain = dense_blocks(model.backend)
    residual = torch.randn(2, 9, 64)
    attention = torch.nn.functional.scaled_dot_product_attention
    places = []

    def watched(q, k, v, **kwargs):
        places.append(v.data_ptr())
        return attention(q, k, v, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    values, kept = [], {}
    wanted = [mx.Site("resid_post", layer) for layer in range(N_LAYERS)]
    keep = lambda site, value: values.append(value.clone())  # noqa: E731
    buffers = Buffers()
    pass_dense(plain, residual, keep, wanted=wanted, buffers=buffers)
    pass_dense(plain, residual[:1], keep, wanted=wanted, buffers=buffers)
    assert len(set(places)) == 1
    pass_dense(plain, residual, keep, wanted=wanted, buffers=None)
    places.clear()
    run = run_dense(plain, residual, kept.__setitem__, wanted=wanted)
    assert len(set(places)) == N_LAYERS
    assert len(run.kept.keys) == N_LAYERS
    for layer in range(N_LAYERS):
        torch.testing.assert_close(values[layer], run.residuals[layer + 1])
        torch.testing.assert_close(values[N_LAYERS + layer], run.residuals[layer + 1][:1])
        torch.testing.assert_close(values[2 * N_LAYERS + layer], kept[wanted[layer]])


# Trust ----------------------------------------------------------------------------------------------------------------


def wrong_activation(plain):
    return dataclasses.replace(plain, blocks=[dataclasses.replace(b, activation=torch.relu) for b in plain.blocks])


def wrong_weight(plain):
    first, second, third = plain.blocks
    changed = dataclasses.replace(second.o, weight=second.o.weight * 1.01)
    return dataclasses.replace(plain, blocks=[first, dataclasses.replace(second, o=changed), third])


def wrong_shape(plain):
    changed = dataclasses.replace(plain.blocks[2].mlp_out, weight=plain.blocks[2].mlp_out.weight[1:])
    return dataclasses.replace(plain, blocks=[*plain.blocks[:2], dataclasses.replace(plain.blocks[2], mlp_out=changed)])


@pytest.mark.parametrize("wrong", [wrong_activation, wrong_weight, wrong_shape])
@pytest.mark.parametrize(("kind", "backend", "processing"), [one for one in FOLDED if one[0] != "llama"])
def test_wrong_blocks_are_not_trusted(model_of, monkeypatch, unknown, passes, kind, backend, processing, wrong):
    model = model_of(kind, backend, processing)
    tokens = tokens_of(model)
    expected = hooked(model, tokens, ["resid_post"])
    read = dense_check.read_dense
    monkeypatch.setattr(dense_check, "read_dense", lambda *given: wrong(read(*given)))
    found = model.cache(tokens, ["resid_post"])
    assert not passes
    for site, value in found.values.items():
        assert torch.equal(value, expected.values[site])


def test_what_agrees_is_trusted_though_something_else_does_not(model_of, monkeypatch, unknown, passes):
    model = model_of("gpt2")
    tokens = tokens_of(model)
    read = dense_check.read_dense
    monkeypatch.setattr(
        dense_check, "read_dense", lambda *given: dataclasses.replace(read(*given), final=Norm("none", 0.0))
    )
    alike(model.cache(tokens, ["resid_post"]), hooked(model, tokens, ["resid_post"]))
    assert passes
    assert not equivalence_check(model.backend).final


def test_blocks_that_hold_for_short_prompts_only(model_of, monkeypatch, passes):
    model = model_of("gpt2")
    plain = dense_blocks(model.backend)
    monkeypatch.setattr(cache_run, "dense_blocks", lambda _: dataclasses.replace(plain, longest=8))
    model.cache(tokens_of(model, (2, 9)), ["resid_post"])
    assert not passes
    model.cache(tokens_of(model, (2, 8)), ["resid_post"])
    assert passes == [2]


@pytest.mark.parametrize("setting", [{"sliding_window": 8}, {"rope_parameters": {"rope_type": "dynamic"}}])
def test_what_hugging_face_says_of_lengths_is_read(model_of, monkeypatch, unknown, setting):
    model = model_of("llama", "bridge")
    assert dense_blocks(model.backend).longest is None
    for name, value in setting.items():
        monkeypatch.setattr(model.inner.original_model.config, name, value, raising=False)
    dense_check._entries.clear()
    assert dense_blocks(model.backend).longest == (8 if "sliding_window" in setting else 64)


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_functions_of_the_user_are_obeyed(model_of, passes, kind, backend, processing):
    model = model_of(kind, backend, processing)
    tokens, seen = tokens_of(model), []
    plain = model.cache(tokens, ["resid_post"])
    assert passes
    passes.clear()
    point = model.inner.hook_dict[mx.Site("z", 0).hook]
    point.add_hook(lambda z, hook: 0 * z)
    try:
        changed = model.cache(tokens, ["resid_post"])
    finally:
        point.remove_hooks("fwd", including_permanent=True)
    handle = model.inner.blocks[1].register_forward_hook(lambda *_: seen.append(1))
    try:
        model.cache(tokens, ["resid_post"])
    finally:
        handle.remove()
    assert not passes
    assert seen
    assert (changed["resid_post", 2] - plain["resid_post", 2]).abs().max() > 1e-3
    alike(model.cache(tokens, ["resid_post"]), plain)
    assert passes


@pytest.mark.parametrize(("kind", "backend", "processing"), [one for one in FOLDED if one[0] == "gpt2"])
def test_changed_weights_are_seen(checkpoint, kind, backend, processing):
    model = mx.load(str(checkpoint(kind)), backend=backend, processing=processing, device="cpu")
    tokens = tokens_of(model)
    before = model.cache(tokens, ["resid_post"])
    parameters = [one for one in model.inner.blocks[1].parameters() if one.dim() > 1]
    with torch.no_grad():
        for parameter in parameters:
            parameter.mul_(1.5)
    in_place = model.cache(tokens, ["resid_post"])
    alike(in_place, hooked(model, tokens, ["resid_post"]))
    for parameter in parameters:
        parameter.data = parameter.data / 1.5
    alike(model.cache(tokens, ["resid_post"]), before)
    assert (in_place["resid_post", 1] - before["resid_post", 1]).abs().max() > 1e-3


def test_plain_sites_are_sites():
    assert set(DENSE_SITES) <= set(SITES)
    assert dense_run.DENSE_SITES is DENSE_SITES
