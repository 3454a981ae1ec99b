"""Text in figures: numbers with units, escaped characters, cuts and titles."""

import math

import pytest

from mechxai.figures.text import number, printable, safe, wrapped


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (0.83142, "0.831"),
        (12.44, "12.4"),
        (-3.0, "\N{MINUS SIGN}3"),
        (999.7, "1000"),
        (4815765.0, "4.82e+06"),
        (3e-6, "3e-06"),
    ],
)
def test_numbers_have_three_significant_digits(value, shown):
    assert number(value) == shown


def test_numbers_carry_their_unit_unless_there_is_none():
    assert number(1.5, "logits") == "1.5 logits"
    assert number(1.5, "1") == "1.5"
    assert number(math.nan, "logits") == "no value"
    assert number(-math.inf) == "\N{MINUS SIGN}∞"


def test_invisible_characters_are_escaped():
    assert printable("a\n\t\u202e\ud800b") == "a\\n\\t\\u202e\\ud800b"
    assert printable("naïve 東京 🙂") == "naïve 東京 🙂"


def test_a_cut_never_splits_an_entity():
    assert safe("<<<<<<", 4) == "&lt;&lt;&lt;…"


def test_titles_break_before_they_are_escaped():
    assert wrapped("a <b> c", 3) == ["a", "&lt;b&gt;", "c"]
    assert wrapped("", 10) == [""]
