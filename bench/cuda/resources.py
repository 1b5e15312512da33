#!/usr/bin/env python3
"""Prints what ptxas reports for every kernel in build logs: registers, spills, shared memory.

    resources.py LOG...    one line per kernel and architecture; fails if kernels of patches up to
                           32 x 32 spill registers
"""
import re
import subprocess
import sys

ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
MODES = ("store", "add", "add_in_place")  # in the order of DecodeMode


def demangled(names):
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True,
                          check=True).stdout
    return dict(zip(names, text.splitlines()))


def short(name):
    """Shortens a demangled name to, say, DecodeKernel<PaperPolicy<float, 16>, bfloat16, true>."""
    name = re.sub(r"deltadct::v\d+_\d+_\w+::|detail::|\(anonymous namespace\)::", "", name)
    name = re.sub(r"\(DecodeMode\)(\d)", lambda mode: MODES[int(mode.group(1))], name)
    inner = re.search(r"run_on_device<(.*)>\(", name)
    return inner.group(1).strip() if inner else None


def kernels(paths):
    """{(kernel, architecture): (registers, stack, spilled bytes, shared bytes)}"""
    found, entry, spills = {}, None, None
    for path in paths:
        for line in open(path, errors="replace"):
            if match := ENTRY.search(line):
                entry = match.groups()
            elif match := SPILLS.search(line):
                spills = [int(n) for n in match.groups()]
            elif entry and spills and (match := USED.search(line)):
                shared = SHARED.search(line)
                found[entry] = (int(match.group(1)), spills[0], spills[1] + spills[2],
                                int(shared.group(1)) if shared else 0)
                entry = spills = None
    names = demangled(sorted({name for name, _ in found}))
    return {(short(names[name]), arch): values for (name, arch), values in found.items()
            if short(names[name])}


def patch_of(kernel):
    match = re.search(r"(?:float|double), (\d+)>|<(\d+), (?:float|double)", kernel)
    return int(match.group(1) or match.group(2)) if match else 0


def main():
    found = kernels(sys.argv[1:])
    if not found:
        print("no kernel was compiled: the build was up to date")
        return
    rows = sorted(found.items(), key=lambda row: (row[0][0].split("<")[0], patch_of(row[0][0]),
                                                  row[0]))
    print(f"{'registers':>9} {'stack':>5} {'spilled':>7} {'shared':>6}  kernel")
    for (kernel, arch), (registers, stack, spilled, shared) in rows:
        print(f"{registers:9} {stack:5} {spilled:7} {shared:6}  {arch} {kernel}")
    spilling = [kernel for (kernel, _), values in rows if values[2] and patch_of(kernel) <= 32]
    print(f"{len(rows)} kernels, {len(spilling)} of patches up to 32 x 32 spill registers")
    if spilling:
        sys.exit("\n".join(spilling))


if __name__ == "__main__":
    main()
