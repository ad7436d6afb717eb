"""Puts an adapter folder of ours over its base with peft, and compares its logits with those of the merged model.

    npx llava-gemma convert runs/mine/checkpoints/pretrain base --dtype float32
    npx llava-gemma export runs/mine/checkpoints/finetune --to peft --out adapters --base base
    python tests/reference/check_adapter.py base adapters runs/mine/checkpoints/finetune

Run by hand (see README.md beside this file). All three folders must be float32 for the figures to mean anything.
"""

import sys

import torch
import transformers
from peft import PeftModel
from transformers import LlavaForConditionalGeneration


def load(folder):
    return LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def logits(model):
    config = model.config
    side = config.vision_config.image_size
    patches = (side // config.vision_config.patch_size) ** 2
    ids = torch.tensor([[2] + [config.image_token_index] * patches + list(range(10, 40))])
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    return model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels).logits


def main(base, adapter, merged):
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    wanted = logits(load(merged))
    over_base = PeftModel.from_pretrained(load(base), adapter).eval()
    figures = {
        "the base": logits(load(base)),
        "the adapter, applied by peft": logits(over_base),
        "the adapter, merged by peft": logits(over_base.merge_and_unload()),
    }
    print(f"logits of the merged model reach {wanted.abs().max():.3g}; it differs from")
    for name, found in figures.items():
        print(f"  {name}: {(found - wanted).abs().max():.2g}")


main(*sys.argv[1:])
