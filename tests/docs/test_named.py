"""What texts name is there: targets of the Makefile, and the files that the README links to."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"\bmake ((?:bench|test|docs)[\w-]*|demo|lint|zoo|screenshots|release-check)\b")
TEXTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "benchmarks").rglob("*.json")),
    *sorted((ROOT / "benchmarks").rglob("*.py")),
    ROOT / "benchmarks/results/README.md",
]


def test_make_targets_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {(one, str(text)) for text in TEXTS for one in NAMED.findall(text.read_text(encoding="utf-8"))}
    assert len(named) > 20
    assert {(one, text) for one, text in named if one not in targets} == set()


def test_help_names_every_target():
    made = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (.*)$", made, re.MULTILINE)[1].split()) - {"help", "install", "format", "clean"}
    said = "\n".join(re.findall(r'@echo "(.*)"', made))
    assert {one for one in targets if not re.search(rf"(?<![\w-]){one}(?![\w-])", said)} == set()


def test_files_that_the_readme_links_to_are_there():
    linked = re.findall(r"\]\(([^)#\s]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    missing = [one for one in linked if not one.startswith("http") and not (ROOT / one).exists()]
    assert linked
    assert missing == []
