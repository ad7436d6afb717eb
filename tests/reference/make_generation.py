# Writes generation.json: greedy answers of goldens/llava under fields of a generation_config.json. Needed only to write it again:
#   .venv/bin/python tests/reference/make_generation.py
# The committed file came from torch 2.13.0 (CPU build) and transformers 5.18.0.
import json
import os

import torch
from safetensors.torch import load_file
from transformers import GenerationConfig, LlavaForConditionalGeneration

here = os.path.dirname(os.path.abspath(__file__))
golden = os.path.join(here, "goldens/llava")
model = LlavaForConditionalGeneration.from_pretrained(golden, attn_implementation="eager", dtype=torch.float32).eval()
inputs = load_file(os.path.join(golden, "inputs.safetensors"))
row = 0
count = int(inputs["attention_mask"][row].sum())
prompt = {
    "input_ids": inputs["input_ids"][row : row + 1, :count],
    "attention_mask": inputs["attention_mask"][row : row + 1, :count],
    "pixel_values": inputs["pixel_values"][row : row + 1],
}


def answer(fields):
    config = GenerationConfig(**{"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": None, **fields})
    with torch.no_grad():
        ids = model.generate(**prompt, generation_config=config)[0].tolist()[count:]
    ends = fields.get("eos_token_id", [])
    return {"fields": fields, "answer": [id for id in ids if id not in (ends if isinstance(ends, list) else [ends])]}


# without a penalty, the answer repeats one token
penalty = {"repetition_penalty": 5.0}
plain = answer(penalty)["answer"]
assert len(set(plain)) > 6, plain
cases = [
    answer(fields)
    for fields in (
        {},
        penalty,
        {"repetition_penalty": 1.3},
        {"max_new_tokens": 5} | penalty,
        {"eos_token_id": plain[4]} | penalty,
        {"eos_token_id": [plain[6], plain[2]]} | penalty,
    )
]
assert len({json.dumps(case["answer"]) for case in cases}) == len(cases), cases
with open(os.path.join(here, "generation.json"), "w") as file:
    file.write("[\n" + ",\n".join("  " + json.dumps(case) for case in cases) + "\n]\n")
