"""The input of every panel: a view with definite numbers, the analysis of its prompt, and the page's colours."""

from dataclasses import dataclass, replace

from mechxai.core.cached import cached_property
from mechxai.explore.palette import Palette
from mechxai.explore.prompt_analysis import PromptAnalysis, TokenQuestion
from mechxai.explore.state import ExplorerState
from mechxai.explore.view import View
from mechxai.figures.text import safe

WIDEST = 24  # positions shown side by side


@dataclass(frozen=True)
class PanelContext:
    """A view and the analysis of its prompt.

    Attributes:
        state: the explorer's models and background runs.
        view: its position, layer and head are counted from 0 and exist.
        analysis: of the view's prompt.
        palette: the page's colours.
    """

    state: ExplorerState
    view: View
    analysis: PromptAnalysis
    palette: Palette

    @cached_property
    def question(self) -> TokenQuestion:
        """The question at the view's position."""
        return self.analysis.question(self.view.pos, self.view.answer, self.view.wrong)

    def check(self) -> None:
        """Refuses a view whose answer or wrong answer is not one token of the model.

        Raises:
            ConfigError: a text that is not one token, or two texts of the same token.
        """
        self.analysis.question(self.view.pos, self.view.answer, self.view.wrong)

    @property
    def block(self) -> int:
        """The block of the view's layer; for the model's output, the last block."""
        return min(self.view.layer, self.analysis.model.architecture.n_layers - 1)

    @property
    def positions(self) -> range:
        """The positions shown side by side: the page of the prompt that holds the view's position."""
        n_pos = self.analysis.n_pos
        first = max(0, min(self.view.pos // WIDEST * WIDEST, n_pos - WIDEST))
        return range(first, min(n_pos, first + WIDEST))

    def labels(self, positions: range) -> list[str]:
        """Tokens at positions, escaped for a figure."""
        return [token_label(self.analysis.tokens[pos], 10) for pos in positions]

    @property
    def contrast_label(self) -> str:
        """The answer minus the wrong answer as tokens, escaped for a figure."""
        answer, wrong = (
            token_label(self.analysis.text(token), 14) for token in (self.question.answer, self.question.wrong)
        )
        return f"{answer} \N{MINUS SIGN} {wrong}"


def panel_context(state: ExplorerState, view: View, palette: Palette) -> PanelContext:
    """The context of a view; positions, layers and heads beyond the prompt or the model are clipped."""
    analysis = state.analysis(view)
    a = analysis.model.architecture
    definite = replace(
        view,
        model=state.model_name(view.model),
        pos=analysis.answer_pos if view.pos == -1 else _clipped(view.pos, analysis.n_pos),
        layer=_clipped(view.layer, a.n_layers + 1),
        head=_clipped(view.head, a.n_heads),
    )
    return PanelContext(state, definite, analysis, palette)


def _clipped(index: int, count: int) -> int:
    return max(0, min(index + count if index < 0 else index, count - 1))


def token_label(token: str, limit: int) -> str:
    """A token as figures write it, escaped: without its leading space, with other white space made visible."""
    shown = token[1:] if len(token) > 1 and token.startswith(" ") else token
    return safe(shown.replace(" ", "␣") if shown.isspace() else shown, limit)


def click_target(**changes: object) -> str:
    """The change of the view that a click on a point makes, as the page's script reads it."""
    return "\x1f".join(f"{name}={value}" for name, value in changes.items())
