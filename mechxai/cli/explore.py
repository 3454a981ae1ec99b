"""``mechxai explore``: the explorer in the browser, of models or of a run that lies on disk."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import hydra
from omegaconf import OmegaConf

from mechxai.cli import console
from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, MechXAIError, nearest
from mechxai.core.result import Result
from mechxai.explore.palette import LIGHT
from mechxai.explore.panel_context import panel_context
from mechxai.explore.state import ExplorerState, example_of
from mechxai.explore.view import View
from mechxai.methods.lens._lib.tuned_lens import TunedLens
from mechxai.model.hooked_model import HookedModel
from mechxai.model.load import load
from mechxai.model.zoo.bundled import zoo_language_models
from mechxai.runs.query import find_run
from mechxai.sweeps.job import check_targets, make_prompts

_HELP = """One prompt of a model from every side, in the browser: lens, attention, contributions, patching, circuit.

  mechxai explore                          the bundled zoo/ioi; the other bundled models can be chosen on the page
  mechxai explore model=gpt2               a Hugging Face id or a folder; several with commas between them
  mechxai explore run=RUN                  a run's model, first prompt and result (its folder, or letters of its id)

  lens=FOLDER       a tuned lens of the first model (mx.TunedLens.train, or a run of tuned_lens_train)
  device=cuda       as model.device of mechxai run (default: auto); dtype=, processing=, backend= likewise
  view=QUERY        what is shown first: what follows the question mark of a copied link
  port=8050         the first free one from there on; 0 for any
  browser=false     do not open the page
  in=outputs        the folder below which run= looks

The page answers this machine alone (127.0.0.1). Ctrl-C ends it."""
_LOADING = ("device", "dtype", "processing", "backend", "revision")
_HIGHEST_PORT = 65_535
_KEYS = ("model", "run", "lens", "view", "port", "browser", "in", *_LOADING)


def explore(arguments: Sequence[str]) -> int:
    """``mechxai explore ...``; returns the exit code."""
    if {"-h", "--help"} & set(arguments):
        console.show(_HELP)
        return 0
    asked = _read(arguments)
    if importlib.util.find_spec("dash") is None:
        raise ConfigError("The explorer was asked", got="dash is not installed", fix="pip install 'mechxai[explore]'")
    from mechxai.explore.serving import serve  # noqa: PLC0415 - dash, an extra

    port = asked.get("port", "8050")
    if not port.isdecimal() or int(port) > _HIGHEST_PORT:
        raise ConfigError(f"port={port} was asked", allowed=f"a number up to {_HIGHEST_PORT}, as in port=8050")
    room = room_of(asked)
    model = room.model("")
    panel_context(room, room.first_view(), LIGHT).check()  # before anything is served
    console.show(f"explorer: {model!r}")
    serve(room, console.show, port=int(port), browser=asked.get("browser", "true").lower() not in ("false", "0", "no"))
    return 0


def room_of(asked: Mapping[str, str]) -> ExplorerState:
    """The room that the command line asks for.

    Raises:
        ConfigError: both a run and a model; a run of what is no hooked model.
    """
    if "run" in asked and "model" in asked:
        raise ConfigError("run= and model= were asked together", fix="leave model= out: the run names its own")
    view = View.of(dict(parse_qsl(asked["view"]))) if "view" in asked else None
    settings: dict[str, Any] = {name: asked[name] for name in _LOADING if name in asked}
    opened: dict[str, HookedModel | Callable[[], HookedModel]] = {}
    results: dict[str, Result] = {}
    start, loaded = view, dict[str, Mapping[str, object]]()
    if "run" in asked:
        model, batch, results, given = _of_run(Path(asked.get("in", "outputs")), asked["run"])
        opened[model.name], loaded = model, {model.name: given}
        start = view or _start(model, batch)
    else:
        names = [name for name in asked.get("model", "zoo/ioi").split(",") if name]
        if not names:
            raise ConfigError("model= was asked", got="no name", fix="name one, as in model=zoo/ioi")
        opened |= {name: partial(load, name, **settings) for name in names}
        opened[names[0]] = load(names[0], **settings)
    first = next(iter(opened))
    opened |= {name: partial(load, name, **settings) for name in zoo_language_models() if name not in opened}
    tuned, folders = {}, dict[str, str]()
    if "lens" in asked:
        model = opened[first]
        tuned = {first: TunedLens.load(asked["lens"], model)} if isinstance(model, HookedModel) else {}
        folders = {first: asked["lens"]}
    loads = {name: {"name": name, **settings} for name in opened}
    return ExplorerState(opened, tuned, results, start, loads=loads | loaded, lens_folders=folders)


def _read(arguments: Sequence[str]) -> dict[str, str]:
    found = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or name not in _KEYS:
            raise ConfigError(
                f"mechxai explore {argument} was asked",
                got="no such setting" if equals else "no NAME=VALUE",
                allowed=nearest(name, _KEYS),
                fix="see mechxai explore --help",
            )
        found[name] = value
    return found


def _of_run(root: Path, name: str) -> tuple[HookedModel, object, dict[str, Result], dict[str, object]]:
    """The model, the prompts and the result of a run, as its configuration makes them; and how the model is loaded."""
    run = find_run(root, name)
    config = OmegaConf.load(run.folder / ".hydra" / "config.yaml")
    check_targets(OmegaConf.to_container(config, resolve=False))
    model = hydra.utils.instantiate(config.model, _convert_="all")
    if not isinstance(model, HookedModel):
        raise ConfigError(
            f"run={name} was asked of the explorer", got=f"a run of {type(model).__name__}", allowed="hooked models"
        )
    batch = make_prompts(hydra.utils.instantiate(config.task, _convert_="all"), model)
    result = run.result()
    given = {str(key): value for key, value in dict(config.model).items() if value is not None and key != "_target_"}
    return model, batch, {result.info.title: result}, given


def _start(model: HookedModel, batch: object) -> View | None:
    """The first of a run's prompts; None where its prompts are no pairs of texts."""
    if not isinstance(batch, ContrastBatch):
        return None
    try:
        one = example_of(model, batch)
    except MechXAIError:
        return None
    return View(model.name, one.prompt, one.corrupted, one.answer, one.wrong)
