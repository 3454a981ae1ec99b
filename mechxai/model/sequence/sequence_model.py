"""Models with one output vector per text: classifiers, and encoders compared with reference texts.

Attribution methods explain them like language models: their outputs take the place of logits, at a single position.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechxai.core.architecture import Architecture
from mechxai.core.errors import ModelSupportError
from mechxai.core.exclusive import exclusive
from mechxai.core.shapes import PromptInts, RowLogits, Tokens
from mechxai.core.torch_modes import ordinary
from mechxai.model.backends.limits import check_tokens
from mechxai.model.backends.weight_state import current_hash, remember
from mechxai.model.sequence.named_outputs import NamedOutputs
from mechxai.model.text import TextCodec

Pooling = Literal["mean", "first"]
Head = Callable[[Any, Tensor], Float[Tensor, "row output"]]  # the Hugging Face model, embeddings -> outputs


@dataclass(frozen=True, eq=False, repr=False)
class SequenceModel(NamedOutputs):
    """A Hugging Face model with outputs for whole texts. Make one with `load_classifier` or `load_encoder`.

    Rows of different length run separately, so padding is never read and a batch has the numbers of its single texts.

    Attributes:
        name: zoo name, folder name or Hugging Face id.
        inner: the Hugging Face model, its parameters frozen.
        text: its tokenizer, which puts special tokens around every text.
        outputs: names of the outputs: the labels, or the reference texts.
        head: from the model and embeddings ``[row, pos, d_model]`` of rows of one length to outputs.
        architecture: sizes; ``d_vocab`` counts tokens.
        loaded_hash: hash of the weights as loaded.
        revision: of a Hugging Face id.
        card: of a bundled model; empty for others.
    """

    name: str
    inner: Any
    text: TextCodec
    outputs: tuple[str, ...]
    head: Head
    architecture: Architecture
    loaded_hash: str
    revision: str | None = None
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        remember(self)

    @property
    def weight_hash(self) -> str:
        """A hash of the model as it is now; see `HookedModel.weight_hash`."""
        return current_hash(self, self.loaded_hash)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.inner.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.inner.parameters()).dtype

    def info(self) -> dict[str, object]:
        """The description of the model that results record."""
        return {
            "name": self.name,
            "backend": "hugging_face",
            "processing": "raw",
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
            "weight_hash": self.weight_hash,
            "revision": self.revision,
            "outputs": list(self.outputs),
            "architecture": self.architecture.as_dict(),
        }

    # Forward ---------------------------------------------------------------------------------------------------------

    def embeddings(self, tokens: Tokens) -> Float[Tensor, "batch pos d_model"]:
        """The token embeddings, without positions."""
        check_tokens(tokens, self.architecture, self.name)
        with exclusive(self):
            return self.inner.get_input_embeddings()(ordinary(tokens).to(self.device)).detach()

    def mean_embedding(self) -> Float[Tensor, " d_model"]:
        """The mean token embedding over the vocabulary."""
        embedding = self.inner.get_input_embeddings()
        ids = torch.arange(len(embedding.weight), device=self.device)
        return embedding(ids).detach().double().mean(0).to(self.dtype)  # with the embedding's scale and adapters

    def outputs_of(
        self, embeddings: Float[Tensor, "batch pos d_model"], lengths: PromptInts
    ) -> Float[Tensor, "batch output"]:
        """The outputs of rows with these token embeddings; differentiable. Cost: one forward pass."""
        order, parts = [], []
        with exclusive(self):
            for length in lengths.unique().tolist():
                rows = (lengths == length).nonzero()[:, 0]
                parts.append(self.head(self.inner, embeddings[rows, : int(length)]))
                order.append(rows)
            return torch.cat(parts)[torch.cat(order).argsort()]

    def logits(
        self, tokens: Tokens, *, lengths: PromptInts | None = None, at: Int[Tensor, "batch k"] | None = None
    ) -> RowLogits:
        """The outputs ``[batch, 1, output]``; ``at`` has no effect. Cost: one forward pass."""
        del at
        lengths = tokens.new_full((len(tokens),), tokens.shape[1]) if lengths is None else lengths
        with exclusive(self), torch.no_grad():
            return self.outputs_of(self.embeddings(tokens), lengths)[:, None]

    def patterns(
        self, embeddings: Float[Tensor, "batch pos d_model"], lengths: PromptInts, layers: Sequence[int]
    ) -> Float[Tensor, "layer batch head dest src"]:
        """Attention patterns, zero behind each row's last token. Cost: one forward pass.

        Raises:
            ModelSupportError: the model has none, or not one for every layer, head and pair of tokens.
        """
        width = embeddings.shape[1]
        patterns = None
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero()[:, 0]
            with torch.no_grad():
                inputs = embeddings[rows, : int(length)]
                attentions = self.inner.base_model(inputs_embeds=inputs, output_attentions=True).attentions
            self._check_patterns(attentions, int(length))
            stacked = torch.stack([attentions[layer] for layer in layers])
            if patterns is None:
                patterns = stacked.new_zeros(len(layers), len(lengths), stacked.shape[2], width, width)
            patterns[:, rows, :, : int(length), : int(length)] = stacked
        return torch.zeros(len(layers), 0, 1, width, width) if patterns is None else patterns

    def _check_patterns(self, attentions: Any, length: int) -> None:
        a = self.architecture
        shapes = [tuple(layer.shape[1:]) for layer in attentions or () if layer is not None]
        if shapes != [(a.n_heads, length, length)] * a.n_layers:
            shown = f"{len(shapes)} of the shape {list(shapes[0])}" if shapes else "none"
            raise ModelSupportError(
                f"{a.family} does not give the attention patterns [{a.n_heads}, {length}, {length}] of {a.n_layers} "
                f"layers, but {shown}",
                fix="Use a method that needs gradients or outputs only, such as mx.IntegratedGradients",
            )


def class_head(inner: Any, embeddings: Tensor) -> Tensor:
    """A classifier's logits."""
    return inner(inputs_embeds=embeddings, attention_mask=_full_mask(embeddings)).logits


@dataclass(frozen=True, eq=False)
class SimilarityHead:
    """Cosine similarity of a text's embedding to reference embeddings, and a last output that is always 0.

    Attributes:
        references: unit vectors ``[reference, d_model]``.
        pooling: ``mean`` over tokens, or ``first``.
    """

    references: Float[Tensor, "reference d_model"]
    pooling: Pooling

    def __call__(self, inner: Any, embeddings: Tensor) -> Tensor:
        """Similarities, ``[row, reference + 1]``, the last 0."""
        similar = text_embeddings(inner, embeddings, self.pooling) @ self.references.T
        return torch.cat([similar, torch.zeros_like(similar[:, :1])], 1)


def text_embeddings(inner: Any, embeddings: Tensor, pooling: Pooling) -> Tensor:
    """The unit embedding of each text, ``[row, d_model]``, from token embeddings of rows of one length.

    A model without biases gives the zero vector for the zero baseline; its similarity to every text is 0.
    """
    hidden = inner(inputs_embeds=embeddings, attention_mask=_full_mask(embeddings)).last_hidden_state
    pooled = hidden.mean(1) if pooling == "mean" else hidden[:, 0]
    return torch.nn.functional.normalize(pooled, dim=-1)


def _full_mask(embeddings: Tensor) -> Tensor:
    return torch.ones(embeddings.shape[:2], dtype=torch.long, device=embeddings.device)
