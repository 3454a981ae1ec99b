"""The measured results as Markdown, from the JSON files beside them: ``python -m benchmarks.tables``."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import results
from benchmarks.sweeps import ENGINES

_TIMES = "\u00d7"
_INTRO = """# Benchmark results

`python -m benchmarks.tables` writes this page from the JSON files in this folder; do not edit it. Every ratio depends
on the machine, the length of the prompts, the position at which clean and corrupted differ, and the batch; the
conditions precede each table.
"""
_HEADLINE = """## Patching, headline condition

Seconds for a whole sweep, and in brackets the speed relative to TransformerLens {version}. The *floor* is the
arithmetic of any exact method. *Share of peak* (of the highest level) is the floor's arithmetic over the seconds times
{peak:.0f} GFLOP/s, the fastest float32 product measured on one thread of this machine; the *floor ratio* is the speed
of a method that ran the floor's arithmetic at that peak.
"""
_BRIDGE = """### On the bridge of TransformerLens {version}

In a separate process, run directly afterwards. MechXAI runs on the bridge object itself, of whose weights `packed`
changes only the layout of the MLPs' first ones. *Reference* is the time of the same plain torch forward pass in this
process, relative to the first process.
"""
_NNSIGHT = """### nnsight {version}, several invokes in one trace

In a separate environment, on Hugging Face's GPT-2 of the same shape, with at most 64 invokes per trace; sweeps of more
than 192 cells are scaled from 192. *Matched* is the time divided by the reference ratio, with its ratio to
TransformerLens {lens}.
"""
_MEMORY = """### Peak memory

