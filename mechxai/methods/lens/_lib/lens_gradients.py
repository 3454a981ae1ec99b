"""Gradients of tuned lenses for forward KL to the model's output, for every layer from one pass over the tokens.

The gradient of the KL divergence with respect to the logits is ``q - p``. So logits of a few places are computed once,
turned into their gradient in place and multiplied by the transposed unembedding; autograd differentiates the norm.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mechxai.core.errors import ConfigError
from mechxai.core.site import Site
from mechxai.methods.lens._lib.logit_rows import dots, exponentials
from mechxai.methods.lens._lib.training_settings import LensLoss
from mechxai.model.dense.buffers import Buffers
from mechxai.model.hooked_model import HookedModel
from mechxai.model.output_map import output_map
from mechxai.model.readout import as_float, normed, products

_TOKENS_AT_ONCE = {"cpu": 1024}  # tokens per forward pass; more on other devices
_PLACES = {"cpu": 256}  # places per unembedding, one layer at a time


@dataclass(frozen=True)
class LensGradients:
    """Accumulates gradients in ``A.grad`` and ``b.grad``.

    Attributes:
        model: the model.
        loss: ``kl`` or ``ce``.
        A: translators, ``[layer, d_model, d_model]``.
        b: biases, ``[layer, d_model]``.
        buffers: reused memory for logits.
    """

    model: HookedModel
    loss: LensLoss
    A: Tensor
    b: Tensor
    buffers: Buffers = field(default_factory=Buffers)

    def of_step(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The mean loss of every layer over the sequences, ``[layer]``; replaces the stored gradients."""
        for parameter in (self.A, self.b):
            parameter.grad = torch.zeros_like(parameter)
        device = self.model.device
        losses = torch.zeros(len(self.b), dtype=torch.float64)
        n_places = int((lengths - int(self.loss == "ce")).clamp(min=0).sum())
        at_once = max(1, _TOKENS_AT_ONCE.get(device.type, 16_384) // tokens.shape[1])
        for first in range(0, len(tokens), at_once):
            rows = slice(first, first + at_once)
            losses += self._gradients(tokens[rows].to(device), lengths[rows].to(device), n_places)
        return losses / max(1, n_places)

    def _gradients(self, tokens: Tensor, lengths: Tensor, n_places: int) -> Tensor:
        """Adds the gradients of a few sequences and returns their summed loss by layer."""
        model, n_layers = self.model, len(self.b)
        sites = [*(Site("resid_pre", layer) for layer in range(n_layers)), Site("resid_post", n_layers - 1)]
        acts = model.cache(tokens, sites, lengths=lengths)
        last = lengths - 1 if self.loss == "ce" else lengths
        real = torch.arange(tokens.shape[1], device=tokens.device)[None] < last[:, None]
        targets = tokens.roll(-1, 1)[real] if self.loss == "ce" else None
        streams = [acts[site][real] for site in sites]
        losses = torch.zeros(n_layers, dtype=torch.float64)
        size = _PLACES.get(tokens.device.type, 2048)
        for first in range(0, len(streams[0]), size):
            places = slice(first, first + size)
            part = [stream[places] for stream in streams]
            losses += self._chunk(part, None if targets is None else targets[places], 1.0 / n_places)
        return losses

    def _chunk(self, streams: list[Tensor], targets: Tensor | None, weight: float) -> Tensor:
        """Adds the gradients of a few places, one layer's logits at a time; returns their summed loss by layer."""
        losses: list[Tensor] = []
        W_U, _ = self.model.backend.unembedding()
        scale = output_map(self.model.backend).scale
        final = self._final(normed(self.model, streams[-1])) if targets is None else None
        for layer, stream in enumerate(streams[:-1]):
            with torch.no_grad():
                moved = torch.addmm(stream, stream, self.A[layer].T.to(stream)) + self.b[layer].to(stream)
            with torch.enable_grad():
                moved.requires_grad_()
                read = normed(self.model, moved)
            with torch.no_grad():
                logits, slope = self._logits("logits", read.detach())
                losses.append(_kl(logits, final) if final is not None else _ce(logits, targets))
                if slope is not None:
                    logits *= slope
                backward = (logits.to(W_U.dtype) @ W_U.T).mul_(weight * scale)  # `logits` holds their gradient now
            (gradient,) = torch.autograd.grad(read, moved, backward.to(read.dtype))
            gradient = gradient.float()
            if self.A.grad is not None and self.b.grad is not None:
                self.A.grad[layer].addmm_(gradient.T, stream.float())
                self.b.grad[layer] += gradient.sum(0)
        return torch.stack(losses).double().cpu()

    def _logits(self, buffer: str, read: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits in float32, in a buffer that the caller may overwrite; with a soft-cap, also its slope there."""
        W_U, b_U = self.model.backend.unembedding()
        to_logits = output_map(self.model.backend)
        with torch.no_grad():
            if read.device.type == "cuda":
                with torch.autocast("cuda", torch.bfloat16):
                    logits = (read.to(W_U.dtype) @ W_U).float()
                logits = (logits if b_U is None else logits + b_U) * to_logits.scale
            else:
                memory = self.buffers(buffer, read.to(W_U.dtype), W_U.shape[1])
                logits = as_float(products(self.model, read, memory))
            cap = to_logits.softcap
            if not cap:
                return logits, None
            capped = torch.tanh(logits / cap)
            return cap * capped, 1 - capped.square()

    def _final(self, read: Tensor) -> "_ModelOutput":
        logits, _ = self._logits("final", read)
        with torch.no_grad():
            _softmax_(logits)
        # `logits` holds probabilities now; entr counts p log p as 0 for p = 0
        return _ModelOutput(logits, torch.special.entr(logits).sum(-1))


@dataclass(frozen=True)
class _ModelOutput:
    """The model's next-token distribution, ``[place, d_vocab]``, and its entropy, ``[place]``."""

    probabilities: Tensor
    entropy: Tensor


def _kl(logits: Tensor, final: _ModelOutput) -> Tensor:
    """Summed ``KL(final || softmax(logits))``; overwrites ``logits`` with its gradient."""
    mean_logit = dots(final.probabilities, logits)
    log_total = _softmax_(logits)
    logits -= final.probabilities
    return (log_total - mean_logit - final.entropy).sum()


def _ce(logits: Tensor, targets: Tensor | None) -> Tensor:
    """Summed cross-entropy; overwrites ``logits`` with its gradient."""
    if targets is None:
        raise ConfigError("loss='ce' needs target tokens")
    target_logits = logits.gather(1, targets[:, None])[:, 0]
    log_total = _softmax_(logits)
    logits.scatter_add_(1, targets[:, None], torch.full_like(target_logits, -1.0)[:, None])
    return (log_total - target_logits).sum()


def _softmax_(logits: Tensor) -> Tensor:
    """Overwrites logits with probabilities and returns the log of the sum of their exponentials."""
    log_total, total = exponentials(logits, logits, logits.amax(-1, keepdim=True))
    logits /= total[:, None]
    return log_total
