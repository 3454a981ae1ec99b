"""What one prompt makes of one model: all that panels draw, computed when first asked, and kept."""

import re
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, MechXAIError, ModelSupportError
from mechxai.core.result import Result
from mechxai.core.site import Site
from mechxai.figures.text import printable
from mechxai.methods.attribution.gradient_x_input import GradientXInput
from mechxai.methods.attribution.occlusion import Occlusion
from mechxai.methods.attribution.saliency import Saliency
from mechxai.methods.lens._lib.stream_reading import StreamReading as Lens
from mechxai.methods.lens._lib.stream_reading import reading
from mechxai.methods.lens._lib.streams import streams_of
from mechxai.methods.lens._lib.tuned_lens import TunedLens
from mechxai.methods.lens.direct_logit_attribution import DirectLogitAttribution
from mechxai.model.hooked_model import HookedModel
from mechxai.tasks.prompts import prompts

_T = TypeVar("_T")
_INPUTS: dict[str, Callable[[], Any]] = {
    "gradient_x_input": GradientXInput,
    "saliency": Saliency,
    "occlusion": Occlusion,
}
_ID = re.compile(r"#(\d{1,7})")
TOP = 10
_MOST = 300


@dataclass(frozen=True)
class TokenQuestion:
    """A question about one position: why this token and not that one.

    Attributes:
        pos: the position.
        answer: id of the token asked about.
        wrong: id of what it is set against.
    """

    pos: int
    answer: int
    wrong: int


