"""The CLIP image processor of transformers as a server: for {"path", "count"} on stdin, the times of reading the picture so often."""

import argparse
import json
import os
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from PIL import Image
from transformers import CLIPImageProcessor


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--side", type=int, default=336)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    processor = CLIPImageProcessor(size={"shortest_edge": arguments.side}, crop_size=arguments.side)
    print(json.dumps({"torch": torch.__version__, "transformers": transformers.__version__, "processor": type(processor).__name__}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        ms, cpu_ms = [], []
        for _ in range(request["count"]):
            begin, cpu = time.perf_counter(), time.process_time()
            pixels = processor(Image.open(request["path"]).convert("RGB"), return_tensors="pt")["pixel_values"]
            ms.append((time.perf_counter() - begin) * 1000)
            cpu_ms.append((time.process_time() - cpu) * 1000)
        mean, square = pixels.mean().item(), (pixels * pixels).mean().item()
        print(json.dumps({"ms": ms, "cpu_ms": cpu_ms, "mean": mean, "square": square, "numbers": pixels.numel()}), flush=True)


if __name__ == "__main__":
    main()
