#!/usr/bin/env python3
"""Writes baselines.txt: the result of every baseline for one matrix D, computed in double with numpy
from the definitions of the methods.

    python3 make_baselines.py > baselines.txt        (needs numpy)

Each line is a word and its values:

    method     name and setting of the lines that follow
    bytes      of the packed form
    of_rows    D^ x, where x[j] is 7 j mod 11 - 5
    of_cols    D^T^ y, where y[i] is 5 i mod 13 - 6

Elements of D are bell-shaped: each is the sum of the four 16-bit parts of a random number, less its
mean, divided by 2^28. One in sixteen is 0.
"""

import numpy as np

ROWS, COLS = 250, 270
MASK = (1 << 64) - 1


def split_mix(seed, index):
    """Number `index` of SplitMix64 with that seed."""
    x = (seed + 0x9E3779B97F4A7C15 * (index + 1)) & MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def make_delta():
    delta = np.zeros(ROWS * COLS)
    for s in range(delta.size):
        bits = split_mix(2024, s)
        total = sum(bits >> 16 * part & 0xFFFF for part in range(4))
        if bits % 16 != 0:
            delta[s] = (total - 2 * 0xFFFF) / 2**28
    return delta.reshape(ROWS, COLS)


def bfloat16(x):
    """Rounded to nearest, ties to even."""
    bits = np.atleast_1d(np.asarray(x, np.float32)).view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16
    return bits.astype(np.uint32).view(np.float32).astype(float)


def half(x):
    return np.asarray(x, np.float32).astype(np.float16).astype(float)


def bit_delta(delta, axis):
    """alpha sign(D), by matrix, row (1) or column (0). Zeros count as positive; means along an axis do
    not count them."""
    sign = np.where(delta < 0, -1.0, 1.0)
    if axis is None:
        alpha = bfloat16(np.abs(delta).mean())[0]
        scales = 1
    else:
        alpha = bfloat16(np.abs(delta).sum(axis) / np.count_nonzero(delta, axis))
        scales = alpha.size
        alpha = np.expand_dims(alpha, axis)
    return alpha * sign, 1 + 2 * scales + -(-delta.size // 8)


def round_rows(factor, bits):
    """Rounds by row, in blocks of 128 columns. Returns the values and the number of bytes."""
    top = 2**bits - 1
    out = np.zeros_like(factor)
    blocks = range(0, factor.shape[1], 128)
    for first in blocks:
        x = factor[:, first : first + 128]
        lo = np.minimum(x.min(1), 0)
        hi = np.maximum(x.max(1), 0)
        s = half((hi - lo) / top)[:, None]
        z = np.clip(np.rint(-lo[:, None] / s), 0, top)
        out[:, first : first + 128] = s * (np.clip(np.rint(x / s) + z, 0, top) - z)
    return out, factor.shape[0] * len(blocks) * 4 + -(-factor.size * bits // 8)


def delta_come(delta):
    u, sigma, v = np.linalg.svd(delta, full_matrices=False)
    for k in range(sigma.size):
        if u[np.abs(u[:, k]).argmax(), k] < 0:
            u[:, k], v[k] = -u[:, k], -v[k]
    m, n = delta.shape
    # The packed form's power of two only changes the rounding of subnormal numbers.
    groups = [(8, 2), (3, 32), (2, int((m * n / (m + n) - 112) // 2))]
    out = np.zeros_like(delta)
    size = 3 * 4 + 2
    first = 0
    for bits, rank in groups:
        left, left_bytes = round_rows(u[:, first : first + rank], bits)
        right, right_bytes = round_rows(v[first : first + rank], bits)
        out += left * bfloat16(sigma[first : first + rank]) @ right
        size += 2 * rank + left_bytes + right_bytes
        first += rank
    return out, size


def draws_of(delta):
    """The draw of every element: the upper half of random numbers whose seed comes from the elements."""
    seed = 0
    for bits in delta.astype(np.float32).ravel().view(np.uint32):
        seed = split_mix(seed, int(bits))
    draws = [split_mix(seed, s) >> 32 for s in range(delta.size)]
    return np.array(draws, np.uint64).reshape(delta.shape)


def last_draw(chance):
    return round(chance * 2**32) - 1


def dare(delta, p):
    kept = draws_of(delta) <= last_draw(1 - p)
    values = np.where(kept, delta / (1 - p), 0)
    largest = np.float32(np.abs(values).max()).astype(float)
    return half(values / largest) * largest, 8 + 4 + 4 + 2 * np.count_nonzero(kept)


def ultra_delta(delta, sparsity):
    kept = 1 - sparsity
    draws = draws_of(delta)
    codes = np.rint((delta - delta.min()) / (delta.max() - delta.min()) * 15).astype(int)
    last = np.zeros(16, np.uint64)
    for code in range(16):
        mine = np.sort(draws[codes == code])
        count = round(kept * mine.size)
        last[code] = mine[count - 1] if count >= 32 else last_draw(kept)
    lo = np.float32(delta.min() / kept).astype(float)
    hi = np.float32(delta.max() / kept).astype(float)
    values = lo + codes * (hi - lo) / 15
    candidates = np.count_nonzero(draws <= last.max())
    return np.where(draws <= last[codes], values, 0), 8 + 2 * 4 + 16 * 4 + -(-candidates // 2)


def show(name, setting, result):
    back, size = result
    x = np.arange(COLS) * 7 % 11 - 5
    y = np.arange(ROWS) * 5 % 13 - 6
    print("method", name, setting)
    print("bytes", size)
    print("of_rows", *("%.9g" % value for value in back @ x))
    print("of_cols", *("%.9g" % value for value in y @ back))


def main():
    delta = make_delta()
    show("bit_delta", 0, bit_delta(delta, None))
    show("bit_delta", 1, bit_delta(delta, 1))
    show("bit_delta", 2, bit_delta(delta, 0))
    show("delta_come", 0, delta_come(delta))
    show("dare", 0.9, dare(delta, 0.9))
    show("dare", 0.9375, dare(delta, 0.9375))
    show("ultra_delta", 0.97, ultra_delta(delta, 0.97))
    show("ultra_delta", 0.5, ultra_delta(delta, 0.5))


if __name__ == "__main__":
    main()
