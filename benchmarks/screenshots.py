"""The pictures of the explorer in the documentation: ``make screenshots`` (needs Chromium)."""

import sys
from pathlib import Path

from benchmarks.browser import Page
from benchmarks.explorer import WHERE, Served, first_picture, settle
from mechxai.cli.explore import explorer_state

FOLDER = Path(__file__).parents[1] / "docs" / "images"
MODEL = "zoo/ioi"
# name -> scheme, width; as high as the page is
PICTURES = {"explorer": ("light", 1500), "explorer_dark": ("dark", 1500), "explorer_narrow": ("light", 760)}
_AT = "layer=2&head=0"


def main() -> None:
    """Takes the pictures."""
    state = explorer_state({"model": MODEL, "device": "cpu"})
    with Served(state) as address, Page() as page:
        for name, (scheme, width) in PICTURES.items():
            page.prefer(scheme)
            page.resize(width, 1000)
            first_picture(page, f"{address}?{state.first_view().query()}&{_AT}")
            page.wait(f"document.documentElement.dataset.theme === {scheme!r} && {WHERE}.includes('head 2.0')")
            for sweep in ("patching", "circuit"):
                page.run(f"document.getElementById('{sweep}-run').click()")
                page.wait(f"/ s$/.test(document.getElementById('{sweep}-status').textContent)")
            page.wait("document.querySelectorAll('#circuit path').length > 5")
            page.wait("document.querySelector('#patching .cells i')")
            settle(page)
            page.run("new Promise(done => setTimeout(done, 500))")
            target = FOLDER / f"{name}.png"
            page.picture(target, height=page.run("document.documentElement.scrollHeight"))
            print(f"{target} ({target.stat().st_size // 1024} KiB)", file=sys.stderr)


if __name__ == "__main__":
    main()
