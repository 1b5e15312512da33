#!/usr/bin/env python3
"""Writes the results of bench_cuda and bench_vkfft into docs/benchmarks.md, between its markers.

    report.py LINES.jsonl
"""
import datetime
import json
import pathlib
import sys

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs/benchmarks.md"
BEGIN, END = "<!-- cuda: begin -->", "<!-- cuda: end -->"
TARGETS = {"decode_add": {8: 0.80, 16: 0.80, 32: 0.70, 64: 0.55}, "encode": {16: 0.45}}
PATCHES = (8, 16, 32, 64)


def version(number):
    return f"{number // 1000}.{number % 1000 // 10}"


def kind(name):
    return name.split(",")[0]


def table(title, names, results, cell):
    lines = [f"| {title} | " + " | ".join(f"P = {p}" for p in PATCHES) + " |",
             "|---|" + "---:|" * len(PATCHES)]
    for name in names:
        cells = [cell(name, p) if (name, p) in results else "" for p in PATCHES]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def main():
    lines = [json.loads(line) for line in open(sys.argv[1]) if line.startswith("{")]
    device = next(line for line in lines if "device" in line)
    results = {(line["name"], line["patch"]): line for line in lines if "name" in line}
    copy = results["copy", 0]["gb_s"]

    def fraction(name, patch):
        share = results[name, patch]["gb_s"] / copy
        target = TARGETS.get(kind(name), {}).get(patch)
        return f"**{share:.2f}**" if target and share >= target else f"{share:.2f}"

    names = list(dict.fromkeys(name for name, _ in results))
    codec = [name for name in names if kind(name) in ("encode", "decode_add", "decode")]
    transforms = [name for name in names if kind(name) in ("forward", "inverse")]
    out = [BEGIN,
           f"{device['device']}, driver {version(device['driver'])}, runtime "
           f"{version(device['runtime'])}, {datetime.date.today()}. 8192 x 8192 weights in bf16, four "
           f"buffers in turn; medians of 11 repetitions. A copy in device memory moves "
           f"{copy:.0f} GB/s, reads and writes together.", ""]
    out += table("of the copy's bandwidth", codec, results, fraction)
    out += ["", "Bold figures reach their target (0.80, 0.80, 0.70 and 0.55 for decode_add, 0.45 for "
            "encode at P = 16).", ""]
    out += table("10^9 weights a second", codec, results,
                 lambda name, p: f"{results[name, p]['weights_s'] / 1e9:.0f}")
    slowest = min(results[name, 16]["weights_s"] for name in codec
                  if kind(name) == "decode_add" and (name, 16) in results)
    out += ["", f"Eight billion weights at P = 16 take {8e9 / slowest * 1e3:.1f} ms.", "",
            "The DCT alone, on the same number of floats:", ""]
    out += table("GB/s", transforms, results, lambda name, p: f"{results[name, p]['gb_s']:.0f}")
    out.append(END)

    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(before + "\n".join(out) + rest.split(END)[1])
    print("\n".join(out[1:-1]))


if __name__ == "__main__":
    main()
