"""Short codes for head roles, written into heatmap cells, and their legend."""

import numpy as np

from mechxai.figures.text import safe, words


def roles_in(mark: str) -> list[str]:
    """The roles in one cell's text, which separates several by commas."""
    return [role for role in (piece.strip() for piece in mark.split(",")) if role]


def role_codes(marks: np.ndarray) -> dict[str, str]:
    """Role -> two or three letters (``name_mover`` is NM, ``induction`` IN); no two roles share a code."""
    codes: dict[str, str] = {}
    for role in sorted({role for mark in marks.ravel() for role in roles_in(str(mark))}):
        parts = [part for part in role.replace("-", "_").split("_") if part]
        code = "".join(part[0] for part in parts) if len(parts) > 1 else role[:2]
        candidates = [code[:3].upper(), role[:3].upper(), *(f"{code[:2].upper()}{digit}" for digit in range(2, 1000))]
        codes[role] = next(candidate for candidate in candidates if candidate not in codes.values())
    return codes


def cell_text(mark: str, codes: dict[str, str]) -> str:
    """The codes of one cell's roles, one below the other."""
    return "<br>".join(safe(codes[role]) for role in roles_in(mark))


def legend(marks: np.ndarray) -> str:
    """``DT duplicate token, NM name mover``; empty without roles."""
    return ", ".join(f"{code} {words(role)}" for role, code in role_codes(marks).items())
