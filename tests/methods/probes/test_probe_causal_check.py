"""Causal checks of probes: edits by hand, used and unused information in a known model, errors."""

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ConfigError
from mechxai.core.site import Site
from mechxai.methods.probes._lib.direction_edits import RemoveAlong, ShiftEach, orthonormal
from tests.conftest import FOLDED


@pytest.fixture(scope="module")
def result(zoo):
    return mx.ProbeCausalCheck(probe="mass_mean")(zoo, mx.tasks.subject_number(zoo, n=160))


def test_removing_by_hand():
    site = Site("resid_post", 0)
    read, write = torch.tensor([[1.0, 0, 0]]), torch.tensor([[0, 0, 1.0]])
    center = torch.tensor([0.5, 0, 0])
    x = torch.tensor([[[3.0, 4.0, 5.0]]])
    assert RemoveAlong(read, read, center)(x, site).tolist() == [[[0.5, 4.0, 5.0]]]
    placebo = RemoveAlong(read, write, center)(x, site)
    assert placebo.tolist() == [[[3.0, 4.0, 2.5]]]
    assert (placebo - x).norm() == (RemoveAlong(read, read, center)(x, site) - x).norm()


def test_shifting_by_hand_keeps_to_its_prompts():
    edit = ShiftEach(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    assert edit(torch.zeros(2, 3, 2), Site("resid_post", 0))[1].tolist() == [[0.0, 2.0]] * 3
    assert edit.rows(slice(1, 2))(torch.zeros(1, 2), Site("resid_post", 0)).tolist() == [[0.0, 2.0]]
    heads = edit(torch.zeros(2, 2, 1), Site("z", 0, pos=-1))
    assert heads[:, :, 0].tolist() == [[1.0, 0.0], [0.0, 2.0]]


def test_a_basis_is_orthonormal_and_as_large_as_the_span():
    rows = torch.tensor([[1.0, 1, 0], [2.0, 2, 0], [0, 0, 3.0]])
    basis = orthonormal(rows)
    assert basis.shape == (2, 3)
    assert torch.allclose(basis @ basis.T, torch.eye(2), atol=1e-6)


def test_the_number_at_the_end_is_used(result):
    data = result.data
    assert data["value"].dims == ("edit", "layer")
    assert data["edit"].values.tolist() == ["project_out", "steer", "interchange"]
    last = data.sel(layer=3)
    assert last["accuracy"] > 0.95
    assert (last["used"] == 1).all()
    assert last["verdict"] == "decodable and used"
    assert last["removed"].sel(edit="interchange") > 0.8, "exchanging the direction flips the verb"
    assert (last["placebo"] < last["value"] / 3).all()
    assert np.allclose(data["per_example"].mean("prompt"), data["value"])


def test_what_is_read_at_the_subject_late_is_not_used(zoo):
    found = mx.ProbeCausalCheck(probe="mass_mean", pos="SUBJECT")(zoo, mx.tasks.subject_number(zoo, n=160))
    last = found.data.sel(layer=3)
    assert last["accuracy"] == 1
    assert (abs(last["removed"]) < 0.05).all()
    assert last["verdict"] == "decodable, not used here"
    assert "Decodable is not used" in found.info.notes[-1]
    assert found.data["verdict"].sel(layer=0) == "decodable and used", "it is read there by later layers"


def test_the_last_layers_edit_equals_a_forward_pass(zoo, result):
    """Interchange of all that the corrupted run has, along a basis of everything, is patching."""
    batch = mx.tasks.subject_number(zoo, n=6).behaviour
    site = Site("resid_post", 1, pos="END")
    acts = [zoo.cache(batch.tokens(run), [site.whole], layout=batch.layout)[site] for run in ("clean", "corrupted")]
    edit = mx.Intervention(site, ShiftEach(acts[1] - acts[0]))
    patch = mx.Intervention(site, mx.Patch(zoo.cache(batch.corrupted, [site.whole], layout=batch.layout)))
    ours, theirs = (zoo.logits(batch.clean, layout=batch.layout, interventions=[one]) for one in (edit, patch))
    at = batch.answer_pos
    rows = torch.arange(len(at))
    assert torch.allclose(ours[rows, at], theirs[rows, at], atol=1e-4)


def test_several_classes_have_a_subspace_and_no_steering(zoo):
    found = mx.ProbeCausalCheck(layers=[0, 3], placebos=3)(zoo, mx.tasks.fact_relation(zoo, n=60))
    assert found.data["edit"].values.tolist() == ["project_out", "interchange"]
    assert found.data["layer"].values.tolist() == [0, 3]


def test_what_cannot_be_checked_is_refused(zoo):
    with pytest.raises(ConfigError, match=r"with labels and behaviour="):
        mx.ProbeCausalCheck()(zoo, mx.tasks.pos_tags(zoo, n=8))
    with pytest.raises(ConfigError, match=r"one position or role"):
        mx.ProbeCausalCheck(pos="mean")
    with pytest.raises(ConfigError, match=r"mlp"):
        mx.ProbeCausalCheck(probe="mlp")


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_every_architecture_equals_plain_forward_passes(model_of, pairs, kind, backend, processing, monkeypatch):
    """The fall along the probe's direction, edit by edit, is that of one forward pass with the same edit in place."""
    from mechxai.methods.probes import probe_causal_check as module

    model = model_of(kind, backend, processing)
    batch = pairs(model, n=40, width=7, first=3, lengths=[5, 6, 7, 7] * 10)
    labels = (batch.clean[:, 3] > 100).long()
    dataset = mx.ProbeDataset(batch.clean, batch.lengths, labels, ("low", "high"), behaviour=batch)
    swept = []
    real = module.run_sweep
    monkeypatch.setattr(module, "run_sweep", lambda *given, **more: swept.append(given[1]) or real(*given, **more))
    found = mx.ProbeCausalCheck(pos=3, placebos=1)(model, dataset)
    (sweep,) = swept
    cells = iter(sweep.cells)
    metric, test = sweep.metric, sweep.batch
    at = test.answer_pos[:, None]

    def score(*interventions):
        logits = model.logits(test.clean, at=at, layout=test.layout, interventions=interventions)
        return metric.score(logits, test)

    clean = score()
    for layer in range(model.architecture.n_layers):
        for edit in found.data["edit"].values:
            for own in (True, False):
                fall = clean - score(*next(cells))
                if own:
                    ours = found.data["per_example"].sel(edit=edit, layer=layer).values
                    assert np.allclose(ours, fall.numpy(), atol=2e-3), (layer, edit)
