"""Which head does what: pattern scores, copying, and the effect of patching, side by side; a role only where they agree."""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention, Patch
from mechxai.core.errors import ConfigError, ModelSupportError
from mechxai.core.grid import Grid
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, Metric, as_metric
from mechxai.core.provenance import commit, versions
from mechxai.core.result import Result, RunInfo, variable
from mechxai.core.site import Site
from mechxai.engine.execution import Execution
from mechxai.engine.run import Outcome, run_sweep
from mechxai.engine.sources import RunSource
from mechxai.engine.sweep import Sweep, run_tokens
from mechxai.methods.circuits.copying import copying_scores
from mechxai.model.hooked_model import HookedModel

_ROWS_AT_ONCE = 32
# Attention from one role to another, on the task's own prompts; used where the batch has both roles.
_ROLE_ATTENTION = {
    "duplicate_token": ("S2", "S1"),
    "s_inhibition": ("END", "S2"),
    "name_mover": ("END", "IO"),
}
_MEANING = {
    "previous_token": "mean attention to the token before, on repeated random tokens",
    "duplicate_token": "mean attention from S2 to S1 (random tokens: to the token's first occurrence)",
    "induction": "mean attention to the token after the first occurrence, on repeated random tokens",
    "s_inhibition": "mean attention from END to S2",
    "name_mover": "mean attention from END to IO",
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
            and ``effect_noise`` (noising), as shares of the clean-corrupted gap; ``role`` [layer, head], empty for none.

        Raises:
            ModelSupportError: a bidirectional model.
        """
        if not model.architecture.causal:
            raise ModelSupportError(
                f"Head roles of {model.name} were asked", got="a bidirectional model", fix="use a causal language model"
            )
        metric = as_metric(self.metric)
        metric.check(batch)
        scores = {name: value.double().cpu().numpy() for name, value in self._scores(model, batch).items()}
        denoise, noise = (
            self._effect(model, batch, metric, direction, execution) for direction in ("denoise", "noise")
        )
        data = {
            name: variable(("layer", "head"), value, "probability", _MEANING[name])
            for name, value in scores.items()
            if name in _MEANING
        }
        if "copying" in scores:
            data["copying"] = variable(
                ("layer", "head"),
                scores["copying"],
                "fraction",
                "share of names in the top 5 of what the head writes when it attends to them",
            )
        data["effect"] = variable(
            ("layer", "head"),
            denoise[0],
            "fraction",
            f"share of the gap in {metric.name} that patching clean z into corrupted restores",
        )
        data["effect_noise"] = variable(
            ("layer", "head"),
            noise[0],
            "fraction",
            f"share of the gap in {metric.name} that patching corrupted z into clean removes",
        )
        roles = self._roles(scores, np.maximum(np.abs(denoise[0]), np.abs(noise[0])))
        data["role"] = variable(
            ("layer", "head"),
            roles,
            "role",
            "roles whose attention score and patching effect both pass; empty for none",
        )
        coords = {"layer": list(range(roles.shape[0])), "head": list(range(roles.shape[1]))}
        cost = {key: denoise[1].cost[key] + noise[1].cost[key] for key in denoise[1].cost}
        task = dict(batch.info) or {"name": "given", "n": len(batch)}
        return Result(
            xr.Dataset(data, coords=coords),
            RunInfo(self.settings(), model.info(), task, self.seed, versions(), commit(), cost),
        )

    def _scores(self, model: HookedModel, batch: ContrastBatch) -> dict[str, Tensor]:
        found = self._random_scores(model)
        present = {name: ends for name, ends in _ROLE_ATTENTION.items() if set(ends) <= set(batch.roles)}
        if not present:
            return found
        totals = {name: torch.zeros_like(found["induction"]) for name in present}
        for start in range(0, len(batch), _ROWS_AT_ONCE):
            part = batch.rows(slice(start, start + _ROWS_AT_ONCE))
            patterns = model.cache(part.clean, ["pattern"], lengths=part.lengths).stack(
                "pattern"
            )  # [layer, batch, head, dest, src]
            every = torch.arange(len(part), device=patterns.device)
            for name, (dest, src) in present.items():
                totals[name] += patterns[:, every, :, part.roles[dest], part.roles[src]].sum(
                    0
                )  # [batch, layer, head] -> [layer, head]
        found.update({name: total / len(batch) for name, total in totals.items()})
        names = batch.answers[:, 0, 0].unique()
        found["copying"] = copying_scores(model, names)
        return found

    def _random_scores(self, model: HookedModel) -> dict[str, Tensor]:
        """Previous-token, duplicate and induction attention on a random sequence repeated (METHODS: Olsson et al.)."""
        period = min(self.period, (model.architecture.n_ctx - 1) // 2)
        generator = torch.Generator().manual_seed(self.seed)
        special = set(getattr(model.tokenizer, "all_special_ids", None) or [])
        pool = torch.tensor([token for token in range(model.architecture.d_vocab) if token not in special])
        sequence = torch.stack(
            [pool[torch.randperm(len(pool), generator=generator)[:period]] for _ in range(self.n_random)]
        )
        start = [] if model.text.bos is None else [torch.full((self.n_random, 1), model.text.bos)]
        tokens = torch.cat([*start, sequence, sequence], 1).to(model.device)
        patterns = model.cache(tokens, ["pattern"]).stack("pattern").mean(1)  # [layer, head, dest, src]
        second = torch.arange(len(start) + period, tokens.shape[1] - 1, device=patterns.device)
        later = torch.arange(
            len(start) + 1, tokens.shape[1], device=patterns.device
        )  # the first token's previous is <bos> or nothing
        return {
            "previous_token": patterns[:, :, later, later - 1].mean(-1),
            "duplicate_token": patterns[:, :, second, second - period].mean(-1),
            "induction": patterns[:, :, second, second - period + 1].mean(-1),
        }

    def _effect(
        self, model: HookedModel, batch: ContrastBatch, metric: Metric, direction: str, execution: Execution
    ) -> tuple[np.ndarray, Outcome]:
        axes, sites = Grid("z", ("layer", "head")).sites(model.architecture, batch)
        base, source = ("corrupted", "clean") if direction == "denoise" else ("clean", "corrupted")
        whole = tuple(Site("z", layer) for layer in range(model.architecture.n_layers))
        patch = Patch(RunSource(model, batch, source, metric, whole))
        cells = [(Intervention(site, patch),) for site in sites]
        outcome = run_sweep(model, Sweep(batch, base, cells, metric), execution, what=f"patching z ({direction})")
        runs = {run: _metric_of(model, batch, run, metric) for run in ("clean", "corrupted")}
        gap = (runs["clean"] - runs["corrupted"]).mean()
        values = outcome.values.mean(1).reshape(len(axes["layer"]), len(axes["head"])).numpy()
        away = values - runs["corrupted"].mean() if direction == "denoise" else runs["clean"].mean() - values
        return away / gap, outcome

    def _roles(self, scores: dict[str, np.ndarray], effect: np.ndarray) -> np.ndarray:
        names = np.full(effect.shape, "", dtype=object)
        for role in _MEANING:
            if role not in scores:
                continue
            fits = (scores[role] >= self.attention) & (effect >= self.effect)
            if role == "name_mover":
                fits &= scores["copying"] >= self.copying
            for place in zip(*np.nonzero(fits), strict=True):
                names[place] = f"{names[place]}, {role}" if names[place] else role
        return names.astype(str)


def _metric_of(model: HookedModel, batch: ContrastBatch, run: str, metric: Metric) -> np.ndarray:
    parts = []
    for start in range(0, len(batch), _ROWS_AT_ONCE):
        part = batch.rows(slice(start, start + _ROWS_AT_ONCE))
        tokens, lengths = run_tokens(part, run, metric)
        at = metric.positions(part)
        parts.append(metric.score(model.logits(tokens, lengths=lengths, at=at).float(), part))
    return torch.cat(parts).double().cpu().numpy()
