# Writes pillow.jsonl and processor.jsonl: what Pillow and transformers make of small pictures. Needed only to write them again:
#   python3 -m venv .venv && .venv/bin/pip install pillow numpy transformers && .venv/bin/python src/images/goldens/make_goldens.py
# The committed files came from Pillow 12.3.0 and transformers 5.18.0 (its Pillow backend).
import base64
import json
import os

import numpy as np
from PIL import Image
from transformers import (
    BitImageProcessorPil,
    BlipImageProcessorPil,
    CLIPImageProcessorPil,
    DeiTImageProcessorPil,
    LlavaImageProcessorPil,
    SiglipImageProcessorPil,
    ViTImageProcessorPil,
)

here = os.path.dirname(os.path.abspath(__file__))


def picture(width, height, channels, seed):
    """Smooth waves with hard edges and noise: every part of a filter shows."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = [127 + 100 * np.sin(x * (0.3 + c) / 3 + y * 0.7 / (c + 1)) + rng.integers(-60, 60, (height, width)) for c in range(channels)]
    pixels = np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)
    pixels[height // 3 : height // 2, width // 4 : width // 2] = 255
    pixels[height // 2 :, : width // 5] = 0
    return pixels


def photograph(width, height, seed):
    """Soft light with grain, each channel its own: no two neighbours alike."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    light = np.hypot(x / width - 0.3, y / height - 0.4)
    planes = [220 - 150 * light + 40 * np.sin(5 * x / width + c) * np.cos(4 * y / height) + rng.normal(0, 12, (height, width)) for c in range(3)]
    return np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)


def drawing(width, height):
    """Flat colours on white: a disc in an outline, and a bar."""
    y, x = np.mgrid[0:height, 0:width]
    distance = np.hypot(x - 0.45 * width, y - 0.5 * height) / min(width, height)
    pixels = np.full((height, width, 3), 255, dtype=np.uint8)
    pixels[distance < 0.4] = (30, 20, 20)
    pixels[distance < 0.33] = (250, 200, 40)
    pixels[2 * height // 3 : 2 * height // 3 + 3, width // 8 :] = (20, 110, 230)
    return pixels


def image_json(pixels):
    height, width, channels = pixels.shape
    return {"width": width, "height": height, "channels": channels, "data": base64.b64encode(pixels.tobytes()).decode()}


def write(name, cases):
    with open(os.path.join(here, name), "w") as file:
        file.writelines(json.dumps(case, separators=(",", ":")) + "\n" for case in cases)


cases = []
for seed, (width, height, channels, new_width, new_height) in enumerate(
    [(13, 9, 3, 7, 5), (13, 9, 3, 20, 17), (40, 30, 3, 5, 7), (17, 12, 3, 17, 6), (8, 21, 3, 3, 21), (12, 10, 4, 7, 6), (6, 5, 4, 11, 9), (3, 2, 3, 1, 1)]
):
    pixels = picture(width, height, channels, seed)
    image = Image.fromarray(pixels, {3: "RGB", 4: "RGBA"}[channels])
    for number in Image.Resampling:
        name = number.name.lower()
        cases.append({"source": image_json(pixels), "filter": name, "result": image_json(np.asarray(image.resize((new_width, new_height), number)))})
write("pillow.jsonl", cases)

def processor_case(pixels, processor):
    values = np.asarray(processor(Image.fromarray(pixels, "RGB"), return_tensors="np")["pixel_values"][0], dtype=np.float32)
    config = {key: value for key, value in json.loads(processor.to_json_string()).items() if value is not None}
    return {"source": image_json(pixels), "config": config, "shape": values.shape, "values": base64.b64encode(values.tobytes()).decode()}


cases = []
for seed, (width, height, processor) in enumerate(
    [
        (23, 17, CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})),
        (11, 26, CLIPImageProcessorPil(size={"shortest_edge": 9}, crop_size={"height": 8, "width": 8}, resample=2)),
        (19, 10, CLIPImageProcessorPil(size={"shortest_edge": 5}, crop_size={"height": 8, "width": 7})),
        (16, 9, LlavaImageProcessorPil(do_pad=True, size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})),
        (14, 9, SiglipImageProcessorPil(size={"height": 8, "width": 8})),
    ]
):
    cases.append(processor_case(picture(width, height, 3, 100 + seed), processor))


def dinov2(edge, crop):
    """The processor of DINOv2's folders, at another size."""
    crop_size = {"height": crop, "width": crop}
    return BitImageProcessorPil(size={"shortest_edge": edge}, crop_size=crop_size, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])


def siglip(side):
    return SiglipImageProcessorPil(size={"height": side, "width": side})


# down and up, of each kind of picture
for pixels, processors in (
    (photograph(31, 22, 7), (siglip(10), dinov2(13, 11))),
    (photograph(11, 13, 8), (siglip(17), dinov2(16, 14))),
    (drawing(24, 33), (siglip(10), dinov2(13, 11))),
    (drawing(15, 11), (siglip(17), dinov2(16, 14))),
):
    cases.extend(processor_case(pixels, processor) for processor in processors)

# the other filters, and the other ways to give a size
pixels = photograph(27, 16, 9)
for processor in (
    *(CLIPImageProcessorPil(size=9, crop_size=8, resample=number) for number in (0, 1, 4, 5)),
    CLIPImageProcessorPil(size={"height": 8, "width": 9}, crop_size={"height": 7, "width": 7}, image_mean=0.5, image_std=0.25),
    CLIPImageProcessorPil(size={"shortest_edge": 9, "longest_edge": 13}, crop_size=8),
    CLIPImageProcessorPil(size={"max_height": 9, "max_width": 13}, crop_size=8),
    ViTImageProcessorPil(size=8),
    DeiTImageProcessorPil(size=[9, 11], crop_size=8),
    BlipImageProcessorPil(size=8, do_rescale=False, do_normalize=False),
):
    cases.append(processor_case(pixels, processor))
write("processor.jsonl", cases)
