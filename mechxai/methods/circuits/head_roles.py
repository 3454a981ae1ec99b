"""Head roles from attention patterns, copying scores and patching effects; a role needs the pattern and the effect."""

from dataclasses import dataclass, replace
from typing import ClassVar, final, get_args

import numpy as np
import xarray as xr

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import AlignmentError, ModelSupportError
from mechxai.core.grid import Grid
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, Metric, as_metric
from mechxai.core.result import Result, variable
from mechxai.engine.contrast import Baselines, Direction, baselines, patching, with_reference
from mechxai.engine.execution import Execution
from mechxai.engine.multi_sweep import distinct_notes, plan_sweeps, run_sweeps, total_cost
from mechxai.engine.plan import Plan
from mechxai.engine.run import Outcome
from mechxai.engine.sweep import Sweep
from mechxai.methods.circuits._lib.copying import copying_scores
from mechxai.methods.circuits._lib.field_checks import check_at_least
from mechxai.methods.circuits._lib.head_names import RoleThresholds
from mechxai.methods.circuits._lib.pattern_scores import (
    Syntactic,
    position_scores,
    random_tokens,
    repeated_scores,
    role_scores,
    syntax_scores,
)
from mechxai.methods.circuits.path_patching import PathPatching
from mechxai.methods.result_parts import run_info
from mechxai.model.dense.lookup import dense_model_of
from mechxai.model.hooked_model import HookedModel
from mechxai.tasks.dependencies import dependencies

_HEADS = ("layer", "head")
_SHARES = ("copying", "suppressing", "s_inhibition_path")  # the others are probabilities
_MEANING = {
    "previous_token": "mean attention to the token before, on repeated random tokens",
    "duplicate_token": "mean attention from S2 to S1 (random tokens: to the token's first occurrence)",
    "induction": "mean attention to the token after the first occurrence, on repeated random tokens",
    "s_inhibition": "mean attention from END to S2",
    "name_mover": "mean attention from END to IO",
    "first_token": "mean attention to the first position, on random tokens",
    "positional": "mean attention at the fixed distance that the head attends to most, on random tokens",
    "syntactic": "attention along the best relation's dependencies minus attention as far back without a dependency",
    "copying": "share of answers in the top 5 of the head's output when it attends to them",
    "suppressing": "share of answers in the top 5 of the negated output of the head when it attends to them",
    "s_inhibition_path": "share of the gap that the head brings through name movers' queries alone, MLPs recomputed",
}


@dataclass(frozen=True)
class _Patterns:
    """Attention pattern scores of every head.

    Attributes:
        scores: by name, ``[layer, head]``.
        distance: of ``positional``, in tokens, ``[layer, head]``.
        relation: of ``syntactic``, ``[layer, head]``.
        syntax: variables by relation.
        coords: the relations, where there are such variables.
    """

    scores: dict[str, np.ndarray]
    distance: np.ndarray
    relation: np.ndarray
    syntax: dict[str, xr.DataArray]
    coords: dict[str, list[str]]


