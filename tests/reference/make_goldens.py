"""Writes the goldens: tiny random models of each family with the outputs and gradients that PyTorch and Hugging Face transformers give them.

Run by hand when a family is added (see README.md beside this file); the tests and the product only read the folders that it wrote.
Weights are redrawn wide and without the usual zeros and ones, so that a forgotten bias, norm weight or scale changes the outputs visibly.
"""

import copy
import json
import math
import shutil
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, GemmaConfig, GemmaForCausalLM, LlavaConfig, LlavaForConditionalGeneration
from transformers import Dinov2Config, Dinov2Model, SiglipVisionConfig, SiglipVisionModel
from transformers import Gemma2Config, Gemma2ForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig

ROOT = Path(__file__).parent / "goldens"
IGNORE = -100


def redraw(model, seed):
    """Every parameter from a seeded normal, in order of name. Weights of LayerNorm and LayerScale sit around 1; Gemma's RMSNorm stores w of
    (1 + w), around 0."""
    generator = torch.Generator().manual_seed(seed)
    layer_norm_weights = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, torch.nn.LayerNorm)}
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if name == "logit_scale":
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            if name in layer_norm_weights or name.endswith(".lambda1"):
                parameter.copy_(1 + 0.2 * noise)
            else:
                parameter.copy_((0.1 if name.endswith("bias") else 0.2) * noise)
    return model.eval()


def contiguous(tensors):
    return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}


def saved_gradients(model):
    """Gradients under the names that save_pretrained gives their parameters: a copy of the model holding gradients as weights is saved and
    read back. Parameters that the loss does not reach are left out."""
    unreached = {id(p) for p in model.parameters() if p.grad is None}
    values = {id(p): p.detach().clone() for p in model.parameters()}
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.grad if id(p) not in unreached else torch.full_like(p, math.nan))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        gradients = load_file(f"{folder}/model.safetensors")
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(values[id(p)])
    return {name: g for name, g in gradients.items() if not g.isnan().any()}


def start(name):
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def save_model(model, folder):
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)


def backward(model, loss):
    model.zero_grad(set_to_none=True)
    loss.backward()
    return saved_gradients(model)


def hidden_states(prefix, states):
    return {f"{prefix}.{i}": state for i, state in enumerate(states)}


def reloads(model_class, folder, inputs, loss):
    """The folder alone, read by transformers, gives the loss that was stored."""
    again = model_class.from_pretrained(folder, attn_implementation="eager")(**inputs).loss
    assert torch.equal(again, loss), f"{folder.name}: {again} is not {loss}"


def padded(rows, length, pad):
    ids = torch.full((len(rows), length), pad)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids, mask


def language_model(name, seed, model_class, config, lengths, changes, file_config):
    """`lengths`: tokens of each row behind <bos>. `changes`: values of config fields that must each show in the logits. `file_config`: fields
    of config.json that transformers rewrites and that are put back."""
    folder = start(name)
    model = redraw(model_class(config), seed)
    generator = torch.Generator().manual_seed(seed + 1)
    rows = [[2] + torch.randint(3, 101, (n,), generator=generator).tolist() for n in lengths]
    input_ids, attention_mask = padded(rows, 1 + max(lengths), config.pad_token_id)
    labels = input_ids.masked_fill(attention_mask == 0, IGNORE)
    labels[:, 0] = IGNORE
    labels[0, 3:5] = IGNORE
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}

    output = model(**inputs, output_hidden_states=True)
    for field, value in changes:
        changed = copy.deepcopy(config)
        setattr(changed, field, value)
        other = model_class(changed).eval()
        other.load_state_dict(model.state_dict())
        difference = (other(**inputs).logits - output.logits).abs().max()
        assert difference > 0.02, f"{name}: {field} = {value} shows too little in the logits ({difference})"
    save_model(model, folder)
    if file_config:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **file_config}, indent=2, sort_keys=True) + "\n")
    reloads(model_class, folder, inputs, output.loss)
    save_file(contiguous(inputs), folder / "inputs.safetensors")
    outputs = {"logits": output.logits, "loss": output.loss, **hidden_states("hidden_states", output.hidden_states)}
    save_file(contiguous(outputs), folder / "outputs.safetensors")
    save_file(backward(model, output.loss), folder / "gradients.safetensors")


