"""Level 4."""

from torch import Tensor

from mechxai.engine.chunk import Chunk
from mechxai.engine.plan import Wave


def run_fused(chunk: Chunk, wave: Wave) -> Tensor:
    raise NotImplementedError
