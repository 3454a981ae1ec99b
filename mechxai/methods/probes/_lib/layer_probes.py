"""Fits and scores all probes of one site and layer, with their controls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mechxai.core.probe_dataset import ProbeDataset
from mechxai.methods.probes._lib.activation_block import Block, activation_block
from mechxai.methods.probes._lib.codelength import codelength
from mechxai.methods.probes._lib.fitting import FittedProbes, ProbeKind, fit_probes
from mechxai.methods.probes._lib.likelihood import Likelihood
from mechxai.methods.probes._lib.probe_scores import class_scores, majority_baseline, number_scores, selectivity
from mechxai.methods.probes._lib.rows_read import ProbeRows, blocks

_MIN_TEST_ROWS = 10  # positions with fewer test rows get NaN
ProbeScores = dict[str, np.ndarray]  # name -> [pos, ...]
Take = Callable[[str, Callable[[], ProbeScores]], ProbeScores]  # see `FinishedPieces.take`


@dataclass(frozen=True)
class ProbeSettings:
    """Settings of the probes of a run, the same for every site, layer and position.

    Attributes:
        probe: the kind of probe.
        C: inverse regularisations to choose from.
        likelihood: likelihood of the labels.
        mdl: also compute codelengths.
        seed: seed of all random draws.
    """

    probe: ProbeKind
    C: tuple[float, ...]
    likelihood: Likelihood
    mdl: bool
    seed: int


@dataclass(frozen=True)
class Task:
    """The data of a run's probes; prompts in the order of the split.

    Attributes:
        dataset: the prompts.
        reads: the rows of each position, with the task's labels first, then the labels of the controls.
        counts: number of prompts to train on, and to validate on.
    """

    dataset: ProbeDataset
    reads: Sequence[ProbeRows]
    counts: tuple[int, int]


def layer_scores(
    values: Tensor,
    task: Task,
    settings: ProbeSettings,
    *,
    device: torch.device,
    buffers: dict[str, Tensor],
    take: Take = lambda _, compute: compute(),
) -> ProbeScores:
    """The scores of one layer's probes at every position; NaN for positions with too few labels.

    Args:
        values: the layer's activations, ``[store row, d]``.
        task: rows and labels.
        settings: settings of the probes.
        device: the device on which probes are fitted.
        buffers: memory reused from layer to layer.
        take: gives the finished scores of a few positions, by their numbers, or computes them.

    Returns:
        The scores of `LinearProbes`, each ``[pos]``; ``weight`` ``[pos, column, d]`` and ``bias`` ``[pos, column]`` for
        raw activations, and ``center``, ``[pos, d]``.
    """
    by_position: list[ProbeScores] = [{}] * len(task.reads)
    tested = [int((read.present & (read.prompts >= sum(task.counts))).sum()) for read in task.reads]
    least = min(_MIN_TEST_ROWS, max(tested))
    for numbers in blocks(task.reads, values.shape[1] + 1, device):
        reads = [task.reads[number] for number in numbers]

        def of_block(reads: Sequence[ProbeRows] = reads) -> ProbeScores:
            block = activation_block(values, reads, task.counts, buffers, device)
            return _block_scores(block, reads, settings, least=least)

        for key, array in take(" ".join(map(str, numbers)), of_block).items():
            place, name = key.split(" ")
            number = numbers[int(place)]
            by_position[number] = by_position[number] | {name: array}
    names = dict.fromkeys(name for scores in by_position for name in scores)
    return {name: np.stack([_filled(scores, name, by_position) for scores in by_position]) for name in names}


def _block_scores(block: Block, reads: Sequence[ProbeRows], settings: ProbeSettings, *, least: int) -> ProbeScores:
    """The scores of a few positions, named by their place in the block: ``0 accuracy``."""
    probes = fit_probes(block, settings.probe, settings.C, likelihood=settings.likelihood, seed=settings.seed)
    bits = _codelengths(block, probes, settings)
    outputs, weights = probes.outputs.cpu(), _raw_parameters(block, probes, settings.likelihood.n_classes)
    named: ProbeScores = {}
    for place, read in enumerate(reads):
        scores = _test_scores(block, outputs, place, prompts=read.prompts, settings=settings, least=least)
        if not scores:
            continue
        scores |= {name: tensor[place].cpu().numpy() for name, tensor in (weights | bits).items()}
        named |= {f"{place} {name}": array for name, array in scores.items()}
        named[f"{place} C"] = probes.C[place, 0].cpu().numpy()
    return named


def _codelengths(block: Block, probes: FittedProbes, settings: ProbeSettings) -> dict[str, Tensor]:
    if not settings.mdl:
        return {}
    bits, compression = codelength(block, probes.C[:, 0], settings.likelihood, seed=settings.seed)
    return {"codelength": bits, "compression": compression}


def _raw_parameters(block: Block, probes: FittedProbes, n_classes: int) -> dict[str, Tensor]:
    if probes.W is None:
        return {}
    weight, bias = block.raw(probes.W[:, :, 0])
    parameters = {"weight": weight, "bias": bias, "center": block.center}
    return parameters | ({"class_means": block.class_means(n_classes)} if n_classes == 2 else {})


def _test_scores(
    block: Block, outputs: Tensor, place: int, *, prompts: Tensor, settings: ProbeSettings, least: int
) -> ProbeScores:
    """The scores of one probe and its controls on the test rows; empty if there are fewer than ``least``."""
    train, _, test = block.parts
    present = block.present[place].cpu()
    train_labels = block.labels[place, train, 0].cpu()[present[train]].numpy()
    labels = block.labels[place, test].cpu()[present[test]].numpy()
    if len(labels) < max(1, least) or len(np.unique(train_labels)) < 2:
        return {}
    prompt_of_row = prompts.cpu()[test][present[test]].numpy()
    outputs = outputs[place, test][present[test]]  # [row, target, column]
    n_targets = labels.shape[1]
    if settings.likelihood.n_classes == 0:
        scores = number_scores(outputs[:, 0], labels[:, 0], prompt_of_row)
        if n_targets > 1:
            control = [number_scores(outputs[:, at], labels[:, at], prompt_of_row)["r2"] for at in range(1, n_targets)]
            scores["control_r2"] = float(np.mean(np.array(control, dtype=float)))
            scores["selectivity"] = scores["r2"] - scores["control_r2"]
        return {name: np.asarray(value) for name, value in scores.items()}
    scores = class_scores(outputs[:, 0], labels[:, 0], prompt_of_row, likelihood=settings.likelihood)
    scores["majority_baseline"] = majority_baseline(train_labels, labels[:, 0])
    if n_targets > 1:
        correct = settings.likelihood.predicted(outputs).numpy() == labels
        scores |= selectivity(correct[:, 0], correct[:, 1:], prompt_of_row)
        scores["control_accuracy"] = correct[:, 1:].mean()
    scores["n_train"], scores["n_test"] = len(train_labels), len(labels)
    return {name: np.asarray(value, dtype=float) for name, value in scores.items()}


def _filled(scores: ProbeScores, name: str, by_position: Sequence[ProbeScores]) -> np.ndarray:
    if name in scores:
        return np.asarray(scores[name], dtype=float)
    shape = next(np.asarray(other[name]).shape for other in by_position if name in other)
    return np.full(shape, np.nan)