Peak resident MiB above the process with the model ready ({ready:.0f} MiB), for the first call (which changes the
weights' layout and checks the level) and for a later call (above what the first call left), each in a new process.
`start_at_layer`: the first layer only, where the peak is highest; TransformerLens: two cells, one at a time.
"""
_GRID = """## Patching, other conditions

Speed of the highest level relative to TransformerLens {version}, in brackets its seconds and the share of the matrix
peak. Sweeps with an estimate above {limit:.0f} s are left out.
"""


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="from the quick results")
    quick = parser.parse_args().quick
    parts = [_INTRO]
    tables = {
        "patching.json": _headline,
        "patching_grid.json": _grid,
        "caching.json": _caching,
        "lens.json": _lens,
        "lens_training.json": _lens_training,
        "probes.json": _probes,
        "attribution.json": _attribution,
        "circuits.json": _circuits,
        "chains.json": _chains,
        "gpu.json": _gpu,
        "gpu_graphs.json": _graphs,
        "explorer.json": _explorer,
    }
    for name, table in tables.items():
        payload = _read(name, quick=quick)
        parts += table(payload) if payload else ()
    target = results("README.md", quick=quick)
    target.write_text("\n".join(parts).rstrip() + "\n")
    print(f"written to {target}", file=sys.stderr)


def _headline(payload: Mapping[str, Any]) -> Iterator[str]:
    known, rows = payload["conditions"], payload["rows"]
    peak = max(known["matrix_peak_gflops"].values())
    yield _HEADLINE.format(version=known["versions"]["transformer-lens"], peak=peak)
    yield from _conditions(known)
    engines = [name for name in ENGINES if name in rows[0]["contenders"]]
    head = ["sweep (cells)", "TransformerLens", "start_at_layer", *_levels(engines)]
    head += ["share of peak", "floor, GFLOP", "floor ratio", "largest difference"]
    body = []
    for row in rows:
        each = row["contenders"]
        lens, best = each["TransformerLens"]["seconds"], each[engines[-1]]
        timed = [_timed(each[name]) for name in ("start_at_layer", *engines)]
        errors = max(each[name]["largest_difference"] for name in ("start_at_layer", *engines))
        limit = lens * peak / row["floor_gflop"]
        quality = [f"{best['share_of_peak']:.0%}", f"{row['floor_gflop']:.1f}", f"{limit:.0f}{_TIMES}", f"{errors:.0e}"]
        body.append([_name(row), f"{lens:.3g} s", *timed, *quality])
    yield _table(head, body)
    yield "First call of each level, which includes its check against level 0 (once per model and kind of sweep), but "
    yield f"not reading the weights and changing their layout (once per model): {known['ready_seconds']:.2g} s.\n"
    firsts = [
        [_name(row), *(f"{row['contenders'][name]['first_call_seconds']:.3g} s" for name in engines)] for row in rows
    ]
    yield _table(["sweep (cells)", *_levels(engines)], firsts)
    yield from _memory(payload["memory"])
    yield from _bridge(payload.get("bridge", {}))
    yield from _nnsight(payload.get("nnsight", {}), rows, known)


def _memory(payload: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    names = list(payload[0]["contenders"])
    left_out = [each["left_out"] for row in payload for each in row["contenders"].values() if "left_out" in each]
    if left_out:
        yield f"### Peak memory\n\nOmitted: {left_out[0]}\n"
        return
    yield _MEMORY.format(ready=payload[0]["contenders"]["auto"]["model_mib"])
    head = [
        "sweep",
        *(f"{'ours' if name == 'auto' else name}, {when}" for name in names for when in ("first", "later")),
    ]
    body = []
    for row in payload:
        each = [row["contenders"][name] for name in names]
        body.append(
            [row["sweep"], *(f"{entry[key]:.0f}" for entry in each for key in ("first_call_mib", "later_call_mib"))]
        )
    yield _table(head, body)


def _bridge(payload: Mapping[str, Any]) -> Iterator[str]:
    if "rows" not in payload:
        yield f"### On the bridge\n\nOmitted: {payload.get('left_out', 'not run')}\n"
        return
    yield _BRIDGE.format(version=payload["conditions"]["versions"]["transformer-lens"])
    engines = [name for name in ENGINES if name in payload["rows"][0]["contenders"]]
    body = []
    for row in payload["rows"]:
        each = row["contenders"]
        error = max(each[name]["largest_difference"] for name in engines)
        body.append([_name(row), f"{each['bridge']['seconds']:.3g} s", *(_timed(each[name]) for name in engines)])
        body[-1] += [f"{error:.0e}", f"{row.get('reference_ratio', float('nan')):.2f}"]
    yield _table(["sweep (cells)", "bridge", *_levels(engines), "largest difference", "reference"], body)


def _nnsight(payload: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], known: Mapping[str, Any]) -> Iterator[str]:
    if "rows" not in payload:
        yield f"### nnsight\n\nOmitted: {payload.get('left_out', 'not run')}\n"
        return
    lens = {row["sweep"]: row["contenders"]["TransformerLens"]["seconds"] for row in rows}
    yield _NNSIGHT.format(
        version=payload["conditions"]["versions"]["nnsight"], lens=known["versions"]["transformer-lens"]
    )
    body = []
    for row in payload["rows"]:
        entry = row["contenders"]["nnsight"]
        matched = f"{entry['matched_seconds']:.3g} s ({lens[row['sweep']] / entry['matched_seconds']:.3g}{_TIMES})"
        error = f"{entry['largest_difference_from_hooks']:.0e}"
        body.append([_name(row), f"{entry['seconds']:.3g} s", matched, error, f"{row['reference_ratio']:.2f}"])
    yield _table(["sweep (cells)", "nnsight", "matched", "difference from plain hooks", "reference"], body)


def _grid(payload: Mapping[str, Any]) -> Iterator[str]:
    known, rows = payload["conditions"], payload["rows"]
    yield _GRID.format(version=known["versions"]["transformer-lens"], limit=known["limit"])
    yield from _conditions(known)
    for shape in dict.fromkeys(row["shape"] for row in rows):
        mine = [row for row in rows if row["shape"] == shape]
        sweeps = list(dict.fromkeys(row["sweep"] for row in mine))
        places = list(dict.fromkeys((row["tokens"], row["prompts"], row["difference"], row["first"]) for row in mine))
        by_place = {(row["tokens"], row["prompts"], row["difference"], row["sweep"]): row for row in mine}
        body = [
            [str(tokens), str(n), f"{place} ({first})", *(_cell(by_place[tokens, n, place, sweep]) for sweep in sweeps)]
            for tokens, n, place, first in places
        ]
        yield f"### {shape[0].upper()}{shape[1:]}\n"
        yield _table(["tokens", "prompts", "difference", *sweeps], body)
    errors = [row["largest_difference"] for row in rows if "largest_difference" in row]
    left_out = sum("skipped" in row for row in rows)
    yield f"Largest difference from TransformerLens: {max(errors):.0e}. Omitted: {left_out} of {len(rows)}.\n"


def _caching(payload: Mapping[str, Any]) -> Iterator[str]:
    yield "## Cached activations\n"
    yield from _conditions(payload["conditions"])
    (ours,) = (row["seconds"] for row in payload["rows"] if row["case"] == "model.cache")
    body = []
    for row in payload["rows"]:
        times = f"{row['seconds'] / ours:.3g}{_TIMES}"
        memory = [f"{row[key]:.0f}" for key in ("peak_mib", "result_mib")]
        body.append([row["case"], f"{row['seconds']:.3g} s", times, *memory, f"{row['difference']:.0e}"])
    yield _table(["method", "seconds", "relative", "peak, MiB", "of which result", "difference"], body)


def _lens(payload: Mapping[str, Any]) -> Iterator[str]:
    (row,) = payload["rows"]
    yield f"## The logit lens against TransformerLens {payload['conditions']['versions']['transformer-lens']}\n"
    yield from _conditions(payload["conditions"])
    ours = row["contenders"]["ours"]["seconds"]
    body = [
        [name, f"{entry['seconds']:.3g} s", f"{entry['seconds'] / ours:.3g}{_TIMES}"]
        for name, entry in row["contenders"].items()
        if name != "reference"
    ]
    yield _table(["method", "seconds", "relative"], body)
    yield f"Largest difference in the log-probability of the target: {row['largest_difference']:.0e} nats.\n"


def _probes(payload: Mapping[str, Any]) -> Iterator[str]:
    yield "## Linear probes at every layer and position against a loop over scikit-learn\n"
    yield from _conditions(payload["conditions"])
    for row in payload["rows"]:
        yield f"### {row['sweep']}\n"
        ours, each, right = row["seconds"]["ours"], row["per_probe_ms"], row["accuracy"]
        body = [
            [name, f"{seconds:.3g} s", f"{each[name]:.3g} ms", f"{seconds / ours:.3g}{_TIMES}", f"{right[name]:.3f}"]
            for name, seconds in row["seconds"].items()
        ]
        yield _table([f"method ({row['cells']} probes)", "seconds", "per probe", "relative", "mean accuracy"], body)
        mean, most = row["mean_difference_points"], row["largest_difference_points"]
        yield f"Accuracy minus scikit-learn's on the cells that both fit, in points: {mean[0]} on average,"
        yield f"{most[0]} at most (with a StandardScaler: {mean[1]} and {most[1]}; 1,000 test prompts)."
        yield f"Peak memory: {row['peak_mib']} MiB above the process before the call."
        where = ", ".join(f"{name} {spent:.2g}" for name, spent in row["where_ms"].items())
        yield f"Time of MechXAI in ms per probe: {where}. Forward passes, once, before: "
        yield f"{row['forward_seconds']:.3g} s.\n"


def _attribution(payload: Mapping[str, Any]) -> Iterator[str]:
    yield "## Attribution and attention against Captum, INSEQ, SHAP and Hugging Face\n"
    yield from _conditions(payload["conditions"])
    for row in payload["rows"]:
        yield f"### {row['sweep']}\n"
        yield _times(row["contenders"], "ours")
        yield f"Largest difference from the other libraries: {row['largest_difference']:.0e}.\n"
    for truth in payload["truth"]:
        yield f"### {truth['model']}: known relevant tokens {', '.join(truth['truth'])}\n"
        body = [
            [name.replace("_", " "), *(f"{entry[column]:.3g}" for column in entry)]
            for name, entry in truth["methods"].items()
        ]
        columns = ["AUROC", "comprehensiveness", "above random, lower bound", "sufficiency", "forward passes"]
        yield _table([f"method ({truth['prompts']} prompts)", *columns], body)
        chance = truth["random"]
        yield f"Random rankings: comprehensiveness {chance['comprehensiveness']:.3g}, "
        yield f"sufficiency {chance['sufficiency']:.3g} (logits).\n"


def _circuits(payload: Mapping[str, Any]) -> Iterator[str]:
    yield "## Edges\n"
    yield from _conditions(payload["conditions"])
    first, exact = payload["rows"]
    yield f"### {first['sweep']}\n"
    yield _times(first["contenders"], "ours, EAP")
    yield f"Largest difference from TransformerLens: {first['largest_difference']:.0e}.\n"
    for name, package in first.get("packages", {}).items():
        apart = package.get("largest_difference", {})
        text = package.get("left_out") or ", ".join(f"{label} {value:.0e}" for label, value in apart.items())
        yield f"{name}: {'left out, ' if 'left_out' in package else 'largest difference from MechXAI: '}{text}.\n"
    yield f"### {exact['sweep']}\n"
    yield f"{exact['seconds']:.3g} s; one forward pass per edge would take {exact['one_forward_each']:,.0f} s.\n"
    yield "### Agreement of estimates with exact effects\n"
    names = list(payload["agreement"][0]["estimates"])
    body = [
        [f"{row['model']}, {row['task']}", f"{row['edges']:,}"]
        + [f"{row['estimates'][name]['spearman']:.2f}, {row['estimates'][name]['top']:.2f}" for name in names]
        for row in payload["agreement"]
    ]
    yield _table(["model, task", "edges", *(f"{name}: Spearman, overlap at the top" for name in names)], body)
    yield "### Agreement of attribution patching with the exact effect of heads (Spearman)\n"
    ways = list(payload["heads"][0]["estimates"])
    body = [
        [f"{row['model']}, {row['task']}", row["site"], str(row["heads"])]
        + [f"{row['estimates'][way]:.2f}" for way in ways]
        for row in payload["heads"]
    ]
    yield _table(["model, task", "site", "heads", *ways], body)


def _chains(payload: Mapping[str, Any]) -> Iterator[str]:
    yield "## Chains of thought\n"
    yield from _conditions(payload["conditions"])
    models = payload["models"]
    interval = lambda value: f"{value[0]:.2f} ({value[1]:.2f} to {value[2]:.2f})"  # noqa: E731
    labels = next(iter(models.values()))["values"]
    body = [[label, *(interval(measurements["values"][label]) for measurements in models.values())] for label in labels]
    yield _table(["measured", *models], body)


def _gpu(payload: Mapping[str, Any]) -> Iterator[str]:
    yield "## On a GPU\n"
    yield from _conditions(payload["conditions"])
    names = list(payload["rows"][0]["contenders"])
    body = [
        [
            row["sweep"],
            *(f"{row['contenders'][name]['seconds']:.3g} s" for name in names),
            f"{row['ratio']:.3g}{_TIMES}",
            f"{row['largest_difference']:.0e}",
        ]
        for row in payload["rows"]
    ]
    yield _table(["sweep", *names, "relative to TransformerLens", "largest difference"], body)
    edges = payload["edges"]
    yield f"All {edges['exact']['edges']:,} edges, one pair of 16 tokens:\n"
    kinds = [name for name, entry in edges.items() if isinstance(entry, Mapping)]
    yield _table(["scores", "seconds"], [[name, f"{edges[name]['seconds']:.3g} s"] for name in kinds])
    if "largest_difference_from_cpu" in edges:
        yield f"EAP differs from the CPU by {edges['largest_difference_from_cpu']:.0e} at most.\n"
    half = payload["bfloat16"]
    yield f"In bfloat16, {half['sweep']}: {half['seconds']:.3g} s, noise floor {half['noise_floor']:.3g} logits.\n"


def _graphs(payload: Mapping[str, Any]) -> Iterator[str]:
    yield "## CUDA graphs and torch.compile, one wave\n"
    yield "Speed relative to the same wave in eager mode, GPT-2-small.\n"
    yield from _conditions(payload["conditions"])
    body = [
        [
            row["dtype"],
            str(row["prompts"]),
            f"{row['eager_ms']:.3g} ms",
            f"{row['graph_gain']:.3g}{_TIMES}",
            f"{row['compile_gain']:.3g}{_TIMES}",
            f"{row['compile_s']:.3g} s",
        ]
        for row in payload["rows"]
    ]
    yield _table(["dtype", "prompts in the wave", "eager", "CUDA graph", "compiled", "compile time"], body)


def _explorer(payload: Mapping[str, Any]) -> Iterator[str]:
    yield "## The explorer, headless Chromium\n"
    yield from _conditions(payload["conditions"])
    body = [[what, f"{value:,.0f} ms"] for what, value in payload["milliseconds"].items()]
    yield _table(["event", "median until drawn"], body)


def _times(contenders: Mapping[str, Any], ours: str) -> str:
    """Seconds of every contender, and their ratio to ours."""
    ours_seconds = contenders[ours]["seconds"]
    return _table(
        ["method", "seconds", "relative"],
        [
            [name, f"{entry['seconds']:.3g} s", f"{entry['seconds'] / ours_seconds:.3g}{_TIMES}"]
            for name, entry in contenders.items()
            if name != "reference"
        ],
    )


def _lens_training(payload: Mapping[str, Any]) -> Iterator[str]:
    (row,) = payload["rows"]
    yield "## Training a tuned lens against the tuned-lens package\n"
    yield from _conditions(payload["conditions"])
    body = [
        [
            {"theirs": "tuned-lens", "ours": "ours"}[name],
            f"{entry['tokens_per_second']:.3g}",
            f"{entry['peak_mib']:.0f}",
        ]
        for name, entry in row["contenders"].items()
    ]
    yield _table(["way", "tokens/s", "peak memory above the start, MiB"], body)
    apart = row["largest_relative_difference"]
    yield f"{row['ratio']}{_TIMES}; the losses of every step differ by at most {apart:.0e}.\n"


def _cell(row: Mapping[str, Any]) -> str:
    if "skipped" in row:
        return "-"
    level = "" if row["ran"] == "level 4" else f", {row['ran']}"
    return (
        f"{row['ratio']:.3g}{_TIMES} ({row['contenders']['auto']['seconds']:.2g} s, {row['share_of_peak']:.0%}{level})"
    )


def _conditions(known: Mapping[str, Any]) -> Iterator[str]:
    yield "".join(f"- {name.replace('_', ' ')}: {_plain(value)}\n" for name, value in known.items())


def _plain(value: object) -> str:
    return ", ".join(f"{name} {entry}" for name, entry in value.items()) if isinstance(value, dict) else str(value)


def _levels(engines: Iterable[str]) -> list[str]:
    return [f"level {ENGINES.index(name) + 1} `{name}`" for name in engines]


def _timed(payload: Mapping[str, Any]) -> str:
    fell = f", fell back to {payload['ran']}" if "fell_back" in payload else ""
    return f"{payload['seconds']:.3g} s ({payload['ratio']:.3g}{_TIMES}{fell})"


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['sweep']} ({row['cells']:,})"


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _read(name: str, *, quick: bool) -> dict[str, Any]:
    path: Path = results(name, quick=quick)
    payload = json.loads(path.read_text()) if path.exists() else {}
    first = (payload.get("rows") or [{}])[0]
    whole = {"contenders", "seconds", "graph_gain"} & set(first) or {"models", "milliseconds"} & set(payload)
    return payload if "conditions" in payload and whole else {}


if __name__ == "__main__":
    main()
