"""Causal check of probes: edit activations along a probe's direction and measure the behaviour, against placebos."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Edit, Intervention
from mechxai.core.errors import ConfigError
from mechxai.core.grid import Position
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.probe_dataset import ProbeDataset
from mechxai.core.result import Result
from mechxai.core.site import Site
from mechxai.engine.contrast import baselines, with_reference
from mechxai.engine.execution import Execution
from mechxai.engine.run import run_sweep
from mechxai.engine.sweep import Cell, Sweep
from mechxai.methods.probes._lib.causal_result import causal_result
from mechxai.methods.probes._lib.direction_edits import RemoveAlong, ShiftEach, orthonormal
from mechxai.methods.probes._lib.fitting import LinearProbeKind, check_strengths
from mechxai.methods.probes._lib.layer_probes import ProbeScores, ProbeSettings, Task
from mechxai.methods.probes._lib.likelihood import Likelihood
from mechxai.methods.probes._lib.probe_run import check_trainable, run_probes, task_of
from mechxai.methods.probes._lib.rows_read import POOLS, chosen_positions
from mechxai.methods.probes._lib.splits import split_of
from mechxai.methods.result_parts import run_info
from mechxai.model.hooked_model import HookedModel

EDITS = ("project_out", "steer", "interchange")


@final
@register(
    MethodCard(
        name="probe_causal_check",
        family="probes",
        kind="probe_check",
        question="Does the model use what a probe can decode?",
        cost="the probes of linear_probes; then one forward pass per layer, edit, direction and test prompt, less what "
        "the engine saves",
        source="Elazar et al. 2021 (arXiv 2006.00995); Geiger et al. 2024 (arXiv 2303.02536) for interchange",
        pros="separates decodable from used; placebos change activations by the same length",
        cons="one direction at one position; a null effect may hide a redundant copy",
    )
)
@dataclass(frozen=True)
class ProbeCausalCheck(Method):
    """Trains probes and edits the test prompts' clean runs along their directions, one layer at a time.

    ``project_out`` removes the activation's component along the direction, about the training mean (for several
    classes, its component in the span of their directions). ``steer`` adds the difference between the mean of the other
    class and the mean of the prompt's class, along the direction (two classes only). ``interchange`` replaces the
    component by that of the corrupted run. Placebos add vectors of the same length along random directions, on the same
    prompts.

    Attributes:
        site: a site name.
        layers: the layers to check; all by default.
        pos: one position or role; by default the role at which the label belongs.
        probe: ``logistic``, ``ridge`` or ``mass_mean``.
        C: as in `LinearProbes`.
        metric: the metric of the behaviour; a name, a `Metric`, or a function.
        placebos: number of random directions.
        seed: seed of splits, controls and random directions.

    Source: Elazar et al. 2021 (amnesic probing); Marks and Tegmark 2023, section 6 (steering between class means).
    """

    takes: ClassVar[type] = ProbeDataset

    site: str = "resid_post"
    layers: Sequence[int] | None = None
    pos: Position | None = None
    probe: LinearProbeKind = "logistic"
    C: Sequence[float] = (0.001, 0.01, 0.1, 1.0)
    metric: AnyMetric = "logit_diff"
    placebos: int = 10
    seed: int = 0

    def _check_fields(self) -> None:
        as_metric(self.metric)
        if self.placebos < 1:
            raise ConfigError(f"placebos is {self.placebos}: it must be at least 1")
        check_strengths(self.C)
        for name in ("site", "pos"):
            if not isinstance(getattr(self, name), (str, int, type(None))):
                raise ConfigError(f"{name} is {getattr(self, name)!r}: probe_causal_check takes one {name}, not a list")
        if self.pos in POOLS:
            raise ConfigError(
                f"pos={self.pos!r} names no single position that can be edited", fix="Give one position or role"
            )

    def __call__(self, model: HookedModel, batch: ProbeDataset, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """Trains the probes, edits along their directions, and returns the fall of the metric on the test prompts.

        Returns:
            [edit, layer]: ``value``, the mean fall from the clean run in the metric's unit (positive: the behaviour is
            lost); ``removed``, that fall as a share of the clean-corrupted gap; ``placebo``, the mean fall along random
            directions; ``excess``, value minus placebo; each with a 95 % bootstrap interval over prompts.
            ``placebo_most``, the largest mean fall along any random direction; ``per_example`` [prompt, edit, layer];
            ``used``, whether the excess' interval lies above 0, the fall above every placebo's and above 5 % of the
            gap. [layer]: ``accuracy``, ``control_accuracy``, ``selectivity`` with intervals, and ``verdict`` in words.

        Raises:
            ConfigError: labels of tokens or numbers, or a dataset without behaviour.
            SiteError, ShapeError: as in `LinearProbes`.

        Cost: that of `LinearProbes`, then one forward pass per layer, edit, direction and test prompt.
        """
        metric = as_metric(self.metric)
        dataset = self._checked(batch).to(model.device)
        sites = model.wanted([self.site], self.layers)
        for site in sites:
            model.backend.check(site, editing=True)
        (position,) = chosen_positions(dataset, (self._position(dataset),))
        likelihood = Likelihood(len(dataset.names))
        split = split_of(dataset, self.seed)
        task = task_of(model, dataset, split, positions=[position], controls=("shuffle",) * 3, seed=self.seed)
        settings = ProbeSettings(self.probe, tuple(self.C), likelihood, mdl=False, seed=self.seed)
        check_trainable(task, dataset.names)
        behaviour, labels = _test_prompts(task)
        metric.check(behaviour)
        scores = run_probes(model, task, settings, sites=sites, execution=execution)
        behaviour = with_reference(model, behaviour, metric)
        directions = _Directions(model, behaviour, labels, position, self.placebos, self.seed)
        edits = EDITS if len(dataset.names) == 2 else tuple(edit for edit in EDITS if edit != "steer")
        cells = [cell for site in sites for cell in directions.cells(site, scores[site], edits)]
        outcome = run_sweep(model, Sweep(behaviour, "clean", cells, metric), execution, label="probe directions")
        both_runs = baselines(model, behaviour, metric, direction="noise", known=outcome.runs)
        shape = (len(sites), len(edits), 1 + self.placebos, len(behaviour))
        data, notes = causal_result(
            outcome.values.numpy().reshape(shape), scores, baselines=both_runs, edits=edits, sites=sites
        )
        cost = {**outcome.cost, "forward_passes": outcome.cost["forward_passes"] + len(dataset)}
        info = run_info(self, model, batch, cost=cost, notes=(*outcome.notes, *notes))
        return Result(data.assign_coords(prompt=list(range(len(behaviour)))), info)

    def _position(self, dataset: ProbeDataset) -> Position:
        return (dataset.labelled_at or "END") if self.pos is None else self.pos

    def _checked(self, batch: object) -> ProbeDataset:
        if not isinstance(batch, ProbeDataset) or batch.behaviour is None:
            raise ConfigError(
                "A causal check needs a ProbeDataset with labels and behaviour=, the same prompts with answers",
                fix="Use mx.tasks.subject_number or mx.tasks.fact_relation, or give a ContrastBatch as behaviour",
            )
        if batch.per_token or batch.is_numbers:
            labels = "numbers" if batch.is_numbers else "classes of tokens"
            raise ConfigError(f"A causal check needs classes of prompts, but the labels are {labels}")
        return batch


def _test_prompts(task: Task) -> tuple[ContrastBatch, Tensor]:
    """Behaviour and labels of the test prompts that have the probe's position, with the dataset's roles."""
    dataset = task.dataset
    if dataset.behaviour is None:
        raise ConfigError("The dataset has no behaviour", fix="Give a ProbeDataset with behaviour=")
    present = task.reads[0].present.clone()
    present[: sum(task.counts)] = False
    chosen = present.nonzero()[:, 0]
    behaviour = replace(dataset.behaviour, roles={**dataset.behaviour.roles, **dataset.roles})
    return behaviour.rows(chosen), dataset.labels[chosen]


@dataclass(frozen=True)
class _Directions:
    """Builds the edits of every layer.

    Attributes:
        model: the model.
        behaviour: the test prompts.
        labels: labels of the test prompts.
        position: the position to edit.
        placebos: number of random directions per edit.
        seed: seed of the random directions.
    """

    model: HookedModel
    behaviour: ContrastBatch
    labels: Tensor
    position: Position
    placebos: int
    seed: int

    def cells(self, site: Site, scores: ProbeScores, edits: Sequence[str]) -> list[Cell]:
        """The cells of one layer: for every edit, the probe's direction first, then the placebos."""
        weight, center = (torch.from_numpy(scores[name][0]).float() for name in ("weight", "center"))
        basis = orthonormal(weight - weight.mean(0) if len(weight) > 1 else weight)
        if 2 * len(basis) > basis.shape[1]:
            raise ConfigError(
                f"{site} has {basis.shape[1]} dimensions and the probe {len(basis)} directions, "
                "too many for random directions orthogonal to them",
                fix="Use a wider site, or fewer classes",
            )
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + (site.layer or 0))
        writes = [basis, *(_random_basis(basis, generator) for _ in range(self.placebos))]
        at_position = replace(site, pos=self.position)
        by_name: dict[str, Sequence[Edit]] = {"project_out": [RemoveAlong(basis, write, center) for write in writes]}
        difference = self._corrupted_minus_clean(at_position) @ basis.T  # [prompt, rank]
        by_name["interchange"] = [ShiftEach(difference @ write) for write in writes]
        if "steer" in edits:
            means = torch.from_numpy(scores["class_means"][0]).float() @ basis.T  # [klass, 1]
            steps = (means.flip(0) - means)[self.labels.cpu()]
            by_name["steer"] = [ShiftEach(steps @ write) for write in writes]
        return [(Intervention(at_position, edit),) for name in edits for edit in by_name[name]]

    def _corrupted_minus_clean(self, site: Site) -> Tensor:
        """The corrupted run's activation minus the clean run's, ``[prompt, d]``."""
        runs = [
            self.model.cache(
                self.behaviour.tokens(run), [site.whole], lengths=self.behaviour.lengths, layout=self.behaviour.layout
            )[site].flatten(1)
            for run in ("clean", "corrupted")
        ]
        return (runs[1] - runs[0]).float().cpu()


def _random_basis(basis: Tensor, generator: torch.Generator) -> Tensor:
    """As many random orthonormal rows, orthogonal to a basis."""
    drawn = torch.randn(basis.shape, generator=generator)
    return orthonormal(drawn - drawn @ basis.T @ basis)
