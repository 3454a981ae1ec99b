"""Configurations as plain containers, without secrets."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch

from mechxai.tracking.plain import names_secret, plain, scrub


class Direction(Enum):
    DENOISE = "denoise"


@dataclass(frozen=True)
class Settings:
    site: str
    hf_token: str


@pytest.mark.parametrize(
    "key",
    [
        "api_key",
        "apiKey",
        "APIKey",
        "WANDB_API_KEY",
        "openai.api_key",
        "apikey",
        "myapikey",
        "access_key",
        "private-key",
        "secret",
        "client_secret",
        "password",
        "db_passwd",
        "credentials",
        "token",
        "hf_token",
        "HF_TOKEN",
        "auth_token",
        "hftoken",
        "accessToken",
        "access_tokens",
        "token_2",
        "tracker.wandb_token",
        "Authorization",
    ],
)
def test_keys_that_name_secrets(key):
    assert names_secret(key, "xyz")


@pytest.mark.parametrize(
    "key",
    [
        "tokens",
        "n_tokens",
        "max_new_tokens",
        "tokenizer",
        "token_position",
        "bos_token",
        "pad_token",
        "answer_token",
        "top_token",
        "per_token",
        "key",
        "keys",
        "attention_key",
        "monkey",
        "keyword",
        "layer",
        "passes",
        "secretary",
    ],
)
def test_keys_of_our_field_stay(key):
    assert not names_secret(key, "xyz")


def test_ids_and_flags_under_token_stay_but_passwords_never():
    assert not names_secret("prepend_token", True)
    assert not names_secret("token", 50256)
    assert not names_secret("label_token", 7)
    assert names_secret("password", 1234)
    assert names_secret("hf_token", 1234)


def test_plain_containers_recursively_without_secrets():
    config = {
        "model": {"name": "zoo/ioi", "api_key": "S1", "hub": [{"token": "S2", "revision": "main"}]},
        "method": Settings("resid_pre", "S3"),
        "over": ("layer", "pos"),
        "sites": {"z", "q"},
        "direction": Direction.DENOISE,
        "path": Path("a/b"),
        "overrides": ["model.hf_token=S4", "method.site=z"],
        "scale": np.float32(0.5),
        "loss": torch.tensor(2),
        "mask": torch.zeros(2, 3),
        "nothing": None,
        "nan": float("nan"),
        7: True,
    }
    assert plain(config) == {
        "model": {"name": "zoo/ioi", "hub": [{"revision": "main"}]},
        "method": {"site": "resid_pre"},
        "over": ["layer", "pos"],
        "sites": ["q", "z"],
        "direction": "denoise",
        "path": "a/b",
        "overrides": ["model.hf_token=<removed>", "method.site=z"],
        "scale": 0.5,
        "loss": 2,
        "mask": "Tensor (2, 3)",
        "nothing": None,
        "nan": "NaN",
        "7": True,
    }


def test_hydra_configs_become_plain():
    from omegaconf import OmegaConf

    config = OmegaConf.create({"a": {"b": [1, "x"]}, "c": "${a.b}", "login": {"password": "S"}})
    assert plain(config) == {"a": {"b": [1, "x"]}, "c": [1, "x"], "login": {}}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("+model.hf_token=S3CRET", "+model.hf_token=<removed>"),
        ("{'api_key': 'S3CRET', 'site': 'z'}", "{'api_key': '<removed>', 'site': 'z'}"),
        ('{"password": "S3CRET"}', '{"password": "<removed>"}'),
        ("Authorization: Bearer S3CRET", "Authorization: <removed>"),
        ("https://me:S3CRET@host/repo", "https://<removed>@host/repo"),
        ("got hf_" + "a" * 34, "got <removed>"),
        ("method.site=resid_pre", "method.site=resid_pre"),
        ("When Mary and John went: bos_token='<|endoftext|>'", "When Mary and John went: bos_token='<|endoftext|>'"),
    ],
)
def test_scrub(text, left):
    assert scrub(text) == left
