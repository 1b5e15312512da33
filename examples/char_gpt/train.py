#!/usr/bin/env python3
"""Trains the demo's pair: a byte-level GPT on English prose, then its fine-tune on C++ headers.

    apt-get install python3-torch libopenblas0-pthread bible-kjv bible-kjv-text dict-jargon \
        postgresql-doc-15 libboost1.74-dev
    MALLOC_MMAP_MAX_=0 MALLOC_TOP_PAD_=4000000000 python3 train.py --out DIR

Writes base.safetensors and tuned.safetensors (bfloat16), heldout.txt and losses.json to DIR. The
corpora, their licences and the losses of the checked-in pair are in README.md beside this file.

The model: tokens are bytes; learned positions; four pre-norm blocks (RMSNorm, causal attention with
four heads, a GELU MLP), no linear biases; the head is the embedding, transposed.
"""
import argparse
import gzip
import html
import json
import math
import os
import pathlib
import re
import subprocess
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

WIDTH, LAYERS, HEADS, CONTEXT, BATCH = 256, 4, 4, 256, 12
BOOST = pathlib.Path("/usr/include/boost")
# Whole libraries are held out, so that no text of theirs is seen in training.
HELD_OUT = ("circular_buffer", "lockfree", "optional", "rational.hpp", "heap")
HELD_OUT_BYTES = 240_000
# Generated or repetitive headers, which would dominate the corpus.
SKIPPED = re.compile(r"preprocessed|/aux_/|/typeof/|/preprocessor/|/qvm/|/phoenix/|/vmd/|/mpl/vector/|/detail/unicode")


class RmsNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * self.weight


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm1 = RmsNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)
        self.norm2 = RmsNorm(width)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x, mask):
        b, t, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) / math.sqrt(width // HEADS) + mask[:t, :t]
        x = x + self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, width))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


def initialize(model, layers):
    for name, p in model.named_parameters():
        if p.dim() == 2:
            nn.init.normal_(p, std=0.02 / (math.sqrt(2 * layers) if "proj" in name or "down" in name else 1))


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(256, WIDTH)
        self.position = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block(WIDTH) for _ in range(LAYERS))
        self.norm = RmsNorm(WIDTH)
        self.register_buffer("mask", torch.full((CONTEXT, CONTEXT), -math.inf).triu(1), persistent=False)
        initialize(self, LAYERS)

    def forward(self, tokens):
        x = self.embed(tokens) + self.position.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, self.mask)
        return self.norm(x) @ self.embed.weight.T


def prose():
    """King James Version and Jargon File (public domain), the PostgreSQL manual's prose (PostgreSQL licence)."""
    bible = subprocess.run(["bible", "-f", "Gen1:1-Rev22:21"], capture_output=True, check=True).stdout.decode("latin-1")
    jargon = gzip.open("/usr/share/dictd/jargon.dict.dz").read().decode("utf-8", "replace")
    manual = []
    for path in sorted(pathlib.Path("/usr/share/doc/postgresql-doc-15/html").glob("*.html")):
        for p in re.findall(r"<p>(.*?)</p>", path.read_text("utf-8", "replace"), re.S):
            text = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", "", p))).strip()
            if len(text) > 120:
                manual.append(text)
    return [part.encode("ascii", "ignore") for part in (bible, jargon, "\n\n".join(manual))]


def headers():
    """Boost 1.74 (Boost Software License 1.0): training text and the held-out libraries."""
    train, held = [], []
    for path in sorted(BOOST.rglob("*.hpp")):
        name = path.relative_to(BOOST)
        if SKIPPED.search("/" + str(name)) or path.stat().st_size > 100_000:
            continue
        (held if name.parts[0] in HELD_OUT else train).append(path.read_bytes())
    np.random.default_rng(1).shuffle(train)
    return b"\n".join(train), b"\n".join(held)[:HELD_OUT_BYTES]


def ids(text):
    return torch.from_numpy(np.frombuffer(text, np.uint8).astype(np.int64))


