# Writes defaults.json: what transformers takes for each field that a file leaves out. Needed only to write it again:
#   .venv/bin/pip install pillow && .venv/bin/python tests/reference/make_defaults.py
# The committed file came from transformers 5.18.0.
import json
import os

from transformers import (
    BitImageProcessorPil,
    BlipImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPVisionConfig,
    DeiTImageProcessorPil,
    Dinov2Config,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GenerationConfig,
    LlavaConfig,
    LlavaImageProcessorPil,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    ViTImageProcessorPil,
)

configs = [
    GemmaConfig,
    Gemma2Config,
    Gemma3TextConfig,
    CLIPVisionConfig,
    CLIPTextConfig,
    CLIPConfig,
    SiglipVisionConfig,
    Dinov2Config,
]
processors = [
    CLIPImageProcessorPil,
    LlavaImageProcessorPil,
    SiglipImageProcessorPil,
    BitImageProcessorPil,
    ViTImageProcessorPil,
    DeiTImageProcessorPil,
    BlipImageProcessorPil,
]


def fields(values):
    """What says something about the model itself, not about the library."""
    parts = ("vision_config", "text_config")
    library = (
        "architectures",
        "chunk_size_feed_forward",
        "dtype",
        "id2label",
        "is_encoder_decoder",
        "label2id",
        "out_features",
        "out_indices",
        "problem_type",
        "stage_names",
        "transformers_version",
        "use_cache",
    )
    dropped = (*library, *parts)
    kept = {key: value for key, value in values.items() if key not in dropped and not key.startswith(("_", "output_", "return_"))}
    return kept | {key: fields(values[key]) for key in parts if key in values}


def processor(kind):
    """The class's fields, and what it takes a single number for the size as."""
    return {"fields": kind().to_dict(), "size_5": dict(kind(size=5).size)}


llava = LlavaConfig(text_config={"model_type": "gemma"})
generation = GenerationConfig._get_default_generation_params()
defaults = {
    "configs": {kind.model_type: fields(kind().to_dict()) for kind in configs} | {"llava": fields(llava.to_dict())},
    "image_processors": {kind.__name__.removesuffix("Pil"): processor(kind) for kind in processors},
    "generation": {"all": {key: generation[key] for key in ("do_sample", "temperature", "top_k", "top_p", "repetition_penalty")}},
}
lines = ",\n".join(
    json.dumps(group) + ": {\n" + ",\n".join(f"  {json.dumps(name)}: {json.dumps(value, sort_keys=True)}" for name, value in members.items()) + "\n}"
    for group, members in defaults.items()
)
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "defaults.json"), "w") as file:
    file.write("{\n" + lines + "\n}\n")
