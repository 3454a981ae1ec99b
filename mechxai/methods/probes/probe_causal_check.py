"""Is what a probe reads also used? Its direction taken out, shifted along, exchanged; beside random directions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Edit, Intervention
from mechxai.core.errors import ConfigError, check_choice
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
from mechxai.methods.probes._lib.layer_probes import ProbeSettings, Scores, Task
from mechxai.methods.probes._lib.likelihood import Likelihood
from mechxai.methods.probes._lib.probe_run import check_trainable, run_probes, task_of
from mechxai.methods.probes._lib.rows_read import POOLS, chosen_positions
from mechxai.methods.probes._lib.splits import split_of
from mechxai.methods.result_parts import run_info
from mechxai.model.hooked_model import HookedModel

EDITS = ("project_out", "steer", "interchange")
LINEAR = ("logistic", "ridge", "mass_mean")


@final
@register(
    MethodCard(
        name="probe_causal_check",
        family="probes",
        kind="probe_check",
        question="Does the model use what a probe can read?",
        cost="probes as linear_probes; then one forward pass per layer, edit, direction and test prompt, less what the "
        "engine saves",
        source="Elazar et al. 2021 (arXiv 2006.00995); Geiger et al. 2024 (arXiv 2303.02536) for interchange",
        pros="tells decodable from used; placebos change activations by as much",
        cons="one direction at one position; a null effect may hide a redundant copy",
    )
)
@dataclass(frozen=True)
class ProbeCausalCheck(Method):
    """Trains probes and edits the test prompts' clean runs along their directions, one layer at a time.

    ``project_out`` subtracts what the activation has along the direction, about the training mean (several classes:
    in the span of their directions). ``steer`` adds the step from the mean of the prompt's own class to the other's,
    along the direction (two classes only). ``interchange`` gives the activation the corrupted run's part along it. Each
    also with random directions, by vectors of the same length on the same prompts.

    Attributes:
        site: a site name.
        layers: all by default.
        pos: one position or role; the role at which the label belongs by default.
        probe: ``logistic``, ``ridge`` or ``mass_mean``.
        C: as `LinearProbes`.
        metric: the behaviour; a name, a `Metric`, or a function.
        placebos: random directions.
        seed: of splits, controls and directions.

    Source: Elazar et al. 2021 (amnesic probing); Marks and Tegmark 2023, section 6 (steering between class means).
    """

    takes: ClassVar[type] = ProbeDataset

    site: str = "resid_post"
    layers: Sequence[int] | None = None
    pos: Position | None = None
    probe: str = "logistic"
    C: Sequence[float] = (0.001, 0.01, 0.1, 1.0)
    metric: AnyMetric = "logit_diff"
    placebos: int = 10
    seed: int = 0

    def _check_fields(self) -> None:
        check_choice("probe", self.probe, LINEAR)
        as_metric(self.metric)
        if self.placebos < 1 or not self.C or not all(one > 0 for one in self.C):
            raise ConfigError(
                "A causal check was asked", got=f"placebos={self.placebos}, C={self.C}", allowed="1 or more, and C > 0"
            )
        for name in ("site", "pos"):
            if not isinstance(getattr(self, name), (str, int, type(None))):
                raise ConfigError(f"{name}={getattr(self, name)!r} was asked", allowed="one, not a list")
        if self.pos in POOLS:
            raise ConfigError(f"pos={self.pos!r} was asked", allowed="one position or role, which can be edited")

    def __call__(self, model: HookedModel, batch: ProbeDataset, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """How far the metric falls on the test prompts, by edit and layer.

        Returns:
            [edit, layer]: ``value`` the mean fall from the clean run, in the metric's unit (positive: the behaviour is
            lost), ``removed`` the share of the clean-corrupted gap; ``placebo`` the same for the mean random direction,
            ``excess`` value less placebo; each with a 95 % bootstrap interval over prompts; ``placebo_most``, the
            largest of any random direction; ``per_example`` [prompt, edit, layer]; ``used``, whether the excess'
            interval lies above 0, the fall above every placebo's and above 5 % of the gap. [layer]: ``accuracy``,
            ``control_accuracy``, ``selectivity`` with intervals, and ``verdict`` in words.

        Raises:
            ConfigError: labels of tokens or numbers, or a dataset without behaviour.
            SiteError, ShapeError: as `LinearProbes`.

        Cost: see the card.
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
        recipe = ProbeSettings(self.probe, tuple(self.C), likelihood, mdl=False, seed=self.seed)
        check_trainable(task, dataset.names)
        behaviour, labels = _tested(task)
        metric.check(behaviour)
        scores = run_probes(model, task, recipe, sites=sites, execution=execution)
        behaviour = with_reference(model, behaviour, metric)
        directions = _Directions(model, behaviour, labels, position, self.placebos, self.seed)
        edits = EDITS if len(dataset.names) == 2 else tuple(one for one in EDITS if one != "steer")
        cells = [cell for site in sites for cell in directions.cells(site, scores[site], edits)]
        outcome = run_sweep(model, Sweep(behaviour, "clean", cells, metric), execution, label="probe directions")
        known = baselines(model, behaviour, metric, direction="noise", known=outcome.runs)
        shape = (len(sites), len(edits), 1 + self.placebos, len(behaviour))
        data, notes = causal_result(
            outcome.values.numpy().reshape(shape), scores, baselines=known, edits=edits, sites=sites
        )
        cost = {**outcome.cost, "forward_passes": outcome.cost["forward_passes"] + len(dataset)}
        info = run_info(self, model, batch, cost=cost, notes=(*outcome.notes, *notes))
        return Result(data.assign_coords(prompt=list(range(len(behaviour)))), info)

    def _position(self, dataset: ProbeDataset) -> Position:
        return (dataset.labelled_at or "END") if self.pos is None else self.pos

    def _checked(self, batch: object) -> ProbeDataset:
        if not isinstance(batch, ProbeDataset) or batch.behaviour is None:
            raise ConfigError(
                "A causal check was asked",
                got="prompts without labels or without a behaviour",
                allowed="a ProbeDataset with behaviour=, the same prompts with answers",
                fix="mx.tasks.subject_number, mx.tasks.fact_relation, or your own ContrastBatch as behaviour",
            )
        if batch.per_token or batch.is_numbers:
            raise ConfigError(
                "A causal check was asked", got="labels of tokens, or numbers", allowed="classes of prompts"
            )
        return batch


