"""Writes goldens/relevancy-*: tiny random LLaVAs with the relevancy maps that PyTorch's autograd gives them over the eager attention of
Hugging Face transformers, written out as matrices: for each token of an answer one forward and one backward pass, every R of Chefer, Gur &
Wolf (2021) in full. Run by hand; see README.md beside this file. The model over CLIP and Gemma 1 is that of goldens/llava.
"""

import torch
import transformers
from safetensors.torch import save_file
from transformers import LlavaConfig, LlavaForConditionalGeneration

from make_goldens import ROOT, contiguous, redraw, save_model, start

IMAGE_TOKEN = 63


def attention_modules(model, part):
    """Self-attention of each layer of the language model or the vision tower, in order: modules that return (output, probabilities)."""
    modules = [(name, m) for name, m in model.named_modules() if f"model.{part}." in name and name.split(".")[-1] in ("self_attn", "attention")]
    return [m for name, m in modules if not any(other.startswith(f"{name}.") for other, _ in modules)]


class Watched:
    """Attention probabilities of a pass, with their gradients."""

    def __init__(self, model, part):
        self.found = []
        self.hooks = [module.register_forward_hook(self.keep) for module in attention_modules(model, part)]

    def keep(self, _module, _inputs, output):
        output[1].retain_grad()
        self.found.append(output[1])

    def layers(self):
        """Attention and gradient [heads, n, n] of each layer that the logit hangs on."""
        for hook in self.hooks:
            hook.remove()
        return [(a[0].detach(), a.grad[0]) for a in self.found if a.grad is not None]


def relevancy(layers, size):
    """Equations (5) and (6)."""
    r = torch.eye(size)
    for attention, gradient in layers:
        r = r + (attention * gradient).clamp(min=0).mean(0) @ r
    return r


def normalized(r):
    """Equations (8) and (9)."""
    hat = r - torch.eye(len(r))
    sums = hat.sum(-1, keepdim=True)
    return hat / torch.where(sums == 0, 1, sums) + torch.eye(len(r))


def rollout(layers, size):
    product = torch.eye(size)
    for attention, _ in layers:
        rows = attention.mean(0) + torch.eye(size)
        product = (rows / rows.sum(-1, keepdim=True)) @ product
    return product


def explained(model, ids, pixels, target):
    """Everything about the logit of `target` behind `ids`."""
    config = model.config
    text, vision = Watched(model, "language_model"), Watched(model, "vision_tower")
    embeds = []
    hook = model.model.language_model.register_forward_pre_hook(lambda _m, _a, kwargs: embeds.append(kwargs["inputs_embeds"]), with_kwargs=True)
    output = model(input_ids=torch.tensor([ids]), pixel_values=pixels, attention_mask=torch.ones(1, len(ids), dtype=torch.long), output_hidden_states=True)
    hook.remove()
    embeds[0].retain_grad()
    logits = output.logits[0, -1]
    cap = getattr(config.text_config, "final_logit_softcapping", None)
    if cap:  # LlavaForConditionalGeneration leaves it out
        logits = cap * torch.tanh(logits / cap)
    model.zero_grad(set_to_none=True)
    logits[target].backward()
    text, vision = text.layers(), vision.layers()
    size = len(ids)
    image = [i for i, token in enumerate(ids) if token == config.image_token_index]
    row = normalized(relevancy(text, size))[-1]
    rows = vision[0][0].shape[-1]
    seed = torch.zeros(rows)
    seed[rows - len(image) :] = row[image]
    states = torch.stack([state[0, image] for state in output.hidden_states])
    normed = torch.cat([model.model.language_model.norm(states[:-1]), states[-1:]])
    lens = normed @ model.model.language_model.embed_tokens.weight.T
    lens = cap * torch.tanh(lens / cap) if cap else lens
    return {
        "logits": logits[target],
        "relevancy": row,
        "rollout": rollout(text, size)[-1],
        "attention": torch.stack([attention[:, -1] for attention, _ in text]),
        "encoder": seed @ relevancy(vision, rows),
        "image_gradients": embeds[0].grad[0, image],
        "lens_likeliest": lens.argmax(-1),
        "lens_probability": lens.softmax(-1).amax(-1),
    }


def maps(name, model, image_tokens, size, seed):
    """The maps of a model in a folder that is there."""
    generator = torch.Generator().manual_seed(seed)
    prompt = [2, 4, 11, *[IMAGE_TOKEN] * image_tokens, 10, 25, 40, 31, 7]
    answer = [33, 18, 52]
    pixels = torch.randn((1, 3, size, size), generator=generator)
    found = [explained(model, prompt + answer[:t], pixels, target) for t, target in enumerate(answer)]
    longest = len(prompt) + len(answer) - 1
    outputs = {}
    for key in found[0]:
        values = [each[key] for each in found]
        if key in ("relevancy", "rollout", "attention"):  # what stands behind a token has no part in it
            values = [torch.nn.functional.pad(value, (0, longest - value.shape[-1])) for value in values]
        outputs[key] = torch.stack(values)
    outputs["lens_likeliest"], outputs["lens_probability"] = outputs["lens_likeliest"][0], outputs["lens_probability"][0]
    folder = ROOT / name
    save_file(contiguous({"prompt": torch.tensor(prompt), "answer": torch.tensor(answer), "pixel_values": pixels}), folder / "inputs-maps.safetensors")
    save_file(contiguous(outputs), folder / "outputs-maps.safetensors")
    print(name, {key: tuple(value.shape) for key, value in outputs.items()}, f"on the picture: {[round(float(r), 3) for r in outputs['relevancy'][:, 3 : 3 + image_tokens].sum(-1)]}")


TEXT = dict(
    vocab_size=64, hidden_size=24, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=64,
    hidden_activation="gelu_pytorch_tanh", query_pre_attn_scalar=12, sliding_window=6,
)


def fresh(name, seed, vision_config, text_config, **config):
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=dict(hidden_size=16, num_attention_heads=2, patch_size=6, **vision_config),
            text_config=dict(**TEXT, **text_config),
            image_token_index=IMAGE_TOKEN,
            attn_implementation="eager",
            **config,
        )
    )
    save_model(redraw(model, seed), start(name))
    return model


def main():
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    clip = LlavaForConditionalGeneration.from_pretrained(ROOT / "llava", attn_implementation="eager").eval()
    maps("llava", clip, 16, 24, 21)
    siglip = dict(model_type="siglip_vision_model", intermediate_size=32, num_hidden_layers=3, image_size=26, vision_use_head=False)
    gemma2 = dict(model_type="gemma2", num_hidden_layers=4, attn_logit_softcapping=2.0, final_logit_softcapping=3.0)
    maps("llava-siglip-gemma2", fresh("llava-siglip-gemma2", 22, siglip, gemma2, vision_feature_select_strategy="full"), 16, 26, 23)
    dinov2 = dict(model_type="dinov2", mlp_ratio=2, num_hidden_layers=2, image_size=18)
    layers = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
    gemma3 = dict(model_type="gemma3_text", num_hidden_layers=4, layer_types=layers)
    maps("llava-dinov2-gemma3", fresh("llava-dinov2-gemma3", 24, dinov2, gemma3, vision_feature_layer=-1), 9, 18, 25)


if __name__ == "__main__":
    main()
