"""Patching with nnsight's batched invokes in one trace, in an environment of its own; prints one line of JSON.

Its values are compared with plain PyTorch hooks on the same Hugging Face model. The environment is ``.venv-nnsight``
with ``pip install nnsight``; it needs no other dependency of this package.
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

_CELLS = 192  # sample size for larger sweeps; every cell costs the same
_INVOKES = 64  # per trace


def main() -> None:
    """Prints the rows as JSON."""
    options = argparse.ArgumentParser()
    options.add_argument("--quick", action="store_true")
    options.add_argument("--sample", type=int, default=12)
    options.add_argument("--repeats", type=int, default=3)
    arguments = options.parse_args()
    one_thread()
    warnings.simplefilter("ignore")
    shape = GPT2_SMALL.quick() if arguments.quick else GPT2_SMALL
    model = TransformersModel(hugging_face(shape), task="text-generation", tokenizer=one_token())
    pairs = prompts(shape)
    peer = _Peer(model, shape, pairs)
    reference = Reference(shape)
    rows = [row(peer, reference, sweep=sweep, sample=arguments.sample, repeats=arguments.repeats) for sweep in HEADLINE]
    known = conditions("python -m benchmarks.patching --nnsight") | {"shape": str(shape)}
    print(json.dumps({"conditions": known, "rows": rows}))


def row(peer: "_Peer", reference: Reference, *, sweep: Sweep, sample: int, repeats: int) -> dict[str, object]:
    """One sweep: seconds, and the difference from plain hooks."""
    cells = sweep.sample(peer.shape, peer.pairs, _CELLS)
    hooked = peer.hooked(sweep, cells[:sample])
    runs = interleaved({"reference": reference.run, "nnsight": lambda: peer.traced(sweep, cells)}, repeats)
    contenders = {name: summary(every) for name, every in runs.items()}
    error = largest_difference(runs["nnsight"], [hooked])
    contenders["nnsight"] |= {"cells_timed": len(cells), "largest_difference_from_hooks": error}
    return {"sweep": sweep.name, "cells": len(sweep.cells(peer.shape, peer.pairs.width)), "contenders": contenders}


class _Peer:
    def __init__(self, model: TransformersModel, shape: Shape, pairs: Prompts) -> None:
        self.model, self.shape, self.pairs = model, shape, pairs

    def traced(self, sweep: Sweep, cells: Sequence[Cell]) -> Run:
        """Runs cells as invokes; the time is scaled to the whole sweep."""
        start = time.perf_counter()
        source = self._source(sweep.site)
        cached = time.perf_counter()
        values: dict[Cell, float] = {}
        for first in range(0, len(cells), _INVOKES):
            values |= self._trace(sweep, cells[first : first + _INVOKES], source)
        end = time.perf_counter()
        whole = len(sweep.cells(self.shape, self.pairs.width))
        return Run((cached - start) + (end - cached) * whole / len(cells), end - start, values)

    def _source(self, site: str) -> list[Tensor]:
        model, blocks = self.model, self.model.transformer.h
        saved = []
        with model.trace(self.pairs.clean):
            for layer in range(self.shape.n_layers):
                if site == "resid_pre":
                    saved.append(blocks[layer].input.save())
                elif site == "z":
                    saved.append(blocks[layer].attn.c_proj.input.save())
                elif site == "attn_out":
                    saved.append(blocks[layer].attn.output[0].save())
                else:
                    saved.append(blocks[layer].mlp.output.save())
        return saved

    def _trace(self, sweep: Sweep, cells: Sequence[Cell], source: Sequence[Tensor]) -> dict[Cell, float]:
        model, blocks, pairs, site = self.model, self.model.transformer.h, self.pairs, sweep.site
        values = {}
        with model.trace() as tracer:
            for cell in cells:
                with tracer.invoke(pairs.corrupted):
                    layer, place = cell[0], self._place(sweep, cell)
                    if site == "resid_pre":
                        blocks[layer].input[place] = source[layer][place]
                    elif site == "z":
                        blocks[layer].attn.c_proj.input[place] = source[layer][place]
                    elif site == "attn_out":
                        blocks[layer].attn.output[0][place] = source[layer][place]
                    else:
                        blocks[layer].mlp.output[place] = source[layer][place]
                    values[cell] = pairs.difference(model.lm_head.output[:, -1]).save()
        return {cell: float(value) for cell, value in values.items()}

    def hooked(self, sweep: Sweep, cells: Sequence[Cell]) -> Run:
        """The values of the same cells by plain PyTorch hooks."""
        model = hugging_face(self.shape)
        return Run(0.0, 0.0, {cell: self._hooked(model, sweep, cell) for cell in cells})

    def _hooked(self, model: torch.nn.Module, sweep: Sweep, cell: Cell) -> float:
        block, place = model.transformer.h[cell[0]], self._place(sweep, cell)
        clean: list[Tensor] = []

        def patch(activation: Tensor) -> Tensor:
            if not clean:
                clean.append(activation.clone())
                return activation
            edited = activation.clone()
            edited[place] = clean[0][place]
            return edited

        if sweep.site in ("resid_pre", "z"):
            module = block if sweep.site == "resid_pre" else block.attn.c_proj
            handle = module.register_forward_pre_hook(lambda _, inputs: (patch(inputs[0]), *inputs[1:]))
        elif sweep.site == "attn_out":
            handle = block.attn.register_forward_hook(lambda *call: (patch(call[2][0]), *call[2][1:]))
        else:
            handle = block.mlp.register_forward_hook(lambda *call: patch(call[2]))
        model(self.pairs.clean)
        logits = model(self.pairs.corrupted).logits
        handle.remove()
        return float(self.pairs.difference(logits[:, -1]))

    def _place(self, sweep: Sweep, cell: Cell) -> tuple[slice | int, ...]:
        """The index of a cell; here the heads lie side by side in the last dimension."""
        place = sweep.place(cell)
        if "head" not in sweep.over:
            return place
        first = place[2] * self.shape.d_head
        return (*place[:2], slice(first, first + self.shape.d_head))


if __name__ == "__main__":
    main()
