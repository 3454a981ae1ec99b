"""Methods of attribution side by side: do they agree, which are true, what does each cost, what is wrong with it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
import xarray as xr
from sklearn.metrics import roc_auc_score

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, SiteError, check_choice, nearest
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result, variable
from mechxai.core.statistics import known_mean
from mechxai.engine.execution import Execution
from mechxai.methods.attribution._lib.baselines import BASELINES
from mechxai.methods.attribution._lib.evaluation.comparison import (
    Candidate,
    EvaluationSettings,
    Judging,
    curve_variables,
    judged,
    measure_variables,
)
from mechxai.methods.attribution._lib.evaluation.measures import player_scores, rank_agreement, top_overlap
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.methods.attribution._lib.method_names import Named, labelled
from mechxai.methods.attribution._lib.players import KINDS
from mechxai.methods.attribution._lib.scores import attributed, gap_of
from mechxai.methods.attribution.faithfulness import FRACTIONS
from mechxai.methods.result_parts import bounded, position_labels, run_info, token_texts

EVERY = (
    "saliency",
    "gradient_x_input",
    "integrated_gradients",
    "smooth_grad",
    "occlusion",
    "lime",
    "kernel_shap",
    "partition_shap",
    "attention_scores",
    "attention_rollout",
)


@final
@register(
    MethodCard(
        name="compare_attributions",
        family="attribution",
        kind="attribution_comparison",
        question="Which of several attributions is true here, do they agree, and what does each cost?",
        cost="every method once, and about 2 x 14 passes per ranking and prompt",
        source="Jain & Wallace 2019 (arXiv 1902.10186) for agreement; as faithfulness for the rest",
        pros="one table, with random rankings in it; says which golden rule a result breaks",
        cons="agreement is not truth; faithfulness depends on the baseline",
    )
)
@dataclass(frozen=True)
class CompareAttributions(Method):
    """Several methods on the same prompts, score and players, each judged by the same interventions.

    Attributes:
        methods: methods, or their names; each is asked about ``metric``, ``players`` and ``special`` of this one.
        metric: what is scored.
        baseline: what stands in for players taken away by the judge; each method's own is its own.
        players: ``token``, ``word`` or ``span``.
        special: whether special tokens are players too.
        top: share of the players that counts as a ranking's top, for overlaps.
        truth: roles of the batch whose tokens are known to matter, where they are; adds ``auroc``.
        fractions: of the players, at which comprehensiveness and sufficiency are taken (ERASER's by default).
        random_draws: random rankings beside the methods.
        infidelity_draws: random sets of players.
        soft_draws: of the soft measures' masks; 0 leaves them out.
        seed: of all draws.
    """

    methods: Sequence[Named] = EVERY
    metric: AnyMetric = "logit_diff"
    baseline: str = "pad"
    players: str = "token"
    special: bool = False
    top: float = 0.2
    truth: Sequence[str] = ()
    fractions: Sequence[float] = FRACTIONS
    random_draws: int = 10
    infidelity_draws: int = 32
    soft_draws: int = 5
    seed: int = 0

    def _check_fields(self) -> None:
        as_metric(self.metric)
        if not labelled(self.methods):
            raise ConfigError("compare_attributions of no methods", fix="give at least one")
        check_choice("baseline", self.baseline, BASELINES)
        check_choice("players", self.players, KINDS)
        if not 0 < self.top <= 1:
            raise ConfigError(f"top={self.top} of the players", allowed="above 0, up to 1")
        _ = self._judging

    @property
    def _judging(self) -> Judging:
        return Judging(self.fractions, self.random_draws, self.infidelity_draws, self.soft_draws, self.seed)

    def __call__(self, model: Any, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """One column per method.

        Returns:
            ``agreement`` [method, other] mean Spearman's correlation, ``overlap`` [method, other] of the top players;
            the measures and curves of `Faithfulness`; ``forward_passes``, ``backward_passes``, ``seconds`` and ``gap``
            (share of the change that does not add up) [method]; ``attribution`` [method, prompt, pos] and ``token``;
            with ``truth``, ``auroc`` [method], with intervals, of the scores' sizes.

        Raises:
            SiteError: ``truth`` names a role the batch does not have.
        """
        started = time.perf_counter()
        asked = EvaluationSettings(self.metric, self.baseline, self.players, self.special)
        judge = asked.problem(model, batch, execution)
        matters = self._matters(judge)
        found = {
            label: _candidate(asked.put(method), model, batch, execution=execution)
            for label, method in labelled(self.methods).items()
        }
        candidates = list(found.values())
        measures, along = judged(judge, [one.players for one in candidates], self._judging)
        unit = as_metric(self.metric).unit
        data = _agreement(candidates, self.top)
        data |= measure_variables(measures, len(candidates), unit) | curve_variables(along, len(candidates), unit)
        data |= _cost(candidates) | _texts(judge, candidates)
        if matters is not None:
            data |= _auroc(candidates, matters)
        names = list(found)
        coords = {
            "method": names,
            "other": names,
            "prompt": list(range(len(batch))),
            "pos": position_labels(batch, list(range(batch.n_pos))),
            "share": np.linspace(0, 1, 21),
        }
        tallies = [judge.tally, *(one.problem.tally for one in candidates)]
        cost = {
            "forward_passes": sum(tally.forward for tally in tallies) / len(batch),
            "seconds": time.perf_counter() - started,
        }
        notes = tuple(_broken_rules(found, data))
        return Result(xr.Dataset(data, coords=coords), run_info(self, model, batch, cost=cost, notes=notes))

    def _matters(self, problem: AttributionInput) -> np.ndarray | None:
        """Which players are known to matter, ``[prompt, player]``; None where nothing is known."""
        if not self.truth:
            return None
        roles = problem.batch.roles
        missing = [role for role in self.truth if role not in roles]
        if missing:
            raise SiteError(f"truth={missing[0]!r} was asked", got="no such role", allowed=nearest(missing[0], roles))
        found = np.zeros((len(problem), problem.players.most), bool)
        for role in self.truth:
            first = roles.get(f"{role}_first", roles[role])
            for prompt in range(len(problem)):
                own = problem.players.of_token[prompt, int(first[prompt]) : int(roles[role][prompt]) + 1]
                found[prompt, own[own >= 0].numpy()] = True
        return found


def _candidate(method: Any, model: Any, batch: ContrastBatch, *, execution: Execution) -> Candidate:
    started = time.perf_counter()
    problem = method.problem(model, batch, execution)
    scores = method.scores(problem)
    return Candidate(method, problem, scores, player_scores(problem, scores.tokens), time.perf_counter() - started)


def _agreement(candidates: Sequence[Candidate], top: float) -> dict[str, xr.DataArray]:
    pairs = [[(a.players, b.players) for b in candidates] for a in candidates]
    agree = [[float(known_mean(rank_agreement(a, b))) for a, b in row] for row in pairs]
    overlap = [[float(top_overlap(a, b, top).mean()) for a, b in row] for row in pairs]
    dims = ("method", "other")
    return {
        "agreement": variable(dims, agree, "correlation", "Spearman's correlation of scores, mean over prompts"),
        "overlap": variable(dims, overlap, "fraction", f"shared players among the top {top:.0%}, mean over prompts"),
    }


def _cost(candidates: Sequence[Candidate]) -> dict[str, xr.DataArray]:
    n = len(candidates[0].problem)
    tallies = [one.problem.tally for one in candidates]
    columns = {
        "forward_passes": ([tally.forward / n for tally in tallies], "passes", "forward passes per prompt"),
        "forward_passes_worked": ([tally.worked / n for tally in tallies], "passes", "the same, less what was saved"),
        "backward_passes": ([tally.backward / n for tally in tallies], "passes", "backward passes per prompt"),
        "seconds": ([one.seconds for one in candidates], "s", "seconds, all prompts"),
        "gap": ([_gap(one) for one in candidates], "fraction", "share of the change that scores miss, mean"),
    }
    return {name: variable(("method",), *column) for name, column in columns.items()}


def _gap(candidate: Candidate) -> float:
    gap, change = gap_of(candidate.problem, candidate.scores)
    return float((gap.abs() / change.abs().clamp(min=1e-3)).mean())


def _texts(judge: AttributionInput, candidates: Sequence[Candidate]) -> dict[str, xr.DataArray]:
    tokens = torch.stack([attributed(one.problem, one.scores) for one in candidates]).numpy()
    dims = ("method", "prompt", "pos")
    return {
        "attribution": variable(dims, tokens, "each method's own", "score of each token"),
        "token": token_texts(judge.subject.text, judge.batch.clean, judge.batch.lengths),
    }


def _auroc(candidates: Sequence[Candidate], matters: np.ndarray) -> dict[str, xr.DataArray]:
    """Of the sizes of scores, prompt by prompt, against the players that are known to matter."""
    rows = []
    for one in candidates:
        known = ~np.isnan(one.players)
        rows.append(
            [
                roc_auc_score(truth[there], np.abs(scores[there])) if 0 < truth[there].sum() < there.sum() else np.nan
                for truth, scores, there in zip(matters, one.players, known, strict=True)
            ]
        )
    meaning = "AUROC of the scores' sizes against the tokens known to matter"
    return bounded("auroc", ("method",), np.array(rows).T, units="probability", meaning=meaning)


def _broken_rules(found: Mapping[str, Candidate], data: Mapping[str, xr.DataArray]) -> list[str]:
    """What a reader of each method's column must know, method by method."""
    notes = [f"{label}: {note}" for label, one in found.items() for note in one.scores.notes]
    for index, (label, one) in enumerate(found.items()):
        gap = float(data["gap"][index])
        if one.scores.complete and gap > 0.05:
            short = "has not converged" if label.startswith("integrated") else "does not add up"
            notes.append(f"{label} {short}: {gap:.0%} of the change is missing or too much")
        if float(data["comprehensiveness_gain_low"][index]) <= 0:
            notes.append(f"{label} is no more faithful than random rankings (comprehensiveness)")
    return notes
