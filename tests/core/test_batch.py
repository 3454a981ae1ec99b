"""Contrast batches: padding, alignment, answers, roles, and the input that they refuse."""

import pytest
import torch

import mechxai as mx
from mechxai.core.errors import AlignmentError, ConfigError, ModelSupportError, ShapeError, SiteError

CLEAN = torch.tensor([[5, 6, 7, 8], [5, 6, 9, 0], [4, 4, 4, 0]])
CORRUPTED = torch.tensor([[5, 6, 1, 8], [2, 6, 9, 0], [4, 4, 4, 0]])
LENGTHS = torch.tensor([4, 3, 2])
MASK = torch.arange(4)[None] < LENGTHS[:, None]
ANSWERS, WRONG = torch.tensor([10, 11, 12]), torch.tensor([20, 21, 22])


def batch(**changes):
    given = {"clean": CLEAN, "corrupted": CORRUPTED, "answers": ANSWERS, "wrong": WRONG, "mask": MASK, **changes}
    return mx.ContrastBatch.from_tokens(
        given.pop("clean"), given.pop("corrupted"), given.pop("answers"), given.pop("wrong"), **given
    )


def on_the_left(rows, lengths=LENGTHS):
    return torch.stack([row.roll(rows.shape[1] - int(n)) for row, n in zip(rows, lengths, strict=True)])


def test_left_and_right_padding_are_the_same_batch():
    right = batch(roles={"X": torch.tensor([1, 2, 0])}, answer_pos=torch.tensor([3, 1, 1]))
    start = 4 - LENGTHS
    left = batch(
        clean=on_the_left(CLEAN),
        corrupted=on_the_left(CORRUPTED),
        mask=on_the_left(MASK),
        roles={"X": torch.tensor([1, 2, 0]) + start},
        answer_pos=torch.tensor([3, 1, 1]) + start,
    )
    for name in ("clean", "corrupted", "lengths", "answers", "wrong", "answer_pos", "mask", "first_difference"):
        assert torch.equal(getattr(left, name), getattr(right, name)), name
    assert torch.equal(left.roles["X"], right.roles["X"])
    assert left.lengths.tolist() == [4, 3, 2]
    assert left.clean[2].tolist() == [4, 4, 0, 0], "what lies behind a row's end is blanked"


def test_columns_that_no_row_needs_are_cut_off():
    wide = batch(
        clean=on_the_left(CLEAN)[1:],
        corrupted=on_the_left(CORRUPTED)[1:],
        mask=on_the_left(MASK)[1:],
        answers=ANSWERS[1:],
        wrong=WRONG[1:],
    )
    assert wide.n_pos == 3
    assert wide.clean.tolist() == [[5, 6, 9], [4, 4, 0]]


@pytest.mark.parametrize("bad", [[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1]])
def test_a_mask_with_a_hole_or_an_empty_row_is_refused(bad):
    mask = MASK.clone()
    mask[1] = torch.tensor(bad).bool()
    with pytest.raises(ShapeError, match=r"Row 1 of the mask is empty or has a hole.*unbroken run"):
        batch(mask=mask)


def test_first_difference_and_roles():
    made = batch(roles={"X": torch.tensor([1, 2, 0])})
    assert made.first_difference.tolist() == [2, 0, 2], "where nothing differs it is the length"
    assert made.answer_pos.tolist() == [3, 2, 1]
    assert torch.equal(made.roles["END"], made.answer_pos)
    assert made.layout.positions("X")[0].tolist() == [1, 2, 0]
    at, valid = made.layout.positions(-1)
    assert at.tolist() == [3, 2, 1]
    assert valid.all()
    at, valid = made.layout.positions(2)
    assert at.tolist() == [2, 2, 0]
    assert valid.tolist() == [True, True, False]
    with pytest.raises(SiteError, match=r"Unknown role 'Y'\. Allowed: END, X"):
        made.layout.positions("Y")


def test_end_is_always_the_answer_position():
    made = batch(roles={"END": torch.tensor([0, 0, 0])}, answer_pos=torch.tensor([1, 1, 1]))
    assert made.roles["END"].tolist() == [1, 1, 1]


def test_a_difference_in_the_padding_is_none():
    corrupted = CLEAN.clone()
    corrupted[2, 3] = 9
    assert batch(corrupted=corrupted).first_difference.tolist() == [4, 3, 2]


