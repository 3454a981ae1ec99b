"""Fixtures that observe the passes through dense blocks."""

import weakref

import pytest

from mechxai.model.dense import cache as cache_run
from mechxai.model.dense import check as dense_check
from mechxai.model.dense.run import pass_dense


@pytest.fixture
def passes(monkeypatch):
    """The number of prompts of every pass through dense blocks."""
    seen = []

    def counted(dense, residual, *args, **kwargs):
        seen.append(len(residual))
        return pass_dense(dense, residual, *args, **kwargs)

    monkeypatch.setattr(cache_run, "pass_dense", counted)
    return seen


@pytest.fixture
def unknown(monkeypatch):
    """No model has been compared with its dense blocks yet."""
    monkeypatch.setattr(dense_check, "_entries", weakref.WeakKeyDictionary())
