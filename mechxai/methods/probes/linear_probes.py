"""Linear probes: decode labels from activations at each layer and position, with control tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

from mechxai.core.errors import ConfigError
from mechxai.core.grid import Position
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.probe_dataset import ProbeDataset
from mechxai.core.result import Result
from mechxai.core.site import Site
from mechxai.core.site_table import site_name
from mechxai.engine.execution import Execution
from mechxai.methods.probes._lib.control_labels import Control, control_kind
from mechxai.methods.probes._lib.fitting import ProbeKind, check_strengths
from mechxai.methods.probes._lib.layer_probes import ProbeScores, ProbeSettings
from mechxai.methods.probes._lib.likelihood import NUMBERS, Likelihood
from mechxai.methods.probes._lib.probe_result import probe_result
from mechxai.methods.probes._lib.probe_run import check_trainable, run_probes, task_of
from mechxai.methods.probes._lib.rows_read import chosen_positions
from mechxai.methods.probes._lib.splits import split_of
from mechxai.methods.result_parts import run_info
from mechxai.model.backends.randomised import randomised
from mechxai.model.hooked_model import HookedModel


@final
@register(
    MethodCard(
        name="linear_probes",
        family="probes",
        kind="probes",
        question="What can be decoded at each layer and position, and how much of that is the probe's own learning?",
        cost="one forward pass per prompt (two with the random-weights control); a regression per layer and position",
        source="Alain and Bengio 2016 (arXiv 1610.01644); Hewitt and Liang 2019 (arXiv 1909.03368) for controls",
        pros="all layers, positions and sites from one pass, with controls and intervals",
        cons="what can be decoded need not be used: see probe_causal_check",
    )
)
@dataclass(frozen=True)
class LinearProbes(Method):
    """Trains a probe at every site, layer and position, and tests it on held-out groups of prompts.

    Attributes:
        site: a site name, or several; ``pos`` must be their first axis. Heads are concatenated.
        layers: the layers to probe; all by default.
        pos: positions, roles, ``each`` (every position), ``mean`` (over a prompt's tokens) or ``tokens`` (all labelled
            tokens as examples of one probe); by default ``tokens`` for labels of tokens, else the role at which the
            label belongs, or each position.
        probe: ``logistic``, ``ridge`` (closed form; the linear probe for numbers; its outputs are not log-odds),
            ``mass_mean`` (difference of class means), or ``mlp`` (one hidden layer of 64).
        C: inverse strengths of L2 regularisation, in scikit-learn's unit; the validation prompts choose the best.
        control: ``word_type`` gives every distinct token a random class; ``shuffle`` permutes the labels; ``auto`` is
            ``word_type`` for labels of tokens, else ``shuffle``; ``none``.
        control_draws: control tasks to average over.
        random_model: also probe the same model with random weights.
        mdl: also compute the online codelength (logistic only).
        seed: seed of splits, controls, and random weights.

    Source: see the card; Voita and Titov 2020 (arXiv 2003.12298) for ``mdl``.
    """

    takes: ClassVar[type] = ProbeDataset

    site: str | Sequence[str] = "resid_post"
    layers: Sequence[int] | None = None
    pos: Sequence[Position] | None = None
    probe: ProbeKind = "logistic"
    C: Sequence[float] = (0.001, 0.01, 0.1, 1.0)
    control: Control = "auto"
    control_draws: int = 3
    random_model: bool = True
    mdl: bool = False
    seed: int = 0

    def _check_fields(self) -> None:
        object.__setattr__(self, "site", self.sites[0] if len(self.sites) == 1 else self.sites)
        for name in self.sites:
            if site_name(name).axes[0] != "pos":
                raise ConfigError(
                    f"{name} has axes {site_name(name).axes}: probes need a site whose first axis is pos",
                    fix="Use a site such as resid_post, attn_out, mlp_out or z",
                )
        for name in ("layers", "pos", "site"):
            if getattr(self, name) == ():
                raise ConfigError(f"{name} is empty", fix=f"Name at least one, or leave {name} out for all")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed is {self.seed}: it must lie between 0 and 2**32 - 1")
        check_strengths(self.C)
        if self.control_draws < 1:
            raise ConfigError(f"control_draws is {self.control_draws}: it must be at least 1")
        if self.mdl and self.probe != "logistic":
            raise ConfigError(f"mdl=true does not work with probe={self.probe!r}", fix="Use probe=logistic")

    def __call__(self, model: HookedModel, batch: ProbeDataset, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """Trains the probes and returns their scores on the test prompts.

        Returns:
            Each [site, layer, pos]: ``accuracy`` (also as ``value``), ``balanced_accuracy``, ``auroc``,
            ``majority_baseline``, ``control_accuracy``, ``selectivity`` (accuracy minus control accuracy),
            ``random_model_accuracy``, ``calibration_error``, from 0 to 1 (selectivity from -1); ``accuracy`` and
            ``selectivity`` with 95 % bootstrap intervals over prompts (``_low``, ``_high``); ``log_loss`` in nats;
            chosen ``C``; with ``mdl``, ``codelength`` in bits and ``compression``; ``weight`` and ``bias`` of linear
            probes, for raw activations, with a ``klass`` axis. For numbers ``r2``, ``mean_squared_error``,
            ``control_r2``, ``selectivity`` and ``random_model_r2`` instead. NaN where a position has too few labels.

        Raises:
            ShapeError: a single class, or too few groups to split.
            SiteError: a site or position that does not exist.
            ConfigError: a probe or control that does not fit the labels, or prompts without labels.

        Cost: one forward pass per prompt, two with ``random_model``; activations on disk, one layer in memory.
        """
        dataset, likelihood = self._checked(batch).to(model.device), self._likelihood(batch)
        sites = model.wanted(self.sites, self.layers)
        positions = chosen_positions(dataset, self.pos)
        control = control_kind(dataset, self.control)
        controls = () if control == "none" else (control,) * self.control_draws
        split = split_of(dataset, self.seed)
        task = task_of(model, dataset, split, positions=positions, controls=controls, seed=self.seed)
        check_trainable(task, dataset.names)
        settings = ProbeSettings(self.probe, tuple(self.C), likelihood, self.mdl, self.seed)
        scores = run_probes(model, task, settings, sites=sites, execution=execution)
        random: Mapping[Site, ProbeScores] = {}
        if self.random_model:
            without_controls = task_of(model, dataset, split, positions=positions, controls=(), seed=self.seed)
            random = run_probes(
                randomised(model, self.seed),
                without_controls,
                replace(settings, mdl=False),
                sites=sites,
                execution=execution,
            )
        cost = {
            "forward_passes": float(len(dataset) * (2 if self.random_model else 1)),
            "probes": float(len(sites) * len(positions) * (1 + len(controls) + self.random_model)),
        }
        notes = (f"control: {control}",) if controls else ()
        data = probe_result(dataset, scores, random, positions=positions, likelihood=likelihood)
        return Result(data, run_info(self, model, batch, cost=cost, notes=notes))

    @property
    def sites(self) -> tuple[str, ...]:
        """The site names, as a tuple."""
        return (self.site,) if isinstance(self.site, str) else tuple(self.site)

    def _checked(self, batch: object) -> ProbeDataset:
        if not isinstance(batch, ProbeDataset):
            raise ConfigError(
                f"Probes need a ProbeDataset, not a {type(batch).__name__}",
                fix="Use a task such as mx.tasks.pos_tags, or mx.ProbeDataset.from_texts",
            )
        if batch.is_numbers and self.probe not in ("ridge", "mlp"):
            raise ConfigError(f"probe={self.probe!r} cannot predict numbers", allowed="ridge, mlp")
        return batch

    def _likelihood(self, batch: ProbeDataset) -> Likelihood:
        return Likelihood(NUMBERS if batch.is_numbers else len(batch.names))