def test_rows_cut_everything_that_goes_by_prompt():
    made = batch(roles={"X": torch.tensor([1, 2, 0])})
    part = made.rows(slice(1, 3))
    assert len(part) == 2
    assert part.n_pos == 4, "padded as before"
    assert part.clean.tolist() == made.clean[1:].tolist()
    assert part.roles["X"].tolist() == [2, 0]
    assert part.roles["END"].tolist() == [2, 1]
    assert part.answers.tolist() == [[[11]], [[12]]]
    assert part.first_difference.tolist() == [0, 2]
    assert made.layout.repeat(2).positions("X")[0].tolist() == [1, 2, 0, 1, 2, 0]


def test_tokens_of_a_run():
    assert torch.equal(batch().tokens("corrupted"), batch().corrupted)
    with pytest.raises(ShapeError, match=r"Unknown run 'source'\. Allowed: clean, corrupted"):
        batch().tokens("source")


def test_unequal_lengths_name_both_shapes_and_the_fix():
    with pytest.raises(AlignmentError) as caught:
        batch(corrupted=CORRUPTED[:, :3])
    message = str(caught.value)
    assert message.startswith("Clean tokens have shape (3, 4), corrupted tokens (3, 3)")
    assert "clean and corrupted prompts must have the same number of tokens." in message
    assert "Use corrupted prompts that replace tokens one for one" in message
    assert isinstance(caught.value, ValueError)


def test_equal_answers_are_refused_by_prompt():
    with pytest.raises(AlignmentError, match=r"Prompt 1 has the same answer and wrong answer.*drop the prompt"):
        batch(wrong=torch.tensor([20, 11, 22]))
    with pytest.raises(AlignmentError, match="Prompt 0"):
        batch(answers=torch.tensor([[1, 2]] * 3), wrong=torch.tensor([[1, 2], [1, 3], [0, 2]]))
    batch(answers=torch.tensor([[1, 2]] * 3), wrong=torch.tensor([[1, 3]] * 3))  # one differing token is enough


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answers": torch.tensor([-1, 2, 3])}, "answers: prompt 0 has no answer"),
        ({"wrong": torch.tensor([1, 2, -1])}, "wrong: prompt 2 has no answer"),
        ({"answer_pos": torch.tensor([3, 3, 1])}, "answer_pos must name one real position"),
        ({"answer_pos": torch.tensor([3, -1, 1])}, "answer_pos must name one real position"),
        ({"roles": {"X": torch.tensor([3, 3, 1])}}, "X"),
        ({"roles": {"X": torch.tensor([-1, 1, 1])}}, "X"),
    ],
)
def test_refused_on_construction(changes, reason):
    with pytest.raises((ShapeError, SiteError), match=reason):
        batch(**changes)


def test_answers_come_one_row_per_prompt():
    # the shape checks of the test run (jaxtyping, a TypeError) or the library's own: either names the argument
    with pytest.raises((ShapeError, TypeError), match="answers"):
        batch(answers=ANSWERS[:2])


def test_floats_and_nothing_are_refused():
    with pytest.raises(Exception, match=r"whole numbers|clean"):
        mx.ContrastBatch.from_tokens(CLEAN.float(), CORRUPTED.float(), ANSWERS, WRONG)
    with pytest.raises(ShapeError, match="at least one prompt"):
        batch().rows(slice(0, 0))


def test_answers_take_three_shapes():
    assert batch().answers.shape == (3, 1, 1)
    assert batch(answers=torch.tensor([[1, 2]] * 3)).answers.tolist() == [[[1, 2]]] * 3
    alternatives = torch.tensor([[[1], [2]], [[3], [-1]], [[4], [-1]]])
    assert torch.equal(batch(answers=alternatives).answers, alternatives)


# Texts ----------------------------------------------------------------------------------------------------------------

TEXTS = {
    "clean": [
        "When Mary and John went to the store, John gave a drink to",
        "Then, Tom and James were at the park. James passed a book to",
    ],
    "corrupted": [
        "When Mary and John went to the store, Mary gave a drink to",
        "Then, Tom and James were at the park. Tom passed a book to",
    ],
    "answers": [" Mary", " Tom"],
    "wrong": [" John", " James"],
}


@pytest.fixture(scope="module")
def gpt2(model_of):
    return model_of("gpt2")


def made(model, **changes):
    return mx.ContrastBatch.from_prompts(model, **{**TEXTS, **changes})


