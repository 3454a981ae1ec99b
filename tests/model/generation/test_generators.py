"""Generators: batches equal single texts, seeds reproduce samples, Hugging Face agrees, and answers are cached."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import mechxai as mx
from mechxai.core.errors import AlignmentError, ArtifactError, ConfigError, ModelSupportError, ShapeError
from mechxai.core.reasoning import ReasoningBatch
from mechxai.model.generation import connection as connections
from mechxai.model.generation.cached import CachedGenerator
from mechxai.model.generation.connection import Connection
from mechxai.model.generation.decoding import Decoder
from mechxai.model.generation.generator import Writing, cut_at
from mechxai.model.generation.local import LocalGenerator
from mechxai.model.zoo.bundled import zoo_folder
from tests.conftest import FOLDED
from tests.serving import serving

TEXTS = ["Once upon", "The quick brown fox jumps over the lazy", "A", "Then they went home and slept"]
CUE = " So the answer is"


@pytest.fixture(scope="module")
def cot():
    return mx.load("zoo/cot", device="cpu")


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_rows_together_write_what_they_write_alone(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    generator = LocalGenerator(model)
    for writing in (Writing(5), Writing(5, temperature=1.0, seed=3)):
        together = generator.write(TEXTS, writing)
        assert together == [generator.write([text], writing)[0] for text in TEXTS]
    greedy = generator.write(TEXTS, Writing(4))
    for text, found in zip(TEXTS, greedy, strict=True):
        ids = model.text.ids(text)
        for _ in range(4):  # the same without any cache
            token = int(model.logits(torch.tensor([ids]))[0, -1].argmax())
            if token in model.text.special_ids():
                break
            ids.append(token)
        assert found.text == model.tokenizer.decode(ids[len(model.text.ids(text)) :])


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_answers_together_are_as_probable_as_alone(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    options = [" yes", " no way", " x"]
    together = LocalGenerator(model).logprobs(TEXTS, options)
    for row, text in enumerate(TEXTS):
        for column, option in enumerate(options):
            ids, own = model.text.ids(text), model.text.answer(text, option)
            logits = model.logits(torch.tensor([[*ids, *own]]))[0].double().log_softmax(-1)
            alone = sum(float(logits[len(ids) - 1 + at, token]) for at, token in enumerate(own))
            assert float(together[row, column]) == pytest.approx(alone, abs=1e-4)


def test_it_writes_what_hugging_face_generates(cot):
    folder = zoo_folder("zoo/cot")
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for problem in mx.tasks.cot_arithmetic(cot, n=3, split="held_out").problems:
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(problem.question)["input_ids"]]])
        whole = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False)
        expected = tokenizer.decode(whole[0, ids.shape[1] :])
        assert LocalGenerator(cot).write([problem.question], Writing(20))[0].text == expected


def test_draws_follow_the_probabilities(model_of):
    model = model_of("gpt2")
    generator = LocalGenerator(model)
    found = [generator.write(["Once"], Writing(1, temperature=1.0, seed=seed))[0].text for seed in range(400)]
    ids = model.text.ids("Once")
    probabilities = model.logits(torch.tensor([ids]))[0, -1].double().softmax(-1)
    best = int(probabilities.argmax())
    text, share = model.tokenizer.decode([best]), float(probabilities[best])
    assert found.count(text) / 400 == pytest.approx(share, abs=4 * (share * (1 - share) / 400) ** 0.5 + 0.005)
    assert len(set(found)) > 20
    assert found[0] == generator.write(["Once"], Writing(1, temperature=1.0, seed=0))[0].text


def test_writing_stops_before_a_text_and_at_the_context(cot):
    problem = mx.tasks.cot_arithmetic(cot, n=1, split="held_out").problems[0]
    generator = LocalGenerator(cot)
    chain = generator.write([problem.question], Writing(80, stop=(CUE,)))[0].text
    assert chain.strip() == "".join(problem.steps).strip()
    longest = generator.write([problem.question], Writing(500))[0].text
    assert len(cot.text.ids(problem.question + " " + longest)) == cot.architecture.n_ctx + 1  # the last is not read
    with pytest.raises(ShapeError, match="fewer than 128"):
        generator.write([problem.question * 4], Writing(1))
    assert cut_at("one two three", (" two", "three")) == ("one ", True)
    assert generator.spent()["tokens_written"] > 20


def test_hooks_are_gone_and_flags_restored(cot):
    count = lambda: sum(len(point.fwd_hooks) for point in cot.inner.hook_dict.values())  # noqa: E731
    before = count()
    LocalGenerator(cot).write(["Tom has 4 coins."], Writing(3))
    assert count() == before
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()


def test_bidirectional_models_do_not_write(model_of):
    with pytest.raises(ModelSupportError, match="bidirectional"):
        LocalGenerator(model_of("bert"))


def test_memory_that_runs_out_halves_the_rows(cot, monkeypatch):
    generator, decoded = LocalGenerator(cot), Decoder.decoded
    expected = generator.write(["Tom has 4 coins.", "Amy has 5 coins.", "Bob has 6 coins."], Writing(4))

    def scarce(self, rows, writing):
        if len(rows) > 1:
            raise torch.cuda.OutOfMemoryError("too much")
        return decoded(self, rows, writing)

    monkeypatch.setattr(Decoder, "decoded", scarce)
    assert generator.write(["Tom has 4 coins.", "Amy has 5 coins.", "Bob has 6 coins."], Writing(4)) == expected


def test_what_was_said_is_kept_and_a_torn_line_is_asked_again(cot, tmp_path):
    file, texts = tmp_path / "said.jsonl", ["Tom has 4 coins.", "Amy has 5 coins."]
    first = CachedGenerator(LocalGenerator(cot), file)
    written, known = first.write(texts, Writing(4)), first.logprobs(texts, (" 4", " 5"))
    again = CachedGenerator(LocalGenerator(cot), file)
    assert again.write(texts, Writing(4)) == written
    assert torch.equal(again.logprobs(texts, (" 4", " 5")), known)
    assert again.inner.spent()["forward_passes"] == 0
    assert again.spent() == first.spent(), "what earlier processes spent counts too"
    assert again.write(texts[:1], Writing(4, seed=1))  # another seed is another question
    assert again.inner.spent()["forward_passes"] > 0
    file.write_text(file.read_text()[:-30])
    torn = CachedGenerator(LocalGenerator(cot), file)
    assert torn.write(texts, Writing(4)) == written


def test_words_outside_the_vocabulary_are_refused(cot):
    for ask in (lambda own: own.write(["Tom has zebras."], Writing(1)), lambda own: own.logprobs(["A zebra"], (" 1",))):
        with pytest.raises(AlignmentError, match="outside the vocabulary of zoo/cot"):
            ask(LocalGenerator(cot))
    with pytest.raises(AlignmentError, match="wording"):
        mx.BiasingFeature("always_first")(cot, mx.tasks.cot_arithmetic(cot, n=6))


def test_what_it_writes_it_can_read_again(cot, monkeypatch):
    """Drawn at random it may write "?" and "." in a row, which its tokenizer would take for one unknown word."""
    generator, codec = LocalGenerator(cot), cot.text
    own = codec.ids("4 plus 8 ?")[1:] + codec.ids("x . 55")[2:]
    text = cot.tokenizer.decode(own)
    assert codec.unknown in codec.ids(text)
    readable = generator.decoder._readable(text, own, Writing(9))
    assert codec.ids(readable)[1:] == own


def test_wrong_writing_is_refused():
    with pytest.raises(ConfigError, match="max_tokens is 0: it must be at least 1"):
        Writing(0)
    with pytest.raises(ConfigError, match="has no name"):
        mx.load_generator("")
    with pytest.raises(ConfigError, match="system message"):
        mx.load_generator("x", system="be brief")
    with pytest.raises(ConfigError, match="api"):
        mx.load_generator("x", api="letters")


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(connections, "_PAUSE", 0.01)
    monkeypatch.setattr("openai._base_client.BaseClient._calculate_retry_timeout", lambda *_, **__: 0.01)


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_an_endpoint_writes_what_its_model_writes(cot, quick, api, tmp_path):
    problems = mx.tasks.cot_arithmetic(cot, n=3, split="held_out").problems
    texts, own = [problem.question for problem in problems], LocalGenerator(cot)
    with serving(cot) as server:
        server.faults = ["500", "cut", "429", "garbage", "slow"]
        made = lambda: mx.load_generator("zoo/cot", api=api, connection=Connection(server.url, cache=str(tmp_path)))  # noqa: E731
        generator = made()
        for writing in (Writing(60, stop=(CUE,)), Writing(30, temperature=1.5, stop=(CUE,), seed=5)):
            assert generator.write(texts, writing) == own.write(texts, writing)
        asked = len(server.seen)
        again = made()
        assert again.write(texts, Writing(60, stop=(CUE,))) == own.write(texts, Writing(60, stop=(CUE,)))
        assert len(server.seen) == asked, "kept answers cost nothing"
        assert again.spent()["answers reused"] == 3
        prompts = [problem.question + "".join(problem.steps) + CUE for problem in problems]
        options = (" 7", problems[0].answer)
        found = generator.logprobs(prompts[:1], options)
        expected = own.logprobs(prompts[:1], options)
        assert int(found.argmax()) == int(expected.argmax())
        if api == "completions":
            torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
        assert not generator.scores(tuple(map(str, range(100))))
        assert generator.scores(options)
        assert not mx.load_generator("x", reads=False).scores(options)
        server.always = "no_choices"
        with pytest.raises(ArtifactError, match="no choices"):
            mx.load_generator("x", api=api, connection=Connection(server.url, retries=1)).write(["Tom"], Writing(2))


def test_an_answer_that_begins_another_is_told_apart_by_what_ends_it(model_of):
    """A tokenizer of letters cuts "12" into "1" and "2": alone, " 1" could never lose to " 12"."""
    model = model_of("gpt2")
    own, prompt, options = LocalGenerator(model), "x is", (" 1", " 12", " 123")
    bare, ended = own.logprobs([prompt], options)[0], own.logprobs([prompt], options, ".")[0]
    assert bool((bare.diff() < 0).all())
    for option, found in zip(options, ended, strict=True):
        ids, rest = model.text.ids(prompt), model.text.answer(prompt, f"{option}.")
        logits = model.logits(torch.tensor([[*ids, *rest]]))[0].double().log_softmax(-1)
        assert float(found) == pytest.approx(
            sum(float(logits[len(ids) - 1 + at, token]) for at, token in enumerate(rest)), abs=1e-4
        )


def test_chats_whose_first_token_tells_nothing_are_read_from_text(cot, quick):
    problems = mx.tasks.cot_arithmetic(cot, n=2, steps=3, split="held_out").problems
    asked = tuple(replace(one, options=(" 1000", " 10000"), answer=" 1000") for one in problems)
    with serving(cot) as server:
        generator = mx.load_generator("zoo/cot", api="chat", connection=Connection(server.url))
        rows = generator.logprobs([one.question for one in asked], asked[0].options)
        assert bool(rows.isnan().all())
        server.always = "no_logprobs"
        silent = mx.load_generator("other", connection=Connection(server.url))
        result = mx.EarlyAnswering()(
            silent, ReasoningBatch(tuple(replace(one, options=(one.answer, " 99")) for one in problems))
        )
        assert float(result.data["accuracy"]) == 1
        assert np.isnan(result.data["margin"].values).all()
        with pytest.raises(ModelSupportError, match="read=text"):
            silent.logprobs(["x"], (" a", " b"))


def test_damaged_answers_are_asked_again(cot, quick, tmp_path):
    with serving(cot) as server:
        made = lambda: mx.load_generator("zoo/cot", connection=Connection(server.url, cache=str(tmp_path)))  # noqa: E731
        expected = made().write(["Tom has 4 coins."], Writing(2))
        for damage in ("[]", '{"answer": {"choices": []}}', '{"answer": 5}', ""):
            for file in tmp_path.rglob("*.json"):
                file.write_text(damage)
            assert made().write(["Tom has 4 coins."], Writing(2)) == expected
        file = tmp_path / "said.jsonl"
        kept = CachedGenerator(made(), file)
        kept.write(["Tom has 4 coins."], Writing(2))
        file.write_bytes(file.read_bytes() + b"\n5\n[1, 2]\n\xff\n")
        assert CachedGenerator(made(), file).write(["Tom has 4 coins."], Writing(2)) == expected


def test_an_address_with_a_secret_is_refused(monkeypatch):
    for url in ("https://user:s3cret@host/v1", "https://host/v1?api_key=s3cret"):
        with pytest.raises(ConfigError, match="a query in it") as raised:
            Connection(url)
        assert "s3cret" not in str(raised.value)
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        with pytest.raises(ConfigError, match="OPENAI_BASE_URL") as raised:
            mx.load_generator("x").info()
        assert "s3cret" not in str(raised.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_writes_what_a_cpu_writes():
    found = []
    for device in ("cpu", "cuda"):
        model = mx.load("zoo/cot", device=device)
        batch = mx.tasks.cot_arithmetic(model, n=16, split="held_out")
        found.append((mx.EarlyAnswering()(model, batch).data, mx.ChainFlow()(model, batch).data))
    (cpu, cpu_flow), (gpu, gpu_flow) = found
    assert list(cpu["chain"].values) == list(gpu["chain"].values)
    assert cpu["per_example"].equals(gpu["per_example"])
    assert float(abs(cpu_flow["recovered"] - gpu_flow["recovered"]).max()) < 1e-3


# model.generate -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_generate_is_hugging_faces_greedy_generate(model_of, checkpoint, kind, backend, processing):
    """One text, a list of texts of different length, and token ids."""
    model = model_of(kind, backend, processing)
    theirs = AutoModelForCausalLM.from_pretrained(checkpoint(kind), attn_implementation="eager").eval()
    expected = []
    for text in TEXTS:
        ids = torch.tensor([model.text.ids(text)])
        ended = {"eos_token_id": model.tokenizer.eos_token_id, "pad_token_id": model.tokenizer.eos_token_id}
        whole = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, **ended)
        expected.append([token for token in whole[0, ids.shape[1] :].tolist() if token != ended["eos_token_id"]])
    texts = [model.tokenizer.decode(ids) for ids in expected]
    assert [model.generate(text, 8) for text in TEXTS] == texts
    assert model.generate(TEXTS, max_new_tokens=8) == texts
    tokens, lengths = model.tokens(TEXTS)
    written = model.generate(tokens, 8, lengths=lengths)
    assert [[token for token in row if token >= 0] for row in written.tolist()] == expected


def test_generate_draws_by_its_seed(cot):
    texts = ["Tom has 4 coins.", "Amy has 5 coins."]
    drawn = cot.generate(texts, 6, temperature=2.0, seed=1)
    assert drawn == [cot.generate(text, 6, temperature=2.0, seed=1) for text in texts]
    assert drawn != cot.generate(texts, 6, temperature=2.0, seed=2)
    assert len(cot.generate(texts[0])) > 0


def test_generate_refuses_what_cannot_be_continued(cot, model_of):
    with pytest.raises(ModelSupportError, match="bidirectional"):
        model_of("bert").generate("When Mary")
    with pytest.raises(ShapeError, match=r"has \d+ tokens: zoo/cot continues prompts of fewer than 128"):
        cot.generate("Tom has 4 coins. " * 40)
    with pytest.raises(ConfigError, match="max_new_tokens is 0: it must be at least 1"):
        cot.generate("Tom has 4 coins.", 0)
    with pytest.raises(ConfigError, match="temperature is -1"):
        cot.generate("Tom has 4 coins.", temperature=-1.0)
    with pytest.raises(ShapeError, match="There are no prompts"):
        cot.generate([])


def test_generators_show_themselves_in_a_few_lines(cot):
    for shown in (LocalGenerator(cot), mx.load_generator("gpt", api="chat", system="Be brief.")):
        assert shown.name in repr(shown)
        assert len(repr(shown).splitlines()) <= 25
        assert shown.name in shown._repr_html_()
