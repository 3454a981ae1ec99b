"""Figures of grids: orientation, colour scale, titles and hover text."""

import inspect

import numpy as np
import plotly.io
import pytest
import xarray as xr

import mechxai as mx
from mechxai.core.errors import ConfigError
from mechxai.core.result import Result, RunInfo, variable
from mechxai.figures.plot import plot
from tests.figures.examples import head_roles, info, plain, sweep


def texts(figure):
    return " ".join(str(part) for trace in figure.data for part in np.ravel(trace.hovertext))


def test_layer_by_position_is_one_heatmap_with_layers_upward_and_tokens_below():
    figure = plot(sweep())
    assert len(figure.data) == 1
    assert figure.data[0].type == "heatmap"
    assert figure.data[0].z.shape == (12, 18)
    assert figure.layout.yaxis.title.text == "layer"
    assert figure.layout.yaxis.range[0] < figure.layout.yaxis.range[1]
    assert figure.layout.xaxis.title.text == "position"
    assert figure.layout.xaxis.ticktext[4] == "4: John"
    assert len(figure.layout.xaxis.ticktext) == 18
    assert figure.layout.xaxis.tickangle == -60


def test_the_order_of_dims_does_not_matter():
    usual, turned = sweep(("layer", "head"), (4, 6), site="z"), sweep(("head", "layer"), (6, 4), site="z")
    assert np.array_equal(plot(usual).data[0].z, usual.data["recovered"].values)
    assert np.array_equal(plot(turned).data[0].z, turned.data["recovered"].values.T)
    assert plot(turned).data[0].hovertext.shape == (4, 6)


