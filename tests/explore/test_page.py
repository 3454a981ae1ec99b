"""The explorer in headless Chromium: figures, clicks and keys, its address, and sweeps."""

import json

import pytest

import mechxai as mx
from mechxai.explore.state import ExplorerState
from mechxai.explore.view import View
from mechxai.figures.browser import browser_available

if not browser_available():
    pytest.skip("no Chromium", allow_module_level=True)

from benchmarks.browser import Page
from benchmarks.explorer import WHERE, Served, first_picture, moved, settle
from tests import checkpoints

HOSTILE = "<img src=x onerror=hacked=1><script>hacked=1</script>"
PROBLEMS = "JSON.stringify(window.problems)"


@pytest.fixture(scope="module")
def page():
    with Page() as one:
        yield one


@pytest.fixture(scope="module")
def address(zoo):
    with Served(ExplorerState({"zoo/ioi": zoo})) as one:
        yield one


@pytest.fixture
def opened(page, address):
    """The page with its first picture, light, at rest.

    Yields:
        It; afterwards nothing may have gone wrong in it.
    """
    page.prefer("light")
    first_picture(page, address)
    page.wait("document.getElementById('where') && document.documentElement.dataset.theme")
    settle(page)
    yield page
    assert json.loads(page.run(PROBLEMS)) == []