def test_texts_become_tokens_in_line(gpt2):
    texts = made(gpt2)
    bos = gpt2.tokenizer.bos_token_id
    for i, clean in enumerate(TEXTS["clean"]):
        length = int(texts.lengths[i])
        assert texts.clean[i, :length].tolist() == [bos, *gpt2.tokenizer(clean)["input_ids"]]
        assert "".join(texts.strings[i][1:]) == clean
        assert int(texts.answer_pos[i]) == length - 1
        answer = texts.answers[i, 0]
        assert gpt2.tokenizer.decode(answer[answer >= 0]) == TEXTS["answers"][i]
        first = int(texts.first_difference[i])
        assert gpt2.tokenizer.decode([int(texts.clean[i, first])]).strip() == ("John", "James")[i]
    assert texts.axis[0] == "<|endoftext|>"
    assert texts.axis[1] == "", "prompts that differ share no label there"


def test_roles_come_from_character_spans(gpt2):
    spans = [
        {"S2": (text.rfind(name), text.rfind(name) + len(name))}
        for text, name in zip(TEXTS["clean"], ("John", "James"), strict=True)
    ]
    texts = made(gpt2, roles=spans)
    for i, name in enumerate(("John", "James")):
        first, last = int(texts.roles["S2_first"][i]), int(texts.roles["S2"][i])
        assert "".join(texts.strings[i][first : last + 1]).strip() == name
        assert last == int(texts.first_difference[i]) + last - first


def test_several_tokens_and_alternatives(gpt2):
    texts = made(gpt2, answers=[[" Mary", " Jamestown"], [" Tom"]], wrong=[[" John"], [" James"]])
    pieces = [gpt2.tokenizer(word)["input_ids"] for word in (" Mary", " Jamestown", " Tom")]
    width = max(map(len, pieces))
    assert width > 1, "the fixture must split one of the words"
    rows = [[*piece, *[-1] * (width - len(piece))] for piece in pieces]
    assert texts.answers.tolist() == [[rows[0], rows[1]], [rows[2], [-1] * width]]


def test_texts_that_do_not_line_up_are_refused_with_both_token_lists(gpt2):
    with pytest.raises(AlignmentError) as caught:
        made(gpt2, corrupted=[TEXTS["corrupted"][0], "Then, Tom."])
    message = str(caught.value)
    assert message.startswith("Prompt 1: clean and corrupted must have the same number of tokens, not 16")
    assert "Got: " in message
    assert "' Tom'" in message
    assert message.lower().endswith("replace words by words of as many tokens.")


def test_texts_refused(gpt2):
    with pytest.raises(ShapeError, match=r"equal numbers.* 1 answers"):
        made(gpt2, answers=[" Mary"])
    with pytest.raises(AlignmentError, match="Prompt 0 has the same answer"):
        made(gpt2, wrong=[" Mary", " James"])
    with pytest.raises(ConfigError, match="no answer"):
        gpt2.contrast(TEXTS["clean"], TEXTS["corrupted"], [[], [" Tom"]], TEXTS["wrong"])
    with pytest.raises(AlignmentError, match="No token covers characters"):
        made(gpt2, roles=[{"S2": (900, 905)}, {"S2": (0, 4)}])
    with pytest.raises(ShapeError, match=r"roles|equal numbers"):
        made(gpt2, roles=[{"S2": (0, 4)}])


def test_prompts_need_a_tokenizer(gpt2):
    from dataclasses import replace

    from mechxai.model.text import TextCodec

    with pytest.raises(ModelSupportError, match=r"has no tokenizer.*from_tokens"):
        made(replace(gpt2, text=TextCodec(None, None)))


def test_masked_models_answer_at_the_mask(model_of):
    bert = model_of("bert")
    texts = mx.ContrastBatch.from_prompts(
        bert, ["The capital of France is [MASK]."], ["The capital of Paris is [MASK]."], ["Paris"], ["John"]
    )
    assert int(texts.clean[0, int(texts.answer_pos[0])]) == bert.tokenizer.mask_token_id
    assert texts.clean[0, 0] == bert.tokenizer.cls_token_id
    with pytest.raises(ShapeError, match=r"0 mask tokens.*Write \[MASK\]"):
        mx.ContrastBatch.from_prompts(
            bert, ["The capital of France is"], ["The capital of Paris is"], ["Paris"], ["John"]
        )