def test_colours_are_centred_on_zero_with_equal_room():
    axis = plot(sweep()).layout.coloraxis
    assert axis.cmid == 0
    assert -axis.cmin == axis.cmax == pytest.approx(0.9)
    middle = axis.colorscale[len(axis.colorscale) // 2]
    assert middle == (0.5, "#f7f7f7")
    assert axis.colorscale[-1][1] == "#053061"
    assert "blue: towards the answer" in plot(sweep()).layout.title.subtitle.text


def test_a_metric_after_an_ablation_is_centred_on_the_clean_run():
    result = sweep(("layer", "head"), (3, 4), method="ablation", site="z")
    assert plot(result).layout.coloraxis.cmid == pytest.approx(4.0)
    assert plot(result, center=0.0).layout.coloraxis.cmid == 0
    assert plot(result, "recovered").layout.coloraxis.cmid == 0
    assert plot(result, "recovered").layout.coloraxis.colorbar.title.text == "removed<br>(fraction)"


def test_a_metric_where_more_is_worse_has_no_answer_colours():
    result = sweep()
    data = result.data.assign(value=abs(result.data["value"]).assign_attrs(result.data["value"].attrs))
    changed = Result(data, info("activation_patching", "resid_pre", ("layer", "pos"), metric="kl_divergence"))
    figure = plot(changed, "value")
    assert figure.layout.coloraxis.cmin == 0
    assert "towards the answer" not in figure.layout.title.subtitle.text


def test_titles_and_units():
    figure = plot(sweep(), "value")
    assert figure.layout.coloraxis.colorbar.title.text == "value<br>(logits)"
    assert "Activation patching of resid_pre (clean into corrupted)" in figure.layout.title.text
    below = figure.layout.title.subtitle.text
    for part in ("zoo/ioi", "ioi, 16 prompts", "metric logit_diff", "unit logits"):
        assert part in below
    assert "mine" in plot(sweep(), title="mine").layout.title.text


def test_hover_names_the_site_the_value_its_interval_and_the_token():
    hover = plot(sweep(("layer", "head"), (12, 12), site="z"), "value").data[0].hovertext[9][6]
    assert "blocks.9.z[head=6]" in hover
    assert "logits" in hover
    assert "95 %" in hover
    assert "blocks.6.resid_pre[pos=9]" in plot(sweep()).data[0].hovertext[6][9]
    assert "at 4: John" in plot(sweep()).data[0].hovertext[0][4]


def test_an_index_fixed_by_the_method_is_part_of_the_site():
    result = sweep(("layer", "head"), (3, 4), site="z")
    fixed = Result(result.data, info("activation_patching", "z", ("layer", "head"), pos=["END"]))
    assert "blocks.2.z[head=1,pos=END]" in plot(fixed).data[0].hovertext[2][1]


def test_tokens_cannot_bring_markup_into_labels_or_hover():
    labels = ["0: <script>alert(1)</script>", "1: <b>bold</b>", "2: a\nb", "3: \u202eevil", "4: &amp;"]
    figure = plot(sweep(sizes=(3, 5), labels=labels))
    shown = " ".join(figure.layout.xaxis.ticktext) + texts(figure)
    assert "<script" not in shown
    assert "<b>bold" not in shown
    assert "\u202e" not in shown
    assert "2: a\\nb" in figure.layout.xaxis.ticktext[2]
    assert figure.layout.xaxis.ticktext[4] == "4: &amp;amp;"
    assert "&lt;b&gt;bold&lt;/b&gt;" in texts(figure)


def test_long_rows_of_tokens_keep_readable_ticks():
    figure = plot(sweep(sizes=(3, 200), labels=[f"{at}: {'x' * 50}" for at in range(200)]))
    assert len(figure.layout.xaxis.ticktext) <= 60
    assert max(map(len, figure.layout.xaxis.ticktext)) <= 20


def test_one_dim_is_a_line_with_its_band_and_both_baselines():
    figure = plot(sweep(("layer",), (12,), site="mlp_out"), "value")
    low, high, line, clean, corrupted = figure.data
    assert {trace.type for trace in figure.data} == {"scatter"}
    assert high.fill == "tonexty"
    assert np.all(low.y < line.y)
    assert np.all(line.y < high.y)
    assert list(line.x) == list(range(12))
    assert set(clean.y) == {4.0}
    assert set(corrupted.y) == {-2.0}
    assert figure.layout.yaxis.title.text == "value (logits)"
    assert figure.layout.xaxis.title.text == "layer"


@pytest.mark.parametrize(("over", "sizes"), [(("pos",), (18,)), (("head",), (8,))])
def test_one_dim_without_an_order_is_bars_with_whiskers(over, sizes):
    figure = plot(sweep(over, sizes, site="z"))
    assert figure.data[0].type == "bar"
    assert np.allclose(figure.data[0].error_y.array, 0.05)
    assert len(figure.data[0].hovertext) == sizes[0]


def test_bars_of_an_ablation_start_at_the_clean_run():
    result = sweep(("head",), (8,), site="z", method="ablation")
    bar = plot(result).data[0]
    assert np.allclose(bar.base + bar.y, result.data["value"])
    assert bar.base == 4.0


def test_a_single_cell_is_a_bar():
    assert plot(sweep((), (), site="embed"), "value").data[0].type == "bar"


def test_two_dims_can_be_lines():
    figure = plot(sweep(("layer", "head"), (12, 4), site="z"), kind="line")
    assert [trace.name for trace in figure.data if trace.showlegend] == ["head 0", "head 1", "head 2", "head 3"]
    with pytest.raises(ConfigError, match="up to 16"):
        plot(sweep(("layer", "head"), (2, 40), site="z"), kind="line")


def test_three_dims_are_a_slider_that_starts_at_the_strongest_cell():
    figure = plot(sweep(("layer", "pos", "head"), (6, 18, 8), site="z"))
    slider = figure.layout.sliders[0]
    assert len(figure.data) == len(slider.steps) == 18
    assert slider.active == 9
    assert [trace.visible for trace in figure.data].index(True) == 9
    assert sum(slider.steps[3].args[1]) == 1
    assert slider.steps[4].label == "4: John"
    assert "blocks.3.z[head=4,pos=9]" in figure.data[9].hovertext[3][4]


def test_three_dims_with_few_frames_stand_side_by_side_on_one_scale():
    figure = plot(sweep(("layer", "head", "pos"), (4, 8, 3), site="z", labels=["S2", "IO", "END"]))
    assert len(figure.data) == 3
    assert {trace.coloraxis for trace in figure.data} == {"coloraxis"}
    assert [note.text for note in figure.layout.annotations] == ["position S2", "position IO", "position END"]
    with pytest.raises(ConfigError, match="slider"):
        plot(sweep(("layer", "head", "pos"), (2, 2, 30), site="z", labels=map(str, range(30))), kind="facets")


def test_four_dims_are_refused_with_advice():
    result = sweep(("layer", "pos", "head"), (2, 3, 4), site="z")
    with pytest.raises(ConfigError, match="select="):
        plot(result, "per_example")
    assert len(plot(result, "per_example", select={"prompt": 3}).data) == 3


def test_select_takes_a_position_by_label_or_number():
    result = sweep(("layer", "pos", "head"), (4, 18, 8), site="z")
    by_label, by_number = (plot(result, select={"pos": pos}) for pos in ("4: John", 4))
    assert np.array_equal(by_label.data[0].z, result.data["recovered"].values[:, 4])
    assert np.array_equal(by_label.data[0].z, by_number.data[0].z)
    assert "blocks.1.z[head=2,pos=4]" in by_label.data[0].hovertext[1][2]
    assert "pos 4: John" in by_label.layout.title.subtitle.text
    for wrong in ({"pos": "nowhere"}, {"neuron": 1}):
        with pytest.raises(ConfigError):
            plot(result, select=wrong)


def test_default_variables():
    assert plot(sweep()).layout.coloraxis.colorbar.title.text.startswith("recovered")
    assert plot(sweep(method="causal_tracing")).layout.coloraxis.colorbar.title.text.startswith("recovered")
    assert plot(sweep(method="ablation")).layout.coloraxis.colorbar.title.text.startswith("value")


@pytest.mark.parametrize(("wrong", "says"), [({"variable": "recoverd"}, "recovered"), ({"kind": "heat"}, "heatmap")])
def test_misspellings_name_the_nearest_choice(wrong, says):
    with pytest.raises(ConfigError, match=says):
        inspect.unwrap(plot)(sweep(), **wrong)  # as users call it, without checks of annotations


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([sweep()], r"mx\.plot draws a Result, not a list\. Plot each result, or use mx\.report"),
        ("result.nc", r"not a str\. Load a saved result first"),
        (mx.Saliency(), r"not a Saliency\. Run the method first"),
        (sweep().data, r"not a Dataset\. Pass what a method returns"),
        (3, "not an int"),
    ],
)
def test_only_results_are_drawn(wrong, message):
    with pytest.raises(ConfigError, match=message):
        inspect.unwrap(plot)(wrong)


