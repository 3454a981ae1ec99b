"""Checks of logits, caches, patching and edges on one causal or masked family, against Hugging Face."""

import contextlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

import mechxai as mx
from mechxai.core.errors import MechXAIError
from mechxai.core.site_table import SITES
from tests.families import oracle
from tests.families.outcomes import Check, Measured, WrongNumberError
from tests.families.subject import LONG, Prompts, Subject, random_prompts

ORACLE = 1e-3  # of the largest value: engine against Hugging Face
ENGINES = 1e-4  # of the largest value: levels of the engine against each other
EDGE_KINDS = ("logits", "m", "q", "k", "v")
N_EDGES = 4  # of each kind of reader


def logprobs(logits: Tensor) -> Tensor:
    return logits.double().log_softmax(-1)


def load(subject: Subject, measured: Measured) -> None:
    measured.note(subject.loaded)


def logits_raw(subject: Subject, measured: Measured) -> None:
    for row in subject.prompts.rows(subject.prompts.clean):
        right = oracle.logits(subject, row)
        error = (subject.raw.logits(row)[0] - right).abs().max() / right.abs().max().clamp(min=1)
        measured.compare("raw logits", error, 1e-4)


def logits(subject: Subject, measured: Measured) -> None:
    """Log-probabilities, of short prompts and of one beyond the thresholds of rotary tables."""
    long = random_prompts(subject.model.text.bos, subject.seed, LONG).clean[:1]
    for row in (*subject.prompts.rows(subject.prompts.clean), long):
        error = (logprobs(subject.model.logits(row)[0]) - logprobs(oracle.logits(subject, row))).abs().max()
        measured.compare(f"log-probabilities of {row.shape[1]} tokens", error, 5e-4)


def padding(subject: Subject, measured: Measured) -> None:
    prompts = subject.prompts
    padded = subject.model.logits(prompts.clean, lengths=torch.tensor(prompts.lengths))
    for number, row in enumerate(prompts.rows(prompts.clean)):
        alone = subject.model.logits(row)[0]
        error = (logprobs(padded[number, : row.shape[1]]) - logprobs(alone)).abs().max()
        measured.compare("padded against alone", error, 1e-4)


def cache_resid_post(subject: Subject, measured: Measured) -> None:
    _check_cache(subject, measured, "resid_post", oracle.layers(subject), "outputs")


def cache_z(subject: Subject, measured: Measured) -> None:
    _check_cache(subject, measured, "z", _modules(subject, "o"), "inputs")


def cache_mlp_post(subject: Subject, measured: Measured) -> None:
    _check_cache(subject, measured, "mlp_post", _modules(subject, "down"), "inputs")


def cache_pattern(subject: Subject, measured: Measured) -> None:
    row = subject.prompts.rows(subject.prompts.clean)[0]
    values = subject.raw.cache(row, ["pattern"])
    right = oracle.attentions(subject, row)
    if right is None:
        return measured.note("no oracle")
    for layer, pattern in enumerate(right):
        measured.compare("pattern", (values["pattern", layer][0] - pattern).abs().max(), 2e-4)
    return None


def patch_resid(subject: Subject, measured: Measured) -> None:
    auto = _patched(subject, measured, mx.ActivationPatching("resid_pre", ("layer", "pos")))
    prompts, blocks = subject.prompts, oracle.layers(subject)
    _compare_scaled(measured, "baseline", auto["baseline_clean"].values, oracle.scores(subject, prompts.clean, prompts))
    if blocks is None:
        return measured.note("no oracle")
    right = oracle.patched_scores(subject, prompts, blocks[_layer(subject)], pos=3)
    values = auto["per_example"].transpose("prompt", "layer", "pos").values[:, _layer(subject), 3]
    _compare_scaled(measured, "resid_pre against hooks", values, right)
    return None


def patch_z(subject: Subject, measured: Measured) -> None:
    auto = _patched(subject, measured, mx.ActivationPatching("z", ("layer", "head")))
    projections = _modules(subject, "o")
    if projections is None:
        return measured.note("no oracle")
    size = subject.model.architecture.d_head
    right = oracle.patched_scores(
        subject, subject.prompts, projections[_layer(subject)], columns=slice(2 * size, 3 * size)
    )
    values = auto["per_example"].transpose("prompt", "layer", "head").values[:, _layer(subject), 2]
    _compare_scaled(measured, "z against hooks", values, right)
    return None


def ablate_z(subject: Subject, measured: Measured) -> None:
    _patched(subject, measured, mx.Ablation(site="z", over=("layer", "head"), edit="mean"))


def ablate_mlp_out(subject: Subject, measured: Measured) -> None:
    _patched(subject, measured, mx.Ablation(site="mlp_out", over=("layer",), edit="mean"))


