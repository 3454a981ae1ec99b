"""``model.generate``: continuations of texts and of token ids."""

from abc import ABC
from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from mechxai.core.errors import ConfigError
from mechxai.core.shapes import PromptInts, Tokens
from mechxai.model.backends.base import Backend
from mechxai.model.generation.decoding import Decoder, WrittenTokens
from mechxai.model.generation.generator import Writing
from mechxai.model.prompt_inputs import texts_or_tokens
from mechxai.model.text import Prompts, TextCodec


class Generates(ABC):
    """A model over a backend that continues prompts.

    Attributes:
        name: of the model.
        backend: the model behind one interface.
        text: its tokenizer.
        device: of the weights.
    """

    name: str
    backend: Backend
    text: TextCodec
    device: torch.device

    @overload
    def generate(  # pyright: ignore[reportOverlappingOverload]  # to Python, a text is a sequence of texts
        self, prompts: str, max_new_tokens: int = 16, *, temperature: float = 0.0, seed: int = 0
    ) -> str: ...
    @overload
    def generate(
        self, prompts: Sequence[str], max_new_tokens: int = 16, *, temperature: float = 0.0, seed: int = 0
    ) -> list[str]: ...
    @overload
    def generate(
        self,
        prompts: Tokens,
        max_new_tokens: int = 16,
        *,
        temperature: float = 0.0,
        seed: int = 0,
        lengths: PromptInts | None = None,
    ) -> WrittenTokens: ...
    def generate(
        self,
        prompts: Prompts,
        max_new_tokens: int = 16,
        *,
        temperature: float = 0.0,
        seed: int = 0,
        lengths: PromptInts | None = None,
    ) -> str | list[str] | WrittenTokens:
        """Continues prompts: a text for a text, a list for a list, token ids for token ids.

        A row ends at an end of text (of the model's generation settings, or any special token of its tokenizer) or
        after ``max_new_tokens``. Prompts together continue as alone. Greedy rows are those of Hugging Face's
        ``generate``; penalties in the generation settings are not applied, which is logged.

        Args:
            prompts: a text, texts, or token ids ``[batch, pos]``.
            max_new_tokens: the most tokens to write.
            temperature: 0 takes the likeliest token each time (greedy); above 0, tokens are drawn.
            seed: of the draws.
            lengths: real tokens per row of token ids; all by default.

        Returns:
            The continuation without the prompt. For token ids ``[batch, n_written]``, with -1 after a row's end.

        Raises:
            ModelSupportError: a bidirectional model, or texts for a model without a tokenizer.
            ShapeError: no prompt, an empty one, or one as long as the model's context.
            AlignmentError: a word outside the vocabulary.
            ConfigError: ``max_new_tokens`` below 1, or a negative temperature.

        Cost: a forward pass per prompt, then one position per token, with a cache. The first call compares the cache
        with full passes; where it changes the logits, each token costs a pass over the whole text, which is logged.
        """
        if max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens is {max_new_tokens}: it must be at least 1")
        decoder = Decoder(self.name, self.backend, self.text, self.device)
        writing = Writing(max_new_tokens, temperature, seed=seed)
        texts = texts_or_tokens(prompts)
        if isinstance(texts, Tensor):
            return decoder.continued_tokens(texts, lengths, writing)
        rows = [decoder.prompt_ids(text) for text in texts]
        written = [continuation.written.text for continuation in decoder.continuations(rows, writing)]
        return written[0] if isinstance(prompts, str) else written
