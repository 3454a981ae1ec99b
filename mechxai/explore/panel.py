"""Which panels there are, what each depends on, how it is drawn. A new one is a file in `panels` and a row here."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError
from mechxai.core.method import Method
from mechxai.core.result import Result
from mechxai.explore.palette import Picture
from mechxai.explore.panel_context import PanelContext
from mechxai.explore.panels import attention, circuit, contributions, factors, lens, next_tokens, patching, routes
from mechxai.figures.text import safe
from mechxai.tasks.prompts import prompts

_ASKED = ("model", "prompt", "pos", "answer", "wrong")
_PAIR = ("model", "prompt", "corrupted", "answer", "wrong")
_WAITING_HEIGHT = 300


@dataclass(frozen=True)
class Panel:
    """A figure that follows the view.

    Attributes:
        name: its id on the page.
        title: shown above it.
        about: one line below the title.
        needs: fields of the view that change it.
        draw: its figure.
        content: what its cells depend on; while that stays, a change of the view only moves the frame around the
            chosen one. None where there is no frame.
    """

    name: str
    title: str
    about: str
    needs: tuple[str, ...]
    draw: Callable[[PanelContext], Picture]
    content: Callable[[PanelContext], Hashable] | None = None


@dataclass(frozen=True)
class SweepPanel:
    """A figure of a method that may take long: somebody has to start it.

    Attributes:
        name: its id on the page.
        title: shown above it.
        about: one line below the title.
        needs: fields of the view that change the figure.
        key: what decides the sweep's numbers.
        method: what is run.
        draw: the figure of its result.
        content: as a panel's.
        paired: whether it is run on the pair of prompts, or on the prompt alone.
        quick: whether it takes so little that nobody need start it.
    """

    name: str
    title: str
    about: str
    needs: tuple[str, ...]
    key: Callable[[PanelContext], Hashable]
    method: Callable[[PanelContext], Method]
    draw: Callable[[PanelContext, Result], Picture]
    content: Callable[[PanelContext], Hashable] | None = None
    paired: bool = True
    quick: Callable[[PanelContext], bool] = lambda _: False

    def batch(self, scene: PanelContext) -> ContrastBatch:
        """What the method is run on."""
        return pair(scene) if self.paired else scene.reading.batch

    def result(self, scene: PanelContext) -> Result | None:
        """What it found; None where it was not run, or has not ended."""
        sweep = scene.room.sweeps.get(self.key(scene))
        if sweep is None and self.quick(scene):
            make = lambda: self.method(scene)(scene.reading.model, self.batch(scene))  # noqa: E731
            return scene.reading.once(self.key(scene), make)
        return None if sweep is None else sweep.result


PANELS = (
    Panel(
        "lens",
        "What each layer would say",
        "the likeliest next token, read off the residual stream before every layer",
        (*_ASKED, "layer", "lens", "color"),
        lens.draw,
        lens.content,
    ),
    Panel(
        "next",
        "Next token",
        "at the chosen layer and position; click one to ask about it",
        (*_ASKED, "layer", "lens"),
        next_tokens.draw,
    ),
    Panel(
        "attention",
        "Attention of the chosen head",
        "where it looks, not whether that mattered",
        ("model", "prompt", "pos", "layer", "head"),
        attention.draw,
        attention.content,
    ),
    Panel(
        "heads",
        "What each head writes",
        "towards the answer at the chosen position, directly",
        (*_ASKED, "layer", "head"),
        contributions.by_head,
        contributions.content,
    ),
    Panel("layers", "What each layer writes", "the parts sum to the logit difference", _ASKED, contributions.by_layer),
    Panel(
        "sources",
        "What the chosen head writes, by token read",
        "attention times what is read there",
        (*_ASKED, "layer", "head"),
        contributions.by_token,
    ),
)
SWEEPS = (
    SweepPanel(
        "routes",
        "Routes: how the chosen position came by what it holds",
        "edges near the vectors they end in, traced down from there (information flow routes); close is not causal",
        ("model", "prompt", "pos", "layer"),
        routes.key,
        routes.method,
        routes.draw,
        paired=False,
        quick=routes.quick,
    ),
    SweepPanel(
        "patching",
        "Patching: what brings the answer back",
        "clean activations put into the corrupted run, one cell at a time; 1 is the whole effect",
        (*_PAIR, "site", "pos", "layer", "head"),
        patching.key,
        patching.method,
        patching.draw,
        patching.content,
    ),
    SweepPanel(
        "factors",
        "Neurons that fire together",
        "groups of MLP neurons and the tokens on which each is active (non-negative factors); firing is not mattering",
        ("model", "prompt", "pos"),
        factors.key,
        factors.method,
        factors.draw,
        factors.content,
        paired=False,
        quick=factors.quick,
    ),
    SweepPanel(
        "circuit",
        "Circuit: which edges carry it",
        "integrated gradients over edges (EAP-IG); an estimate, to be confirmed by patching",
        (*_PAIR, "layer", "head"),
        circuit.key,
        circuit.method,
        circuit.draw,
    ),
)


def drawn(panel: Panel | SweepPanel, scene: PanelContext) -> Picture:
    """The figure of a panel; of a sweep that is not done, what to do, or why it failed."""
    if isinstance(panel, Panel):
        return panel.draw(scene)
    result, sweep = panel.result(scene), scene.room.sweeps.get(panel.key(scene))
    if result is not None:
        return panel.draw(scene, result)
    if sweep is not None and sweep.error:
        return scene.palette.said(safe(sweep.error, 110), _WAITING_HEIGHT)
    ready = scene.view.corrupted or not panel.paired
    hint = "not run yet" if ready else "give a corrupted prompt of as many tokens, then run"
    return scene.palette.said(hint, _WAITING_HEIGHT)


def stamp(panel: Panel | SweepPanel, scene: PanelContext) -> str:
    """What the figure depends on, as a text: while it stays the same, so does the figure.

    Its first line is of the cells alone; empty where these do not stand for themselves.
    """
    parts, framed = [getattr(scene.view, name) for name in panel.needs], True
    if isinstance(panel, SweepPanel) and not panel.quick(scene):
        sweep = scene.room.sweeps.get(panel.key(scene))
        if sweep is None or sweep.result is None:  # a sentence, wherever one looks
            parts, framed = [bool(scene.view.corrupted), "" if sweep is None else sweep.error], False
    own = panel.content(scene) if framed and panel.content is not None else None
    content = "" if own is None else repr((scene.palette.ink, own))
    return f"{content}\n{(scene.palette.ink, *parts)!r}"


def start(panel: SweepPanel, scene: PanelContext) -> None:
    """Begins a panel's sweep in the background.

    Raises:
        ConfigError: no corrupted prompt.
        AlignmentError: one of another length.
    """
    batch, view = panel.batch(scene), scene.view
    make = lambda: panel.method(scene)(scene.reading.model, batch)  # noqa: E731
    scene.room.sweeps.start(panel.key(scene), make, lock=scene.room.lock(view.model), about=_about(panel, scene))


def _about(panel: SweepPanel, scene: PanelContext) -> str:
    """What is asked, in words."""
    reading, view = scene.reading, scene.view
    if not panel.paired:
        return f"position {view.pos}" if "pos" in panel.needs else "this prompt"
    return reading.words(reading.asked(reading.end, view.answer, view.wrong))


def pair(scene: PanelContext) -> ContrastBatch:
    """The prompt beside its corrupted one, answered at the end."""
    view, reading = scene.view, scene.reading
    if not view.corrupted.strip():
        raise ConfigError(
            "A sweep was asked", got="no corrupted prompt", fix="give one of as many tokens that has another answer"
        )
    asked = reading.asked(reading.end, view.answer, view.wrong)
    with scene.room.lock(view.model):
        return prompts(
            reading.model,
            texts=[view.prompt],
            counterfactuals=[view.corrupted],
            answers=[asked.answer],
            wrong=[asked.wrong],
        )
