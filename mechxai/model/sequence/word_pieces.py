"""Words as tokens, for models without a known tokenizer."""

import hashlib
import re
from collections.abc import Sequence
from typing import Any

from mechxai.core.errors import ArtifactError

_PIECE = re.compile(r"\s*\w+|\s*[^\w\s]+|\s+")
REMOVED, MASKED = 0, 1
_BYTES = 6  # of an id: a float64 holds it exactly
_SPECIAL = {REMOVED: "", MASKED: " ..."}
_texts: dict[int, str] = dict(_SPECIAL)  # of all black boxes: one made anew reads batches of the one before


class Pieces:
    """Cuts text into words and punctuation marks, each with the space before it; together they give the text again.

    A piece's id is a hash of the piece, so every word has a token, the same in every process. The class has the part of
    a Hugging Face tokenizer's interface that `TextCodec` uses: a removed piece (``pad``) is an empty text, a masked one
    (``mask``) an ellipsis.
    """

    pad_token_id, mask_token_id, eos_token_id, unk_token_id = REMOVED, MASKED, None, None
    mask_token = "..."
    all_special_ids = (REMOVED, MASKED)

    def __call__(
        self, text: str, *, add_special_tokens: bool = True, return_offsets_mapping: bool = False
    ) -> dict[str, Any]:
        """``input_ids`` of a text, with ``offset_mapping`` on request; there are no special tokens to add."""
        del add_special_tokens
        matches = list(_PIECE.finditer(text))
        ids = [self._id(match.group()) for match in matches]
        return {"input_ids": ids, **({"offset_mapping": [m.span() for m in matches]} if return_offsets_mapping else {})}

    def decode(self, ids: Sequence[int]) -> str:
        """The text that pieces form."""
        unknown = [int(piece_id) for piece_id in ids if int(piece_id) not in _texts]
        if unknown:
            raise ArtifactError(
                f"Token {unknown[0]} stands for a word that this process has not read: its text is not known",
                fix="Make the batch from its texts again, with model.contrast or mx.ContrastBatch.from_prompts",
            )
        return "".join(_texts[int(piece_id)] for piece_id in ids)

    def _id(self, piece: str) -> int:
        digest = hashlib.blake2b(piece.encode(), digest_size=_BYTES).digest()
        piece_id = int.from_bytes(digest) + len(_SPECIAL)
        _texts[piece_id] = piece
        return piece_id
