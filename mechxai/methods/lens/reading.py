"""What residual streams say when they are read as if they were the last: some places at a time, all layers of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechxai.engine.progress import Bar
from mechxai.model.hooked_model import HookedModel
from mechxai.model.readout import read_out

Translate = Callable[[int, Tensor], Tensor]  # layer, residual streams -> what is read in their place
_LOGIT_BYTES = {"cpu": 2**24, "cuda": 2**28}  # of one layer's logits at a time; on a CPU they stay in its cache


@dataclass(frozen=True)
class Reading:
    """What was read, layer by layer, at some places.

    Attributes:
        target_logprob: log-probability of each place's target, ``[layer, place]``, in nats; NaN without a target.
        target_rank: how many tokens are more probable than the target; 0 is the top.
        entropy: of the distribution, in nats.
        kl_to_final: ``KL(last layer || this layer)``, in nats.
        top_token: the most probable tokens, ``[layer, place, k]``.
        top_logprob: their log-probabilities.
    """

    target_logprob: Float[Tensor, "layer place"]
    target_rank: Float[Tensor, "layer place"]
    entropy: Float[Tensor, "layer place"]
    kl_to_final: Float[Tensor, "layer place"]
    top_token: Int[Tensor, "layer place k"]
    top_logprob: Float[Tensor, "layer place k"]


def reading(
    model: HookedModel,
    streams: Sequence[Float[Tensor, "place d_model"]],
    targets: Int[Tensor, " place"],
    *,
    k: int,
    translate: Translate | None = None,
    progress: bool = False,
) -> Reading:
    """Reads every layer at every place.

    Args:
        model: whose readout is used.
        streams: residual streams by layer; the last is what the model's own output comes from and is not translated.
        targets: the token asked about at each place; -1 for none.
        k: top tokens to keep.
        translate: what a trained lens puts between stream and readout.
        progress: show a bar.

    Returns:
        On the CPU, in float64 (tokens in int64).

    Cost: one unembedding per layer and place, no forward pass; the logits of one layer at a few places are held.
    """
    n_places, size = len(targets), _places_at_once(model)
    parts: list[Reading] = []
    with Bar("lens", n_places, shown=progress) as bar, torch.no_grad():
        for first in range(0, n_places, size):
            places = slice(first, first + size)
            parts.append(_part(model, [one[places] for one in streams], targets[places], k=k, translate=translate))
            bar.advance(len(targets[places]))
    return Reading(**{part.name: torch.cat([getattr(one, part.name) for one in parts], 1) for part in fields(Reading)})


def _places_at_once(model: HookedModel) -> int:
    bytes_each = 4 * model.architecture.d_vocab
    return max(8, _LOGIT_BYTES.get(model.device.type, 2**28) // bytes_each)


def _part(
    model: HookedModel, streams: Sequence[Tensor], targets: Tensor, *, k: int, translate: Translate | None
) -> Reading:
    last = len(streams) - 1
    final = _probabilities(read_out(model, streams[last]))
    rows = []
    for layer, stream in enumerate(streams):
        read = stream if translate is None or layer == last else translate(layer, stream)
        logits = final.logits if layer == last else _scored(read_out(model, read))
        rows.append(_statistics(logits, final, targets, k=k))
    columns = zip(*rows, strict=True)
    return Reading(*(torch.stack(column).cpu() for column in columns))


@dataclass(frozen=True)
class _Final:
    """The last layer's distribution.

    Attributes:
        logits: ``[place, d_vocab]``.
        probabilities: likewise.
        entropy: ``[place]``.
    """

    logits: Tensor
    probabilities: Tensor
    entropy: Tensor


def _probabilities(logits: Tensor) -> _Final:
    logits = _scored(logits)
    logprobs = logits.log_softmax(-1)
    probabilities = logprobs.exp()
    return _Final(logits, probabilities, -torch.linalg.vecdot(probabilities, logprobs))


def _scored(logits: Tensor) -> Tensor:
    """Half precision is scored in float32."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def _statistics(logits: Tensor, final: _Final, targets: Tensor, *, k: int) -> tuple[Tensor, ...]:
    """The six columns of a `Reading` for one layer."""
    highest = logits.amax(-1, keepdim=True)
    weights = (logits - highest).exp_()
    total = weights.sum(-1)
    log_total = highest[:, 0] + total.log()  # log of the sum of exp(logits)
    entropy = log_total - torch.linalg.vecdot(weights, logits) / total
    # sum p_final (log p_final - log p); p_final sums to 1
    divergence = log_total - final.entropy - torch.linalg.vecdot(final.probabilities, logits)
    known = targets >= 0
    wanted = logits.gather(1, targets.clamp(min=0)[:, None])
    rank = (logits > wanted).sum(-1)
    missing = torch.full_like(log_total, torch.nan)
    top = logits.topk(k, -1)
    return (
        torch.where(known, wanted[:, 0] - log_total, missing).double(),
        torch.where(known, rank.to(missing), missing).double(),
        entropy.double(),
        divergence.clamp(min=0).double(),
        top.indices,
        (top.values - log_total[:, None]).double(),
    )
