"""Choice of backend and weight processing: the first that gives Hugging Face's own log-probabilities."""

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from mechxai.core.errors import ModelSupportError, NumericsError
from mechxai.model.backends.base import Backend, BackendName, Processing
from mechxai.model.backends.memory import available_bytes
from mechxai.model.conversion.beginning import separate_tokenizer
from mechxai.model.conversion.comparison import (
    Attempt,
    Comparison,
    HuggingFaceReference,
    largest_difference,
    listing,
    reference_of,
)
from mechxai.model.conversion.convert import (
    CannotConvert,
    HookedTransformerParts,
    bridge,
    converted,
    has_hooked_transformer,
    plain_errors,
)
from mechxai.model.conversion.probe_prompts import probe_prompts

ProcessingName = Literal["auto", "folded", "raw"]
_HALF = (torch.float16, torch.bfloat16)
_LARGE = 1e8  # parameters from which memory is freed as early as possible
_FLOAT32_LIMIT = 4e9  # parameters up to which half-precision models are converted and compared in float32
_DEVICE_SHARE = 0.45  # of a GPU's free memory, for the float32 weights of the reference; the converted model is another

_log = logging.getLogger("mechxai.model")


class Checkpoint:
    """A Hugging Face model, read again once a conversion has changed it.

    Args:
        hf_model: as read from its files.
        tokenizer: its tokenizer, or None.
        read: reads the model again.
    """

    def __init__(self, hf_model: Any, tokenizer: Any, read: Callable[[], Any]) -> None:
        self.tokenizer, self.family = tokenizer, type(hf_model).__name__
        self._hf_model, self._read = hf_model, read
        self._large = sum(parameter.numel() for parameter in hf_model.parameters()) > _LARGE

    @property
    def hf_model(self) -> Any:
        """The model, unchanged."""
        if self._hf_model is None:
            self._hf_model = self._read()
        return self._hf_model

    def release(self) -> None:
        """Forgets the model, which a conversion has taken over or has copied."""
        self._hf_model = None
        if self._large:
            gc.collect()  # models of Hugging Face hold references to themselves


@dataclass(frozen=True)
class Wanted:
    """What the caller of `load` asks for; ``auto`` leaves a choice.

    Attributes:
        backend: ``auto``, ``hooked_transformer`` or ``bridge``.
        processing: ``auto``, ``folded`` or ``raw``.
        device: of the weights.
        dtype: of the weights.
    """

    backend: BackendName
    processing: ProcessingName
    device: torch.device
    dtype: torch.dtype

    def choices(self) -> list[tuple[str, Processing]]:
        """Backends and processings in order of preference: folded weights first, then `HookedTransformer`."""
        available = ["hooked_transformer", "bridge"] if has_hooked_transformer() else ["bridge"]
        backends = available if self.backend == "auto" else [self.backend]
        processings: tuple[Processing, ...] = ("folded", "raw") if self.processing == "auto" else (self.processing,)
        return [(backend, processing) for processing in processings for backend in backends]


@dataclass(frozen=True)
class Selected:
    """The chosen form of a model.

    Attributes:
        backend: the wrapped model.
        processing: of its weights.
        comparison: with Hugging Face's own model.
    """

    backend: Backend
    processing: Processing
    comparison: Comparison

    def log(self, name: str) -> None:
        """Logs a warning where another form was measured and differs, or where folded weights are not possible."""
        rejected = self.comparison.rejected
        if any(attempt.difference is not None for attempt in rejected) or (rejected and self.processing == "raw"):
            _log.warning(
                "%s: using backend='%s' with processing='%s'. Other forms do not give Hugging Face's log-probabilities "
                "(difference allowed: %.1g): %s",
                name,
                self.backend.name,
                self.processing,
                self.comparison.tolerance,
                listing(rejected),
            )


def select(checkpoint: Checkpoint, wanted: Wanted) -> Selected:
    """The first backend and processing whose log-probabilities are Hugging Face's.

    Raises:
        ModelSupportError: none; gives the measured difference, or the reason, of each.
        NumericsError: the log-probabilities are NaN in the wanted dtype.

    Cost: three forward passes of Hugging Face's model, and four to eight of each form that is tried.
    """
    if wanted.backend == "hooked_transformer" and not has_hooked_transformer():
        raise ModelSupportError(
            "backend='hooked_transformer' is not available: TransformerLens 4 no longer has HookedTransformer",
            fix="Use backend='bridge', or install transformer-lens<4",
        )
    device, dtype = _working(checkpoint.hf_model, wanted)
    hf_model = checkpoint.hf_model.to(device)
    reference = reference_of(hf_model, probe_prompts(hf_model, checkpoint.tokenizer, device))
    hf_model.to("cpu")
    del hf_model
    rejected: list[Attempt] = []
    for backend_name, processing in wanted.choices():
        try:
            backend = _convert(checkpoint, backend_name, processing, device=device, dtype=dtype)
            with plain_errors(backend_name, checkpoint.family):
                difference, prompt = largest_difference(backend, reference)
        except CannotConvert as error:
            rejected.append(Attempt(backend_name, processing, None, error.reason))
            continue
        if difference <= reference.tolerance(dtype):
            rounding = _finish(backend, reference, wanted, working=(device, dtype))
            record = _record(backend, reference, difference, dtype=dtype, rounding=rounding, rejected=rejected)
            return Selected(backend, processing, record)
        rejected.append(Attempt(backend_name, processing, difference, prompt))
        del backend
        checkpoint.release()
    raise _refusal(checkpoint.family, wanted, rejected, tolerance=reference.tolerance(dtype))


