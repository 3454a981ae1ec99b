"""A sample of the fault suite; ``make test-faults`` runs all of it."""

import random

import pytest

from tests.faults.flips import KINDS, flip
from tests.faults.full_disk import can_mount, run_full, used
from tests.faults.jobs import JOBS
from tests.faults.kills import reference, run_killed


def job(name):
    return next(job for job in JOBS if job.name == name)


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_no_flipped_bit_changes_a_number_in_silence(kind, tmp_path):
    counts, failures = flip(kind, tmp_path, flips=2, generator=random.Random(5))
    assert not failures
    assert counts["right"] + counts["refused"] == 2


@pytest.mark.parametrize("name", ["acdc", "early_answering"])
def test_a_killed_run_is_finished_by_the_same_command(name, tmp_path):
    whole = reference(job(name), tmp_path / "whole")
    killed = run_killed(job(name), tmp_path / "killed", expected=whole, kills=1, generator=random.Random(2))
    assert killed.failure is None


def test_a_run_on_a_full_disk_finishes_once_there_is_space(tmp_path):
    if not can_mount(tmp_path):
        pytest.skip("this process may not mount file systems")
    whole, _ = reference(job("linear_probes"), tmp_path / "whole")
    size = used(tmp_path / "whole") // 2
    full = run_full(job("linear_probes"), tmp_path / "disk", size=size, reference=whole)
    assert full.ended != "finished"
    assert full.failure is None


def test_every_family_has_a_job():
    families = {"patching", "circuits", "lens", "probes", "attribution", "attention", "cot"}
    assert {job.family for job in JOBS} == families