def gemma(name, seed, hidden_act, **config):
    config = GemmaConfig(
        vocab_size=101,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        hidden_act=hidden_act,
        attn_implementation="eager",
        **config,
    )
    # transformers rewrites the legacy value when it reads a config; released folders still have it, and so shall this one
    file_config = {"hidden_act": "gelu"} if hidden_act == "gelu" else {}
    language_model(name, seed, GemmaForCausalLM, config, (8, 5), [], file_config)


# Sizes of the families with windows: rows are longer than the window, query_pre_attn_scalar is not head_dim.
WINDOWED = dict(
    vocab_size=101,
    hidden_size=24,
    intermediate_size=32,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    sliding_window=4,
    query_pre_attn_scalar=12,
    attn_implementation="eager",
)
WINDOWED_CHANGES = [("sliding_window", 3), ("sliding_window", 5), ("query_pre_attn_scalar", 8)]


def gemma2(seed):
    config = Gemma2Config(num_hidden_layers=4, attn_logit_softcapping=2.0, final_logit_softcapping=3.0, **WINDOWED)
    local, everywhere = "sliding_attention", "full_attention"
    assert config.layer_types == [local, everywhere] * 2
    changes = [("attn_logit_softcapping", None), ("final_logit_softcapping", None), ("layer_types", [everywhere, local] * 2)]
    language_model("gemma2", seed, Gemma2ForCausalLM, config, (10, 6), WINDOWED_CHANGES + changes, {})


def gemma3(seed):
    # fields as older folders have them; config.json gets the form of transformers 5
    scaling = {"rope_type": "linear", "factor": 2.5}
    config = Gemma3TextConfig(num_hidden_layers=7, rope_theta=10.0, rope_local_base_freq=200.0, rope_scaling=scaling, **WINDOWED)
    ropes = config.rope_parameters
    local, everywhere = "sliding_attention", "full_attention"
    assert ropes == {local: {"rope_type": "default", "rope_theta": 200.0}, everywhere: {**scaling, "rope_theta": 10.0}}
    assert config.layer_types == [local] * 5 + [everywhere, local]
    changes = [
        ("rope_parameters", {**ropes, everywhere: {**ropes[everywhere], "factor": 1.0}}),
        ("rope_parameters", {**ropes, everywhere: {**ropes[everywhere], "rope_theta": 200.0}}),
        ("rope_parameters", {**ropes, local: {**ropes[local], "rope_theta": 10.0}}),
        ("layer_types", [local] * 4 + [everywhere, local, local]),
    ]
    language_model("gemma3", seed, Gemma3ForCausalLM, config, (10, 6), WINDOWED_CHANGES + changes, {})


