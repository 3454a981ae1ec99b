"""Words as tokens, for models of which nothing is known but that they take text."""

import hashlib
import re
from collections.abc import Sequence
from typing import Any

_PIECE = re.compile(r"\s*\w+|\s*[^\w\s]+|\s+")
REMOVED, MASKED = 0, 1
_BYTES = 6  # a float64 holds such numbers exactly
_SPECIAL = {REMOVED: "", MASKED: " ..."}


class Pieces:
    """Cuts text into words and marks, each with the space before it, so that they put together give the text again.

    A piece's number is a hash of it, so any text has a token for every word, and the same one everywhere. It stands
    where a tokenizer of Hugging Face's does, as far as `TextCodec` asks: a removed piece (``pad``) is no text, a masked
    one (``mask``) an ellipsis.
    """

    pad_token_id, mask_token_id, eos_token_id, unk_token_id = REMOVED, MASKED, None, None
    mask_token = "..."
    all_special_ids = (REMOVED, MASKED)

    def __init__(self) -> None:
        self._texts: dict[int, str] = dict(_SPECIAL)

    def __call__(
        self, text: str, *, add_special_tokens: bool = True, return_offsets_mapping: bool = False
    ) -> dict[str, Any]:
        """``input_ids`` of a text, with ``offset_mapping`` where asked; there are no special tokens to add."""
        del add_special_tokens
        found = list(_PIECE.finditer(text))
        ids = [self._number(match.group()) for match in found]
        return {"input_ids": ids, **({"offset_mapping": [m.span() for m in found]} if return_offsets_mapping else {})}

    def decode(self, ids: Sequence[int]) -> str:
        """The text of pieces, one after the other."""
        return "".join(self._texts[int(number)] for number in ids)

    def _number(self, piece: str) -> int:
        digest = hashlib.blake2b(piece.encode(), digest_size=_BYTES).digest()
        number = int.from_bytes(digest) + len(_SPECIAL)
        self._texts[number] = piece
        return number
