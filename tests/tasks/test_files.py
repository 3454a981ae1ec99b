"""Tasks from files: the schema, and the errors for invalid lines."""

import json

import pytest

import mechxai as mx
from mechxai.core.errors import ArtifactError, MechXAIError, ShapeError

GOOD = {
    "clean": "When Mary and John went to the store, John gave a drink to",
    "corrupted": "When Mary and John went to the store, Mary gave a drink to",
    "answer": " Mary",
    "wrong": " John",
}


@pytest.fixture(scope="module")
def model(model_of):
    return model_of("gpt2")


@pytest.fixture
def write(tmp_path):
    def lines(*rows, name="task.jsonl"):
        path = tmp_path / name
        path.write_text(
            "\n".join(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows),
            encoding="utf-8",
        )
        return path

    return lines


def test_lines_become_prompts(model, write):
    second = {**GOOD, "answer": [" Mary", " Tom"], "template": "two", "roles": {"S2": "John gave", "IO": "Mary"}}
    path = write({**GOOD, "roles": {"IO": "Mary", "PLACE": "store"}}, "", second)
    batch = mx.tasks.from_jsonl(model, path)
    assert len(batch) == 2
    assert "".join(batch.strings[0][1:]) == GOOD["clean"]
    assert [model.tokenizer.decode(answer[answer >= 0]) for answer in batch.answers[1]] == [" Mary", " Tom"]
    assert batch.answers[0, 1, 0] == -1
    assert batch.groups == ("", "two")
    assert batch.info == {"name": "jsonl:task.jsonl", "n": 2, "seed": 0, "dropped": {}}
    assert set(batch.roles) == {"IO", "IO_first", "END"}, "roles that every prompt has"
    for i in range(2):
        first, last = int(batch.roles["IO_first"][i]), int(batch.roles["IO"][i])
        assert "".join(batch.strings[i][first : last + 1]).strip() == "Mary"


def test_answers_of_several_tokens_are_scored_as_sequences(model, write):
    batch = mx.tasks.from_jsonl(model, write({**GOOD, "answer": " Mary and John", "wrong": " Tom"}))
    assert batch.answers.shape[2] > 1
    result = mx.ActivationPatching("resid_pre", ("layer",), metric="logprob")(model, batch)
    assert result.data["value"].attrs["units"] == "nats"


def test_n_takes_the_first_lines(model, write):
    path = write(GOOD, {**GOOD, "template": "b"}, "this line is never read")
    assert len(mx.tasks.from_jsonl(model, path, n=2)) == 2
    assert mx.tasks.from_jsonl(model, path, n=1).groups == ("",)
    with pytest.raises(MechXAIError, match="n=0"):
        mx.tasks.from_jsonl(model, path, n=0)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("not json", "is not JSON"),
        ("[1, 2]", "is a list"),
        ('"clean"', "is a str"),
        (
            {key: value for key, value in GOOD.items() if key != "wrong"},
            "lacks the field 'wrong'.*clean, corrupted, answer, wrong",
        ),
        ({**GOOD, "templat": "x"}, "Unknown field 'templat'. Did you mean 'template'"),
        ({**GOOD, "roles": {"S2": "Tom"}}, "'Tom' of role 'S2' are not in the clean text"),
        ({**GOOD, "corrupted": "When Mary went"}, "does not fit gpt2: clean and corrupted differ in length"),
        (
            {**GOOD, "clean": GOOD["clean"] + " ", "corrupted": GOOD["corrupted"] + " ", "answer": "Mary"},
            "the answer merges",
        ),
        ({**GOOD, "answer": 5}, "answer"),
        ({**GOOD, "answer": []}, "answer"),
        ({**GOOD, "wrong": [" John", None]}, "wrong"),
        ({**GOOD, "clean": ["a"]}, "clean"),
        ({**GOOD, "roles": ["Mary"]}, "roles"),
        ({**GOOD, "roles": {"S2": 3}}, "role"),
        ({**GOOD, "wrong": " Mary"}, "same answer|Prompt"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(model, write, bad, reason):
    with pytest.raises(ShapeError, match=f"task.jsonl, line 3.*(?:{reason})"):
        mx.tasks.from_jsonl(model, write(GOOD, "", bad))


def test_no_file_and_an_empty_one(model, write, tmp_path):
    with pytest.raises(ArtifactError, match=r"none\.jsonl does not exist"):
        mx.tasks.from_jsonl(model, tmp_path / "none.jsonl")
    with pytest.raises(ShapeError, match="has no examples"):
        mx.tasks.from_jsonl(model, write("", "  "))


def test_separators_inside_a_text_do_not_end_its_line(model, write):
    """JSON Lines end at a newline; U+2028 and its kind may stand inside a string."""
    odd = {key: f"a\u2028b\x85c {value}" if key in ("clean", "corrupted") else value for key, value in GOOD.items()}
    assert len(mx.tasks.from_jsonl(model, write(odd, GOOD))) == 2


def test_a_line_without_the_mask_of_a_masked_model_is_named(model_of, write):
    row = {
        "clean": "The capital of France is [MASK].",
        "corrupted": "The capital of Paris is [MASK].",
        "answer": "Paris",
        "wrong": "John",
    }
    bert = model_of("bert")
    assert len(mx.tasks.from_jsonl(bert, write(row))) == 1
    without = {**row, "clean": "The capital of France is.", "corrupted": "The capital of Paris is."}
    with pytest.raises(ShapeError, match=r"line 2.*mask"):
        mx.tasks.from_jsonl(bert, write(row, without))
