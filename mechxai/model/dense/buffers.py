"""Memory that is used again."""

from torch import Tensor


class Buffers:
    """Memory for intermediate values, used again by every block, layer and part of a batch.

    On a CPU, memory that is fresh costs about as much as filling it several times over.
    """

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def __call__(self, name: str, like: Tensor, width: int) -> Tensor:
        """The tensor of a name, ``[row, width]``, with as many rows as ``like``; it holds whatever it held."""
        held = self._held.get(name)
        if held is None or len(held) < len(like):
            held = self._held[name] = like.new_empty(len(like), width)
        return held[: len(like)]
