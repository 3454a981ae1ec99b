"""Flipped bits: a damaged file of any kind is computed again or refused, and never changes a number in silence."""

import contextlib
import io
import random
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

import mechxai as mx
from mechxai.cli import main
from mechxai.core.errors import MechXAIError
from mechxai.core.method import Method
from mechxai.core.result import Result
from mechxai.engine.progress import progress_listener
from mechxai.runs.folder import RunFolder
from tests.faults.damage import flip_bit

Values = Mapping[str, np.ndarray]
OUTCOMES = ("right", "refused", "silent", "traceback")


@dataclass(frozen=True)
class FileKind:
    """A kind of file that is read back.

    Attributes:
        name: for the report.
        pattern: of the files in the folder.
        make: writes a folder with such files.
        read: the values that come from the folder, computed again where files are damaged.
        rounding: the largest difference that computing a part again may make, in another batch than before.
    """

    name: str
    pattern: str
    make: Callable[[Path], object]
    read: Callable[[Path], Values]
    rounding: float = 0.0


class _Stopped(BaseException):
    pass


@cache
def _ioi() -> tuple[mx.HookedModel, mx.ContrastBatch]:
    model = mx.load("zoo/handmade-ioi", device="cpu")
    return model, mx.tasks.ioi(model, n=4, template=0, order="abba")


@cache
def _cot() -> tuple[mx.HookedModel, mx.ReasoningBatch]:
    model = mx.load("zoo/cot", device="cpu")
    return model, mx.tasks.cot_arithmetic(model, n=2)


def _values(result: Result) -> Values:
    return {str(name): values.values for name, values in result.data.items() if "seconds" not in str(name)}


def _computed(
    method: Method, *, cot: bool = False, interrupted: bool = False
) -> tuple[Callable[[Path], object], Callable[[Path], Values]]:
    """How to fill a folder by a method, and how to read it; an interruption leaves the state of a training."""

    def run(folder: Path) -> Values:
        model, batch = _cot() if cot else _ioi()
        return _values(method(model, batch, execution=mx.Execution(cells=folder, tokens_per_wave=256)))

    def make(folder: Path) -> None:
        steps = iter(range(3))

        def stop(share: float | None) -> None:
            if interrupted and next(steps, None) is None:
                raise _Stopped

        try:
            with progress_listener(stop):
                run(folder)
        except _Stopped:
            pass

    return make, run


def _probed() -> tuple[Callable[[Path], object], Callable[[Path], Values]]:
    """Probes whose stored activations remain and whose scores do not."""

    def run(folder: Path) -> Values:
        model = mx.load("zoo/ioi", device="cpu")
        dataset = mx.tasks.subject_number(model, n=60)
        probes = mx.LinearProbes(layers=(1,), pos=(1,), random_model=False)
        return _values(probes(model, dataset, execution=mx.Execution(cells=folder)))

    def make(folder: Path) -> None:
        run(folder)
        for scores in folder.glob("*.safetensors"):
            scores.unlink()

    return make, run


def _store(folder: Path) -> mx.ActivationStore:
    model, batch = _ioi()
    return mx.ActivationStore.write(folder, model, batch.clean.tolist(), sites=["resid_post"], shard_tokens=20)


def _stored(folder: Path) -> Values:
    store, model = _store(folder), _ioi()[0]
    layers = range(model.architecture.n_layers)
    return {str(layer): store.read(mx.Site("resid_post", layer)).numpy() for layer in layers}


def _lens(folder: Path) -> object:
    model, batch = _ioi()
    return mx.TunedLens.train(model, batch.clean, steps=2, tokens_per_step=32).save(folder / "lens")


def _read_lens(folder: Path) -> Values:
    lens = mx.TunedLens.load(folder / "lens", _ioi()[0])
    return {"A": lens.A.detach().numpy(), "b": lens.b.detach().numpy()}


def _edges() -> Result:
    return mx.EdgeAttribution()(*_ioi())


def _saved_edges(folder: Path) -> Values:
    method = mx.EvaluateCircuit(of=str(folder / "edges.nc"), fractions=(0.1,), random_draws=0)
    return _values(method(*_ioi()))


