"""The checks notice a wrong number, a refusal and an exception, and the oracle of edges agrees with plain patching."""

import numpy as np
import pytest
import torch

from mechxai.core.errors import SiteError
from tests.families import checks, oracle
from tests.families.checkpoints import FAMILIES, write
from tests.families.outcomes import Measured, run_check
from tests.families.subject import Subject


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    return Subject(write("smollm3", tmp_path_factory.mktemp("families") / "one"))


@pytest.fixture
def damaged(tmp_path):
    """The model of one seed beside Hugging Face's model of the same weights with one norm changed."""
    damaged = Subject(write("smollm3", tmp_path / "one"))
    with torch.no_grad():
        damaged.hf.model.layers[1].post_attention_layernorm.weight[:8] += 0.5
    return damaged


def test_the_checks_pass_on_the_model_itself(subject):
    assert run_check("logits", checks.logits, subject).state == "right"
    assert run_check("edges", checks.edges, subject).state == "right"


@pytest.mark.parametrize("check", ["logits", "cache of resid_post", "patching of z", "edges"])
def test_a_changed_weight_is_noticed(damaged, check):
    outcome = run_check(check, checks.CHECKS[check], damaged)
    assert outcome.state == "wrong", outcome


def test_a_nan_is_wrong(subject):
    outcome = run_check("nan", lambda _, measured: measured.compare("error", float("nan"), 1.0), subject)
    assert outcome.state == "wrong"


def test_exceptions_are_outcomes(subject):
    def refuse(_subject, _measured):
        raise SiteError("no such site")

    def crash(_subject, _measured):
        raise KeyError("z")

    assert run_check("refuse", refuse, subject).state == "refused"
    crashed = run_check("crash", crash, subject)
    assert crashed.state == "traceback"
    assert "KeyError" in crashed.detail
    assert crashed.failed


def test_the_edge_of_the_embedding_into_the_logits_is_the_direct_effect(subject):
    """The embedding's edge into the logits moves the input of the final norm by the change of the embedding alone."""
    prompts = subject.prompts
    clean, corrupted = (prompts.rows(tokens)[0] for tokens in (prompts.clean, prompts.corrupted))
    edge = oracle.edge_oracles(subject, prompts)[0]
    hf = subject.hf
    with torch.no_grad():
        move = hf.model.embed_tokens(corrupted) - hf.model.embed_tokens(clean)
        final = oracle.inputs_of(subject, [hf.model.norm], clean)[0] + move
        last = hf.lm_head(hf.model.norm(final))[0, -1]
    right = float(last[prompts.answers[0]] - last[prompts.wrong[0]])
    assert edge.patched("embed", "logits") == pytest.approx(right, abs=1e-5)
    assert edge.baseline() == pytest.approx(oracle.scores(subject, prompts.clean, prompts)[0], abs=1e-5)


def test_the_last_mlps_edge_into_the_logits_is_patching_that_mlp(subject):
    """It has no other reader."""
    prompts, edge = subject.prompts, oracle.edge_oracles(subject, subject.prompts)[0]
    layer = subject.hf.model.layers[-1].mlp
    clean, corrupted = (prompts.rows(tokens)[0] for tokens in (prompts.clean, prompts.corrupted))
    source = oracle.outputs_of(subject, [layer], corrupted)[0]
    handle = layer.register_forward_hook(lambda *_: source)
    last = oracle.logits(subject, clean)[-1]
    handle.remove()
    right = float(last[prompts.answers[0]] - last[prompts.wrong[0]])
    assert edge.patched("m2", "logits") == pytest.approx(right, abs=1e-4)


def test_corrupted_prompts_differ_from_clean_ones_and_scores_follow(subject):
    prompts = subject.prompts
    gap = oracle.scores(subject, prompts.clean, prompts) - oracle.scores(subject, prompts.corrupted, prompts)
    assert np.abs(gap).min() > 1e-2


def test_compare_keeps_the_numbers():
    measured = Measured()
    measured.compare("error", 0.5, 1)
    assert measured.numbers == {"error": 0.5}


def test_family_names_are_unique_over_groups():
    from tests.families.checkpoints import GROUPS

    assert sum(len(group) for group in GROUPS.values()) == len(FAMILIES)
