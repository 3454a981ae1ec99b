"""The measured sweeps, and the sample of their cells that is timed one by one."""

import itertools
import random
from dataclasses import dataclass

from benchmarks.shapes import Prompts, Shape

Cell = tuple[int, ...]
ENGINES = ("wave", "suffix", "packed", "fused")  # our engines from level 1 on


@dataclass(frozen=True)
class Sweep:
    """A map of patches.

    Attributes:
        site: name of the patched site.
        over: axes of the map; a cell is a number for each.
        setter: name of the TransformerLens function that applies such a patch.
    """

    site: str
    over: tuple[str, ...]
    setter: str

    @property
    def name(self) -> str:
        """The name in tables."""
        return f"{self.site}, {' x '.join(self.over)}"

    def cells(self, shape: Shape, width: int) -> list[Cell]:
        """All cells in the order of the map."""
        sizes = {"layer": shape.n_layers, "pos": width, "head": shape.n_heads}
        return list(itertools.product(*(range(sizes[axis]) for axis in self.over)))

    def place(self, cell: Cell) -> tuple[slice | int, ...]:
        """The index of a cell in an activation ``[prompt, pos, ...]``."""
        at = dict(zip(self.over, cell, strict=True))
        pos = at.get("pos", slice(None))
        return (slice(None), pos, at["head"]) if "head" in at else (slice(None), pos)

    def sample(self, shape: Shape, pairs: Prompts, n: int) -> list[Cell]:
        """Random cells; half of them, rounded up, from the first difference of the prompts on."""
        cells = self.cells(shape, pairs.width)
        if "pos" not in self.over:
            return random.Random(0).sample(cells, min(n, len(cells)))
        axis = self.over.index("pos")
        changed = [cell for cell in cells if cell[axis] >= pairs.first]
        draw = random.Random(0)
        chosen = draw.sample(changed, min((n + 1) // 2, len(changed)))
        rest = sorted(set(cells) - set(chosen))
        return chosen + draw.sample(rest, min(n - len(chosen), len(rest)))


RESID_PRE = Sweep("resid_pre", ("layer", "pos"), "layer_pos_patch_setter")
ATTN_OUT = Sweep("attn_out", ("layer", "pos"), "layer_pos_patch_setter")
MLP_OUT = Sweep("mlp_out", ("layer", "pos"), "layer_pos_patch_setter")
Z_HEAD = Sweep("z", ("layer", "head"), "layer_head_vector_patch_setter")
Z_POS_HEAD = Sweep("z", ("layer", "pos", "head"), "layer_pos_head_vector_patch_setter")
HEADLINE = (RESID_PRE, ATTN_OUT, MLP_OUT, Z_HEAD, Z_POS_HEAD)
GRID = (RESID_PRE, Z_HEAD, Z_POS_HEAD)
