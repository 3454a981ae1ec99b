"""What a panel is given to draw: a view of a reading, its numbers made definite, and the page's colours."""

from dataclasses import dataclass, replace
from functools import cached_property

from mechxai.explore.palette import Palette
from mechxai.explore.prompt_analysis import PromptAnalysis, TokenQuestion
from mechxai.explore.state import ExplorerState
from mechxai.explore.view import View
from mechxai.figures.text import safe

WIDEST = 24  # positions side by side


@dataclass(frozen=True)
class PanelContext:
    """A view with its reading.

    Attributes:
        room: where models and sweeps are.
        view: positions, layers and heads counted from 0, all of them there.
        reading: of the view's prompt.
        palette: the page's colours.
    """

    room: ExplorerState
    view: View
    reading: PromptAnalysis
    palette: Palette

    @cached_property
    def asked(self) -> TokenQuestion:
        """What is asked at the view's position."""
        return self.reading.asked(self.view.pos, self.view.answer, self.view.wrong)

    @property
    def block(self) -> int:
        """The view's layer as a block: what the model's own output comes from is the last."""
        return min(self.view.layer, self.reading.model.architecture.n_layers - 1)

    @property
    def places(self) -> range:
        """The positions shown side by side: the page of the prompt on which the view's position stands."""
        n = self.reading.n_pos
        first = max(0, min(self.view.pos // WIDEST * WIDEST, n - WIDEST))
        return range(first, min(n, first + WIDEST))

    def labels(self, places: range) -> list[str]:
        """Tokens at positions, ready for a figure."""
        return [written(self.reading.tokens[at], 10) for at in places]

    @property
    def pair(self) -> str:
        """The two tokens the question is about, ready for a figure."""
        return f"{self.said(self.asked.answer)} \N{MINUS SIGN} {self.said(self.asked.wrong)}"

    def said(self, token: int) -> str:
        """A token, ready for a figure."""
        return written(self.reading.text(token), 14)


def panel_context(room: ExplorerState, view: View, palette: Palette) -> PanelContext:
    """The scene of a view; numbers beyond the prompt or the model are brought to its edge."""
    reading = room.reading(view)
    a = reading.model.architecture
    definite = replace(
        view,
        model=room.name(view.model),
        pos=reading.end if view.pos == -1 else _inside(view.pos, reading.n_pos),
        layer=_inside(view.layer, a.n_layers + 1),
        head=_inside(view.head, a.n_heads),
    )
    return PanelContext(room, definite, reading, palette)


def _inside(number: int, count: int) -> int:
    return max(0, min(number + count if number < 0 else number, count - 1))


def written(token: str, limit: int) -> str:
    """A token as figures write it: a leading space is no news, other blanks are shown; escaped."""
    shown = token[1:] if len(token) > 1 and token.startswith(" ") else token
    return safe(shown.replace(" ", "␣") if shown.isspace() else shown, limit)


def goes(**parts: object) -> str:
    """What a click on a point changes of the view, as the page's script reads it."""
    return "\x1f".join(f"{name}={value}" for name, value in parts.items())
