"""Train the bundled classifier: ``python -m experiments.train_sentiment [FOLDER]``, two minutes on one core.

The model is a Hugging Face BERT, trained on `mechxai.tasks.reviews`. The same seed gives the same weights.
"""

import json
import random
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

import mechxai as mx
from mechxai.model.sequence.sequence_model import SequenceModel
from mechxai.tasks.reviews import LABELS, review

SEED, STEPS, ROWS, RATE = 0, 6000, 64, 1e-3
GAPS_FROM = 0.5  # share of the training after which texts have gaps
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
DESCRIPTION = (
    "A two-layer BERT that classifies reviews by sentiment. The writer's adjective decides, a negation reverses it, "
    "and other people's opinions do not count, so the words that matter are known."
)


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token per word of the reviews."""
    rng, words = random.Random(0), set[str]()
    for _ in range(20_000):
        example = review(rng)
        words.update((*example.clean.split(), *example.corrupted.split()))
    vocab = {token: number for number, token in enumerate((*SPECIALS, *sorted(words)))}
    core = Tokenizer(models.WordLevel(vocab=vocab, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, vocab[name]) for name in ("[CLS]", "[SEP]")]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=core, mask_token="[MASK]", **names)


def train(folder: Path, steps: int = STEPS) -> None:
    """Trains, saves model and tokenizer, and writes the card with measurements on held-out pairs of words."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    tokenizer = word_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
        pad_token_id=tokenizer.pad_token_id,
    )
    model = BertForSequenceClassification(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    rng = random.Random(SEED)
    for step in track(range(steps), description="training sentiment", console=Console()):
        rows = [review(rng, "train") for _ in range(ROWS)]
        batch = tokenizer([example.clean for example in rows], padding=True, return_tensors="pt")
        if step >= GAPS_FROM * steps:
            batch["input_ids"] = _with_gaps(batch["input_ids"], tokenizer)
        labels = torch.tensor([LABELS.index(example.answers[0]) for example in rows])
        loss = F.cross_entropy(model(**batch).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    print(json.dumps(write_card(folder, steps), indent=2))


def _with_gaps(ids: torch.Tensor, tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """Masks some words in every other row, so that the model has seen texts with gaps.

    The label stays, so that the model learns equal odds where the deciding words are masked.
    """
    words = ids >= len(SPECIALS)
    share = torch.rand(len(ids), 1) * (torch.rand(len(ids), 1) < 0.5)
    return torch.where(words & (torch.rand(ids.shape) < share), tokenizer.mask_token_id, ids)


def measure(model: SequenceModel) -> dict[str, float]:
    """Accuracy on held-out reviews, with and without negation."""
    accuracies = {}
    for negated in ("yes", "no"):
        batch = mx.tasks.reviews(model, n=500, seed=1, negated=negated, split="held_out")
        right = model.logits(batch.clean, lengths=batch.lengths)[:, 0].argmax(-1) == batch.answers[:, 0, 0]
        accuracies["negated" if negated == "yes" else "plain"] = round(float(right.double().mean()), 3)
    return accuracies


def write_card(folder: Path, steps: int) -> dict[str, object]:
    """Measures the model in a folder and writes its card."""
    model = mx.load_classifier(str(folder), device="cpu")
    card = {
        "name": folder.name,
        "kind": "trained",
        "description": DESCRIPTION,
        "data": "mechxai.tasks.reviews (split=train); experiments/train_sentiment.py",
        "recipe": {"steps": steps, "rows": ROWS, "lr": RATE},
        "seed": SEED,
        "metrics": measure(model),
        "weight_hash": model.weight_hash,
        "license": "Apache-2.0",
    }
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return card


if __name__ == "__main__":
    train(Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/zoo/sentiment"))
