"""The activation store equals the cache, also after interrupted writes."""

import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ArtifactError, ConfigError, ShapeError, SiteError

TEXTS = [
    "When Mary and John went to the store",
    "Then, Tom",
    "The war lasted from the year 1741 to the year",
    "The keys near the cabinet",
    "def load(self, size, name",
    "The capital of France is Paris.",
    "Tom passed a book to",
]
SETTINGS = {"sites": ["resid_post", "z"], "layers": [0, 2], "batch_size": 2, "shard_tokens": 20}


@pytest.fixture(scope="module")
def model(model_of):
    return model_of("gpt2")


@pytest.fixture(scope="module")
def store(model, tmp_path_factory):
    return mx.ActivationStore.write(tmp_path_factory.mktemp("store") / "s", model, TEXTS, **SETTINGS)


@pytest.fixture
def passes(model, monkeypatch):
    """Counts forward passes, and stops after ``passes["limit"]`` of them."""
    count, cache = {"n": 0, "limit": 10**9}, type(model).cache

    def counted(self, *args, **settings):
        if count["n"] >= count["limit"]:
            raise KeyboardInterrupt
        count["n"] += 1
        return cache(self, *args, **settings)

    monkeypatch.setattr(type(model), "cache", counted)
    return count


def expected(model, site, texts=TEXTS, skip=1):
    rows = []
    for text in texts:
        tokens, _ = model.tokens(text)
        acts = model.cache(tokens, [site.name], layers=None if site.layer is None else [site.layer])
        rows.append(acts[site][0, skip:])
    return torch.cat(rows)


def test_what_is_read_is_what_the_model_computes(model, store):
    assert len(store.index["shards"]) > 2, "the test must cross shards"
    assert {str(site) for site in store.sites} == {
        f"blocks.{layer}.{name}" for name in ("resid_post", "z") for layer in (0, 2)
    }
    for site in store.sites:
        torch.testing.assert_close(store.read(site), expected(model, site), atol=1e-5, rtol=0)
    ids = [model.text.ids(text)[1:] for text in TEXTS]
    assert store.tokens().tolist() == [token for row in ids for token in row]
    assert store.prompts().tolist() == [i for i, row in enumerate(ids) for _ in row]
    assert store.positions().tolist() == [pos + 1 for row in ids for pos in range(len(row))]
    assert len(store) == sum(map(len, ids))


def test_opened_again(store):
    again = mx.ActivationStore.open(store.folder)
    assert len(again) == len(store)
    assert torch.equal(again.read("blocks.2.z"), store.read("blocks.2.z"))
    assert not [file for file in store.folder.iterdir() if "part" in file.name]


def test_slices_read_only_the_rows_asked(store, monkeypatch):
    whole, n = store.read("blocks.0.z"), len(store)
    first = store.index["shards"][0]["n_tokens"]
    for start, stop in ((0, 1), (first - 1, first + 1), (3, n - 2), (n - 1, None), (0, n + 50)):
        assert torch.equal(store.read("blocks.0.z", start, stop), whole[start:stop])
    assert store.read("blocks.0.z", 2, 5).shape == (3, 4, 16)
    from mechxai.engine import activation_store

    opened, original = [], activation_store.safe_open
    monkeypatch.setattr(
        activation_store, "safe_open", lambda path, **settings: opened.append(path.name) or original(path, **settings)
    )
    store.read("blocks.0.z", first, first + 1)
    assert opened == ["00001.safetensors"]
    with pytest.raises(ShapeError, match=f"Rows {n} to None.*0 to {n}"):
        store.read("blocks.0.z", n)


def test_dtype_and_the_beginning_token(model, tmp_path):
    kept = mx.ActivationStore.write(
        tmp_path / "kept", model, TEXTS[:2], sites=["embed"], skip_bos=False, dtype="float16"
    )
    assert kept.read("embed").dtype == torch.float16
    assert kept.tokens().tolist().count(model.text.bos) == 2
    torch.testing.assert_close(
        kept.read("embed").float(), expected(model, mx.Site("embed"), TEXTS[:2], skip=0), atol=1e-3, rtol=1e-3
    )
    ids = [[5, 6, 7], [8, 9]]  # no beginning token here, so none is left out
    by_ids = mx.ActivationStore.write(tmp_path / "ids", model, ids, sites=["embed"])
    assert by_ids.tokens().tolist() == [5, 6, 7, 8, 9]


