"""A view survives its address unchanged; the commands for a view parse back to it."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from mechxai.core.errors import ConfigError
from mechxai.explore.commands import commands, quoted
from mechxai.explore.palette import LIGHT
from mechxai.explore.panel_context import panel_context
from mechxai.explore.state import ExplorerState
from mechxai.explore.view import MAX_CHARACTERS, View

HOSTILE = [
    "plain words",
    "it's \"quoted\" and 'so on'",
    'ends in a backslash \\',
    'a backslash before a quote \\" and two \\\\"',
    "${oc.env:HOME} and $(touch x) `id` ; & | > <",
    "line\nbreak\ttab",
    "<script>alert(1)</script>",
    "a,b=[c]{d: e}, \N{SNOWMAN} \u202e",
]  # fmt: skip


def test_a_view_comes_back_from_its_address():
    from urllib.parse import parse_qsl

    view = View(prompt="a&b=c \N{SNOWMAN}<", corrupted="x\ny", answer=" Mary", pos=3, layer=0, head=2, site="z")
    assert View.of(dict(parse_qsl(view.query()))) == view
    assert View().query() == ""


@pytest.mark.parametrize("given", [{"pos": "two"}, {"color": "red"}, {"prompt": "x" * (MAX_CHARACTERS + 1)}])
def test_what_cannot_be_shown_is_refused(given):
    with pytest.raises(ConfigError):
        View.of(given)


@pytest.mark.parametrize("text", HOSTILE)
def test_hydra_reads_a_quoted_text_as_it_was(text):
    (override,) = OverridesParser.create().parse_overrides([f"task.texts=[{quoted(text)}]"])
    read = OmegaConf.create({"texts": override.value()})
    assert OmegaConf.to_container(read, resolve=True) == {"texts": [text]}


def test_commands_name_what_is_shown(zoo):
    state = ExplorerState({"zoo/ioi": zoo})
    view = state.first_view()
    lines = commands(panel_context(state, view, LIGHT)).splitlines()
    runs = [shlex.split(line) for line in lines if line.startswith("mechxai run")]
    assert [next(part for part in run if part.startswith("method=")) for run in runs] == [
        "method=logit_lens", "method=direct_logit_attribution", "method=activation_patching", "method=edge_attribution",
    ]  # fmt: skip
    parsed = {one.key_or_group: one.value() for one in OverridesParser.create().parse_overrides(runs[2][2:])}
    assert [str(text) for text in parsed["task.texts"]] == [view.prompt]
    assert [str(text) for text in parsed["task.counterfactuals"]] == [view.corrupted]
    assert parsed["task.answers"] == [zoo.text.bare_ids(view.answer)[0]]
