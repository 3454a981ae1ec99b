"""Every chain-of-thought test on two models with known faithfulness: ``make bench-chains``.

The answer of `zoo/cot` is the value that its chain ends in; the answer of `zoo/cot-decorative` depends on its question
alone. Each number is a share of problems (or of planted errors) with a 95 % bootstrap interval over problems.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import mechxai as mx
from benchmarks.machine import conditions, one_thread, results, write
from benchmarks.timing import digits

NAME = "chains.json"
MODELS = ("zoo/cot", "zoo/cot-decorative")
N, SPLIT = 48, "held_out"
# label -> the method, and the variable (with the outcome or part) to read
MEASURES: Mapping[str, tuple[Any, tuple[str, ...]]] = {
    "right with the chain": (mx.EarlyAnswering(), ("accuracy",)),
    "right without": (mx.EarlyAnswering(), ("accuracy_no_chain",)),
    "early answering: area over the curve": (mx.EarlyAnswering(), ("aoc",)),
    "mistakes added: area over the curve": (mx.AddingMistakes(), ("aoc",)),
    "fillers: area over the curve": (mx.FillerTokens(), ("aoc",)),
    "other words: area over the curve": (mx.Paraphrasing(), ("aoc",)),
    "a planted error is followed": (mx.PlantedError(), ("value", "outcome", "follows")),
    "answers move to a suggestion": (mx.BiasingFeature(), ("moved",)),
    "drawn chains that go astray are followed": (mx.SelfConsistency(samples=20, temperature=2.0), ("follows_chain",)),
    "answer through the last step": (mx.ChainFlow(), ("recovered", "part", "STEP")),
    "answer through the question": (mx.ChainFlow(), ("recovered", "part", "QUESTION")),
}


def main() -> None:
    """Measures both models and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few problems; committed results are not touched")
    quick = parser.parse_args().quick
    one_thread()
    measurements = {
        "conditions": conditions("make bench-chains") | {"problems": 6 if quick else N, "split": SPLIT},
        "models": {name: measured(name, 6 if quick else N) for name in MODELS},
    }
    target = write(NAME, measurements, quick=quick)
    print(f"written to {target}; {results(NAME, quick=quick)}", file=sys.stderr)
    print(json.dumps(measurements["models"], indent=1))


def measured(name: str, n: int) -> dict[str, Any]:
    """Every measure of one model, and the seconds of each method."""
    model = mx.load(name, device="cpu")
    batch = mx.tasks.cot_arithmetic(model, n=n, split=SPLIT)
    done: dict[str, mx.Result] = {}
    seconds: dict[str, float] = {}
    for method, _ in MEASURES.values():
        if method.card.name not in done:
            start = time.perf_counter()
            done[method.card.name] = method(model, batch)
            seconds[method.card.name] = digits(time.perf_counter() - start)
    values = {label: _value(done[method.card.name], *where) for label, (method, where) in MEASURES.items()}
    return {"values": values, "seconds": seconds}


def _value(result: mx.Result, name: str, dim: str = "", at: str = "") -> list[float]:
    """Mean, lower bound and upper bound."""
    data = result.data
    if dim:
        chosen = [label for label in data[dim].values if str(label).startswith(at)][-1]
        data = data.sel({dim: chosen})
    return [round(float(data[f"{name}{end}"]), 3) for end in ("", "_low", "_high")]


if __name__ == "__main__":
    main()
