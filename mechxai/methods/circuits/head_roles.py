"""Which head does what: pattern scores, copying and the effect of patching; a role only where they agree."""

from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, ModelSupportError
from mechxai.core.grid import Grid
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, Metric, as_metric
from mechxai.core.result import Result, variable
from mechxai.engine.contrast import DIRECTIONS, Baselines, baselines, patching, with_reference
from mechxai.engine.execution import Execution
from mechxai.engine.plan import Plan
from mechxai.engine.run import Outcome
from mechxai.engine.several import noted, plan_sweeps, run_sweeps, summed
from mechxai.engine.sweep import Sweep
from mechxai.methods.circuits.copying import copying_scores
from mechxai.methods.record import run_info
from mechxai.model.hooked_model import HookedModel

_ROWS_AT_ONCE = 32
# Attention from one role to another, on the task's own prompts; used where the batch has both roles.
_ROLE_ATTENTION = {
    "duplicate_token": ("S2", "S1"),
    "s_inhibition": ("END", "S2"),
    "name_mover": ("END", "IO"),
}
_HEADS = ("layer", "head")
_ROLES = ("previous_token", "duplicate_token", "induction", "s_inhibition", "name_mover")
_MEANING = {
    "previous_token": "mean attention to the token before, on repeated random tokens",
    "duplicate_token": "mean attention from S2 to S1 (random tokens: to the token's first occurrence)",
    "induction": "mean attention to the token after the first occurrence, on repeated random tokens",
    "s_inhibition": "mean attention from END to S2",
    "name_mover": "mean attention from END to IO",
    "copying": "share of names in the top 5 of what the head writes when it attends to them",
}


