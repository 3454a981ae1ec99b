"""``mechxai explore``: opens the explorer in the browser, for models or for a run on disk."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from mechxai.cli.console import OK, show
from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, MechXAIError, unknown
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
from mechxai.sweeps.allowed_targets import make
from mechxai.sweeps.foreign_config import read_folder_config
from mechxai.sweeps.job import make_prompts

HELP = """The explorer: one prompt of a model in the browser, with lens, attention, contributions, patching, circuit.

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


def main(arguments: Sequence[str]) -> int:
    """``mechxai explore ...``; returns the exit code.

    Raises:
        ConfigError: an unknown setting, or dash is not installed.
    """
    settings = _read(arguments)
    if importlib.util.find_spec("dash") is None:
        raise ConfigError("The explorer needs dash", fix="pip install 'mechxai[explore]'")
    from mechxai.explore.serving import serve  # noqa: PLC0415 - dash, an extra

    port = settings.get("port", "8050")
    if not port.isdecimal() or int(port) > _HIGHEST_PORT:
        raise ConfigError(f"port={port} is not a port", allowed=f"a number up to {_HIGHEST_PORT}, as in port=8050")
    state = explorer_state(settings)
    model = state.model("")
    panel_context(state, state.first_view(), LIGHT).check()  # errors are shown before anything is served
    show(f"explorer: {model!r}")
    open_browser = settings.get("browser", "true").lower() not in ("false", "0", "no")
    serve(state, show, port=int(port), browser=open_browser)
    return OK


def explorer_state(settings: Mapping[str, str]) -> ExplorerState:
    """The state that the command line's settings describe.

    Raises:
        ConfigError: both a run and a model; a run whose model is no hooked model.
    """
    if "run" in settings and "model" in settings:
        raise ConfigError("run= and model= cannot be given together: a run names its model", fix="Leave model= out")
    view = View.of(dict(parse_qsl(settings["view"]))) if "view" in settings else None
    loading: dict[str, Any] = {name: settings[name] for name in _LOADING if name in settings}
    models: dict[str, HookedModel | Callable[[], HookedModel]] = {}
    results: dict[str, Result] = {}
    start, loads = view, dict[str, Mapping[str, object]]()
    if "run" in settings:
        model, batch, results, run_loading = _run_contents(Path(settings.get("in", "outputs")), settings["run"])
        models[model.name], loads = model, {model.name: run_loading}
        start = view or _first_view(model, batch)
    else:
        names = [name for name in settings.get("model", "zoo/ioi").split(",") if name]
        if not names:
            raise ConfigError("model= names no model", fix="Name one, as in model=zoo/ioi")
        models |= {name: partial(load, name, **loading) for name in names}
        models[names[0]] = load(names[0], **loading)
    first = next(iter(models))
    models |= {name: partial(load, name, **loading) for name in zoo_language_models() if name not in models}
    lenses, lens_folders = {}, dict[str, str]()
    if "lens" in settings:
        model = models[first]
        lenses = {first: TunedLens.load(settings["lens"], model)} if isinstance(model, HookedModel) else {}
        lens_folders = {first: settings["lens"]}
    every_load = {name: {"name": name, **loading} for name in models} | loads
    return ExplorerState(models, lenses, results, start, loads=every_load, lens_folders=lens_folders)


def _read(arguments: Sequence[str]) -> dict[str, str]:
    settings = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals:
            raise ConfigError(f"{argument} is not of the form NAME=VALUE", fix="See mechxai explore --help")
        if name not in _KEYS:
            raise ConfigError(unknown("setting of mechxai explore", name, _KEYS), fix="See mechxai explore --help")
        settings[name] = value
    return settings


def _run_contents(root: Path, name: str) -> tuple[HookedModel, object, dict[str, Result], dict[str, object]]:
    """The model, the prompts and the result of a run, as its configuration makes them, and how the model is loaded."""
    run = find_run(root, name)
    config = read_folder_config(run.files.config / "config.yaml")
    model = make(config["model"])
    if not isinstance(model, HookedModel):
        raise ConfigError(
            f"The explorer cannot open run {name}: its model is a {type(model).__name__}", allowed="hooked models"
        )
    batch = make_prompts(make(config["task"]), model)
    result = run.result()
    loading = {str(key): value for key, value in config["model"].items() if value is not None and key != "_target_"}
    return model, batch, {result.info.title: result}, loading


def _first_view(model: HookedModel, batch: object) -> View | None:
    """A view of a run's first prompt; None where its prompts are no pairs of texts."""
    if not isinstance(batch, ContrastBatch):
        return None
    try:
        example = example_of(model, batch)
    except MechXAIError:
        return None
    return View(model.name, example.prompt, example.corrupted, example.answer, example.wrong)
