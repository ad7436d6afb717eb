"""The PyTorch side of the training-step benchmark: a Gemma-shaped language model in eager PyTorch, forward, backward and AdamW.

A server, so that the caller can interleave it with other sides on a noisy machine. One request a line on stdin, one answer a line on stdout:
    {"size": "small", "precision": "fp32", "steps": 3}  ->  {"ms": [...], "cpu_ms": [...], "losses": [...], "parameters": ...}
    {"product": {"m": 2, "k": 3, "n": 4, "transB": false}, "precision": "fp32", "count": 3}  ->  {"ms": [...]}
A model is made on the first request of its size and precision and goes on training; asking for another size forgets it. The first step pays for
allocation: discard it. Started with `--threads N`; needs only `pip install 'torch==2.13.*'`. Sizes and optimizer come from bench/train-step.json, weights
and tokens from `draw` below, which is easily written in any language, so that two sides which do the same work print the same losses.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch_server import serve

SETUP = json.loads((Path(__file__).parent.parent / "train-step.json").read_text())


def draw(start, count):
    """Uint32s number start ... start + count - 1 of the benchmark's stream: the 32-bit finalizer of MurmurHash3 over the index."""
    x = torch.arange(start, start + count, dtype=torch.int64)
    x ^= x >> 16
    x = (x * 0x85EBCA6B) & 0xFFFFFFFF
    x ^= x >> 13
    x = (x * 0xC2B2AE35) & 0xFFFFFFFF
    x ^= x >> 16
    return x


class RMSNorm(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.eps = config["rms_norm_eps"]
        self.weight = nn.Parameter(torch.zeros(config["hidden_size"]))

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, 1 + self.weight, self.eps)


def rotate(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.head_dim = config["head_dim"]
        width = config["num_attention_heads"] * self.head_dim
        self.q_proj = nn.Linear(config["hidden_size"], width, bias=False)
        self.k_proj = nn.Linear(config["hidden_size"], self.head_dim, bias=False)
        self.v_proj = nn.Linear(config["hidden_size"], self.head_dim, bias=False)
        self.o_proj = nn.Linear(width, config["hidden_size"], bias=False)

    def forward(self, x, cos, sin):
        batch, tokens, _ = x.shape
        q, k, v = (p(x).view(batch, tokens, -1, self.head_dim).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(out.transpose(1, 2).reshape(batch, tokens, -1))


class Mlp(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config["hidden_size"], config["intermediate_size"], bias=False)
        self.up_proj = nn.Linear(config["hidden_size"], config["intermediate_size"], bias=False)
        self.down_proj = nn.Linear(config["intermediate_size"], config["hidden_size"], bias=False)

    def forward(self, x):
        return self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.input_layernorm = RMSNorm(config)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config)
        self.mlp = Mlp(config)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Gemma(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.scale = math.sqrt(config["hidden_size"])
        self.embed_tokens = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.layers = nn.ModuleList(Layer(config) for _ in range(config["num_hidden_layers"]))
        self.norm = RMSNorm(config)
        half = torch.arange(0, config["head_dim"], 2) / config["head_dim"]
        angles = torch.arange(config["max_position_embeddings"])[:, None] * config["rope_theta"] ** -half
        angles = torch.cat((angles, angles), dim=-1)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, input_ids, labels):
        cos, sin = self.cos[: input_ids.shape[1]], self.sin[: input_ids.shape[1]]
        x = self.embed_tokens(input_ids) * self.scale
        for layer in self.layers:
            x = layer(x, cos, sin)
        logits = F.linear(self.norm(x), self.embed_tokens.weight)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


class Side:
    """One model in training. Its parameters, sorted by name, take one draw u an element, in row-major order: uniform with the standard deviation
    initializer_range, (u / 2^32 - 0.5) * range * sqrt(12); norm weights draw nothing and are 0. Tokens are the draws from 2^31 on, modulo the vocabulary."""

    def __init__(self, size, precision):
        setup = SETUP["sizes"][size]
        config = setup["config"]
        assert config["num_key_value_heads"] == 1 and config["hidden_act"] == "gelu_pytorch_tanh" and config["tie_word_embeddings"]
        self.precision = precision
        self.model = Gemma(config)
        start = 0
        with torch.no_grad():
            for name, parameter in sorted(self.model.named_parameters(prefix="model")):
                if parameter.dim() == 1:
                    continue
                u = draw(start, parameter.numel()).double()
                parameter.copy_(((u / 2**32 - 0.5) * (config["initializer_range"] * math.sqrt(12))).view_as(parameter))
                start += parameter.numel()
        self.input_ids = (draw(2**31, setup["batch"] * setup["tokens"]) % config["vocab_size"]).view(setup["batch"], setup["tokens"])
        # Token t predicts t + 1; the last of a row predicts nothing.
        self.labels = F.pad(self.input_ids[:, 1:], (0, 1), value=-100)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), **SETUP["optimizer"], fused=True)

    def step(self):
        begin, cpu = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            loss = self.model(self.input_ids, self.labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        loss = loss.item()
        return (time.perf_counter() - begin) * 1000, (time.process_time() - cpu) * 1000, loss


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    torch.set_num_threads(parser.parse_args().threads)
    held = {"size": None, "sides": {}}

    def answer(request):
        size, precision = request["size"], request["precision"]
        if size != held["size"]:
            held.update(size=size, sides={})
        if precision not in held["sides"]:
            held["sides"][precision] = Side(size, precision)
        side = held["sides"][precision]
        ms, cpu_ms, losses = zip(*[side.step() for _ in range(request["steps"])])
        return {"ms": ms, "cpu_ms": cpu_ms, "losses": losses, "parameters": sum(p.numel() for p in side.model.parameters())}

    serve(answer)


if __name__ == "__main__":
    main()
