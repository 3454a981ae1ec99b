"""Trains the probes of a run layer by layer on stored activations, and saves the scores of each finished layer."""

import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from mechxai.core.errors import ShapeError
from mechxai.core.fingerprint import Fingerprints
from mechxai.core.grid import Position
from mechxai.core.labels import check_classes
from mechxai.core.probe_dataset import ProbeDataset
from mechxai.core.site import Site
from mechxai.engine.activation_store import ActivationStore
from mechxai.engine.checkpoint import ARRAYS
from mechxai.engine.execution import Execution
from mechxai.engine.finished import FinishedPieces
from mechxai.engine.progress import ProgressBar
from mechxai.methods.probes._lib.control_labels import control_labels
from mechxai.methods.probes._lib.layer_probes import ProbeScores, ProbeSettings, Take, Task, layer_scores
from mechxai.methods.probes._lib.rows_read import reads_of
from mechxai.methods.probes._lib.splits import Split
from mechxai.model.backends.limits import check_tokens
from mechxai.model.hooked_model import HookedModel


def task_of(
    model: HookedModel,
    dataset: ProbeDataset,
    split: Split,
    *,
    positions: Sequence[Position],
    controls: Sequence[str],
    seed: int,
) -> Task:
    """The inputs and labels of the probes, prompts in the order of the split.

    Args:
        model: the model, whose beginning-of-sequence token is known.
        dataset: the prompts.
        split: training, validation and test prompts.
        positions: see `chosen_positions`.
        controls: the kind of each control task that is learned beside the task.
        seed: seed of the first control; each further control takes the next integer.
    """
    ordered = dataset.rows(split.order.to(dataset.tokens.device))
    learned = split.n_train + split.n_validation
    labels = [
        ordered.labels,
        *(control_labels(ordered, kind, learned, seed=seed + at) for at, kind in enumerate(controls)),
    ]
    targets = torch.stack(labels, -1)
    return Task(ordered, reads_of(ordered, positions, targets, bos=model.text.bos), (split.n_train, split.n_validation))


def run_probes(
    model: HookedModel, task: Task, settings: ProbeSettings, *, sites: Sequence[Site], execution: Execution
) -> dict[Site, ProbeScores]:
    """The scores of every site and position. ``execution.cells`` keeps activations and finished layers for a resume.

    Cost: one forward pass per prompt; the activations of one layer in memory at a time.
    """
    check_tokens(task.dataset.tokens, model.architecture, model.name)
    question = ("probes", model, task.dataset.identity, list(task.reads), task.counts, settings)
    scores: dict[Site, ProbeScores] = {}
    with (
        _folder(execution) as folder,
        FinishedPieces(execution.cells, *question, serializer=ARRAYS) as finished,
        ProgressBar("probes", len(sites) * len(task.reads), shown=execution.progress, unit="probes") as bar,
    ):
        missing = [site for site in sites if str(site) not in finished]
        store = _store(model, task, sites, folder=folder, progress=execution.progress) if missing else None
        buffers: dict[str, Tensor] = {}

        def of_layer(site: Site) -> ProbeScores:
            values = cast("ActivationStore", store).read(site).flatten(1)
            take: Take = lambda name, compute: finished.take(f"{site} {name}", compute)  # noqa: E731
            return layer_scores(values, task, settings, device=model.device, buffers=buffers, take=take)

        for site in sites:
            scores[site] = finished.take(str(site), partial(of_layer, site))
            bar.advance(len(task.reads), computed=site in missing)
    return scores


def _store(model: HookedModel, task: Task, sites: Sequence[Site], *, folder: Path, progress: bool) -> ActivationStore:
    """The stored activations at some sites; probes of another kind in the same folder use the same store."""
    tokens, lengths = task.dataset.tokens, task.dataset.lengths
    rows = [row[:length] for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]
    names = list(dict.fromkeys(site.name for site in sites))
    layers = sorted({site.layer for site in sites if site.layer is not None})
    facts = {name: value for name, value in model.info().items() if name != "comparison"}
    key = Fingerprints()([facts, tokens, lengths, [str(site) for site in sites]])
    return ActivationStore.write(
        folder / f"activations-{key[:12]}",
        model,
        rows,
        sites=names,
        layers=layers or None,
        skip_bos=False,
        progress=progress,
    )


def check_trainable(task: Task, names: Sequence[str]) -> None:
    """Refuses a task that has no position with two classes to learn and prompts to test; runs no forward pass."""
    tested = [read for read in task.reads if bool((read.present & (read.prompts >= sum(task.counts))).any())]
    if not tested:
        raise ShapeError(
            "No labelled test prompt has any of the probed positions", fix="Choose other positions or more prompts"
        )
    for read in tested:
        learned = read.present & (read.prompts < task.counts[0])
        labels = read.labels[learned][:, 0]
        if len(labels) and not bool((labels == labels[0]).all()):
            return
    read = tested[0]
    check_classes(
        read.labels[read.present & (read.prompts < task.counts[0])][:, 0], names, " (at every probed position)"
    )


@contextmanager
def _folder(execution: Execution) -> Generator[Path]:
    """The folder for activations and finished layers.

    Yields:
        The run's folder, or a temporary one.
    """
    if execution.cells is not None:
        yield execution.cells
        return
    with tempfile.TemporaryDirectory(prefix="mechxai") as name:
        yield Path(name)