def clip(seed):
    folder = start("clip")
    eos, pad = 98, 0
    config = CLIPConfig(
        vision_config=dict(
            hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=24, patch_size=6, projection_dim=16
        ),
        text_config=dict(
            vocab_size=101,
            hidden_size=24,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=7,
            projection_dim=16,
            bos_token_id=97,
            eos_token_id=eos,
            pad_token_id=pad,
        ),
        projection_dim=16,
        attn_implementation="eager",
    )
    model = redraw(CLIPModel(config), seed)
    generator = torch.Generator().manual_seed(seed + 1)
    # A token above eos in row 0 and eos as padding in row 2: pooling at the largest id, or at the last eos, would give other outputs.
    rows = [[97, 5, 100, 17, 33, 60, eos], [97, 8, 41, eos], [97, 12, 77, 23, eos]]
    input_ids, attention_mask = padded(rows, 7, pad)
    input_ids[2, 5:] = eos
    inputs = {
        "pixel_values": torch.randn((3, 3, 24, 24), generator=generator),
        "input_ids": input_ids,
        "attention_mask": attention_mask,
    }
    output = model(**inputs, return_loss=True)
    with torch.no_grad():
        vision = model.vision_model(inputs["pixel_values"], output_hidden_states=True)
        text = model.text_model(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
    save_model(model, folder)
    reloads(CLIPModel, folder, {**inputs, "return_loss": True}, output.loss)
    save_file(contiguous(inputs), folder / "inputs.safetensors")
    outputs = {
        **hidden_states("vision_hidden_states", vision.hidden_states),
        **hidden_states("text_hidden_states", text.hidden_states),
        "vision_pooled": vision.pooler_output,
        "text_pooled": text.pooler_output,
        "image_embeds": output.image_embeds,
        "text_embeds": output.text_embeds,
        "logits_per_image": output.logits_per_image,
        "loss": output.loss,
    }
    save_file(contiguous(outputs), folder / "outputs.safetensors")
    save_file(backward(model, output.loss), folder / "gradients.safetensors")


def encoder(name, seed, model, sizes):
    """A bare vision encoder on pictures of `sizes`, by the suffix of the files. The loss weighs the normed rows and the pooled feature with
    numbers that are inputs too, so that it reaches every parameter."""
    folder = start(name)
    redraw(model, seed)
    save_model(model, folder)
    generator = torch.Generator().manual_seed(seed + 1)
    for suffix, size in sizes.items():
        pixel_values = torch.randn((2, 3, size, size), generator=generator)
        output = model(pixel_values, output_hidden_states=True)
        again = type(model).from_pretrained(folder, attn_implementation="eager")(pixel_values)
        assert torch.equal(again.pooler_output, output.pooler_output), name
        outputs = {"last_hidden_state": output.last_hidden_state, "pooler_output": output.pooler_output}
        weights = {f"{key}_weights": torch.randn(value.shape, generator=generator) for key, value in outputs.items()}
        loss = sum((value * weights[f"{key}_weights"]).mean() for key, value in outputs.items())
        save_file(contiguous({"pixel_values": pixel_values, **weights}), folder / f"inputs{suffix}.safetensors")
        outputs = {**outputs, "loss": loss, **hidden_states("hidden_states", output.hidden_states)}
        save_file(contiguous(outputs), folder / f"outputs{suffix}.safetensors")
        save_file(backward(model, loss), folder / f"gradients{suffix}.safetensors")


def siglip(seed):
    # the last two pixels of each side fill no patch
    config = SiglipVisionConfig(
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=3,
        image_size=26,
        patch_size=6,
        attn_implementation="eager",
    )
    encoder("siglip", seed, SiglipVisionModel(config), {"": 26})


def dinov2(name, seed, sizes, **config):
    config = Dinov2Config(
        hidden_size=20,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=4,
        image_size=12,
        patch_size=4,
        attn_implementation="eager",
        **config,
    )
    encoder(name, seed, Dinov2Model(config), sizes)


CLIP_24 = dict(model_type="clip_vision_model", image_size=24, projection_dim=16)
SIGLIP_26 = dict(model_type="siglip_vision_model", image_size=26)


def llava(name, seed, vision_config, image_tokens, scales=(("", 1.0),), **config):
    folder = start(name)
    image_token = 63
    config = LlavaConfig(
        vision_config=dict(hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, patch_size=6, **vision_config),
        text_config=dict(
            model_type="gemma",
            vocab_size=64,
            hidden_size=24,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            max_position_embeddings=64,
            hidden_act="gelu_pytorch_tanh",
        ),
        image_token_index=image_token,
        image_seq_length=image_tokens,
        attn_implementation="eager",
        **config,
    )
    model = redraw(LlavaForConditionalGeneration(config), seed)
    generator = torch.Generator().manual_seed(seed + 1)
    image = [image_token] * image_tokens
    rows = [[2, 4, 11, *image, 10, 25, 40, 31, 7, 52, 5], [2, *image, 33, 18, 4, 47, 5]]
    answers = [4, 2]
    input_ids, attention_mask = padded(rows, len(rows[0]), config.text_config.pad_token_id)
    labels = torch.full_like(input_ids, IGNORE)
    for i, (row, answer) in enumerate(zip(rows, answers)):
        labels[i, len(row) - answer : len(row)] = torch.tensor(row[-answer:])
    inputs = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "pixel_values": torch.randn((2, 3, vision_config["image_size"], vision_config["image_size"]), generator=generator),
        "labels": labels,
    }
    save_model(model, folder)
    save_file(contiguous(inputs), folder / "inputs.safetensors")

    losses = []
    for suffix, factor in scales:
        hook = model.model.multi_modal_projector.register_forward_hook(lambda _module, _inputs, rows, f=factor: rows * f)
        output = model(**inputs, output_hidden_states=True)
        hook.remove()
        losses.append(output.loss)
        states = model.model.vision_tower(inputs["pixel_values"], output_hidden_states=True).hidden_states
        layers = config.vision_feature_layer
        vision = torch.cat([states[layer] for layer in ([layers] if isinstance(layers, int) else layers)], dim=-1)
        vision = vision[:, 1:] if config.vision_feature_select_strategy == "default" else vision
        projected = model.model.multi_modal_projector(vision)
        assert torch.allclose(output.image_hidden_states, (projected * factor).flatten(0, 1))
        outputs = {
            "vision_features": vision,
            "image_features": projected,
            "logits": output.logits,
            "loss": output.loss,
            **hidden_states("hidden_states", output.hidden_states),
        }
        save_file(contiguous(outputs), folder / f"outputs{suffix}.safetensors")
        save_file(backward(model, output.loss), folder / f"gradients{suffix}.safetensors")
    reloads(LlavaForConditionalGeneration, folder, inputs, losses[0])
    assert abs(losses[0] - losses[-1]) > 0.05 or len(scales) == 1, "the scale of the image rows must show in the loss"


