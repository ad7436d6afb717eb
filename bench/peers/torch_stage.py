"""The PyTorch side of the stage benchmark: a stage of LLaVA with Hugging Face transformers (and peft), written as LLaVA's scripts train.

The frozen tower runs in each step, logits are made of all tokens, batches are padded to their longest sample, AdamW is fused, the norm of the gradient is
clipped to 1; a DataLoader of one worker reads JSON and pictures ahead of the step. Under bf16 the weights stay float32 and products are autocast.

A server: one request a line on stdin, one answer a line on stdout.
    {"precision": "fp32", "variant": "plain", "steps": 3}  ->  {"ms": [...], "cpu_ms": [...], "losses": [...], "peak_mb": ...}
    {"product": {"m": 2, "k": 3, "n": 4, "transB": false}, "precision": "fp32", "count": 3}  ->  {"ms": [...]}
Variants take away one thing that costs time, or add one:
    cached_features    the tower does not run: its rows are given
    label_logits       logits of the tokens that have a label alone
    all_gradients      gradients of frozen weights too, which nobody uses
    no_padding         rows of the same tokens, each as long as their mean

    torch_stage.py --setup FILE --threads N
The setup names the model folder, the samples of each step in order, the image folder and what is trained. Needs `pip install 'torch==2.13.*'
'transformers==5.*' 'peft==0.21.*' pillow`.
"""

import argparse
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from tokenizers import Tokenizer
from torch.utils.data import DataLoader, Dataset
from torch_server import serve
from transformers import AutoImageProcessor, LlavaForConditionalGeneration

IGNORED = -100


class Samples(Dataset):
    """A step an item: token ids, labels and pixels of its samples, padded to the longest."""

    def __init__(self, setup):
        self.setup = setup
        folder = setup["model"]
        files = json.loads((Path(folder) / "tokenizer.json").read_text())
        self.image_id = json.loads((Path(folder) / "config.json").read_text())["image_token_index"]
        files["added_tokens"] = [token for token in files["added_tokens"] if token["content"] != "<image>"]
        self.tokenizer = Tokenizer.from_str(json.dumps(files))
        self.processor = AutoImageProcessor.from_pretrained(folder, use_fast=False)
        self.by_id = {sample["id"]: sample for sample in json.loads(Path(setup["data_path"]).read_text())}

    def __len__(self):
        return len(self.setup["steps"])

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def row(self, sample):
        ids, labels = self.encode("<bos>"), [IGNORED]
        for turn in sample["conversations"]:
            is_answer = turn["from"] == "gpt"
            opening = self.encode(f"<start_of_turn>{'model' if is_answer else 'user'}\n")
            content = []
            for number, piece in enumerate(f"{turn['value'].strip()}<end_of_turn>\n".split("<image>")):
                content += ([self.image_id] * self.setup["image_tokens"] if number > 0 else []) + self.encode(piece)
            ids += opening + content
            labels += [IGNORED] * len(opening) + (content if is_answer else [IGNORED] * len(content))
        return ids, labels

    def __getitem__(self, step):
        samples = [self.by_id[name] for name in self.setup["steps"][step]]
        rows = [self.row(sample) for sample in samples]
        pictures = [Image.open(Path(self.setup["image_folder"]) / sample["image"]).convert("RGB") for sample in samples]
        longest = max(len(ids) for ids, _ in rows)
        pad = lambda values, filler: values + [filler] * (longest - len(values))
        return dict(
            input_ids=torch.tensor([pad(ids, 0) for ids, _ in rows]),
            attention_mask=torch.tensor([pad([1] * len(ids), 0) for ids, _ in rows]),
            labels=torch.tensor([pad(labels, IGNORED) for _, labels in rows]),
            pixel_values=self.processor(pictures, return_tensors="pt")["pixel_values"],
        )


