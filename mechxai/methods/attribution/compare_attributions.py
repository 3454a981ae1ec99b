"""Attribution methods side by side: their agreement, faithfulness and cost, and the caveats of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from sklearn.metrics import roc_auc_score

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, SiteError, unknown
from mechxai.core.method import MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result, variable
from mechxai.core.statistics import known_mean
from mechxai.core.work_clock import work_seconds
from mechxai.engine.execution import Execution
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution._lib.baselines import Baseline
from mechxai.methods.attribution._lib.evaluation.comparison import (
    curve_variables,
    evaluate_rankings,
    measure_variables,
)
from mechxai.methods.attribution._lib.evaluation.measures import rank_agreement, top_overlap
from mechxai.methods.attribution._lib.evaluation.settings import (
    ERASER_FRACTIONS,
    AttributionEvaluation,
    with_settings,
)
from mechxai.methods.attribution._lib.input import AttributionInput, attribution_input
from mechxai.methods.attribution._lib.method_names import MethodOrName, labelled
from mechxai.methods.attribution._lib.players import PlayerKind
from mechxai.methods.attribution._lib.scores import TokenScores, attributed_tokens, completeness_gap, player_scores
from mechxai.methods.result_parts import bounded, position_labels, run_info, token_texts

DEFAULT_METHODS = (
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
_MIN_CHANGE = 1e-3
_MAX_GAP = 0.05


@final
@register(
    MethodCard(
        name="compare_attributions",
        family="attribution",
        kind="attribution_comparison",
        question="Which of several attributions is faithful, do they agree, and what does each cost?",
        cost="every method once, and about 2 x 14 passes per ranking and prompt",
        source="Jain & Wallace 2019 (arXiv 1902.10186) for agreement; as faithfulness for the rest",
        pros="one table with random rankings in it; names the caveats of each method's scores",
        cons="agreement is not faithfulness; faithfulness depends on the baseline",
    )
)
@dataclass(frozen=True)
class CompareAttributions(AttributionEvaluation):
    """Several methods on the same prompts, metric and players, each evaluated by the same interventions.

    Attributes:
        methods: methods, or their names; each uses ``metric``, ``players`` and ``special`` of the comparison.
        metric: what is scored.
        baseline: what replaces a token that the evaluation deletes; each method keeps its own baseline.
        players: ``token``, ``word`` or ``span``.
        special: whether special tokens are players too.
        top: share of the players that counts as a ranking's top, for overlaps.
        truth: roles of the batch whose tokens are known to matter; adds ``auroc``.
        fractions: of the players, at which comprehensiveness and sufficiency are computed (ERASER's by default).
        random_draws: random rankings that the methods are compared with.
        infidelity_draws: random sets of players.
        soft_draws: masks of the soft measures; 0 leaves these measures out.
        seed: of all draws.
    """

    methods: Sequence[MethodOrName] = DEFAULT_METHODS
    metric: AnyMetric = "logit_diff"
    baseline: Baseline = "pad"
    players: PlayerKind = "token"
    special: bool = False
    top: float = 0.2
    truth: Sequence[str] = ()
    fractions: Sequence[float] = ERASER_FRACTIONS
    random_draws: int = 10
    infidelity_draws: int = 32
    soft_draws: int = 5
    seed: int = 0

    def _check_fields(self) -> None:
        if not labelled(self.methods):
            raise ConfigError("compare_attributions has no methods to compare", fix="Give at least one")
        if not 0 < self.top <= 1:
            raise ConfigError(f"top is {self.top}", allowed="above 0, up to 1")

    def __call__(self, model: Any, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """One column per method.

        Returns:
            ``agreement`` [method, other] mean Spearman's correlation, ``overlap`` [method, other] of the top players;
            the measures and curves of `Faithfulness`; ``forward_passes``, ``backward_passes``, ``seconds`` and ``gap``
            (share of the change that the scores miss or exceed) [method]; ``attribution`` [method, prompt, pos] and
            ``token``; with ``truth``, ``auroc`` [method], with intervals, of the scores' magnitudes.

        Raises:
            SiteError: ``truth`` names a role the batch does not have.
        """
        started = work_seconds()
        evaluation = attribution_input(model, batch, self.input_settings, execution=execution)
        matters = self._players_that_matter(evaluation)
        runs = {
            label: _run_method(with_settings(method, self.input_settings), model, batch, execution=execution)
            for label, method in labelled(self.methods).items()
        }
        columns = list(runs.values())
        measures, curves = evaluate_rankings(evaluation, [run.by_player for run in columns], self.evaluation_settings)
        unit = as_metric(self.metric).unit
        data = _agreement_variables(columns, self.top)
        data |= measure_variables(measures, len(columns), unit) | curve_variables(curves, len(columns), unit)
        data |= _cost_variables(columns) | _token_variables(evaluation, columns)
        if matters is not None:
            data |= _auroc_variables(columns, matters)
        labels = list(runs)
        coords = {
            "method": labels,
            "other": labels,
            "prompt": list(range(len(batch))),
            "pos": position_labels(batch, list(range(batch.n_pos))),
            "share": np.linspace(0, 1, 21),
        }
        tallies = [evaluation.tally, *(run.inputs.tally for run in columns)]
        cost = {
            "forward_passes": sum(tally.forward for tally in tallies) / len(batch),
            "seconds": work_seconds() - started,
        }
        notes = tuple(_caveats(runs, data))
        return Result(xr.Dataset(data, coords=coords), run_info(self, model, batch, cost=cost, notes=notes))

    def _players_that_matter(self, inputs: AttributionInput) -> Bool[np.ndarray, "prompt player"] | None:
        """The players of the roles in ``truth``; None without any."""
        if not self.truth:
            return None
        roles = inputs.batch.roles
        missing = [role for role in self.truth if role not in roles]
        if missing:
            raise SiteError(unknown("role", missing[0], roles))
        matters = np.zeros((len(inputs), inputs.players.most), bool)
        for role in self.truth:
            first = roles.get(f"{role}_first", roles[role])
            for prompt in range(len(inputs)):
                players = inputs.players.of_token[prompt, int(first[prompt]) : int(roles[role][prompt]) + 1]
                matters[prompt, players[players >= 0].numpy()] = True
        return matters


@dataclass(frozen=True)
class _MethodRun:
    """One method's scores of the batch.

    Attributes:
        method: the method.
        inputs: its input, with its own baseline.
        scores: of the tokens.
        by_player: the scores summed by player.
        seconds: duration of the run.
    """

    method: Attribution
    inputs: AttributionInput
    scores: TokenScores
    by_player: Float[np.ndarray, "prompt player"]
    seconds: float


def _run_method(method: Attribution, model: Any, batch: ContrastBatch, *, execution: Execution) -> _MethodRun:
    started = work_seconds()
    inputs = method.inputs(model, batch, execution)
    scores = method.scores(inputs)
    return _MethodRun(method, inputs, scores, player_scores(inputs, scores.tokens), work_seconds() - started)


def _agreement_variables(runs: Sequence[_MethodRun], top: float) -> dict[str, xr.DataArray]:
    pairs = [[(a.by_player, b.by_player) for b in runs] for a in runs]
    agreement = [[float(known_mean(rank_agreement(a, b))) for a, b in row] for row in pairs]
    overlap = [[float(top_overlap(a, b, top).mean()) for a, b in row] for row in pairs]
    dims = ("method", "other")
    return {
        "agreement": variable(dims, agreement, "correlation", "Spearman's correlation of scores, mean over prompts"),
        "overlap": variable(dims, overlap, "fraction", f"shared players among the top {top:.0%}, mean over prompts"),
    }


def _cost_variables(runs: Sequence[_MethodRun]) -> dict[str, xr.DataArray]:
    n = len(runs[0].inputs)
    tallies = [run.inputs.tally for run in runs]
    columns = {
        "forward_passes": ([tally.forward / n for tally in tallies], "passes", "forward passes per prompt"),
        "forward_passes_worked": ([tally.worked / n for tally in tallies], "passes", "passes run, after savings"),
        "backward_passes": ([tally.backward / n for tally in tallies], "passes", "backward passes per prompt"),
        "seconds": ([run.seconds for run in runs], "s", "seconds, all prompts"),
        "gap": ([_mean_gap(run) for run in runs], "fraction", "share of the change that scores miss, mean"),
    }
    return {name: variable(("method",), *column) for name, column in columns.items()}


def _mean_gap(run: _MethodRun) -> float:
    gap, change = completeness_gap(run.inputs, run.scores)
    return float((gap.abs() / change.abs().clamp(min=_MIN_CHANGE)).mean())


def _token_variables(inputs: AttributionInput, runs: Sequence[_MethodRun]) -> dict[str, xr.DataArray]:
    tokens = torch.stack([attributed_tokens(run.inputs, run.scores) for run in runs]).numpy()
    dims = ("method", "prompt", "pos")
    return {
        "attribution": variable(dims, tokens, "each method's own", "score of each token"),
        "token": token_texts(inputs.model.text, inputs.batch.clean, inputs.batch.lengths),
    }


def _auroc_variables(runs: Sequence[_MethodRun], matters: Bool[np.ndarray, "prompt player"]) -> dict[str, xr.DataArray]:
    """AUROC of the scores' magnitudes for the players that matter, within each prompt; NaN without both kinds."""
    rows = []
    for run in runs:
        row = []
        for truth, scores in zip(matters, run.by_player, strict=True):
            exists = ~np.isnan(scores)
            both_kinds = 0 < truth[exists].sum() < exists.sum()
            row.append(roc_auc_score(truth[exists], np.abs(scores[exists])) if both_kinds else np.nan)
        rows.append(row)
    meaning = "AUROC of the scores' magnitudes against the tokens known to matter"
    return bounded("auroc", ("method",), np.array(rows).T, units="probability", meaning=meaning)


def _caveats(runs: Mapping[str, _MethodRun], data: Mapping[str, xr.DataArray]) -> list[str]:
    """The caveats of each method's scores."""
    notes = [f"{label}: {note}" for label, run in runs.items() for note in run.scores.notes]
    for index, (label, run) in enumerate(runs.items()):
        gap = float(data["gap"][index])
        if run.scores.complete and gap > _MAX_GAP:
            failure = "has not converged" if label.startswith("integrated") else "does not add up"
            notes.append(f"{label} {failure}: its scores miss or exceed {gap:.0%} of the change")
        if float(data["comprehensiveness_gain_low"][index]) <= 0:
            notes.append(f"{label} is no more faithful than random rankings (comprehensiveness)")
    return notes
