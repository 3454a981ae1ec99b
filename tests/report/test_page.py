"""The report page: one file, its sections, notes, provenance and escaped text."""

import re

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

import mechxai as mx
from mechxai.core.errors import ConfigError
from mechxai.core.result import Result, RunInfo
from mechxai.report.head_tables import census, head_table
from mechxai.report.page import report
from tests.figures.examples import head_roles, info, plain, sweep


def page_of(results, tmp_path, **more):
    path = report(results, tmp_path / "out" / "report.html", **more)
    return path.read_text()


def without_script(page):
    assert page.count(get_plotlyjs()) == 1
    return page.replace(get_plotlyjs(), "")


def test_a_page_is_one_file_that_needs_no_network(tmp_path):
    rest = without_script(page_of([sweep(), head_roles()], tmp_path))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]
    assert not re.search(r"<(?:script|link|img|iframe)[^>]*\s(?:src|href)=", rest)
    assert "https://" not in rest
    assert "default-src 'none'" in rest
    assert rest.count("Plotly.newPlot(") == 2


def test_a_section_describes_the_method_and_the_strongest_cell(tmp_path):
    rest = without_script(page_of([sweep()], tmp_path))
    assert (
        "The corrupted prompts were run with one activation of resid_pre at a time patched in from the clean run."
        in rest
    )
    assert "0 is no effect, 1 the full gap" in rest
    assert "blocks.6.resid_pre[pos=9] (9: ,), recovered 0.9, 95 % interval 0.85 to 0.95." in rest
    for fact in (
        "4 logits",
        "\N{MINUS SIGN}2 logits",
        "noise floor",
        "3e-06 logits",
        "forward passes",
        "3.21",
    ):
        assert fact in rest
    assert rest.count('<td class="site">') == 10
    assert "The 10 largest of 216 cells" in rest


def test_notes_are_visible_warnings(tmp_path):
    rest = without_script(page_of([sweep()], tmp_path))
    assert rest.count('<p class="warning">') == 1
    assert rest.index("2 prompts were dropped") < rest.index("<details>")


def test_provenance_is_folded_away_at_the_end(tmp_path):
    rest = without_script(page_of([sweep()], tmp_path))
    folded = rest[rest.index("<details>") :]
    for part in ("c9b14f3", "ab12cd34", "torch", "2.9", "&quot;direction&quot;: &quot;denoise&quot;"):
        assert part in folded


def test_all_text_is_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    labels = [f"0: {evil}", "1: </script><img src=x onerror=alert(2)>", "2: \u202e\ud800"]
    base = sweep(sizes=(2, 3), labels=labels, peak=(1, 1))
    base_info = info("activation_patching", "resid_pre", ("layer", "pos"), extra=evil)
    shown = RunInfo(
        base_info.method, {"name": evil, "weight_hash": evil}, {"name": evil}, 0, {evil: evil}, evil, {}, (evil,)
    )
    page = page_of({evil: Result(base.data, shown)}, tmp_path, title=evil, tables={evil: [{evil: evil}]})
    rest = without_script(page)
    assert "<script>alert" not in rest
    assert "<img" not in rest
    assert rest.count("<script") == rest.count("</script>")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in rest
    assert "\u202e" not in rest


def test_results_of_one_kind_keep_apart(tmp_path):
    rest = without_script(page_of([sweep(), sweep(seed=1)], tmp_path))
    assert "activation_patching of resid_pre on zoo/ioi, ioi (2)" in rest
    assert rest.count('<section id="result-') == 2
    assert 'href="#result-1"' in rest
    assert "<h1>2 results on zoo/ioi</h1>" in rest


def test_names_and_title_can_be_given(tmp_path):
    rest = without_script(page_of({"before": sweep(), "after": sweep(seed=1)}, tmp_path, title="A study"))
    assert "<h1>A study</h1>" in rest
    assert "<h2>before</h2>" in rest


def test_a_result_by_itself(tmp_path):
    assert "<h1>activation_patching of resid_pre" in without_script(page_of(sweep(), tmp_path))


def test_tables_show_plain_values(tmp_path):
    rows = [{"circuit": "ioi", "cpr": 0.91234, "edges": 12}, {"circuit": "all", "note": None, "edges": 30}]
    rest = without_script(page_of([sweep()], tmp_path, tables={"faithfulness": rows}))
    assert "<h2>faithfulness</h2>" in rest
    assert '<td class="number">0.912</td>' in rest
    assert '<td class="number">12</td>' in rest
    only = page_of([], tmp_path, tables={"faithfulness": rows})
    assert "<td>ioi</td>" in only


def test_head_roles_list_effects_with_roles(tmp_path):
    rest = without_script(page_of([head_roles()], tmp_path))
    assert "effect (logits)" in rest
    assert "<td>name mover</td>" in rest


def test_heads_are_counted_by_attention_pattern():
    model = mx.load("zoo/handmade-ioi", device="cpu")
    result = mx.HeadRoles()(model, mx.tasks.ioi(model, n=8))
    title, rows = census(result)
    assert title.startswith("Attention patterns of 12 heads (attention >= 0.4; effect >= 0.05")
    counted = {row["pattern"]: (row["heads"], row["with an effect"]) for row in rows}
    assert counted["s inhibition"] == (2, 1), "one of them is idle"
    assert counted["name mover"] == (1, 1)
    assert counted["positional"] == (2, 0)
    assert next(row for row in rows if row["pattern"] == "positional")["strongest"] == "0.0 1.00, 0.3 0.91"
    _, heads = head_table(result, model.card["truth"])
    assert {row["head"]: row["attends to"] for row in heads}["1.3"] == "s inhibition"


def test_the_metric_after_an_ablation_is_ranked_by_its_change(tmp_path):
    result = sweep(("layer", "head"), (3, 4), site="z", method="ablation")
    result.data["value"].values[:] = 4.0
    result.data["value"].values[2, 1] = 0.5
    rest = without_script(page_of([result], tmp_path))
    assert "Strongest effect: blocks.2.z[head=1], value 0.5 logits" in rest
    assert "White is 4 logits" in rest


@pytest.mark.parametrize(
    "result",
    [
        plain(("layer",), (5,)),
        plain(("a", "b", "c", "d"), (2, 2, 2, 2)),
        plain((), ()),
        plain(("x",), (0,)),
        sweep((), (), site="embed"),
        sweep(("layer", "pos", "head"), (2, 18, 4), site="z"),
    ],
)
def test_any_result_has_a_section(result, tmp_path):
    assert 'id="result-0"' in page_of([result], tmp_path)


def test_a_result_without_values_says_so(tmp_path):
    result = sweep()
    result.data["recovered"].values[:] = np.nan
    assert "No cell has a value." in page_of([result], tmp_path)


def test_a_report_without_results_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="at least one"):
        report([], tmp_path / "report.html")


def test_a_failed_write_leaves_the_old_page(tmp_path, monkeypatch):
    target = tmp_path / "report.html"
    report([sweep()], target)
    before = target.read_bytes()
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        report([head_roles()], target)
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_same_results_give_the_same_bytes(tmp_path):
    assert page_of([sweep()], tmp_path) == page_of([sweep()], tmp_path)


def test_attributions_come_as_coloured_tokens_that_stay_text(zoo, tmp_path):
    result = mx.Occlusion()(zoo, mx.tasks.ioi(zoo, n=2))
    page = mx.report(result, tmp_path / "report.html").read_text()
    assert page.count('class="tokens"') == 2
    assert "&lt;bos&gt;" in page