@final
@register(
    MethodCard(
        name="head_roles",
        family="circuits",
        question="Which head plays which part: previous token, duplicate token, induction, S-inhibition, name mover?",
        cost="a few passes for the patterns, one per layer for copying, two sweeps over layer x head",
        source="Wang et al. 2022 (arXiv 2211.00593); Olsson et al. 2022 (arXiv 2209.11895)",
        pros="shows the pattern and the causal effect together",
        cons="roles are a fixed list; a head can do more than one thing",
    )
)
@dataclass(frozen=True)
class HeadRoles(Method):
    """Scores every head and names those whose attention fits a role *and* whose patching has an effect.

    Attributes:
        metric: of the patching effect.
        attention: smallest attention score that earns a name.
        effect: smallest share of the clean-corrupted gap, restored or removed by patching the head's ``z``, that does.
        copying: smallest copying score of a name mover (high attention without it is no name mover).
        period: length of the repeated random sequence.
        n_random: random sequences for the pattern scores.
        seed: of the random sequences.
    """

    metric: AnyMetric = "logit_diff"
    attention: float = 0.4
    effect: float = 0.05
    copying: float = 0.5
    period: int = 12
    n_random: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        as_metric(self.metric)
        if self.period < 2 or self.n_random < 1:
            raise ConfigError(
                "The random sequences of head_roles",
                got=f"period={self.period}, n_random={self.n_random}",
                allowed="period >= 2, n_random >= 1",
            )

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """Scores and roles of every head.

        Returns:
            ``previous_token``, ``duplicate_token``, ``induction`` and, for batches with the roles IO, S1, S2,
            ``s_inhibition``, ``name_mover``, ``copying`` [layer, head]; ``effect`` (denoising ``z`` at every position)
            and ``effect_noise`` (noising), as shares of the clean-corrupted gap; ``role`` [layer, head], empty for
            none.

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
        scores = {name: value.double().cpu().numpy() for name, value in self._scores(model, batch).items()}
        known = baselines(model, batch, metric, direction="denoise")
        restored, removed, outcomes = self._effects(model, batch, known, execution=execution)
        gap = f"share of the gap in {metric.name} that patching"
        data = {
            name: variable(_HEADS, value, "fraction" if name == "copying" else "probability", _MEANING[name])
            for name, value in scores.items()
        }
        data["effect"] = variable(_HEADS, restored, "fraction", f"{gap} clean z into corrupted restores")
        data["effect_noise"] = variable(_HEADS, removed, "fraction", f"{gap} corrupted z into clean removes")
        roles = self._roles(scores, np.maximum(np.abs(restored), np.abs(removed)))
        meaning = "roles whose attention score and patching effect both pass; empty for none"
        data["role"] = variable(_HEADS, roles, "role", meaning)
        coords = {axis: list(range(count)) for axis, count in zip(_HEADS, roles.shape, strict=True)}
        info = run_info(self, model, batch, cost=summed(outcomes), notes=(*noted(outcomes), *known.notes))
        return Result(xr.Dataset(data, coords=coords), info)

    def plan(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Plan:  # noqa: B008 - frozen
        """How the two sweeps would be run, which cost more than the scores; runs nothing."""
        sweeps = self._sweeps(model, batch.to(model.device), as_metric(self.metric))
        return plan_sweeps(model, list(sweeps.values()), execution)

    def _scores(self, model: HookedModel, batch: ContrastBatch) -> dict[str, Tensor]:
        found = self._random_scores(model)
        present = {name: ends for name, ends in _ROLE_ATTENTION.items() if set(ends) <= set(batch.roles)}
        if not present:
            return found
        totals = {name: torch.zeros_like(found["induction"]) for name in present}
        for _, part in batch.parts(_ROWS_AT_ONCE):
            acts = model.cache(part.clean, ["pattern"], lengths=part.lengths)
            patterns = acts.stack("pattern")  # [layer, batch, head, dest, src]
            every = torch.arange(len(part), device=patterns.device)
            for name, (dest, src) in present.items():
                attention = patterns[:, every, :, part.roles[dest], part.roles[src]]  # [batch, layer, head]
                totals[name] += attention.sum(0)
        found.update({name: total / len(batch) for name, total in totals.items()})
        names = batch.answers[:, 0, 0].unique()
        found["copying"] = copying_scores(model, names)
        return found

    def _random_scores(self, model: HookedModel) -> dict[str, Tensor]:
        """Previous-token, duplicate and induction attention on a random sequence repeated (METHODS: Olsson et al.)."""
        period = min(self.period, (model.architecture.n_ctx - 1) // 2)
        generator = torch.Generator().manual_seed(self.seed)
        pool = model.text.plain_ids(model.architecture.d_vocab)
        sequence = torch.stack(
            [pool[torch.randperm(len(pool), generator=generator)[:period]] for _ in range(self.n_random)]
        )
        start = [] if model.text.bos is None else [torch.full((self.n_random, 1), model.text.bos)]
        tokens = torch.cat([*start, sequence, sequence], 1).to(model.device)
        patterns = model.cache(tokens, ["pattern"]).stack("pattern").mean(1)  # [layer, head, dest, src]
        second = torch.arange(len(start) + period, tokens.shape[1] - 1, device=patterns.device)
        # the first token's previous is <bos> or nothing
        later = torch.arange(len(start) + 1, tokens.shape[1], device=patterns.device)
        return {
            "previous_token": patterns[:, :, later, later - 1].mean(-1),
            "duplicate_token": patterns[:, :, second, second - period].mean(-1),
            "induction": patterns[:, :, second, second - period + 1].mean(-1),
        }

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

    def _roles(self, scores: dict[str, np.ndarray], effect: np.ndarray) -> np.ndarray:
        names = np.full(effect.shape, "", dtype=object)
        for role in (name for name in _ROLES if name in scores):
            fits = (scores[role] >= self.attention) & (effect >= self.effect)
            if role == "name_mover":
                fits &= scores["copying"] >= self.copying
            for place in zip(*np.nonzero(fits), strict=True):
                names[place] = f"{names[place]}, {role}" if names[place] else role
        return names.astype(str)
