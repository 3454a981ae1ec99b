"""Damage to files: one flipped bit, as a bad cable or an old disk makes."""

import random


def flip_bit(content: bytes, generator: random.Random) -> bytes:
    """The content with one random bit flipped."""
    place = generator.randrange(8 * len(content))
    changed = bytearray(content)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)
