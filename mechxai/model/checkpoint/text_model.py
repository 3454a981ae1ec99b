"""The causal language model inside a multimodal checkpoint, compared with the whole model on text."""

from typing import Any

import torch

from mechxai.core.errors import ModelSupportError
from mechxai.model.checkpoint.errors import label

# text models whose only difference to a causal family is positions of three kinds, which are equal for text
_TEXT_FAMILIES = {
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
}
_TOLERANCE = 1e-3  # of the largest logit


def is_multimodal(config: Any) -> bool:
    """Whether a configuration has a text model inside a larger one."""
    return config.get_text_config(decoder=True) is not config


def multimodal_class(config: Any, name: str) -> Any:
    """The auto class that loads the whole model.

    Raises:
        ModelSupportError: transformers loads it with neither text nor images.
    """
    from transformers import AutoModelForImageTextToText  # noqa: PLC0415 - heavy

    if type(config) not in AutoModelForImageTextToText._model_mapping.keys():  # noqa: SIM118 - no public list
        raise ModelSupportError(
            f"{label(name)} cannot be loaded: {config.model_type} is not a language model with images",
            allowed="causal and masked language models, and multimodal models with a causal text model inside",
        )
    return AutoModelForImageTextToText


def text_model(whole: Any, name: str) -> Any:
    """The text model of a multimodal model as a causal language model of its own; the weights are shared.

    Raises:
        ModelSupportError: transformers has no causal model for it, or its logits differ from the whole model's.
    """
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - heavy

    config = _causal_config(whole.config.get_text_config(decoder=True), name)
    decoder = whole.get_decoder()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    if type(decoder) is type(model):  # Llama 4 holds its text model with a head of its own
        model = decoder
    elif type(model.base_model) is not type(decoder):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
        model.base_model.load_state_dict(decoder.state_dict(), strict=True)
    else:
        setattr(model, model.base_model_prefix, decoder)
    if model is not decoder:
        model.set_output_embeddings(whole.get_output_embeddings())
    model.generation_config = whole.generation_config
    if any(parameter.is_meta for parameter in model.parameters()):
        raise _refusal(name, "its text model is not a causal model and a head")
    model.eval()
    _compare(model, whole, name)
    return model


def _causal_config(text: Any, name: str) -> Any:
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM  # noqa: PLC0415 - heavy

    family = _TEXT_FAMILIES.get(text.model_type)
    if family is not None:
        settings = {key: value for key, value in text.to_dict().items() if key not in ("model_type", "architectures")}
        rope = dict(settings.get("rope_parameters") or {})
        settings["rope_parameters"] = {key: value for key, value in rope.items() if not key.startswith("mrope")}
        text = CONFIG_MAPPING[family](**settings)
    if type(text) not in AutoModelForCausalLM._model_mapping.keys():  # noqa: SIM118 - no public list
        raise _refusal(name, f"transformers has no causal language model for its text model ({text.model_type})")
    return text


def _compare(model: Any, whole: Any, name: str) -> None:
    """Compares the logits of both on the same tokens; the whole model's with each of its attention functions.

    A prefix model (PaliGemma) is causal with one attention function and bidirectional with another.
    """
    ids = torch.arange(8)[None] * 7 % model.config.vocab_size
    kinds = ("sdpa", "eager") if whole._supports_sdpa else ("eager",)
    with torch.no_grad():
        for kind in kinds:
            whole.set_attn_implementation(kind)
            expected = whole(input_ids=ids, use_cache=False).logits
            whole.set_attn_implementation("eager")
            found = model(input_ids=ids, use_cache=False).logits
            error = float((expected - found).abs().max() / expected.abs().max().clamp(min=1))
            if not error <= _TOLERANCE:
                raise ModelSupportError(
                    f"{label(name)} cannot be loaded: it is multimodal, and its text model alone gives other logits "
                    f"than the whole model with attention {kind!r} (by {error:.2g} of the largest)",
                    fix="Use mx.black_box to explain the whole model without looking inside",
                )


def _refusal(name: str, reason: str) -> ModelSupportError:
    return ModelSupportError(
        f"{label(name)} cannot be loaded: it is multimodal, and {reason}",
        fix="Save its text model as a causal language model with transformers, and load that folder",
    )
