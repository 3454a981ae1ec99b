"""What models have in common whose outputs are of whole texts and have names: labels, references, options."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from mechxai.core.architecture import Architecture
from mechxai.core.batch import Answer, ContrastBatch
from mechxai.core.errors import AlignmentError, ConfigError, ShapeError, nearest
from mechxai.core.shapes import PromptInts, RowLogits, Tokens
from mechxai.model.text import TextCodec, padded


class NamedOutputs(ABC):
    """A model with one vector of named outputs per text. They stand where logits stand, at a single position.

    Attributes:
        name: of the model.
        text: its tokenizer.
        outputs: what each output is called.
        architecture: sizes; ``d_vocab`` counts tokens.
        card: what is known of it, where it is bundled.
    """

    name: str
    text: TextCodec
    outputs: tuple[str, ...]
    architecture: Architecture
    card: Mapping[str, Any]

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where its tokens are wanted."""

    @abstractmethod
    def info(self) -> dict[str, object]:
        """What a result records of its model."""

    @abstractmethod
    def logits(
        self, tokens: Tokens, *, lengths: PromptInts | None = None, at: Int[Tensor, "batch k"] | None = None
    ) -> RowLogits:
        """The outputs ``[batch, 1, output]``; ``at`` is of no matter."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}: {self.architecture.family}, outputs {list(self.outputs)})"

    def tokens(self, prompts: str | Sequence[str]) -> tuple[Tokens, PromptInts]:
        """Tokens ``[batch, pos]`` padded on the right, and lengths ``[batch]``, of one or more texts."""
        tokens, lengths = self.text.batch([prompts] if isinstance(prompts, str) else prompts)
        return tokens.to(self.device), lengths.to(self.device)

    def output(self, answer: Answer) -> int:
        """The number of an output, given by name or number.

        Raises:
            ConfigError: no such output.
        """
        if isinstance(answer, str) and answer in self.outputs:
            return self.outputs.index(answer)
        if isinstance(answer, int) and 0 <= answer < len(self.outputs):
            return answer
        allowed = nearest(str(answer), self.outputs)
        raise ConfigError(f"Output {answer!r} of {self.name} was asked", allowed=allowed)

    def contrast(  # noqa: PLR0917 - the order of `ContrastBatch.from_prompts`
        self,
        clean: Sequence[str],
        corrupted: Sequence[str],
        answers: Sequence[Answer | Sequence[Answer]],
        wrong: Sequence[Answer | Sequence[Answer]],
        *,
        roles: Sequence[Mapping[str, tuple[int, int]]] | None = None,
    ) -> ContrastBatch:
        """The batch of these texts; answers are outputs by name or number, roles as `ContrastBatch.from_prompts`."""
        rows = [[self.text.ids(text) for text in texts] for texts in (clean, corrupted)]
        if not rows[0] or {len(rows[0])} != {len(rows[1]), len(answers), len(wrong)}:
            raise ShapeError("Texts and answers must come in equal numbers", got=(len(clean), len(answers)))
        lengths = [len(row) for row in rows[0]]
        if lengths != [len(row) for row in rows[1]]:
            raise AlignmentError("Clean and corrupted texts must have the same number of tokens", got=lengths)
        tokens = [padded(part) for part in rows]
        ends = [0 if not self.architecture.causal else length - 1 for length in lengths]
        right, other = (torch.tensor([[[self.output(_single(one))]] for one in given]) for given in (answers, wrong))
        axis = self.text.axis(tokens[0], lengths)
        strings = tuple(self.text.strings(row) for row in rows[0])
        whole = ContrastBatch(tokens[0], tokens[1], torch.tensor(lengths), right, other, torch.tensor(ends))
        places = [self.text.places(text, spans) for text, spans in zip(clean, roles or [{}] * len(clean), strict=True)]
        shared = sorted(set(places[0]).intersection(*places[1:]))
        named = {role: torch.tensor([place[role] for place in places]) for role in shared}
        whole = replace(whole, axis=axis, strings=strings, roles=named)
        return whole.to(self.device)


def _single(answer: Answer | Sequence[Answer]) -> Answer:
    if isinstance(answer, (str, int)):
        return answer
    if len(answer) != 1:
        raise ConfigError("An output was asked", got=f"{len(answer)} alternatives", allowed="one")
    return answer[0]