def _tested(task: Task) -> tuple[ContrastBatch, Tensor]:
    """Behaviour and labels of the test prompts that the probe is judged on; positions as the dataset has them."""
    dataset = task.dataset
    if dataset.behaviour is None:
        raise ConfigError("A causal check was asked", got="no behaviour")
    present = task.reads[0].present.clone()
    present[: sum(task.counts)] = False
    chosen = present.nonzero()[:, 0]
    named = replace(dataset.behaviour, roles={**dataset.behaviour.roles, **dataset.roles})
    return named.rows(chosen), dataset.labels[chosen]


@dataclass(frozen=True)
class _Directions:
    """What the edits of every layer are made from.

    Attributes:
        labels: of the test prompts.
        position: where to edit.
        placebos: random directions per edit.
    """

    model: HookedModel
    behaviour: ContrastBatch
    labels: Tensor
    position: Position
    placebos: int
    seed: int

    def cells(self, site: Site, scores: Scores, edits: Sequence[str]) -> list[Cell]:
        """For every edit its cell, then its placebos'."""
        weight, center = (torch.from_numpy(scores[name][0]).float() for name in ("weight", "center"))
        own = orthonormal(weight - weight.mean(0) if len(weight) > 1 else weight)
        if 2 * len(own) > own.shape[1]:
            raise ConfigError(
                f"A causal check of {site} was asked",
                got=f"{len(own)} directions among {own.shape[1]} dimensions, which leave no room for random ones",
                fix="use a wider site, or fewer classes",
            )
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + (site.layer or 0))
        writes = [own, *(_random(own, generator) for _ in range(self.placebos))]
        place = replace(site, pos=self.position)
        made: dict[str, Sequence[Edit]] = {"project_out": [RemoveAlong(own, write, center) for write in writes]}
        moved = self._exchanged(place) @ own.T  # [prompt, rank]
        made["interchange"] = [ShiftEach(moved @ write) for write in writes]
        if "steer" in edits:
            means = torch.from_numpy(scores["class_means"][0]).float() @ own.T  # [klass, 1]
            steps = (means.flip(0) - means)[self.labels.cpu()]
            made["steer"] = [ShiftEach(steps @ write) for write in writes]
        return [(Intervention(place, edit),) for name in edits for edit in made[name]]

    def _exchanged(self, place: Site) -> Tensor:
        """The corrupted run's activation less the clean one's, ``[prompt, d]``."""
        runs = [
            self.model.cache(
                self.behaviour.tokens(run), [place.whole], lengths=self.behaviour.lengths, layout=self.behaviour.layout
            )[place].flatten(1)
            for run in ("clean", "corrupted")
        ]
        return (runs[1] - runs[0]).float().cpu()


def _random(own: Tensor, generator: torch.Generator) -> Tensor:
    """Orthonormal rows at random, at right angles to those given."""
    drawn = torch.randn(own.shape, generator=generator)
    return orthonormal(drawn - drawn @ own.T @ own)