def _working(hf_model: Any, wanted: Wanted) -> tuple[torch.device, torch.dtype]:
    """Device and dtype of conversion and comparison: float32 on the wanted device where there is room for it."""
    n_parameters = sum(parameter.numel() for parameter in hf_model.parameters())
    size = 4 * n_parameters
    fits = wanted.device.type == "cpu" or size < _DEVICE_SHARE * available_bytes(wanted.device)
    device = wanted.device if fits else torch.device("cpu")
    half = wanted.dtype in _HALF and (n_parameters > _FLOAT32_LIMIT and device.type == "cpu")
    return device, wanted.dtype if half or wanted.dtype == torch.float64 else torch.float32


def _convert(
    checkpoint: Checkpoint, backend_name: str, processing: str, *, device: torch.device, dtype: torch.dtype
) -> Backend:
    tokenizer = separate_tokenizer(checkpoint.tokenizer)
    if backend_name == "hooked_transformer":
        parts = HookedTransformerParts(checkpoint.hf_model, processing=processing, device=device, dtype=dtype)
        checkpoint.release()
        return parts.backend(tokenizer, device)
    hf_model = checkpoint.hf_model
    checkpoint.release()
    return bridge(hf_model, tokenizer, processing=processing, device=device, dtype=dtype)


def _finish(
    backend: Backend, reference: HuggingFaceReference, wanted: Wanted, *, working: tuple[torch.device, torch.dtype]
) -> float | None:
    """Puts the model on its device and in its dtype; the largest difference there, if they are others.

    Raises:
        NumericsError: logits are NaN or infinite there.
    """
    if working == (wanted.device, wanted.dtype):
        return None
    converted(backend, device=wanted.device, dtype=wanted.dtype)
    rounding, prompt = largest_difference(backend, reference)
    if rounding == torch.inf:
        name = str(wanted.dtype).removeprefix("torch.")
        raise NumericsError(
            f"The model gives NaN or infinite logits in {name} ({prompt})", fix="Use dtype='bfloat16' or 'float32'"
        )
    return rounding


def _record(
    backend: Backend,
    reference: HuggingFaceReference,
    difference: float,
    *,
    dtype: torch.dtype,
    rounding: float | None,
    rejected: list[Attempt],
) -> Comparison:
    n_ctx = backend.architecture().n_ctx
    covered = reference.prompts.covered
    lengths = tuple(length for length in reference.lengths if length <= n_ctx)
    return Comparison(
        difference=difference,
        tolerance=reference.tolerance(dtype),
        dtype=str(dtype).removeprefix("torch."),
        rounding=rounding,
        lengths=lengths,
        longest=None if covered is None or covered >= n_ctx else covered,
        rejected=tuple(rejected),
    )


def _refusal(family: str, wanted: Wanted, rejected: list[Attempt], *, tolerance: float) -> ModelSupportError:
    """The error where no form of the model is Hugging Face's."""
    ways_out = [] if wanted.backend == "auto" else ["backend='auto'"]
    if wanted.backend == "hooked_transformer":
        ways_out = ["backend='bridge' or 'auto'"]
    if wanted.processing == "folded":
        ways_out.append("processing='raw' or 'auto'")
    fix = (
        f"Use {', or '.join(ways_out)}"
        if ways_out
        else "Try another version of transformer-lens, or mx.black_box for attribution"
    )
    measured = [attempt for attempt in rejected if attempt.difference is not None]
    if wanted.backend != "auto" and not measured:
        return ModelSupportError(CannotConvert(rejected[0].backend, family, rejected[0].prompt).problem, fix=fix)
    listed = listing(rejected)
    if not measured:
        return ModelSupportError(f"TransformerLens cannot convert {family} ({listed})", fix=fix)
    return ModelSupportError(
        f"{family} does not give Hugging Face's log-probabilities after conversion (difference allowed: "
        f"{tolerance:.1g}): {listed}",
        fix=fix,
    )
