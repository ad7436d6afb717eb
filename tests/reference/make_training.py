"""Twenty steps of each stage of the recipe in PyTorch: stage 1 (the connector), stage 2 whole, and stage 2 with adapters of peft. All begin with the same
tiny random LLaVA and take all samples at each step, so that their order does not matter. Written down are each step's loss and the weights at the end.

    .venv/bin/pip install 'peft==0.21.*' pillow
    .venv/bin/python tests/reference/make_training.py
"""

import json
import math
import shutil
from pathlib import Path

import torch
from make_conversations import encode, image_id, root
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration, get_cosine_schedule_with_warmup

IGNORED, STEPS, SIDE, ROWS = -100, 20, 32, 16
out = root / "tests/reference/goldens/training"
torch.set_num_threads(1)

CONFIG = LlavaConfig(
    vision_config=dict(
        model_type="clip_vision_model", hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        image_size=SIDE, patch_size=8, projection_dim=16,
    ),
    text_config=dict(
        model_type="gemma", vocab_size=4160, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=128, pad_token_id=0, bos_token_id=2, eos_token_id=1,
    ),
    image_token_index=image_id,
    projector_hidden_act="gelu",
)  # fmt: skip
PROCESSOR = dict(
    do_resize=True, size={"shortest_edge": SIDE}, do_center_crop=True, crop_size={"height": SIDE, "width": SIDE}, do_rescale=True,
    do_normalize=True, image_mean=[0.5, 0.4, 0.3], image_std=[0.3, 0.25, 0.2], do_convert_rgb=True, resample=3,
)  # fmt: skip

ASKED = ["What is at the left?", "How many are there?", "Is there a cat?", "What colour is it?"]
ANSWERS = ["a red apple", "two", "no", "blue and green", "a dog at the left of a tree", "yes", "seven small birds", "it is white"]


def redraw(model):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            centre = 1.0 if "norm" in name and "language_model" not in name and name.endswith("weight") else 0.0
            parameter.copy_(centre + (0.1 if name.endswith("bias") else 0.15) * torch.randn(parameter.shape, generator=generator))
    return model


def write_inputs():
    """Pictures of four coloured squares, and a question or two about each."""
    generator = torch.Generator().manual_seed(5)
    samples = []
    for number, answer in enumerate(ANSWERS):
        colours = torch.randint(0, 256, (2, 2, 3), generator=generator, dtype=torch.uint8)
        pixels = colours.repeat_interleave(SIDE // 2, 0).repeat_interleave(SIDE // 2, 1)
        Image.fromarray(pixels.numpy()).save(out / f"{number}.png")
        turns = [("human", f"<image>\n{ASKED[number % 4]}"), ("gpt", answer)]
        if number % 3 == 0:
            turns += [("human", ASKED[(number + 1) % 4]), ("gpt", ANSWERS[(number + 3) % 8])]
        samples.append(dict(id=str(number), image=f"{number}.png", conversations=[{"from": who, "value": text} for who, text in turns]))
    (out / "data.json").write_text(json.dumps(samples, indent=1) + "\n")
    return samples


def batch_of(samples):
    processor = CLIPImageProcessor(**PROCESSOR)
    rows = []
    for sample in samples:
        ids, labels = encode("<bos>", False), [IGNORED]
        for turn in sample["conversations"]:
            is_answer = turn["from"] == "gpt"
            opening = encode(f"<start_of_turn>{'model' if is_answer else 'user'}\n", False)
            content = []
            for token in encode(f"{turn['value']}<end_of_turn>\n", True):
                if token != image_id:
                    content.append(token)
                elif content[-1:] != [image_id]:
                    content += [image_id] * ROWS
            ids += opening + content
            labels += [IGNORED] * len(opening) + [token if is_answer else IGNORED for token in content]
        rows.append((ids, labels))
    longest = max(len(ids) for ids, _ in rows)
    pad = lambda values, filler: values + [filler] * (longest - len(values))
    pictures = [Image.open(out / sample["image"]) for sample in samples]
    return dict(
        input_ids=torch.tensor([pad(ids, 0) for ids, _ in rows]),
        attention_mask=torch.tensor([pad([1] * len(ids), 0) for ids, _ in rows]),
        labels=torch.tensor([pad(labels, IGNORED) for _, labels in rows]),
        pixel_values=processor(pictures, return_tensors="pt")["pixel_values"],
    )


def train(model, groups, batch, decay):
    """AdamW as the Trainer of transformers sets it: no decay of biases and norms, the norm of the gradient clipped to 1, cosine after 3 % warmup."""
    parameters = [parameter for _, parameter, _ in groups]
    settings = [dict(params=[p], lr=rate, weight_decay=decay if p.dim() > 1 else 0.0) for _, p, rate in groups]
    optimizer = torch.optim.AdamW(settings, betas=(0.9, 0.999), eps=1e-8)
    schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(0.03 * STEPS), STEPS)
    losses = []
    model.train()
    for _ in range(STEPS):
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def fresh():
    model = LlavaForConditionalGeneration.from_pretrained(out, attn_implementation="eager", dtype=torch.float32)
    model.requires_grad_(False)
    return model


