#!/usr/bin/env python3
"""Writes vectors.txt: inputs of the codec and the expected results, computed in double with numpy.

    python3 make_vectors.py > vectors.txt        (needs numpy and scipy)

The file changes only if the definition does: a new file gives the compressed form a new meaning. Each
line is a word and its values. delta and back are row-major; codes are row-major by frequency.

    case P rows cols
    delta      integers; an element is the integer divided by 4096
    mix        bits:ratio ..., by descending bits, for the lines that follow
    scale      the rescale factor
    patch      bits, lo and hi (both the mean if bits is 0), codes in hexadecimal: one digit each up
               to 4 bits, two digits beyond
    back       the reconstruction
"""

import sys

import numpy as np
import scipy.fft

UNIT = 4096
SHAPES = {4: (13, 18), 8: (19, 26), 12: (25, 30), 16: (35, 37), 32: (36, 40), 64: (40, 70)}
MIXES = [
    [(2, 0.5), (0, 0.5)],
    [(8, 0.2), (6, 0.2), (4, 0.2), (3, 0.2), (1, 0.2)],
]


def make_delta(rows, cols, seed):
    """Bell-shaped values whose size varies over the matrix, in units of 1 / 4096."""
    random = np.random.default_rng(seed)
    wave = 1.2 + np.sin(0.2 * np.arange(rows)[:, None] + 0.11 * np.arange(cols))
    return np.rint(400 * wave * random.standard_normal((rows, cols))).astype(int)


def cut(matrix, p):
    """rows x cols -> patches x P x P, zeros beyond the matrix."""
    grid = [-(-n // p) for n in matrix.shape]
    padded = np.zeros((grid[0] * p, grid[1] * p))
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    return padded.reshape(grid[0], p, grid[1], p).swapaxes(1, 2).reshape(-1, p, p)


def join(patches, shape, p):
    grid = [-(-n // p) for n in shape]
    padded = patches.reshape(grid[0], grid[1], p, p).swapaxes(1, 2)
    return padded.reshape(grid[0] * p, grid[1] * p)[: shape[0], : shape[1]]


def count_shares(mix, patches):
    """The largest remainders; on ties, the wider share comes first."""
    exact = [ratio * patches for _, ratio in mix]
    counts = [int(x) for x in exact]
    by_remainder = sorted(range(len(mix)), key=lambda k: counts[k] - exact[k])
    for k in by_remainder[: patches - sum(counts)]:
        counts[k] += 1
    return counts


def choose_widths(patches, mix):
    scores = [np.sqrt((patch**2).sum()) for patch in patches]
    order = sorted(range(len(patches)), key=lambda k: (-scores[k], k))
    widths = [0] * len(patches)
    for (bits, _), count in zip(mix, count_shares(mix, len(patches))):
        for k in order[:count]:
            widths[k] = bits
        order = order[count:]
    return widths


def quantize(coefficients, bits):
    """Codes and the bounds as stored, in float."""
    lo, hi = (float(np.float32(x)) for x in (coefficients.min(), coefficients.max()))
    levels = 2**bits - 1
    exact = (coefficients - lo) / (hi - lo) * levels
    return np.clip(np.rint(exact), 0, levels).astype(int), lo, hi


def encode(delta, p, mix):
    """A list of (bits, lo, hi, codes), the scale and the scaled reconstruction."""
    patches = cut(delta, p)
    real = cut(np.ones(delta.shape), p).sum((1, 2))
    encoded, decoded = [], []
    for patch, bits, elements in zip(patches, choose_widths(patches, mix), real):
        if bits == 0:
            mean = float(np.float32(patch.sum() / elements))
            encoded.append((0, mean, mean, None))
            decoded.append(np.full((p, p), mean))
            continue
        codes, lo, hi = quantize(scipy.fft.dctn(patch, norm="ortho"), bits)
        encoded.append((bits, lo, hi, codes))
        levels = lo + codes * (hi - lo) / (2**bits - 1)
        decoded.append(scipy.fft.idctn(levels, norm="ortho"))
    back = join(np.array(decoded), delta.shape, p)
    scale = np.abs(delta).mean() / np.abs(back).mean()
    return encoded, scale, scale * back


def write(out, word, values, form):
    out.write(word + "".join(" " + form % value for value in values) + "\n")


def write_case(out, p):
    rows, cols = SHAPES[p]
    units = make_delta(rows, cols, seed=p)
    write(out, "case", (p, rows, cols), "%d")
    write(out, "delta", units.ravel(), "%d")
    for mix in MIXES:
        encoded, scale, back = encode(units / UNIT, p, mix)
        out.write("mix " + " ".join("%d:%g" % share for share in mix) + "\n")
        write(out, "scale", [scale], "%.12g")
        for bits, lo, hi, codes in encoded:
            form = "%02x" if bits > 4 else "%x"
            text = "" if codes is None else " " + "".join(form % code for code in codes.ravel())
            out.write("patch %d %.9g %.9g%s\n" % (bits, lo, hi, text))
        write(out, "back", back.ravel(), "%.7g")


if __name__ == "__main__":
    for size in SHAPES:
        write_case(sys.stdout, size)
