"""The machine, its load and the library versions of a measurement, and subprocesses for peers that need their own."""

import datetime
import json
import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.shapes import STD, Shape
from benchmarks.timing import Run, digits

ROOT = Path(__file__).parents[1]
_PACKAGES = ("torch", "transformers", "transformer-lens", "nnsight", "mechxai")
_QUIET = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "TOKENIZERS_PARALLELISM": "false"}


def one_thread() -> None:
    """Restricts torch to one thread, without gradients."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)


def conditions(command: str) -> dict[str, object]:
    """Command, date, machine and versions, which accompany every measurement."""
    return {
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {cpu_name()}, {os.cpu_count()} cores seen, 1 thread used",
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """The library versions of this process."""
    installed = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def cpu_name() -> str:
    """The name of the processor, if the system reports it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def results(name: str, *, quick: bool) -> Path:
    """The path of a result; test runs do not overwrite the committed results."""
    folder = ROOT / "outputs" / "bench-quick" if quick else ROOT / "benchmarks" / "results"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def write(name: str, payload: object, *, quick: bool) -> Path:
    """Writes a result as JSON."""
    target = results(name, quick=quick)
    target.write_text(json.dumps(payload, indent=1) + "\n")
    return target


def child(module: str, *arguments: str, venv: str = ".venv") -> dict:
    """The JSON that a benchmark module prints as a subprocess; ``left_out`` holds the reason for a failure."""
    python = ROOT / venv / "bin" / "python"
    if not python.exists():
        return {"left_out": f"no {venv}"}
    process = subprocess.run(
        [str(python), "-m", module, *arguments],
        cwd=ROOT,
        env=os.environ | _QUIET,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = process.stdout.strip().splitlines()
    if process.returncode or not lines:
        return {"left_out": f"failed: {(process.stderr.strip().splitlines() or ['no output'])[-1]}"}
    return json.loads(lines[-1])


def kib(name: str) -> int:
    """Memory of this process in KiB, as Linux reports it: ``VmRSS`` now, ``VmHWM`` at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name + ":")).split()[1])


class Reference:
    """A forward pass in plain torch, equal in every process, whose time measures the load of the machine."""

    def __init__(self, shape: Shape, width: int = 16) -> None:
        generator = torch.Generator().manual_seed(0)
        self._heads, d = shape.n_heads, shape.d_model
        sizes = ((3 * d, d), (d, d), (shape.d_mlp, d), (d, shape.d_mlp))
        draw = lambda n_out, n_in: torch.randn(n_out, n_in, generator=generator) * STD  # noqa: E731
        self._blocks = [tuple(draw(*size) for size in sizes) for _ in range(shape.n_layers)]
        self._unembedding = draw(shape.d_vocab, d)
        self._residual = torch.randn(1, width, d, generator=generator)

    def run(self) -> Run:
        """Times ten passes."""
        start = time.perf_counter()
        for _ in range(10):
            self.logits()
        seconds = time.perf_counter() - start
        return Run(seconds / 10, seconds)

    def logits(self) -> Tensor:
        """Runs one pass."""
        x = self._residual
        width, d = x.shape[1:]
        for qkv, out, mlp_in, mlp_out in self._blocks:
            q, k, v = F.linear(F.layer_norm(x, (d,)), qkv).view(1, width, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
            z = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(1, width, d)
            x = x + F.linear(z, out)
            x = x + F.linear(F.gelu(F.linear(F.layer_norm(x, (d,)), mlp_in), approximate="tanh"), mlp_out)
        return F.linear(F.layer_norm(x, (d,)), self._unembedding)


def summary(runs: list[Run]) -> dict[str, object]:
    """The median of the runs of a contender, their number and their range."""
    seconds = sorted(run.seconds for run in runs)
    middle = seconds[len(seconds) // 2] if len(seconds) % 2 else sum(seconds[len(seconds) // 2 - 1 :][:2]) / 2
    return {
        "seconds": digits(middle),
        "runs": len(runs),
        "fastest": digits(seconds[0]),
        "slowest": digits(seconds[-1]),
    }
