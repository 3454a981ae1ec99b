"""nnsight's batched form, several invokes in one trace: run by an environment of its own, ends with a line of JSON.

Its values are compared with plain PyTorch hooks on the same Hugging Face model. The environment is ``.venv-nnsight``
with ``pip install nnsight``; it needs none of this package's other dependencies.
"""

import argparse
import json
import time
import warnings
from collections.abc import Sequence

import torch
from nnsight import TransformersModel
from torch import Tensor

from benchmarks.machine import Reference, conditions, one_thread, summary
from benchmarks.shapes import GPT2_SMALL, Prompts, Shape, hugging_face, one_token, prompts
from benchmarks.sweeps import HEADLINE, Cell, Sweep
from benchmarks.timing import Run, interleaved, largest_difference

_CELLS = 192  # at random of larger sweeps: every cell costs the same
_INVOKES = 64  # in one trace


def main() -> None:
    """Prints the rows."""
    options = argparse.ArgumentParser()
    options.add_argument("--quick", action="store_true")
    options.add_argument("--sample", type=int, default=12)
    options.add_argument("--repeats", type=int, default=3)
    asked = options.parse_args()
    one_thread()
    warnings.simplefilter("ignore")
    shape = GPT2_SMALL.quick() if asked.quick else GPT2_SMALL
    model = TransformersModel(hugging_face(shape), task="text-generation", tokenizer=one_token())
    given = prompts(shape)
    peer = _Peer(model, shape, given)
    reference = Reference(shape)
    rows = [row(peer, reference, sweep=sweep, sample=asked.sample, repeats=asked.repeats) for sweep in HEADLINE]
    known = conditions("python -m benchmarks.patching --nnsight") | {"shape": str(shape)}
    print(json.dumps({"conditions": known, "rows": rows}))


def row(peer: "_Peer", reference: Reference, *, sweep: Sweep, sample: int, repeats: int) -> dict[str, object]:
    """One sweep: seconds, and how far from plain hooks."""
    cells = sweep.sample(peer.shape, peer.given, _CELLS)
    hooked = peer.hooked(sweep, cells[:sample])
    runs = interleaved({"reference": reference.run, "nnsight": lambda: peer.traced(sweep, cells)}, repeats)
    found = {name: summary(every) for name, every in runs.items()}
    error = largest_difference(runs["nnsight"], [hooked])
    found["nnsight"] |= {"cells_timed": len(cells), "largest_difference_from_hooks": error}
    return {"sweep": sweep.name, "cells": len(sweep.cells(peer.shape, peer.given.width)), "contenders": found}


class _Peer:
    def __init__(self, model: TransformersModel, shape: Shape, given: Prompts) -> None:
        self.model, self.shape, self.given = model, shape, given

    def traced(self, sweep: Sweep, cells: Sequence[Cell]) -> Run:
        """Cells as invokes, scaled to all of the sweep."""
        start = time.perf_counter()
        source = self._source(sweep.site)
        cached = time.perf_counter()
        values: dict[Cell, float] = {}
        for first in range(0, len(cells), _INVOKES):
            values |= self._trace(sweep, cells[first : first + _INVOKES], source)
        end = time.perf_counter()
        whole = len(sweep.cells(self.shape, self.given.width))
        return Run((cached - start) + (end - cached) * whole / len(cells), end - start, values)

    def _source(self, site: str) -> list[Tensor]:
        model, blocks = self.model, self.model.transformer.h
        kept = []
        with model.trace(self.given.clean):
            for layer in range(self.shape.n_layers):
                if site == "resid_pre":
                    kept.append(blocks[layer].input.save())
                elif site == "z":
                    kept.append(blocks[layer].attn.c_proj.input.save())
                elif site == "attn_out":
                    kept.append(blocks[layer].attn.output[0].save())
                else:
                    kept.append(blocks[layer].mlp.output.save())
        return kept

    def _trace(self, sweep: Sweep, cells: Sequence[Cell], source: Sequence[Tensor]) -> dict[Cell, float]:
        model, blocks, given, site = self.model, self.model.transformer.h, self.given, sweep.site
        found = {}
        with model.trace() as tracer:
            for cell in cells:
                with tracer.invoke(given.corrupted):
                    layer, place = cell[0], self._place(sweep, cell)
                    if site == "resid_pre":
                        blocks[layer].input[place] = source[layer][place]
                    elif site == "z":
                        blocks[layer].attn.c_proj.input[place] = source[layer][place]
                    elif site == "attn_out":
                        blocks[layer].attn.output[0][place] = source[layer][place]
                    else:
                        blocks[layer].mlp.output[place] = source[layer][place]
                    found[cell] = given.difference(model.lm_head.output[:, -1]).save()
        return {cell: float(value) for cell, value in found.items()}

    def hooked(self, sweep: Sweep, cells: Sequence[Cell]) -> Run:
        """The same with PyTorch's own hooks, for its values."""
        model = hugging_face(self.shape)
        return Run(0.0, 0.0, {cell: self._hooked(model, sweep, cell) for cell in cells})

    def _hooked(self, model: torch.nn.Module, sweep: Sweep, cell: Cell) -> float:
        block, place = model.transformer.h[cell[0]], self._place(sweep, cell)
        kept: list[Tensor] = []

        def patch(activation: Tensor) -> Tensor:
            if not kept:
                kept.append(activation.clone())
                return activation
            edited = activation.clone()
            edited[place] = kept[0][place]
            return edited

        if sweep.site in ("resid_pre", "z"):
            module = block if sweep.site == "resid_pre" else block.attn.c_proj
            handle = module.register_forward_pre_hook(lambda _, inputs: (patch(inputs[0]), *inputs[1:]))
        elif sweep.site == "attn_out":
            handle = block.attn.register_forward_hook(lambda *found: (patch(found[2][0]), *found[2][1:]))
        else:
            handle = block.mlp.register_forward_hook(lambda *found: patch(found[2]))
        model(self.given.clean)
        logits = model(self.given.corrupted).logits
        handle.remove()
        return float(self.given.difference(logits[:, -1]))

    def _place(self, sweep: Sweep, cell: Cell) -> tuple[slice | int, ...]:
        """Heads lie side by side here."""
        place = sweep.place(cell)
        if "head" not in sweep.over:
            return place
        first = place[2] * self.shape.d_head
        return (*place[:2], slice(first, first + self.shape.d_head))


if __name__ == "__main__":
    main()
