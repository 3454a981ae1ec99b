"""Every family of the grid by name. ``python -m tests.families.checkpoints FOLDER [NAME ...]`` writes checkpoints."""

import sys
from pathlib import Path

from tests.families import dense_decoders, encoders, family, multimodal, older_decoders, sparse_decoders, switches
from tests.families.family import Family

GROUPS: dict[str, dict[str, Family]] = {
    "Decoders with rotary positions": dense_decoders.FAMILIES,
    "Older decoders": older_decoders.FAMILIES,
    "Decoders with experts": sparse_decoders.EXPERTS,
    "State-space and linear-attention layers": sparse_decoders.RECURRENT,
    "Text models inside multimodal ones": multimodal.FAMILIES,
    "Configuration switches": switches.SWITCHES,
    "Masked models": encoders.MASKED,
    "Encoder-decoders": encoders.SEQUENCE_TO_SEQUENCE,
    "Classifiers": encoders.CLASSIFIERS,
    "Text encoders": encoders.ENCODERS,
}
FAMILIES: dict[str, Family] = {name: each for group in GROUPS.values() for name, each in group.items()}


def write(name: str, folder: Path, seed: int = 0) -> Path:
    """Writes the tiny random checkpoint of the family ``name``; returns its folder."""
    return family.write(FAMILIES[name], folder, seed)


def main(arguments: list[str]) -> None:
    root = Path(arguments[0])
    for name in arguments[1:] or FAMILIES:
        try:
            write(name, root / name)
        except Exception as error:  # noqa: BLE001 - the other checkpoints are still written
            print(f"{name}: {type(error).__name__}: {str(error)[:300]}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
