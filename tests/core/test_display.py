"""Text and HTML summaries of batches, datasets, activations and results; sequences from numpy and pandas."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch

import mechxai as mx
from mechxai.core.activations import Activations
from mechxai.core.batch import Layout
from mechxai.core.display import Displayed, Summary, neutralised
from mechxai.core.errors import ShapeError, SiteError
from mechxai.core.site import Site

MOST_LINES = 25


def lines(shown: Displayed) -> list[str]:
    return repr(shown).splitlines()


def tokens_batch(n=64):
    clean = torch.arange(n * 3).reshape(n, 3)
    return mx.ContrastBatch.from_tokens(clean, clean + 1, torch.full((n,), 5), torch.full((n,), 6))


def test_a_batch_of_a_task_shows_size_task_and_three_prompts():
    model = mx.load("zoo/ioi")
    batch = mx.tasks.ioi(model, n=64)
    shown = lines(batch)
    assert shown[0].startswith("ContrastBatch: 64 prompts of ioi, ")
    for row, line in enumerate(shown[1:4]):
        assert " ".join(batch.strings[row]) in line, "tokens of a word-level tokenizer stand apart"
    assert "61 more" in shown[4]
    assert shown[5].split()[0] == "roles"
    assert "END" in shown[5]
    assert len(shown) <= MOST_LINES


def test_a_batch_of_tokens_shows_shapes():
    shown = lines(tokens_batch())
    assert shown[0] == "ContrastBatch: 64 prompts, 3 tokens"
    assert shown[1].split(maxsplit=1) == ["clean", "[64, 3]"]
    assert len(lines(tokens_batch(1))) <= MOST_LINES
    assert lines(tokens_batch(1))[0] == "ContrastBatch: 1 prompt, 3 tokens"


def test_tokens_are_escaped_in_html():
    from dataclasses import replace

    batch = replace(tokens_batch(2), strings=(("<s>", "a & b"), ("<script>", "x")))
    html = batch._repr_html_()
    assert "&lt;s&gt; a &amp; b" in html
    assert "<script>" not in html
    assert len(html.splitlines()) <= MOST_LINES


def test_long_prompts_are_cut():
    from dataclasses import replace

    batch = replace(tokens_batch(1), strings=(("word\n" * 200,),))
    assert max(map(len, lines(batch))) < 130
    assert len(lines(batch)) <= MOST_LINES


def test_a_probe_dataset_shows_its_labels():
    tokens = torch.arange(6).reshape(3, 2)
    dataset = mx.ProbeDataset.from_tokens(tokens, torch.tensor([0, 1, 0]), names=["cat", "dog"])
    shown = lines(dataset)
    assert shown[0] == "ProbeDataset: 3 prompts"
    assert any("per prompt, classes cat, dog" in line for line in shown)
    numbers = mx.ProbeDataset.from_tokens(tokens, torch.tensor([[0.0, 1.0]] * 3))
    assert any("per token, numbers" in line for line in lines(numbers))
    assert "cat, dog" in dataset._repr_html_()


def test_a_reasoning_batch_shows_its_questions():
    problems = tuple(mx.Problem(f"What is {number} < 9?", " yes") for number in range(5))
    batch = mx.ReasoningBatch(problems)
    shown = lines(batch)
    assert shown[0] == "ReasoningBatch: 5 problems"
    assert "What is 0 < 9? -> yes" in shown[1]
    assert "2 more" in shown[4]
    assert "What is 0 &lt; 9?" in batch._repr_html_()


@pytest.fixture
def acts():
    stack = torch.arange(3 * 2 * 4 * 5.0).reshape(3, 2, 4, 5)
    values = {Site("resid_post", layer): stack[layer] for layer in range(3)}
    return Activations({**values, Site("embed"): stack[0]}, Layout(torch.tensor([4, 4])))


def test_activations_show_sites_layers_and_shapes(acts):
    shown = lines(acts)
    assert shown[0].startswith("Activations: 2 prompts, ")
    assert shown[1].split("  ")[1:] == ["resid_post", "layers 0-2", "[2, 4, 5]"]
    assert shown[2].split()[0] == "embed"
    assert "resid_post" in acts._repr_html_()


def test_a_site_name_without_a_layer_gives_all_cached_layers(acts):
    assert torch.equal(acts["resid_post"], acts.stack("resid_post"))
    assert acts["resid_post"].shape == (3, 2, 4, 5)
    assert torch.equal(acts["resid_post", 2], acts["resid_post"][2])
    assert torch.equal(acts["embed"], acts[Site("embed")])
    with pytest.raises(SiteError, match=r"No layer of z is cached. Allowed: blocks.0.resid_post"):
        acts["z"]


def test_a_result_shows_title_variables_and_notes(model_of, pairs):
    from dataclasses import replace

    model = model_of("gpt2")
    result = mx.ActivationPatching("z", ("layer", "head"))(model, pairs(model))
    result = replace(result, info=replace(result.info, notes=("read <me>",)))
    shown = lines(result)
    assert shown[0] == f"Result: {result.info.title}"
    value = next(line for line in shown if line.split()[0] == "value")
    sizes = result.data["value"].sizes
    assert f"[layer {sizes['layer']}, head {sizes['head']}]" in value
    assert "logits" in value
    assert "read <me>" in shown[-1]
    assert "read &lt;me&gt;" in result._repr_html_()
    assert len(shown) <= MOST_LINES


def test_a_result_plots_itself(model_of, pairs):
    model = model_of("gpt2")
    result = mx.ActivationPatching("z", ("layer", "head"))(model, pairs(model))
    figure = result.plot(title="mine")
    assert isinstance(figure, go.Figure)
    assert figure == mx.plot(result, title="mine")


# Sequences of other libraries -----------------------------------------------------------------------------------------


def test_tokens_may_be_arrays_series_lists_and_tuples():
    clean, corrupted = [[1, 2, 3], [4, 5, 6]], [[1, 2, 9], [4, 5, 9]]
    expected = mx.ContrastBatch.from_tokens(
        torch.tensor(clean), torch.tensor(corrupted), torch.tensor([7, 8]), torch.tensor([8, 7])
    )
    for clean_ids, corrupted_ids, answers, wrong in (
        (np.array(clean), np.array(corrupted), np.array([7, 8]), np.array([8, 7])),
        (clean, corrupted, [7, 8], (8, 7)),
        (pd.Series(clean).tolist(), tuple(map(tuple, corrupted)), pd.Series([7, 8], index=[5, 9]), [[8], [7]]),
    ):
        batch = mx.ContrastBatch.from_tokens(clean_ids, corrupted_ids, answers, wrong)
        for name in ("clean", "corrupted", "answers", "wrong", "answer_pos"):
            assert torch.equal(getattr(batch, name), getattr(expected, name)), name
    masked = mx.ContrastBatch.from_tokens(
        clean, corrupted, [7, 8], [8, 7], mask=[[1, 1, 1], [1, 1, 0]], roles={"X": [0, 1]}
    )
    assert masked.lengths.tolist() == [3, 2]
    assert masked.roles["X"].tolist() == [0, 1]


def test_ragged_rows_and_fractions_are_refused():
    with pytest.raises(ShapeError, match=r"clean has rows of different length\. Pad the rows"):
        mx.ContrastBatch.from_tokens([[1, 2], [3]], [[1, 2], [3]], [7, 8], [8, 7])
    with pytest.raises(ShapeError, match="answers must hold whole numbers: its type is float64"):
        mx.ContrastBatch.from_tokens([[1, 2]], [[1, 3]], [7.5], [8])


def test_texts_may_be_arrays_series_lists_and_tuples(model_of):
    model = model_of("gpt2")
    clean, corrupted = ["When Mary and John went"], ["When John and Mary went"]
    expected = mx.ContrastBatch.from_prompts(model, clean, corrupted, answers=[5], wrong=[" John"])
    for texts, others, answers in (
        (pd.Series(clean, index=[7]), pd.Series(corrupted), np.array([5])),
        (np.array(clean), tuple(corrupted), pd.Series([5])),
        (clean, corrupted, torch.tensor([5])),
        (clean, corrupted, np.array([[5]])),
    ):
        batch = mx.ContrastBatch.from_prompts(model, texts, others, answers=answers, wrong=(" John",))
        assert torch.equal(batch.clean, expected.clean)
        assert torch.equal(batch.answers, expected.answers)
    with pytest.raises(ShapeError, match="clean must be a list with one entry per prompt: it is 'When Mary'"):
        mx.ContrastBatch.from_prompts(model, "When Mary", "When John", answers=[5], wrong=[" John"])


def test_answers_outside_the_vocabulary_are_refused(model_of):
    model = model_of("gpt2")
    d_vocab = model.architecture.d_vocab
    texts = {"clean": ["When Mary"], "corrupted": ["When John"]}
    with pytest.raises(
        ShapeError, match=rf"answers: token 1000000 of prompt 0 is outside the vocabulary of {d_vocab} "
    ):
        mx.ContrastBatch.from_prompts(model, **texts, answers=[10**6], wrong=[5])
    with pytest.raises(ShapeError, match=rf"wrong: token {d_vocab} of prompt 0 is outside"):
        mx.ContrastBatch.from_prompts(model, **texts, answers=[5], wrong=[d_vocab])
    batch = mx.ContrastBatch.from_tokens([[1, 2]], [[1, 3]], [10**6], [5])
    with pytest.raises(ShapeError, match="outside the vocabulary"):
        mx.ActivationPatching("z", ("layer",))(model, batch)


@pytest.mark.parametrize("code", [*range(32), 127, 0x85, 0x9B, 0x9D, 0x202E, 0x2066, 0x200F, 0x2028, 0xD800, 0xDCFF])
def test_what_steers_a_terminal_is_made_visible(code):
    text = f"a{chr(code)}b"
    kept = chr(code) in "\n\t"
    assert neutralised(text) == (text if kept else text.encode("unicode_escape").decode())
    assert chr(code) not in Summary(text, [(text, text)]).text() or kept


def test_other_text_stays():
    for text in ("héllo wörld 你好 🙂 \u05d0 👩\u200d💻", "a\\x1b", "", "Ġthe"):
        assert neutralised(text) == text
