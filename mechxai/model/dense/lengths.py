"""Lengths of the prompts on which dense blocks are tested."""

from mechxai.model.backends.base import Backend
from mechxai.model.backends.config_lengths import config_lengths

_SHORTEST, _BEYOND = 8, 4  # tokens of a test, and behind a threshold
_PRODUCTS = 2e11  # multiplications and additions that a test of a long prompt may take, some seconds of a core


def thresholds(backend: Backend) -> list[int]:
    """The lengths inside the context at which the configuration changes what the model computes, ascending."""
    lengths = config_lengths(backend)
    return sorted({*lengths.windows, *([] if lengths.rotary is None else [lengths.rotary])})


def probe_lengths(backend: Backend) -> list[tuple[int, int | None]]:
    """Lengths of test prompts, and the length up to which a test of each holds (None: any), the most general first.

    The first prompt is longer than every threshold that a test can afford. The others end at a threshold: tables of
    rotation that depend on a prompt's length (longrope) hold on one side of it only.
    """
    n_ctx = backend.architecture().n_ctx
    n_parameters = sum(parameter.numel() for parameter in backend.inner.parameters())
    most = max(_SHORTEST, int(_PRODUCTS / max(1, n_parameters)))
    lengths = thresholds(backend)
    affordable = [length for length in lengths if length + _BEYOND <= most]
    left_out = next((length for length in lengths if length + _BEYOND > most), None)
    first = min(n_ctx, max([_SHORTEST, *(length + _BEYOND for length in affordable)]))
    return [(first, left_out), *((length, length) for length in reversed(affordable))]
