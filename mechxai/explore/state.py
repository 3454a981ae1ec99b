"""What the explorer holds: models, the prompts that were read last, and sweeps. Nothing of it belongs to one user."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, MechXAIError, nearest
from mechxai.core.result import Result
from mechxai.explore.background import BackgroundRuns
from mechxai.explore.prompt_analysis import PromptAnalysis, name_of
from mechxai.explore.view import View
from mechxai.methods.lens._lib.tuned_lens import TunedLens
from mechxai.model.hooked_model import HookedModel
from mechxai.tasks.generators import docstring, facts, greater_than, induction, ioi, sva

_KEPT, _MOST_BYTES = 8, 2**30  # prompts that are kept, and about what they may take; the last one always is
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
    """A prompt of a task: both runs and both answers, as texts."""

    prompt: str
    corrupted: str = ""
    answer: str = ""
    wrong: str = ""


@dataclass(eq=False)
class ExplorerState:
    """Models by name, and what has been read.

    Attributes:
        models: name -> model, or what loads it when first asked for; addresses can name these and no others.
        lenses: name of a model -> its tuned lens.
        results: title -> a result that is shown as it is, of a run that was opened.
        start: what is shown first.
        lens_folders: name of a model -> where its tuned lens was read.
        loads: name of a model -> what `mechxai.load` was given, where that is more than the name.
    """

    models: Mapping[str, HookedModel | Callable[[], HookedModel]]
    lenses: Mapping[str, TunedLens] = field(default_factory=dict)
    results: Mapping[str, Result] = field(default_factory=dict)
    start: View | None = None
    loads: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    lens_folders: Mapping[str, str] = field(default_factory=dict)
    sweeps: BackgroundRuns = field(default_factory=BackgroundRuns)
    _loaded: dict[str, HookedModel] = field(default_factory=dict)
    _locks: dict[str, threading.RLock] = field(default_factory=dict)
    _readings: OrderedDict[tuple[str, str], PromptAnalysis] = field(default_factory=OrderedDict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def name(self, asked: str) -> str:
        """The name of a model, the first one's for none.

        Raises:
            ConfigError: a model that is not here.
        """
        if not asked:
            return next(iter(self.models))
        if asked not in self.models:
            raise ConfigError(
                f"The model {asked!r} was asked",
                got="it is not open in this explorer",
                allowed=nearest(asked, self.models),
                fix=f"start one with mechxai explore model={asked}",
            )
        return asked

    def model(self, asked: str) -> HookedModel:
        """A model, loaded when first asked for."""
        name = self.name(asked)
        with self.lock(name):
            if name not in self._loaded:
                one = self.models[name]
                model = one if isinstance(one, HookedModel) else one()
                if model.text.tokenizer is None:
                    raise ConfigError(
                        f"{name} was to be explored", got="no tokenizer", fix="mx.wrap(model, tokenizer=...)"
                    )
                self._loaded[name] = model
            return self._loaded[name]

    def lock(self, name: str) -> threading.RLock:
        """What is held while a model runs."""
        with self._lock:
            return self._locks.setdefault(name, threading.RLock())

    def reading(self, view: View) -> PromptAnalysis:
        """What the view's prompt makes of its model; of the prompts read last, what is known already."""
        name = self.name(view.model)
        key = (name, view.prompt)
        with self._lock:
            if key in self._readings:
                self._readings.move_to_end(key)
                return self._readings[key]
        made = PromptAnalysis(self.model(name), key[1], tuned=self.lenses.get(name), lock=self.lock(name))
        with self._lock:
            kept = self._readings
            while kept and (len(kept) >= _KEPT or made.size + sum(one.size for one in kept.values()) > _MOST_BYTES):
                kept.popitem(last=False)
            return kept.setdefault(key, made)

    def tasks(self, asked: str) -> Sequence[str]:
        """Tasks whose prompts a model can read in its own words; those it was measured on come first."""
        model = self.model(asked)
        known = (model.card or {}).get("metrics", {})
        measured = [name for name in TASKS if name in known]
        return measured or list(TASKS)

    def example(self, asked: str, task: str, number: int) -> PromptExample:
        """A prompt of a task; another number, another prompt.

        Raises:
            ConfigError: no such task, or one whose prompts this model cannot read.
        """
        if task not in TASKS:
            raise ConfigError(f"The task {task!r} was asked", allowed=nearest(task, TASKS))
        model = self.model(asked)
        with self.lock(self.name(asked)):
            return example_of(model, TASKS[task](model, n=1, seed=abs(number) % 2**31))

    def first(self) -> View:
        """What an address that names nothing shows: what was asked at the start, else the first model's opening."""
        return self.start if self.start is not None else self.opening("")

    def opening(self, asked: str) -> View:
        """What a model opens with: an example of a task that it reads, else a sentence."""
        model, name = self.model(asked), self.name(asked)
        for task in self.tasks(asked):
            try:
                one = self.example(asked, task, 0)
            except MechXAIError:
                continue
            return View(name, one.prompt, one.corrupted, one.answer, one.wrong)
        missing = model.text.tokenizer.mask_token if model.text.masked else ""
        return View(name, f"The quick brown fox jumps over the lazy {missing}".rstrip())


def example_of(model: HookedModel, batch: ContrastBatch, row: int = 0) -> PromptExample:
    """A row of a batch as texts.

    Raises:
        ConfigError: tokens that no text gives.
    """
    length = int(batch.lengths[row])
    texts = []
    for run in ("clean", "corrupted"):
        ids = batch.tokens(run)[row, :length].tolist()
        body = ids[1:] if ids[:1] == [model.text.bos] else ids
        text = model.text.tokenizer.decode(body)
        if model.text.ids(text) != ids:
            raise ConfigError("A prompt of a task was to be shown as text", got=f"tokens that {text[:60]!r} is not")
        texts.append(text)
    right, wrong = (name_of(model, int(one[row, 0, 0])) for one in (batch.answers, batch.wrong))
    same = texts[0] == texts[1]
    return PromptExample(texts[0], "" if same else texts[1], right, wrong)
