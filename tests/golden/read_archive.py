"""Restores models from delta archives and compares them with the results of another program.
Written from docs/format.md alone, as a check of that page. It does not verify XXH3 checksums."""

import collections
import ctypes
import itertools
import json
import math
import os
import sys

import numpy as np

BITS = {"F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16,
        "BF16": 16, "I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8,
        "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4}
SIZES = {dtype: -(-bits // 8) for dtype, bits in BITS.items()}
NUMBERS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
DELTA_MODES = ("delta", "grown", "shrunk")
LOSSLESS_MODES = ("lossless", "added", "grown")
MODES = (*DELTA_MODES, *LOSSLESS_MODES, "same", "tied", "removed")
PLANES = {1: [1], 2: [2], 3: [2, 1], 4: [4], 6: [4, 2], 8: [8]}
INDEX_BITS = {1: 0, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 8: 4}  # by the number of classes
BENDS = {1: 0, 2: 0.05677368, 3: 0.02457252, 4: 0.00872127}  # of the quantizer gaussian, by bits
CHUNK = 1 << 20
FEATURES = {"outliers", "files"}  # that a manifest may require

# The first `loose` bytes came from a delta; `largest` is the largest |value| of that delta.
Restored = collections.namedtuple("Restored", "dtype shape data loose largest")

zstd = ctypes.CDLL("libzstd.so.1")
zstd.ZSTD_decompress.restype = ctypes.c_size_t
zstd.ZSTD_decompress.argtypes = [ctypes.c_void_p, ctypes.c_size_t] * 2
zstd.ZSTD_isError.argtypes = [ctypes.c_size_t]


def check(condition, message):
    if not condition:
        raise ValueError(message)


def parse_json(data):
    def unique(pairs):
        check(len(dict(pairs)) == len(pairs), "a key stands twice")
        return dict(pairs)
    return json.loads(bytes(data), object_pairs_hook=unique)


def read_file(path):
    """The tensors of one safetensors file, name -> (dtype, shape, bytes), and its metadata."""
    file = np.fromfile(path, np.uint8)
    length = int.from_bytes(file[:8].tobytes(), "little")
    check(2 <= length <= min(100_000_000, len(file) - 8), f"{path}: length of the header")
    check(file[8] == ord("{"), f"{path}: start of the header")
    header, data, end, tensors = parse_json(file[8:8 + length]), file[8 + length:], 0, {}
    metadata = header.pop("__metadata__", {})
    for name, info in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        (begin, stop), dtype, shape = info["data_offsets"], info["dtype"], info["shape"]
        bits = BITS[dtype] if dtype in BITS else 0  # a dtype without a known size takes whatever it has
        check(begin == end and (not bits or 8 * (stop - begin) == math.prod(shape) * bits),
              f"{path}: {name}")
        tensors[name], end = (dtype, shape, data[begin:stop]), stop
    check(end == len(data), f"{path}: the tensors do not end with the file")
    return tensors, metadata


def read_files(path, index_name):
    """read_file() for each file of `path`, and its index, which is empty if there is none."""
    if os.path.isdir(path):
        folder, path = path, os.path.join(path, index_name)
        if not os.path.exists(path):
            path = os.path.join(folder, "model.safetensors")
    if not path.endswith(".json"):
        return [read_file(path)], {}
    with open(path, "rb") as file:
        index = parse_json(file.read())
    names = sorted(set(index["weight_map"].values()))
    check(all(name == os.path.basename(name) for name in names), "not a plain file name")
    files = [read_file(os.path.join(os.path.dirname(path), name)) for name in names]
    held = [(tensor, name) for name, (tensors, _) in zip(names, files) for tensor in tensors]
    check(sorted(held) == sorted(index["weight_map"].items()), "the index is not of these files")
    return files, index


def read_model(path):
    files, _ = read_files(path, "model.safetensors.index.json")
    return {name: tensor for tensors, _ in files for name, tensor in tensors.items()}


def read_parts(path):
    """For each part of an archive: its manifest, and its other sections, name -> bytes."""
    files, index = read_files(path, "delta.safetensors.index.json")
    sections = [{name: data for name, (_, _, data) in tensors.items()} for tensors, _ in files]
    tables = [metadata for _, metadata in files]
    if index:
        total = sum(len(data) for part in sections for data in part.values())
        check(index["metadata"]["total_size"] == total, "total_size")
        parts = sorted(zip(sections, tables), key=lambda part: int(part[1]["part"]))
        check([table["part"] for _, table in parts] == [str(1 + i) for i in range(len(parts))],
              "numbers of the parts")
        sections, tables = [part for part, _ in parts], tables + [index["metadata"]]
    else:
        check("part" not in tables[0], "a part of a sharded archive, without its index")
    check(all((t.get("format"), t.get("version")) == ("deltadct", "1") for t in tables),
          "not a delta archive of version 1")
    check(all((dtype, shape) == ("U8", [len(data)]) for tensors, _ in files
              for dtype, shape, data in tensors.values()), "dtype or shape of a section")
    manifests = [parse_json(part.pop(f"manifest:{1 + i}")) for i, part in enumerate(sections)]
    for manifest in manifests:
        check(manifest["version"] == 1, "version of the manifest")
        unknown = set(manifest.get("requires", [])) - FEATURES
        check(not unknown, f"unknown features: {unknown}")
    return list(zip(manifests, sections))


class Section:
    """Bytes that are taken piece by piece, until none are left."""

    def __init__(self, data):
        self.data = data

    def take(self, size):
        check(size <= len(self.data), "a section is too short")
        piece, self.data = self.data[:size], self.data[size:]
        return piece

    def padded(self, size):
        piece = self.take(size)
        check(not self.take(-size % 8).any(), "padding is not zero")
        return piece

    def finish(self):
        check(len(self.data) == 0, "a section is too long")


def decode_lossless(data, size, element, base):
    """The `size` bytes that a lossless section holds, coded against the bytes `base`."""
    section, out = Section(data), np.zeros(size, np.uint8)
    codings = section.padded(4 * -(-size // CHUNK)).view("<u4").tolist()
    stored = Section(section.padded(sum(word // 16 for word in codings)))
    section.finish()
    for begin, (length, coding) in zip(range(0, size, CHUNK), (divmod(w, 16) for w in codings)):
        check(coding <= 3, f"coding {coding}")
        chunk, piece = out[begin:begin + CHUNK], stored.take(length)
        if coding:
            frame, piece = piece, np.empty(len(chunk), np.uint8)
            got = zstd.ZSTD_decompress(piece.ctypes.data, len(piece), frame.ctypes.data, length)
            check(not zstd.ZSTD_isError(got) and got == len(piece), "a zstd frame")
        check(len(piece) == len(chunk), "size of a chunk")
        chunk[:] = piece.reshape(element, -1).T.reshape(-1) if coding == 3 else piece
        if coding >= 2:
            under = base[begin:begin + len(chunk)]
            chunk[:len(under)] ^= under
    return out


def unpack_codes(raw, bits, count):
    """The `count` codes of every row of `raw`."""
    codes = np.zeros((len(raw), count), np.uint32)
    for first in range(0, count, 128):
        t, shift = np.arange(min(128, count - first)), 0
        for b in PLANES[bits]:
            plane, raw = np.split(raw, [len(t) * b // 8], axis=1)
            plane = np.pad(plane, ((0, 0), (0, -plane.shape[1] % 4)))  # half a word
            words = np.ascontiguousarray(plane).view("<u4")
            w = words.shape[1]
            values = words[:, t % w] >> (b * (t // w)).astype(np.uint32)
            codes[:, first + t] |= (values & (2 ** b - 1)) << shift
            shift += b
    return codes


def shared_codes(raw, k, count):
    """For every row of `raw`: its codes, and `count` coefficients in steps. 2^k share one code."""
    groups, bits = count >> k, k + 1
    stream, rest = np.split(np.unpackbits(raw, axis=1, bitorder="little"), [groups * bits], axis=1)
    check(not rest.any(), "bits of no code")
    codes = stream.reshape(-1, groups, bits).astype(int) @ (1 << np.arange(bits))
    f = np.zeros((len(raw), count))
    place = codes // 2 * groups + np.arange(groups)
    np.put_along_axis(f, place, np.where(codes % 2, -1.0, 1.0), axis=1)
    return codes, f


def change_signs(p):
    """1 or -1 for each element of a patch, by SplitMix64 with seed 0: one number per row."""
    mask, state, rows = (1 << 64) - 1, 0, []
    for _ in range(p):
        state = (state + 0x9E3779B97F4A7C15) & mask
        x = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ x >> 27) * 0x94D049BB133111EB) & mask
        rows.append([-1 if (x ^ x >> 31) >> j & 1 else 1 for j in range(p)])
    return np.array(rows)


def code_stride(bits, area):
    """The number of bytes that the codes of a patch take."""
    return area * bits // 8 if bits >= 0 else -(-(area >> -bits) * (1 - bits) // 8)


def decode_matrix(section, codec, rows, cols, classes):
    """X of one matrix, in float64."""
    p, dct = codec["patch"], codec["transform"] in ("dct", "randomized_dct")
    gaussian = codec["quantizer"] == "gaussian"
    height, width, index_bits = -(-rows // p), -(-cols // p), INDEX_BITS[len(classes)]
    patches = height * width
    check(p in (4, 8, 12, 16, 32, 64) and codec["quantizer"] in ("min_max", "gaussian"), "codec")
    check(dct or codec["transform"] == "identity", "transform")
    check(sum(n for _, _, n in classes) == patches, "number of patches")
    check(all(a[0] > b[0] for a, b in zip(classes, classes[1:])), "widths do not descend")
    check(all(values == (2 if bits and not gaussian else 1) for bits, values, _ in classes), "values")
    check(all(bits in PLANES or not bits or gaussian and -7 <= bits <= -2 for bits, _, _ in classes),
          "widths")
    raw = section.padded(SIZES[codec["bound"]] * sum(values * n for _, values, n in classes))
    all_bounds = to_numbers(raw, codec["bound"]).astype(np.float64)
    check(np.isfinite(all_bounds).all(), "a bound is not finite")
    raw = section.padded(-(-patches * index_bits // 8))
    index, rest = np.split(np.unpackbits(raw, bitorder="little"), [patches * index_bits])
    check(not rest.any(), "widths of no patch")
    class_of = index.reshape(patches, index_bits) @ (1 << np.arange(index_bits))
    all_codes = Section(section.padded(sum(n * code_stride(bits, p * p) for bits, _, n in classes)))

    k, j = np.arange(p)[:, None], np.arange(p)
    c = np.sqrt(np.where(k, 2, 1) / p) * np.cos(np.pi * (2 * j + 1) * k / (2 * p))
    x = np.empty((patches, p, p))
    for number, (bits, values, n) in enumerate(classes):
        members = class_of == number
        check(members.sum() == n, "patches of a class")
        bounds, all_bounds = np.split(all_bounds, [n * values])
        lo, hi = bounds[::values, None], bounds[values - 1::values, None]
        check((lo <= hi).all(), "lo > hi")
        if bits == 0:
            x[members] = lo[:, None]
            continue
        stride = code_stride(bits, p * p)
        raw = all_codes.take(n * stride).reshape(n, stride)
        codes, f = shared_codes(raw, -bits, p * p) if bits < 0 else (unpack_codes(raw, bits, p * p), None)
        if gaussian:
            check((lo >= 0).all(), "a step is negative")
            u = codes - (2 ** bits - 1) / 2 if bits > 0 else None
            f = lo * (2 * u * (1 + BENDS[bits] * u * u) if bits > 0 else f)
        else:
            f = lo + codes * (hi - lo) / (2 ** bits - 1)
        check(not codes[(lo == 0 if gaussian else lo == hi)[:, 0]].any(), "codes that mean nothing")
        f = f.reshape(n, p, p)
        x[members] = c.T @ f.transpose(0, 2, 1) @ c if dct else f
        if codec["transform"] == "randomized_dct":
            x[members] *= change_signs(p)
    x = x.reshape(height, width, p, p).transpose(0, 2, 1, 3).reshape(height * p, width * p)
    return x[:rows, :cols]


def dense_codes(raw, bits, count):
    """`count` codes that lie one after another; nothing may follow the last."""
    stream, rest = np.split(np.unpackbits(raw, bitorder="little"), [count * bits])
    check(not rest.any() and len(rest) < 8, "bits of no code")
    return stream.reshape(count, bits).astype(int) @ (1 << np.arange(bits))


def random_draws(seed, count):
    state = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ state >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ state >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return (state ^ state >> np.uint64(31)) >> np.uint64(32)


def decode_bit_delta(data, real, rows, cols):
    axis = int(data.take(1)[0])
    check(axis <= 2, "axis")
    scales = to_numbers(data.take(2 * (1, rows, cols)[axis]), "BF16").astype(np.float64)
    check((scales >= 0).all() and np.isfinite(scales).all(), "a scale")
    negative = dense_codes(data.take(-(-rows * cols // 8)), 1, rows * cols).reshape(rows, cols)
    return np.where(negative, -1, 1) * (scales[:, None] if axis == 1 else scales)


def decode_dare(data, real, rows, cols):
    seed, last = data.take(8).view("<u8")[0], data.take(4).view("<u4")[0]
    largest = to_numbers(data.take(SIZES[real]), real)[0]
    x = np.zeros(rows * cols)
    kept = random_draws(seed, x.size) <= last
    values = to_numbers(data.take(2 * kept.sum()), "F16").astype(np.float64)
    check((np.abs(values) <= 1).all(), "an element")
    x[kept] = values * largest
    return x.reshape(rows, cols)


def decode_ultra_delta(data, real, rows, cols):
    seed = data.take(8).view("<u8")[0]
    lo, hi = to_numbers(data.take(2 * SIZES[real]), real).astype(np.float64)
    check(lo <= hi, "lo > hi")
    last = data.take(64).view("<u4")
    draws = random_draws(seed, rows * cols)
    candidates = np.flatnonzero(draws <= last.max())
    q = dense_codes(data.take(-(-len(candidates) // 2)), 4, len(candidates))
    x = np.zeros(rows * cols)
    x[candidates] = np.where(draws[candidates] <= last[q], lo + (hi - lo) * q / 15, 0)
    return x.reshape(rows, cols)


def decode_delta_come(data, real, rows, cols):
    ranks, exponent = data.take(12).view("<u4").tolist(), int(data.take(2).view("<i2")[0])
    check(sum(ranks) <= min(rows, cols), "ranks")

    def factor(bits, height, width):
        blocks = -(-width // 128)
        pairs = data.take(4 * height * blocks).view("<f2").astype(np.float64)
        s, z = (np.repeat(part.reshape(height, blocks), 128, axis=1)[:, :width]
                for part in (pairs[::2], pairs[1::2]))
        check(((s >= 0) & (s <= 1) & (z % 1 == 0) & (z >= 0) & (z < 2 ** bits)).all(), "s or z")
        codes = dense_codes(data.take(-(-height * width * bits // 8)), bits, height * width)
        return s * (codes.reshape(height, width) - z)

    x = np.zeros((rows, cols))
    for bits, rank in zip((8, 3, 2), ranks):
        sigma = to_numbers(data.take(2 * rank), "BF16").astype(np.float64) * 2.0 ** exponent
        check((sigma >= 0).all(), "a singular value")
        x += factor(bits, rows, rank) * sigma @ factor(bits, rank, cols)
    return x


METHODS = {"bit_delta": decode_bit_delta, "dare": decode_dare, "ultra_delta": decode_ultra_delta,
           "delta_come": decode_delta_come}


def decode_whole(section, codec, real, rows, cols, size):
    """X of one matrix, by a method without patches, in float64."""
    data = Section(section.padded(size))
    check(codec["method"] in METHODS, "method")
    x = METHODS[codec["method"]](data, real, rows, cols) if rows * cols else np.zeros((rows, cols))
    data.finish()
    return x


def to_numbers(raw, dtype):
    if dtype == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return raw.view(NUMBERS[dtype])


def to_bytes(numbers, dtype):
    """Rounds once, to nearest, ties to even."""
    if dtype == "BF16":
        word = numbers.view(np.uint32)
        return ((word + 0x7fff + (word >> 16 & 1)) >> 16).astype("<u2").view(np.uint8)
    return numbers.astype(NUMBERS[dtype]).view(np.uint8)


def apply_delta(data, entry, codec, base):
    """The bytes of base + delta, and the largest |value| of the delta."""
    (count, rows, cols), dtype = entry["stack"], entry["dtype"]
    check(count * rows * cols * SIZES[dtype] == len(base), "stack")
    check(len(entry["matrices"]) == count, "number of matrices")
    section = Section(data)
    if "method" in codec:
        real = "F64" if dtype == "F64" else "F32"
        delta = np.array([decode_whole(section, codec, real, rows, cols, size)
                          for size in entry["matrices"]]).reshape(-1)
    else:
        check(all(math.isfinite(scale) for scale, _ in entry["matrices"]), "scale is not finite")
        delta = np.array([scale * decode_matrix(section, codec, rows, cols, classes)
                          for scale, classes in entry["matrices"]]).reshape(-1)
    section.finish()
    compute = np.float64 if dtype == "F64" else np.float32
    sums = to_numbers(base, dtype).astype(compute) + delta.astype(compute)
    return to_bytes(sums, dtype), np.abs(delta).max(initial=0)


def read_gap(section):
    gap = 0
    for place in range(9):
        byte = int(section.take(1)[0])
        gap |= (byte & 127) << 7 * place
        if byte < 128:
            check(byte != 0 or place == 0, "a gap is not in its shortest form")
            return gap
    raise ValueError("a gap of more than 9 bytes")


def add_outliers(data, dtype, tensor):
    """The bytes of a tensor after its outliers were added."""
    section = Section(data)
    (count,) = section.take(8).view("<u8")
    real = "<f8" if dtype == "F64" else "<f4"
    check(count > 0, "no outliers")
    values = section.take(int(count) * np.dtype(real).itemsize).view(real)
    check(np.isfinite(values).all(), "an outlier is not finite")
    numbers, at = to_numbers(tensor, dtype).astype(real), -1
    for value in values:
        at += 1 + read_gap(section)
        check(at < len(numbers), "an outlier outside the tensor")
        numbers[at] += value
    check(len(section.data) < 8 and not section.data.any(), "padding of the outliers")
    return to_bytes(numbers, dtype)


def restore_entry(entry, codecs, sections, base_tensor):
    mode, dtype, shape, name = entry["mode"], entry["dtype"], entry["shape"], entry["name"]
    base_dtype, base_shape, base = base_tensor
    bits = BITS[dtype] if dtype in BITS else entry["bits"]
    size, loose, largest = math.prod(shape) * bits // 8, 0, 0
    if mode not in ("lossless", "added"):
        fits = {"grown": len(base) < size, "shrunk": len(base) > size}
        check((base_dtype, base_shape[1:]) == (dtype, shape[1:]), "dtype or shape of the base")
        check(fits.get(mode, base_shape == shape), "shape of the base")
    if mode in DELTA_MODES:
        base, section = base[:size], sections.pop(f"delta:{name}")
        loose = len(base)
        base, largest = apply_delta(section, entry, codecs[entry["codec"]], base)
        if "outliers" in entry:
            base = add_outliers(sections.pop(f"outliers:{name}"), dtype, base)
    if mode in LOSSLESS_MODES:
        under = base if mode == "lossless" else base[:0]
        section = sections.pop(f"lossless:{name}")
        own = decode_lossless(section, size - loose, -(-bits // 8), under)
        base = np.concatenate([base[:loose], own])
    return Restored(dtype, shape, base.tobytes(), loose, largest)


def is_safe(name):
    parts, lower = name.split("/"), name.lower()
    return (len(name.encode()) <= 1024 and len(parts) <= 16
            and all(0 < len(part.encode()) <= 255 and part[0] != "." for part in parts)
            and not any(c in "\\:" or c < " " or "\x7f" <= c <= "\x9f" for c in name)
            and not any(part.endswith((".safetensors", ".safetensors.index.json"))
                        or part.startswith("deltadct.") for part in lower.split("/")))


def restore_files(manifest, sections, files):
    """Adds the files of one part to name -> bytes."""
    for file in manifest.get("files", []):
        name = file["name"]
        check(is_safe(name), f"{name!r}: name of a file")
        taken = [other.lower() for other in files]
        folders = [name.lower()[:end] for end, c in enumerate(name) if c == "/"]
        check(name.lower() not in taken and not set(folders) & set(taken)
              and not any(other.startswith(name.lower() + "/") for other in taken), f"{name}: twice")
        data = decode_lossless(sections.pop(f"file:{name}"), file["bytes"], 1, np.empty(0, np.uint8))
        files[name] = data.tobytes()


def restore(base_path, archive_path):
    """Ordered dict name -> Restored, and the files beside them, name -> bytes."""
    base, names, restored, tied = read_model(base_path), set(), collections.OrderedDict(), []
    files = {}
    for manifest, sections in read_parts(archive_path):
        restore_files(manifest, sections, files)
        for entry in manifest["tensors"]:
            name, mode = entry["name"], entry["mode"]
            check(mode in MODES and name not in names, f"{name}: mode or name")
            names.add(name)
            has_base = mode not in ("added", "tied") or "base" in entry
            check(has_base == (name in base), f"{name}: in the base, or not")
            under = base.get(name, (entry["dtype"], entry["shape"], np.empty(0, np.uint8)))
            known = (entry.get("base_dtype", entry["dtype"]),
                     entry.get("base_shape", entry["shape"]))
            check(under[:2] == known, f"{name}: another base")
            if mode == "tied":
                tied.append(entry)
                restored[name] = None  # until its target is restored
            elif mode != "removed":
                try:
                    restored[name] = restore_entry(entry, manifest["codecs"], sections, under)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from error
        check(not sections, f"sections left over: {list(sections)}")
    for entry in tied:
        target = restored.get(entry["target"])
        check(target and target[:2] == (entry["dtype"], entry["shape"]), "target of a tied tensor")
        restored[entry["name"]] = target
    check(names >= set(base), f"of the base only: {sorted(set(base) - names)}")
    return restored, files


def read_archive(base_path, archive_path):
    """Ordered dict name -> (dtype, shape, bytes)."""
    restored, _ = restore(base_path, archive_path)
    return collections.OrderedDict((name, tensor[:3]) for name, tensor in restored.items())


def difference(got, dtype, shape, data):
    """The difference in words, or None. If base + delta nearly cancel, a unit in the last place is too
    strict. The error of the delta then counts, relative to its largest value."""
    if (got.dtype, got.shape) != (dtype, shape):
        return "dtype or shape"
    if got.data[got.loose:] != data[got.loose:].tobytes():
        return "bytes"
    a, b = np.frombuffer(got.data[:got.loose], np.uint8), data[:got.loose]
    if np.array_equal(a, b):
        return None
    a, b = to_numbers(a, dtype), to_numbers(b, dtype)
    unit = np.spacing(np.abs(b)).astype(np.float64) * (2 ** 16 if dtype == "BF16" else 1)
    near = np.maximum(unit, got.largest * (1e-12 if dtype == "F64" else 1e-5))
    far = (a != b) & ~(np.abs(a.astype(np.float64) - b) <= near)
    changed = (a != b).sum() if SIZES[dtype] == 2 else 0
    if far.any() or changed * 1000 > len(a):
        return f"{far.sum()} elements are far off, {changed} of {len(a)} differ"
    return None


def files_beside(path):
    """The files of a folder except the model's, name -> bytes."""
    files = {}
    for folder, _, names in os.walk(path):
        for name in names:
            if not name.endswith((".safetensors", ".safetensors.index.json")):
                full = os.path.join(folder, name)
                with open(full, "rb") as file:
                    files[os.path.relpath(full, path).replace(os.sep, "/")] = file.read()
    return files


def main():
    if len(sys.argv) != 4:
        sys.exit("usage: read_archive.py BASE ARCHIVE EXPECTED")
    np.seterr(over="ignore", invalid="ignore")  # infinities are expected
    try:
        (restored, files), expected = restore(*sys.argv[1:3]), read_model(sys.argv[3])
    except (KeyError, OSError, ValueError) as error:
        sys.exit(f"refused: {type(error).__name__}: {error}")
    for place, names in enumerate(itertools.zip_longest(restored, expected)):
        if names[0] != names[1]:
            sys.exit(f"tensor {place} is {names[0]}, not {names[1]}")
        problem = difference(restored[names[0]], *expected[names[0]])
        if problem:
            sys.exit(f"{names[0]}: {problem}")
    if files != files_beside(sys.argv[3]):
        sys.exit(f"other files than {sorted(files)}")
    print(f"{len(restored)} tensors and {len(files)} files agree")


if __name__ == "__main__":
    main()
