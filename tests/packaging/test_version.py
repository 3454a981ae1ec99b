"""The version agrees in its three places, and the changelog has it."""

import re
import tomllib

import mechxai
from tests.packaging.smoke import ROOT


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == mechxai.__version__
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited
    assert cited[1].strip("\"'") == mechxai.__version__


def test_the_changelog_begins_with_what_is_unreleased_or_with_this_version():
    headings = re.findall(r"^## \[([^\]]+)\](.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0][0] in ("Unreleased", mechxai.__version__)
    for name, date in headings:
        assert (name == "Unreleased" and not date) or re.fullmatch(r" - \d{4}-\d\d-\d\d", date), name
    released = [name for name, _ in headings if name != "Unreleased"]
    order = sorted(released, key=lambda name: [int(part) for part in name.split(".")], reverse=True)
    assert released == order, "newest first"
