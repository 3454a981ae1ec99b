"""The wiring of a block, found from a recorded pass: which norm stands where, and what enters the residual stream."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from mechxai.model.dense.trace import BlockTrace, Call, NotCoveredError

_PARTS = ("attn", "mlp")
_UNMOVED = 1e-3  # of the size of attention's output


@dataclass(frozen=True)
class Wiring:
    """The modules around a block's attention and MLP.

    Attributes:
        norm1: the norm before attention; None without.
        post1: the norm after it.
        norm2: the norm before the MLP.
        post2: the norm after it.
        gain1: the factor by which the output of attention enters the residual stream.
        gain2: likewise of the MLP.
        parallel: whether attention and MLP read the same residual stream.
        attention_read: the input of attention, behind its norm.
        mlp_read: the input of the MLP, behind its norm; None without an MLP.
        mlp_output: the output of the MLP, before a norm.
    """

    norm1: Call | None
    post1: Call | None
    norm2: Call | None
    post2: Call | None
    gain1: float
    gain2: float
    parallel: bool
    attention_read: Tensor
    mlp_read: Tensor | None
    mlp_output: Tensor | None


def wiring(trace: BlockTrace, factors: Iterable[float]) -> Wiring:
    """The wiring of a block.

    Args:
        trace: a recorded pass.
        factors: numbers of the model's configuration; a measured factor that is close to one of them is that number.

    Raises:
        NotCoveredError: the block is wired in a way that dense blocks do not cover; says which.
    """
    if not bool(trace.after.isfinite().all()):
        raise NotCoveredError("its activations are not finite")
    attention = trace.calls.get("attn")
    if attention is None or attention.read is None or attention.output is None:
        raise NotCoveredError("a block has no attention")
    shape = trace.residual.shape
    raw = _output(trace.calls.get("attn.o", attention)).reshape(shape)  # some attention adds the residual stream
    norms = [call for name, call in trace.calls.items() if _may_be_norm(name, call, trace.residual)]
    norm1 = _before(norms, attention.read)
    if norm1 is None and not close(attention.read, trace.residual):
        raise NotCoveredError("the input of attention is not a norm of the residual stream")
    if norm1 is not None and not close(_shaped(norm1.read, shape), trace.residual):
        raise NotCoveredError("the norm before attention reads something else than the residual stream")
    post1 = _after(norms, raw)
    attn_out = raw if post1 is None else _shaped(post1.output, shape)
    exact = _snapping(factors)
    mlp = _mlp(trace)
    if mlp is None:
        gain1 = exact(_factors(trace.residual, trace.after, [attn_out])[0])
        return Wiring(norm1, post1, None, None, gain1, 1.0, False, attention.read, None, None)  # noqa: FBT003
    read, output = mlp
    norm2 = _before(norms, read)
    middle = read if norm2 is None else _shaped(norm2.read, shape)
    post2 = _after(norms, output, but=post1)
    mlp_out = output if post2 is None else _shaped(post2.output, shape)
    # compared with attention's output: a stream with a few very large dimensions hides it from a relative comparison
    moved = (middle.double() - trace.residual.double()).norm()
    if parallel := bool(moved <= _UNMOVED * attn_out.double().norm()):
        if _rounding(trace.residual) > float(attn_out.abs().max()):
            raise NotCoveredError("its residual stream is so large that what attention adds is rounded away")
        gain1, gain2 = _factors(trace.residual, trace.after, [attn_out, mlp_out])
    else:
        gain1 = _factors(trace.residual, middle, [attn_out])[0]
        gain2 = _factors(middle, trace.after, [mlp_out])[0]
    return Wiring(norm1, post1, norm2, post2, exact(gain1), exact(gain2), parallel, attention.read, read, output)


def close(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors are equal up to rounding, relative to the largest value."""
    if left.shape != right.shape:
        return False
    size = right.abs().max().clamp(min=1e-30)
    return bool((left - right).abs().max() <= tolerance(right.dtype) * size)


def tolerance(dtype: torch.dtype) -> float:
    """The relative difference that rounding may make."""
    return 1e-4 if dtype in (torch.float32, torch.float64) else 3e-2


def _may_be_norm(name: str, call: Call, like: Tensor) -> bool:
    """Whether a module maps vectors of the residual stream to such vectors, and is no attention or MLP."""
    if name.startswith(tuple(f"{part}." for part in _PARTS)) or name in _PARTS:
        return False
    if call.read is None or call.output is None or call.read.shape != call.output.shape:
        return False
    same_vectors = call.read.numel() == like.numel() and call.read.shape[-1] == like.shape[-1]
    return same_vectors and not close(call.output, call.read)


def _output(call: Call) -> Tensor:
    if call.output is None:
        raise NotCoveredError("a module returns no tensor")
    return call.output


def _shaped(tensor: Tensor | None, shape: torch.Size) -> Tensor:
    if tensor is None:
        raise NotCoveredError("a norm reads or returns no tensor")
    return tensor.reshape(shape)


def _before(norms: Iterable[Call], read: Tensor) -> Call | None:
    """The norm whose output a part reads."""
    return next((norm for norm in norms if close(_shaped(norm.output, read.shape), read)), None)


def _after(norms: Iterable[Call], output: Tensor, but: Call | None = None) -> Call | None:
    """The norm that reads a part's output."""
    return next((norm for norm in norms if norm is not but and close(_shaped(norm.read, output.shape), output)), None)


def _mlp(trace: BlockTrace) -> tuple[Tensor, Tensor] | None:
    """Input and output of the MLP, from its module or from its first and last layer; None without an MLP."""
    shape = trace.residual.shape
    call = trace.calls.get("mlp")
    first = next((trace.calls[name] for name in ("mlp", "mlp.in", "mlp.gate", "fc1") if name in trace.calls), None)
    last = next((trace.calls[name] for name in ("mlp.out", "fc2", "mlp") if name in trace.calls), call)
    if first is None or last is None:
        if getattr(trace.block, "mlp", None) is not None:
            raise NotCoveredError("the MLP is not called as a module")
        return None
    if first.read is None or first.read.numel() != shape.numel() or _output(last).numel() != shape.numel():
        raise NotCoveredError("the MLP reads or returns other vectors than the residual stream's")
    return first.read.reshape(shape), _output(last).reshape(shape)


def _factors(before: Tensor, after: Tensor, parts: list[Tensor]) -> list[float]:
    """The factors with which some vectors add up to the change of the residual stream.

    Raises:
        NotCoveredError: they do not add up to it.
    """
    columns = torch.stack([part.double().flatten() for part in parts], 1)
    target = (after.double() - before.double()).flatten()
    gram = columns.T @ columns
    factors = torch.linalg.lstsq(gram, columns.T @ target).solution
    size = columns.abs().max().clamp(min=1e-30)
    error = (columns @ factors - target).abs().max()
    if not float(error) <= 3 * tolerance(after.dtype) * float(size) + 4 * _rounding(after):
        raise NotCoveredError("the residual stream is not the sum of what attention and MLP return")
    return factors.tolist()


def _rounding(stream: Tensor) -> float:
    """The rounding of a sum with the largest entry of a stream."""
    return torch.finfo(stream.dtype).eps * float(stream.abs().max())


def _snapping(factors: Iterable[float]) -> Callable[[float], float]:
    """A function that gives the configuration's number that a measured factor is close to, or 1, or the factor."""
    known = [1.0, *factors]

    def exact(factor: float) -> float:
        nearest = min(known, key=lambda number: abs(number - factor))
        return nearest if abs(nearest - factor) <= 1e-2 * abs(factor) else factor

    return exact
