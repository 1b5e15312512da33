#!/usr/bin/env python3
"""Writes a pair of models as large as wanted, to measure time and memory of the command line tool.

    python3 bench/make_pair.py DIR --gigabytes 1 --dtype BF16
    /usr/bin/time -v deltadct compress DIR/base.safetensors DIR/tuned.safetensors -o DIR/delta

Each model has square matrices, 4096 x 4096, of normal weights; the tuned one's differ by a tenth of
their size. Needs numpy.
"""
import argparse
import json
import pathlib

import numpy as np

SIDE = 4096


def to_bfloat16(x):
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def header(count, dtype, item):
    size = SIDE * SIDE * item
    tensors = {
        f"layers.{k}.weight": {"dtype": dtype, "shape": [SIDE, SIDE], "data_offsets": [k * size, (k + 1) * size]}
        for k in range(count)
    }
    text = json.dumps(tensors).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of each model")
    parser.add_argument("--dtype", choices=("BF16", "F32"), default="BF16")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    item, convert = (2, to_bfloat16) if args.dtype == "BF16" else (4, lambda x: x)
    count = max(1, -(-int(args.gigabytes * 1e9) // (SIDE * SIDE * item)))
    random = np.random.default_rng(1)
    with open(args.folder / "base.safetensors", "wb") as base, open(args.folder / "tuned.safetensors", "wb") as tuned:
        for file in (base, tuned):
            file.write(header(count, args.dtype, item))
        for _ in range(count):
            weights = random.standard_normal((SIDE, SIDE), dtype=np.float32)
            base.write(convert(weights).tobytes())
            tuned.write(convert(weights + 0.1 * random.standard_normal((SIDE, SIDE), dtype=np.float32)).tobytes())
    print(f"{count} tensors, {count * SIDE * SIDE * item / 1e9:.2f} GB each, in {args.folder}")


if __name__ == "__main__":
    main()
