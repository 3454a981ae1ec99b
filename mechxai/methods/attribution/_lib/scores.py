"""Every attribution in one form: signed scores of tokens, their players, the scores they add up to, and the gap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.method import Method
from mechxai.core.result import Result, variable
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.methods.result_parts import position_labels, run_info, token_texts

_GAP = 0.05  # share of the score's change by baseline that may be missing before a note says so
_TINY = 1e-3


@dataclass(frozen=True)
class Scores:
    """What a method found.

    Attributes:
        tokens: ``[prompt, pos]``, float64; NaN where nothing is attributed.
        complete: whether the scores should add up to the target's score less the baseline's.
        more: further variables of the result.
        notes: what a reader must know.
        units: of the scores; those of the metric by default.
    """

    tokens: Float[Tensor, "prompt pos"]
    complete: bool = False
    more: Mapping[str, xr.DataArray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    units: str = ""


def together(rows: Sequence[Float[Tensor, " _"]], width: int) -> Float[Tensor, "prompt width"]:
    """Rows of different length as one tensor, NaN behind each."""
    return torch.stack([torch.nn.functional.pad(row.double(), (0, width - len(row)), value=torch.nan) for row in rows])


def of_players(problem: AttributionInput, values: Float[Tensor, "prompt player"]) -> Float[Tensor, "prompt pos"]:
    """Players' scores shared out evenly over their tokens, so that they still add up."""
    of_token = problem.players.of_token
    own = values.double().cpu().gather(1, of_token.clamp(min=0))
    sizes = (of_token[:, :, None] == of_token[:, None, :]).sum(-1)
    return torch.where(of_token >= 0, own / sizes, torch.nan)


def by_player(problem: AttributionInput, tokens: Float[Tensor, "prompt pos"]) -> Float[Tensor, "prompt player"]:
    """Tokens' scores added up by player; NaN behind the last player of a prompt."""
    of_token, most = problem.players.of_token, problem.players.most
    total = torch.zeros(len(problem), most + 1, dtype=torch.float64)
    total.scatter_add_(1, torch.where(of_token >= 0, of_token, most), tokens.double().cpu().nan_to_num())
    missing = torch.arange(most)[None] >= torch.tensor(problem.players.counts)[:, None]
    return total[:, :most].masked_fill(missing, torch.nan)


def attributed(problem: AttributionInput, scores: Scores) -> Float[Tensor, "prompt pos"]:
    """The scores, NaN for tokens that always stay."""
    return torch.where(problem.players.of_token >= 0, scores.tokens.double().cpu(), torch.nan)


def gap_of(problem: AttributionInput, scores: Scores) -> tuple[Float[Tensor, " prompt"], Float[Tensor, " prompt"]]:
    """The sum of the scores less the change of the score by the baseline (NaN where none is claimed); the change."""
    change = problem.target_score - problem.baseline_score
    own = attributed(problem, scores).nansum(1)
    return (own - change if scores.complete else torch.full_like(change, torch.nan)), change


def attribution_result(
    method: Method, model: Any, batch: ContrastBatch, *, problem: AttributionInput, scores: Scores, seconds: float
) -> Result:
    """The result of a method of attribution.

    Returns:
        ``value`` [prompt, pos] signed scores, NaN for tokens that always stay; ``player_value`` [prompt, player] the
        same by player; ``player_index`` [prompt, pos] the number of each token's; ``token`` [prompt, pos] and
        ``target`` [prompt] as text; ``target_score``, ``baseline_score`` [prompt]; ``delta`` [prompt], the sum of the
        scores less the difference of the two (NaN for methods that do not claim to add up).
    """
    tokens = attributed(problem, scores)
    whole = problem.metric.unit
    target, away = problem.target_score, problem.baseline_score
    gap, change = gap_of(problem, scores)
    per_token, per_prompt = ("prompt", "pos"), ("prompt",)
    units = scores.units or whole
    names = [[*row, *[""] * (problem.players.most - len(row))] for row in problem.players.names]
    data = {
        "value": variable(per_token, tokens.numpy(), units, f"share of each token in {problem.metric.name}"),
        "player_value": variable(
            ("prompt", "player"), by_player(problem, tokens).numpy(), units, "the same by player: token, word or span"
        ),
        "player_index": variable(
            per_token, problem.players.of_token.numpy(), "number", "player of each token; -1 for none"
        ),
        "player_name": variable(("prompt", "player"), np.array(names, dtype=str), "text", "the players"),
        "token": token_texts(problem.subject.text, problem.batch.clean, problem.batch.lengths),
        "target": variable(per_prompt, np.array(target_texts(problem), dtype=str), "text", "what is scored"),
        "target_score": variable(per_prompt, target.numpy(), whole, f"{problem.metric.name} of the prompt"),
        "baseline_score": variable(
            per_prompt, away.numpy(), whole, f"{problem.metric.name} with every player taken away"
        ),
        "delta": variable(
            per_prompt, gap.numpy(), whole, "sum of the scores, less the target's score less the baseline's"
        ),
        **scores.more,
    }
    tally = problem.tally
    cost = {
        "forward_passes": tally.forward / len(problem),
        "forward_passes_worked": tally.worked / len(problem),
        "backward_passes": tally.backward / len(problem),
        "seconds": seconds,
    }
    coords = {"prompt": list(range(len(problem))), "pos": position_labels(batch, list(range(batch.n_pos)))}
    notes = (*scores.notes, *_gap_notes(gap, change))
    return Result(xr.Dataset(data, coords=coords), run_info(method, model, batch, cost=cost, notes=notes))


def _gap_notes(gap: Tensor, change: Tensor) -> tuple[str, ...]:
    open_ = gap.abs() > _GAP * change.abs().clamp(min=_TINY)
    if not bool(open_.any()):
        return ()
    worst = float((gap.abs() / change.abs().clamp(min=_TINY)).nan_to_num().max())
    return (
        f"scores do not add up on {int(open_.sum())} of {len(gap)} prompts: up to {worst:.0%} of the change from the "
        "baseline is missing or too much (delta)",
    )


def target_texts(problem: AttributionInput) -> list[str]:
    """What is scored of each prompt: the answer, and the wrong answer where the metric reads it."""
    batch, subject = problem.batch, problem.subject
    contrast = problem.metric.name.endswith("_diff")

    def text(alternatives: list[list[int]]) -> str:
        shown = [subject.answer_text([t for t in one if t >= 0]) for one in alternatives if one[0] >= 0]
        return "|".join(one.strip() for one in shown[:3]) + ("|…" if len(shown) > 3 else "")

    return [
        f"{text(right)} − {text(wrong)}" if contrast else text(right)  # noqa: RUF001 - a minus sign
        for right, wrong in zip(batch.answers.tolist(), batch.wrong.tolist(), strict=True)
    ]