def trained(model, rates):
    """(name, parameter, rate) of what the modules in `rates` hold, made trainable."""
    groups = []
    for name, parameter in model.named_parameters():
        rate = next((rate for part, rate in rates.items() if part in name), None)
        if rate is not None:
            parameter.requires_grad_(True)
            groups.append((name, parameter, rate))
    return groups


def saved(model, keep):
    """Weights under the names of the files of a LLaVA."""
    names = {name.replace("model.language_model.", "language_model.model.").replace("model.multi_", "multi_"): p for name, p in model.named_parameters()}
    return {name: p.detach().clone().contiguous() for name, p in names.items() if keep(name)}


def main():
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    torch.manual_seed(7)
    model = redraw(LlavaForConditionalGeneration(CONFIG))
    model.save_pretrained(out)
    (out / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, "image_processor_type": "CLIPImageProcessor"}, indent=1) + "\n")
    batch = batch_of(write_inputs())
    losses = {}

    model = fresh()
    losses["stage1"] = train(model, trained(model, {"multi_modal_projector": 1e-2}), batch, 0.0)
    save_file(saved(model, lambda name: "projector" in name), out / "stage1.safetensors")

    model = fresh()
    losses["stage2"] = train(model, trained(model, {"multi_modal_projector": 1e-3, "language_model": 5e-3}), batch, 0.1)
    save_file(saved(model, lambda name: "vision" not in name), out / "stage2.safetensors")

    model = fresh()
    lora = LoraConfig(
        r=4, lora_alpha=6, lora_dropout=0.0, use_rslora=True, rank_pattern={"k_proj": 2, "down_proj": 3}, alpha_pattern={"q_proj": 5},
        target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj", init_lora_weights=False,
    )  # fmt: skip
    peft = get_peft_model(model, lora)
    peft.save_pretrained(out / "adapter", save_embedding_layers=False)
    (out / "adapter/README.md").unlink()
    config = json.loads((out / "adapter/adapter_config.json").read_text())
    config["base_model_name_or_path"] = "tiny-llava"
    (out / "adapter/adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")
    groups = trained(peft, {"multi_modal_projector": 1e-3, "lora_": 1e-2})
    losses["lora"] = train(peft, groups, batch, 0.1)
    merged = peft.merge_and_unload()
    save_file(saved(merged, lambda name: "projector" in name or "_proj." in name and "vision" not in name), out / "lora.safetensors")
    with torch.no_grad():
        inputs, outputs = logits_with_adapter(batch)
    save_file(inputs, out / "inputs.safetensors")
    save_file(outputs, out / "outputs.safetensors")

    (out / "losses.json").write_text(json.dumps(losses, indent=1) + "\n")
    for name, values in losses.items():
        print(name, " ".join(f"{value:.4f}" for value in values))


def logits_with_adapter(batch):
    """Logits of the last four tokens with the adapter as it was before training, as peft applies it."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(fresh(), out / "adapter").eval()
    tokens = int(batch["attention_mask"][0].sum())
    inputs = dict(input_ids=batch["input_ids"][:1, :tokens].contiguous(), pixel_values=batch["pixel_values"][:1].contiguous())
    applied = model(**inputs).logits[:, -4:]
    merged = model.merge_and_unload()(**inputs).logits[:, -4:]
    print("applied against merged", (applied - merged).abs().max().item())
    return inputs, {"logits": applied.contiguous()}


if __name__ == "__main__":
    main()
