"""Which head does what: pattern scores, copying and the effect of patching; a role only where they agree."""

from dataclasses import dataclass, replace
from typing import ClassVar, final

import numpy as np
import xarray as xr

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import AlignmentError, ConfigError, ModelSupportError
from mechxai.core.grid import Grid
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, Metric, as_metric
from mechxai.core.result import Result, variable
from mechxai.engine.contrast import DIRECTIONS, Baselines, baselines, patching, with_reference
from mechxai.engine.execution import Execution
from mechxai.engine.multi_sweep import distinct_notes, plan_sweeps, run_sweeps, total_cost
from mechxai.engine.plan import Plan
from mechxai.engine.run import Outcome
from mechxai.engine.sweep import Sweep
from mechxai.methods.circuits._lib.copying import copying_scores
from mechxai.methods.circuits._lib.head_names import Naming
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
    "positional": "mean attention to the fixed distance the head looks at most, on random tokens",
    "syntactic": "attention along a dependency, less that as far back where it does not hold; the best relation's",
    "copying": "share of answers in the top 5 of what the head writes when it attends to them",
    "suppressing": "share of answers in the top 5 of the opposite of what the head writes when it attends to them",
    "s_inhibition_path": "share of the gap that the head brings by the name movers' queries alone, MLPs following",
}


