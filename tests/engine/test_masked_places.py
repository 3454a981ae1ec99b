"""Edits of attention scores and patterns leave the causal mask, the padding and windows closed, at every level."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM

import mechxai as mx
from mechxai.core.edit import Edit
from mechxai.core.site import Site
from tests.checkpoints import byte_pair_tokenizer

LENGTHS = [9, 5, 7]
WINDOW = 4


@pytest.fixture(scope="module")
def mistral(tmp_path_factory):
    """A Mistral whose window is shorter than the prompts."""
    folder = tmp_path_factory.mktemp("mistral")
    torch.manual_seed(0)
    tokenizer = byte_pair_tokenizer()
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = MistralConfig(
        vocab_size=len(tokenizer), num_key_value_heads=2, sliding_window=WINDOW, max_position_embeddings=64, **sizes
    )
    model = MistralForCausalLM(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Ones(Edit):
    """A user-made edit: one everywhere, and in a pattern as much on every key."""

    def __call__(self, activation, site):
        return torch.ones_like(activation)


def uniform_head(folder, ids, *, layer, head, window=None):
    """Hugging Face's last logits of an unpadded prompt when a head attends equally to every key it sees."""
    hf = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    n = len(ids)
    visible = torch.ones(n, n).tril() - (torch.ones(n, n).tril(-window) if window else 0)
    uniform = visible / visible.sum(-1, keepdim=True)
    block = (hf.transformer.h if hasattr(hf, "transformer") else hf.model.layers)[layer]
    gpt2 = hasattr(block, "attn")
    d_head, values = 16, []
    values_of, out_of = (
        (block.attn.c_attn, block.attn.c_proj) if gpt2 else (block.self_attn.v_proj, block.self_attn.o_proj)
    )
    first = 128 + d_head * head if gpt2 else d_head * (head // 2)

    def mix(_, args):
        z = args[0].clone()
        z[0, :, d_head * head : d_head * (head + 1)] = uniform @ values[0]
        return (z,)

    values_of.register_forward_hook(lambda *args: values.append(args[2][0, :, first : first + d_head]))
    out_of.register_forward_pre_hook(mix)
    with torch.no_grad():
        return hf(ids[None]).logits[0, -1]


def score_of(logits, batch, row):
    return float(logits[batch.answers[row, 0, 0]] - logits[batch.wrong[row, 0, 0]])


def check_zero(model, folder, batch, *, window=None, heads=((0, 1), (2, 3))):
    ablation = mx.Ablation("attn_scores", ("layer", "head"), edit="zero")
    auto = ablation(model, batch).data["per_example"].values
    hooked = ablation(model, batch, execution=mx.Execution(engine="hooked")).data["per_example"].values
    np.testing.assert_allclose(auto, hooked, atol=1e-4)
    for layer, head in heads:
        for row, length in enumerate(LENGTHS):
            ids = batch.clean[row, :length]
            right = uniform_head(folder, ids, layer=layer, head=head, window=window)
            assert auto[row, layer, head] == pytest.approx(score_of(right, batch, row), abs=2e-4)
            edit = [mx.Intervention(Site("attn_scores", layer, head=head), mx.ZeroAblate())]
            padded = model.logits(batch.clean, lengths=batch.lengths, interventions=edit)[row, length - 1]
            assert score_of(padded, batch, row) == pytest.approx(score_of(right, batch, row), abs=2e-4)


@pytest.mark.parametrize(("kind", "backend"), [("gpt2", "auto"), ("gpt2", "bridge"), ("llama", "bridge")])
def test_zero_scores_attend_equally_to_what_the_mask_shows(model_of, checkpoint, pairs, kind, backend):
    model = model_of(kind, backend)
    check_zero(model, checkpoint(kind), pairs(model, n=3, lengths=LENGTHS))


def test_zero_scores_keep_the_window_closed(mistral, pairs):
    model = mx.load(str(mistral), device="cpu")
    check_zero(model, mistral, pairs(model, n=3, lengths=LENGTHS), window=WINDOW, heads=((0, 1),))


def edits_of(model, batch, site):
    """An edit of each kind at a whole site."""
    from mechxai.engine.sources import mean_source

    mean = mean_source(model, batch, run="clean", sites=[site], per_position=True)
    assert 0 < mean.stds[site] < 50
    return {
        "zero": mx.ZeroAblate(),
        "mean": mx.MeanAblate(mean),
        "noise": mx.AddNoise(0.5 * mean.stds[site]),
        "steer": mx.Steer(torch.full((batch.n_pos,), 0.3)),
        "own": Ones(),
    }


@pytest.mark.parametrize("kind", ["gpt2", "mistral"])
@pytest.mark.parametrize("name", ["attn_scores", "pattern"])
def test_no_edit_opens_the_mask(model_of, mistral, pairs, kind, name):
    model = model_of("gpt2") if kind == "gpt2" else mx.load(str(mistral), device="cpu")
    batch = pairs(model, n=3, lengths=LENGTHS)
    seen = torch.ones(9, 9).tril() - (torch.ones(9, 9).tril(-WINDOW) if kind == "mistral" else 0)
    for edit_name, edit in edits_of(model, batch, Site(name, 1)).items():
        for head, pos in ((None, None), (2, None), (None, 4), (1, -1)):
            at = [mx.Intervention(Site(name, 1, head=head, pos=pos), edit)]
            acts = model.cache(batch.clean, ["pattern"], lengths=batch.lengths, interventions=at)
            for row, length in enumerate(LENGTHS):
                pattern = acts["pattern", 1][row, :, :length, :length]
                hidden = pattern[:, (seen == 0)[:length, :length]]
                assert (hidden == 0).all(), (edit_name, head, pos)


@pytest.mark.parametrize("name", ["attn_scores", "pattern"])
def test_padding_changes_no_edited_prompt(model_of, pairs, name):
    model = model_of("gpt2")
    batch = pairs(model, n=3, lengths=LENGTHS)
    for edit_name, edit in edits_of(model, batch, Site(name, 1)).items():
        if edit_name == "steer":  # its vector has the width of the batch
            continue
        at = mx.Intervention(Site(name, 1, head=2), edit)
        together = model.logits(batch.clean, lengths=batch.lengths, interventions=[at])
        for row, length in enumerate(LENGTHS):
            alone = mx.MeanAblate(Cut(edit.mean, length)) if edit_name == "mean" else edit.rows(slice(row, row + 1))
            part = mx.Intervention(at.site, alone)
            single = model.logits(batch.clean[row : row + 1, :length], interventions=[part])
            torch.testing.assert_close(together[row, :length], single[0], atol=2e-4, rtol=0, msg=edit_name)


@dataclass(frozen=True)
class Cut:
    """A mean over positions, cut to a shorter prompt."""

    source: object
    length: int

    def __getitem__(self, site):
        return self.source[site][..., : self.length, : self.length]

    def rows(self, chosen):
        return self


@pytest.mark.parametrize("name", ["attn_scores", "pattern"])
@pytest.mark.parametrize("edit", ["zero", "mean", "noise", "resample"])
@pytest.mark.parametrize("kind", ["gpt2", "mistral"])
def test_levels_agree(model_of, mistral, pairs, kind, name, edit):
    model = model_of("gpt2") if kind == "gpt2" else mx.load(str(mistral), device="cpu")
    batch = pairs(model, n=3, lengths=None if edit == "resample" else LENGTHS)
    ablation = mx.Ablation(name, ("layer", "head"), edit=edit, layers=(0, 2))
    auto = ablation(model, batch).data["per_example"].values
    for engine in ("hooked", "wave", "suffix"):
        other = ablation(model, batch, execution=mx.Execution(engine=engine)).data["per_example"].values
        np.testing.assert_allclose(auto, other, atol=2e-4, err_msg=engine)
    assert np.abs(auto - auto[:, :1, :1]).max() > 1e-3


def test_underflow_is_no_mask(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=2)
    sharp = mx.Intervention(Site("attn_scores", 1), Sharp())
    ones = mx.Intervention(Site("pattern", 1), Ones())
    acts = model.cache(batch.clean, ["pattern"], interventions=[sharp, ones])
    assert (acts["pattern", 1] == torch.ones(9, 9).tril()).all()


@dataclass(frozen=True)
class Sharp(Edit):
    """Attention to the first key only; all others underflow to exactly 0."""

    def __call__(self, activation, site):
        new = torch.full_like(activation, -300.0)
        new[..., 0] = 0.0
        return new
