"""What residual streams say when they are read as if they were the last: some places at a time, all layers of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechxai.engine.progress import ProgressBar
from mechxai.methods.lens._lib.logit_rows import dots, exponentials
from mechxai.model.dense.buffers import Buffers
from mechxai.model.hooked_model import HookedModel
from mechxai.model.readout import as_float, read_out

Translate = Callable[[int, Tensor], Tensor]  # layer, residual streams -> what is read in their place
_LOGIT_BYTES = {"cpu": 2**26, "cuda": 2**28}  # of one layer's logits at a time
_MOST_PLACES = 2048
_BLOCK = 128  # tokens whose highest logit is looked at first


@dataclass(frozen=True)
class StreamReading:
    """What was read, layer by layer, at some places.

    Attributes:
        target_logprob: log-probability of each place's target, ``[layer, place]``, in nats; NaN without a target.
        target_rank: how many tokens are more probable than the target; 0 is the top.
        entropy: of the distribution, in nats.
        kl_to_final: ``KL(last layer || this layer)``, in nats.
        top_token: the most probable tokens, ``[layer, place, k]``.
        top_logprob: their log-probabilities.
        chosen_logprob: of the tokens chosen at each place, ``[layer, place, choice]``.
    """

    target_logprob: Float[Tensor, "layer place"]
    target_rank: Float[Tensor, "layer place"]
    entropy: Float[Tensor, "layer place"]
    kl_to_final: Float[Tensor, "layer place"]
    top_token: Int[Tensor, "layer place k"]
    top_logprob: Float[Tensor, "layer place k"]
    chosen_logprob: Float[Tensor, "layer place choice"]


def reading(
    model: HookedModel,
    streams: Sequence[Float[Tensor, "place d_model"]],
    asked: Int[Tensor, "place asked"],
    *,
    k: int,
    translate: Translate | None = None,
    progress: bool = False,
) -> StreamReading:
    """Reads every layer at every place.

    Args:
        model: whose readout is used.
        streams: residual streams by layer; the last is what the model's own output comes from and is not translated.
        asked: the tokens asked about at each place, -1 for none: the target, then those whose log-probabilities are
            wanted as well.
        k: top tokens to keep.
        translate: what a trained lens puts between stream and readout.
        progress: show a bar.

    Returns:
        On the CPU, in float64 (tokens in int64).

    Cost: one unembedding per layer and place, no forward pass; the logits of one layer at a few places are held.
    """
    reader, size = _Reader(model, k), _places_at_once(model)
    parts: list[StreamReading] = []
    with ProgressBar("lens", len(asked), shown=progress, unit="positions") as bar, torch.no_grad():
        for first in range(0, len(asked), size):
            places = slice(first, first + size)
            parts.append(reader.read([one[places] for one in streams], asked[places], translate))
            bar.advance(len(asked[places]))
    return StreamReading(
        **{part.name: torch.cat([getattr(one, part.name) for one in parts], 1) for part in fields(StreamReading)}
    )


def _places_at_once(model: HookedModel) -> int:
    fitting = _LOGIT_BYTES.get(model.device.type, 2**28) // (4 * model.architecture.d_vocab)
    return max(8, min(fitting, _MOST_PLACES))


class _Reader:
    """Reads some places at a time, in memory that is used again."""

    def __init__(self, model: HookedModel, k: int) -> None:
        self.model, self.k = model, k
        self.rooms = Buffers()

    def read(self, streams: Sequence[Tensor], asked: Tensor, translate: Translate | None) -> StreamReading:
        """All layers of some places; ``asked`` are the target and the tokens chosen, ``[place, 1 + choice]``."""
        logits = self._logits(streams[-1])
        final = self._final(logits)
        of_last = self._statistics(logits, final, asked)
        rows = [
            self._statistics(self._logits(stream if translate is None else translate(layer, stream)), final, asked)
            for layer, stream in enumerate(streams[:-1])
        ]
        rows.append(of_last)
        columns = zip(*rows, strict=True)
        return StreamReading(*(torch.stack(column).cpu() for column in columns))

    def _logits(self, stream: Tensor) -> Tensor:
        """In float32 or better; they are overwritten by the next."""
        W_U, _ = self.model.backend.unembedding()
        room = self.rooms("logits", stream.to(W_U.dtype), W_U.shape[1])
        return as_float(read_out(self.model, stream, into=room))

    def _final(self, logits: Tensor) -> "_Final":
        probabilities = self.rooms("final", logits, logits.shape[1])
        log_total, total = exponentials(logits, probabilities, logits.amax(-1, keepdim=True))
        entropy = log_total - dots(probabilities, logits) / total
        probabilities /= total[:, None]
        return _Final(probabilities, entropy)

    def _statistics(self, logits: Tensor, final: "_Final", asked: Tensor) -> tuple[Tensor, ...]:
        """The columns of a `StreamReading` for one layer."""
        top, places = _top(logits, self.k)
        weights = self.rooms("weights", logits, logits.shape[1])
        log_total, total = exponentials(logits, weights, top[:, :1])
        entropy = log_total - dots(weights, logits) / total
        # sum p_final (log p_final - log p); p_final sums to 1
        divergence = log_total - final.entropy - dots(final.probabilities, logits)
        known = asked >= 0
        wanted = logits.gather(1, asked.clamp(min=0))
        rank = torch.gt(logits, wanted[:, :1], out=weights).sum(-1)  # as floats, which are summed many times as fast
        logprobs = torch.where(known, wanted - log_total[:, None], torch.nan).double()
        return (
            logprobs[:, 0],
            torch.where(known[:, 0], rank.to(log_total), torch.nan).double(),
            entropy.double(),
            divergence.clamp(min=0).double(),
            places,
            (top - log_total[:, None]).double(),
            logprobs[:, 1:],
        )


@dataclass(frozen=True)
class _Final:
    """The last layer's distribution: ``[place, d_vocab]``, and its entropy, ``[place]``."""

    probabilities: Tensor
    entropy: Tensor


def _top(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` highest of each row and where they are, looked for only in the blocks whose own highest are highest."""
    n_blocks = logits.shape[1] // _BLOCK
    if n_blocks <= k:
        top = logits.topk(k, -1)
        return top.values, top.indices
    blocks = logits[:, : n_blocks * _BLOCK].unflatten(1, (n_blocks, _BLOCK))
    chosen = blocks.amax(-1).topk(k, -1).indices  # [row, k]: no other block can hold one of the k highest
    inside = blocks.gather(1, chosen[:, :, None].expand(-1, -1, _BLOCK)).flatten(1)
    numbers = (chosen[:, :, None] * _BLOCK + torch.arange(_BLOCK, device=logits.device)).flatten(1)
    tail = torch.arange(n_blocks * _BLOCK, logits.shape[1], device=logits.device).expand(len(logits), -1)
    top = torch.cat([inside, logits[:, n_blocks * _BLOCK :]], 1).topk(k, -1)
    return top.values, torch.cat([numbers, tail], 1).gather(1, top.indices)