class PromptAnalysis:
    """One prompt, read by one model; several threads may ask.

    Args:
        model: the model.
        prompt: its text.
        tuned: a tuned lens of this model.
        lock: held while the model runs; all readings of one model share it.
    """

    def __init__(self, model: HookedModel, prompt: str, *, tuned: TunedLens | None, lock: threading.RLock) -> None:
        self.model, self.tuned = model, tuned
        self._lock, self._kept = lock, dict[Hashable, Any]()
        self.batch = self.once("batch", lambda: _batch(model, prompt)).to(model.device)

    @property
    def n_pos(self) -> int:
        """Tokens of the prompt."""
        return self.batch.n_pos

    @property
    def end(self) -> int:
        """The position whose next token is asked about: the last, or the mask of a masked model."""
        return int(self.batch.answer_pos[0])

    @property
    def size(self) -> int:
        """Bytes that patterns and streams take once they are read, about."""
        a, n = self.model.architecture, self.n_pos
        return 2 * a.n_layers * a.n_heads * n * n + 4 * (a.n_layers + 1) * n * a.d_model

    @property
    def tokens(self) -> tuple[str, ...]:
        """Their texts."""
        return self.batch.strings[0]

    def text(self, token: int) -> str:
        """A token's text."""
        return self.model.text.strings([token])[0]

    def lens(self, name: str, places: Sequence[int], target: int | None = None) -> Lens:
        """What every layer says at some positions, and how it ranks a token there (if any), ``[layer, place]``.

        Raises:
            ConfigError: the tuned lens is asked, and the explorer was given none.
        """
        if name == "tuned" and self.tuned is None:
            raise ConfigError("The tuned lens was asked", got="none", fix="start with mechxai explore lens=FOLDER")
        key = ("lens", name, tuple(places), target)
        return self.once(key, lambda: self._lens(name, torch.tensor(places), -1 if target is None else target))

    def _lens(self, name: str, places: Tensor, target: int) -> Lens:
        streams = self.once("streams", lambda: streams_of(self.model, self.batch, "resid_pre", run="clean"))
        asked = torch.full((len(places), 1), target, device=self.model.device)
        return reading(
            self.model,
            [one[0][places.to(one.device)] for one in streams],
            asked,
            k=min(TOP, self.model.architecture.d_vocab),
            translate=self.tuned if name == "tuned" else None,
        )

    def asked(self, pos: int, answer: str, wrong: str) -> TokenQuestion:
        """The question at a position: the tokens named, else the model's first choice and its next.

        Raises:
            ConfigError: a text that is not one token, or both are the same.
        """
        own = [int(one) for one in self.lens("logit", [pos]).top_token[-1, 0]]
        right = self._token(answer) if answer else own[0]
        other = self._token(wrong) if wrong else next(one for one in own if one != right)
        if right == other:
            raise ConfigError("Answer and wrong answer", got=f"both are {self.text(right)!r}", fix="change one of them")
        return TokenQuestion(pos, right, other)

    def words(self, asked: TokenQuestion) -> str:
        """A question in words."""
        return " against ".join(f"“{printable(self.text(one))}”" for one in (asked.answer, asked.wrong))

    def name_of(self, token: int) -> str:
        """A token as a view names it."""
        return name_of(self.model, token)

    def _token(self, text: str) -> int:
        """The token of a name; where a space before it makes it one token, the space may be left out."""
        numbered = _ID.fullmatch(text)
        if numbered and int(numbered[1]) < self.model.architecture.d_vocab:
            return int(numbered[1])
        found = [self.model.text.bare_ids(one) for one in (text, f" {text}")]
        single = [ids[0] for ids in found if len(ids) == 1 and ids[0] != self.model.text.unknown]
        if not single:
            raise ConfigError(
                f"The token {text[:40]!r} was asked about",
                got=f"{len(found[0])} tokens" if len(found[0]) != 1 else "not in the vocabulary",
                fix="name one token, with its leading space if it has one",
            )
        return single[0]

    def question(self, asked: TokenQuestion) -> ContrastBatch:
        """The prompt as methods take it, answered at the position asked about."""
        device = self.model.device
        return replace(
            self.batch,
            answers=torch.tensor([[[asked.answer]]], device=device),
            wrong=torch.tensor([[[asked.wrong]]], device=device),
            answer_pos=torch.tensor([asked.pos], device=device),
        )

    def pattern(self, layer: int, head: int) -> np.ndarray:
        """Attention of a head, ``[dest, src]``."""
        return self.once("patterns", self._patterns)[layer, head].astype(np.float32)

    def _patterns(self) -> np.ndarray:
        """Of every head, in half the space."""
        last = self.model.architecture.n_layers
        acts = self.model.cache(self.batch.clean, [Site("pattern", layer) for layer in range(last)])
        return np.stack([acts["pattern", layer][0].half().cpu().numpy() for layer in range(last)])

    def contributions(self, asked: TokenQuestion) -> Result:
        """What every component writes towards the answer, as finely as this model can be split."""
        return self.once(("contributions", asked), lambda: self._contributions(self.question(asked)))

    def _contributions(self, question: ContrastBatch) -> Result:
        for by in ("source", "head"):
            try:
                return DirectLogitAttribution(by=by)(self.model, question)
            except ModelSupportError:
                continue
        return DirectLogitAttribution(by="layer")(self.model, question)

    def inputs(self, name: str, asked: TokenQuestion) -> np.ndarray:
        """How much each token mattered to the answer, by a method of attribution, ``[pos]``."""
        made = lambda: _INPUTS[name]()(self.model, self.question(asked)).data["value"].values[0]  # noqa: E731
        return self.once(("inputs", name, asked), made)

    def once(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """What was made for a key, or why it cannot be; made when first asked, by one thread at a time.

        Of what is asked position by position, what was made last is kept.
        """
        with self._lock:
            if key not in self._kept:
                while len(self._kept) >= _MOST:
                    del self._kept[next(one for one in self._kept if isinstance(one, tuple))]
                try:
                    self._kept[key] = make()
                except MechXAIError as error:
                    self._kept[key] = error
            found = self._kept[key]
        if isinstance(found, MechXAIError):
            raise found
        return found


def name_of(model: HookedModel, token: int) -> str:
    """A token as a view names it: by its text, or by its id where no text gives it."""
    text = model.text.strings([token])[0]
    told = (
        text.isprintable()
        and model.text.bare_ids(text) == [token]
        and token != model.text.unknown
        and not _ID.fullmatch(text)
    )
    return text if told else f"#{token}"


def _batch(model: HookedModel, prompt: str) -> ContrastBatch:
    if not prompt.strip():
        raise ConfigError("A prompt was to be read", got="nothing", fix="type one, or take an example of a task")
    most, count = model.architecture.n_ctx, len(model.text.ids(prompt))
    if count > most:
        raise ConfigError(
            "A prompt was to be read", got=f"{count:,} tokens", allowed=f"up to {most:,} of {model.name}", fix="cut it"
        )
    return prompts(model, texts=[prompt])
