"""Type checks in tests cover the first calls of each function in each test."""

import dataclasses

import beartype
import jaxtyping
import pytest
import torch

import mechxai as mx
from tests import typed


def test_wrong_arguments_and_wrong_answers_are_refused():
    with pytest.raises(jaxtyping.TypeCheckError, match="parameters of mechxai"):
        mx.Site(3)

    @jaxtyping.jaxtyped(typechecker=beartype.beartype)
    def halves(x: jaxtyping.Float[torch.Tensor, "n m"]) -> jaxtyping.Float[torch.Tensor, "n n"]:
        return x / 2

    halves(torch.ones(2, 2))
    with pytest.raises(jaxtyping.TypeCheckError, match="return value"):
        halves(torch.ones(2, 3))
    with pytest.raises(jaxtyping.TypeCheckError, match="parameters"):
        halves(torch.ones(2))


def test_alike_dataclasses_are_checked_apart():
    def made():
        @jaxtyping.jaxtyped(typechecker=beartype.beartype)
        @dataclasses.dataclass
        class Count:
            n: int

        return Count

    one, other = made(), made()
    for _ in range(typed.CALLS):
        one(3)
    assert one("3").n == "3"
    with pytest.raises(jaxtyping.TypeCheckError):
        other("3")


def test_the_first_calls_are_checked_in_each_test():
    def made():  # the same code, though another function each time
        @jaxtyping.jaxtyped(typechecker=beartype.beartype)
        def double(x: int) -> int:
            return 2 * x

        return double

    for _ in range(typed.CALLS):
        with pytest.raises(jaxtyping.TypeCheckError):
            made()("a")
    assert made()("a") == "aa"
    typed.anew()
    with pytest.raises(jaxtyping.TypeCheckError):
        made()("a")