@torch.no_grad()
def evaluate(model, tokens, windows=200):
    """Mean cross-entropy in nats a byte over the first windows of CONTEXT bytes."""
    n = min(windows, (len(tokens) - 1) // CONTEXT)
    x = tokens[: n * CONTEXT].view(n, CONTEXT)
    y = tokens[1 : n * CONTEXT + 1].view(n, CONTEXT)
    total = sum(F.cross_entropy(model(a).flatten(0, 1), b.flatten(), reduction="sum").item() for a, b in zip(x.split(BATCH), y.split(BATCH)))
    return total / x.numel()


def train(model, sources, weights, steps, rate, decay, minutes, report):
    """AdamW, linear warm-up and cosine decay; ends after `steps` or, if sooner, with the decay at `minutes`."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.95), weight_decay=decay)
    random = np.random.default_rng(2)
    start, progress, step, mean = time.time(), 0.0, 0, None
    while progress < 1:
        progress = max(step / steps, (time.time() - start) / (60 * minutes))
        for group in optimizer.param_groups:
            group["lr"] = rate * min((step + 1) / 50, 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * min(progress, 1))))
        rows = []
        for _ in range(BATCH):
            tokens = sources[random.choice(len(sources), p=weights)]
            i = random.integers(len(tokens) - CONTEXT)
            rows.append(tokens[i : i + CONTEXT + 1])
        batch = torch.stack(rows)
        loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        step += 1
        if step % 100 == 0 or progress >= 1:
            print(f"step {step} loss {mean:.4f} {(time.time() - start) / step:.2f} s/step {report(model)}", flush=True)
    return step


def round_to_bfloat16(model):
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.to(torch.bfloat16).float())


def save(model, path, metadata):
    tensors = {name: p.detach().to(torch.bfloat16).view(torch.int16).numpy() for name, p in model.named_parameters()}
    header, offset = {"__metadata__": metadata}, 0
    for name, t in tensors.items():
        header[name] = {"dtype": "BF16", "shape": list(t.shape), "data_offsets": [offset, offset + t.nbytes]}
        offset += t.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(t.tobytes() for t in tensors.values()))
    os.replace(temporary, path)


def load(path):
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8:begin]).items():
        if name != "__metadata__":
            first, last = (begin + offset for offset in entry["data_offsets"])
            bits = torch.from_numpy(np.frombuffer(data[first:last], np.int16).copy())
            tensors[name] = bits.view(torch.bfloat16).float().view(entry["shape"])
    return tensors


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, nargs=2, default=(2600, 500), help="of the base and of the fine-tune")
    parser.add_argument("--rates", type=float, nargs=2, default=(1.5e-3, 8e-5))
    parser.add_argument("--minutes", type=float, nargs=2, default=(1e9, 1e9), help="upper bounds on the time")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--base", type=pathlib.Path, help="fine-tune this base instead of training one")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)

    books = prose()
    code, held = headers()
    (args.out / "heldout.txt").write_bytes(held)
    prose_held = ids(b"\n".join(b[-20_000:] for b in books))
    sources = [ids(b[:-20_000]) for b in books]
    print("prose", [len(s) for s in sources], "headers", len(code), "held out", len(held), flush=True)
    sizes = np.array([len(s) for s in sources], float)
    code, held = ids(code), ids(held)

    def both(model, windows=40):
        return {"prose": round(evaluate(model, prose_held, windows), 4), "headers": round(evaluate(model, held, windows), 4)}

    model, losses = Gpt(), {}
    print("parameters", sum(p.numel() for p in model.parameters()), flush=True)

    def run(name, texts, weights, stage, decay):
        taken = train(model, texts, weights, args.steps[stage], args.rates[stage], decay, args.minutes[stage], both)
        round_to_bfloat16(model)
        losses[name] = {"steps": taken, "rate": args.rates[stage], **both(model, 10**6)}
        save(model, args.out / f"{name}.safetensors", {"format": "pt"})
        (args.out / "losses.json").write_text(json.dumps(losses, indent=2) + "\n")
        print(name, losses[name], flush=True)

    if args.base:
        model.load_state_dict(load(args.base))
    else:
        run("base", sources, sizes / sizes.sum(), 0, 0.1)
    # A gentle fine-tune: bytes and positions mean what they meant, and nothing decays to zero.
    model.embed.weight.requires_grad_(False)
    model.position.weight.requires_grad_(False)
    run("tuned", [code], [1.0], 1, 0.0)


if __name__ == "__main__":
    main()
