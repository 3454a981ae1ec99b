"""Hostile and careless inputs, each of which is refused in a sentence or taken in its clear meaning.

A payload leaves a canary when it runs: something named ``made`` in the working folder, or ``x`` beside it.
"""

import contextlib
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

import mechxai as mx
from mechxai.cli import main
from mechxai.core.errors import MechXAIError
from mechxai.core.pieces import file_checksum, sealed, unsealed
from mechxai.explore.app import application
from mechxai.explore.state import ExplorerState
from mechxai.explore.view import View
from mechxai.model.generation.connection import Connection
from mechxai.runs.query import list_runs

CANARY = "made"
_RUN = ("debug=tiny", "model=zoo/handmade-ioi", "task.template=0", "name=own", "output=outputs", "tracker=none")
_METHOD = ("method.site=z", "method.over=[layer,head]")
_MKDIR = {"_target_": "os.mkdir", "path": CANARY}


@dataclass(frozen=True)
class Hostile:
    """One input.

    Attributes:
        kind: for the counts.
        name: of the input.
        perform: hands it over, in the working folder; returns what went wrong, or None.
    """

    kind: str
    name: str
    perform: Callable[[], str | None]


class _Payload:
    def __reduce__(self) -> object:
        return os.mkdir, (CANARY,)


def _command(*words: str, allowed: tuple[int, ...] = (2,)) -> str | None:
    """Runs a command; it must end with one of these codes, in a sentence."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(list(words))
    text = said.getvalue()
    if code not in allowed:
        return f"exit code {code}: {text[-200:]}"
    return "a traceback" if "Traceback" in text else "an escape sequence" if "\x1b" in text else None


def _refused(call: Callable[[], object]) -> str | None:
    """The call must raise one sentence of this package."""
    try:
        value = call()
    except MechXAIError as error:
        return "an error of several lines" if "\n" in str(error) else None
    except Exception as error:  # noqa: BLE001 - that is what is counted
        return f"{type(error).__name__}: {error}"
    return f"taken as {value!r:.100}"


def _taken(call: Callable[[], object]) -> str | None:
    """The meaning is clear, so the call must succeed."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - that is what is counted
        return f"{type(error).__name__}: {error}"
    return None


# Folders ------------------------------------------------------------------------------------------------------------


