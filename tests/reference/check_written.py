"""Reads the LLaVA folders that write_llava.mjs wrote with Hugging Face transformers and compares its logits with ours.

Run by hand (see README.md beside this file): the other direction of make_goldens.py, which compares folders that transformers wrote.
"""

import sys
from pathlib import Path

import torch
import transformers
from safetensors import safe_open
from transformers import LlavaForConditionalGeneration

TOLERANCE = 1e-4


def load(folder):
    model, info = LlavaForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    left_over = {kind: names for kind, names in info.items() if names}
    assert not left_over, f"{folder.name}: {left_over}"
    return model.eval()


def main(root):
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    folders = sorted(path.parent for path in Path(root).glob("*/expected.safetensors"))
    assert folders, f"nothing was written to {root}"
    worst = 0.0
    for folder in folders:
        with safe_open(folder / "expected.safetensors", "pt") as file:
            expected = {name: file.get_tensor(name) for name in file.keys()}
        with torch.no_grad():
            logits = load(folder)(input_ids=expected["input_ids"].long(), pixel_values=expected["pixel_values"]).logits
        difference = (logits - expected["logits"]).abs().max().item()
        worst = max(worst, difference)
        print(f"{folder.name:24} largest difference {difference:.2e} of logits up to {logits.abs().max().item():.1f}")
    print(f"worst: {worst:.2e}")
    assert worst < TOLERANCE


if __name__ == "__main__":
    main(sys.argv[1])
