# Writes files.jsonl: small picture files of many kinds, and what Pillow's `exif_transpose` and `convert("RGB")` make of them, as
# transformers and LLaVA read pictures. Needed only to write it again:
#   python3 -m venv .venv && .venv/bin/pip install pillow numpy && .venv/bin/python src/images/goldens/make_files.py
# The committed file came from Pillow 12.3.0.
import base64
import io
import json
import os
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms, ImageOps

here = os.path.dirname(os.path.abspath(__file__))
rng = np.random.default_rng(0)
width, height = 7, 5
files = {}


def keep(name, image, **options):
    """Adds a picture as Pillow writes it."""
    file = io.BytesIO()
    image.save(file, format={"jpg": "jpeg", "tif": "tiff"}.get(name.split(".")[-1], name.split(".")[-1]), **options)
    files[name] = file.getvalue()


def noise(*shape, high=256):
    return rng.integers(0, high, shape, dtype=np.uint8)


# transparency: the upper half has none of its color visible
colors = noise(height, width, 4)
colors[:2, :, 3] = 0
rgba = Image.fromarray(colors)
gray = noise(height, width, 2)
gray[:2, :, 1] = 0
palette = Image.fromarray(noise(height, width, high=8), "P")
palette.putpalette(noise(24).tolist())
two = Image.fromarray(np.repeat(noise(height, width, 1, high=2) * 100, 3, axis=2))
keep("rgba.png", rgba)
keep("la.png", Image.fromarray(gray, "LA"))
keep("palette.png", palette)
keep("palette-one-transparent.png", palette, transparency=3)
keep("palette-alpha.png", palette, transparency=bytes([0, 128, 255, 10, 77]))
keep("rgb-color-key.png", two, transparency=(100, 100, 100))
keep("gray-color-key.png", two.convert("L"), transparency=100)
keep("lossless.webp", rgba, lossless=True, exact=True)
keep("lossy.webp", Image.fromarray(np.kron(colors, np.ones((4, 4, 1), dtype=np.uint8))), quality=80)
keep("animation.webp", rgba, save_all=True, append_images=[rgba.rotate(180)], lossless=True)
keep("animation.png", rgba, save_all=True, append_images=[rgba.rotate(180)])
keep("rgba.tif", rgba, compression="tiff_lzw")
keep("opaque.gif", palette)
keep("transparent.gif", palette, transparency=3)
keep("animation.gif", palette, save_all=True, append_images=[palette.rotate(180)], transparency=3, disposal=2)
# the same frame on a larger screen
files["small-frame.gif"] = files["transparent.gif"][:6] + struct.pack("<HH", 9, 8) + files["transparent.gif"][10:]
turned = Image.Exif()
turned[0x112] = 6
keep("turned.png", rgba, exif=turned)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(pixels, color_type, depth, *more):
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    chunks = [chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


for name, color_type, channels in (("rgba16", 6, 4), ("la16", 4, 2), ("rgb16", 2, 3)):
    files[f"{name}.png"] = png(rng.integers(0, 65536, (height, width, channels)).astype(">u2"), color_type, 16)
files["background.png"] = png(colors, 6, 8, chunk(b"bKGD", struct.pack(">HHH", 255, 0, 0)))
files["gamma.png"] = png(colors[:, :, :3].copy(), 2, 8, chunk(b"gAMA", struct.pack(">I", 100000)))

# color profiles, and colors that are not RGB
profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
tags = {bytes(profile[at : at + 4]): struct.unpack(">II", profile[at + 4 : at + 12]) for at in range(132, 132 + 12 * profile[131], 12)}
(red, size), (green, _) = tags[b"rXYZ"], tags[b"gXYZ"]
profile[red : red + size], profile[green : green + size] = profile[green : green + size], profile[red : red + size]
photo = Image.fromarray(np.kron(colors[:, :, :3], np.ones((4, 4, 1), dtype=np.uint8)))
keep("profile.png", rgba, icc_profile=bytes(profile))
keep("profile.jpg", photo, quality=80, icc_profile=bytes(profile))
keep("gray.jpg", photo.convert("L"), quality=80)
keep("cmyk.jpg", photo.convert("CMYK"), quality=80)

# BMP. Not here: a run of RLE4 that ends in half a byte, and RLE with jumps, which Pillow gets wrong or fills in a way of its own.


def bmp(name, header, colors_and_masks, data):
    start = 14 + len(header) + len(colors_and_masks)
    files[f"{name}.bmp"] = b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + colors_and_masks + data


def header(depth, compression=0, length=40, top_down=False, masks=(), colors=0, size=0):
    rows = -height if top_down else height
    start = struct.pack("<IiiHHIIiiII", length, width, rows, 1, depth, compression, size, 2835, 2835, colors, 0)
    return (start + struct.pack(f"<{len(masks)}I", *masks)).ljust(length, b"\0")


def rows(pixels, depth, top_down=False):
    packed = b""
    for row in pixels if top_down else pixels[::-1]:
        bits = "".join(format(int(value), f"0{depth}b") for value in row) if depth < 8 else ""
        line = (
            bytes(int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8))
            if depth < 8
            else b"".join(int(value).to_bytes(depth // 8, "little") for value in row)
        )
        packed += line + b"\0" * (-len(line) % 4)
    return packed


def some_colors(count):
    return b"".join(noise(3).tobytes() + b"\0" for _ in range(count))


for depth in (1, 4, 8):
    pixels, table = rng.integers(0, 2**depth, (height, width)), some_colors(2**depth)
    bmp(f"palette{depth}", header(depth), table, rows(pixels, depth))
    bmp(f"palette{depth}-top-down", header(depth, top_down=True), table, rows(pixels, depth, top_down=True))
bmp("few-colors", header(8, colors=10), some_colors(10), rows(rng.integers(0, 10, (height, width)), 8))
bmp("gap", header(8, colors=16), some_colors(16) + b"gap.", rows(rng.integers(0, 16, (height, width)), 8))
deep = rng.integers(0, 2**16, (height, width))
six = (0xF800, 0x7E0, 0x1F)
bmp("rgb555", header(16), b"", rows(deep % 2**15, 16))
bmp("rgb565", header(16, 3), struct.pack("<III", *six), rows(deep, 16))
bmp("rgb565-v4", header(16, 3, length=108, masks=six), b"", rows(deep, 16))
true = rng.integers(0, 2**32, (height, width))
bgra = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
bmp("rgb24", header(24), b"", rows(true % 2**24, 24))
bmp("rgb24-top-down", header(24, top_down=True), b"", rows(true % 2**24, 24, top_down=True))
bmp("rgb24-v5", header(24, length=124), b"", rows(true % 2**24, 24))
bmp("rgb32", header(32), b"", rows(true, 32))
bmp("rgb32-fields", header(32, 3), struct.pack("<III", *bgra[:3]), rows(true, 32))
bmp("rgba32-v5", header(32, 3, length=124, masks=bgra), b"", rows(true, 32))
bmp("abgr32-v4", header(32, 3, length=108, masks=(0xFF000000, 0xFF0000, 0xFF00, 0xFF)), b"", rows(true, 32))
bmp("os2", struct.pack("<IHHHH", 12, width, height, 1, 24), b"", rows(true % 2**24, 24))
run8 = b"".join(
    (bytes([0, 5, 1, 2, 3, 4, 5, 0, 2, 9]) if y == 1 else bytes([4, y, 3, y + 7])) + (b"\0\0" if y < height - 1 else b"\0\1") for y in range(height)
)
bmp("rle8", header(8, 1, colors=16, size=len(run8)), some_colors(16), run8)
run4 = b"".join(bytes([4, 0x10 + y, 3, 0x2A]) + (b"\0\0" if y < height - 1 else b"\0\1") for y in range(height))
bmp("rle4", header(4, 2, colors=16, size=len(run4)), some_colors(16), run4)
# as ImageMagick writes it: the last row ends, and then the picture
for name, length, run in (("rle8", 8, run8), ("rle4", 4, run4)):
    closed = run[:-2] + b"\0\0\0\1"
    bmp(f"{name}-closed", header(length, 1 if length == 8 else 2, colors=16, size=len(closed)), some_colors(16), closed)

with open(os.path.join(here, "files.jsonl"), "w") as out:
    for name, file in files.items():
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(file))).convert("RGB")
        text = {key: base64.b64encode(value).decode() for key, value in (("file", file), ("rgb", image.tobytes()))}
        out.write(json.dumps({"name": name, "width": image.width, "height": image.height, **text}, separators=(",", ":")) + "\n")
