#!/usr/bin/env python3
"""Writes docs/fidelity.md and its plots from the results of bench_fidelity.

    cmake --build build/release --target fidelity-report

Rewrites the text between the page's two markers and keeps the rest.
"""

import json
import math
import pathlib
import statistics
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as pyplot

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "fidelity.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

PAPER, BIT_DELTA, COME = "Delta-DCT, P = 16", "BitDelta", "Delta-CoMe 8+3+2"
COME_CUT = "Delta-CoMe, ranks cut to 1.07"
LOW = "unit gain, 0.15 bpw, P = 32"
COMPARED = [
    PAPER, BIT_DELTA, "BitDelta, a scale a row", "BitDelta, a scale a column", COME, COME_CUT,
    "DARE, p = 0.5", "DARE, p = 0.9375", "UltraDelta, s = 0.5", "UltraDelta, s = 0.97",
    "unit gain, 1 bit, P = 16", "unit gain, 1 bit, P = 32", "unit gain, 1 bit, P = 64",
    "unit gain, 1.07 bpw, P = 16", "unit gain, 1.07 bpw, P = 32", "unit gain, 1.07 bpw, P = 64", "unit gain, 2 bpw, P = 32", "unit gain, 0.5 bpw, P = 32", LOW, "unit gain, 0.15 bpw, P = 64"]
GROUPS = {  # groups of a plot
    "paper": ("Delta-DCT", "tab:red", "o"), "BitDelta": ("BitDelta", "tab:purple", "s"),
    "Delta-CoMe": ("Delta-CoMe", "tab:green", "^"), "DARE": ("DARE", "tab:brown", "v"),
    "UltraDelta": ("UltraDelta", "tab:orange", "D"),
    "unit gain, P = 32": ("unit gain, P = 32", "tab:blue", "o"),
    "unit gain, P = 64": ("unit gain, P = 64", "tab:cyan", "x")}
SHOWN = [BIT_DELTA, COME, "DARE, p = 0.9375", "UltraDelta, s = 0.97", PAPER,
         "unit gain, 1.07 bpw, P = 32", LOW]
DEFAULT = "unit gain, 1.07 bpw, P = 32"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(["---"] + ["---:"] * (len(head) - 1)) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


class Pair:
    def __init__(self, data):
        self.data = data
        self.rows = {row["name"]: row for row in data["rows"] if "bpw" in row}

    @property
    def task(self):
        return self.data["task"]

    def group(self, name):
        return [row for row in self.data["rows"] if row["group"] == name and "bpw" in row]

    def cell(self, name, *keys):
        """The numbers of a row, or a dash if there is no such row."""
        row = self.rows.get(name)
        if row is None:
            return "-"
        shown = {"bpw": "{:.3f}", "excess": "{:.4f}", "right": "{:.1%}", "snr": "{:.2f}",
                 "gain": "{:.3f}", "cosine": "{:.3f}", "encode": "{:.0f}", "decode": "{:.0f}"}
        scale = {"encode": 1e3, "decode": 1e3}  # to milliseconds
        return " / ".join(shown[key].format(row[key] * scale.get(key, 1)).replace("%", " %")
                          for key in keys)

    def at_least_noise(self, name):
        """The excess, or its standard error if that is larger."""
        row = self.rows[name]
        return max(row["excess"], row["error"])


def by_task(pairs, names, *keys, head="method"):
    return table([head, *(pair.task for pair in pairs)],
                 [[name, *(pair.cell(name, *keys) for pair in pairs)] for name in names])


def curve(pairs, group, label, values, show):
    """A table of an ablation: a column per setting, a row per task."""
    rows = []
    for pair in pairs:
        found = {row["x"]: row for row in pair.group(group)}
        rows.append([pair.task, *(f"{found[x]['excess']:.4f}" if x in found else "-" for x in values)])
    return table([label, *(show(x) for x in values)], rows)


