"""Writes goldens/adamw_8bit: what AdamW8bit of bitsandbytes makes of a matrix and of a small bias on the CPU."""

import json
from pathlib import Path

import bitsandbytes as bnb
import torch
from bitsandbytes.functional import create_dynamic_map
from safetensors.torch import save_file

FOLDER = Path(__file__).parent / "goldens" / "adamw_8bit"
# 4,160 numbers are 16 blocks and a quarter; a bias of less than 4,096 keeps moments of 32 bits
SHAPES = {"weight": (65, 64), "bias": (64,)}
CONFIG = {
    "betas": [0.9, 0.99],
    "eps": 1e-8,
    "weightDecay": {"weight": 0.1, "bias": 0.0},
    "learningRates": [0.01, 0.02, 0.02, 0.015, 0.01],
}


def main():
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)
    parameters = {name: torch.nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in SHAPES.items()}
    groups = [{"params": [p], "weight_decay": CONFIG["weightDecay"][name]} for name, p in parameters.items()]
    optimizer = bnb.optim.AdamW8bit(groups, betas=tuple(CONFIG["betas"]), eps=CONFIG["eps"])
    inputs = {f"params.{name}": p.detach().clone() for name, p in parameters.items()}
    outputs = {"code.exp_avg": create_dynamic_map(signed=True), "code.exp_avg_sq": create_dynamic_map(signed=False)}
    # rows of very different size, as gradients have them, and a block of zeros
    sizes = 10 ** (3 * torch.rand((65, 1), generator=generator) - 3)
    sizes[4:8] = 0
    for step, rate in enumerate(CONFIG["learningRates"]):
        for name, p in parameters.items():
            noise = torch.randn(p.shape, generator=generator)
            p.grad = noise * sizes if name == "weight" else noise
            inputs[f"gradients.{step}.{name}"] = p.grad.clone()
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        if step in (0, len(CONFIG["learningRates"]) - 1):
            for name, p in parameters.items():
                state = optimizer.state[p]
                outputs[f"params.{step}.{name}"] = p.detach().clone()
                for kind, number in (("exp_avg", 1), ("exp_avg_sq", 2)):
                    outputs[f"{kind}.{step}.{name}"] = state[f"state{number}"].clone()
                    if f"absmax{number}" in state:
                        outputs[f"{kind}.{step}.{name}.absmax"] = state[f"absmax{number}"].clone()
    assert outputs["exp_avg.0.weight"].dtype == torch.uint8 and outputs["exp_avg.0.bias"].dtype == torch.float32
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    save_file(inputs, FOLDER / "inputs.safetensors")
    save_file(outputs, FOLDER / "outputs.safetensors")


if __name__ == "__main__":
    main()