def _run(folder: Path) -> object:
    words = ["run", "debug=tiny", "model=zoo/handmade-ioi", "task.template=0", "task.order=abba", "name=own"]
    words += [f"output={folder}", "method.site=z", "method.over=[layer,head]", "tracker=none"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return main(words)


def _run_folder(folder: Path) -> RunFolder:
    (path,) = (folder / "own").glob("*/*")
    return RunFolder(path)


def _read_run(folder: Path) -> Values:
    run = _run_folder(folder)
    if run.status != "finished":
        _run(folder)
        run = _run_folder(folder)
    return _values(Result.load(run.result))


KINDS = (
    FileKind(
        "wave of a sweep", "*.safetensors", *_computed(mx.ActivationPatching(site="z", over=("layer", "head", "pos")))
    ),
    FileKind("parts of a method", "*.safetensors", *_computed(mx.AttributionPatching())),
    FileKind("attributions of a prompt", "*.safetensors", *_computed(mx.KernelShap(n_samples=40))),
    FileKind("state of edge pruning", "edge-pruning-*", *_computed(mx.EdgePruning(steps=4), interrupted=True)),
    FileKind(
        "state of a lens training",
        "training/*",
        *_computed(mx.TunedLensTraining(steps=4, tokens_per_step=64, checkpoint_every=1)),
    ),
    FileKind("activations of probes", "activations-*/*", *_probed()),
    FileKind("stored answers", "*.jsonl", *_computed(mx.EarlyAnswering(), cot=True), 1e-5),
    FileKind("shard of a store", "*.safetensors", _store, _stored),
    FileKind("index of a store", "*.json", _store, _stored),
    FileKind("tuned lens", "lens/*", _lens, _read_lens),
    FileKind(
        "saved result",
        "*.nc",
        lambda folder: _edges().save(folder / "edges.nc"),
        lambda folder: _values(Result.load(folder / "edges.nc")),
    ),
    FileKind("edges of a circuit", "*.nc", lambda folder: _edges().save(folder / "edges.nc"), _saved_edges),
    FileKind("result of a run", "own/*/*/result.nc", _run, _read_run),
    FileKind("manifest of a run", "own/*/*/manifest.json", _run, _read_run),
)


def flip(kind: FileKind, folder: Path, *, flips: int, generator: random.Random) -> tuple[Counter[str], list[str]]:
    """Flips bits of files of a kind, one at a time in a fresh copy.

    Returns:
        How often each of `OUTCOMES` came; and a text for every silent change and traceback.
    """
    pristine = folder / "pristine"
    pristine.mkdir(parents=True)
    kind.make(pristine)
    expected, counts, failures = kind.read(_copy(pristine, folder / "expected")), Counter[str](), list[str]()
    for number in range(flips):
        copied = _copy(pristine, folder / f"flip{number}")
        file = generator.choice(sorted(path for path in copied.glob(kind.pattern) if path.is_file()))
        file.write_bytes(flip_bit(file.read_bytes(), generator))
        outcome, text = _outcome(kind, copied, expected)
        counts[outcome] += 1
        if text:
            failures.append(f"{kind.name}, {file.name}: {text}")
        shutil.rmtree(copied)
    return counts, failures


def _outcome(kind: FileKind, folder: Path, expected: Values) -> tuple[str, str]:
    try:
        values = kind.read(folder)
    except MechXAIError:
        return "refused", ""
    except Exception as error:  # noqa: BLE001 - that is what is counted
        return "traceback", f"{type(error).__name__}: {error}"
    changed = [name for name in expected if not _equal(values.get(name), expected[name], kind.rounding)]
    return ("silent", f"{changed} changed") if changed else ("right", "")


def _equal(value: np.ndarray | None, expected: np.ndarray, rounding: float) -> bool:
    if value is None or value.shape != expected.shape:
        return False
    if value.dtype.kind != "f":
        return bool(np.array_equal(value, expected))
    return bool(np.allclose(value, expected, rtol=0, atol=rounding, equal_nan=True))


def _copy(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))
