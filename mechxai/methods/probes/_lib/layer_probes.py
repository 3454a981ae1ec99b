"""Every probe of one site and layer: fitted, controlled, judged."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mechxai.core.probe_dataset import ProbeDataset
from mechxai.methods.probes._lib.activation_block import Block, gathered
from mechxai.methods.probes._lib.codelength import codelength
from mechxai.methods.probes._lib.fitting import Fitted, fitted
from mechxai.methods.probes._lib.likelihood import Likelihood
from mechxai.methods.probes._lib.probe_scores import class_scores, majority_baseline, number_scores, selectivity
from mechxai.methods.probes._lib.rows_read import ProbeRows, blocks

_LEAST = 10  # test rows at a position that few prompts reach; fewer say nothing
Scores = dict[str, np.ndarray]  # name -> [pos, ...]


@dataclass(frozen=True)
class ProbeSettings:
    """How probes are made, whatever they read.

    Attributes:
        probe: one of `PROBES`.
        C: inverse regularisations to choose from.
        likelihood: of the labels.
        mdl: also give codelengths.
        seed: of whatever is drawn.
    """

    probe: str
    C: tuple[float, ...]
    likelihood: Likelihood
    mdl: bool
    seed: int


@dataclass(frozen=True)
class Task:
    """What a run's probes read and learn; prompts in the order of the split.

    Attributes:
        dataset: the prompts.
        reads: of each position, with the task's labels first and the controls' behind them.
        counts: prompts to train on, and to validate on.
    """

    dataset: ProbeDataset
    reads: Sequence[ProbeRows]
    counts: tuple[int, int]


def layer_scores(
    values: Tensor, task: Task, recipe: ProbeSettings, *, device: torch.device, held: dict[str, Tensor]
) -> Scores:
    """What every position's probe of one layer reaches; NaN where a position has too few labels to tell.

    Args:
        values: the layer's activations, ``[store row, d]``.
        task: what to read and learn.
        recipe: how.
        device: where probes are fitted.
        held: memory used again from layer to layer.

    Returns:
        As `LinearProbes`, each ``[pos]``; ``weight`` ``[pos, column, d]`` and ``bias`` ``[pos, column]`` for
        activations as they are, and ``center``, ``[pos, d]``.
    """
    found: list[Scores] = [{}] * len(task.reads)
    tested = [int((read.present & (read.prompts >= sum(task.counts))).sum()) for read in task.reads]
    least = min(_LEAST, max(tested))
    for numbers in blocks(task.reads, values.shape[1] + 1, device):
        reads = [task.reads[number] for number in numbers]
        block = gathered(values, reads, task.counts, held, device)
        probes = fitted(block, recipe.probe, recipe.C, likelihood=recipe.likelihood, seed=recipe.seed)
        bits = _codelengths(block, probes, recipe)
        outputs, weights = probes.outputs.cpu(), _raw(block, probes, recipe.likelihood.n_classes)
        for place, number in enumerate(numbers):
            own = _judged(block, outputs, place, prompts=reads[place].prompts, recipe=recipe, least=least)
            if not own:
                continue
            own |= {name: found_here[place].cpu().numpy() for name, found_here in (weights | bits).items()}
            found[number] = own | {"C": probes.C[place, 0].cpu().numpy()}
    names = dict.fromkeys(name for one in found for name in one)
    return {name: np.stack([_filled(one, name, found) for one in found]) for name in names}


def _codelengths(block: Block, probes: Fitted, recipe: ProbeSettings) -> dict[str, Tensor]:
    if not recipe.mdl:
        return {}
    bits, compression = codelength(block, probes.C[:, 0], recipe.likelihood, seed=recipe.seed)
    return {"codelength": bits, "compression": compression}


def _raw(block: Block, probes: Fitted, n_classes: int) -> dict[str, Tensor]:
    if probes.W is None:
        return {}
    weight, bias = block.raw(probes.W[:, :, 0])
    found = {"weight": weight, "bias": bias, "center": block.center}
    return found | ({"class_means": block.class_means(n_classes)} if n_classes == 2 else {})


def _judged(block: Block, outputs: Tensor, place: int, *, prompts: Tensor, recipe: ProbeSettings, least: int) -> Scores:
    """The scores of one probe and its controls on its test rows."""
    train, _, test = block.parts
    known = block.present[place].cpu()
    learnt = block.labels[place, train, 0].cpu()[known[train]].numpy()
    labels = block.labels[place, test].cpu()[known[test]].numpy()
    if len(labels) < max(1, least) or len(np.unique(learnt)) < 2:
        return {}
    whose = prompts.cpu()[test][known[test]].numpy()
    own = outputs[place, test][known[test]]  # [row, target, column]
    if recipe.likelihood.n_classes == 0:
        found = number_scores(own[:, 0], labels[:, 0], whose)
        if labels.shape[1] > 1:
            control = [number_scores(own[:, one], labels[:, one], whose)["r2"] for one in range(1, labels.shape[1])]
            found["control_r2"] = float(np.mean(np.array(control, dtype=float)))
            found["selectivity"] = found["r2"] - found["control_r2"]
        return {name: np.asarray(value) for name, value in found.items()}
    found = class_scores(own[:, 0], labels[:, 0], whose, likelihood=recipe.likelihood)
    found["majority_baseline"] = majority_baseline(learnt, labels[:, 0])
    if labels.shape[1] > 1:
        right = recipe.likelihood.predicted(own).numpy() == labels
        found |= selectivity(right[:, 0], right[:, 1:], whose)
        found["control_accuracy"] = right[:, 1:].mean()
    found["n_train"], found["n_test"] = len(learnt), len(labels)
    return {name: np.asarray(value, dtype=float) for name, value in found.items()}


def _filled(one: Scores, name: str, every: Sequence[Scores]) -> np.ndarray:
    if name in one:
        return np.asarray(one[name], dtype=float)
    shape = next(np.asarray(other[name]).shape for other in every if name in other)
    return np.full(shape, np.nan)
