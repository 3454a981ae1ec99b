"""The explorer's state: models, the prompts analysed last, and background runs, shared by all its users."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, MechXAIError, nearest, unknown
from mechxai.core.result import Result
from mechxai.explore.background import BackgroundRuns
from mechxai.explore.prompt_analysis import PromptAnalysis, token_name
from mechxai.explore.view import View
from mechxai.methods.lens._lib.tuned_lens import TunedLens
from mechxai.model.hooked_model import HookedModel
from mechxai.tasks.generators import docstring, facts, greater_than, induction, ioi, sva

_MAX_PROMPTS = 8  # whose analyses are kept
_MAX_BYTES = 2**30  # approximate size of all analyses; the latest is always kept
TASKS: Mapping[str, Callable[..., ContrastBatch]] = {
    "ioi": ioi,
    "greater_than": greater_than,
    "sva": sva,
    "docstring": docstring,
    "facts": facts,
    "induction": induction,
}


@dataclass(frozen=True)
class PromptExample:
    """A prompt of a task as texts: the clean and the corrupted prompt, the answer and the wrong answer."""

    prompt: str
    corrupted: str = ""
    answer: str = ""
    wrong: str = ""


@dataclass(eq=False)
class ExplorerState:
    """Models by name, analyses of their prompts, and background runs.

    Attributes:
        models: name -> model, or a function that loads it on first use; addresses can name only these models.
        lenses: name of a model -> its tuned lens.
        results: title -> result of a stored run, shown below the panels.
        start: the first view; None for the first model's opening view.
        loads: name of a model -> arguments of `mechxai.load`, where they are more than the name.
        lens_folders: name of a model -> folder of its tuned lens.
        background: the methods that run in the background.
    """

    models: Mapping[str, HookedModel | Callable[[], HookedModel]]
    lenses: Mapping[str, TunedLens] = field(default_factory=dict)
    results: Mapping[str, Result] = field(default_factory=dict)
    start: View | None = None
    loads: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    lens_folders: Mapping[str, str] = field(default_factory=dict)
    background: BackgroundRuns = field(default_factory=BackgroundRuns)
    _loaded: dict[str, HookedModel] = field(default_factory=dict)
    _model_locks: dict[str, threading.RLock] = field(default_factory=dict)
    _analyses: OrderedDict[tuple[str, str], PromptAnalysis] = field(default_factory=OrderedDict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def model_name(self, name: str) -> str:
        """The name itself; the first model's for an empty one.

        Raises:
            ConfigError: a model that is not open in this explorer.
        """
        if not name:
            return next(iter(self.models))
        if name not in self.models:
            raise ConfigError(
                f"The model {name!r} is not open in this explorer. {nearest(name, self.models)}",
                fix=f"Start one with mechxai explore model={name}",
            )
        return name

    def model(self, name: str) -> HookedModel:
        """A model by name, loaded on first use.

        Raises:
            ConfigError: a model that is not open in this explorer, or that has no tokenizer.
        """
        name = self.model_name(name)
        with self.lock(name):
            if name not in self._loaded:
                entry = self.models[name]
                model = entry if isinstance(entry, HookedModel) else entry()
                if model.text.tokenizer is None:
                    raise ConfigError(
                        f"{name} has no tokenizer, which the explorer needs", fix="Use mx.wrap(model, tokenizer=...)"
                    )
                self._loaded[name] = model
            return self._loaded[name]

    def lock(self, name: str) -> threading.RLock:
        """The lock that is held while a model runs."""
        with self._lock:
            return self._model_locks.setdefault(name, threading.RLock())

    def analysis(self, view: View) -> PromptAnalysis:
        """The analysis of the view's prompt, with its results so far if it is one of the latest prompts."""
        name = self.model_name(view.model)
        key = (name, view.prompt)
        with self._lock:
            if key in self._analyses:
                self._analyses.move_to_end(key)
                return self._analyses[key]
        new = PromptAnalysis(self.model(name), view.prompt, tuned=self.lenses.get(name), lock=self.lock(name))
        with self._lock:
            while self._analyses and (
                len(self._analyses) >= _MAX_PROMPTS
                or new.n_bytes + sum(other.n_bytes for other in self._analyses.values()) > _MAX_BYTES
            ):
                self._analyses.popitem(last=False)
            return self._analyses.setdefault(key, new)

    def tasks(self, model_name: str) -> Sequence[str]:
        """Tasks with prompts for a model: those that its card reports metrics of, else all."""
        metrics = (self.model(model_name).card or {}).get("metrics", {})
        return [name for name in TASKS if name in metrics] or list(TASKS)

    def example(self, model_name: str, task: str, number: int) -> PromptExample:
        """A prompt of a task; different numbers give different prompts.

        Raises:
            ConfigError: an unknown task, or one whose prompts this model cannot read.
        """
        if task not in TASKS:
            raise ConfigError(unknown("task", task, TASKS))
        model = self.model(model_name)
        with self.lock(self.model_name(model_name)):
            return example_of(model, TASKS[task](model, n=1, seed=abs(number) % 2**31))

    def first_view(self) -> View:
        """The view of an address without a query: ``start``, else the first model's opening view."""
        return self.start if self.start is not None else self.opening_view("")

    def opening_view(self, model_name: str) -> View:
        """A model's opening view: an example of the first task that the model can read, else a plain sentence."""
        model, name = self.model(model_name), self.model_name(model_name)
        for task in self.tasks(name):
            try:
                example = self.example(name, task, 0)
            except MechXAIError:
                continue
            return View(name, example.prompt, example.corrupted, example.answer, example.wrong)
        mask = model.text.tokenizer.mask_token if model.text.masked else ""
        return View(name, f"The quick brown fox jumps over the lazy {mask}".rstrip())


def example_of(model: HookedModel, batch: ContrastBatch, row: int = 0) -> PromptExample:
    """One row of a batch as texts.

    Raises:
        ConfigError: tokens that are not the tokens of their text.
    """
    length = int(batch.lengths[row])
    texts = []
    for run in ("clean", "corrupted"):
        ids = batch.tokens(run)[row, :length].tolist()
        body = ids[1:] if ids[:1] == [model.text.bos] else ids
        text = model.text.tokenizer.decode(body)
        if model.text.ids(text) != ids:
            raise ConfigError(f"The explorer cannot show this prompt: the text {text[:60]!r} gives other tokens")
        texts.append(text)
    answer, wrong = (token_name(model, int(tokens[row, 0, 0])) for tokens in (batch.answers, batch.wrong))
    clean, corrupted = texts
    return PromptExample(clean, "" if clean == corrupted else corrupted, answer, wrong)