def edits(subject: Subject, measured: Measured) -> None:
    """Every site that can be edited has an effect, and attention to nothing is a ``z`` of zeros."""
    model, layer = subject.raw, _layer(subject)
    row = subject.prompts.rows(subject.prompts.clean)[0]
    unedited, n_sites = model.logits(row), 0
    for name, site_name in SITES.items():
        site = mx.Site(name, layer if site_name.has_layer else None)
        try:
            edited = model.logits(row, interventions=[mx.Intervention(site, mx.AddNoise(1.0))])
        except MechXAIError as error:
            measured.note(f"{name} refused: {type(error).__name__}")
            continue
        n_sites += 1
        if not (edited - unedited).abs().max() > 0:
            raise WrongNumberError(f"edits of {name} have no effect")
    measured.numbers["editable sites"] = n_sites
    with contextlib.suppress(MechXAIError):
        no_pattern, no_z = (
            model.logits(row, interventions=[mx.Intervention(mx.Site(name, layer), mx.ZeroAblate())])
            for name in ("pattern", "z")
        )
        error = (no_pattern - no_z).abs().max() / no_z.abs().max().clamp(min=1)
        measured.compare("no pattern against no z", error, ENGINES)


def edges(subject: Subject, measured: Measured) -> None:
    """Exact effects of edges of every kind of reader, against hooks on the Hugging Face model."""
    batch = subject.prompts.batch()
    data = mx.EdgePatching()(subject.model, batch).data
    mx.EdgeAttribution()(subject.model, batch)
    measured.note(f"{data.sizes['edge']} edges")
    if subject.names is None:
        return measured.note("no oracle")
    effects, src, dest = data["per_example"].values, data["src"].values.astype(str), data["dest"].values.astype(str)
    scale = np.abs(effects).max()
    oracles = oracle.edge_oracles(subject, subject.prompts)
    baselines = [edge.baseline() for edge in oracles]
    for number in _sampled_edges(dest):
        right = [base - edge.patched(src[number], dest[number]) for base, edge in zip(baselines, oracles, strict=True)]
        error = np.abs(effects[:, number] - right).max() / max(scale, 1e-6)
        measured.compare(f"edges into {_kind(dest[number])}", error, ORACLE)
    return None


def _sampled_edges(dest: np.ndarray) -> list[int]:
    """A few edges of every kind of reader, the same in every run."""
    generator = np.random.default_rng(0)
    chosen: list[int] = []
    for kind in EDGE_KINDS:
        numbers = [number for number, name in enumerate(dest) if _kind(name) == kind]
        chosen += sorted(generator.choice(numbers, min(N_EDGES, len(numbers)), replace=False)) if numbers else []
    return chosen


def _kind(dest: str) -> str:
    """The kind of a reader: "logits", "m", "q", "k" or "v"."""
    return dest if dest == "logits" else dest.rsplit(".", 1)[-1] if "." in dest else dest[0]


def _patched(subject: Subject, measured: Measured, method: Any) -> Any:
    """The method's data at the highest level, after comparison with hooks of the model."""
    batch = subject.prompts.batch()
    auto = method(subject.model, batch).data
    hooked = method(subject.model, batch, execution=mx.Execution(engine="hooked")).data
    if "level" in auto:
        measured.numbers["level"] = int(auto["level"])
    values, right = auto["per_example"].values, hooked["per_example"].values
    if not np.array_equal(np.isnan(values), np.isnan(right)):
        raise WrongNumberError(f"{method.site}: other cells are empty than at engine='hooked'")
    error = np.nanmax(np.abs(values - right)) / max(1, np.nanmax(np.abs(right)))
    measured.compare(f"{method.site} against engine='hooked'", error, ENGINES)
    return auto


def _check_cache(subject: Subject, measured: Measured, site: str, parts: Any, side: str) -> None:
    prompts = subject.prompts
    subject.model.cache(prompts.clean, [site], lengths=torch.tensor(prompts.lengths)).stack(site)
    row = prompts.rows(prompts.clean)[0]
    cache = subject.raw.cache(row, [site])
    if parts is None:
        return measured.note("no oracle")
    read = oracle.inputs_of if side == "inputs" else oracle.outputs_of
    for layer, right in enumerate(read(subject, parts, row)):
        values = cache[site, layer].reshape(right.shape)
        error = (values - right).abs().max() / right.abs().max().clamp(min=1e-6)
        measured.compare(f"{site}", error, 2e-4)
    return None


def _layer(subject: Subject) -> int:
    """The layer whose patches are compared with hooks: the second, if there is one."""
    return min(1, subject.model.architecture.n_layers - 1)


def _modules(subject: Subject, name: str) -> Any:
    return oracle.modules(subject, getattr(subject.names, name)) if subject.names else None


def _compare_scaled(measured: Measured, name: str, values: np.ndarray, right: np.ndarray) -> None:
    measured.compare(name, np.abs(values - right).max() / max(1, np.abs(right).max()), ORACLE)


def logit_scores(subject: Subject, prompts: Prompts) -> np.ndarray:
    return oracle.scores(subject, prompts.clean, prompts)


CHECKS: dict[str, Check] = {
    "load": load,
    "logits": logits,
    "logits, raw": logits_raw,
    "padding": padding,
    "cache of resid_post": cache_resid_post,
    "cache of z": cache_z,
    "cache of pattern": cache_pattern,
    "cache of mlp_post": cache_mlp_post,
    "patching of resid_pre": patch_resid,
    "patching of z": patch_z,
    "ablation of z": ablate_z,
    "ablation of mlp_out": ablate_mlp_out,
    "edits of every site": edits,
    "edges": edges,
}
