"""One sweep as a row of a table: all contenders of a process turn by turn, and every level of ours."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import mechxai as mx
from benchmarks import peers
from benchmarks.floor import sweep_flops
from benchmarks.machine import summary
from benchmarks.shapes import GPT2_SMALL, Prompts, Shape, prompts
from benchmarks.sweeps import ENGINES, Sweep
from benchmarks.timing import Run, digits, interleaved, largest_difference, median


@dataclass(frozen=True)
class Settings:
    """How much is run.

    Attributes:
        quick: on a cut-down shape; the figures mean nothing, the values must still agree.
        sample: cells of TransformerLens that are timed.
        repeats: rounds.
    """

    quick: bool
    sample: int
    repeats: int

    @property
    def shape(self) -> Shape:
        """Of the headline."""
        return GPT2_SMALL.quick() if self.quick else GPT2_SMALL

    @property
    def prompts(self) -> Prompts:
        """Of the headline: 16 tokens, one pair that differs at position 10."""
        return prompts(self.shape)

    def arguments(self) -> list[str]:
        """For a process of its own."""
        return [*(["--quick"] if self.quick else []), f"--sample={self.sample}", f"--repeats={self.repeats}"]


def options(doc: str) -> argparse.ArgumentParser:
    """What every benchmark takes."""
    found = argparse.ArgumentParser(description=doc)
    found.add_argument("--quick", action="store_true", help="cut-down shapes; results go to outputs/bench-quick")
    found.add_argument("--sample", type=int, default=12, help="cells of TransformerLens that are timed")
    found.add_argument("--repeats", type=int, default=3, help="rounds")
    return found


def settings(asked: argparse.Namespace) -> Settings:
    """From the command line."""
    return Settings(asked.quick, min(asked.sample, 3) if asked.quick else asked.sample, asked.repeats)


def sweep_row(
    model: mx.HookedModel, asked: Settings, sweep: Sweep, *, others: Mapping[str, Callable[[], Run]], baseline: str
) -> dict[str, object]:
    """Seconds of every contender; of ours also the first call's, which checks each level, and the values' distance.

    Args:
        model: ours.
        asked: how much to run.
        sweep: the sweep.
        others: name -> a run of the sweep.
        baseline: the one of them that the rest are compared with, in time and in values.
    """
    shape, given = asked.shape, asked.prompts
    batch = peers.as_batch(given)
    levels = peers.engines(model, batch, sweep)
    first = {engine: peers.ours(model, batch, sweep, engine).spent for engine in levels}
    mine = {engine: (lambda engine=engine: peers.ours(model, batch, sweep, engine)) for engine in levels}
    runs = interleaved({**others, **mine}, asked.repeats)
    found: dict[str, dict[str, object]] = {}
    for name, every in runs.items():
        found[name] = summary(every)
        if name != baseline and every[0].values:
            found[name]["ratio"] = digits(median(runs[baseline]) / median(every), 3)
            found[name]["largest_difference"] = largest_difference(every, runs[baseline])
    for engine in levels:
        found[engine] |= {"first_call_seconds": digits(first[engine]), "ran": runs[engine][-1].note}
        if runs[engine][-1].note != _level(engine):
            found[engine]["fell_back"] = True
    row = {
        "sweep": sweep.name,
        "cells": len(sweep.cells(shape, given.width)),
        "floor_gflop": digits(sweep_flops(shape, given, sweep) / 1e9),
        "contenders": found,
    }
    show(row)
    return row


def _level(engine: str) -> str:
    return f"level {1 + ENGINES.index(engine)}"


def show(row: Mapping[str, dict]) -> None:
    """A row on the screen."""
    parts = []
    for name, found in row["contenders"].items():
        ratio = f" {found['ratio']}x, off by {found['largest_difference']:.0e}" if "ratio" in found else ""
        fell = f", fell back to {found['ran']}" if "fell_back" in found else ""
        parts.append(f"  {name}: {found['seconds']} s{ratio}{fell}")
    print(f"{row['sweep']} ({row['cells']} cells)", *parts, sep="\n", flush=True)
