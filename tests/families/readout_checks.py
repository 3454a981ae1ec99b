"""Checks of lenses, attribution, attention, probes and generation on one causal or masked family."""

from typing import Any

import numpy as np
import torch

import mechxai as mx
from mechxai.core.errors import ConfigError
from mechxai.model.generation.generator import Writing
from tests.families import oracle
from tests.families.checks import logprobs
from tests.families.outcomes import Check, Measured, WrongNumberError
from tests.families.subject import Subject

SUM = 1e-3
INTEGRAL = 0.06  # of the change of the score
N_STEPS, MORE_STEPS = 24, 192
JUMPS = ("jump", "routing", "router", "expert", "discontinu")
TEXTS = [
    "When Mary and John went to the store, John gave a drink to",
    "The capital of",
    "The war lasted from the year 1741 to the",
]
N_NEW_TOKENS = 8


def lens(subject: Subject, measured: Measured) -> None:
    """The last layer of the logit lens is the model's output."""
    prompts = subject.prompts
    data = mx.LogitLens(k=3)(subject.model, prompts.batch()).data
    for number, row in enumerate(prompts.rows(prompts.clean)):
        right = logprobs(oracle.logits(subject, row))[:, prompts.answers[number]].numpy()
        values = data["target_logprob"].values[number, -1, : row.shape[1]]
        measured.compare("last layer", np.abs(values - right).max(), 5e-4)


def dla_head(subject: Subject, measured: Measured) -> None:
    _direct_attribution(subject, measured, "head")


def dla_layer(subject: Subject, measured: Measured) -> None:
    _direct_attribution(subject, measured, "layer")


def _direct_attribution(subject: Subject, measured: Measured, by: str) -> None:
    """Components sum to the logit difference, before a soft-cap."""
    prompts = subject.prompts
    data = mx.DirectLogitAttribution(by=by)(subject.model, prompts.batch()).data
    cap = getattr(subject.hf.config.get_text_config(), "final_logit_softcapping", None)
    right = []
    for number, row in enumerate(prompts.rows(prompts.clean)):
        last = oracle.logits(subject, row)[-1].double()
        last = cap * torch.atanh(last / cap) if cap else last
        right.append(float(last[prompts.answers[number]] - last[prompts.wrong[number]]))
    total = data["value"].sum("component").values
    measured.compare("sum", np.abs(total - right).max() / max(1, np.abs(right).max()), 2e-3)


def integrated_gradients(subject: Subject, measured: Measured) -> None:
    """The attributions sum to the change of the score, at more steps if need be; jumps of a router are announced."""
    gap, result = _integral_gap(subject, measured, N_STEPS)
    if gap > INTEGRAL:
        gap, result = _integral_gap(subject, measured, MORE_STEPS)
        measured.note(f"{MORE_STEPS} steps")
    if gap > INTEGRAL and any(word in note for note in result.info.notes for word in JUMPS):
        return measured.note("the result says that the score jumps where tokens are routed to other experts")
    return measured.compare("delta", gap, INTEGRAL)


def _integral_gap(subject: Subject, measured: Measured, n_steps: int) -> tuple[float, Any]:
    """The share of the score's change that the attributions miss, and the result."""
    batch = subject.prompts.batch()
    try:
        result = mx.IntegratedGradients(n_steps=n_steps)(subject.model, batch)
    except ConfigError:  # no padding token
        result = mx.IntegratedGradients(n_steps=n_steps, baseline="mean")(subject.model, batch)
        measured.note("baseline='mean'")
    data = result.data
    _compare_targets(subject, measured, data["target_score"].values)
    change = np.abs((data["target_score"] - data["baseline_score"]).values)
    return float((np.abs(data["delta"].values) / np.maximum(change, 1e-2)).max()), result


def kernel_shap(subject: Subject, measured: Measured) -> None:
    prompts = subject.prompts
    data = mx.KernelShap(n_samples=40, baseline="counterfactual")(subject.model, prompts.batch()).data
    _compare_targets(subject, measured, data["target_score"].values)
    right = oracle.scores(subject, prompts.corrupted, prompts)
    measured.compare("baseline score", np.abs(data["baseline_score"].values - right).max(), SUM)
    change = (data["target_score"] - data["baseline_score"]).values
    measured.compare("sum", np.abs(np.nansum(data["value"].values, 1) - change).max(), SUM)


def rollout(subject: Subject, measured: Measured) -> None:
    data = mx.AttentionRollout()(subject.model, subject.prompts.batch()).data
    total = np.nansum(data["value"].values, 1) + (data["on_special"].values if "on_special" in data else 0)
    measured.compare("sum", np.abs(total - 1).max(), SUM)


def patterns(subject: Subject, measured: Measured) -> None:
    values = mx.AttentionPatterns()(subject.model, subject.prompts.batch()).data["pattern"].values
    for number, row in enumerate(subject.prompts.rows(subject.prompts.clean)):
        right = oracle.attentions(subject, row)
        if right is None:
            return measured.note("no oracle")
        n = row.shape[1]
        error = max(np.abs(values[number, i, :, :n, :n] - p.numpy()).max() for i, p in enumerate(right))
        measured.compare("pattern", error, 2e-4)
    return None


def probes(subject: Subject, measured: Measured) -> None:
    """A token that tells the label is read perfectly where it stands."""
    generator = torch.Generator().manual_seed(3)
    n = 160
    tokens = torch.randint(20, 180, (n, 6), generator=generator)
    labels = torch.arange(n) % 2
    tokens[:, 3] = 30 + 7 * labels
    data = mx.ProbeDataset(tokens=tokens, lengths=torch.full((n,), 6), labels=labels, names=("a", "b"))
    last = subject.model.architecture.n_layers - 1
    method = mx.LinearProbes(site="resid_pre", pos=[3, 1], layers=[0, last], control_draws=1)
    accuracy = method(subject.model, data).data["accuracy"].values.reshape(-1, 2)
    measured.compare("1 - accuracy", 1 - accuracy[0, 0], 0.02)


def generation(subject: Subject, measured: Measured) -> None:
    """Greedy text equals that of ``generate``."""
    model = subject.model
    written = mx.LocalGenerator(model).write(TEXTS, Writing(max_tokens=N_NEW_TOKENS))
    special = model.text.special_ids()
    for text, output in zip(TEXTS, written, strict=True):
        ids = torch.tensor([model.text.ids(text)])
        settings = {"do_sample": False, "max_new_tokens": N_NEW_TOKENS, "pad_token_id": 0}
        with torch.no_grad():
            new = subject.hf.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, ids.shape[1] :].tolist()
        end = next((i for i, token in enumerate(new) if token in special), len(new))
        right = subject.tokenizer.decode(new[:end])
        if right != output.text:
            raise WrongNumberError(f"{output.text!r} where generate writes {right!r}")


def _compare_targets(subject: Subject, measured: Measured, values: np.ndarray) -> None:
    prompts = subject.prompts
    right = oracle.scores(subject, prompts.clean, prompts)
    measured.compare("score", np.abs(values - right).max() / max(1, np.abs(right).max()), SUM)


CHECKS: dict[str, Check] = {
    "lens": lens,
    "direct attribution by head": dla_head,
    "direct attribution by layer": dla_layer,
    "integrated gradients": integrated_gradients,
    "SHAP": kernel_shap,
    "rollout": rollout,
    "patterns": patterns,
    "probes": probes,
    "generation": generation,
}
