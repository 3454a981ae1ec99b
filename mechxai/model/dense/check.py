"""A backend's plain blocks, read once, and the proof which of their activations are the model's.

The proof is one short pass either way. Blocks and proof are made anew when the model's weights are no longer those
that were read: replaced, moved, or changed in place.
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
from mechxai.model.dense.run import PLAIN_SITES, run_dense
from mechxai.model.dense.weights import read_dense

_log = logging.getLogger("mechxai.model")
_WIDTH = 8
# what reading or running a model of another kind may stumble over
_MISFITS = (AttributeError, TypeError, ValueError, RuntimeError, LookupError, NotImplementedError)


@dataclass(frozen=True)
class EquivalenceCheck:
    """What plain blocks give as the model does.

    Attributes:
        sites: names of sites that agree in every layer.
        final: whether the input of the unembedding agrees.
    """

    sites: frozenset[str]
    final: bool


@dataclass
class _Known:
    """What is known of a backend: its modules' own tables of parameters, the state they were read in, and the rest."""

    tables: Sequence[Mapping[str, Tensor | None]]
    state: list[tuple[int, int]]
    plain: DenseModel | None
    proof: EquivalenceCheck | None = None


_known: "weakref.WeakKeyDictionary[Backend, _Known]" = weakref.WeakKeyDictionary()


def dense_blocks(backend: Backend) -> DenseModel | None:
    """The model's blocks as plain tensors, or None where they are of another kind. Nothing is run."""
    return _found(backend).plain


def equivalence_check(backend: Backend) -> EquivalenceCheck:
    """Which activations of the plain blocks are the model's. Cost: two short passes, once."""
    known = _found(backend)
    if known.proof is None:
        known.proof = _proven(backend, known.plain)
    return known.proof


def _found(backend: Backend) -> _Known:
    known = _known.get(backend)
    if known is None or known.state != _state(known.tables):
        plain = _read(backend)
        tables = [module._parameters for module in modules(backend) if module._parameters]
        known = _known[backend] = _Known(tables, _state(tables), plain)
    return known


def _state(tables: Sequence[Mapping[str, Tensor | None]]) -> list[tuple[int, int]]:
    """Where every weight lies, and how often it was changed there."""
    own = (parameter for table in tables for parameter in table.values() if parameter is not None)
    return [(parameter.data_ptr(), parameter._version) for parameter in own]


def _read(backend: Backend) -> DenseModel | None:
    if not (backend.resumes() and backend.plain_weights()):
        return None
    backend.optimize_layout()
    try:
        return read_dense(backend.inner, backend.architecture())
    except _MISFITS as error:
        _log.info("A %s has no plain blocks (%s: %s)", backend.name, type(error).__name__, error)
        return None


def _proven(backend: Backend, plain: DenseModel | None) -> EquivalenceCheck:
    nothing = EquivalenceCheck(frozenset(), final=False)
    if plain is None:
        return nothing
    architecture = backend.architecture()
    width = min(_WIDTH, architecture.n_ctx)
    device = next(iter(backend.inner.parameters())).device
    tokens = ((torch.arange(2 * width).reshape(2, width) * 37 + 11) % architecture.d_vocab).to(device)
    names = [name for name in PLAIN_SITES if _has(backend, name)]
    try:
        theirs, final = _hooked(backend, tokens, names)
    except ModelSupportError:  # TransformerLens cannot compute `result` for every model
        names = [name for name in names if not SITES[name].flag]
        theirs, final = _hooked(backend, tokens, names)
    different: set[str] = set()

    def compare(site: Site, ours: Tensor) -> None:
        if not _alike(ours, theirs[site]):
            different.add(site.name)

    try:
        with torch.no_grad():
            run = run_dense(plain, embedded(backend, tokens), compare, wanted=theirs)
            return EquivalenceCheck(frozenset(names) - different, _alike(plain.final(run.residuals[-1]), final))
    except _MISFITS as error:
        _log.info("A %s has no plain blocks (%s: %s)", backend.name, type(error).__name__, error)
        return nothing


def _has(backend: Backend, name: str) -> bool:
    try:
        backend.check(Site(name, 0))
    except (SiteError, ModelSupportError):
        return False
    return True


def _hooked(backend: Backend, tokens: Tokens, names: Sequence[str]) -> tuple[dict[Site, Tensor], Tensor]:
    """The model's own activations, and the input of its unembedding."""
    found: dict[Site, Tensor] = {}
    final: list[Tensor] = []

    def ending(residual: Tensor) -> None:
        final.append(residual.detach().clone())
        raise AllCached

    def keeping(site: Site) -> Hooks:
        return {site.hook: [lambda activation: found.update({site: activation.detach().clone()})]}

    sites = [Site(name, layer) for name in names for layer in range(backend.architecture().n_layers)]
    tables = [*map(keeping, sites), {UNEMBED_HOOK: [ending]}]
    with torch.no_grad(), attached(backend, tables, sites), suppress(AllCached):
        backend.run(tokens, None)
    return found, final[0]


def _alike(ours: Tensor, theirs: Tensor) -> bool:
    """Equal up to the rounding of their dtype, measured against the largest; what is infinite, in both."""
    if ours.shape != theirs.shape or not torch.equal(ours.isfinite(), theirs.isfinite()):
        return False
    finite = theirs.isfinite()
    if not bool(finite.any()):
        return True
    difference = (ours[finite] - theirs[finite]).abs().max()
    close = 1e-4 if theirs.dtype in (torch.float32, torch.float64) else 5e-2
    return bool(difference <= close * theirs[finite].abs().max())