def targets(pairs):
    """Compares the preset with the paper's codec, BitDelta and Delta-CoMe."""
    rows, ratios = [], []
    for pair in pairs:
        paper = pair.rows[PAPER]
        ratio = paper["excess"] / pair.at_least_noise(DEFAULT)
        if paper["excess"] > 2 * paper["error"]:
            ratios.append(ratio)
        rows.append([
            pair.task, f"{paper['excess']:.4f}", *(pair.cell(name, "excess") for name in (
                DEFAULT, BIT_DELTA, COME, COME_CUT, LOW)),
            f"{pair.rows[DEFAULT]['error']:.4f}", f"{ratio:.0f}"])
    mean = math.exp(statistics.fmean(math.log(ratio) for ratio in ratios))
    text = table(["excess", "paper, P = 16", "unit gain, 1.07 bpw, P = 32", "BitDelta", "Delta-CoMe",
                  "... cut to 1.07 bpw", "unit gain at 0.15 bpw", "noise", "paper / unit gain"], rows)
    return (f"{text}\n\nIf the excess is below the noise, the last column divides by the noise. Its geometric "
            f"mean is {mean:.0f}, its minimum {min(ratios):.0f}.")


def plot_excess(pairs, path):
    figure, panels = pyplot.subplots(1, len(pairs), figsize=(3.6 * len(pairs), 4), sharex=True)
    for axes, pair in zip(panels, pairs):
        for group, (label, color, marker) in GROUPS.items():
            rows = sorted(pair.group(group), key=lambda row: row["bpw"])
            axes.plot([row["bpw"] for row in rows], [max(row["excess"], 1e-4) for row in rows],
                      marker=marker, color=color, label=label, markersize=4, linewidth=1)
        axes.axhline(pair.rows[DEFAULT]["error"], color="grey", linestyle=":", linewidth=1)
        axes.set(xscale="log", yscale="log", title=pair.task, xlabel="honest bits a weight")
    panels[0].set_ylabel("excess cross-entropy, nats")
    panels[-1].legend(fontsize="x-small")
    save(figure, path)


def plot_histograms(pair, path):
    figure, axes = pyplot.subplots(figsize=(8, 4))
    places = [-3 + (k + 0.5) / 20 for k in range(120)]
    for name in SHOWN:
        if name not in pair.rows:
            continue
        counts = pair.rows[name]["histogram"]
        axes.step(places, [count / sum(counts) * 20 + 1e-4 for count in counts], where="mid", label=name,
                  linewidth=1)
    axes.plot(places, [math.exp(-x * x / 2) / math.sqrt(2 * math.pi) for x in places], color="black",
              linestyle=":", label="a normal delta")
    axes.set(yscale="log", xlabel="reconstructed delta / deviation of the delta", ylabel="density")
    axes.legend(fontsize="x-small")
    save(figure, path)


def plot_storage(rows, path):
    figure, axes = pyplot.subplots(figsize=(6, 4))
    base = 2 * 6.738415616e9
    tasks = range(1, 51)
    axes.plot(tasks, [n * base / 1e9 for n in tasks], color="black", label="full models, bf16")
    for row in rows:
        if row["patch"] in (8, 16, 64):
            axes.plot(tasks, [(base + n * row["bytes"]) / 1e9 for n in tasks],
                      label=f"{row['method']}, P = {row['patch']}",
                      linestyle="--" if row["method"] == "Delta-DCT" else "-")
    axes.set(xlabel="tasks", ylabel="GB", yscale="log")
    axes.legend(fontsize="x-small")
    save(figure, path)


def save(figure, path):
    figure.tight_layout()
    matplotlib.rcParams.update({"svg.hashsalt": "deltadct", "svg.fonttype": "none"})
    figure.savefig(path, metadata={"Date": None})


def storage_table(rows):
    return table(
        ["a delta of 7B", "P", "GB", "bits a weight", "50 tasks and the base, GB",
         "one 4096 x 11008 matrix, calculated", "... encoded"],
        [[row["method"], str(row["patch"]), f"{row['bytes'] / 1e9:.3f}",
          f"{8 * row['bytes'] / 6.738149376e9:.3f}", f"{(13.477e9 + 50 * row['bytes']) / 1e9:.1f}",
          f"{row['layer_calculated']:,}", f"{row['layer_encoded']:,}"] for row in rows])