def without_padding(batch):
    """As many rows, each as long as the mean: the pictures' tokens stay, text is cut off or repeated."""
    length = round(batch["attention_mask"].sum().item() / len(batch["attention_mask"]))
    ids, labels = batch["input_ids"].clone(), batch["labels"].clone()
    for row, mask in enumerate(batch["attention_mask"]):
        own = int(mask.sum())
        if own < length:
            ids[row, own:length] = ids[row, 2 * own - length : own]
            labels[row, own:length] = labels[row, 2 * own - length : own]
    return dict(batch, input_ids=ids[:, :length], labels=labels[:, :length], attention_mask=torch.ones_like(ids[:, :length]))


class Stage:
    def __init__(self, setup):
        self.setup = setup
        model = LlavaForConditionalGeneration.from_pretrained(setup["model"], dtype=torch.float32)
        model.requires_grad_(False)
        if "lora" in setup:
            from peft import LoraConfig, get_peft_model

            settings = dict(r=setup["lora"]["rank"], lora_alpha=setup["lora"]["alpha"], lora_dropout=setup["lora"]["dropout"])
            targets = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
            model = get_peft_model(model, LoraConfig(target_modules=targets, **settings))
        for name, parameter in model.named_parameters():
            if any(part in name for part in setup["train"]) or "lora_" in name:
                parameter.requires_grad_(True)
        self.model = model.train()
        self.llava = model.get_base_model() if "lora" in setup else model
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        decay = lambda parameter: setup["weight_decay"] if parameter.dim() > 1 else 0.0
        groups = [dict(params=[parameter], weight_decay=decay(parameter)) for parameter in self.trained]
        self.optimizer = torch.optim.AdamW(groups, lr=setup["lr"], fused=True)
        self.frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
        self.batches = self.endless(DataLoader(Samples(setup), batch_size=None, num_workers=1))
        self.rows = None

    def endless(self, loader):
        while True:
            yield from loader

    def loss(self, batch, variant):
        if variant == "no_padding":
            batch = without_padding(batch)
        if variant == "cached_features":
            batch = dict(batch)
            pixels = batch.pop("pixel_values")
            if self.rows is None:
                with torch.no_grad():
                    self.rows = self.llava.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:].clone()
            projected = self.llava.model.multi_modal_projector(self.rows)
            embedded = self.llava.get_input_embeddings()(batch["input_ids"])
            places = (batch["input_ids"] == self.llava.config.image_token_index).unsqueeze(-1).expand_as(embedded)
            batch["inputs_embeds"] = embedded.masked_scatter(places, projected.to(embedded.dtype))
            del batch["input_ids"]
        if variant != "label_logits":
            return self.model(**batch, use_cache=False).loss
        labels = batch.pop("labels")
        hidden = self.llava.model(**batch, use_cache=False).last_hidden_state[:, :-1]
        has_label = labels[:, 1:] != IGNORED
        return F.cross_entropy(self.llava.lm_head(hidden[has_label]).float(), labels[:, 1:][has_label])

    def step(self, precision, variant):
        for parameter in self.frozen:
            parameter.requires_grad_(variant == "all_gradients")
        begin, cpu = time.perf_counter(), time.process_time()
        batch = next(self.batches)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = self.loss(batch, variant)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        for parameter in self.model.parameters():
            parameter.grad = None
        loss = loss.item()
        return (time.perf_counter() - begin) * 1000, (time.process_time() - cpu) * 1000, loss


def peak_mb():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--setup", required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    setup = json.loads(Path(options.setup).read_text())
    held = {}

    def answer(request):
        # it is made when it is first asked for: products may be asked for before
        stage = held.get("stage") or held.setdefault("stage", Stage(setup))
        Path("/proc/self/clear_refs").write_text("5")
        steps = [stage.step(request["precision"], request.get("variant", "plain")) for _ in range(request["steps"])]
        ms, cpu_ms, losses = zip(*steps)
        return {"ms": ms, "cpu_ms": cpu_ms, "losses": losses, "peak_mb": peak_mb()}

    serve(answer)


if __name__ == "__main__":
    main()
