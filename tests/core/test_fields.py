"""Fields of frozen dataclasses are settled by their annotations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest

import mechxai as mx
from mechxai.core.errors import ConfigError
from mechxai.core.fields import as_tuple, choices, settle_fields

Kind = Literal["small", "large"]


@dataclass(frozen=True)
class Settings:
    kind: Kind = "small"
    kinds: Sequence[Kind] = ()
    numbers: Sequence[int] | None = None
    site: str | Sequence[str] = "z"
    pair: tuple[int, ...] = (1,)
    free: str | Kind = "anything"

    def __post_init__(self):
        settle_fields(self)


def test_lists_tuples_and_numpy_are_one_value():
    assert Settings(numbers=[1, 2]) == Settings(numbers=(1, 2)) == Settings(numbers=np.array([1, 2]))
    assert Settings(numbers=np.int64(3)).numbers == (3,)
    assert type(Settings(numbers=np.array([1])).numbers[0]) is int
    assert Settings(numbers=None).numbers is None
    assert Settings(site="z").site == "z", "a name is not a sequence of letters"
    assert Settings(site=["z", "q"]).site == ("z", "q")
    assert Settings(kinds="small").kinds == ("small",)
    assert as_tuple({"a": 1}) == ({"a": 1},)


@pytest.mark.parametrize("settings", [{"kind": "smal"}, {"kinds": ["small", "smal"]}, {"kinds": "smal"}])
def test_other_choices_are_refused(settings):
    with pytest.raises(ConfigError, match=r"'smal' is not allowed. Did you mean 'small'\? Allowed: large, small"):
        Settings(**settings)


def test_a_literal_beside_other_types_refuses_nothing():
    assert Settings(free="something else").free == "something else"


def test_choices_of_an_annotation():
    assert choices(Kind) == ("small", "large")
    assert choices(Sequence[Kind] | None) == ("small", "large")
    assert choices(int) == ()


def test_methods_are_settled_and_every_ancestor_checks():
    method = mx.ActivationPatching("z", over=["layer", "head"], layers=[0, 1])
    assert method == mx.ActivationPatching("z", over=("layer", "head"), layers=(0, 1))
    assert method.settings()["layers"] == [0, 1]
    with pytest.raises(ConfigError, match=r"over='haed' is not allowed. Did you mean 'head'\?"):
        mx.ActivationPatching("z", over=["layer", "haed"])
    with pytest.raises(ConfigError, match=r"direction='up' is not allowed"):
        mx.ActivationPatching("z", direction="up")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: mx.IntegratedGradients(n_steps="five"), "n_steps='five' is not a whole number"),
        (lambda: mx.KernelShap(n_samples=1.5), "n_samples=1.5 is not a whole number"),
        (lambda: mx.Saliency(special="yes"), "special='yes' is not true or false"),
        (
            lambda: mx.ActivationPatching("z", over=("layer", "head"), layers="all"),
            "layers='all' is not a whole number",
        ),
        (lambda: mx.Ablation(noise="loud"), "noise='loud' is not a number"),
    ],
)
def test_values_of_another_type_are_refused(make, problem):
    with pytest.raises(ConfigError, match=problem):
        make()
    assert Settings(kind=np.str_("large")).kind == "large"
