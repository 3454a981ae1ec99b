"""The table of panels: what each depends on and how it is drawn. A new panel is a file in `panels` and a row here."""

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

_QUESTION = ("model", "prompt", "pos", "answer", "wrong")
_PAIR = ("model", "prompt", "corrupted", "answer", "wrong")
_MESSAGE_HEIGHT = 300


@dataclass(frozen=True)
class Panel:
    """A figure that is drawn for every view.

    Attributes:
        name: its id on the page.
        title: shown above it.
        about: one line below the title.
        needs: fields of the view that change the figure.
        draw: returns the figure.
        content: returns what the cells depend on; while it stays equal, only the frame around the chosen cell moves.
            None for figures without a frame.
    """

    name: str
    title: str
    about: str
    needs: tuple[str, ...]
    draw: Callable[[PanelContext], Picture]
    content: Callable[[PanelContext], Hashable] | None = None


@dataclass(frozen=True)
class MethodPanel:
    """A figure of a method's result; a method that may take long is started by its button.

    Attributes:
        name: its id on the page.
        title: shown above it.
        about: one line below the title.
        needs: fields of the view that change the figure.
        key: returns what determines the method's numbers.
        method: returns the method.
        draw: returns the figure of the result.
        content: as for `Panel`.
        paired: whether the method runs on the clean and the corrupted prompt, or on the prompt alone.
        quick: returns whether the method is so fast for this view that it runs without being started.
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

    def batch(self, context: PanelContext) -> ContrastBatch:
        """The prompts that the method runs on."""
        return prompt_pair(context) if self.paired else context.analysis.batch

    def result(self, context: PanelContext) -> Result | None:
        """The method's result; None if it has not been started or has not finished."""
        run = context.state.background.get(self.key(context))
        if run is None and self.quick(context):
            return context.analysis.cached(
                self.key(context), lambda: self.method(context)(context.analysis.model, self.batch(context))
            )
        return None if run is None else run.result


PANELS = (
    Panel(
        "lens",
        "Prediction of each layer",
        "the likeliest next token, read from the residual stream before every layer",
        (*_QUESTION, "layer", "lens", "color"),
        lens.draw,
        lens.content,
    ),
    Panel(
        "next",
        "Next token",
        "at the chosen layer and position; click a token to make it the answer",
        (*_QUESTION, "layer", "lens"),
        next_tokens.draw,
    ),
    Panel(
        "attention",
        "Attention of the chosen head",
        "where the head attends, not whether that matters",
        ("model", "prompt", "pos", "layer", "head"),
        attention.draw,
        attention.content,
    ),
    Panel(
        "heads",
        "Contribution of each head",
        "written directly towards the answer at the chosen position",
        (*_QUESTION, "layer", "head"),
        contributions.by_head,
        contributions.content,
    ),
    Panel(
        "layers",
        "Contribution of each layer",
        "the parts sum to the logit difference",
        _QUESTION,
        contributions.by_layer,
    ),
    Panel(
        "sources",
        "Contribution of the chosen head, by source token",
        "attention times the value read from each token",
        (*_QUESTION, "layer", "head"),
        contributions.by_token,
    ),
)
METHOD_PANELS = (
    MethodPanel(
        "routes",
        "Information flow routes to the chosen position",
        "edges close to the vectors that they contribute to, traced down from the position; close is not causal",
        ("model", "prompt", "pos", "layer"),
        routes.key,
        routes.method,
        routes.draw,
        paired=False,
        quick=routes.quick,
    ),
    MethodPanel(
        "patching",
        "Activation patching: what restores the answer",
        "clean activations patched into the corrupted run, one cell at a time; 1 is the whole effect",
        (*_PAIR, "site", "pos", "layer", "head"),
        patching.key,
        patching.method,
        patching.draw,
        patching.content,
    ),
    MethodPanel(
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
    MethodPanel(
        "circuit",
        "Circuit: the edges that carry the answer",
        "integrated gradients over edges (EAP-IG); an estimate, to be confirmed by patching",
        (*_PAIR, "layer", "head"),
        circuit.key,
        circuit.method,
        circuit.draw,
    ),
)
ALL_PANELS = (*PANELS, *METHOD_PANELS)


def panel_figure(panel: Panel | MethodPanel, context: PanelContext) -> Picture:
    """The figure of a panel; of a method without a result, a sentence on what to do or why it failed."""
    if isinstance(panel, Panel):
        return panel.draw(context)
    result, run = panel.result(context), context.state.background.get(panel.key(context))
    if result is not None:
        return panel.draw(context, result)
    if run is not None and run.error:
        return context.palette.message(safe(run.error, 110), _MESSAGE_HEIGHT)
    ready = context.view.corrupted or not panel.paired
    hint = "not run yet" if ready else "enter a corrupted prompt with as many tokens, then click Run"
    return context.palette.message(hint, _MESSAGE_HEIGHT)


def stamp(panel: Panel | MethodPanel, context: PanelContext) -> str:
    """A text of everything that the figure depends on: equal stamps mean equal figures.

    Its first line covers the cells without the frame; it is empty for figures without a frame.
    """
    parts, framed = [getattr(context.view, name) for name in panel.needs], True
    if isinstance(panel, MethodPanel) and not panel.quick(context):
        run = context.state.background.get(panel.key(context))
        if run is None or run.result is None:  # a sentence, the same for every chosen cell
            parts, framed = [bool(context.view.corrupted), "" if run is None else run.error], False
    cells = panel.content(context) if framed and panel.content is not None else None
    first_line = "" if cells is None else repr((context.palette.ink, cells))
    return f"{first_line}\n{(context.palette.ink, *parts)!r}"


def start(panel: MethodPanel, context: PanelContext) -> None:
    """Starts a panel's method in the background.

    Raises:
        ConfigError: no corrupted prompt.
        AlignmentError: a corrupted prompt of another length.
    """
    batch, state = panel.batch(context), context.state
    state.background.start(
        panel.key(context),
        lambda: panel.method(context)(context.analysis.model, batch),
        lock=state.lock(context.view.model),
        label=_run_label(panel, context),
    )


def _run_label(panel: MethodPanel, context: PanelContext) -> str:
    """What the method computes, in words: the position, the prompt, or the question."""
    analysis, view = context.analysis, context.view
    if not panel.paired:
        return f"position {view.pos}" if "pos" in panel.needs else "this prompt"
    return analysis.question_text(analysis.question(analysis.answer_pos, view.answer, view.wrong))


def prompt_pair(context: PanelContext) -> ContrastBatch:
    """The clean and the corrupted prompt, with the question at their last position.

    Raises:
        ConfigError: no corrupted prompt.
        AlignmentError: a corrupted prompt of another length.
    """
    view, analysis = context.view, context.analysis
    if not view.corrupted.strip():
        raise ConfigError(
            "This method needs a corrupted prompt", fix="Enter one with as many tokens and another answer"
        )
    question = analysis.question(analysis.answer_pos, view.answer, view.wrong)
    with context.state.lock(view.model):
        return prompts(
            analysis.model,
            texts=[view.prompt],
            counterfactuals=[view.corrupted],
            answers=[question.answer],
            wrong=[question.wrong],
        )
