"""The check that dense blocks give the model's activations, run once per model and again after every change of it.

The check compares a pass over short prompts, and one over a prompt longer than the windows and thresholds that the
configuration names. Nothing uses dense blocks that it has not passed.
"""

import logging
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from mechxai.core.errors import ModelSupportError, SiteError
from mechxai.core.exclusive import exclusive
from mechxai.core.shapes import Tokens
from mechxai.core.site import Site
from mechxai.core.site_table import SITES
from mechxai.model.backends.attach import Hooks, attached, embedded
from mechxai.model.backends.base import UNEMBED_HOOK, Backend
from mechxai.model.backends.capture import AllCached
from mechxai.model.backends.weight_state import model_state
from mechxai.model.dense.blocks import DenseModel
from mechxai.model.dense.lengths import probe_lengths
from mechxai.model.dense.read import read_dense
from mechxai.model.dense.run import DENSE_SITES, run_dense
from mechxai.model.dense.topology import tolerance
from mechxai.model.dense.trace import NotCoveredError

_log = logging.getLogger("mechxai.model")
_WIDTH = 8
_LONG_SITES = ("resid_post", "z")  # compared on the long prompt
_NEEDED = {"resid_pre", "resid_post", "z"}
# raised when a model of another kind is read or run
_MISFITS = (AttributeError, TypeError, ValueError, RuntimeError, LookupError, NotImplementedError)


@dataclass(frozen=True)
class EquivalenceCheck:
    """The result of comparing dense blocks with the model.

    Attributes:
        dense: the blocks, where they give the model's residual streams and heads; None otherwise.
        sites: names of the sites that agree in every layer.
        reason: a clause that says why there are no blocks.
    """

    dense: DenseModel | None
    sites: frozenset[str] = frozenset()
    reason: str = ""

    def covers(self, n_pos: int) -> bool:
        """Whether there are dense blocks for prompts of this length."""
        return self.dense is not None and n_pos <= (self.dense.longest or n_pos)

    def computes(self, site: Site) -> bool:
        """Whether dense blocks give the model's own activation of a site, so that it can be edited in them."""
        return site.name in self.sites or site.row.entry == "embed"


@dataclass
class _Entry:
    """A check, and the state of the model when it ran.

    Attributes:
        check: the result.
        before: the model's state before the check.
        after: its state behind it; what the check's own passes changed does not count as a change.
    """

    check: EquivalenceCheck
    before: Mapping[str, object]
    after: Mapping[str, object]

    def holds(self, state: Mapping[str, object]) -> bool:
        """Whether the model is as it was."""
        absent = object()
        return state == self.after or all(
            state.get(name, absent) == self.after.get(name, absent)
            or self.before.get(name, absent) != self.after.get(name, absent)
            for name in {*state, *self.before, *self.after}
        )


_entries: "weakref.WeakKeyDictionary[Backend, _Entry]" = weakref.WeakKeyDictionary()


def dense_blocks(backend: Backend) -> DenseModel | None:
    """The model's blocks as plain tensors, or None where they do not give the model's own activations.

    Cost: the passes of `equivalence_check`, once.
    """
    return equivalence_check(backend).dense


def equivalence_check(backend: Backend) -> EquivalenceCheck:
    """The comparison of dense blocks with the model. Cost: five passes over a prompt or two, once."""
    with exclusive(backend):
        entry = _entries.get(backend)
        if entry is None or not entry.holds(model_state(backend)):
            if backend.resumes() and backend.plain_weights():
                backend.optimize_layout()
            before = model_state(backend)
            check = _checked(backend)
            entry = _entries[backend] = _Entry(check, before, model_state(backend))
        return entry.check


def _checked(backend: Backend) -> EquivalenceCheck:
    if not backend.architecture().causal:
        return EquivalenceCheck(None, reason="its attention is not causal")
    if not backend.resumes():
        return EquivalenceCheck(None, reason="it is spread over devices")
    if not backend.plain_weights():
        return EquivalenceCheck(None, reason="its weights are quantised or spread over devices")
    check = EquivalenceCheck(None)
    for length, longest in probe_lengths(backend):
        check = _checked_up_to(backend, length, longest=longest)
        if check.dense is not None:
            return check
    _log.info("A %s of %s has no dense blocks: %s", backend.name, backend.architecture().family, check.reason)
    return check


def _checked_up_to(backend: Backend, length: int, *, longest: int | None) -> EquivalenceCheck:
    try:
        dense = read_dense(backend, _tokens(backend, 1, length), longest=longest)
        sites = _agreeing(backend, dense, _tokens(backend, 2, _WIDTH), names=_names(backend))
        if not sites >= _NEEDED & set(_names(backend)):
            return EquivalenceCheck(None, reason="dense blocks give other activations than the model")
        if not _agreeing(backend, dense, _tokens(backend, 1, length), names=_LONG_SITES) >= set(_LONG_SITES):
            return EquivalenceCheck(None, reason=f"they give other activations on a prompt of {length} tokens")
    except NotCoveredError as error:
        return EquivalenceCheck(None, reason=str(error))
    except _MISFITS as error:
        return EquivalenceCheck(None, reason=f"its modules cannot be read ({type(error).__name__}: {error})")
    return EquivalenceCheck(dense, frozenset(sites))


def _tokens(backend: Backend, n_prompts: int, width: int) -> Tokens:
    """Token ids that differ from one another."""
    a = backend.architecture()
    width = min(width, a.n_ctx)
    device = next(iter(backend.inner.parameters())).device
    return ((torch.arange(n_prompts * width).reshape(n_prompts, width) * 37 + 11) % a.d_vocab).to(device)


def _names(backend: Backend) -> list[str]:
    return [name for name in DENSE_SITES if _has(backend, name)]


def _has(backend: Backend, name: str) -> bool:
    try:
        backend.check(Site(name, 0))
    except (SiteError, ModelSupportError):
        return False
    return True


def _agreeing(backend: Backend, dense: DenseModel, tokens: Tokens, *, names: Sequence[str]) -> set[str]:
    """The sites that agree in every layer; none where the input of the unembedding differs."""
    try:
        expected, final = _hooked(backend, tokens, names)
    except ModelSupportError:  # TransformerLens cannot compute `result` for every model
        names = [name for name in names if not SITES[name].flag]
        expected, final = _hooked(backend, tokens, names)
    computed: dict[Site, Tensor] = {}
    with torch.no_grad():
        run = run_dense(dense, embedded(backend, tokens), computed.__setitem__, wanted=expected)
        if not _close(dense.final(run.residuals[-1]), final):
            return set()
    return set(names) - _different(computed, expected)


def _different(computed: Mapping[Site, Tensor], expected: Mapping[Site, Tensor]) -> set[str]:
    return {
        site.name
        for site, activation in expected.items()
        if site not in computed or not _close(computed[site], activation)
    }


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
    return bool(difference <= tolerance(expected.dtype) * expected[finite].abs().max())
