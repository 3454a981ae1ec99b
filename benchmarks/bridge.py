"""Patching on the TransformerLens 4 bridge: its own sweep and ours, in an environment with that version.

Prints one line of JSON. ``python -m benchmarks.patching --bridge`` starts it.
"""

import json
import logging
import warnings

from transformer_lens.model_bridge import TransformerBridge

import mechxai as mx
from benchmarks import peers
from benchmarks.machine import Reference, conditions, one_thread
from benchmarks.rows import options, parse_settings, sweep_row
from benchmarks.shapes import hugging_face, one_token
from benchmarks.sweeps import HEADLINE, Sweep


def main() -> None:
    """Prints the rows as JSON."""
    settings = parse_settings(options(__doc__ or "").parse_args())
    one_thread()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    shape = settings.shape
    inner = TransformerBridge.boot_transformers("local", hf_model=hugging_face(shape), tokenizer=one_token()).eval()
    model = mx.wrap(inner, name=shape.name)
    reference = Reference(shape)

    def row(sweep: Sweep) -> dict[str, object]:
        sample = sweep.sample(shape, settings.prompts, settings.sample)
        patching = lambda: peers.transformer_lens(inner, shape, settings.prompts, sweep=sweep, sample=sample)  # noqa: E731
        return sweep_row(
            model, settings, sweep, others={"reference": reference.run, "bridge": patching}, baseline="bridge"
        )

    rows = [row(sweep) for sweep in HEADLINE]
    known = conditions("python -m benchmarks.patching --bridge") | {"shape": str(shape)}
    print(json.dumps({"conditions": known, "rows": rows}))


if __name__ == "__main__":
    main()
