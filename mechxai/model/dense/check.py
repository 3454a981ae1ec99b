"""The check that dense blocks give the model's activations, run once per model.

The check compares one short pass of each. Blocks and check are redone when the model's weights change: replaced, moved,
or edited in place.
"""

import logging
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from mechxai.core.errors import ModelSupportError, SiteError
from mechxai.core.shapes import Tokens
from mechxai.core.site import Site
from mechxai.core.site_table import SITES
from mechxai.model.backends.attach import Hooks, attached, embedded
from mechxai.model.backends.base import UNEMBED_HOOK, Backend, modules
from mechxai.model.backends.capture import AllCached
from mechxai.model.dense.blocks import DenseModel
from mechxai.model.dense.run import DENSE_SITES, run_dense
from mechxai.model.dense.weights import read_dense

_log = logging.getLogger("mechxai.model")
_WIDTH = 8
# raised when a model of another kind is read or run
_MISFITS = (AttributeError, TypeError, ValueError, RuntimeError, LookupError, NotImplementedError)


@dataclass(frozen=True)
class EquivalenceCheck:
    """The activations on which dense blocks and the model agree.

    Attributes:
        sites: names of the sites that agree in every layer.
        final: whether the input of the unembedding agrees.
    """

    sites: frozenset[str]
    final: bool


@dataclass
class _Entry:
    """A backend's dense blocks and their check.

    Attributes:
        tables: the parameters of each module.
        state: the state of the parameters when they were read.
        dense: the blocks; None for models of another kind.
        check: the check, once it has run.
    """

    tables: Sequence[Mapping[str, Tensor | None]]
    state: list[tuple[int, int]]
    dense: DenseModel | None
    check: EquivalenceCheck | None = None


_entries: "weakref.WeakKeyDictionary[Backend, _Entry]" = weakref.WeakKeyDictionary()


def dense_blocks(backend: Backend) -> DenseModel | None:
    """The model's blocks as plain tensors, or None for blocks of another kind. Cost: no forward pass."""
    return _entry(backend).dense


def equivalence_check(backend: Backend) -> EquivalenceCheck:
    """The activations on which the dense blocks and the model agree. Cost: two short passes, once."""
    entry = _entry(backend)
    if entry.check is None:
        entry.check = _compared(backend, entry.dense)
    return entry.check


def _entry(backend: Backend) -> _Entry:
    entry = _entries.get(backend)
    if entry is None or entry.state != _state(entry.tables):
        dense = _read(backend)
        tables = [module._parameters for module in modules(backend) if module._parameters]
        entry = _entries[backend] = _Entry(tables, _state(tables), dense)
    return entry


def _state(tables: Sequence[Mapping[str, Tensor | None]]) -> list[tuple[int, int]]:
    """The address of every weight, and how often it has changed there."""
    parameters = (parameter for table in tables for parameter in table.values() if parameter is not None)
    return [(parameter.data_ptr(), parameter._version) for parameter in parameters]


def _read(backend: Backend) -> DenseModel | None:
    if not (backend.resumes() and backend.plain_weights()):
        return None
    backend.optimize_layout()
    try:
        return read_dense(backend.inner, backend.architecture())
    except _MISFITS as error:
        _log.info("A %s has no dense blocks (%s: %s)", backend.name, type(error).__name__, error)
        return None


def _compared(backend: Backend, dense: DenseModel | None) -> EquivalenceCheck:
    nothing = EquivalenceCheck(frozenset(), final=False)
    if dense is None:
        return nothing
    architecture = backend.architecture()
    width = min(_WIDTH, architecture.n_ctx)
    device = next(iter(backend.inner.parameters())).device
    tokens = ((torch.arange(2 * width).reshape(2, width) * 37 + 11) % architecture.d_vocab).to(device)
    names = [name for name in DENSE_SITES if _has(backend, name)]
    try:
        expected, final = _hooked(backend, tokens, names)
    except ModelSupportError:  # TransformerLens cannot compute `result` for every model
        names = [name for name in names if not SITES[name].flag]
        expected, final = _hooked(backend, tokens, names)
    different: set[str] = set()

    def compare(site: Site, activation: Tensor) -> None:
        if not _close(activation, expected[site]):
            different.add(site.name)

    try:
        with torch.no_grad():
            run = run_dense(dense, embedded(backend, tokens), compare, wanted=expected)
            return EquivalenceCheck(frozenset(names) - different, _close(dense.final(run.residuals[-1]), final))
    except _MISFITS as error:
        _log.info("A %s has no dense blocks (%s: %s)", backend.name, type(error).__name__, error)
        return nothing


def _has(backend: Backend, name: str) -> bool:
    try:
        backend.check(Site(name, 0))
    except (SiteError, ModelSupportError):
        return False
    return True


def _hooked(backend: Backend, tokens: Tokens, names: Sequence[str]) -> tuple[dict[Site, Tensor], Tensor]:
    """The model's activations, and the input of its unembedding."""
    activations: dict[Site, Tensor] = {}
    final: list[Tensor] = []

    def stop(residual: Tensor) -> None:
        final.append(residual.detach().clone())
        raise AllCached

    def storing(site: Site) -> Hooks:
        return {site.hook: [lambda activation: activations.update({site: activation.detach().clone()})]}

    sites = [Site(name, layer) for name in names for layer in range(backend.architecture().n_layers)]
    tables = [*map(storing, sites), {UNEMBED_HOOK: [stop]}]
    with torch.no_grad(), attached(backend, tables, sites), suppress(AllCached):
        backend.run(tokens, None)
    return activations, final[0]


def _close(activation: Tensor, expected: Tensor) -> bool:
    """Whether two tensors are equal up to rounding, relative to the largest value, and infinite at the same places."""
    if activation.shape != expected.shape or not torch.equal(activation.isfinite(), expected.isfinite()):
        return False
    finite = expected.isfinite()
    if not bool(finite.any()):
        return True
    difference = (activation[finite] - expected[finite]).abs().max()
    tolerance = 1e-4 if expected.dtype in (torch.float32, torch.float64) else 5e-2
    return bool(difference <= tolerance * expected[finite].abs().max())