@dataclass(frozen=True)
class _Patterns:
    """Pattern scores by name, the distance of ``positional``, the relation of ``syntactic``, and scores by relation."""

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
        question="Which head follows what (tokens before, repeats, names, positions, syntax), and does it matter here?",
        cost="a few passes for the patterns, one per layer for copying, two sweeps over layer x head, one of paths "
        "into name movers",
        source="Wang et al. 2022 (arXiv 2211.00593); Olsson et al. 2022 (arXiv 2209.11895); "
        "Voita et al. 2019 (arXiv 1905.09418); Clark et al. 2019 (arXiv 1906.04341)",
        pros="shows the pattern and the causal effect together",
        cons="roles are a fixed list; a head can do more than one thing",
    )
)
@dataclass(frozen=True)
class HeadRoles(Method):
    """Scores every head and names those whose attention fits a role *and* whose patching has an effect.

    First token, positional and syntactic are names of last resort: a head that also fits another role may rest on the
    first token where it has nothing to do.

    Attributes:
        metric: of the patching effect.
        attention: smallest attention score that earns a name.
        effect: smallest share of the clean-corrupted gap, restored or removed by patching the head's ``z``, that does.
        copying: smallest copying score of a name mover (high attention without it is no name mover); of a negative name
            mover the smallest score of writing against what it attends to.
        period: length of the repeated random sequence.
        n_random: random sequences for the pattern scores.
        syntax: sentences of known syntax for the syntactic score; 0 leaves it out.
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
        if self.period < 2 or self.n_random < 1 or self.syntax < 0:
            raise ConfigError(
                "The random sequences and sentences of head_roles",
                got=f"period={self.period}, n_random={self.n_random}, syntax={self.syntax}",
                allowed="period >= 2, n_random >= 1, syntax >= 0",
            )

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """Scores and roles of every head.

        Returns:
            ``previous_token``, ``duplicate_token``, ``induction``, ``first_token``, ``positional``; for batches with
            the roles IO, S1, S2 ``s_inhibition``, ``name_mover``; for answers of one token ``copying`` and
            ``suppressing``, its opposite; where there are name movers ``s_inhibition_path``, what a head brings by
            their queries, without which it is no S-inhibition head; for tokenizers
            with the grammars' words ``syntactic`` [layer, head], ``syntax`` and ``syntax_control`` [relation, layer,
            head]; ``effect`` (denoising ``z`` at every position) and ``effect_noise`` (noising), as shares of the
            clean-corrupted gap; ``attends_to`` [layer, head], the strongest pattern, effect or not; ``role`` [layer,
            head], empty for none.

        Raises:
            ModelSupportError: a bidirectional model.
        """
        if not model.architecture.causal:
            raise ModelSupportError(
                f"Head roles of {model.name} were asked", got="a bidirectional model", fix="use a causal language model"
            )
        metric, batch = as_metric(self.metric), batch.to(model.device)
        metric.check(batch)
        batch = with_reference(model, batch, metric)
        patterns, notes = self._patterns(model, batch)
        known = baselines(model, batch, metric, direction="denoise")
        restored, removed, outcomes = self._effects(model, batch, known, execution=execution)
        naming = Naming(attention=self.attention, effect=self.effect, copying=self.copying)
        effect = np.maximum(np.abs(restored), np.abs(removed))
        paths = self._paths(model, batch, naming.roles(patterns.scores, effect), execution=execution)
        patterns.scores.update(paths)
        gap = f"share of the gap in {metric.name} that patching"
        data = {
            name: variable(_HEADS, value, "fraction" if name in _SHARES else "probability", _MEANING[name])
            for name, value in patterns.scores.items()
        }
        data["effect"] = variable(_HEADS, restored, "fraction", f"{gap} clean z into corrupted restores")
        data["effect_noise"] = variable(_HEADS, removed, "fraction", f"{gap} corrupted z into clean removes")
        roles = naming.roles(patterns.scores, effect)
        meaning = "roles whose attention score and patching effect both pass; empty for none"
        data["role"] = variable(_HEADS, roles, "role", meaning)
        looks = naming.attends_to(patterns.scores, patterns.distance, patterns.relation)
        data["attends_to"] = variable(_HEADS, looks, "pattern", "strongest pattern that passes, effect or not")
        data.update(patterns.syntax)
        coords = {axis: list(range(count)) for axis, count in zip(_HEADS, roles.shape, strict=True)}
        notes = (*distinct_notes(outcomes), *known.notes, *notes)
        info = run_info(self, model, batch, cost=total_cost(outcomes), notes=notes)
        return Result(xr.Dataset(data, coords={**coords, **patterns.coords}), info)

    def plan(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Plan:  # noqa: B008 - frozen
        """How the two sweeps over heads would be run, which cost more than the scores; runs nothing.

        The paths into name movers are not in it: who these are shows only then. They cost at most one pass from a
        name mover's layer on for each head before it.
        """
        sweeps = self._sweeps(model, batch.to(model.device), as_metric(self.metric))
        return plan_sweeps(model, list(sweeps.values()), execution)

    def _patterns(self, model: HookedModel, batch: ContrastBatch) -> tuple["_Patterns", list[str]]:
        """The scores of every head, and what could not be scored."""
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
        if not self.syntax:
            return None, []
        if model.text.tokenizer is None:
            return None, ["no syntactic scores: the model has no tokenizer for the sentences"]
        try:
            known = dependencies(model, self.syntax, self.seed)
        except AlignmentError:
            return None, ["no syntactic scores: the tokenizer lacks the words of the sentences with known syntax"]
        left = [f"no syntactic scores on {name}: the tokenizer lacks its words" for name in known.skipped]
        if not known.relations:
            return None, [*left, f"no syntactic scores: no relation has enough pairs in {self.syntax} sentences"]
        return syntax_scores(model, known), left

    def _paths(
        self, model: HookedModel, batch: ContrastBatch, roles: np.ndarray, *, execution: Execution
    ) -> dict[str, np.ndarray]:
        """What each head brings by the queries of the name movers, negative ones too; nothing where there are none."""
        movers = [f"a{layer}.h{head}" for layer, head in np.ndindex(roles.shape) if "name_mover" in roles[layer, head]]
        if not movers or dense_model_of(model) is None or all(name.startswith("a0.") for name in movers):
            return {}
        method = PathPatching(("a*",), [f"{name}.q" for name in movers], metric=self.metric)
        found = method(model, batch, execution=execution).data
        paths = np.zeros(roles.shape)
        for src, value in zip(found["src"].values, found["recovered"].values, strict=True):
            layer, head = map(int, str(src)[1:].split(".h"))
            paths[layer, head] += value
        return {"s_inhibition_path": paths}

    def _effects(
        self, model: HookedModel, batch: ContrastBatch, known: Baselines, *, execution: Execution
    ) -> tuple[np.ndarray, np.ndarray, list[Outcome]]:
        """The shares of the gap that patching each head's ``z`` restores and removes, ``[layer, head]``."""
        sweeps = self._sweeps(model, batch, known.metric)
        named = [(f"patching z ({direction})", sweep) for direction, sweep in sweeps.items()]
        outcomes = run_sweeps(model, named, execution)
        a = model.architecture
        moved = [
            replace(known, direction=direction).recovered(one.values.T.reshape(-1, a.n_layers, a.n_heads).numpy())
            for direction, one in zip(sweeps, outcomes, strict=True)
        ]
        return moved[0], moved[1], outcomes

    def _sweeps(self, model: HookedModel, batch: ContrastBatch, metric: Metric) -> dict[str, Sweep]:
        """By direction."""
        _, sites = Grid("z", _HEADS).sites(model.architecture, batch)
        return {one: patching(model, batch, metric, sites=sites, direction=one) for one in DIRECTIONS}
