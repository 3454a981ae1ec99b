"""A loaded model against Hugging Face's own: log-probabilities on a few prompts, before and after conversion."""

import inspect
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.cached import cached_property
from mechxai.core.errors import ModelSupportError, NumericsError
from mechxai.model.backends.attach import attached, row_mask
from mechxai.model.backends.base import UNEMBED_HOOK, Backend
from mechxai.model.backends.hooks import gathered
from mechxai.model.conversion.probe_prompts import ProbePrompts
from mechxai.model.text import padded

_log = logging.getLogger("mechxai.model")
# of the largest logit of a position, from the position's mean. Correct conversions differ by up to 5e-6 in float32; the
# kinds of error that the comparison is for differ by over 1e-3. In half precision rounding alone makes up to 3e-2.
RELATIVE_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True)
class Attempt:
    """One backend with one weight processing.

    Attributes:
        backend: ``hooked_transformer`` or ``bridge``.
        processing: ``folded`` or ``raw``.
        difference: the largest difference from Hugging Face in log-probability; None where nothing was measured.
        prompt: the prompt with that difference; where nothing was measured, what TransformerLens does:
            "does not know this architecture".
    """

    backend: str
    processing: str
    difference: float | None
    prompt: str

    def __str__(self) -> str:
        """``bridge with folded weights differs by 5.3 on a prompt of 18 tokens``."""
        return f"{self.backend} with {self.processing} weights {self._finding}"

    @property
    def _finding(self) -> str:
        if self.difference is None:
            return self.prompt
        return f"differs by {self.difference:.2g} on {self.prompt}"


def listing(attempts: Sequence[Attempt]) -> str:
    """The attempts as one line; folded and raw weights with the same finding are one item."""
    found: dict[tuple[str, str], list[str]] = {}
    for attempt in attempts:
        found.setdefault((attempt.backend, attempt._finding), []).append(attempt.processing)
    items = [f"{name} with {' and '.join(kinds)} weights {finding}" for (name, finding), kinds in found.items()]
    return "; ".join(item.rstrip(".") for item in items)