@cache
def _finished_run() -> Path:
    """A folder with a finished run, copied by every input that sends one."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert main(["run", *_RUN, *_METHOD]) == 0
    kept = Path("pristine").absolute()
    shutil.move("outputs", kept)
    return kept


def _sent() -> Path:
    """The run folder of a copy of the finished run, below ``outputs``."""
    shutil.rmtree("outputs", ignore_errors=True)
    shutil.copytree(_finished_run(), "outputs")
    (run,) = list_runs(Path("outputs"))
    return run.folder


def _explore(change: Callable[[dict[str, object]], object]) -> str | None:
    folder = _sent()
    path = folder / ".hydra" / "config.yaml"
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))
    _seal(folder, ".hydra/config.yaml")
    return _command("explore", f"run={folder}", "browser=false")


def _seal(folder: Path, name: str) -> None:
    """Gives a changed file a right checksum in the manifest, as its sender would."""
    manifest = folder / "manifest.json"
    facts = unsealed(manifest.read_text())
    assert facts is not None
    facts["files"][name] = file_checksum(folder / name)
    manifest.write_text(sealed(facts))


def _with(key: str, value: object) -> Callable[[], str | None]:
    return lambda: _explore(lambda content: content.__setitem__(key, value))


def _resolver(text: str) -> Callable[[], str | None]:
    return lambda: _explore(lambda content: content.__setitem__("model", {"_target_": "mechxai.load", "name": text}))


_CONFIGURATIONS = {
    "a target of another package": _with("model", _MKDIR),
    "a target through this package": _with("model", {"_target_": "mechxai.core.files.os.mkdir", "path": CANARY}),
    "a class method as target": _with("task", {"_target_": "mechxai.core.result.Result.load", "path": "x.nc"}),
    "a target deep inside": _with("method", {"_target_": "mechxai.ActivationPatching", "metric": _MKDIR}),
    "a target in a list": _with("tracker", {"_target_": "mechxai.NoTracker", "x": [[_MKDIR]]}),
    "a partial target": _with("model", {**_MKDIR, "_partial_": True}),
    "a target of dunder names": _with("task", {"_target_": "mechxai.tasks.ioi.__globals__"}),
    "oc.create": _resolver("${oc.create:{_target_: os.mkdir, path: made}}"),
    "oc.create in disguise": _resolver("${oc.create:${oc.decode:'{_target_: os.mkdir, path: made}'}}"),
    "hydra's resolver": _resolver("${hydra:runtime.cwd}"),
    "an environment variable": _resolver("${oc.env:HOME}"),
    "an unknown resolver": _resolver("${eval:1+1}"),
}


def _overrides(*more: str) -> Callable[[], str | None]:
    """Overrides of an unfinished shard, which `runs merge` would run again."""

    def perform() -> str | None:
        shutil.rmtree("outputs", ignore_errors=True)
        words = [*_RUN, *_METHOD, "tokens_per_wave=256", "shard=0/2"]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            main(["run", *words])
        (run,) = list_runs(Path("outputs"))
        path = run.folder / ".hydra" / "overrides.yaml"
        path.write_text(yaml.safe_dump([*words, *more]))
        facts = unsealed((run.folder / "unfinished.json").read_text()) or {}
        facts["files"][".hydra/overrides.yaml"] = file_checksum(path)
        (run.folder / "unfinished.json").write_text(sealed(facts))
        return _command("runs", "merge", allowed=(1, 2))

    return perform


_OVERRIDES = {
    "callbacks": _overrides("+hydra.callbacks.x={_target_: os.mkdir, path: made}"),
    "a search path": _overrides("hydra.searchpath=[file:///tmp]"),
    "a plugin": _overrides("plugins=[evil]"),
    "a flag": _overrides("--config-dir=/tmp"),
    "a target": _overrides("model._target_=os.mkdir"),
    "a launcher": _overrides("hydra/launcher=joblib"),
}


# Files --------------------------------------------------------------------------------------------------------------


def _file(name: str, content: bytes) -> str:
    Path(name).write_bytes(content)
    return name


def _lens(content: bytes, config: bytes = b"{}") -> Path:
    folder = Path("lens")
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_bytes(config)
    for name in ("translators.safetensors", "params.pt"):
        (folder / name).write_bytes(content)
    return folder


def _store(index: object) -> Path:
    folder = Path("store")
    folder.mkdir(exist_ok=True)
    (folder / "index.json").write_text(sealed(index) if isinstance(index, dict) else str(index))
    return folder


def _terminal(part: str) -> str | None:
    folder = _sent()
    facts = unsealed((folder / "manifest.json").read_text()) or {}
    text = "\x1b]0;owned\x07\x1b[31mred\r\u202e"
    facts[part] = {**facts[part], "name": text} if isinstance(facts.get(part), dict) else [text]
    (folder / "manifest.json").write_text(sealed(facts))
    return _command("runs", allowed=(0, 2)) or _command(
        "runs", "show", list_runs(Path("outputs"))[0].facts["run"], allowed=(0, 1, 2)
    )


_PICKLE = pickle.dumps(_Payload())
_FILES = {
    "a pickle as result": lambda: _refused(lambda: mx.Result.load(_file("a.nc", _PICKLE))),
    "a text as result": lambda: _refused(lambda: mx.Result.load(_file("a.nc", b"hello"))),
    "an empty result": lambda: _refused(lambda: mx.Result.load(_file("a.nc", b""))),
    "a folder as result": lambda: _refused(lambda: mx.Result.load(".")),
    "a pickled lens": lambda: _refused(lambda: mx.TunedLens.load(_lens(_PICKLE), _model())),
    "a lens of no tensors": lambda: _refused(lambda: mx.TunedLens.load(_lens(b"\xff" * 64, b"[]"), _model())),
    "a store that leads outside": lambda: _refused(
        lambda: mx.ActivationStore.open(_store({"shards": [{"file": "../../etc/passwd"}]}))
    ),
    "a store with another's shards": lambda: _refused(
        lambda: mx.ActivationStore.open(
            _store(
                {
                    "shards": [{"file": "../x.safetensors", "n_tokens": 1, "n_prompts": 1}],
                    "sites": ["z"],
                    "n_prompts": 1,
                }
            )
        )
    ),
    "a store of no JSON": lambda: _refused(lambda: mx.ActivationStore.open(_store("{"))),
    "edges of no JSON": lambda: _refused(lambda: mx.EvaluateCircuit(of=_file("e.json", b"{"))(*_ioi())),
    "edges of another model": lambda: _refused(
        lambda: mx.EvaluateCircuit(of=_file("e.json", json.dumps({"edges": [{"src": "a", "dest": "b"}]}).encode()))(
            *_ioi()
        )
    ),
    "pickled edges": lambda: _refused(lambda: mx.EvaluateCircuit(of=_file("e.nc", _PICKLE))(*_ioi())),
    "a model of pickles": lambda: _refused(
        lambda: mx.load(str(Path(_file("pytorch_model.bin", _PICKLE)).parent.absolute()))
    ),
}
_TERMINAL = {part: partial(_terminal, part) for part in ("model", "method", "task", "notes")}

# The command line ---------------------------------------------------------------------------------------------------

_WORDS = (
    "method.layers=[0.5]", "method.layers=[true]", "method.layers=[]", "method.layers=all", "method.layers=[nan]",
    "method.pos=[1.5]", "method.site=[z,q]", "method.site=zz", "method.metric=[logit]", "method.metric=5",
    "force=maybe", "plan=7", "tokens_per_wave=10.5", "tokens_per_wave=-1", "tokens_per_wave=inf", "output=''",
    "seed=1e400", "seed=99999999999999999999999999", "name=null", "method=null", "model=null", "then=hello",
    "also=hello", "task.n=0", "task.n=100000000", "task.n=nan", "shard=2/2", "shard=x", "engine=fast", "figure=pdf",
    "name=../x", "name=/tmp/x", "name=..", "name=a//b", "name=~/x", "name=", f"name={'x' * 300}", "output=a=b",
    f"output={'/y' * 3000}", "output=\udce9", "tracker._target_=os.mkdir", "+x.y=1", "=", "method.site", "~method",
)  # fmt: skip

# The explorer -------------------------------------------------------------------------------------------------------


@cache
def _client() -> object:
    model = _model()
    state = ExplorerState(
        {model.name: model}, start=View(prompt="When Mary and John went to the store, John gave a drink to")
    )
    return application(state).server.test_client()


def _request(code: int, path: str, **options: object) -> str | None:
    client = _client()
    method = client.post if "json" in options or "data" in options else client.get  # type: ignore[attr-defined]
    answer = method(path, **{"base_url": "http://127.0.0.1", **options})
    text = answer.get_data(as_text=True)
    leaks = [word for word in ("Traceback", "site-packages", "mechxai/explore") if word in text]
    return f"code {answer.status_code}, {leaks}" if answer.status_code != code or leaks else None


_REQUESTS = {
    "another host": lambda: _request(403, "/", base_url="http://evil.example"),
    "a rebound host": lambda: _request(403, "/_dash-layout", base_url="http://127.0.0.1.evil.example"),
    "a callback of no JSON": lambda: _request(
        400, "/_dash-update-component", data=b"{", content_type="application/json"
    ),
    "a callback of a list": lambda: _request(400, "/_dash-update-component", json=[1]),
    "a callback of nothing": lambda: _request(400, "/_dash-update-component", json={}),
    "an unknown callback": lambda: _request(
        400, "/_dash-update-component", json={"output": "x.y", "outputs": [], "inputs": [], "changedPropIds": []}
    ),
}

# Endpoints and Python -----------------------------------------------------------------------------------------------

_URLS = (
    "ftp://127.0.0.1/v1",
    "file:///etc/passwd",
    "//127.0.0.1/v1",
    "http://127.0.0.1/v1#x",
    "127.0.0.1",
    "javascript:alert(1)",
)


@cache
def _model() -> mx.HookedModel:
    return mx.load("zoo/handmade-ioi", device="cpu")


@cache
def _ioi() -> tuple[mx.HookedModel, mx.ContrastBatch]:
    return _model(), mx.tasks.ioi(_model(), n=4, template=0)


def _batch(**options: object) -> mx.ContrastBatch:
    ids = {"clean": [[5, 6, 7]], "corrupted": [[5, 9, 7]], "answers": [5], "wrong": [6]}
    return mx.ContrastBatch.from_tokens(**{**ids, **options})  # type: ignore[arg-type]


def _patched(metric: object = "logit_diff", **options: object) -> object:
    return mx.ActivationPatching(metric=metric)(_model(), _batch(**options))  # type: ignore[arg-type]


def _saved(attribute: object) -> mx.Result:
    result = mx.LogitLens()(*_ioi())
    result.data.attrs["own"] = attribute
    return mx.Result.load(result.save("own.nc"))


_CALLS = {
    "numpy answers": lambda: _taken(lambda: _patched(answers=np.array([5]), wrong=np.array([6]))),
    "a Series of prompts": lambda: _taken(
        lambda: _patched(clean=pd.Series([[5, 6, 7]]), corrupted=pd.Series([[5, 9, 7]]))
    ),
    "a tensor of answers": lambda: _taken(lambda: _patched(answers=torch.tensor([5]))),
    "an answer out of range": lambda: _refused(lambda: _patched(answers=[10**6])),
    "a negative prompt id": lambda: _refused(lambda: _patched(clean=[[5, -6, 7]])),
    "fractions as ids": lambda: _refused(lambda: _patched(clean=[[5.5, 6, 7]])),
    "an empty prompt": lambda: _refused(lambda: _patched(clean=[[]], corrupted=[[]])),
    "a metric of a list": lambda: _taken(lambda: _patched(lambda x, b: x[:, -1].amax(-1).tolist())),
    "a metric of one argument": lambda: _taken(lambda: _patched(lambda x: x[:, -1].amax(-1))),
    "a metric of a float": lambda: _refused(lambda: _patched(lambda x, b: "high")),
    "a metric of a wrong shape": lambda: _refused(lambda: _patched(lambda x, b: x)),
    "a metric of NaN": lambda: _refused(lambda: _patched(lambda x, b: x[:, -1].amax(-1) * float("nan"))),
    "attributes of None": lambda: _taken(lambda: _saved(None)),
    "attributes of a dict": lambda: _taken(lambda: _saved({"a": [1, None]})),
    "swapped arguments": lambda: _refused(lambda: mx.LogitLens()(*reversed(_ioi()))),
    "a text in place of a batch": lambda: _refused(lambda: mx.Saliency()(_model(), "hello")),  # type: ignore[arg-type]
    "a picture of a batch": lambda: _refused(lambda: mx.plot(_ioi()[1])),
    "a picture of a list": lambda: _refused(lambda: mx.plot([_ioi()[1]])),
    "a black box of texts": lambda: _refused(lambda: mx.black_box(lambda texts: texts, ["a", "b"]).outputs_of(["x"])),
    "a black box of one output": lambda: _refused(lambda: mx.black_box(len, ["a"])),
}


def inputs() -> Iterator[Hostile]:
    """Every input.

    Yields:
        In the order of the kinds.
    """
    by_kind = {
        "configuration of a folder": _CONFIGURATIONS,
        "overrides of a folder": _OVERRIDES,
        "file": _FILES,
        "text in the terminal": _TERMINAL,
        "command line": {word[:40]: partial(_command, "run", word, "tracker=none") for word in _WORDS},
        "request to the explorer": _REQUESTS,
        "address of an endpoint": {url: partial(_refused, partial(Connection, url)) for url in _URLS},
        "call from Python": _CALLS,
    }
    for kind, performs in by_kind.items():
        for name, perform in performs.items():
            yield Hostile(kind, name, perform)


def failure_of(hostile: Hostile, folder: Path) -> str | None:
    """What went wrong when the input was handed over in a folder; None where it was survived."""
    with _inside(folder):
        try:
            failure = hostile.perform()
        except BaseException as error:  # noqa: BLE001 - that is what is counted
            failure = f"{type(error).__name__}: {error}"
        if Path(CANARY).exists() or (folder.parent / "x").exists():
            shutil.rmtree(CANARY, ignore_errors=True)
            return "its code ran"
    return failure


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run_hostile(folder: Path) -> dict[str, dict[str, str | None]]:
    """Kind -> name -> what went wrong, for every input."""
    outcomes: dict[str, dict[str, str | None]] = {}
    for hostile in inputs():
        outcomes.setdefault(hostile.kind, {})[hostile.name] = failure_of(hostile, folder / "here")
    return outcomes
