"""All probes of a run: activations streamed to a store once, then layer after layer, each kept when it is finished."""

import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from mechxai.core.errors import ShapeError
from mechxai.core.files import atomic_write
from mechxai.core.fingerprint import Fingerprints
from mechxai.core.grid import Position
from mechxai.core.labels import check_classes
from mechxai.core.probe_dataset import ProbeDataset
from mechxai.core.site import Site
from mechxai.engine.activation_store import ActivationStore
from mechxai.engine.execution import Execution
from mechxai.engine.progress import Bar
from mechxai.methods.probes._lib.control_labels import control_labels
from mechxai.methods.probes._lib.layer_probes import ProbeSettings, Scores, Task, layer_scores
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
    """What probes read and learn, prompts in the order of the split.

    Args:
        model: whose tokens they are.
        dataset: the prompts.
        split: of them.
        positions: see `chosen_positions`.
        controls: the kind of each control to learn beside the task.
        seed: of the first control; the next take the next.
    """
    ordered = dataset.rows(split.order.to(dataset.tokens.device))
    learnt = split.n_train + split.n_validation
    labels = [
        ordered.labels,
        *(control_labels(ordered, kind, learnt, seed=seed + at) for at, kind in enumerate(controls)),
    ]
    targets = torch.stack(labels, -1)
    return Task(ordered, reads_of(ordered, positions, targets, bos=model.text.bos), (split.n_train, split.n_validation))


def run_probes(
    model: HookedModel, task: Task, recipe: ProbeSettings, *, sites: Sequence[Site], execution: Execution
) -> dict[Site, Scores]:
    """Site -> scores of every position. Finished layers are kept in ``execution.cells``, as are the activations.

    Cost: one forward pass per prompt; a layer's activations in memory at a time.
    """
    check_tokens(task.dataset.tokens, model.architecture, model.name)
    known = {name: model.info()[name] for name in ("weight_hash", "backend", "processing", "dtype")}
    key = Fingerprints()([known, task.dataset.identity, list(task.reads), task.counts, recipe])
    found, held = dict[Site, Scores](), dict[str, Tensor]()
    with _folder(execution) as folder:
        places = {site: folder / f"probes-{key[:12]}" / f"{site}.safetensors" for site in sites}
        missing = [site for site in sites if not places[site].is_file()]
        store = _store(model, task, sites, folder=folder, progress=execution.progress) if missing else None
        with Bar("probes", len(sites) * len(task.reads), shown=execution.progress, unit="probes") as bar:
            for site, kept in places.items():
                if store is not None and site in missing:
                    values = store.read(site).flatten(1)
                    scores = layer_scores(values, task, recipe, device=model.device, held=held)
                    with atomic_write(kept) as part:
                        save_file({name: np.ascontiguousarray(value) for name, value in scores.items()}, part)
                found[site] = load_file(kept)
                bar.advance(len(task.reads), computed=site in missing)
    return found


def _store(model: HookedModel, task: Task, sites: Sequence[Site], *, folder: Path, progress: bool) -> ActivationStore:
    """The activations at some sites; found again by probes of another kind in the same folder."""
    tokens, lengths = task.dataset.tokens, task.dataset.lengths
    rows = [row[:length] for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]
    names = list(dict.fromkeys(site.name for site in sites))
    layers = sorted({site.layer for site in sites if site.layer is not None})
    key = Fingerprints()([model.info(), tokens, lengths, [str(site) for site in sites]])
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
    """Refuses, before any forward pass, a task none of whose positions has two classes to learn and rows to test."""
    tested = [read for read in task.reads if bool((read.present & (read.prompts >= sum(task.counts))).any())]
    if not tested:
        raise ShapeError("Probes were asked", got="no labelled test prompt has any of the positions", fix="ask others")
    for read in tested:
        learnt = read.present & (read.prompts < task.counts[0])
        known = read.labels[learnt][:, 0]
        if len(known) and not bool((known == known[0]).all()):
            return
    read = tested[0]
    check_classes(
        read.labels[read.present & (read.prompts < task.counts[0])][:, 0], names, " (at every position asked)"
    )


@contextmanager
def _folder(execution: Execution) -> Generator[Path]:
    """Where activations and finished layers go.

    Yields:
        The run's own folder, or one that vanishes.
    """
    if execution.cells is not None:
        yield execution.cells
        return
    with tempfile.TemporaryDirectory(prefix="mechxai") as name:
        yield Path(name)