@dataclass(frozen=True)
class Comparison:
    """How a loaded model compares with Hugging Face's own model.

    Attributes:
        difference: the largest difference in log-probability over all prompts, in nats.
        tolerance: the largest difference that is allowed, in nats; it grows with the size of the logits.
        dtype: of the compared weights. Half-precision models are compared in float32 and converted afterwards, where
            they are small enough.
        rounding: the largest difference in the model's own dtype, where it is another; else None.
        lengths: tokens of the compared prompts; the last two are also compared as one padded batch.
        longest: the longest prompt for which the comparison holds. Longer ones cross a window or a rotary threshold of
            the configuration and were too expensive to compare. None where there is no such length.
        rejected: backends and processings that were tried before, and why they were not taken.
    """

    difference: float
    tolerance: float
    dtype: str
    rounding: float | None
    lengths: tuple[int, ...]
    longest: int | None
    rejected: tuple[Attempt, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        plain = {name: getattr(self, name) for name in ("difference", "tolerance", "dtype", "rounding", "longest")}
        return plain | {"lengths": list(self.lengths), "rejected": [str(attempt) for attempt in self.rejected]}

    def __str__(self) -> str:
        """``equal to Hugging Face``, with the length up to which they were compared, if that is not any."""
        return "equal to Hugging Face" + ("" if self.longest is None else f" up to {self.longest} tokens")

    def warn_beyond(self, n_tokens: int, name: str) -> None:
        """Logs a warning, once per model, for prompts longer than the comparison holds."""
        if self.longest is not None and n_tokens > self.longest:
            _warn_beyond(name, self.longest)


@cache
def _warn_beyond(name: str, longest: int) -> None:
    _log.warning(
        "%s was compared with Hugging Face up to %d tokens. Longer prompts cross a window or rotary threshold of its "
        "configuration, for which the comparison was too expensive",
        name,
        longest,
    )


@dataclass(frozen=True)
class HuggingFaceReference:
    """Log-probabilities of Hugging Face's model, on the CPU.

    Attributes:
        prompts: the prompts.
        long: at the kept positions of the long prompt, ``[k, d_vocab]``.
        short: of each short prompt alone, ``[pos, d_vocab]``.
        spread: the largest logit of a position, measured from the position's mean.
    """

    prompts: ProbePrompts
    long: Float[Tensor, "k d_vocab"]
    short: tuple[Float[Tensor, "pos d_vocab"], Float[Tensor, "pos_ d_vocab"]]
    spread: float

    def tolerance(self, dtype: torch.dtype) -> float:
        """The largest difference in log-probability that counts as equal, in nats."""
        return RELATIVE_TOLERANCE[dtype] * max(1.0, self.spread)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of the long and the short prompts."""
        return tuple(row.shape[1] for row in (self.prompts.long, *self.prompts.short))


def reference_of(hf_model: Any, prompts: ProbePrompts) -> HuggingFaceReference:
    """The log-probabilities of a Hugging Face model that no library has changed.

    Raises:
        NumericsError: they are NaN or infinite.

    Cost: three forward passes.
    """
    device = next(hf_model.parameters()).device
    options = {"use_cache": False} if "use_cache" in inspect.signature(hf_model.forward).parameters else {}
    run = lambda tokens: hf_model(input_ids=tokens.to(device), **options).logits[0].float().cpu()  # noqa: E731
    with torch.no_grad():
        with _only_at(hf_model.get_output_embeddings(), prompts.kept):
            long = run(prompts.long)
        long = long[prompts.kept[0]] if len(long) == prompts.long.shape[1] else long
        first, second = (run(tokens) for tokens in prompts.short)
    logits = torch.cat([long, first, second])
    if not bool(logits.isfinite().any(-1).all()) or bool(logits.isnan().any()):
        raise NumericsError("The Hugging Face model gives NaN logits", fix="Check the weights of the checkpoint")
    finite = torch.where(logits.isfinite(), logits, logits.new_tensor(torch.nan))
    spread = float((finite - finite.nanmean(-1, keepdim=True)).abs().nan_to_num().max())
    return HuggingFaceReference(prompts, long.log_softmax(-1), (first.log_softmax(-1), second.log_softmax(-1)), spread)


def largest_difference(backend: Backend, reference: HuggingFaceReference) -> tuple[float, str]:
    """The largest difference in log-probability from Hugging Face, and the prompt where it is.

    Raises:
        ModelSupportError: the logits have another shape.

    Cost: four forward passes.
    """
    prompts = reference.prompts
    lengths = torch.tensor([row.shape[1] for row in prompts.short])
    both = padded([row[0].tolist() for row in prompts.short])
    differences = []
    if prompts.long.shape[1] <= backend.architecture().n_ctx:
        long = _log_probs(backend, prompts.long, at=prompts.kept)
        differences.append((_difference(long[0], reference.long), f"a prompt of {prompts.long.shape[1]} tokens"))
    for row, expected in zip(prompts.short, reference.short, strict=True):
        found = _log_probs(backend, row)[0]
        differences.append((_difference(found, expected), f"a prompt of {row.shape[1]} tokens"))
    together = _log_probs(backend, both, lengths=lengths)
    for found, expected in zip(together, reference.short, strict=True):
        differences.append((_difference(found[: len(expected)], expected), "a padded batch"))
    return max(differences)


def _log_probs(
    backend: Backend, tokens: Tensor, *, lengths: Tensor | None = None, at: Tensor | None = None
) -> Float[Tensor, "row k d_vocab"]:
    tokens = tokens.to(next(backend.inner.parameters()).device)
    hooks = {} if at is None else {UNEMBED_HOOK: [lambda residual: gathered(residual, at)]}
    with attached(backend, (hooks,)), torch.no_grad():
        return backend.run(tokens, row_mask(tokens, lengths)).float().cpu().log_softmax(-1)


def _difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference; infinite where one of them is NaN or infinite and the other is not."""
    if found.shape != expected.shape:
        raise ModelSupportError(f"The logits have shape {list(found.shape)}, Hugging Face's {list(expected.shape)}")
    differences = torch.where(found == expected, 0.0, (found - expected).abs())
    return float(differences.nan_to_num(nan=torch.inf).max())


@contextmanager
def _only_at(unembedding: Any, positions: Tensor) -> Iterator[None]:
    """Computes the logits at some positions only, where the model has an unembedding of its own."""
    if unembedding is None:
        yield
        return
    select = lambda _, args: (gathered(args[0], positions), *args[1:]) if args else None  # noqa: E731
    handle = unembedding.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()
