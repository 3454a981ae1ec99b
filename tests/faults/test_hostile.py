"""Hostile and careless inputs are survived."""

import pytest

from tests.faults.hostile import failure_of, inputs

INPUTS = list(inputs())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


@pytest.mark.parametrize("hostile", INPUTS, ids=[f"{one.kind}: {one.name!a}" for one in INPUTS])
def test_survived(hostile, folder):
    assert failure_of(hostile, folder / "here") is None


def test_there_are_sixty():
    assert len(INPUTS) >= 60
    assert len({(hostile.kind, hostile.name) for hostile in INPUTS}) == len(INPUTS)
