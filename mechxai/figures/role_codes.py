"""Short codes for the roles written into cells, and what they stand for."""

import numpy as np

from mechxai.figures.text import safe, words


def roles_in(mark: str) -> list[str]:
    """The roles of one cell; several stand with commas between."""
    return [part for part in (piece.strip() for piece in mark.split(",")) if part]


def codes(roles: np.ndarray) -> dict[str, str]:
    """Role -> two or three letters (``name_mover`` is NM, ``induction`` IN); two roles never share a code."""
    found: dict[str, str] = {}
    for role in sorted({part for mark in roles.ravel() for part in roles_in(str(mark))}):
        initials = [part for part in role.replace("-", "_").split("_") if part]
        code = "".join(part[0] for part in initials) if len(initials) > 1 else role[:2]
        candidates = [code[:3].upper(), role[:3].upper(), *(f"{code[:2].upper()}{digit}" for digit in range(2, 1000))]
        found[role] = next(candidate for candidate in candidates if candidate not in found.values())
    return found


def short(mark: str, found: dict[str, str]) -> str:
    """What is written into a cell: its roles' codes, one below the other."""
    return "<br>".join(safe(found[role]) for role in roles_in(mark))


def legend(roles: np.ndarray) -> str:
    """``DT duplicate token, NM name mover``; empty without roles."""
    return ", ".join(f"{code} {words(role)}" for role, code in codes(roles).items())
