"""Answers read from text and from chains."""

import pytest

from mechxai.core.reasoning import Mistake, Problem, plain
from mechxai.methods.cot._lib.answer_reading import final_answer, parsed_answer
from tests.methods.cot.scripted import OPTIONS


@pytest.mark.parametrize(
    ("text", "answer", "options", "expected"),
    [
        (" 12.", " 12", (" 1", " 12"), "12"),
        (" I'd say 12, not 1.", " 12", (" 1", " 12"), "12"),
        (" yes", " no", (" yes", " no"), "yes"),
        (" nothing", " no", (" yes", " no"), None),
        (" (B) because", " (A)", (" (A)", " (B)"), "(b)"),
        (" about 1,234 miles", " 5", (), "1234"),
        (" none", " 5", (), None),
        (" Paris. What is the capital of", " Rome", (), "paris"),
        (" St. Paul", " St. Paul", (), "st. paul"),
        (" Paris\nQ: Rome?", " Rome", (), "paris"),
        (" 18.00 dollars", " 18", (), "18"),
        (" 1,200", " 5", (" 1", " 5"), None),
        (" 3.5", " 4", (" 3", " 4"), None),
        (" -5", " 6", (" 5", " 6"), None),
        (" it is New York City", " New York", (" New York", " New York City"), "new york city"),
        ("  ", " Rome", (), None),
    ],
)
def test_answers_are_read_from_text(text, answer, options, expected):
    assert parsed_answer(text, Problem("q", answer, options=options)) == expected


def test_plain_answers_and_last_values():
    assert plain(" Mary. ") == "mary"
    given = Problem("q", " 5", options=OPTIONS)
    assert final_answer((" 3 plus 2 is 5.", " So 5 less 1 is 4."), given) == "4"
    assert final_answer((), given) is None
    assert final_answer((" nothing here.",), given) is None
    assert final_answer((" that makes 1,234.",), Problem("q", " 12")) == "1234"
    assert final_answer((" so to New York.",), Problem("q", " Rome", options=(" Rome", " New York"))) == "new york"
    logic = Problem("q", " no", (" it is red.",), (Mistake(" it is not red.", " yes"),), options=(" yes", " no"))
    assert final_answer((" it is not red.",), logic) == "yes"
    assert [plain(text) for text in (" 1,234", "18.00", "\u22125", " Mary. ")] == ["1234", "18", "-5", "mary"]
