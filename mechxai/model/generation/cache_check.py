"""Whether decoding with a cache gives the logits of full passes: measured on each model before its first use."""

import logging
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from mechxai.model.backends.base import Backend
from mechxai.model.backends.config_lengths import ConfigLengths, config_lengths
from mechxai.model.generation.next_logits import GrowingRows

_log = logging.getLogger("mechxai.model")
_N_SHORT = 8  # tokens of the probes that every model gets
_BEYOND = 4  # tokens beyond a window or rotary table
_TOLERANCE = 1e-3  # of the logits' spread, float32 and wider
_TOLERANCE_SHORT = 1e-2  # the same for short texts: some state-space models compute steps by another formula
_TOLERANCE_HALF = 0.2  # of the logits' spread, root mean square, float16 and bfloat16, whose rounding differs by shape
_FAILURES = (TypeError, ValueError, AttributeError, LookupError, NotImplementedError, RuntimeError)
_CHECKS: WeakKeyDictionary[Any, "CacheCheck"] = WeakKeyDictionary()


@dataclass
class CacheCheck:
    """Probes of one model: cached steps against one full pass over the same tokens.

    Attributes:
        backend: the model.
        lengths: windows and rotary tables of its configuration; texts that outgrow one are probed before the first.
        fault: why the cache is not used; empty while all probes agree.
    """

    backend: Backend
    lengths: ConfigLengths
    fault: str = ""
    _checked: set[int] = field(default_factory=set)
    _short_difference: float = 0.0  # in units of the tolerance

    def allows(self, n_tokens: int, name: str, device: torch.device) -> bool:
        """Whether texts of up to so many tokens can be written with a cache.

        Cost, at the first call: a few passes of two rows of eight tokens; at the first text that outgrows a window, a
        few passes of its length.
        """
        n_ctx = self.backend.architecture().n_ctx
        for length in (0, *(length for length in self._comparable() if length < n_tokens)):
            if self.fault or length in self._checked:
                continue
            self._checked.add(length)
            n_probe = min(length + _BEYOND if length else _N_SHORT, n_ctx)
            self.fault = self._fault(length, n_probe, device)
            if self.fault:
                _log.warning("%s: %s. Every token that it writes costs a pass over the whole text", name, self.fault)
        return not self.fault

    def needs_equal_lengths(self, n_tokens: int) -> bool:
        """Whether only prompts of one length can be written together.

        A cached step of such a model is not its full pass: its state-space layers step by another formula, or keys of
        an outgrown rotary table stay. What it writes then depends on where its prompt ends.
        """
        rotary = self.lengths.rotary
        keeps_keys = rotary is not None and not self.lengths.rotary_restarts and n_tokens > rotary
        return keeps_keys or self._short_difference > 1

    def _comparable(self) -> list[int]:
        """Lengths beyond which cached steps should give the logits of full passes, ascending."""
        rotary = self.lengths.rotary
        if rotary is None:
            return list(self.lengths.windows)
        if self.lengths.rotary_restarts:
            return sorted({*self.lengths.windows, rotary})
        return [window for window in self.lengths.windows if window + _BEYOND <= rotary]

    @torch.no_grad()
    def _fault(self, length: int, n_probe: int, device: torch.device) -> str:
        """What is wrong with cached steps around a length; empty where nothing is."""
        generator = torch.Generator().manual_seed(length)
        d_vocab = self.backend.architecture().d_vocab
        tokens = torch.randint(d_vocab, (1 if length else 2, n_probe), generator=generator).to(device)
        first = max(1, n_probe - _N_SHORT + 1)
        expected = self._expected(tokens, first)
        starts = (length - 1, length + 1) if length else (1, n_probe // 2)
        for start in sorted({min(max(start, first), n_probe - 1) for start in starts}):
            try:
                actual = self._stepwise(tokens, start, cached=True)
            except torch.cuda.OutOfMemoryError:
                raise
            except _FAILURES as error:
                return f"its cache cannot be used ({type(error).__name__}: {(str(error).splitlines() or [''])[0]})"
            size = _difference(actual, expected[:, -actual.shape[1] :])
            if not length:
                self._short_difference = max(size, self._short_difference)
            if not size <= self._limit(length):
                where = f" in texts longer than {length} tokens" if length else ""
                return f"its cache changes the logits{where} ({size * _TOLERANCE:.2g} of their spread)"
        return ""

    def _limit(self, length: int) -> float:
        """The largest difference allowed, in units of the tolerance."""
        largest = _TOLERANCE_SHORT / _TOLERANCE
        return min(largest, max(1.0, 3 * self._short_difference)) if length else largest

    def _expected(self, tokens: Tensor, first: int) -> Tensor:
        """Logits without a cache from position ``first - 1`` on: of one pass, where no rotary table changes."""
        n_tokens = tokens.shape[1]
        if self.lengths.rotary is not None and n_tokens > self.lengths.rotary:
            return self._stepwise(tokens, first, cached=False)
        rows = GrowingRows(self.backend, len(tokens), self.lengths, cached=False)
        return rows.extended(tokens, n_tokens - first + 1)

    def _stepwise(self, tokens: Tensor, start: int, *, cached: bool) -> Tensor:
        """Logits from position ``start - 1`` on, a prompt of ``start`` tokens and then one token at a time."""
        rows = GrowingRows(self.backend, len(tokens), self.lengths, cached=cached)
        steps = [rows.extended(tokens[:, :start])]
        steps += [rows.extended(tokens[:, at : at + 1]) for at in range(start, tokens.shape[1])]
        return torch.cat(steps, dim=1)


def cache_check(backend: Backend) -> CacheCheck:
    """The check of a model, made once."""
    check = _CHECKS.get(backend.inner)
    if check is None:
        check = _CHECKS[backend.inner] = CacheCheck(backend, config_lengths(backend))
    return check


def _difference(actual: Tensor, expected: Tensor) -> float:
    """The difference between logits in units of the tolerance."""
    difference = (actual - expected).double()
    spread = expected.double().std(-1, keepdim=True).clamp(min=1e-12)
    if expected.dtype in (torch.float16, torch.bfloat16):
        by_position = (difference / spread).square().mean(-1).sqrt().amax(0)
        limit = _TOLERANCE_HALF * _TOLERANCE / _TOLERANCE_SHORT
        return float(by_position.median()) / limit  # one routing to another expert is no fault
    return float((difference.abs() / spread).max()) / _TOLERANCE
