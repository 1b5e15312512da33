#!/usr/bin/env python3
"""Runs the benchmarks in interleaved repetitions and writes docs/benchmarks.md with its plot.

    cmake --build build/release --target bench-report

Rewrites the text between the page's two markers and keeps the rest. Ratios are taken within each
repetition, between figures measured moments apart; the page shows the median of these ratios.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import tempfile
import time

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as pyplot

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
PLOT = ROOT / "docs" / "benchmarks.svg"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

SIZES = (8, 12, 16, 32, 64)
OVER_FFTW = dict(zip(SIZES, (4.5, 10, 12, 8, 8)))
OVER_EIGEN = dict(zip(SIZES, (3.5, 4, 4, 4.3, 6)))
DECODE_ADD = dict(zip(SIZES, (0.65, 0.45, 0.5, 0.32, 0.27)))
ENCODE, THREADS, COMPILE_SECONDS = 0.4, 1.8, 6


class Runs:
    """Bytes per second by benchmark, program run and repetition, and the last counters of each."""

    def __init__(self):
        self.rates = {}
        self.counters = {}

    def add(self, program, what, repetitions, seconds):
        """Runs the benchmarks that match a regular expression. Fewer of them are closer in time."""
        with tempfile.NamedTemporaryFile(suffix=".json") as out:
            subprocess.run(
                [program, f"--benchmark_filter={what}",
                 f"--benchmark_repetitions={repetitions}",
                 "--benchmark_enable_random_interleaving=true",
                 f"--benchmark_min_time={seconds}",
                 f"--benchmark_out={out.name}", "--benchmark_out_format=json"],
                check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            report = json.load(out)
        for run in report["benchmarks"]:
            if run["run_type"] != "iteration":
                continue
            name = f"{pathlib.Path(program).name}:{run['run_name']}"
            moment = (what, run["repetition_index"])
            self.rates.setdefault(name, {})[moment] = run["bytes_per_second"]
            self.counters[name] = run

    def rate(self, name):
        """The median in GB/s, or None if the benchmark was not measured."""
        runs = self.rates.get(name)
        return statistics.median(runs.values()) / 1e9 if runs else None

    def ratio(self, name, other):
        mine, its = self.rates.get(name), self.rates.get(other)
        if not mine or not its:
            return None
        return statistics.median(mine[k] / its[k] for k in mine.keys() & its.keys())


def number(value, digits=2):
    return "-" if value is None else f"{value:.{digits}f}"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(["---"] + ["---:"] * (len(head) - 1)) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def against(value, target):
    """The value, bold if it reaches the target."""
    if value is None:
        return "-"
    return f"**{value:.2f}**" if value >= target else f"{value:.2f}"


class Report:
    def __init__(self, runs, compile_seconds):
        self.runs = runs
        self.compile_seconds = compile_seconds

    def dct(self, backend, size, direction, kind="f32", side=512):
        return f"bench_dct:dct/backend:{backend}/P:{size}/{direction}/type:{kind}/side:{side}"

    def fftw_best(self, size, direction):
        names = [self.dct("fftw" + form, size, direction)
                 for form in ("", "-patch", "-batch", "-separable", "-matrix")]
        measured = [name for name in names if self.runs.rate(name)]
        return max(measured, key=self.runs.rate, default=None)

    def worse(self, size, other):
        """The ratio of the SIMD backend to other(size, direction), for the worse direction."""
        ratios = [self.runs.ratio(self.dct("simd", size, way), other(size, way))
                  for way in ("forward", "inverse")]
        return None if None in ratios else min(ratios)

    def decode(self, size, bits=2, kind="f32", side=4096, what="decode_add"):
        return f"bench_codec:{what}/P:{size}/type:{kind}/bits:{bits}/side:{side}"

    def encode(self, size, bits="paper", kind="f32", side=4096, what="encode"):
        return f"bench_codec:{what}/P:{size}/type:{kind}/bits:{bits}/side:{side}"

    @staticmethod
    def memory(what, kind="f32", side=4096, program="bench_codec"):
        return f"{program}:{what}/type:{kind}/side:{side}"

    def targets(self):
        fftw = {p: self.worse(p, self.fftw_best) for p in SIZES}
        eigen = {p: self.worse(p, lambda size, way: self.dct("eigen", size, way)) for p in SIZES}
        rmw = self.memory("read_modify_write")
        added = {p: self.runs.ratio(self.decode(p), rmw) for p in SIZES}

        def rows(text, values, goals):
            return [[text] + [against(values[p], goals[p]) for p in SIZES],
                    ["... target"] + [f"{goals[p]:g}" for p in SIZES]]

        small = [self.decode(16, side=1024, what=f"decode_add_threads:{n}") + "/real_time" for n in (1, 2)]
        encode = self.runs.ratio(self.encode(16), self.memory("memcpy"))
        threads = self.runs.ratio(small[1], small[0])
        text = table(
            ["ratio", *(f"P = {p}" for p in SIZES)],
            rows("SIMD DCT / the best FFTW plan, 512 x 512 float", fftw, OVER_FFTW)
            + rows("SIMD DCT / Eigen's products, 512 x 512 float", eigen, OVER_EIGEN)
            + rows("decode_add in place, 2 bits / read-modify-write, 4096 x 4096 float", added, DECODE_ADD))
        more = table(
            ["", "measured", "target"],
            [["encode from base and tuned, paper's mix, P = 16 / memcpy of one of them, 4096 x 4096 float",
              against(encode, ENCODE), f"{ENCODE}"],
             ["decode_add with two threads / one, in cache, P = 16, 1024 x 1024 float",
              against(threads, THREADS), f"{THREADS}"],
             ["seconds to compile codec.hpp with one P, -O2",
              f"{'**' if self.compile_seconds < COMPILE_SECONDS else ''}{self.compile_seconds:.1f}"
              f"{'**' if self.compile_seconds < COMPILE_SECONDS else ''}", f"below {COMPILE_SECONDS}"]])
        return f"{text}\n\nEach DCT ratio is that of the worse direction. Bold figures reach their target.\n\n{more}"

    def dct_tables(self):
        parts = []
        for kind, side, what in (("f32", 512, "512 x 512 float, in cache"),
                                 ("f64", 512, "512 x 512 double, in cache"),
                                 ("f32", 4096, "4096 x 4096 float, out of cache")):
            rows = []
            for backend in ("simd", "eigen", "fftw", "serial"):
                rows.append([backend] + [
                    " / ".join(number(self.runs.rate(self.dct(backend, p, way, kind, side)))
                               for way in ("forward", "inverse")) for p in SIZES])
            if (kind, side) == ("f32", 512):
                for form, label in (("patch", "one patch a plan"), ("batch", "all patches"),
                                    ("separable", "rows, then columns"), ("matrix", "in the matrix")):
                    rows.append([f"bare FFTW plan, {label}"] + [
                        " / ".join(number(self.runs.rate(self.dct(f"fftw-{form}", p, way)))
                                   for way in ("forward", "inverse")) for p in SIZES])
            copy = number(self.runs.rate(self.memory("memcpy", side=side, program="bench_dct"))) if kind == "f32" else None
            note = f" memcpy: {copy} GB/s." if copy else ""
            parts.append(f"{what}, forward / inverse.{note}\n\n"
                         + table(["GB/s", *(f"P = {p}" for p in SIZES)], rows))
        return "\n\n".join(parts)

    def codec_tables(self):
        by_size = table(
            ["GB/s, float", *(f"P = {p}" for p in SIZES)],
            [["encode, paper's mix"] + [number(self.runs.rate(self.encode(p))) for p in SIZES],
             ["encode, 2 bits"] + [number(self.runs.rate(self.encode(p, 2))) for p in SIZES],
             ["decode_add, paper's mix"] + [number(self.runs.rate(self.decode(p, "paper"))) for p in SIZES],
             ["decode_add, 2 bits"] + [number(self.runs.rate(self.decode(p))) for p in SIZES],
             ["encode, unit gain at 1 bit"] + [
                 number(self.runs.rate(self.encode(p, 1, what="encode_unit_gain"))) for p in SIZES],
             ["... / encode, paper's mix"] + [
                 number(self.runs.ratio(self.encode(p, 1, what="encode_unit_gain"), self.encode(p)))
                 for p in SIZES],
             ["decode_add, unit gain at 1 bit"] + [
                 number(self.runs.rate(self.decode(p, 1, what="decode_add_unit_gain"))) for p in SIZES],
             ["... / decode_add, paper's mix"] + [
                 number(self.runs.ratio(self.decode(p, 1, what="decode_add_unit_gain"),
                                        self.decode(p, "paper"))) for p in SIZES]])
        widths = (1, 2, 3, 4, 6, 8)
        by_width = table(
            ["GB/s, float, P = 16", *(f"{b} bits" for b in widths)],
            [["encode"] + [number(self.runs.rate(self.encode(16, b))) for b in widths],
             ["decode_add"] + [number(self.runs.rate(self.decode(16, b))) for b in widths]])
        kinds = ("f32", "f16", "bf16", "f64")
        by_type = table(
            ["GB/s, P = 16", *kinds],
            [["encode, paper's mix"] + [number(self.runs.rate(self.encode(16, kind=k))) for k in kinds],
             ["decode_add, 2 bits"] + [number(self.runs.rate(self.decode(16, kind=k))) for k in kinds],
             ["memcpy"] + [number(self.runs.rate(self.memory("memcpy", k))) for k in kinds],
             ["read-modify-write"] + [number(self.runs.rate(self.memory("read_modify_write", k))) for k in kinds]])
        others = [("encode of a delta", self.encode(16, what="encode_delta")),
                  ("decode_add, base and sum apart", self.decode(16, what="decode_add_elsewhere")),
                  ("decode_add, rows 4101 apart", self.decode(16, what="decode_add_strided")),
                  ("encode, in cache", self.encode(16, side=512)),
                  ("decode_add, in cache", self.decode(16, side=512)),
                  ("encode, serial backend", self.encode(16, what="encode_serial")),
                  ("decode_add, serial backend", self.decode(16, what="decode_add_serial"))]
        for side in (1024, 4096):
            for n in (1, 2):
                name = self.decode(16, side=side, what=f"decode_add_threads:{n}") + "/real_time"
                others.append((f"decode_add, {side} x {side}, OpenMP, {n} thread{'s' * (n > 1)}", name))
        more = table(["float, P = 16", "GB/s"], [[text, number(self.runs.rate(name))] for text, name in others])
        return "\n\n".join((by_size, by_width, by_type, more))

    def peers(self):
        rows = []
        for p in (16, 64):
            for bits in ("paper", 2):
                counters = self.runs.counters.get(self.encode(p, bits), {})
                rows.append([f"deltadct, P = {p}, " + ("paper's mix" if bits == "paper" else "2 bits"),
                             number(self.runs.rate(self.encode(p, bits))),
                             number(self.runs.rate(self.decode(p, bits))),
                             number(counters.get("bits_per_weight")), number(counters.get("snr_db"), 1)])
        for codec in ("zfp-rate-1.25", "zfp-rate-2.00", "zfp-rate-4.00", "zstd-3"):
            name = f"bench_peers:compress/codec:{codec}"
            counters = self.runs.counters.get(name, {})
            if not counters:
                continue
            snr = counters.get("snr_db")
            rows.append([codec.replace("-rate-", ", rate "), number(self.runs.rate(name)),
                         number(self.runs.rate(name.replace("compress", "decompress"))),
                         number(counters["bits_per_weight"]), "lossless" if snr is None else number(snr, 1)])
        return table(["of the same delta", "compress GB/s", "decompress GB/s", "bits a weight", "SNR dB"], rows)

    def plot(self):
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.6))
        width = 0.2
        for k, backend in enumerate(("simd", "eigen", "fftw", "serial")):
            rates = [min((self.runs.rate(self.dct(backend, p, way)) or 0)
                         for way in ("forward", "inverse")) for p in SIZES]
            left.bar([x + (k - 1.5) * width for x in range(len(SIZES))], rates, width, label=backend)
        left.set_title("DCT, 512 x 512 float, the slower direction")
        left.set_ylabel("GB/s")
        for k, (text, name) in enumerate((("decode_add, 2 bits", self.decode),
                                          ("encode, paper's mix", self.encode))):
            rates = [self.runs.rate(name(p)) or 0 for p in SIZES]
            right.bar([x + (k - 0.5) * 0.35 for x in range(len(SIZES))], rates, 0.35, label=text)
        for what, style in (("read_modify_write", "--"), ("memcpy", ":")):
            right.axhline(self.runs.rate(self.memory(what)), color="black", linestyle=style,
                          label=what.replace("_", "-"))
        right.set_title("codec, 4096 x 4096 float, one core")
        for axes in (left, right):
            axes.set_xticks(range(len(SIZES)), [f"P = {p}" for p in SIZES])
            axes.legend(fontsize="small")
        figure.tight_layout()
        matplotlib.rcParams.update({"svg.hashsalt": "deltadct", "svg.fonttype": "none"})
        figure.savefig(PLOT, metadata={"Date": None})


def machine(compiler, flags):
    model = "an unknown processor"
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", cpuinfo.read_text(), re.M))
        if "model name" in found:
            model = f"{found['model name']} (family {found['cpu family']}, model {found['model']})"
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    return (f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}; "
            f"{version.stdout.splitlines()[0]}, `{' '.join(flags.split())}`.")


def compile_seconds(compiler):
    """The time to compile a user's file with encode and decode_add of one P: the median of three."""
    source = """#include <deltadct/codec.hpp>
    using Codec = deltadct::DeltaCodec<deltadct::DefaultPolicy<float, 16>>;
    deltadct::CompressedTensor encode(const Codec& codec, deltadct::MatrixView<const float> base,
                                      deltadct::MatrixView<const float> tuned) {
      return codec.encode(base, tuned);
    }
    void decode(const Codec& codec, const deltadct::CompressedTensor& delta,
                deltadct::MatrixView<float> weights) {
      codec.decode_add(delta, weights);
    }
    """
    command = [compiler, "-std=c++20", "-O2", "-march=native", f"-I{ROOT / 'include'}", "-x", "c++", "-c", "-",
               "-o", os.devnull]
    seconds = []
    for _ in range(3):
        start = time.monotonic()
        subprocess.run(command, input=source, text=True, check=True)
        seconds.append(time.monotonic() - start)
    return statistics.median(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=pathlib.Path, required=True, help="folder of the bench_* programs")
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--flags", default="")
    parser.add_argument("--repetitions", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.05, help="minimum time of each benchmark")
    options = parser.parse_args()

    seconds = compile_seconds(options.compiler)
    runs = Runs()
    baselines = "memcpy|read_modify_write"
    groups = [(name, f"/P:{p}/|{baselines}") for p in SIZES for name in ("bench_dct", "bench_codec")]
    for name, what in groups + [("bench_peers", "compress")]:
        print(name, what, "...", flush=True)
        runs.add(str(options.programs / name), what, options.repetitions, options.seconds)
    report = Report(runs, seconds)
    targets = report.targets()
    measured = f"""{BEGIN}
{machine(options.compiler, options.flags)} Figures are medians of {options.repetitions} interleaved repetitions;
ratios are taken within each repetition. One core unless noted. GB count the uncompressed matrix.

## Targets

{targets}

![Rates of the DCT backends and of the codec](benchmarks.svg)

## The DCT alone

{report.dct_tables()}

## The codec

4096 x 4096 unless noted. memcpy: {number(runs.rate(report.memory('memcpy')))} GB/s, in-place read-modify-write:
{number(runs.rate(report.memory('read_modify_write')))} GB/s.

{report.codec_tables()}

## Comparison with other compressors

{report.peers()}
{END}"""
    page = PAGE.read_text() if PAGE.exists() else f"# Benchmarks\n\n{BEGIN}\n{END}\n"
    before, rest = page.split(BEGIN)
    PAGE.write_text(before + measured + rest.split(END)[1])
    report.plot()
    print(targets)


if __name__ == "__main__":
    main()