def test_packing_does_not_change_the_rows(model, store, tmp_path):
    other = mx.ActivationStore.write(
        tmp_path / "s", model, TEXTS, **{**SETTINGS, "batch_size": 5, "shard_tokens": 10**6}
    )
    assert len(other.index["shards"]) == 1
    assert torch.equal(other.tokens(), store.tokens())
    torch.testing.assert_close(other.read("blocks.2.resid_post"), store.read("blocks.2.resid_post"), atol=1e-5, rtol=0)


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_interrupted_writing_goes_on_where_it_stopped(model, store, tmp_path, passes, after):
    folder = tmp_path / "s"
    passes["limit"] = after
    with pytest.raises(KeyboardInterrupt):
        mx.ActivationStore.write(folder, model, TEXTS, **SETTINGS)
    finished = len(list(folder.glob("*.safetensors")))
    if finished:
        with pytest.raises(ArtifactError, match=r"prompts written.*it goes on"):
            mx.ActivationStore.open(folder)
    passes.update(n=0, limit=10**9)
    resumed = mx.ActivationStore.write(folder, model, TEXTS, **SETTINGS)
    done = sum(shard["n_prompts"] for shard in store.index["shards"][:finished])
    assert passes["n"] == -(-(len(TEXTS) - done) // 2), "finished shards are not computed again"
    for name in ("blocks.0.z", "blocks.2.resid_post"):
        assert torch.equal(resumed.read(name), store.read(name))
    assert torch.equal(resumed.tokens(), store.tokens())
    passes["n"] = 0
    mx.ActivationStore.write(folder, model, TEXTS, **SETTINGS)
    assert passes["n"] == 0


@pytest.mark.parametrize("lost", [0, 1, -1])
def test_a_lost_shard_is_written_again(model, store, tmp_path, lost):
    folder = tmp_path / "s"
    made = mx.ActivationStore.write(folder, model, TEXTS, **SETTINGS)
    (folder / made.index["shards"][lost]["file"]).unlink()
    again = mx.ActivationStore.write(folder, model, TEXTS, **SETTINGS)
    assert torch.equal(again.tokens(), store.tokens())
    assert torch.equal(again.prompts(), store.prompts())
    assert torch.equal(again.read("blocks.0.z"), store.read("blocks.0.z"))


def test_opening_a_store_that_lost_a_shard_is_refused(model, tmp_path):
    made = mx.ActivationStore.write(tmp_path / "s", model, TEXTS, **SETTINGS)
    (made.folder / made.index["shards"][1]["file"]).unlink()
    with pytest.raises(ArtifactError):
        mx.ActivationStore.open(made.folder).read("blocks.0.z")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"sites": ["z"]}, "sites"),
        ({"layers": [0]}, "sites"),
        ({"dtype": "float16"}, "dtype"),
        ({"skip_bos": False}, "skip_bos"),
        ({"texts": TEXTS[:-1]}, "prompts"),
        ({"kind": "neox"}, "model"),
        ({"processing": "raw"}, "model"),
    ],
)
def test_a_store_of_something_else_is_refused(model_of, store, passes, change, what):
    settings = {**SETTINGS, **change}
    other = model_of(settings.pop("kind", "gpt2"), "auto", settings.pop("processing", "folded"))
    before = sorted(file.name for file in store.folder.iterdir())
    with pytest.raises(ArtifactError, match=f"a store with another {what}.*another folder, or delete"):
        mx.ActivationStore.write(store.folder, other, settings.pop("texts", TEXTS), **settings)
    assert passes["n"] == 0
    assert sorted(file.name for file in store.folder.iterdir()) == before


def test_batches_hold_every_row_once(store):
    for seed in (None, 0, 7):
        rows, values = [], []
        for value, index in store.batches("blocks.0.z", 6, seed=seed):
            assert len(value) == len(index) <= 6
            rows.append(index)
            values.append(value)
        order = torch.cat(rows)
        assert sorted(order.tolist()) == list(range(len(store)))
        assert torch.equal(torch.cat(values), store.read("blocks.0.z")[order])
        assert (order.tolist() == sorted(order.tolist())) == (seed is None)


def test_shuffling_is_decided_by_the_seed(store):
    orders = [
        torch.cat([index for _, index in store.batches("blocks.0.z", 5, seed=seed)]).tolist() for seed in (1, 1, 2)
    ]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


def test_refused(model, store, tmp_path):
    with pytest.raises(SiteError, match=r"pattern cannot be stored per token.*Use model\.cache"):
        mx.ActivationStore.write(tmp_path / "a", model, TEXTS, sites=["pattern"])
    with pytest.raises(SiteError, match="Layer 3"):
        mx.ActivationStore.write(tmp_path / "a", model, TEXTS, sites=["z"], layers=[3])
    with pytest.raises(ConfigError, match="batch_size=0"):
        mx.ActivationStore.write(tmp_path / "a", model, TEXTS, sites=["z"], batch_size=0)
    for nothing in ([], [[]]):
        with pytest.raises(ShapeError, match="holds no prompts, or an empty one"):
            mx.ActivationStore.write(tmp_path / "a", model, nothing, sites=["z"])
    with pytest.raises(ArtifactError, match=r"no index.json"):
        mx.ActivationStore.open(tmp_path / "a")
    with pytest.raises(SiteError, match=r"blocks\.1\.z is not in the store.*Allowed: blocks\.0\.resid_post"):
        store.read("blocks.1.z")
    with pytest.raises(ConfigError, match="size=0"):
        next(store.batches("blocks.0.z", 0))
