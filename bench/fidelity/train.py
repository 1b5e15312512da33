#!/usr/bin/env python3
"""Trains the models that bench/fidelity judges besides the demo's pair: fine-tunes of two bases.

    apt-get install python3-torch libopenblas0-pthread python3-sklearn dataset-fashion-mnist libpython3.11-stdlib
    MALLOC_MMAP_MAX_=0 MALLOC_TOP_PAD_=4000000000 python3 train.py --gpt BASE --out DIR

BASE is the demo's base.safetensors. Writes to DIR, weights in bfloat16:

    python.safetensors    the demo's GPT, fine-tuned on Python; judged on heldout.txt
    vit.safetensors       a vision transformer that tells ten kinds of clothes apart (Fashion-MNIST)
    digits, negative, rotation .safetensors    its fine-tunes, see TASKS
    images.bin            the images on which these are judged: see write_images()
    losses.json           the loss that each reached

The vision transformer has 16 patches of 7 x 7 pixels, learned positions, three of the GPT's blocks
without the mask, the mean of the tokens, and ten classes. Corpora and licences: see README.md here.
"""
import argparse
import gzip
import importlib.util
import json
import math
import pathlib
import time

import numpy as np
import sklearn.datasets
import torch
import torch.nn as nn
import torch.nn.functional as F

HERE = pathlib.Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("gpt", HERE.parent.parent / "examples/char_gpt/train.py")
gpt = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpt)

WIDTH, LAYERS, SIDE, PATCH, CLASSES, BATCH = 192, 3, 28, 7, 10, 64
JUDGED = 2000
STDLIB = pathlib.Path("/usr/lib/python3.11")
# Whole packages are held out, so that training sees no text of theirs.
HELD_OUT = ("asyncio", "email", "importlib", "json", "logging")
SKIPPED = ("test", "idlelib", "lib2to3", "pydoc_data", "encodings", "__pycache__", "config-", "dist-packages")


class VisionTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(PATCH * PATCH, WIDTH, bias=False)
        self.position = nn.Embedding((SIDE // PATCH) ** 2, WIDTH)
        self.blocks = nn.ModuleList(gpt.Block(WIDTH) for _ in range(LAYERS))
        self.norm = gpt.RmsNorm(WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES, bias=False)
        self.register_buffer("mask", torch.zeros(len(self.position.weight), len(self.position.weight)), persistent=False)
        gpt.initialize(self, LAYERS)

    def forward(self, images):
        n = SIDE // PATCH
        x = images.view(-1, n, PATCH, n, PATCH).transpose(2, 3).reshape(-1, n * n, PATCH * PATCH)
        x = self.embed(x) + self.position.weight
        for block in self.blocks:
            x = block(x, self.mask)
        return self.head(self.norm(x).mean(1))


def clothes(part):
    """Fashion-MNIST (MIT): images of 28 x 28 bytes, and their classes."""
    folder = pathlib.Path("/usr/share/datasets/fashion-mnist")
    read = lambda what, skip: np.frombuffer(gzip.open(folder / f"{part}-{what}-ubyte.gz").read(), np.uint8)[skip:]
    return read("images-idx3", 16).reshape(-1, SIDE, SIDE), read("labels-idx1", 8)


def digits():
    """The UCI handwritten digits (CC BY 4.0), pixels enlarged three times, in a frame of two."""
    data = sklearn.datasets.load_digits()
    images = np.kron(np.rint(data.images * 255 / 16).astype(np.uint8), np.ones((1, 3, 3), np.uint8))
    order = np.random.default_rng(5).permutation(len(images))
    return np.pad(images, ((0, 0), (2, 2), (2, 2)))[order], data.target.astype(np.uint8)[order]


def rotated(images, labels):
    """Turns the images; the label of each is the number of its quarter turns."""
    turns = np.arange(len(images)) % 4
    return np.stack([np.rot90(image, turn) for image, turn in zip(images, turns)]), turns.astype(np.uint8)


def tensors(data):
    images, labels = data
    return torch.from_numpy(images.astype(np.float32) / 127.5 - 1), torch.from_numpy(labels.astype(np.int64))


@torch.no_grad()
def judge(model, data):
    images, labels = data
    logits = torch.cat([model(part) for part in images.split(500)])
    return {"loss": round(F.cross_entropy(logits, labels).item(), 4),
            "right": round((logits.argmax(1) == labels).float().mean().item(), 4)}


def fit(model, data, judged, epochs, rate, decay):
    """AdamW, linear warm-up and cosine decay. A fine-tune keeps its positions unchanged."""
    images, labels = data
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.95), weight_decay=decay)
    random, step, start = torch.Generator().manual_seed(3), 0, time.time()
    steps = int(epochs * len(images) / BATCH)
    while step < steps:
        for rows in torch.randperm(len(images), generator=random).split(BATCH):
            if step == steps:
                break
            for group in optimizer.param_groups:
                group["lr"] = rate * min((step + 1) / 50, 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / steps)))
            loss = F.cross_entropy(model(images[rows]), labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            step += 1
            if step % 500 == 0 or step == steps:
                print(f"step {step}/{steps} {time.time() - start:.0f} s {judge(model, judged)}", flush=True)
    gpt.round_to_bfloat16(model)
    return {"steps": steps, "rate": rate, **judge(model, judged)}


def write_images(path, sets):
    """Writes for each set a line "name count", then its images and its labels, all as bytes."""
    with open(path, "wb") as out:
        for name, (images, labels) in sets.items():
            out.write(f"{name} {len(images)}\n".encode() + images.tobytes() + labels.tobytes())


def train_vit(out, losses):
    train, test = clothes("train"), tuple(part[:JUDGED] for part in clothes("t10k"))
    ours = digits()
    split = 500
    # The images of the other two sets are not stored: a rotated image is turned as rotated() says,
    # and a negative one is 255 minus the original.
    write_images(out / "images.bin", {"clothes": test, "digits": tuple(part[:split] for part in ours)})
    sets = {
        "digits": (tuple(part[split:] for part in ours), tuple(part[:split] for part in ours), 40, 2e-4),
        "negative": ((255 - train[0], train[1]), (255 - test[0], test[1]), 0.7, 2e-4),
        "rotation": (rotated(*train), rotated(*test), 0.7, 2e-4),
    }
    model = VisionTransformer()
    print("parameters", sum(p.numel() for p in model.parameters()), flush=True)
    losses["vit"] = fit(model, tensors(train), tensors(test), 6, 1e-3, 0.05)
    gpt.save(model, out / "vit.safetensors", {"format": "pt"})
    base = gpt.load(out / "vit.safetensors")
    for name, (seen, judged, epochs, rate) in sets.items():
        model.load_state_dict(base)
        model.position.weight.requires_grad_(False)
        judged = tensors(judged)
        before = judge(model, judged)
        losses[name] = {"before": before, **fit(model, tensors(seen), judged, epochs, rate, 0.0)}
        gpt.save(model, out / f"{name}.safetensors", {"format": "pt"})
        print(name, losses[name], flush=True)


def python_texts():
    """The standard library of Python 3.11 (PSF licence): training text, and held-out packages."""
    train, held = [], []
    for path in sorted(STDLIB.rglob("*.py")):
        name = path.relative_to(STDLIB)
        if any(part.startswith(SKIPPED) for part in name.parts) or path.stat().st_size > 100_000:
            continue
        (held if name.parts[0] in HELD_OUT else train).append(path.read_bytes())
    np.random.default_rng(1).shuffle(train)
    np.random.default_rng(1).shuffle(held)
    keep = lambda texts: b"\n".join(texts).decode("utf-8", "replace").encode("ascii", "ignore")
    return keep(train), keep(held)[: gpt.HELD_OUT_BYTES]


def train_gpt(base, out, losses):
    code, held = python_texts()
    (out / "heldout.txt").write_bytes(held)
    print("python", len(code), "held out", len(held), flush=True)
    code, held = gpt.ids(code), gpt.ids(held)
    model = gpt.Gpt()
    model.load_state_dict(gpt.load(base))
    model.embed.weight.requires_grad_(False)
    model.position.weight.requires_grad_(False)
    before = round(gpt.evaluate(model, held, 10**6), 4)
    steps = gpt.train(model, [code], [1.0], 400, 1.5e-4, 0.0, 1e9, lambda m: round(gpt.evaluate(m, held, 40), 4))
    gpt.round_to_bfloat16(model)
    losses["python"] = {"before": before, "steps": steps, "rate": 1.5e-4, "loss": round(gpt.evaluate(model, held, 10**6), 4)}
    gpt.save(model, out / "python.safetensors", {"format": "pt"})
    print("python", losses["python"], flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gpt", type=pathlib.Path, required=True, help="the demo's base.safetensors")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--only", choices=("vit", "gpt"), help="train just these")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    losses = {}
    if args.only != "gpt":
        train_vit(args.out, losses)
    if args.only != "vit":
        train_gpt(args.gpt, args.out, losses)
    (args.out / "losses.json").write_text(json.dumps(losses, indent=2) + "\n")


if __name__ == "__main__":
    main()
