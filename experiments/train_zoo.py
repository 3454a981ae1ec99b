"""Train a bundled model from its seed: ``python -m experiments.train_zoo zoo=ioi`` (``configs/zoo`` lists the others).

The model is a Hugging Face GPT-2. The data come from `zoo_corpus`; the planted model adds attention supervision, the
interchange model interchange-intervention training (`interchange`). The folder loads as an ordinary Hugging Face
checkpoint. An interrupted training resumes from its last checkpoint.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path

import hydra
import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from experiments.cot_corpus import KINDS, cot_rows, cot_words
from experiments.interchange import ALIGNED, interchange_loss
from experiments.zoo_cards import write_card
from experiments.zoo_corpus import Rows, grammar_words, repeated_rows, task_rows, word_tokenizer
from mechxai._resources import configs_dir

# Planted attention: (layer, head) -> (attends from, attends to).
PLANTED = {(0, 0): ("S2", "S1"), (1, 0): ("END", "S2"), (2, 0): ("END", "IO"), (2, 1): ("END", "IO")}
_PLANTED_ROLES = {("S2", "S1"): "duplicate_token", ("END", "S2"): "s_inhibition", ("END", "IO"): "name_mover"}


@dataclass
class Recipe:
    """The settings that determine a trained model.

    Attributes:
        rows: sentences of each task in one step; ``repeated`` is the induction mixture.
        weights: how much each task's loss counts.
        warmup_steps: first steps, on short repeats of few words only: induction forms slowly beside easier tasks, and
            more slowly with more words.
        warmup_words, warmup_length: number of words and length of the warm-up sequences.
        finish: rows of each task in the last ``finish_steps`` steps, in place of ``rows``, at the lowest rate.
        plant: weight of the attention supervision; 0 disables it.
        route: share of sentences in which every unplanted head is zeroed at END, so that the answer must pass through
            the planted heads.
        interchange: weight of interchange-intervention training; 0 disables it. ``pairs``: its pairs per step.
    """

    name: str
    n_layers: int
    d_model: int
    n_heads: int
    d_mlp: int
    n_ctx: int
    steps: int
    lr: float
    rows: dict[str, int]
    weights: dict[str, float] = field(default_factory=dict)
    repeated_length: int = 48
    n_words: int = 0
    warmup_steps: int = 0
    warmup_words: int = 100
    warmup_length: int = 26
    finish: dict[str, int] = field(default_factory=dict)
    finish_steps: int = 0
    plant: float = 0.0
    route: float = 0.0
    interchange: float = 0.0
    pairs: int = 64
    seed: int = 0

    def tasks(self, step: int) -> dict[str, int]:
        """The rows of each task at a step."""
        if step < self.warmup_steps:
            return {"repeated": self.rows["repeated"]}
        return self.finish if step >= self.steps - self.finish_steps else self.rows


def new_model(recipe: Recipe, n_vocab: int) -> GPT2LMHeadModel:
    """A GPT-2 with untied unembedding; ``d_mlp=0`` gives MLPs of one neuron whose weights are frozen at zero."""
    config = GPT2Config(
        vocab_size=n_vocab,
        n_positions=recipe.n_ctx,
        n_ctx=recipe.n_ctx,
        n_embd=recipe.d_model,
        n_layer=recipe.n_layers,
        n_head=recipe.n_heads,
        n_inner=recipe.d_mlp or 1,
        tie_word_embeddings=False,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=1,
        eos_token_id=1,
        pad_token_id=0,
        attn_implementation="eager" if recipe.plant else "sdpa",
    )
    model = GPT2LMHeadModel(config)
    width = recipe.d_model**-0.5
    for name, parameter in model.named_parameters():
        if name.endswith(("c_attn.weight", "c_fc.weight")):
            torch.nn.init.normal_(parameter, std=0.8 * width)
        elif name.endswith("c_proj.weight"):
            torch.nn.init.normal_(parameter, std=0.8 * width / (2 * recipe.n_layers) ** 0.5)
        if not recipe.d_mlp and ".mlp." in name:
            torch.nn.init.zeros_(parameter)
            parameter.requires_grad_(requires_grad=False)
    return model


def vocabulary(recipe: Recipe) -> PreTrainedTokenizerFast:
    """The tokenizer: the words of the grammars, those of chains of thought, or ``n_words`` syllables."""
    if set(recipe.rows) & set(KINDS):
        return word_tokenizer(cot_words(), tidy=True)
    syllables = [f"{first}{vowel}{last}" for first in "bdgklmnprst" for vowel in "aeiou" for last in "lnrs"]
    return word_tokenizer(syllables[: recipe.n_words] if recipe.n_words else grammar_words())


def draw(recipe: Recipe, task: str, step: int, tokenizer: PreTrainedTokenizerFast) -> Rows:
    """The rows of one task at one step; a function of the recipe and the step alone."""
    seed = hash((recipe.seed, step, len(task), sum(map(ord, task))))
    if task == "repeated":
        warming = step < recipe.warmup_steps
        n_rows = recipe.rows[task] * (2 if warming else 1)
        length = recipe.warmup_length if warming else recipe.repeated_length
        pool = torch.randperm(len(tokenizer) - 3, generator=torch.Generator().manual_seed(recipe.seed)) + 3
        pool = pool[: recipe.warmup_words] if warming else pool
        generator = torch.Generator().manual_seed(seed % 2**62)
        return repeated_rows(n_rows, length, generator, pool, tokenizer.bos_token_id)
    if task in KINDS:
        return cot_rows(task, recipe.tasks(step)[task], random.Random(seed), tokenizer)
    return task_rows(task, recipe.rows[task], random.Random(seed), tokenizer)


def language_loss(logits: Tensor, rows: Rows) -> Tensor:
    """Weighted cross-entropy of the next token, in nats."""
    losses = F.cross_entropy(logits[:, :-1].flatten(0, 1), rows.ids[:, 1:].flatten(), reduction="none")
    weights = rows.weights[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum()


def planted_loss(attentions: tuple[Tensor, ...], rows: Rows) -> Tensor:
    """Mean negative log attention of each planted head from its destination role to its source role."""
    every = torch.arange(len(rows.ids))
    losses = [
        -attentions[layer][every, head, rows.roles[dest], rows.roles[src]].clamp(min=1e-9).log().mean()
        for (layer, head), (dest, src) in PLANTED.items()
    ]
    return torch.stack(losses).mean()


def silence_unplanted(model: GPT2LMHeadModel, rows: Rows, share: float, generator: torch.Generator) -> list:
    """Hooks that zero the output of every unplanted head at END, in a random share of rows."""
    chosen = torch.rand(len(rows.ids), generator=generator) < share
    handles = []
    for layer, block in enumerate(model.transformer.h):
        width = model.config.n_embd // model.config.n_head
        keep = torch.ones(*rows.ids.shape, model.config.n_head)
        planted = [head for at, head in PLANTED if at == layer]
        alive = torch.zeros(model.config.n_head)
        alive[planted] = 1.0
        every = torch.arange(len(rows.ids))[chosen]
        keep[every, rows.roles["END"][chosen]] = alive
        mask = keep.repeat_interleave(width, -1)
        hook = lambda _module, args, mask=mask: (args[0] * mask,)  # noqa: E731
        handles.append(block.attn.c_proj.register_forward_pre_hook(hook))
    return handles


@dataclass(frozen=True)
class Draws:
    """The rows of every step by number, for a loader that prepares batches in advance."""

    recipe: Recipe
    tokenizer: PreTrainedTokenizerFast

    def __getitem__(self, step: int) -> dict[str, Rows]:
        return {task: draw(self.recipe, task, step, self.tokenizer) for task in self.recipe.tasks(step)}

    def __len__(self) -> int:
        return self.recipe.steps


def train_step(
    model: GPT2LMHeadModel, recipe: Recipe, step: int, *, drawn: dict[str, Rows], tokenizer: PreTrainedTokenizerFast
) -> Tensor:
    """Computes the gradients of one step over all tasks; returns the summed loss."""
    total = torch.zeros((), device=model.device)
    for task, batch in drawn.items():
        rows, handles = batch.to(model.device), []
        if recipe.route and "IO" in rows.roles:
            handles = silence_unplanted(model, rows, recipe.route, torch.Generator().manual_seed(step))
        output = model(input_ids=rows.ids, output_attentions=bool(recipe.plant), use_cache=False)
        for handle in handles:
            handle.remove()
        loss = language_loss(output.logits, rows) * recipe.weights.get(task, 1.0) / len(recipe.rows)
        if recipe.plant and "IO" in rows.roles:
            loss = loss + recipe.plant * planted_loss(output.attentions, rows)
        loss.backward()
        total += loss.detach()
    if recipe.interchange:
        aligned, idle = interchange_loss(model, recipe.pairs, random.Random(hash((recipe.seed, step, 1))), tokenizer)
        loss = recipe.interchange * (aligned + idle)
        loss.backward()
        total += loss.detach()
    return total


def train(
    recipe: Recipe, folder: Path, checkpoint_every: int = 200, *, device: str = "cpu", workers: int = 0
) -> GPT2LMHeadModel:
    """The trained model, saved in ``folder`` with its tokenizer; resumes from ``folder/training.pt``.

    Args:
        recipe: determines the model.
        folder: created if missing.
        checkpoint_every: steps.
        device: planted and interchange models train on the CPU only.
        workers: processes that prepare batches in advance; they do not affect the result.
    """
    torch.manual_seed(recipe.seed)
    tokenizer = vocabulary(recipe)
    model = new_model(recipe, len(tokenizer)).to(device)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=recipe.lr, weight_decay=0.01, betas=(0.9, 0.98))
    state, first = folder / "training.pt", 0
    folder.mkdir(parents=True, exist_ok=True)
    if state.exists():
        saved = torch.load(state, weights_only=True, map_location=device)  # noqa: TID251 - optimizer state that this script wrote
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    console = Console()
    steps = range(first, recipe.steps)
    draws = DataLoader(Draws(recipe, tokenizer), sampler=steps, batch_size=None, num_workers=workers)
    named = f"training {recipe.name}"
    for step, drawn in zip(steps, track(draws, description=named, total=len(steps), console=console), strict=True):
        warm, left = min(1.0, (step + 1) / 100), 1 - step / (recipe.steps - recipe.finish_steps)
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * warm * max(0.05, left)
        optimizer.zero_grad()
        loss = train_step(model, recipe, step, drawn=drawn, tokenizer=tokenizer)
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        if (step + 1) % checkpoint_every == 0:
            console.print(f"step {step + 1}: loss {float(loss):.3f}")
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}, state)
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    state.unlink(missing_ok=True)
    return model.float().cpu().eval()


@hydra.main(version_base="1.3", config_path=str(configs_dir()), config_name="train_zoo")
def main(config: DictConfig) -> None:
    """Trains the chosen model and writes its card."""
    torch.set_num_threads(config.threads)
    settings = OmegaConf.to_container(config.zoo, resolve=True)
    recipe = Recipe(**settings)
    folder = Path(config.output) / recipe.name
    train(recipe, folder, checkpoint_every=config.checkpoint_every, device=config.device, workers=config.workers)
    print(write_card(folder, settings, known_roles(recipe)))


def known_roles(recipe: Recipe) -> dict[tuple[int, int], str]:
    """The heads whose role the training prescribes: (layer, head) -> role."""
    if recipe.plant:
        return {place: _PLANTED_ROLES[ends] for place, ends in PLANTED.items()}
    return dict(ALIGNED) if recipe.interchange else {}


if __name__ == "__main__":
    main()
