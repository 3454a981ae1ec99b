"""A small run of every method family, as a command; each takes a few seconds, most of them in the method."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mechxai.core.result import Result

_IOI = ("model=zoo/handmade-ioi", "task=ioi", "task.template=0", "task.order=abba", "task.n=16")
_TRAINED = ("model=zoo/ioi", "task=ioi")
_COT = ("model=zoo/cot", "task=cot_arithmetic", "task.n=24")


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        family: of its method.
        words: of the command.
    """

    family: str
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        """The method's name."""
        return next(word.partition("=")[2] for word in self.words if word.startswith("method="))


JOBS = (
    Job(
        "patching",
        (*_IOI, "method=activation_patching", "method.site=z", "method.over=[layer,head,pos]", "tokens_per_wave=256"),
    ),
    Job("patching", (*_IOI, "method=ablation", "method.over=[layer,head,pos]", "tokens_per_wave=256")),
    Job("circuits", (*_IOI, "method=acdc", "method.thresholds=[0.001,0.003,0.01,0.03,0.1,0.3,1.0]")),
    Job("circuits", (*_IOI, "method=evaluate_circuit", "method.random_draws=60")),
    Job("circuits", (*_IOI, "method=circuit_tests", "method.draws=300")),
    Job("circuits", (*_IOI, "method=edge_pruning", "method.steps=120")),
    Job("circuits", (*_TRAINED, "task.n=96", "method=edge_attribution", "method.steps=20")),
    Job("lens", (*_TRAINED, "task.n=64", "method=tuned_lens_train", "method.steps=60", "method.checkpoint_every=5")),
    Job("lens", (*_TRAINED, "task.n=64", "method=neuron_factors", "method.n=4", "method.draws=4")),
    Job("probes", ("model=zoo/ioi", "task=subject_number", "task.n=160", "method=linear_probes")),
    Job("attribution", (*_TRAINED, "task.n=24", "method=kernel_shap", "method.n_samples=400")),
    Job("attribution", (*_TRAINED, "task.n=12", "method=compare_attributions")),
    Job("attention", (*_TRAINED, "task.n=64", "method=attention_patterns")),
    Job("cot", (*_COT, "method=early_answering")),
    Job("cot", (*_COT, "method=adding_mistakes")),
)


def command(job: Job) -> list[str]:
    """The command line of a job."""
    return [sys.executable, "-m", "mechxai.cli", "run", *job.words, "tracker=none", "name=faults", "output=outputs"]


def start(job: Job, folder: Path) -> "subprocess.Popen[str]":
    """Starts a job in a folder, on one thread."""
    return subprocess.Popen(
        command(job), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_environment()
    )


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "OMP_NUM_THREADS": "1", "CI": "true"}


def finish(job: Job, folder: Path, *, timeout: float = 600) -> str | None:
    """Runs a job to its end; the end of its output where it fails."""
    process = start(job, folder)
    output, _ = process.communicate(timeout=timeout)
    return None if process.returncode == 0 else output[-400:]


def run_folder(folder: Path) -> Path | None:
    """The folder of the run, if it has one."""
    return next(iter(sorted((folder / "outputs" / "faults").glob("*/*"))), None)


def difference(folder: Path, reference: Path) -> str | None:
    """What differs between two finished runs, times apart; None where nothing does."""
    results = [Result.load(path / "result.nc") for path in (folder, reference)]
    timed = [name for name in results[0].data if "seconds" in str(name)]
    data = [result.data.drop_vars(timed) for result in results]
    if not data[0].identical(data[1]):
        return "another result"
    costs = [
        {key: value for key, value in result.info.cost.items() if "passes" in key and "check" not in key}
        for result in results
    ]
    if costs[0] != costs[1]:
        return f"another cost: {costs[0]} instead of {costs[1]}"
    status = json.loads((folder / "manifest.json").read_text())
    return None if status.get("files") else "a manifest without checksums"
