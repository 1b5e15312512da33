"""Makes the seeds of corpus/: make_seeds.py DELTADCT, where DELTADCT is the command line tool.

The seeds are small archives of every mode, with their headers, indices and manifests.
"""

import hashlib
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "cli"))
import model  # noqa: E402

CORPUS = pathlib.Path(__file__).parent / "corpus"


def models():
    random = np.random.default_rng(1)
    normal = lambda *shape: random.standard_normal(shape).astype(np.float32)  # noqa: E731
    w, h, embed, f = normal(20, 33), normal(16, 16), normal(8, 12), normal(4, 4).astype(np.float64)
    twin = normal(32, 32)
    base = {"w": ("F32", w), "h": ("F16", h), "e": ("BF16", model.to_bf16(embed)), "f": ("F64", f),
            "s": ("F32", embed), "n": ("F32", normal(7)), "gone": ("I8", np.arange(3)),
            "keep": ("I32", np.arange(5)), "x": ("F32", normal(3, 4, 4, 2))}
    grown = np.concatenate([embed, normal(3, 12)])
    tuned = {"w": ("F32", w + 0.01 * normal(20, 33)), "h": ("F16", h + 0.01 * normal(16, 16)),
             "e": ("BF16", model.to_bf16(grown)), "f": ("F64", f + 0.01), "n": ("F32", normal(7)),
             "s": ("F32", embed[:5] + 0.1), "keep": ("I32", np.arange(5)), "a": ("F32", twin),
             "b": ("F32", twin), "x": ("F32", normal(3, 4, 4, 2)), "0": ("F32", normal())}
    return base, tuned


def put(target, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha1(data).hexdigest()[:16]).write_bytes(data)


def sections(path):
    whole = path.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8:8 + length])
    data = whole[8 + length:]
    put("header", struct.pack("<Q", len(data)) + whole[8:8 + length])
    header.pop("__metadata__", None)
    return {name: data[slice(*info["data_offsets"])] for name, info in header.items()}


def put_archive(path, base):
    put("archive", path.read_bytes())
    parts = sections(path)
    manifest = parts["manifest:1"]
    bytes_in_turn = b""
    for entry in json.loads(manifest)["tensors"]:
        bytes_in_turn += parts.get("delta:" + entry["name"], b"")
        bytes_in_turn += parts.get("lossless:" + entry["name"], b"")
        if "base" in entry:
            bytes_in_turn += base[entry["name"]]
    put("backends", struct.pack("<HB", len(manifest), 0) + manifest + bytes_in_turn)


def put_altered(path, alter):
    """The archive with an altered manifest. Its checksum does not matter to the target."""
    whole = path.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8:8 + length])
    begin, end = header["manifest:1"]["data_offsets"]
    data = whole[8 + length:]
    if end != len(data):
        raise AssertionError("the manifest is not the last section")
    manifest = json.loads(data[begin:end])
    alter(manifest["tensors"])
    text = json.dumps(manifest, separators=(",", ":")).encode()
    header["manifest:1"].update(shape=[len(text)], data_offsets=[begin, begin + len(text)])
    head = json.dumps(header, separators=(",", ":")).encode()
    put("archive", struct.pack("<Q", len(head)) + head + data[:begin] + text)


def add_tie(tensors):
    """Ties a tensor to the first delta."""
    target = next(entry for entry in tensors if entry["mode"] == "delta")
    tensors.append({"name": "tie", "mode": "tied", "target": target["name"],
                    **{key: target[key] for key in ("dtype", "shape", "tuned")}})


def claim_base(tensors):
    """Claims a base so large that any size would be allowed."""
    tensors.append({"name": "claim", "mode": "removed", "dtype": "U8", "shape": [1 << 40],
                    "base": "0" * 16})


def write_folder(path, tuned):
    """A fine-tune with files beside it, one of which takes two chunks."""
    (path / "1_Pooling").mkdir(parents=True)
    model.write(path / "model.safetensors", tuned)
    for name, text in (("config.json", "{}"), ("1_Pooling/config.json", "{" + " " * 99 + "}"),
                       ("merges.txt", ""), ("tokenizer.json", "t" * ((1 << 20) + 1))):
        (path / name).write_text(text)


def main():
    tool = sys.argv[1]
    base, tuned = models()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model.write(folder / "base", base)
        model.write(folder / "tuned", tuned, {"format": "pt"})
        run = lambda *arguments: subprocess.run(  # noqa: E731
            [tool, "compress", folder / "base", folder / "tuned", "-o", folder / "delta", "--force",
             *arguments], check=True, stdout=subprocess.DEVNULL)
        base_bytes = sections(folder / "base")
        for arguments in (["--patch", "4"], ["--patch", "16"], ["--preset", "lossless"],
                          ["--patch", "12", "--mix", "8:0.2,6:0.2,3:0.2,1:0.2,0:0.2"],
                          ["--patch", "4", "--mix", "4:1", "--no-dct"],
                          ["--patch", "4", "--mix", "8:0.1,6:0.1,4:0.2,3:0.2,2:0.2,1:0.1,0:0.1"],
                          ["--preset", "unit_gain", "--patch", "16"],
                          ["--preset", "unit_gain", "--patch", "16", "--mix", "3:0.5,-3:0.5"],
                          ["--preset", "bit_delta"], ["--preset", "delta_come"],
                          ["--preset", "dare"], ["--preset", "ultra_delta"]):
            run(*arguments)
            put_archive(folder / "delta", base_bytes)
            if arguments[-1] in ("delta_come", "dare"):
                put_altered(folder / "delta", add_tie)
            if arguments[-1] == "lossless":
                put_altered(folder / "delta", claim_base)
        # The raw archive is restored on an empty base, so all its tensors must be its own.
        model.write(folder / "base", {})
        run("--preset", "lossless")
        put_archive(folder / "delta", {})
        run("--max-shard-size", "1000")
        put("index", (folder / "delta" / "delta.safetensors.index.json").read_bytes())
        shutil.rmtree(folder / "delta")
        (folder / "tuned").unlink()
        write_folder(folder / "tuned", {"x": ("I8", np.arange(3))})
        run()
        put("archive", (folder / "delta").read_bytes())
    put("index", b'{"weight_map":{}}')
    put("index", b'{"metadata":{"total_size":12,"a":"b"},"weight_map":{"x":"1.st","y":"2.st"}}')


if __name__ == "__main__":
    main()
