"""Reused memory for intermediate values."""

from torch import Tensor


class Buffers:
    """Memory for intermediate values, reused by every block and every part of a batch.

    On a CPU, allocating memory costs as much as filling it several times.
    """

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}

    def __call__(self, name: str, like: Tensor, width: int) -> Tensor:
        """The tensor of a name, ``[row, width]``, with as many rows as ``like``; its values are arbitrary."""
        tensor = self._tensors.get(name)
        if tensor is None or len(tensor) < len(like):
            tensor = self._tensors[name] = like.new_empty(len(like), width)
        return tensor[: len(like)]
