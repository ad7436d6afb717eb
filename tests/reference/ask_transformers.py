"""Asks a LLaVA folder the questions that ask_ours.mjs asked, through AutoProcessor and LlavaForConditionalGeneration
alone, and compares prompt ids, greedy answers and logits. Run by hand (README.md); needs Pillow too."""

import json
import sys
from pathlib import Path

import torch
import transformers
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoProcessor, LlavaForConditionalGeneration

SAME_ANSWERS = 0.97
TOLERANCE = 1e-4


def capped(logits, config):
    """LlavaForConditionalGeneration leaves out the cap that Gemma 2 has on its logits; the largest stays the largest."""
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def main(folder, asked):
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    processor = AutoProcessor.from_pretrained(folder)
    model, info = LlavaForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    left_over = {kind: names for kind, names in info.items() if names}
    assert not left_over, left_over
    model.eval()
    ours = json.loads((Path(asked) / "answers.json").read_text())
    logits = load_file(Path(asked) / "logits.safetensors")
    same_ids = same_answers = 0
    worst = largest = 0.0
    for i, question in enumerate(ours["questions"]):
        content = [{"type": "image", "image": Image.open(question["image"])}, {"type": "text", "text": question["text"]}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        agree = inputs["input_ids"][0].tolist() == question["ids"]
        same_ids += agree
        with torch.no_grad():
            answer = model.generate(**inputs, do_sample=False, max_new_tokens=ours["maxNewTokens"])
            if agree and str(i) in logits:
                theirs = capped(model(**inputs).logits[0, -1], model.config.text_config)
                worst = max(worst, (theirs - logits[str(i)]).abs().max().item())
                largest = max(largest, theirs.abs().max().item())
        text = processor.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
        if text == question["answer"].strip():
            same_answers += 1
        else:
            print(f"{question['text']!r}: {text!r}, ours {question['answer']!r}")
    count = len(ours["questions"])
    distinct = len({question["answer"] for question in ours["questions"]})
    print(f"torch {torch.__version__}, transformers {transformers.__version__}: {folder}")
    print(f"same prompt ids {same_ids}, same answers {same_answers} of {count} ({distinct} different ones)")
    print(f"largest difference of logits {worst:.1e}, of logits up to {largest:.1f}")
    assert same_answers >= SAME_ANSWERS * count
    assert same_ids > 0 and worst < TOLERANCE


if __name__ == "__main__":
    main(*sys.argv[1:])
