"""``mechxai models``: the bundled models."""

from collections.abc import Sequence

from mechxai.cli.console import OK, show, show_facts, show_table
from mechxai.model.zoo.bundled import zoo_card, zoo_folder, zoo_names

HELP = """The bundled models: what each was trained or built for, and what was measured of it.

  mechxai models             all of them
  mechxai models zoo/ioi     one: its card, sizes and known circuit

mechxai run model=NAME, and mx.load(NAME), take these, a checkpoint's folder, or a Hugging Face id."""


def main(arguments: Sequence[str]) -> int:
    """``mechxai models [NAME ...]``; returns the exit code."""
    for name in arguments:
        zoo_folder(name)  # refuses a name that is not bundled, before anything is printed
    for name in arguments:
        show_model(name)
    if arguments:
        return OK
    cards = {name: zoo_card(name) for name in zoo_names()}
    rows = [
        {"name": name, "kind": card["kind"], "description": card["description"], "measured": _measured(card)}
        for name, card in cards.items()
    ]
    show_table("Bundled models (mx.load also takes a folder or a Hugging Face id)", rows)
    show("mechxai models NAME shows one")
    return OK


def show_model(name: str) -> None:
    """Prints the card of one bundled model."""
    card = dict(zoo_card(name))
    metrics, truth = card.pop("metrics", {}), card.pop("truth", {})
    facts: dict[str, object] = {str(key).replace("_", " "): _text(value) for key, value in card.items()}
    facts |= {f"measured: {key}": _text(value) for key, value in metrics.items()}
    facts |= {f"known circuit: {key}": _text(value) for key, value in truth.items()}
    facts["in Python"] = f'mx.load("{name}")'
    facts["in a run"] = f"mechxai run model={name}"
    show_facts(name, facts)


def _measured(card: dict[str, object]) -> str:
    metrics = card["metrics"]
    return ", ".join(f"{key} {value}" for key, value in metrics.items()) if isinstance(metrics, dict) else ""


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return f"{len(value)} items" if len(value) > 12 else ", ".join(map(_text, value))
    return str(value)
