"""The model shapes and prompts of the benchmarks; importable with torch and transformers alone."""

from dataclasses import dataclass, replace

import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

STD = 0.05


@dataclass(frozen=True)
class Shape:
    """Sizes of a model.

    Attributes:
        llama: RMSNorm, rotary positions and a gated SiLU MLP; otherwise LayerNorm, learned positions and a GELU MLP.
    """

    name: str
    d_mlp: int
    d_vocab: int
    llama: bool
    n_layers: int = 12
    d_model: int = 768
    n_heads: int = 12
    n_kv_heads: int = 12
    d_head: int = 64
    n_ctx: int = 1024

    def __str__(self) -> str:
        heads = f"{self.n_heads} heads" + (f" over {self.n_kv_heads}" if self.n_kv_heads != self.n_heads else "")
        kind = "RMSNorm, rotary, gated SiLU MLP" if self.llama else "LayerNorm, learned positions, GELU MLP"
        return (
            f"{self.name}: {self.n_layers} layers, d_model {self.d_model}, {heads}, {kind} of {self.d_mlp}, "
            f"vocabulary {self.d_vocab}, random weights, float32"
        )

    def quick(self) -> "Shape":
        """A small version for test runs."""
        return replace(self, name=f"{self.name}, reduced", n_layers=2, d_vocab=1000)


GPT2_SMALL = Shape("GPT-2-small shape", d_mlp=3072, d_vocab=50257, llama=False)
GROUPED_QUERY = Shape("grouped-query shape", d_mlp=2048, d_vocab=32000, llama=True, n_kv_heads=4)


@dataclass(frozen=True)
class Prompts:
    """Random prompt pairs that differ at one position, with two answer tokens each.

    Attributes:
        first: the position at which clean and corrupted differ.
    """

    clean: Tensor
    corrupted: Tensor
    answers: Tensor
    wrong: Tensor
    first: int

    @property
    def width(self) -> int:
        """Number of tokens of a prompt."""
        return self.clean.shape[1]

    def __len__(self) -> int:
        return len(self.clean)

    def difference(self, logits: Tensor) -> Tensor:
        """The mean logit difference, from logits ``[prompt, d_vocab]`` at the last position."""
        rows = torch.arange(len(logits))
        return (logits[rows, self.answers] - logits[rows, self.wrong]).mean()


def prompts(shape: Shape, width: int = 16, first: int = 10, n_prompts: int = 1) -> Prompts:
    """Reproducible prompts: equal sizes give equal prompts."""
    clean = torch.randint(0, shape.d_vocab, (n_prompts, width), generator=torch.Generator().manual_seed(1))
    corrupted = clean.clone()
    corrupted[:, first] = (clean[:, first] + 77) % shape.d_vocab
    answers = 11 + 10 * torch.arange(n_prompts)
    return Prompts(clean, corrupted, answers, answers + 2, first)


def hugging_face(shape: Shape, seed: int = 0) -> torch.nn.Module:
    """The shape as a Hugging Face model."""
    if shape.llama:
        config = LlamaConfig(
            vocab_size=shape.d_vocab,
            hidden_size=shape.d_model,
            intermediate_size=shape.d_mlp,
            num_hidden_layers=shape.n_layers,
            num_attention_heads=shape.n_heads,
            num_key_value_heads=shape.n_kv_heads,
            head_dim=shape.d_head,
            max_position_embeddings=shape.n_ctx,
            attn_implementation="eager",
        )
        return randomised(LlamaForCausalLM(config), seed)
    config = GPT2Config(
        vocab_size=shape.d_vocab,
        n_positions=shape.n_ctx,
        n_embd=shape.d_model,
        n_layer=shape.n_layers,
        n_head=shape.n_heads,
        n_inner=shape.d_mlp,
        attn_implementation="eager",
    )
    return randomised(GPT2LMHeadModel(config), seed)


def one_token() -> PreTrainedTokenizerFast:
    """A tokenizer of one token, for classes that require one; prompts are token ids and never pass through it."""
    core = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="a", pad_token="a")


def randomised(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """The model in evaluation mode, with its matrices drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=STD, generator=generator)
    return model.eval()
