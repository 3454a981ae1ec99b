"""A function from texts to scores as a model, for methods that need nothing but outputs."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechxai.core.architecture import Architecture
from mechxai.core.errors import ConfigError
from mechxai.core.fingerprint import Fingerprints
from mechxai.core.shapes import PromptInts, RowLogits, Tokens
from mechxai.model.sequence.named_outputs import NamedOutputs
from mechxai.model.sequence.scores import scores_of
from mechxai.model.sequence.word_pieces import Pieces
from mechxai.model.text import TextCodec

Scoring = Callable[[Sequence[str]], object]  # texts -> numbers, [text, output]
UNKNOWN = "unknown"  # version: the function's code and what it holds identify it
_SIZES = Architecture("black box", 1, 1, 1, 1, 1, 0, 2**49, 2**31, causal=False, norm="none", positions="none")


@dataclass(frozen=True, eq=False, repr=False)
class BlackBox(NamedOutputs):
    """A function from texts to scores of named outputs. Make one with `black_box` or `load_endpoint`.

    Tokens are words and punctuation marks; the function gets the text that they form.

    Attributes:
        name: in results.
        function: from texts to scores ``[text, output]``, which take the place of logits.
        outputs: names of the outputs.
        version: identifies the function, for run ids.
        text: cuts texts into words.
        architecture: a placeholder, except for its family.
        card: empty; bundled models have one.
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
        """The description of the model that results record."""
        code = Fingerprints()(self.function) if self.version == UNKNOWN else ""
        parts = (self.name, self.version, self.outputs, code)
        digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()
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
        """The function's scores, checked; float64.

        Raises:
            ShapeError: not one row of finite numbers per text, one number per output.
        """
        scores = scores_of(self.function(texts), self.name, n_texts=len(texts), outputs=self.outputs)
        return torch.from_numpy(scores)

    def texts(self, tokens: Tokens, lengths: PromptInts) -> list[str]:
        """The texts that rows of tokens form."""
        rows = zip(tokens.tolist(), lengths.tolist(), strict=True)
        return [self.text.tokenizer.decode(row[:length]) for row, length in rows]

    def logits(
        self, tokens: Tokens, *, lengths: PromptInts | None = None, at: Int[Tensor, "batch k"] | None = None
    ) -> RowLogits:
        """The outputs ``[batch, 1, output]``; ``at`` has no effect. Cost: one call of the function."""
        del at
        lengths = tokens.new_full((len(tokens),), tokens.shape[1]) if lengths is None else lengths
        return self.outputs_of(self.texts(tokens, lengths))[:, None]


def black_box(
    function: Scoring, outputs: Iterable[str], *, name: str = "black box", version: str = UNKNOWN
) -> BlackBox:
    """Makes a model of any function from texts to scores.

    `Occlusion`, `Lime`, `KernelShap`, `PartitionShap` and `ExactShapley` explain it.

    >>> model = mx.black_box(lambda texts: classifier.predict_log_proba(texts), ["ham", "spam"])

    Args:
        function: from texts to scores ``[text, output]`` in the place of logits; for probabilities, their logarithms.
            A tensor, an array, a DataFrame, lists, a Hugging Face output with ``logits``, or dicts by output name.
        outputs: names of the outputs; two or more.
        name: in results.
        version: identifies the function, so that runs are not mixed up: change it when the function changes. Without
            it, its code and the values that it holds do.

    Raises:
        ConfigError: fewer than two outputs, an empty name, or one twice; or something that cannot be called.
    """
    if not callable(function):
        raise ConfigError(f"A black box is a function from texts to scores, not a {type(function).__name__}")
    check_outputs(name, outputs)
    return BlackBox(name, function, tuple(map(str, outputs)), version)


def check_outputs(name: str, outputs: Iterable[str]) -> None:
    """Refuses fewer than two outputs, an empty one, or one twice.

    Raises:
        ConfigError: names the outputs.
    """
    if isinstance(outputs, str) or not isinstance(outputs, Iterable):
        raise ConfigError(f"{name!r} cannot have outputs {outputs!r}", allowed="a list of two or more different names")
    names = [*outputs]
    if len(set(names)) < max(2, len(names)) or not all(isinstance(output, str) and output for output in names):
        raise ConfigError(f"{name!r} cannot have outputs {names}", allowed="two or more different names")
