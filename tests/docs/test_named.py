"""Everything that texts refer to exists: targets of the Makefile, files that the README links to."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGET = re.compile(r"\bmake ((?:bench|test|docs)[\w-]*|demo|lint|zoo|screenshots|release-check)\b")
TEXTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "benchmarks").rglob("*.json")),
    *sorted((ROOT / "benchmarks").rglob("*.py")),
    ROOT / "benchmarks/results/README.md",
]


def test_make_targets_exist():
    targets = set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE))
    uses = {(target, str(text)) for text in TEXTS for target in TARGET.findall(text.read_text(encoding="utf-8"))}
    assert len(uses) > 20
    assert {(target, text) for target, text in uses if target not in targets} == set()


def test_help_lists_every_target():
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split()
    targets = set(phony) - {"help", "install", "format", "clean"}
    text = "\n".join(re.findall(r'@echo "(.*)"', MAKEFILE))
    assert {target for target in targets if not re.search(rf"(?<![\w-]){target}(?![\w-])", text)} == set()


def test_files_that_the_readme_links_to_exist():
    links = re.findall(r"\]\(([^)#\s]+)", README)
    assert links
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


def test_the_readme_is_short_and_has_both_commands():
    assert len(README.splitlines()) <= 100
    assert {"make demo", "make test"} <= {line.partition("  ")[0] for line in README.splitlines()}
