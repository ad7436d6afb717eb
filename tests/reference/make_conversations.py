"""Token ids and labels of LLaVA JSON samples, as LLaVA's rules and Gemma's chat form have them, with the tokenizer of
assets/tokenizer. Rules: haotian-liu/LLaVA llava/train/train.py (`preprocess_multimodal`; `<image>` is looked for only in
samples that have a picture), Intel's `preprocess_gemma` (trained: the answer, `<end_of_turn>`, the line break), Gemma 3's
chat template (a system message begins the first question).

    .venv/bin/python tests/reference/make_conversations.py
"""

import json
from pathlib import Path

from tokenizers import Tokenizer

root = Path(__file__).parents[2]
IMAGE, ROWS, IGNORED = "<image>", 3, -100
files = json.loads((root / "assets/tokenizer/tokenizer.json").read_text())
image_id = next(token["id"] for token in files["added_tokens"] if token["content"] == IMAGE)
files["added_tokens"] = [token for token in files["added_tokens"] if token["content"] != IMAGE]
plain = Tokenizer.from_str(json.dumps(files))


def encode(text, has_image):
    pieces = text.split(IMAGE) if has_image else [text]
    ids = []
    for number, piece in enumerate(pieces):
        ids += ([image_id] * ROWS if number > 0 else []) + plain.encode(piece, add_special_tokens=False).ids
    return ids


def turns_of(sample):
    """(is it the model's, text), the system message in the first question."""
    written = sample.get("conversations") or sample["messages"]
    spoken = [(turn.get("from") or turn["role"], turn.get("value") or turn["content"]) for turn in written]
    system = sample.get("system") or ""
    if spoken[0][0] == "system":
        system = spoken.pop(0)[1]
    turns = [(who in ("gpt", "assistant"), text) for who, text in spoken]
    return system, turns


def expected(sample):
    has_image = bool(sample.get("image") or sample.get("images"))
    system, turns = turns_of(sample)
    ids, labels = encode("<bos>", False), [IGNORED]
    for number, (is_answer, text) in enumerate(turns):
        shows = has_image and IMAGE in text
        if shows:
            text = text.replace(IMAGE, "").strip()
        if number == 0 and system:
            text = f"{system}\n\n{text}"
        if shows:
            text = f"{IMAGE}\n{text}".strip()
        opening = encode(f"<start_of_turn>{'model' if is_answer else 'user'}\n", False)
        content = encode(f"{text.strip()}<end_of_turn>\n", has_image)
        ids += opening + content
        labels += [IGNORED] * len(opening)
        labels += [IGNORED if not is_answer or id == image_id else id for id in content]
    return {"sample": sample, "inputIds": ids, "labels": labels}


def llava(*values, **fields):
    return {**fields, "conversations": [{"from": ("human", "gpt")[i % 2], "value": value} for i, value in enumerate(values)]}


def chat(*contents, **fields):
    return {**fields, "messages": [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]}


picture = {"image": "a.png"}
samples = [
    llava("<image>\nWhat is at the left?", "a red apple", **picture),
    llava("What is at the left?\n<image>", "a red apple", **picture),
    llava("What is <image> at the left?", "a red apple", **picture),
    llava("<image> What is at the left?", "a red apple", **picture),
    llava("<image>\n\n  What is at the left?\n\n", "a red apple", **picture),
    llava("<image>\nWhat is at the left?\n<image>", "a red apple", **picture),
    llava("<image>", "a red apple", **picture),
    llava("Hello", "a cat", "and here? <image>", " a dog\n", **picture),
    llava("<image>\nWhat?", "a cat", "How many?", "two", **picture),
    llava("What does <image> mean in a prompt?", "the place of the picture: <image>\nand a line break"),
    llava("<image>", "a", id=None, image=None),
    llava("What is at the left?\n<image>", "a cat", system="You are short.", **picture),
    chat("<image>What is at the left?", "a cat", images=["a.png"]),
    chat("What is it?", "a cat", system=None, images=None),
    {"messages": [{"role": "system", "content": "You are short."}, *chat("What is it? <image>", "a cat")["messages"]], "images": ["a.png"]},
    {"conversations": [{"from": "system", "value": "Say no more."}, *llava("What is it?", "a cat")["conversations"]]},
]
if __name__ == "__main__":
    out = root / "tests/reference/goldens/conversations.json"
    lines = [json.dumps(expected(sample)) for sample in samples]
    out.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(f"{out}: {len(lines)} samples")
