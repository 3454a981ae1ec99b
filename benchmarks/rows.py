"""One sweep as a row of a table: all contenders of a process in rotation, and every level of ours."""

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
    """The size of a benchmark run.

    Attributes:
        quick: a small shape; the times are meaningless, the values must still agree.
        sample: number of TransformerLens cells that are timed.
        repeats: rounds.
    """

    quick: bool
    sample: int
    repeats: int

    @property
    def shape(self) -> Shape:
        """The shape of the headline."""
        return GPT2_SMALL.quick() if self.quick else GPT2_SMALL

    @property
    def prompts(self) -> Prompts:
        """The prompts of the headline: 16 tokens, one pair that differs at position 10."""
        return prompts(self.shape)

    def arguments(self) -> list[str]:
        """The command-line arguments for a subprocess."""
        return [*(["--quick"] if self.quick else []), f"--sample={self.sample}", f"--repeats={self.repeats}"]


def options(doc: str) -> argparse.ArgumentParser:
    """The argument parser that all benchmarks share."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--quick", action="store_true", help="small shapes; results go to outputs/bench-quick")
    parser.add_argument("--sample", type=int, default=12, help="cells of TransformerLens that are timed")
    parser.add_argument("--repeats", type=int, default=3, help="rounds")
    return parser


def parse_settings(arguments: argparse.Namespace) -> Settings:
    """The settings from the command line."""
    return Settings(
        arguments.quick, min(arguments.sample, 3) if arguments.quick else arguments.sample, arguments.repeats
    )


def sweep_row(
    model: mx.HookedModel, settings: Settings, sweep: Sweep, *, others: Mapping[str, Callable[[], Run]], baseline: str
) -> dict[str, object]:
    """Seconds of every contender, of the first call of each level (which checks it), and the differences of values.

    Args:
        model: ours.
        settings: size of the run.
        sweep: the sweep.
        others: name -> a run of the sweep.
        baseline: the name of the run that the others are compared with, in time and in values.
    """
    shape, pairs = settings.shape, settings.prompts
    batch = peers.as_batch(pairs)
    levels = peers.engines(model, batch, sweep)
    first = {engine: peers.ours(model, batch, sweep, engine).spent for engine in levels}
    mine = {engine: (lambda engine=engine: peers.ours(model, batch, sweep, engine)) for engine in levels}
    runs = interleaved({**others, **mine}, settings.repeats)
    contenders: dict[str, dict[str, object]] = {}
    for name, every in runs.items():
        contenders[name] = summary(every)
        if name != baseline and every[0].values:
            contenders[name]["ratio"] = digits(median(runs[baseline]) / median(every), 3)
            contenders[name]["largest_difference"] = largest_difference(every, runs[baseline])
    for engine in levels:
        contenders[engine] |= {"first_call_seconds": digits(first[engine]), "ran": runs[engine][-1].note}
        if runs[engine][-1].note != _level(engine):
            contenders[engine]["fell_back"] = True
    row = {
        "sweep": sweep.name,
        "cells": len(sweep.cells(shape, pairs.width)),
        "floor_gflop": digits(sweep_flops(shape, pairs, sweep) / 1e9),
        "contenders": contenders,
    }
    show(row)
    return row


def _level(engine: str) -> str:
    return f"level {1 + ENGINES.index(engine)}"


def show(row: Mapping[str, dict]) -> None:
    """Prints a row."""
    parts = []
    for name, contender in row["contenders"].items():
        ratio = f" {contender['ratio']}x, off by {contender['largest_difference']:.0e}" if "ratio" in contender else ""
        fell = f", fell back to {contender['ran']}" if "fell_back" in contender else ""
        parts.append(f"  {name}: {contender['seconds']} s{ratio}{fell}")
    print(f"{row['sweep']} ({row['cells']} cells)", *parts, sep="\n", flush=True)
