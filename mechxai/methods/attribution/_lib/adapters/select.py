"""The adapter for each kind of model."""

from typing import Any

from mechxai.methods.attribution._lib.adapters.black_boxes import BlackBoxAdapter
from mechxai.methods.attribution._lib.adapters.hooked import HookedAdapter
from mechxai.methods.attribution._lib.adapters.protocol import AttributionModel
from mechxai.methods.attribution._lib.adapters.sequences import SequenceAdapter
from mechxai.methods.attribution._lib.adapters.token_ids import TokenAdapter
from mechxai.model.backends.from_embeddings import reads_tokens_later
from mechxai.model.hooked_model import HookedModel
from mechxai.model.sequence.black_box import BlackBox
from mechxai.model.sequence.sequence_model import SequenceModel


def attribution_model(model: Any) -> AttributionModel:
    """The model in its adapter; an `AttributionModel` is returned as it is."""
    if isinstance(model, HookedModel):
        return TokenAdapter(model) if reads_tokens_later(model) else HookedAdapter(model)
    if isinstance(model, BlackBox):
        return BlackBoxAdapter(model)
    return SequenceAdapter(model) if isinstance(model, SequenceModel) else model
