"""`TokenScores`, and the result that every attribution method makes of them."""

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

_MAX_GAP = 0.05  # completeness gap, as a share of the change from the baseline, above which a note is added
_MIN_CHANGE = 1e-3


@dataclass(frozen=True)
class TokenScores:
    """The scores of an attribution method.

    Attributes:
        tokens: ``[prompt, pos]``, float64; NaN where nothing is attributed.
        complete: whether the scores should add up to the target's score less the baseline's.
        variables: further variables of the result.
        notes: caveats for the reader.
        units: of the scores; those of the metric by default.
    """

    tokens: Float[Tensor, "prompt pos"]
    complete: bool = False
    variables: Mapping[str, xr.DataArray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    units: str = ""


def pad_rows(rows: Sequence[Float[Tensor, " _"]], width: int) -> Float[Tensor, "prompt width"]:
    """Rows of different lengths as one tensor, padded with NaN."""
    return torch.stack([torch.nn.functional.pad(row.double(), (0, width - len(row)), value=torch.nan) for row in rows])


def spread_over_tokens(inputs: AttributionInput, values: Float[Tensor, "prompt player"]) -> Float[Tensor, "prompt pos"]:
    """Players' scores spread evenly over their tokens, so that sums stay the same."""
    of_token = inputs.players.of_token
    player_values = values.double().cpu().gather(1, of_token.clamp(min=0))
    n_tokens = (of_token[:, :, None] == of_token[:, None, :]).sum(-1)
    return torch.where(of_token >= 0, player_values / n_tokens, torch.nan)


def player_scores(inputs: AttributionInput, tokens: Float[Tensor, "prompt pos"]) -> Float[np.ndarray, "prompt player"]:
    """Tokens' scores summed by player; NaN behind the last player of a prompt."""
    of_token, most = inputs.players.of_token, inputs.players.most
    total = torch.zeros(len(inputs), most + 1, dtype=torch.float64)
    total.scatter_add_(1, torch.where(of_token >= 0, of_token, most), tokens.double().cpu().nan_to_num())
    missing = torch.arange(most)[None] >= torch.tensor(inputs.players.counts)[:, None]
    return total[:, :most].masked_fill(missing, torch.nan).numpy()


def attributed_tokens(inputs: AttributionInput, scores: TokenScores) -> Float[Tensor, "prompt pos"]:
    """The scores, with NaN for tokens that have no player."""
    return torch.where(inputs.players.of_token >= 0, scores.tokens.double().cpu(), torch.nan)


def completeness_gap(
    inputs: AttributionInput, scores: TokenScores
) -> tuple[Float[Tensor, " prompt"], Float[Tensor, " prompt"]]:
    """The completeness gap of each prompt, and the change of its score from the baseline.

    Returns:
        The sum of the scores less the change (NaN for methods that do not claim completeness); the change.
    """
    change = inputs.target_score - inputs.baseline_score
    total = attributed_tokens(inputs, scores).nansum(1)
    return (total - change if scores.complete else torch.full_like(change, torch.nan)), change


def attribution_result(
    method: Method, model: Any, batch: ContrastBatch, *, inputs: AttributionInput, scores: TokenScores, seconds: float
) -> Result:
    """The result of an attribution method.

    Returns:
        ``value`` [prompt, pos] signed scores, NaN for tokens without a player; ``player_value`` [prompt, player] the
        same by player; ``player_index`` [prompt, pos] the number of each token's player; ``player_name``
        [prompt, player], ``token`` [prompt, pos] and ``target`` [prompt] as text; ``target_score``, ``baseline_score``
        [prompt]; ``delta`` [prompt], the sum of the scores less the difference of the two (NaN for methods that do not
        claim completeness).
    """
    tokens = attributed_tokens(inputs, scores)
    unit, metric = inputs.metric.unit, inputs.metric.name
    gap, change = completeness_gap(inputs, scores)
    per_token, per_player, per_prompt = ("prompt", "pos"), ("prompt", "player"), ("prompt",)
    units = scores.units or unit
    names = [[*row, *[""] * (inputs.players.most - len(row))] for row in inputs.players.names]
    by_player = player_scores(inputs, scores.tokens)
    target, baseline = inputs.target_score.numpy(), inputs.baseline_score.numpy()
    target_text = np.array(target_texts(inputs), dtype=str)
    data = {
        "value": variable(per_token, tokens.numpy(), units, f"share of each token in {metric}"),
        "player_value": variable(per_player, by_player, units, "scores summed by player: token, word or span"),
        "player_index": variable(
            per_token, inputs.players.of_token.numpy(), "number", "player of each token; -1 for none"
        ),
        "player_name": variable(per_player, np.array(names, dtype=str), "text", "the players"),
        "token": token_texts(inputs.model.text, inputs.batch.clean, inputs.batch.lengths),
        "target": variable(per_prompt, target_text, "text", "what is scored"),
        "target_score": variable(per_prompt, target, unit, f"{metric} of the prompt"),
        "baseline_score": variable(per_prompt, baseline, unit, f"{metric} with every player deleted"),
        "delta": variable(
            per_prompt, gap.numpy(), unit, "sum of the scores, less the target's score less the baseline's"
        ),
        **scores.variables,
    }
    tally = inputs.tally
    cost = {
        "forward_passes": tally.forward / len(inputs),
        "forward_passes_worked": tally.worked / len(inputs),
        "backward_passes": tally.backward / len(inputs),
        "seconds": seconds,
    }
    coords = {"prompt": list(range(len(inputs))), "pos": position_labels(batch, list(range(batch.n_pos)))}
    notes = (*scores.notes, *_gap_notes(gap, change))
    return Result(xr.Dataset(data, coords=coords), run_info(method, model, batch, cost=cost, notes=notes))


def _gap_notes(gap: Tensor, change: Tensor) -> tuple[str, ...]:
    """A note if the scores of some prompts do not add up."""
    size = change.abs().clamp(min=_MIN_CHANGE)
    incomplete = gap.abs() > _MAX_GAP * size
    if not bool(incomplete.any()):
        return ()
    worst = float((gap.abs() / size).nan_to_num().max())
    return (
        f"scores do not add up on {int(incomplete.sum())} of {len(gap)} prompts: they miss or exceed the change from "
        f"the baseline by up to {worst:.0%} (delta)",
    )


def target_texts(inputs: AttributionInput) -> list[str]:
    """The scored answer of each prompt, and the wrong answer where the metric reads it."""
    batch, model = inputs.batch, inputs.model
    contrast = inputs.metric.name.endswith("_diff")

    def text(alternatives: list[list[int]]) -> str:
        answers = [model.answer_text([token for token in ids if token >= 0]) for ids in alternatives if ids[0] >= 0]
        return "|".join(answer.strip() for answer in answers[:3]) + ("|…" if len(answers) > 3 else "")

    return [
        f"{text(right)} − {text(wrong)}" if contrast else text(right)  # noqa: RUF001 - a minus sign
        for right, wrong in zip(batch.answers.tolist(), batch.wrong.tolist(), strict=True)
    ]
