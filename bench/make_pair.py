#!/usr/bin/env python3
"""Writes a pair of models of any size, to measure time and memory of the command line tool.

    python3 bench/make_pair.py DIR --gigabytes 1 --dtype BF16
    /usr/bin/time -v deltadct compress DIR/base.safetensors DIR/tuned.safetensors -o DIR/delta

    python3 bench/make_pair.py DIR --gigabytes 4 --sharded
    bench_checkpoint DIR/base DIR/tuned DIR/work

Each model has square matrices, 4096 x 4096, of normal weights; those of the tuned model differ by a
tenth of their size. Needs numpy.
"""
import argparse
import json
import pathlib

import numpy as np

SIDE = 4096


def to_bfloat16(x):
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def header(first, count, dtype, item):
    size = SIDE * SIDE * item
    tensors = {
        f"layers.{first + k}.weight": {
            "dtype": dtype, "shape": [SIDE, SIDE], "data_offsets": [k * size, (k + 1) * size]}
        for k in range(count)
    }
    text = json.dumps(tensors).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


class Writer:
    """A model of `count` matrices, in one file or in shards of `per_shard`."""

    def __init__(self, path, count, per_shard, dtype, item):
        self.path, self.count, self.per_shard = path, count, per_shard
        self.dtype, self.item, self.written, self.file = dtype, item, 0, None
        if per_shard:
            path.mkdir(exist_ok=True)
            self.write_index()

    def name(self, shard):
        if not self.per_shard:
            return self.path.with_suffix(".safetensors")
        shards = -(-self.count // self.per_shard)
        return self.path / f"model-{shard + 1:05}-of-{shards:05}.safetensors"

    def write_index(self):
        weights = {f"layers.{k}.weight": self.name(k // self.per_shard).name
                   for k in range(self.count)}
        total = self.count * SIDE * SIDE * self.item
        index = {"metadata": {"total_size": total}, "weight_map": weights}
        (self.path / "model.safetensors.index.json").write_text(json.dumps(index))

    def write(self, data):
        per_shard = self.per_shard or self.count
        if self.written % per_shard == 0:
            self.file = open(self.name(self.written // per_shard), "wb")
            here = min(per_shard, self.count - self.written)
            self.file.write(header(self.written, here, self.dtype, self.item))
        self.file.write(data)
        self.written += 1
        if self.written % per_shard == 0 or self.written == self.count:
            self.file.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of each model")
    parser.add_argument("--dtype", choices=("BF16", "F32"), default="BF16")
    parser.add_argument("--sharded", action="store_true",
                        help="folders of shards, cut differently for base and tuned")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    item, convert = (2, to_bfloat16) if args.dtype == "BF16" else (4, lambda x: x)
    count = max(1, -(-int(args.gigabytes * 1e9) // (SIDE * SIDE * item)))
    random = np.random.default_rng(1)
    base = Writer(args.folder / "base", count, 28 if args.sharded else 0, args.dtype, item)
    tuned = Writer(args.folder / "tuned", count, 17 if args.sharded else 0, args.dtype, item)
    for _ in range(count):
        weights = random.standard_normal((SIDE, SIDE), dtype=np.float32)
        change = 0.1 * random.standard_normal((SIDE, SIDE), dtype=np.float32)
        base.write(convert(weights).tobytes())
        tuned.write(convert(weights + change).tobytes())
    gigabytes = count * SIDE * SIDE * item / 1e9
    print(f"{count} tensors, {gigabytes:.2f} GB each, in {args.folder}")


if __name__ == "__main__":
    main()