@pytest.fixture(scope="module")
def long_model(tmp_path_factory):
    """A random GPT-2 of bytes that reads 512 tokens.

    Returns:
        It, loaded.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = checkpoints.write("gpt2", tmp_path_factory.mktemp("long") / "gpt2-512")
    config = GPT2Config.from_pretrained(folder, n_positions=512)
    config.n_ctx = 512
    GPT2LMHeadModel(config).save_pretrained(folder)
    return mx.load(str(folder), device="cpu")


def cell(page, panel, x, y):
    """Clicks the cell of a heat map at these coordinates."""
    place = page.run(
        f"""(() => {{
          const cells = [...document.querySelectorAll("#{panel} .cells i")];
          const one = cells.find(({{at}}) => at[0] === {y} && at[1] === {x});
          one.scrollIntoView({{block: "center"}});
          const box = one.getBoundingClientRect();
          return [box.left + box.width / 2, box.top + box.height / 2];
        }})()"""
    )
    page.click(*place)


def test_the_first_picture_is_there_and_a_click_moves_every_panel(opened):
    before = opened.run("document.querySelector('#next').textContent")
    cell(opened, "lens", 5, 2)
    opened.wait(f"{WHERE}.includes('position 5') && {WHERE}.includes('layer 2')")
    settle(opened)
    assert opened.run("document.querySelector('.token.chosen').dataset.pos") == "5"
    assert opened.run("document.querySelector('#next').textContent") != before
    assert "pos=5" in opened.run("location.search")
    cell(opened, "heads", 3, 1)
    opened.wait(f"{WHERE}.includes('head 1.3')")


def test_keys_reach_everything_and_a_token_can_be_clicked(opened):
    opened.run("document.querySelector('.panel.lens').focus()")
    for key, word in (("ArrowLeft", "position 17"), ("ArrowDown", "layer 3"), ("]", "head 3.1")):
        moved(opened, key, 1)
        assert word in opened.run(WHERE)
    opened.run("document.querySelector('#tokens [data-pos=\"4\"]').click()")
    opened.wait(f"{WHERE}.includes('position 4')")
    opened.run("document.getElementById('prompt-text').focus()")
    opened.press("ArrowLeft")
    assert "position 4" in opened.run(WHERE), "keys in a text move the cursor alone"
    reachable = opened.run("[...document.querySelectorAll('.moves')].every(one => one.tabIndex === 0 && one.ariaLabel)")
    assert reachable
    stops = opened.run("[...document.querySelectorAll('#tokens button')].filter((one) => one.tabIndex === 0).length")
    assert stops == 1, "one stop for all tokens; the arrows go from one to the next"


def test_a_link_shows_the_same_again(opened, address):
    cell(opened, "lens", 3, 1)
    opened.wait(f"{WHERE}.includes('position 3')")
    settle(opened)
    link, where = opened.run("location.href"), opened.run(WHERE)
    first_picture(opened, link)
    opened.wait(f"{WHERE} === {json.dumps(where)}")


def test_a_sweep_runs_from_its_button_and_its_cells_can_be_clicked(opened):
    opened.run("document.getElementById('patching-run').click()")
    opened.wait("document.querySelector('#patching .cells i')")
    opened.wait("/against.* s$/.test(document.getElementById('patching-status').textContent)")
    cell(opened, "patching", 6, 1)
    opened.wait(f"{WHERE}.includes('position 6') && {WHERE}.includes('layer 1')")
    opened.run("document.getElementById('circuit-run').click()")
    opened.wait("document.querySelectorAll('#circuit path').length > 5")


def test_another_example_and_another_prompt_are_read(opened):
    prompt = opened.run("document.getElementById('prompt-text').value")
    address = opened.run("location.search")
    opened.run("document.getElementById('another').click()")
    opened.wait(f"document.getElementById('prompt-text').value !== {json.dumps(prompt)}")
    opened.wait(f"location.search !== {json.dumps(address)}")  # before that, the way back leads out of the page
    settle(opened)
    assert opened.run("document.getElementById('message').textContent") == ""
    opened.run("history.back()")
    opened.wait(f"document.getElementById('prompt-text').value === {json.dumps(prompt)}")
    opened.wait(f"document.getElementById('tokens').textContent.includes({json.dumps(prompt.split()[3])})")
    settle(opened)
    opened.run("history.forward()")
    opened.wait(f"document.getElementById('prompt-text').value !== {json.dumps(prompt)}")


def test_dark_is_dark(page, address):
    page.prefer("dark")
    first_picture(page, address)
    page.wait("document.documentElement.dataset.theme === 'dark'")
    page.wait("document.querySelector('#lens .chosen').style.borderColor === 'rgb(245, 163, 92)'")
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(16, 22, 30)"
    page.prefer("light")


def test_what_is_drawn_is_what_the_figures_say(opened):
    """The colours of cells, what they say under the pointer, lengths of bars."""
    colors = opened.run(
        """[...document.querySelectorAll("#attention .cells i")].map(({at, style}) => [...at, style.background])"""
    )
    ground = {(row, column): color for row, column, color in colors}
    assert ground[0, 0] == "rgb(5, 48, 97)", "the first token attends to itself alone"
    assert ground[0, 5] == "rgb(247, 247, 247)"
    place = opened.run(
        """(() => {
          const one = [...document.querySelectorAll("#attention .cells i")].find(({at}) => at[0] + at[1] === 0);
          one.scrollIntoView({block: "center"});
          const box = one.getBoundingClientRect();
          return [box.left + 3, box.top + 3];
        })()"""
    )
    opened.click(*place)
    opened.wait("document.querySelector('.tip') && !document.querySelector('.tip').hidden")
    assert opened.run("document.querySelector('.tip').textContent") == "<bos> → <bos>: 1.000"
    widths = opened.run("[...document.querySelectorAll('#next .area > i')].map(({style}) => parseFloat(style.width))")
    opened.wait("document.querySelector('#attention').ariaLabel.startsWith('<bos> → <bos>: 1.000; ')")
    settle(opened)
    assert len(widths) == 10
    assert widths == sorted(widths, reverse=True)


def test_a_choice_among_fast_keys_is_not_lost(opened):
    opened.run("document.querySelector('.panel.lens').focus()")
    for _ in range(4):
        opened.press("ArrowLeft")
    opened.run("dash_clientside.set_props('color-choice', {value: 'entropy'})")
    opened.wait("location.search.includes('color=entropy')")
    opened.wait(f"{WHERE}.includes('position 14')")
    settle(opened)
    assert opened.run("document.querySelector('#lens .bar .title').textContent") == "nats"


def test_after_a_refusal_the_page_goes_on(opened):
    opened.run("dash_clientside.set_props('answer-text', {value: 'Xanthippe'})")
    opened.wait("document.getElementById('trouble').textContent.includes('vocabulary')")
    opened.run("dash_clientside.set_props('answer-text', {value: ''})")
    opened.wait("document.getElementById('trouble').textContent === ''")
    opened.run("document.querySelector('.panel.lens').focus()")
    opened.press("ArrowLeft")
    opened.wait(f"{WHERE}.includes('position 17')", seconds=2.5)


def test_a_link_too_long_for_the_server_shows_the_same(page, address, zoo):
    first_picture(page, address)
    settle(page)
    view = View(model="zoo/ioi", prompt="Yesterday , Anna and Laura were here", color="entropy", pos=3)
    page.open("about:blank")
    page.open(f"{address}#{view.query()}")
    page.wait(f"document.getElementById('where') && {WHERE}.includes('position 3')")
    settle(page)
    assert page.run("document.getElementById('prompt-text').value") == view.prompt
    assert page.run("document.getElementById('corrupted-text').value") == ""
    page.wait("document.getElementById('color-choice').textContent.includes('entropy')")
    page.wait("!location.search.includes('corrupted=')")


def test_a_panel_is_saved_as_a_picture(opened):
    assert opened.run("typeof Plotly") == "undefined", "4 MB that the first picture need not wait for"
    for panel in ("lens", "layers", "next"):
        assert opened.run(f"mechxai.png('{panel}')") == f"mechxai-{panel}.png"


def test_those_who_listen_hear_what_a_choice_is_for(opened):
    opened.wait("document.getElementById('color-choice')")
    named = opened.run(
        """[...document.querySelectorAll(".dash-dropdown")].map((one) => one.getAttribute("aria-labelledby").split(" ")
          .map((id) => document.getElementById(id)?.textContent || "").join(": "))"""
    )
    assert "Colour of the lens: probability of the top token" in named
    assert all(one.split(": ")[0] for one in named)


def test_hostile_prompts_stay_text(page, model_of):
    model = model_of("gpt2")  # of bytes: it reads any text
    with Served(ExplorerState({model.name: model}, start=View(prompt=HOSTILE))) as address:
        first_picture(page, address)
        settle(page)
        assert page.run("typeof hacked") == "undefined"
        assert (
            page.run("document.querySelectorAll('#tokens script, #tokens img, .drawing script, .drawing img').length")
            == 0
        )
        assert page.run("document.querySelectorAll('#tokens button').length") > 10


def test_long_prompts_are_saved_and_their_heads_are_shown(page, model_of):
    """As an address, this prompt would have 90 kB."""
    model = model_of("gpt2")
    prompt = "\N{HIRAGANA LETTER A}" * 20
    with Served(
        ExplorerState({model.name: model}, start=View(prompt=prompt, corrupted="\N{HIRAGANA LETTER I}" * 10_000))
    ) as address:
        first_picture(page, address)
        settle(page)
        page.run("URL.createObjectURL = (blob) => { window.kept = blob; return '#'; }")
        page.run("document.getElementById('save').click()")
        page.wait("window.kept && window.kept.size > 1e6 && !document.getElementById('save').disabled")
        assert "from the command line" in page.run("window.kept.text()")
        page.run("document.querySelector('#views-box summary').click()")
        page.wait("document.getElementById('views').srcdoc.includes('</html>')")
        assert page.run("document.getElementById('trouble').textContent") == ""


def test_a_message_goes_with_what_it_was_about(page, model_of):
    model = model_of("gpt2")
    with Served(ExplorerState({model.name: model}, start=View(prompt="one two three"))) as address:
        first_picture(page, f"{address}?prompt=a&pos=x")
        settle(page)
        page.run("document.getElementById('patching-run').click()")
        page.wait("document.getElementById('message').textContent !== ''")
        page.run("dash_clientside.set_props('answer-text', {value: 'x'})")
        page.wait("document.getElementById('message').textContent === ''")


def test_512_tokens_can_be_used(page, long_model):
    prompt = ""
    while len(long_model.text.ids(prompt)) < 512:
        prompt += chr(97 + len(prompt) * 7 % 26)
    with Served(ExplorerState({long_model.name: long_model}, start=View(prompt=prompt))) as address:
        first_picture(page, address)
        settle(page)
        assert page.run("document.querySelectorAll('#tokens button').length") == 512
        page.run("document.querySelector('#tokens [data-pos=\"200\"]').click()")
        page.wait(f"{WHERE}.includes('position 200')")


@pytest.mark.slow  # of several, as others may use the machine; `make bench-explorer` has the medians
def test_it_is_quick(opened, address):
    """The quickest of some tries, as other tests share these cores."""
    assert any(first_picture(opened, address) < 2.0 for _ in range(6))
    settle(opened)
    opened.run("document.querySelector('.panel.lens').focus()")
    for keys in (("ArrowLeft", "ArrowRight"), ("ArrowDown", "ArrowUp"), ("]", "[")):
        assert any(min(moved(opened, key, 1)) < 0.3 for key in keys * 6), keys