def test_a_batch_is_refused_by_name(zoo):
    with pytest.raises(ConfigError, match=r"not a ContrastBatch\. Run a method on it first"):
        inspect.unwrap(plot)(mx.tasks.ioi(zoo, n=1))


def test_a_kind_that_does_not_fit_names_those_that_do():
    with pytest.raises(ConfigError, match="heatmap"):
        plot(sweep(), kind="slider")


def test_cells_without_a_value_are_grey():
    result = sweep()
    result.data["recovered"].values[3, 5] = np.nan
    figure = plot(result)
    assert figure.layout.plot_bgcolor == "#c9ced6"
    assert "grey: no value" in figure.layout.title.subtitle.text
    assert "no value" in figure.data[0].hovertext[3][5]
    assert figure.layout.coloraxis.cmax == pytest.approx(0.9)


def test_every_score_of_head_roles_is_a_panel_with_the_roles_in_its_cells():
    figure = plot(head_roles())
    assert len(figure.data) == 8
    assert figure.layout.annotations[0].text == "previous token"
    assert figure.data[0].text[3][6] == "NM"
    assert "role: name mover" in figure.data[6].hovertext[3][6]
    assert "NM name mover" in figure.layout.title.subtitle.text
    assert figure.layout.coloraxis7.cmid == 0
    assert figure.layout.coloraxis7.colorbar.title.text == "logits"
    assert figure.layout.coloraxis2.cmin == 0
    assert len({figure.layout[f"coloraxis{at}"].cmax for at in ("", 2, 3, 4, 5, 6)}) == 1


def test_one_score_of_head_roles_keeps_the_roles():
    figure = plot(head_roles(), "effect")
    assert len(figure.data) == 1
    assert figure.data[0].text[0][5] == "DT"


def test_a_head_with_two_roles_shows_both():
    result = head_roles()
    roles = result.data["role"].values.astype(object)
    roles[0, 5] = "duplicate_token, induction"
    both = Result(result.data.assign(role=variable(("layer", "head"), roles.astype(str), "role", "role")), result.info)
    assert plot(both, "effect").data[0].text[0][5] == "DT<br>IN"


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (plain(("layer",), (5,)), "scatter"),
        (plain(("fraction",), (5,), fraction=[0.0, 0.1, 0.2, 0.5, 1.0]), "scatter"),
        (plain(("edge",), (4,), edge=["a0.h1 -> m0", "m0 -> logits", "b", "c"]), "bar"),
        (plain(("prompt", "component"), (3, 4), component=list("abcd")), "heatmap"),
        (plain(("prompt", "pos"), (3, 4)), "heatmap"),
        (plain(("prompt", "layer", "pos"), (9, 3, 4)), "heatmap"),
        (plain(("head", "dest_pos", "src_pos"), (9, 5, 5)), "heatmap"),
        (plain(("site", "layer", "pos"), (2, 3, 4), site=["z", "mlp_out"]), "heatmap"),
        (plain(("layer", "pos"), (1, 1)), "heatmap"),
        (plain(("x",), (0,)), None),
        (plain((), ()), None),
    ],
)
def test_results_of_any_method_give_a_figure(result, kind):
    figure = plot(result)
    assert figure.layout.width > 0
    assert figure.to_json()
    assert not figure.data if kind is None else figure.data[0].type == kind


@pytest.mark.filterwarnings("ignore:Duplicate dimension names")
def test_a_matrix_over_one_dim_twice():
    agreement = variable(("method", "method"), np.eye(3), "correlation", "agreement")
    figure = plot(Result(xr.Dataset({"agreement": agreement}), RunInfo()))
    assert np.array_equal(figure.data[0].z, np.eye(3))


def test_a_result_of_texts_gives_an_empty_figure():
    data = xr.Dataset({"top_token": variable(("layer",), ["a", "b"], "token", "top token")})
    assert "no numbers" in plot(Result(data, RunInfo())).layout.annotations[0].text
    with pytest.raises(ConfigError, match="not numbers"):
        plot(Result(data, RunInfo()), "top_token")


def test_plotly_keeps_its_own_defaults():
    before = plotly.io.templates.default
    figure = plot(sweep())
    assert plotly.io.templates.default == before
    assert figure.layout.template.layout.font.family.startswith("Inter")


def test_the_result_is_not_changed():
    result = sweep(("head", "layer"), (4, 3), site="z")
    before = result.data.copy(deep=True)
    plot(result)
    assert result.data.identical(before)
