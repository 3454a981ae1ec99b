"""Everything the explorer computes about one prompt and one model, on first use, with results kept."""

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
_ATTRIBUTIONS: dict[str, Callable[[], Any]] = {
    "gradient_x_input": GradientXInput,
    "saliency": Saliency,
    "occlusion": Occlusion,
}
_TOKEN_ID = re.compile(r"#(\d{1,7})")
TOP = 10  # tokens listed per layer and position
_MAX_CACHED = 300


@dataclass(frozen=True)
class TokenQuestion:
    """Why one token rather than another is predicted at a position.

    Attributes:
        pos: the position.
        answer: id of the answer token.
        wrong: id of the token it is compared with.
    """

    pos: int
    answer: int
    wrong: int


class PromptAnalysis:
    """One prompt under one model; safe to use from several threads.

    Args:
        model: the model.
        prompt: its text.
        tuned: a tuned lens of this model, if there is one.
        lock: held while the model runs; all analyses of one model share it.
    """

    def __init__(self, model: HookedModel, prompt: str, *, tuned: TunedLens | None, lock: threading.RLock) -> None:
        self.model, self.tuned = model, tuned
        self._lock, self._results = lock, dict[Hashable, Any]()
        self.batch = self.cached("batch", lambda: _prompt_batch(model, prompt)).to(model.device)

    @property
    def n_pos(self) -> int:
        """Number of tokens of the prompt."""
        return self.batch.n_pos

    @property
    def answer_pos(self) -> int:
        """The position at which the prompt's next token is predicted: the last, or the mask of a masked model."""
        return int(self.batch.answer_pos[0])

    @property
    def n_bytes(self) -> int:
        """Approximate size of the prompt's attention patterns and residual streams, in bytes."""
        a, n = self.model.architecture, self.n_pos
        return 2 * a.n_layers * a.n_heads * n * n + 4 * (a.n_layers + 1) * n * a.d_model

    @property
    def tokens(self) -> tuple[str, ...]:
        """Texts of the prompt's tokens."""
        return self.batch.strings[0]

    def text(self, token: int) -> str:
        """The text of a token id."""
        return self.model.text.strings([token])[0]

    def lens(self, name: str, positions: Sequence[int], target: int | None = None) -> Lens:
        """The lens reading of every layer at some positions, ``[layer, position]``, with the rank of a target token.

        Raises:
            ConfigError: ``tuned`` in an explorer without a tuned lens.
        """
        if name == "tuned" and self.tuned is None:
            raise ConfigError(
                "This explorer has no tuned lens of the model", fix="Start it with mechxai explore lens=FOLDER"
            )
        key = ("lens", name, tuple(positions), target)
        return self.cached(key, lambda: self._lens(name, torch.tensor(positions), -1 if target is None else target))

    def _lens(self, name: str, positions: Tensor, target: int) -> Lens:
        streams = self.cached("streams", lambda: streams_of(self.model, self.batch, "resid_pre", run="clean"))
        targets = torch.full((len(positions), 1), target, device=self.model.device)
        return reading(
            self.model,
            [stream[0][positions.to(stream.device)] for stream in streams],
            targets,
            k=min(TOP, self.model.architecture.d_vocab),
            translate=self.tuned if name == "tuned" else None,
        )

    def question(self, pos: int, answer: str, wrong: str) -> TokenQuestion:
        """The question at a position; empty texts stand for the model's first choice and its next choice.

        Raises:
            ConfigError: a text that is not one token, or two texts of the same token.
        """
        top_tokens = [int(token) for token in self.lens("logit", [pos]).top_token[-1, 0]]
        answer_id = self._token_id(answer) if answer else top_tokens[0]
        wrong_id = self._token_id(wrong) if wrong else next(token for token in top_tokens if token != answer_id)
        if answer_id == wrong_id:
            raise ConfigError(
                f"The answer and the wrong answer are the same token, {self.text(answer_id)!r}",
                fix="Change one of them",
            )
        return TokenQuestion(pos, answer_id, wrong_id)

    def question_text(self, question: TokenQuestion) -> str:
        """A question in words: ``“ Mary” against “ John”``."""
        return " against ".join(f"“{printable(self.text(token))}”" for token in (question.answer, question.wrong))

    def token_name(self, token: int) -> str:
        """A token's name in a `View`: its text, or ``#`` and its id where no text gives it."""
        return token_name(self.model, token)

    def _token_id(self, name: str) -> int:
        """The token of a name; the leading space may be left out where the name is one token only with it."""
        numbered = _TOKEN_ID.fullmatch(name)
        if numbered and int(numbered[1]) < self.model.architecture.d_vocab:
            return int(numbered[1])
        ids_by_text = [self.model.text.bare_ids(text) for text in (name, f" {name}")]
        single = [ids[0] for ids in ids_by_text if len(ids) == 1 and ids[0] != self.model.text.unknown]
        if not single:
            n_tokens = len(ids_by_text[0])
            raise ConfigError(
                f"{name[:40]!r} is {f'{n_tokens} tokens' if n_tokens != 1 else 'not in the vocabulary'}",
                fix="Name one token, with its leading space if it has one",
            )
        return single[0]

    def contrast_batch(self, question: TokenQuestion) -> ContrastBatch:
        """The prompt as methods take it, with the question's position and tokens."""
        device = self.model.device
        return replace(
            self.batch,
            answers=torch.tensor([[[question.answer]]], device=device),
            wrong=torch.tensor([[[question.wrong]]], device=device),
            answer_pos=torch.tensor([question.pos], device=device),
        )

    def pattern(self, layer: int, head: int) -> np.ndarray:
        """The attention pattern of a head, ``[dest, src]``."""
        return self.cached("patterns", self._patterns)[layer, head].astype(np.float32)

    def _patterns(self) -> np.ndarray:
        """Attention patterns of all heads in half precision, ``[layer, head, dest, src]``."""
        n_layers = self.model.architecture.n_layers
        acts = self.model.cache(self.batch.clean, [Site("pattern", layer) for layer in range(n_layers)])
        return np.stack([acts["pattern", layer][0].half().cpu().numpy() for layer in range(n_layers)])

    def contributions(self, question: TokenQuestion) -> Result:
        """Direct logit attribution to every component, split as finely as this model allows."""
        return self.cached(("contributions", question), lambda: self._contributions(self.contrast_batch(question)))

    def _contributions(self, batch: ContrastBatch) -> Result:
        for by in ("source", "head"):
            try:
                return DirectLogitAttribution(by=by)(self.model, batch)
            except ModelSupportError:
                continue
        return DirectLogitAttribution(by="layer")(self.model, batch)

    def token_scores(self, method: str, question: TokenQuestion) -> np.ndarray:
        """The attribution of the answer to each token of the prompt, ``[pos]``."""

        def scores() -> np.ndarray:
            return _ATTRIBUTIONS[method]()(self.model, self.contrast_batch(question)).data["value"].values[0]

        return self.cached(("inputs", method, question), scores)

    def cached(self, key: Hashable, compute: Callable[[], _T]) -> _T:
        """The result of a computation that runs once per key, or its `MechXAIError`, raised again at every call.

        One thread computes at a time. Of results per position (keys that are tuples), only the latest are kept.
        """
        with self._lock:
            if key not in self._results:
                while len(self._results) >= _MAX_CACHED:
                    del self._results[next(known for known in self._results if isinstance(known, tuple))]
                try:
                    self._results[key] = compute()
                except MechXAIError as error:
                    self._results[key] = error
            result = self._results[key]
        if isinstance(result, MechXAIError):
            raise result
        return result


def token_name(model: HookedModel, token: int) -> str:
    """A token's name in a `View`: its text, or ``#`` and its id where no text gives it."""
    text = model.text.strings([token])[0]
    unambiguous = (
        text.isprintable()
        and model.text.bare_ids(text) == [token]
        and token != model.text.unknown
        and not _TOKEN_ID.fullmatch(text)
    )
    return text if unambiguous else f"#{token}"


def _prompt_batch(model: HookedModel, prompt: str) -> ContrastBatch:
    if not prompt.strip():
        raise ConfigError("The prompt is empty", fix="Type one, or take an example of a task")
    n_ctx, n_tokens = model.architecture.n_ctx, len(model.text.ids(prompt))
    if n_tokens > n_ctx:
        raise ConfigError(f"The prompt has {n_tokens:,} tokens: {model.name} reads at most {n_ctx:,}", fix="Shorten it")
    return prompts(model, texts=[prompt])
