"""What the PyTorch sides of the training benchmarks share: the loop that answers requests, and the speed of products alone.

One request a line on stdin, one answer a line on stdout:
    {"product": {"m": 2, "k": 3, "n": 4, "transB": false}, "precision": "fp32", "count": 3}  ->  {"ms": [...]}
Any other request is the side's own.
"""

import json
import sys
import time

import torch


class Product:
    """a [m, k] times b [k, n], or times the transpose of b [n, k]: in float32, or with operands and result in bfloat16."""

    def __init__(self, shape, precision):
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.a = torch.randn(shape["m"], shape["k"]).to(dtype)
        b = torch.randn(shape["n"], shape["k"]) if shape["transB"] else torch.randn(shape["k"], shape["n"])
        b = b.to(dtype)
        self.b = b.T if shape["transB"] else b

    def time(self):
        begin = time.perf_counter()
        torch.matmul(self.a, self.b)
        return (time.perf_counter() - begin) * 1000


def serve(answer):
    """Greets, then answers products itself and all else by `answer`, a function of the request; until stdin ends."""
    products = {}
    print(json.dumps({"ready": True, "torch": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        precision = request["precision"]
        assert precision in ("fp32", "bf16"), precision
        if "product" not in request:
            print(json.dumps(answer(request)), flush=True)
            continue
        key = (tuple(request["product"].values()), precision)
        product = products.get(key) or products.setdefault(key, Product(request["product"], precision))
        print(json.dumps({"ms": [round(product.time(), 3) for _ in range(request["count"])]}), flush=True)