def adamw(seed):
    folder = start("adamw")
    generator = torch.Generator().manual_seed(seed)
    shapes = {"linear.weight": (4, 3), "linear.bias": (4,), "stack": (2, 3, 2)}
    config = {
        "betas": [0.9, 0.95],
        "eps": 1e-6,
        "learningRates": [0.02, 0.05, 0.05, 0.03, 0.01],
        "maxGradNorm": 1.0,
        "weightDecay": {"linear.weight": 0.1, "linear.bias": 0.0, "stack": 0.1},
    }
    parameters = {name: torch.nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}
    groups = [{"params": [p], "weight_decay": config["weightDecay"][name]} for name, p in parameters.items()]
    optimizer = torch.optim.AdamW(groups, betas=tuple(config["betas"]), eps=config["eps"])
    inputs = {f"params.{name}": p for name, p in contiguous(parameters).items()}
    outputs = {}
    norms = []
    for step, rate in enumerate(config["learningRates"]):
        for name, p in parameters.items():
            # Steps alternate between gradients above and below the clipping norm.
            p.grad = (1.0 if step % 2 == 0 else 0.1) * torch.randn(p.shape, generator=generator)
            inputs[f"gradients.{step}.{name}"] = p.grad.clone()
        for group in optimizer.param_groups:
            group["lr"] = rate
        norm = torch.nn.utils.clip_grad_norm_(list(parameters.values()), config["maxGradNorm"])
        norms.append(norm.item())
        optimizer.step()
        outputs[f"grad_norm.{step}"] = norm
        for name, p in parameters.items():
            outputs[f"params.{step}.{name}"] = p
            outputs[f"exp_avg.{step}.{name}"] = optimizer.state[p]["exp_avg"]
            outputs[f"exp_avg_sq.{step}.{name}"] = optimizer.state[p]["exp_avg_sq"]
        outputs = contiguous(outputs)
    assert min(norms) < config["maxGradNorm"] < max(norms)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(contiguous(inputs), folder / "inputs.safetensors")
    save_file(outputs, folder / "outputs.safetensors")


def cross_entropy(seed):
    folder = start("cross_entropy")
    generator = torch.Generator().manual_seed(seed)
    logits = (3 * torch.randn((7, 11), generator=generator)).requires_grad_()
    labels = torch.tensor([3, IGNORE, 0, 10, IGNORE, IGNORE, 7])
    losses = torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORE)
    loss.backward()
    save_file(contiguous({"logits": logits, "labels": labels}), folder / "inputs.safetensors")
    save_file(contiguous({"loss": loss, "losses": losses}), folder / "outputs.safetensors")
    save_file(contiguous({"logits": logits.grad}), folder / "gradients.safetensors")


def main():
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    gemma("gemma", 1, "gelu", num_key_value_heads=2, head_dim=8, intermediate_size=64)
    gemma("gemma-mqa", 2, "gelu_pytorch_tanh", num_key_value_heads=1, head_dim=16, intermediate_size=48)
    clip(3)
    llava("llava", 4, CLIP_24, 16, (("", 1.0), ("-scaled", math.sqrt(24))))
    adamw(5)
    cross_entropy(6)
    gemma2(7)
    gemma3(8)
    siglip(9)
    dinov2("dinov2", 10, {"": 12, "-larger": 22, "-smaller": 8})
    dinov2("dinov2-swiglu", 11, {"": 12}, use_swiglu_ffn=True, qkv_bias=False, use_mask_token=False)
    llava("llava-siglip", 12, SIGLIP_26, 16, vision_feature_layer=[-2, 1], vision_feature_select_strategy="full")
    for path in sorted(ROOT.rglob("*.safetensors")):
        tensors = load_file(path)
        assert all(t.isfinite().all() for t in tensors.values()), path
        print(f"\n{path.relative_to(ROOT)} ({path.stat().st_size / 1024:.0f} KB, {len(tensors)} tensors)")
        if "--keys" in sys.argv:
            for name, tensor in tensors.items():
                print(f"  {name} {list(tensor.shape)} {tensor.float().abs().mean():.3g}")


if __name__ == "__main__":
    main()