@final
@register(
    MethodCard(
        name="head_roles",
        family="circuits",
        kind="head_roles",
        question="Which heads attend to previous tokens, repeats, names, positions or syntax, and do they matter here?",
        cost="a few passes for the patterns, one per layer for copying, two sweeps over layer x head, one over paths "
        "into name movers",
        source="Wang et al. 2022 (arXiv 2211.00593); Olsson et al. 2022 (arXiv 2209.11895); "
        "Voita et al. 2019 (arXiv 1905.09418); Clark et al. 2019 (arXiv 1906.04341)",
        pros="shows the pattern and the causal effect together",
        cons="roles are a fixed list; a head can do more than one thing",
    )
)
@dataclass(frozen=True)
class HeadRoles(Method):
    """Scores every head, and gives a role to heads whose attention fits it *and* whose patching has an effect.

    First token, positional and syntactic are roles of last resort: a head of another role may rest on the first token
    where it has nothing to do.

    Attributes:
        metric: of the patching effect.
        attention: smallest attention score of a role.
        effect: smallest share of the clean-corrupted gap that patching the head's ``z`` restores or removes.
        copying: smallest copying score of a name mover, beside its attention; smallest suppressing score of a negative
            name mover.
        period: length of the repeated random sequence.
        n_random: random sequences for the pattern scores.
        syntax: sentences of known syntax for the syntactic score; 0 skips it.
        seed: of the random sequences and the sentences.
    """

    in_waves: ClassVar[bool] = True

    metric: AnyMetric = "logit_diff"
    attention: float = 0.4
    effect: float = 0.05
    copying: float = 0.5
    period: int = 12
    n_random: int = 32
    syntax: int = 64
    seed: int = 0

    def _check_fields(self) -> None:
        as_metric(self.metric)
        check_at_least(2, period=self.period)
        check_at_least(1, n_random=self.n_random)
        check_at_least(0, syntax=self.syntax)

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """Scores and roles of every head.

        Returns:
            ``previous_token``, ``duplicate_token``, ``induction``, ``first_token``, ``positional``; for batches with
            the roles IO, S1, S2 ``s_inhibition``, ``name_mover``; for answers of one token ``copying`` and
            ``suppressing``, its opposite; where there are name movers ``s_inhibition_path``, the head's effect through
            their queries, which an S-inhibition head must have; for tokenizers with the sentences' words ``syntactic``
            [layer, head], ``syntax`` and ``syntax_control`` [relation, layer, head]; ``effect`` (denoising ``z`` at
            every position) and ``effect_noise`` (noising), as shares of the clean-corrupted gap; ``attends_to`` [layer,
            head], the strongest pattern, effect or not; ``role`` [layer, head], empty for none.

        Raises:
            ModelSupportError: a bidirectional model.
        """
        if not model.architecture.causal:
            raise ModelSupportError(
                f"head_roles needs causal attention, but {model.name} is a bidirectional model",
                fix="Use a causal language model",
            )
        metric, batch = as_metric(self.metric), batch.to(model.device)
        metric.check(batch)
        batch = with_reference(model, batch, metric)
        patterns, notes = self._patterns(model, batch)
        contrast = baselines(model, batch, metric, direction="denoise")
        restored, removed, outcomes = self._effects(model, batch, contrast, execution=execution)
        thresholds = RoleThresholds(attention=self.attention, effect=self.effect, copying=self.copying)
        effect = np.maximum(np.abs(restored), np.abs(removed))
        first_roles = thresholds.roles(patterns.scores, effect)
        scores = {**patterns.scores, **self._paths(model, batch, first_roles, execution=execution)}
        gap = f"share of the gap in {metric.name} that patching"
        data = {
            name: variable(_HEADS, value, "fraction" if name in _SHARES else "probability", _MEANING[name])
            for name, value in scores.items()
        }
        data["effect"] = variable(_HEADS, restored, "fraction", f"{gap} clean z into corrupted restores")
        data["effect_noise"] = variable(_HEADS, removed, "fraction", f"{gap} corrupted z into clean removes")
        roles = thresholds.roles(scores, effect)
        meaning = "roles whose attention score and patching effect both pass; empty for none"
        data["role"] = variable(_HEADS, roles, "role", meaning)
        attended = thresholds.attended_patterns(scores, patterns.distance, patterns.relation)
        data["attends_to"] = variable(_HEADS, attended, "pattern", "strongest pattern that passes, effect or not")
        data.update(patterns.syntax)
        coords = {axis: list(range(count)) for axis, count in zip(_HEADS, roles.shape, strict=True)}
        info = run_info(
            self, model, batch, cost=total_cost(outcomes), notes=(*distinct_notes(outcomes), *contrast.notes, *notes)
        )
        return Result(xr.Dataset(data, coords={**coords, **patterns.coords}), info)

    def plan(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Plan:  # noqa: B008 - frozen
        """The plan of the two sweeps over heads, the larger part of the cost; runs nothing.

        The plan leaves out the paths into name movers, which are known only after the sweeps. They cost at most one
        pass from a name mover's layer on for each head before it.
        """
        sweeps = self._sweeps(model, batch.to(model.device), as_metric(self.metric))
        return plan_sweeps(model, list(sweeps.values()), execution)

    def _patterns(self, model: HookedModel, batch: ContrastBatch) -> tuple["_Patterns", list[str]]:
        """The pattern scores of every head, and notes on scores that are missing."""
        period = min(self.period, (model.architecture.n_ctx - 1) // 2)
        first, positional = position_scores(
            model, random_tokens(model, rows=self.n_random, length=2 * period, seed=self.seed)
        )
        scores = {
            **repeated_scores(model, random_tokens(model, rows=self.n_random, length=period, seed=self.seed)),
            **role_scores(model, batch),
            "first_token": first,
            "positional": positional.score,
        }
        if batch.answers.shape[2] == 1:
            scores["copying"], scores["suppressing"] = copying_scores(model, batch.answers[:, 0, 0].unique())
        syntax, notes = self._syntax(model)
        shape = first.shape
        relation, data = np.full(shape, ""), dict[str, xr.DataArray]()
        if syntax is not None:
            selective, best = (syntax.related - syntax.control).max(0)
            scores["syntactic"] = selective.clamp(min=0)
            relation = np.array(syntax.relations)[best.cpu().numpy()]
            dims = ("relation", *_HEADS)
            for name, value, meaning in (
                ("syntax", syntax.related, "mean attention from the later to the earlier word of a dependency"),
                ("syntax_control", syntax.control, "mean attention as far back where no such dependency holds"),
            ):
                data[name] = variable(dims, value.double().cpu().numpy(), "probability", meaning)
        arrays = {name: value.double().cpu().numpy() for name, value in scores.items()}
        coords = {} if syntax is None else {"relation": list(syntax.relations)}
        return _Patterns(arrays, positional.distance.cpu().numpy(), relation, data, coords), notes

    def _syntax(self, model: HookedModel) -> tuple[Syntactic | None, list[str]]:
        """The syntactic scores, and notes on relations without scores."""
        if not self.syntax:
            return None, []
        if model.text.tokenizer is None:
            return None, ["no syntactic scores: the model has no tokenizer for the sentences"]
        try:
            sentences = dependencies(model, self.syntax, self.seed)
        except AlignmentError:
            return None, ["no syntactic scores: the tokenizer lacks the words of the sentences with known syntax"]
        notes = [f"no syntactic scores on {name}: the tokenizer lacks its words" for name in sentences.skipped]
        if not sentences.relations:
            return None, [*notes, f"no syntactic scores: no relation has enough pairs in {self.syntax} sentences"]
        return syntax_scores(model, sentences), notes

    def _paths(
        self, model: HookedModel, batch: ContrastBatch, roles: np.ndarray, *, execution: Execution
    ) -> dict[str, np.ndarray]:
        """The effect of each head through the queries of name movers, negative ones too; empty without name movers."""
        movers = [f"a{layer}.h{head}" for layer, head in np.ndindex(roles.shape) if "name_mover" in roles[layer, head]]
        if not movers or dense_model_of(model, batch.n_pos) is None or all(name.startswith("a0.") for name in movers):
            return {}
        method = PathPatching(("a*",), [f"{name}.q" for name in movers], metric=self.metric)
        edges = method(model, batch, execution=execution).data
        paths = np.zeros(roles.shape)
        for src, value in zip(edges["src"].values, edges["recovered"].values, strict=True):
            layer, head = map(int, str(src)[1:].split(".h"))
            paths[layer, head] += value
        return {"s_inhibition_path": paths}

    def _effects(
        self, model: HookedModel, batch: ContrastBatch, contrast: Baselines, *, execution: Execution
    ) -> tuple[np.ndarray, np.ndarray, list[Outcome]]:
        """The shares of the gap that patching each head's ``z`` restores and removes, ``[layer, head]``."""
        sweeps = self._sweeps(model, batch, contrast.metric)
        labelled = [(f"patching z ({direction})", sweep) for direction, sweep in sweeps.items()]
        outcomes = run_sweeps(model, labelled, execution)
        a = model.architecture
        restored, removed = (
            replace(contrast, direction=direction).recovered(
                outcome.values.T.reshape(-1, a.n_layers, a.n_heads).numpy()
            )
            for direction, outcome in zip(sweeps, outcomes, strict=True)
        )
        return restored, removed, outcomes

    def _sweeps(self, model: HookedModel, batch: ContrastBatch, metric: Metric) -> dict[Direction, Sweep]:
        """The sweep of ``z`` over all heads in each direction."""
        _, sites = Grid("z", _HEADS).sites(model.architecture, batch)
        return {
            direction: patching(model, batch, metric, sites=sites, direction=direction)
            for direction in get_args(Direction)
        }