def main():
    data = json.loads(pathlib.Path(sys.argv[1]).read_text())
    pairs = [Pair(pair) for pair in data["pairs"]]
    images = ROOT / "docs"
    plot_excess(pairs, images / "fidelity.svg")
    plot_histograms(pairs[0], images / "fidelity_histogram.svg")
    plot_storage(data["storage"], images / "fidelity_storage.svg")
    compared = [name for name in COMPARED if any(name in pair.rows for pair in pairs)]
    sizes = (8, 12, 16, 32, 64)
    measured = f"""{BEGIN}
## What a model loses

The GPTs read {data['windows']} windows of 256 bytes; the vision transformers see 500 (digits) or 2,000 images.

{table(["", *(pair.task for pair in pairs)], [
    ["cross-entropy of the base", *(f"{pair.data['base_loss']:.4f}" for pair in pairs)],
    ["... of the fine-tune", *(f"{pair.data['loss']:.4f}" for pair in pairs)],
    ["right answers of the base", *(f"{pair.data['base_right']:.1%}".replace('%', ' %') for pair in pairs)],
    ["... of the fine-tune", *(f"{pair.data['right']:.1%}".replace('%', ' %') for pair in pairs)]])}

Bits per weight, with every byte of the archive counted, and excess cross-entropy over the fine-tune:

{by_task(pairs, compared, "bpw", "excess")}

![Excess cross-entropy against bits a weight, every method](fidelity.svg)

Points below 0.0001 are drawn at 0.0001; the dotted line is the standard error of the excess. Right answers:

{by_task(pairs, compared, "right")}

The preset compared with the others:

{targets(pairs)}

## What a delta looks like

SNR in dB, gain <D, D^> / <D, D>, cosine:

{by_task(pairs, compared, "snr", "gain", "cosine")}

![Histograms of the reconstructed deltas](fidelity_histogram.svg)

Milliseconds to encode and to decode the whole model, once, on a shared machine, with two threads for methods that
use them. The methods of others are written for comparison, not for speed:

{by_task(pairs, compared, "encode", "decode")}

## The paper's ablations

The tables give excess cross-entropy. Patch sizes, with the DCT and without:

{curve(pairs, "paper", "with", sizes, lambda p: f"P = {p:g}")}

{curve(pairs, "without DCT", "without", sizes, lambda p: f"P = {p:g}")}

P = 16 without the rescale:

{by_task(pairs, [PAPER, PAPER + ", without rescale"], "excess", "gain", head="excess / gain")}

The same width for all patches, P = 16:

{curve(pairs, "bits everywhere", "bits", (1, 2, 4, 6, 8), lambda b: f"{b:g}")}

Share of dropped patches, P = 16. The rest has 8 bits, and an error of at most a thousandth of the delta's energy:

{curve(pairs, "patch sparsity", "dropped", [k / 10 for k in range(1, 10)], lambda s: f"{s:.0%}".replace("%", " %"))}

## Unit gain

{chr(10).join(chr(10) + curve(pairs, f"unit gain, P = {p}", f"P = {p}, at", (0.1, 0.15, 0.25, 0.5, 1.07, 2, 3, 4), lambda b: f"{b:g} bpw") for p in (16, 32, 64))}

A dash means that the archive cannot be that small, or need not be that large.

{curve(pairs, "unit gain", "1 bit", (16, 32, 64), lambda p: f"P = {p:g}")}

## What many tasks take

The sizes are calculated for all matrices of a model with the shapes of Llama 2 7B. For one of its matrices, the
calculated size stands beside that of a real encode:

{storage_table(data['storage'])}

![Storage over the number of tasks](fidelity_storage.svg)
{END}"""
    page = PAGE.read_text() if PAGE.exists() else f"# Fidelity\n\n{BEGIN}\n{END}\n"
    before, rest = page.split(BEGIN)
    PAGE.write_text(before + measured + rest.split(END)[1])
    print(measured)


if __name__ == "__main__":
    main()
