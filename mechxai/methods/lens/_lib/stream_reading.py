"""Next-token statistics of residual streams read through the final norm and the unembedding, layer by layer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechxai.engine.checkpoint import TENSORS
from mechxai.engine.finished import FinishedPieces
from mechxai.engine.progress import ProgressBar
from mechxai.methods.lens._lib.logit_rows import dots, exponentials
from mechxai.model.dense.buffers import Buffers
from mechxai.model.hooked_model import HookedModel
from mechxai.model.readout import as_float, read_out

Translate = Callable[[int, Tensor], Tensor]  # layer, residual streams -> translated streams
_LOGIT_BYTES = {"cpu": 2**26, "cuda": 2**28}  # size of the logits held at a time
_MAX_PLACES = 2048
_BLOCK = 128  # tokens per block in the top-k search


@dataclass(frozen=True)
class StreamReading:
    """Statistics of every layer's next-token distribution at a number of places (prompt positions).

    Attributes:
        target_logprob: log-probability of each place's target, ``[layer, place]``, in nats; NaN without a target.
        target_rank: number of tokens more probable than the target, ``[layer, place]``; 0 is the top.
        entropy: entropy of the distribution, ``[layer, place]``, in nats.
        kl_to_final: ``KL(last layer || this layer)``, ``[layer, place]``, in nats.
        top_token: the most probable tokens, ``[layer, place, k]``.
        top_logprob: their log-probabilities, ``[layer, place, k]``, in nats.
        chosen_logprob: log-probabilities of the chosen tokens, ``[layer, place, choice]``, in nats.
    """

    target_logprob: Float[Tensor, "layer place"]
    target_rank: Float[Tensor, "layer place"]
    entropy: Float[Tensor, "layer place"]
    kl_to_final: Float[Tensor, "layer place"]
    top_token: Int[Tensor, "layer place k"]
    top_logprob: Float[Tensor, "layer place k"]
    chosen_logprob: Float[Tensor, "layer place choice"]


def reading(  # noqa: PLR0913 - the streams, what to read there, and how
    model: HookedModel,
    streams: Sequence[Float[Tensor, "place d_model"]],
    targets: Int[Tensor, "place target"],
    *,
    k: int,
    translate: Translate | None = None,
    progress: bool = False,
    finished: FinishedPieces[Mapping[str, Tensor]] = FinishedPieces(None, serializer=TENSORS),  # noqa: B008 - saves nothing
) -> StreamReading:
    """Reads every layer at every place.

    Args:
        model: the model whose final norm and unembedding are used.
        streams: residual streams by layer; the last gives the model's output and is not translated.
        targets: tokens at each place, -1 for none: the target first, then the chosen tokens.
        k: number of top tokens.
        translate: a trained lens, applied to each stream before the readout.
        progress: show a progress bar.
        finished: the statistics of earlier places, also of an interrupted run.

    Returns:
        The statistics on the CPU, in float64 (tokens in int64).

    Cost: one unembedding per layer and place, no forward pass; the logits of one layer at a few places are held.
    """
    reader, size = _Reader(model, k), _places_at_once(model)
    parts: list[Mapping[str, Tensor]] = []
    with (
        finished,
        ProgressBar("lens", len(targets), shown=progress, unit="positions") as bar,
        torch.no_grad(),
    ):
        for first in range(0, len(targets), size):
            places = slice(first, first + size)
            read = partial(reader.read, [stream[places] for stream in streams], targets[places], translate)
            parts.append(finished.take(f"{first} {size}", lambda read=read: vars(read())))
            bar.advance(len(targets[places]))
    names = [column.name for column in fields(StreamReading)]
    return StreamReading(**{name: torch.cat([part[name] for part in parts], 1) for name in names})


def _places_at_once(model: HookedModel) -> int:
    n_fitting = _LOGIT_BYTES.get(model.device.type, 2**28) // (4 * model.architecture.d_vocab)
    return max(8, min(n_fitting, _MAX_PLACES))


class _Reader:
    """Reads a few places at a time, with reused memory."""

    def __init__(self, model: HookedModel, k: int) -> None:
        self.model, self.k = model, k
        self.buffers = Buffers()

    def read(self, streams: Sequence[Tensor], targets: Tensor, translate: Translate | None) -> StreamReading:
        """Reads all layers at a few places; ``targets`` holds target and chosen tokens, ``[place, 1 + choice]``."""
        logits = self._logits(streams[-1])
        final = self._final(logits)
        last_row = self._statistics(logits, final, targets)
        rows = [
            self._statistics(self._logits(stream if translate is None else translate(layer, stream)), final, targets)
            for layer, stream in enumerate(streams[:-1])
        ]
        rows.append(last_row)
        columns = zip(*rows, strict=True)
        return StreamReading(*(torch.stack(column).cpu() for column in columns))

    def _logits(self, stream: Tensor) -> Tensor:
        """The logits of a stream in float32 or better; the next call overwrites them."""
        W_U, _ = self.model.backend.unembedding()
        memory = self.buffers("logits", stream.to(W_U.dtype), W_U.shape[1])
        return as_float(read_out(self.model, stream, into=memory))

    def _final(self, logits: Tensor) -> "_Final":
        probabilities = self.buffers("final", logits, logits.shape[1])
        log_total, total = exponentials(logits, probabilities, logits.amax(-1, keepdim=True))
        entropy = log_total - dots(probabilities, logits) / total
        probabilities /= total[:, None]
        return _Final(probabilities, entropy)

    def _statistics(self, logits: Tensor, final: "_Final", targets: Tensor) -> tuple[Tensor, ...]:
        """The columns of a `StreamReading` for one layer."""
        top, places = _top(logits, self.k)
        weights = self.buffers("weights", logits, logits.shape[1])
        log_total, total = exponentials(logits, weights, top[:, :1])
        entropy = log_total - dots(weights, logits) / total
        # sum p_final (log p_final - log p); p_final sums to 1
        divergence = log_total - final.entropy - dots(final.probabilities, logits)
        has_target = targets >= 0
        target_logits = logits.gather(1, targets.clamp(min=0))
        rank = torch.gt(logits, target_logits[:, :1], out=weights).sum(-1)  # floats sum many times faster than bools
        logprobs = torch.where(has_target, target_logits - log_total[:, None], torch.nan).double()
        return (
            logprobs[:, 0],
            torch.where(has_target[:, 0], rank.to(log_total), torch.nan).double(),
            entropy.double(),
            divergence.clamp(min=0).double(),
            places,
            (top - log_total[:, None]).double(),
            logprobs[:, 1:],
        )


@dataclass(frozen=True)
class _Final:
    """The last layer's distribution, ``[place, d_vocab]``, and its entropy, ``[place]``."""

    probabilities: Tensor
    entropy: Tensor


def _top(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` highest logits of each row and their tokens, searched in the ``k`` blocks with the highest maxima."""
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
