"""A model of which only a function from texts to scores is known: explained by what it says of texts with gaps."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechxai.core.architecture import Architecture
from mechxai.core.errors import ConfigError, ShapeError
from mechxai.core.shapes import PromptInts, RowLogits, Tokens
from mechxai.model.sequence.named_outputs import NamedOutputs
from mechxai.model.sequence.word_pieces import Pieces
from mechxai.model.text import TextCodec

Scoring = Callable[[Sequence[str]], object]  # texts -> numbers, [text, output]
_SIZES = Architecture("black box", 1, 1, 1, 1, 1, 0, 2**49, 2**31, causal=False, norm="none", positions="none")


@dataclass(frozen=True, eq=False, repr=False)
class BlackBox(NamedOutputs):
    """A function from texts to scores of named outputs. Make one with `black_box` or `load_endpoint`.

    Its tokens are words and marks; the function sees nothing of them but the text they make.

    Attributes:
        name: for results.
        function: from texts to numbers ``[text, output]``; they stand where logits stand.
        outputs: what each output is called.
        version: what decides the function's numbers, for run ids.
        text: cuts texts into words.
        architecture: of no matter but its family.
    """

    name: str
    function: Scoring
    outputs: tuple[str, ...]
    version: str
    text: TextCodec = field(default_factory=lambda: TextCodec(Pieces(), None))
    architecture: Architecture = _SIZES
    card: Mapping[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def info(self) -> dict[str, object]:
        """What a result records of its model."""
        digest = hashlib.blake2b(repr((self.name, self.version, self.outputs)).encode(), digest_size=8).hexdigest()
        return {
            "name": self.name,
            "backend": "black_box",
            "processing": "raw",
            "dtype": "float64",
            "device": "elsewhere",
            "weight_hash": digest,
            "revision": self.version,
            "outputs": list(self.outputs),
        }

    def outputs_of(self, texts: Sequence[str]) -> Float[Tensor, "text output"]:
        """What the function gives, checked; float64.

        Raises:
            ShapeError: not one row of finite numbers per text, one number per output.
        """
        found = np.asarray(self.function(texts), dtype=np.float64)
        shape = (len(texts), len(self.outputs))
        if found.shape != shape or not np.isfinite(found).all():
            raise ShapeError(
                f"The scores of {self.name}",
                got=f"shape {found.shape}" if found.shape != shape else "numbers that are not finite",
                allowed=f"finite numbers of shape {shape}: a row per text, {list(self.outputs)}",
            )
        return torch.from_numpy(found)

    def texts(self, tokens: Tokens, lengths: PromptInts) -> list[str]:
        """The texts that rows of tokens make."""
        rows = zip(tokens.tolist(), lengths.tolist(), strict=True)
        return [self.text.tokenizer.decode(row[:length]) for row, length in rows]

    def logits(
        self, tokens: Tokens, *, lengths: PromptInts | None = None, at: Int[Tensor, "batch k"] | None = None
    ) -> RowLogits:
        """The outputs ``[batch, 1, output]``; ``at`` is of no matter. Cost: one call of the function."""
        del at
        lengths = tokens.new_full((len(tokens),), tokens.shape[1]) if lengths is None else lengths
        return self.outputs_of(self.texts(tokens, lengths))[:, None]


def black_box(
    function: Scoring, outputs: Sequence[str], *, name: str = "black box", version: str = "unknown"
) -> BlackBox:
    """Any function from texts to scores, as a model to be explained.

    `Occlusion`, `Lime`, `KernelShap`, `PartitionShap` and `ExactShapley` need no more.

    Args:
        function: from texts to numbers ``[text, output]``, where logits stand: for probabilities give their logarithms.
        outputs: what each output is called; two or more.
        name: for results.
        version: what decides the function's numbers; a run of the command line is found again by it.

    Raises:
        ConfigError: fewer than two outputs, or one twice.
    """
    check_outputs(f"Black box {name!r}", outputs)
    return BlackBox(name, function, tuple(outputs), version)


def check_outputs(what: str, outputs: Sequence[str]) -> None:
    """Refuses fewer than two outputs, an empty one, or one twice.

    Raises:
        ConfigError: says so.
    """
    if len(set(outputs)) < max(2, len(outputs)) or not all(outputs):
        raise ConfigError(f"{what} was asked", got=f"outputs {list(outputs)}", allowed="two or more, each once")
