"""The command line tool, run as a user would: results, exit codes, messages, files left behind.

DELTADCT_CLI is the executable; arguments are those of unittest.
"""

import ctypes
import ctypes.util
import json
import os
import pathlib
import pty
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import unicodedata
import unittest

import numpy as np

import model

CLI = os.path.abspath(os.environ["DELTADCT_CLI"])
DONE, FAILED, USAGE = 0, 1, 2
METADATA = {"by": "a test", "format": "pt"}


def example_pair():
    """A base and a fine-tune in another order: deltas of all dtypes, lossless and same ones."""
    random = np.random.default_rng(1)
    base, tuned = {}, {}

    def add(name, dtype, shape, step=0.02):
        before = random.standard_normal(shape)
        after = before + step * random.standard_normal(shape)
        base[name] = model.of_floats(dtype, before)
        tuned[name] = model.of_floats(dtype, after)

    add("layers.0.attn.weight", "F32", (96, 80))
    add("layers.0.attn.bias", "F32", (80,))
    add("layers.0.mlp.weight", "BF16", (70, 130))
    add("layers.1.attn.weight", "F16", (64, 64))
    add("layers.1.mlp.weight", "F64", (48, 33))
    add("experts.weight", "F32", (3, 32, 40))
    add("frozen.weight", "F32", (32, 32), step=0)
    add("scale", "F32", ())
    base["ids"] = ("I64", np.arange(10).reshape(2, 5))
    tuned["ids"] = ("I64", np.arange(10).reshape(2, 5) + 1)
    base["mask"] = tuned["mask"] = ("BOOL", np.array([True, False, True]))
    return base, dict(reversed(tuned.items()))


DELTAS = {"layers.0.attn.weight", "layers.0.mlp.weight", "layers.1.attn.weight",
          "layers.1.mlp.weight", "experts.weight"}
SAME = {"frozen.weight", "mask"}
FLOATING = DELTAS | {"layers.0.attn.bias", "frozen.weight", "scale"}


def has_attributes(folder):
    """Whether the file system keeps what outputs are recognised by."""
    probe = folder / "probe"
    probe.write_bytes(b"")
    try:
        os.setxattr(probe, "user.deltadct.probe", b"x")
        return True
    except OSError:
        return False
    finally:
        probe.unlink()


class Case(unittest.TestCase):
    """A folder with a pair in it; commands run in another folder, with paths relative to that."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        (self.folder / "elsewhere").mkdir()
        self.base, self.tuned = example_pair()
        self.write_pair()

    def write_pair(self):
        model.write(self.folder / "base", self.base, {"of": "the base"})
        model.write(self.folder / "tuned", self.tuned, METADATA)

    def path(self, name):
        return os.path.join("..", name)

    def run_cli(self, *arguments, before=None):
        return subprocess.run([CLI, *map(str, arguments)], cwd=self.folder / "elsewhere",
                              capture_output=True, text=True, check=False, preexec_fn=before)

    def ok(self, *arguments):
        result = self.run_cli(*arguments)
        self.assertEqual(result.returncode, DONE, result.stderr)
        # stderr is not a terminal here, so progress, if any, consists of whole lines.
        self.assertNotRegex(result.stderr, r"[\r\x1b]")
        for line in result.stderr.splitlines():
            self.assertRegex(line, r"^\w+ \d+% ")
        return result.stdout

    def warns(self, *arguments):
        """Runs what must succeed with a warning. Returns that."""
        result = self.run_cli(*arguments)
        self.assertEqual(result.returncode, DONE, result.stderr)
        for line in result.stderr.splitlines():
            self.assertRegex(line, r"^(deltadct: warning: |\w+ \d+% )")
        self.assertIn("warning", result.stderr)
        return result.stderr

    def fails(self, code, *arguments):
        """Runs what must fail: nothing on stdout, nothing written, a message. Returns that."""
        before = self.files()
        result = self.run_cli(*arguments)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        self.assertEqual(result.stdout, "")
        self.assertNotEqual(result.stderr, "")
        after = self.files()
        changed = [path for path in before | after if before.get(path) != after.get(path)]
        self.assertEqual(changed, [], result.stderr)
        if code == FAILED:
            self.assertTrue(result.stderr.startswith("deltadct: "), result.stderr)
            self.assertEqual(result.stderr.count("\n"), 1)
        return result.stderr

    def files(self):
        return {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}

    def remove(self, *names):
        for path in [self.folder / name for name in names]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def bytes(self, name):
        return (self.folder / name).read_bytes()

    def compress(self, *options, output="delta"):
        return self.ok("compress", self.path("base"), self.path("tuned"), "-o", self.path(output),
                       *options)

    def compress_fails(self, code, *options, output="delta"):
        return self.fails(code, "compress", self.path("base"), self.path("tuned"), "-o",
                          self.path(output), *options)

    def apply(self, *options, base="base", delta="delta", output="out"):
        self.ok("apply", self.path(base), self.path(delta), "-o", self.path(output), *options)
        path = self.folder / output
        if path.is_dir() and (path / "model.safetensors").exists():
            path /= "model.safetensors"
        if path.is_file():
            return model.read(path)[0]
        shards = model.read_folder(self.folder / output)
        return {name: tensor for tensors, _ in shards.values() for name, tensor in tensors.items()}

    def apply_fails(self, code, *options, base="base", delta="delta", output="out"):
        return self.fails(code, "apply", self.path(base), self.path(delta), "-o",
                          self.path(output), *options)

    def inspect(self, name="delta"):
        return json.loads(self.ok("inspect", "--json", self.path(name)))

    def entries(self, name="delta"):
        return {tensor["name"]: tensor for tensor in self.inspect(name)["tensors"]}

    def modes(self, name="delta"):
        return {tensor: entry["mode"] for tensor, entry in self.entries(name).items()}

    def assert_same_tensors(self, found, expected):
        """The same names in the same order, dtypes, shapes and bytes."""
        self.assertEqual(list(found), list(expected))
        for name, (dtype, array) in expected.items():
            self.assertEqual(found[name][0], dtype, name)
            self.assertEqual(found[name][1].shape, np.shape(array), name)
            stored = np.asarray(array, model.DTYPES[dtype]).tobytes()
            self.assertEqual(found[name][1].tobytes(), stored, name)

    def interrupt(self, *arguments, most=6000):
        """Runs until a file is to have more than `most` bytes, which is an error, not a signal."""
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        result = self.run_cli(*arguments, before=limit)
        self.assertEqual(result.returncode, FAILED, result.stderr)
        self.assertRegex(result.stderr, r"^deltadct: .*File too large.*\n$")

    def delta(self, name, other=None):
        """The difference of a tensor of a model from the base's, in doubles."""
        dtype, base = self.base[name]
        return model.floats(dtype, (other or self.tuned)[name][1]) - model.floats(dtype, base)


class RoundTrip(Case):
    def test_lossless_tensors_come_back_and_deltas_nearly(self):
        self.compress("--mix", "8:1")
        out = self.apply()
        self.assertEqual(list(out), list(self.tuned))
        for name, (dtype, array) in out.items():
            self.assertEqual(dtype, self.base[name][0])
            if name not in DELTAS:
                np.testing.assert_array_equal(array, self.tuned[name][1])
                continue
            error = np.linalg.norm(self.delta(name, out) - self.delta(name))
            share = error / np.linalg.norm(self.delta(name))
            self.assertLess(share, 0.3 if dtype == "BF16" else 0.05, name)

    def test_metadata_are_those_of_the_fine_tune(self):
        self.compress()
        self.apply()
        self.assertEqual(model.read(self.folder / "out")[1], METADATA)

    def test_mapped_or_read_makes_no_difference(self):
        for access in ("map", "read"):
            self.compress("--io", access, output=access)
            self.apply("--io", access, delta=access, output=access + ".out")
            for command in (["inspect"], ["verify", "--base", self.path("base")]):
                self.ok(*command, self.path(access), "--io", access)
            self.ok("diff", *[self.path(name) for name in ("base", "tuned", access + ".out")],
                    "--io", access)
        self.assertEqual(self.bytes("map"), self.bytes("read"))
        self.assertEqual(self.bytes("map.out"), self.bytes("read.out"))

    def test_every_patch_size_mix_and_transform(self):
        for patch in (4, 8, 12, 16, 32, 64):
            for options in ([], ["--mix", "8:0.1,4:0.2,3:0.2,1:0.3,0:0.2"], ["--no-dct"]):
                self.compress("--patch", patch, "--force", *options)
                self.apply("--force")
                self.ok("verify", self.path("delta"), "--base", self.path("base"))

    def assert_size_is_reported(self):
        report, size = self.inspect(), (self.folder / "delta").stat().st_size
        self.assertEqual(report["bytes"], size)
        self.assertAlmostEqual(report["bits_per_weight"], 8 * size / report["weights"])
        weights = sum(int(np.prod(tuned[1].shape)) for tuned in self.tuned.values())
        self.assertEqual(report["weights"], weights)

    def test_unit_gain_keeps_the_gain(self):
        for options in ([], ["--patch", 16], ["--patch", 64], ["--mix", "4:0.25,1:0.5,-3:0.25"],
                        ["--bpw", 2], ["--size", "8kB", "--patch", 16]):
            self.compress("--preset", "unit_gain", "--force", *options)
            out = self.apply("--force")
            self.ok("verify", self.path("delta"), "--base", self.path("base"))
            self.assert_size_is_reported()
            entries = self.entries()
            for name in DELTAS:
                if entries[name]["mode"] != "delta":
                    continue
                delta, found = self.delta(name), self.delta(name, out)
                # A 2-byte dtype rounds the result.
                error = 0.05 if self.base[name][0] in ("F16", "BF16") else 1e-3
                gain = np.sum(delta * found) / np.sum(delta * delta)
                self.assertLess(abs(gain - 1), error, (name, options))

    def write_larger_pair(self):
        """Matrices that changed and one that did not, with norms; returns the weights that changed."""
        random = np.random.default_rng(5)
        self.base, self.tuned = {}, {}
        for layer in range(3):
            before = random.standard_normal((256, 384))
            after = before + 0.01 * random.standard_normal(before.shape)
            self.base[f"{layer}.weight"] = model.of_floats("F32", before)
            self.tuned[f"{layer}.weight"] = model.of_floats("F32", after)
            self.base[f"{layer}.norm"] = model.of_floats("F32", np.ones(64))
            self.tuned[f"{layer}.norm"] = model.of_floats("F32", 1 + 0.01 * random.random(64))
        self.tuned["2.weight"] = self.base["2.weight"]
        model.write(self.folder / "base", self.base)
        model.write(self.folder / "tuned", self.tuned)
        return 2 * 256 * 384 + 3 * 64

    def test_a_budget_is_of_the_archive_over_what_changed(self):
        changed = self.write_larger_pair()
        for preset, budgets in (("unit_gain", (0.3, 0.5, 1, 2)), ("delta_come", (0.5, 1))):
            for budget in budgets:
                for options in (["--bpw", budget], ["--size", int(budget * changed / 8)]):
                    self.compress("--preset", preset, "--force", *options)
                    found = 8 * (self.folder / "delta").stat().st_size / changed
                    self.assertLessEqual(found, budget)
                    if preset == "unit_gain":
                        self.assertGreater(found, 0.98 * budget)

    def test_a_budget_that_cannot_be_met_names_the_least(self):
        self.write_larger_pair()
        for preset in ("unit_gain", "delta_come"):
            message = self.compress_fails(FAILED, "--preset", preset, "--bpw", 0.01)
            least = int(re.search(r"least possible: (\d+) bytes", message)[1])
            self.compress("--preset", preset, "--size", least)
            self.assertLessEqual((self.folder / "delta").stat().st_size, least)
            os.remove(self.folder / "delta")
        self.assertIn("most possible", self.compress_fails(FAILED, "--preset", "unit_gain",
                                                           "--bpw", 9))

    def test_what_comes_back_is_told(self):
        text = self.compress("--verbose")
        for name in DELTAS:
            self.assertRegex(text, re.escape(name) + r" .*(gain [\d.]+, SNR|exact)")
        self.assertRegex(text, r"restored +gain [\d.]+, SNR -?[\d.]+ dB")
        report = self.inspect()
        self.assertGreater(report["recovery"]["gain"], 0.7)
        for entry in report["tensors"]:
            if entry["mode"] == "delta":
                self.assertGreater(entry["recovery"]["gain"], 0.5)

    def test_a_delta_that_rounding_swallows_is_told(self):
        random = np.random.default_rng(6)
        before = model.from_bf16(model.to_bf16(random.standard_normal((64, 96))))
        after = before * (1 + 1e-4 * random.standard_normal(before.shape).astype("f4"))
        model.write(self.folder / "base", {"w": ("BF16", model.to_bf16(before))})
        model.write(self.folder / "tuned", {"w": ("F32", after)})
        result = self.run_cli("compress", self.path("base"), self.path("tuned"), "-o",
                              self.path("delta"), "--preset", "unit_gain")
        self.assertEqual(result.returncode, DONE)
        self.assertRegex(result.stderr, r"warning: w: the delta is lost .*BF16.*--dtype tuned")
        delta = after.astype(float) - before

        def gain(*options):
            self.ok("apply", self.path("base"), self.path("delta"), "-o", self.path("out"),
                    "--force", *options)
            (dtype, found), = model.read(self.folder / "out")[0].values()
            return dtype, np.sum((model.floats(dtype, found) - before) * delta) / np.sum(delta ** 2)

        self.assertEqual(gain()[0], "BF16")
        self.assertLess(gain()[1], 0.1)
        dtype, found = gain("--dtype", "tuned")
        self.assertEqual(dtype, "F32")
        self.assertAlmostEqual(found, 1, delta=0.01)
        dtype, found = gain("--round", "stochastic")
        self.assertEqual(dtype, "BF16")
        self.assertAlmostEqual(found, 1, delta=0.3)

    def test_methods_of_others(self):
        for preset, least in (("bit_delta", 0.7), ("delta_come", 0.5), ("dare", 0.1),
                              ("ultra_delta", 0.05)):
            self.compress("--preset", preset, "--force")
            out = self.apply("--force")
            self.ok("verify", self.path("delta"), "--base", self.path("base"))
            self.assertIn(preset, self.ok("inspect", self.path("delta")))
            self.assert_size_is_reported()
            entries = self.entries()
            for name in DELTAS:
                entry = entries[name]
                if entry["mode"] != "delta":
                    continue
                self.assertEqual(entry["method"], preset)
                if np.prod(entry["shape"]) < 1000:
                    continue
                delta, found = self.delta(name), self.delta(name, out)
                cosine = np.sum(delta * found) / np.linalg.norm(delta) / np.linalg.norm(found)
                self.assertGreater(cosine, least, (preset, name))

    def test_backends_nearly_agree(self):
        for backend in ("serial", "simd"):
            self.compress("--backend", backend, "--force")
            outs = [self.apply("--backend", other, "--force") for other in ("serial", "simd")]
            for name in DELTAS:
                difference = np.linalg.norm(self.delta(name, outs[0]) - self.delta(name, outs[1]))
                bound = 0.05 if self.base[name][0] in ("F16", "BF16") else 1e-5
                self.assertLess(difference, bound * np.linalg.norm(self.delta(name)), name)
        self.compress("--backend", "serial", output="serial")
        self.compress("--backend", "simd", output="simd")
        outs = [self.apply(delta=name, output=name + ".out") for name in ("serial", "simd")]
        for name in DELTAS:  # ties may be rounded to different codes
            difference = np.linalg.norm(self.delta(name, outs[0]) - self.delta(name, outs[1]))
            self.assertLess(difference, 0.05 * np.linalg.norm(self.delta(name)), name)

    def test_the_number_of_threads_changes_no_bit(self):
        for backend in ("serial", "simd"):
            for threads in (1, 2, 5):
                self.compress("--threads", threads, "--backend", backend, output=f"d{threads}",
                              *["--force"])
                self.apply("--threads", threads, delta=f"d{threads}", output=f"o{threads}",
                           *["--force"])
                self.assertEqual(self.bytes(f"d{threads}"), self.bytes("d1"))
                self.assertEqual(self.bytes(f"o{threads}"), self.bytes("o1"))

    def test_nothing_but_the_outputs_is_left(self):
        self.compress()
        self.apply()
        self.assertEqual({path.name for path in self.files()}, {"base", "tuned", "delta", "out"})

    def test_absolute_paths_and_names_with_spaces(self):
        output = self.folder / "a name with spaces"
        self.ok("compress", self.folder / "base", self.folder / "tuned", "-o", output)
        self.ok("verify", output)

    def test_a_terminal_sees_progress_and_a_clean_line_after(self):
        lead, follow = pty.openpty()
        result = subprocess.run([CLI, "compress", "../base", "../tuned", "-o", "../delta"],
                                cwd=self.folder / "elsewhere", stdout=subprocess.PIPE,
                                stderr=follow, check=False)
        os.close(follow)
        shown = b""
        try:
            while more := os.read(lead, 65536):
                shown += more
        except OSError:  # there is no more
            pass
        os.close(lead)
        shown = shown.decode()
        self.assertEqual(result.returncode, DONE)
        self.assertIn(b"bits per weight", result.stdout)
        self.assertTrue(shown == "" or shown.endswith("\r\x1b[K"), repr(shown))


class Compress(Case):
    def test_which_tensors_are_deltas(self):
        self.compress()
        modes = self.modes()
        self.assertEqual({name for name, mode in modes.items() if mode == "delta"}, DELTAS)
        self.assertEqual({name for name, mode in modes.items() if mode == "same"}, SAME)
        self.assertEqual(set(modes), set(self.base))

    def test_include_and_exclude_search_in_names(self):
        def deltas(*options):
            self.compress("--force", *options)
            return {name for name, mode in self.modes().items() if mode == "delta"}

        attention = {"layers.0.attn.weight", "layers.1.attn.weight"}
        self.assertEqual(deltas("--include", "attn"), attention)
        self.assertEqual(deltas("--include", "attn", "--include", "^experts"),
                         attention | {"experts.weight"})
        self.assertEqual(deltas("--exclude", r"\.mlp\."), attention | {"experts.weight"})
        self.assertEqual(deltas("--include", r"^layers\.", "--exclude", r"\.1\."),
                         {"layers.0.attn.weight", "layers.0.mlp.weight"})

    def test_patterns_that_match_nothing_are_told(self):
        command = ["compress", self.path("base"), self.path("tuned"), "-o", self.path("delta"),
                   "--force"]
        for options in (["--include", "nothing"], ["--exclude", "layerz"],
                        ["--rename", "^modle=model"]):
            warning = self.warns(*command, *options)
            self.assertIn(f"{options[0]} {options[1]}: matches no tensor", warning)
        self.compress("--force", "--rename", "^layers=x", "--rename", "^x=layers")

    def test_the_switch_is_named_whatever_the_path(self):
        (self.folder / "models--org--name").mkdir()
        self.compress(output="models--org--name/delta")
        self.assertIn("--force replaces it",
                      self.compress_fails(FAILED, output="models--org--name/delta"))

    def test_a_name_too_long_for_a_pattern_is_refused(self):
        self.tuned["n" * 100_000] = ("U8", np.arange(4, dtype=np.uint8))
        model.write(self.folder / "tuned", self.tuned)
        self.assertIn("too long", self.compress_fails(FAILED, "--exclude", ".*norm"))
        self.compress()

    def test_a_pattern_may_stand_before_the_models(self):
        for option in ("--include", "--exclude"):
            self.ok("compress", option, "attn", self.path("base"), self.path("tuned"), "-o",
                    self.path("delta"), "--force")
            self.ok("compress", option + "=attn", self.path("base"), self.path("tuned"), "-o",
                    self.path("delta"), "--force")

    def test_options_show_in_the_archive(self):
        self.compress("--patch", 8, "--mix", "4:0.25,1:0.75", "--no-dct")
        tensor = self.entries()["layers.0.attn.weight"]
        self.assertEqual((tensor["patch"], tensor["transform"]), (8, "identity"))
        self.assertEqual(tensor["matrices"][0]["widths"],
                         [{"bits": 4, "patches": 30}, {"bits": 1, "patches": 90}])
        self.compress("--force", "--preset", "paper")
        tensor = self.entries()["layers.0.attn.weight"]
        self.assertEqual((tensor["patch"], tensor["transform"]), (16, "dct"))
        self.assertEqual([width["bits"] for width in tensor["matrices"][0]["widths"]], [2, 0])

    def test_the_summary_counts_every_byte(self):
        summary = self.compress()
        weights = sum(array.size for _, array in self.base.values())
        bits = 8 * len(self.bytes("delta")) / weights
        self.assertIn(f"{bits:.3f} (every byte", summary)
        self.assertIn("2 same, 5 delta, 3 lossless\n", summary)

    def test_an_output_that_exists_needs_force(self):
        (self.folder / "delta").write_bytes(b"mine")
        self.assertIn("exists", self.compress_fails(FAILED))
        self.compress("--force")
        self.ok("verify", self.path("delta"))

    def test_not_finite_is_refused_by_tensor_and_element(self):
        self.tuned["layers.0.attn.weight"][1][5, 7] = np.nan
        self.write_pair()
        message = self.compress_fails(FAILED)
        self.assertIn("layers.0.attn.weight", message)
        self.assertIn("(5, 7)", message)
        self.compress_fails(FAILED, "--non-finite", "refuse")

    def test_not_finite_is_kept_where_asked(self):
        self.tuned["layers.0.attn.weight"][1][5, 7] = np.inf
        self.tuned["layers.1.attn.weight"][1][0, 0] = np.nan
        self.write_pair()
        self.compress("--non-finite", "keep")
        kept = {"layers.0.attn.weight", "layers.1.attn.weight"}
        for name, mode in self.modes().items():
            self.assertEqual(mode == "delta", name in DELTAS - kept)
        out = self.apply()
        for name in kept:
            self.assertEqual(out[name][1].tobytes(), self.tuned[name][1].tobytes())

    def test_a_failure_leaves_the_output_to_be_replaced(self):
        (self.folder / "delta").write_bytes(b"mine")
        self.tuned["layers.0.attn.weight"][1][0, 0] = np.nan
        self.write_pair()
        self.compress_fails(FAILED, "--force")
        self.assertEqual(self.bytes("delta"), b"mine")

    def test_inputs_that_are_none(self):
        self.assertIn("absent", self.fails(FAILED, "compress", self.path("absent"),
                                           self.path("tuned"), "-o", self.path("delta")))
        self.fails(FAILED, "compress", self.path("base"), "..", "-o", self.path("delta"))
        whole = self.bytes("base")
        for length in (0, 7, 8, 100, len(whole) - 1):
            (self.folder / "base").write_bytes(whole[:length])
            self.assertIn("base", self.compress_fails(FAILED))

    def test_outputs_that_cannot_be_written(self):
        self.compress_fails(FAILED, output="absent/delta")
        self.compress_fails(FAILED, output="base/delta")
        self.compress_fails(FAILED, "--force", output="elsewhere")
        for output in ("absent/delta", "base/delta"):
            self.compress_fails(FAILED, "--max-shard-size", "1MB", output=output)


class Apply(Case):
    def setUp(self):
        super().setUp()
        self.compress()

    def test_another_base_is_refused_by_tensor(self):
        self.base["layers.1.attn.weight"][1][3, 3] += 1
        self.write_pair()
        message = self.apply_fails(FAILED)
        self.assertIn("layers.1.attn.weight", message)
        self.assertIn("base", message)

    def test_a_base_that_does_not_fit_is_named(self):
        other = dict(self.base)
        del other["scale"]
        model.write(self.folder / "other", other)
        self.assertIn("scale: tensor is missing", self.apply_fails(FAILED, base="other"))
        other["scale"] = ("F64", np.float64(1))
        model.write(self.folder / "other", other)
        self.assertRegex(self.apply_fails(FAILED, base="other"), "scale: dtypes differ.*F64.*F32")
        other["scale"] = ("F32", np.zeros(1))
        model.write(self.folder / "other", other)
        self.assertRegex(self.apply_fails(FAILED, base="other"),
                         "scale: shapes differ.*1 where .* scalar")
        model.write(self.folder / "other", {**self.base, "another": ("I8", np.zeros(3))})
        self.assertIn("another: tensor is missing", self.apply_fails(FAILED, base="other"))

    def test_the_order_of_the_base_does_not_matter(self):
        expected = self.apply()
        model.write(self.folder / "other", dict(reversed(self.base.items())))
        self.assert_same_tensors(self.apply(base="other", output="out2"), expected)
        self.assertEqual(self.bytes("out2"), self.bytes("out"))

    def test_an_output_that_exists_needs_force(self):
        self.apply()
        self.assertIn("exists", self.apply_fails(FAILED))
        self.apply("--force")

    def test_a_corrupted_archive_is_refused(self):
        whole = bytearray(self.bytes("delta"))
        (length,) = np.frombuffer(whole[:8], "<u8")
        for at in (0, 8, int(length) + 8, int(length) + 500, len(whole) - 2):
            bad = bytearray(whole)
            bad[at] ^= 1
            (self.folder / "delta").write_bytes(bad)
            self.assertIn("delta", self.apply_fails(FAILED))
        (self.folder / "delta").write_bytes(whole[:-1])
        self.apply_fails(FAILED)

    def test_a_model_is_no_archive(self):
        self.assertIn("not a delta archive", self.apply_fails(FAILED, delta="tuned"))

    def test_a_missing_file_is_named(self):
        self.assertIn("absent", self.apply_fails(FAILED, delta="absent"))

    def test_a_failure_leaves_the_output_to_be_replaced(self):
        (self.folder / "out").write_bytes(b"mine")
        self.base["ids"][1][0, 0] = 77
        self.write_pair()
        self.apply_fails(FAILED, "--force")
        self.assertEqual(self.bytes("out"), b"mine")


class Inspect(Case):
    def setUp(self):
        super().setUp()
        self.compress()

    def test_json_says_what_the_archive_holds(self):
        found = self.inspect()
        self.assertEqual(found["version"], 1)
        self.assertEqual(found["bytes"], len(self.bytes("delta")))
        weights = sum(array.size for _, array in self.base.values())
        self.assertEqual(found["weights"], weights)
        self.assertAlmostEqual(found["bits_per_weight"], 8 * found["bytes"] / weights)
        self.assertLess(sum(tensor["bytes"] for tensor in found["tensors"]), found["bytes"])
        for tensor in found["tensors"]:
            dtype, array = self.base[tensor["name"]]
            self.assertEqual((tensor["dtype"], tensor["shape"]), (dtype, list(array.shape)))
            if tensor["mode"] == "same":
                self.assertEqual(tensor["bytes"], 0)
            if tensor["mode"] != "delta":
                self.assertNotIn("matrices", tensor)
                continue
            (matrix,) = tensor["matrices"]
            rows, cols = array.reshape(array.shape[0], -1).shape
            self.assertEqual(tensor["stack"], [1, rows, cols])
            patches = -(-rows // 16) * -(-cols // 16)
            self.assertEqual(sum(width["patches"] for width in matrix["widths"]), patches)
            self.assertEqual(tensor["bound"], "F64" if dtype == "F64" else "F32")
            self.assertTrue(np.isfinite(matrix["scale"]))

    def test_entries_have_the_order_of_the_fine_tune(self):
        self.assertEqual(list(self.entries()), list(self.tuned))

    def test_experts_are_matrices_of_their_own(self):
        random = np.random.default_rng(2)
        before, step = random.standard_normal((2, 3, 64, 80))
        for name, tensor in (("base", before), ("tuned", before + 0.01 * step)):
            model.write(self.folder / name, {"experts": model.of_floats("F32", tensor)})
        self.compress("--force")
        tensor = self.entries()["experts"]
        self.assertEqual(tensor["stack"], [3, 64, 80])
        self.assertEqual(len(tensor["matrices"]), 3)
        self.assertEqual(len({matrix["scale"] for matrix in tensor["matrices"]}), 3)

    def test_text_lists_every_tensor_and_the_total(self):
        lines = self.ok("inspect", self.path("delta")).splitlines()
        self.assertEqual([line.split()[0] for line in lines[1:-2]], list(self.tuned))
        for name, (dtype, array) in self.base.items():
            row = [line for line in lines if line.split()[0] == name]
            self.assertEqual(len(row), 1)
            self.assertIn(dtype, row[0])
            self.assertIn("x".join(map(str, array.shape)) or "scalar", row[0])
        self.assertIn("bits per weight", lines[-2])
        self.assertIn("restored: gain", lines[-1])

    def test_what_is_no_archive(self):
        self.assertIn("absent", self.fails(FAILED, "inspect", self.path("absent")))
        self.fails(FAILED, "inspect", self.path("base"))
        self.fails(FAILED, "inspect", "--json", self.path("base"))


class Verify(Case):
    def setUp(self):
        super().setUp()
        self.compress()

    def test_a_sound_archive(self):
        self.assertIn("10 tensors sound", self.ok("verify", self.path("delta")))
        self.assertIn("made from this base",
                      self.ok("verify", self.path("delta"), "--base", self.path("base")))

    def test_any_bad_byte_of_the_data(self):
        whole = self.bytes("delta")
        (length,) = np.frombuffer(whole[:8], "<u8")
        for at in np.linspace(int(length) + 8, len(whole) - 1, 30).astype(int):
            bad = bytearray(whole)
            bad[at] ^= 0x80
            (self.folder / "delta").write_bytes(bad)
            self.assertIn("checksum differs", self.fails(FAILED, "verify", self.path("delta")))

    def test_a_bad_byte_names_its_tensor(self):
        whole = bytearray(self.bytes("delta"))
        (length,) = np.frombuffer(whole[:8], "<u8")
        header = json.loads(whole[8:8 + int(length)])
        for section in ("delta:experts.weight", "delta:layers.1.mlp.weight", "lossless:ids",
                        "manifest:1"):
            for place in (0, -1):
                bad = bytearray(whole)
                begin, end = header[section]["data_offsets"]
                bad[8 + int(length) + (begin if place == 0 else end - 1)] ^= 1
                (self.folder / "delta").write_bytes(bad)
                message = self.fails(FAILED, "verify", self.path("delta"))
                self.assertIn(section.removeprefix("delta:").removeprefix("lossless:"), message)

    def test_another_base(self):
        message = self.fails(FAILED, "verify", self.path("delta"), "--base", self.path("tuned"))
        self.assertRegex(message, r"tuned: .*base is not the one")
        self.fails(FAILED, "verify", self.path("delta"), "--base", self.path("absent"))


class Diff(Case):
    def measures(self, pairs):
        """SNR in dB, gain, cosine and ratio of mean magnitudes, by their definitions."""
        d = np.concatenate([pair[0].ravel() for pair in pairs])
        r = np.concatenate([pair[1].ravel() for pair in pairs])
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                "snr_db": 10 * np.log10(np.sum(d * d) / np.sum((d - r) ** 2)),
                "gain": np.sum(d * r) / np.sum(d * d),
                "cosine": np.sum(d * r) / np.sqrt(np.sum(d * d) * np.sum(r * r)),
                "mean_abs_ratio": np.sum(np.abs(r)) / np.sum(np.abs(d)),
            }

    def check(self, found, expected):
        for key, value in expected.items():
            if not np.isfinite(value):
                self.assertIsNone(found[key], key)
            else:
                np.testing.assert_allclose(found[key], value, rtol=1e-6, atol=1e-9, err_msg=key)

    def diff(self, other):
        return json.loads(self.ok("diff", self.path("base"), self.path("tuned"), self.path(other),
                                  "--json"))

    def test_figures_agree_with_numpy(self):
        self.compress("--mix", "3:0.5,1:0.5")
        out = self.apply()
        found = self.diff("out")
        names = [name for name, (dtype, _) in self.tuned.items() if dtype in model.FLOATS]
        pairs = {name: (self.delta(name), self.delta(name, out)) for name in names}
        self.assertEqual([row["name"] for row in found["tensors"]], names)
        for row in found["tensors"]:
            self.check(row, self.measures([pairs[row["name"]]]))
        self.check(found["total"], self.measures(list(pairs.values())))

    def test_the_base_recovers_nothing_and_the_fine_tune_everything(self):
        total = self.diff("base")["total"]
        self.assertAlmostEqual(total["snr_db"], 0)
        self.assertEqual((total["gain"], total["cosine"]), (0, None))
        total = self.diff("tuned")["total"]
        self.assertIsNone(total["snr_db"])
        self.assertAlmostEqual(total["gain"], 1)
        self.assertAlmostEqual(total["cosine"], 1)

    def test_figures_do_not_depend_on_the_scale(self):
        random = np.random.default_rng(3)
        delta = random.standard_normal((16, 16))
        back = 0.9 * delta + 0.1 * random.standard_normal((16, 16))
        noise, power = ((delta - back) ** 2).sum(), (delta ** 2).sum()
        expected = {"snr_db": 10 * np.log10(power / noise), "gain": (delta * back).sum() / power,
                    "cosine": (delta * back).sum() / np.sqrt(power * (back ** 2).sum()),
                    "mean_abs_ratio": np.abs(back).sum() / np.abs(delta).sum()}
        for dtype, scales in (("F64", (1e-307, 1e-300, 1e-160, 1, 1e160, 1e300, 4e307)),
                              ("F32", (1e-36, 1, 1e37))):
            for scale in scales:
                for name, values in (("base", 0 * delta), ("tuned", scale * delta),
                                     ("out", scale * back)):
                    model.write(self.folder / name, {"w": (dtype, values)})
                found = self.diff("out")
                for row in (found["total"], *found["tensors"]):
                    for key, value in expected.items():
                        np.testing.assert_allclose(row[key], value, rtol=1e-5, err_msg=key)
        # Values smaller than rounding can represent, and differences larger than any number.
        least = np.full((16, 16), 1e-322)
        most = np.full((16, 16), 1.7e308)
        for base, tuned, out, gain in ((0 * least, least, least, 1), (0 * least, least, -least, -1),
                                       (-most, most, most, 1), (-most, most, -most, 0)):
            for name, values in (("base", base), ("tuned", tuned), ("out", out)):
                model.write(self.folder / name, {"w": ("F64", values)})
            self.assertAlmostEqual(self.diff("out")["total"]["gain"], gain)
            text = self.ok("diff", self.path("base"), self.path("tuned"), self.path("out"))
            self.assertNotIn("nan", text)

    def test_text_has_a_row_for_every_floating_tensor(self):
        lines = self.ok("diff", self.path("base"), self.path("tuned"),
                        self.path("tuned")).splitlines()
        names = [name for name, (dtype, _) in self.tuned.items() if dtype in model.FLOATS]
        self.assertEqual([line.split()[0] for line in lines[1:]], names + ["total"])

    def test_models_that_do_not_fit(self):
        model.write(self.folder / "other", {"scale": self.base["scale"]})
        message = self.fails(FAILED, "diff", self.path("base"), self.path("tuned"),
                             self.path("other"), "--json")
        first = next(name for name in self.tuned if name != "scale" and name in FLOATING)
        self.assertIn(first + ": tensor is missing", message)
        self.fails(FAILED, "diff", self.path("base"), self.path("absent"), self.path("tuned"))


class Sharded(Case):
    """Models and archives in folders: a path to the folder or to its index."""

    INDEX = "model.safetensors.index.json"
    SIZE = ["--max-shard-size", "20kB"]
    SMALL = ["--max-shard-size", "3kB"]  # archives are smaller than models

    def write_folders(self):
        model.write_folder(self.folder / "bases", self.base, (1, 4, 9), {"of": "the base"})
        model.write_folder(self.folder / "tuneds", self.tuned, (3, 4), METADATA)

    def folder_of(self, name):
        return {path.name: path.read_bytes() for path in (self.folder / name).iterdir()}

    def same_but_bytes(self, one, other):
        one, other = self.inspect(one), self.inspect(other)
        for found in (one, other):
            del found["bytes"], found["bits_per_weight"]
        self.assertEqual(one, other)

    def test_how_models_are_cut_does_not_matter(self):
        self.write_folders()
        self.compress()
        self.apply()
        for base, tuned in (("bases", "tuneds"), ("base", "tuneds"), ("bases", "tuned"),
                            (os.path.join("bases", self.INDEX), "tuneds")):
            self.ok("compress", self.path(base), self.path(tuned), "-o", self.path("d"), "--force")
            folder = tuned == "tuneds"
            found, expected = self.inspect("d"), self.inspect()
            self.assertEqual(found["folder"], folder)
            self.assertEqual(found["tensors"], expected["tensors"])
            output = "os" if folder else "o"
            self.apply("--force", base=base, delta="d", output=output)
            whole = os.path.join(output, "model.safetensors") if folder else output
            self.assertEqual(self.bytes(whole), self.bytes("out"))
            self.ok("verify", self.path("d"), "--base", self.path(base))

    def test_a_sharded_archive_says_and_gives_what_a_single_one_does(self):
        self.compress()
        expected = self.apply()
        self.compress(*self.SMALL, output="deltas")
        shards = model.read_folder(self.folder / "deltas")
        self.assertGreater(len(shards), 2)
        self.assertEqual(set(self.folder_of("deltas")), {"delta.safetensors.index.json"} | {
            f"delta-{part:05}.safetensors" for part in range(1, len(shards) + 1)})
        self.same_but_bytes("delta", "deltas")
        found = self.inspect("deltas")
        self.assertEqual(found["bytes"], sum(map(len, self.folder_of("deltas").values())))
        for name in ("deltas", os.path.join("deltas", "delta.safetensors.index.json")):
            self.ok("verify", self.path(name), "--base", self.path("base"))
            self.assert_same_tensors(self.apply("--force", delta=name, output="o"), expected)
            self.assertEqual(self.bytes("o"), self.bytes("out"))

    def test_a_part_of_an_archive_is_none(self):
        self.compress(*self.SMALL, output="deltas")
        for part in range(1, 3):
            name = os.path.join("deltas", f"delta-{part:05}.safetensors")
            self.fails(FAILED, "inspect", self.path(name))

    def test_parts_of_two_archives_do_not_mix(self):
        self.compress(*self.SMALL, output="one")
        self.compress(*self.SMALL, "--no-dct", output="two")
        name = next(name for name, data in self.folder_of("one").items()
                    if name.startswith("delta-") and data != self.folder_of("two")[name])
        shutil.copy(self.folder / "one" / name, self.folder / "two")
        self.fails(FAILED, "verify", self.path("two"))

    def test_a_sharded_model_is_a_model(self):
        self.compress()
        expected = self.apply()
        self.apply(*self.SIZE, output="outs")
        shards = model.read_folder(self.folder / "outs")
        self.assertGreater(len(shards), 2)
        self.assertEqual(list(shards), [f"model-{k:05}-of-{len(shards):05}.safetensors"
                                        for k in range(1, len(shards) + 1)])
        self.assertEqual(set(self.folder_of("outs")), {self.INDEX} | set(shards))
        found = {}
        for tensors, metadata in shards.values():
            self.assertEqual(metadata, METADATA)
            sizes = [array.nbytes for _, array in tensors.values()]
            self.assertTrue(sum(sizes) <= 20000 or len(sizes) == 1)
            found.update(tensors)
        self.assert_same_tensors(found, expected)
        # The result is a model like any other.
        self.ok("compress", self.path("outs"), self.path("out"), "-o", self.path("none"))
        self.assertEqual(set(self.modes("none").values()), {"same"})
        self.ok("compress", self.path("base"), self.path("outs"), "-o", self.path("again"))
        self.apply(delta="again", output="out.again")
        one, two = (json.loads(self.ok("diff", self.path("base"), self.path("tuned"),
                                       self.path(name), "--json")) for name in ("out", "outs"))
        self.assertEqual(one, two)
        self.ok("compress", self.path("outs"), self.path("tuned"), "-o", self.path("back"))
        self.ok("verify", self.path("back"), "--base", self.path("out"))

    def test_any_size(self):
        self.compress()
        expected = self.apply()
        for number, size in enumerate(("1", "1b", "4096", "30KB", "30KiB", "1GB", "15EB")):
            self.compress("--max-shard-size", size, output=f"deltas{number}")
            self.same_but_bytes("delta", f"deltas{number}")
            self.apply("--max-shard-size", size, delta=f"deltas{number}", output=f"outs{number}")
            shards = model.read_folder(self.folder / f"outs{number}")
            self.assertEqual(sum(len(tensors) for tensors, _ in shards.values()), len(expected))
            if size in ("1", "1b"):
                self.assertEqual(len(shards), len([0 for _, a in expected.values() if a.size]))
            if size in ("1GB", "15EB"):
                self.assertEqual(len(shards), 1)
                (tensors, _), = shards.values()
                self.assert_same_tensors(tensors, expected)
        self.compress("--max-shard-size", "0", output="file")
        self.assertEqual(self.bytes("file"), self.bytes("delta"))

    def test_an_output_that_exists_needs_force(self):
        self.compress(*self.SIZE)
        before = self.folder_of("delta")
        self.assertIn("exists", self.compress_fails(FAILED, *self.SIZE))
        self.compress_fails(FAILED)
        self.compress_fails(FAILED, "--force")  # a file does not replace a folder
        self.compress(*self.SIZE, "--force", "--no-dct")
        self.assertNotEqual(self.folder_of("delta"), before)
        self.compress(*self.SIZE, "--force")
        self.assertEqual(self.folder_of("delta"), before)
        (self.folder / "mine").write_bytes(b"mine")
        self.assertIn("exists", self.compress_fails(FAILED, *self.SIZE, output="mine"))
        self.compress(*self.SIZE, "--force", output="mine")
        self.assertEqual(self.folder_of("mine"), before)
        self.assertEqual({path.name for path in self.folder.iterdir()},
                         {"base", "tuned", "delta", "mine", "elsewhere"})

    def test_a_model_of_somebody_elses_is_kept(self):
        self.compress(*self.SIZE)
        (self.folder / "mine").mkdir()
        model.write(self.folder / "mine" / "model.safetensors", self.tuned)
        message = self.apply_fails(FAILED, *self.SIZE, "--force", output="mine")
        self.assertIn("holds 'model.safetensors'", message)
        self.assertIn("remove this folder", message)
        self.apply(*self.SIZE)
        os.utime(self.folder / "out" / "model.safetensors.index.json")
        self.assertIn("holds 'model.safetensors.index.json'",
                      self.apply_fails(FAILED, *self.SIZE, "--force"))

    def test_a_folder_with_files_of_others_is_kept(self):
        self.compress(*self.SIZE)
        (self.folder / "delta" / "config.json").write_text("{}")
        self.assertIn("config.json", self.compress_fails(FAILED, *self.SIZE, "--force"))
        (self.folder / "new.partial").mkdir()
        (self.folder / "new.partial" / "thesis.txt").write_text("mine")
        for option in ([], ["--force"], ["--resume"]):
            self.assertIn("new.partial", self.compress_fails(FAILED, *self.SIZE, *option,
                                                             output="new"))

    def write_growing_pair(self):
        """Small tensors first: a limit on the size of files interrupts near the end."""
        random = np.random.default_rng(3)
        self.base, self.tuned = {}, {}
        for number, side in enumerate((16, 32, 24, 32, 40, 150, 20)):
            before, step = random.standard_normal((2, side, side))
            self.base[f"{number}"] = model.of_floats("F32", before)
            self.tuned[f"{number}"] = model.of_floats("F32", before + 0.01 * step)
        self.write_pair()

    def operations(self, *options):
        """What writes folders: name, its arguments, what it made of the growing pair."""
        self.write_growing_pair()
        mix = ["--mix", "8:1"]
        self.compress(*mix)
        compress = ["compress", self.path("base"), self.path("tuned"), *mix]
        apply = ["apply", self.path("base"), self.path("delta")]
        for command in (compress, apply):
            self.ok(*command, "-o", self.path(command[0] + ".whole"), *options)
            yield command[0], command, self.folder_of(command[0] + ".whole")

    def test_an_interrupted_run_is_resumed(self):
        size = ["--max-shard-size", "4kB"]
        for name, command, whole in self.operations(*size):
            command_line = [*command, "-o", self.path(name), *size]
            self.interrupt(*command_line)
            self.assertFalse((self.folder / name).exists())
            partial = self.folder / (name + ".partial")
            parts = {path.name: path.stat() for path in partial.glob("*.safetensors")
                     if not path.name.startswith(".")}
            self.assertGreater(len(parts), 1)
            # Complete parts are kept as they are.
            self.ok(*command_line, "--resume")
            self.assertEqual(self.folder_of(name), whole)
            for part, status in parts.items():
                now = (self.folder / name / part).stat()
                self.assertEqual((now.st_ino, now.st_mtime_ns),
                                 (status.st_ino, status.st_mtime_ns))
            self.assertFalse(partial.exists())

    def test_an_interrupted_run_is_started_over(self):
        size = ["--max-shard-size", "4kB"]
        for name, command, whole in self.operations(*size):
            command_line = [*command, "-o", self.path(name), *size]
            self.interrupt(*command_line)
            self.ok(*command_line)
            self.assertEqual(self.folder_of(name), whole)
            self.assertFalse((self.folder / f"{name}.partial").exists())

    def test_an_interrupted_run_leaves_the_output_to_be_replaced(self):
        size = ["--max-shard-size", "4kB"]
        for name, command, whole in self.operations(*size):
            command_line = [*command, "-o", self.path(name), "--force"]
            self.ok(*command_line, "--max-shard-size", "1GB")
            old = self.folder_of(name)
            self.assertNotEqual(old, whole)
            self.interrupt(*command_line, *size)
            self.assertEqual(self.folder_of(name), old)
            self.ok(*command_line, *size, "--resume")
            self.assertEqual(self.folder_of(name), whole)

    def test_only_the_same_operation_is_resumed(self):
        size = ["--max-shard-size", "4kB"]
        others = {"compress": (["--patch", "8"], ["--mix", "4:1"], ["--no-dct"],
                               ["--preset", "lossless"], ["--exclude", "2"],
                               ["--non-finite", "keep"], ["--backend", "serial"],
                               ["--max-shard-size", "5kB"]),
                  "apply": (["--force-base"], ["--backend", "serial"],
                            ["--max-shard-size", "5kB"])}
        for name, command, whole in self.operations(*size):
            command_line = [*command, "-o", self.path(name)]
            self.interrupt(*command_line, *size)
            for options in others[name]:
                plain = [word for word in command_line if options[0] not in ("--mix",)
                         or word not in ("--mix", "8:1")]
                sized = [] if options[0] == "--max-shard-size" else size
                message = self.fails(FAILED, *plain, *sized, *options, "--resume")
                self.assertIn("was a different one", message)
            # Nor with an input that was written again.
            for path in ("base", "tuned" if name == "compress" else "delta"):
                shutil.copy(self.folder / path, self.folder / "copy")
                os.replace(self.folder / "copy", self.folder / path)
            if name == "compress":
                self.assertIn("was a different one",
                              self.fails(FAILED, *command_line, *size, "--resume"))
            self.ok(*command_line, *size)
            self.assertEqual(self.folder_of(name), whole)

    def test_threads_and_ways_to_read_may_change_when_resuming(self):
        size = ["--max-shard-size", "4kB"]
        for name, command, whole in self.operations(*size):
            command_line = [*command, "-o", self.path(name), *size]
            self.interrupt(*command_line)
            self.ok(*command_line, "--resume", "--threads", "1", "--io", "read")
            self.assertEqual(self.folder_of(name), whole)

    def test_there_may_be_nothing_to_resume(self):
        size = ["--max-shard-size", "4kB"]
        for name, command, whole in self.operations(*size):
            self.ok(*command, "-o", self.path(name), *size, "--resume")
            self.assertEqual(self.folder_of(name), whole)
            self.assertIn("exists", self.fails(FAILED, *command, "-o", self.path(name), *size,
                                               "--resume"))

    def test_resuming_needs_a_folder(self):
        self.assertIn("--resume", self.compress_fails(USAGE, "--resume"))

    def test_links_are_followed_where_asked(self):
        self.write_folders()
        self.ok("compress", self.path("bases"), self.path("tuneds"), "-o", self.path("delta"),
                *self.SIZE)
        self.apply(*self.SIZE)
        expected = self.folder_of("delta"), self.folder_of("out")
        blobs = self.folder / "blobs"
        blobs.mkdir()
        for name in ("bases", "tuneds", "delta"):  # as in a download cache
            for path in sorted((self.folder / name).iterdir()):
                target = blobs / f"{name}.{path.name}"
                path.rename(target)
                path.symlink_to(os.path.join("..", "blobs", target.name))
        size, follow = self.SIZE, "--follow-links"
        bases, tuneds, delta = map(self.path, ("bases", "tuneds", "delta"))
        for command, output in ((["compress", bases, tuneds, *size, "-o", self.path("d")], "d"),
                                (["apply", bases, delta, *size, "-o", self.path("o")], "o"),
                                (["inspect", delta], None),
                                (["verify", delta], None),
                                (["verify", delta, "--base", bases], None),
                                (["diff", bases, tuneds, self.path("out")], None)):
            self.assertIn("symbolic link", self.fails(FAILED, *command))
            self.ok(*command, follow)
            if output:
                self.assertEqual(self.folder_of(output), expected[output == "o"])
        # A path given by name is followed in any case.
        (self.folder / "link").symlink_to(self.folder / "base")
        self.ok("compress", self.path("link"), self.path("tuned"), "-o", self.path("l"))

    def test_an_index_that_does_not_fit_its_shards(self):
        model.write_folder(self.folder / "bases", self.base, (1, 4, 9))
        path = self.folder / "bases" / self.INDEX
        index = json.loads(path.read_text())
        shards = sorted(set(index["weight_map"].values()))

        def refused(text, weights=None, **metadata):
            changed = {"metadata": {**index["metadata"], **metadata},
                       "weight_map": {**index["weight_map"], **(weights or {})}}
            path.write_text(json.dumps(changed))
            self.assertIn(text, self.fails(FAILED, "compress", self.path("bases"),
                                           self.path("tuned"), "-o", self.path("delta")))
        refused("absent.safetensors", {"scale": "absent.safetensors"})
        refused("not a plain file name", {"scale": "../base"})
        refused("not a plain file name", {"scale": str(self.folder / "base")})
        path.write_text("{")
        self.fails(FAILED, "compress", self.path("bases"), self.path("tuned"), "-o",
                   self.path("delta"))

    def test_what_readers_pass_over_is_warned_of_and_refused_where_asked(self):
        self.compress(output="expected")
        model.write_folder(self.folder / "bases", self.base, (1, 4, 9))
        path = self.folder / "bases" / self.INDEX
        sound = json.loads(path.read_text())
        names = list(self.base)
        shards = sorted(set(sound["weight_map"].values()))

        def check(text, index):
            path.write_text(json.dumps(index))
            for command in (("compress", self.path("bases"), self.path("tuned"), "-o",
                             self.path("delta"), "--force"),
                            ("apply", self.path("bases"), self.path("expected"), "-o",
                             self.path("out"), "--force"),
                            ("verify", self.path("expected"), "--base", self.path("bases")),
                            ("diff", self.path("bases"), self.path("tuned"), self.path("tuned"))):
                self.remove("delta", "out")
                self.assertIn(text, self.fails(FAILED, *command, "--strict"))
                warning = self.warns(*command)
                self.assertIn(text, warning)
                self.assertIn("--strict", warning)
                self.assertEqual(warning.count("warning"), 1)
            self.ok("apply", self.path("base"), self.path("expected"), "-o", self.path("o"),
                    "--force")
            self.warns("apply", self.path("bases"), self.path("expected"), "-o", self.path("out"),
                       "--force")
            self.assertEqual(self.bytes("out"), self.bytes("o"))
        check("total_size", {**sound, "metadata": {"total_size": 1}})
        check("metadata", {**sound, "metadata": None})
        check(names[1], {**sound, "weight_map": {name: shard for name, shard
                                                 in sound["weight_map"].items()
                                                 if name != names[1]}})
        for name in ("scale", "phantom"):
            check(name, {**sound, "weight_map": {**sound["weight_map"], name: shards[0]}})
        path.write_text(json.dumps(sound))
        first = self.folder / "bases" / shards[0]
        model.write(first, {names[0]: self.base[names[0]],
                            names[5]: ("U8", np.zeros(3, "u1"))})
        check(names[5], {"weight_map": sound["weight_map"]})
        model.write_raw(first, {names[0]: (self.base[names[0]][0], self.base[names[0]][1].shape,
                                           self.base[names[0]][1].tobytes())},
                        {"__metadata__": None})
        check("__metadata__", sound)

    def test_folders_that_are_no_model(self):
        self.assertIn("no index", self.fails(FAILED, "compress", "..", self.path("tuned"), "-o",
                                             self.path("delta")))
        one = self.folder / "one"
        one.mkdir()
        shutil.copy(self.folder / "base", one / "weights.safetensors")
        self.ok("compress", self.path("one"), self.path("tuned"), "-o", self.path("delta"))
        shutil.copy(self.folder / "base", one / "more.safetensors")
        self.fails(FAILED, "compress", self.path("one"), self.path("tuned"), "-o", self.path("d"))
        self.fails(FAILED, "inspect", "..")
        # A delta archive in the folder is not part of the model, nor is a file beside the usual
        # name.
        self.remove("one/more.safetensors", "delta")
        delta = self.path("one/delta.safetensors")
        self.ok("compress", self.path("one"), self.path("tuned"), "-o", delta)
        self.ok("apply", self.path("one"), delta, "-o", self.path("out"))
        (one / "weights.safetensors").rename(one / "model.safetensors")
        shutil.copy(self.folder / "tuned", one / "consolidated.safetensors")
        self.ok("verify", delta, "--base", self.path("one"))

    def test_what_is_no_model_is_named(self):
        one = self.folder / "one"
        one.mkdir()
        for name, data, text in (
                ("adapter_config.json", b"{}", "adapter"),
                ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
                ("x.gguf", b"GGUF\x03\0\0\0", "GGUF"),
                ("pytorch_model.bin", b"PK\x03\x04\0\0\x08\x08", "PyTorch")):
            (one / name).write_bytes(data)
            for base, tuned in (("one", "tuned"), ("base", "one")):
                self.assertIn(text, self.fails(FAILED, "compress", self.path(base),
                                               self.path(tuned), "-o", self.path("delta")))
            if not name.endswith("json"):
                self.assertIn(text, self.fails(FAILED, "compress", self.path("base"),
                                               self.path("one/" + name), "-o", self.path("delta")))
            (one / name).unlink()
        (one / "model.safetensors").symlink_to(self.folder / "base")
        self.assertIn("--follow-links", self.fails(FAILED, "compress", self.path("one"),
                                                   self.path("tuned"), "-o", self.path("delta")))


class Folders(Case):
    """Folders with configuration, tokenizer and code beside the weights."""

    FILES = {"config.json": '{"model_type": "bert"}', "tokenizer.json": "{}" * 1000,
             "merges.txt": "", "added_tokens.json": "{}", "modeling_custom.py": "import this",
             "1_Pooling/config.json": "{}", "LICENSE": "free"}

    def setUp(self):
        super().setUp()
        (self.folder / "tuneds").mkdir()
        model.write(self.folder / "tuneds" / "model.safetensors", self.tuned, METADATA)
        for name, text in self.FILES.items():
            self.put(name, text)

    def put(self, name, text, folder="tuneds"):
        path = self.folder / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def compress_folder(self, *options, run=None):
        return (run or self.ok)("compress", self.path("base"), self.path("tuneds"), "-o",
                                self.path("delta"), "--force", *options)

    def tree(self, name):
        return {str(path.relative_to(self.folder / name)): path.read_bytes()
                for path in (self.folder / name).rglob("*") if path.is_file()}

    def files_of(self, name):
        return {path: data.decode() for path, data in self.tree(name).items()
                if not path.endswith((".safetensors", ".index.json"))}

    def test_a_folder_in_is_a_folder_out(self):
        self.assertIn("7 beside", self.compress_folder("--preset", "lossless"))
        self.assert_same_tensors(self.apply(), self.tuned)
        self.assertEqual(self.tree("out"), self.tree("tuneds"))
        self.assertIn("7 files sound", self.ok("verify", self.path("delta")))
        out = self.apply("--max-shard-size", "20kB", output="outs")
        self.assert_same_tensors(out, self.tuned)
        self.assertEqual(self.files_of("outs"), self.FILES)
        self.assertIn("model.safetensors.index.json", self.tree("outs"))

    def test_inspect_lists_the_files(self):
        self.compress_folder()
        report = self.inspect()
        self.assertTrue(report["folder"])
        self.assertEqual({file["name"]: file["size"] for file in report["files"]},
                         {name: len(text) for name, text in self.FILES.items()})
        self.assertLess(sum(file["bytes"] for file in report["files"]), 1000)
        listed = self.ok("inspect", self.path("delta"))
        for name in self.FILES:
            self.assertRegex(listed, f"(?m)^{name} +file ")

    def test_a_file_in_is_a_file_out(self):
        self.compress()
        report = self.inspect()
        self.assertEqual((report["folder"], report["files"]), (False, []))
        self.apply()
        self.assertTrue((self.folder / "out").is_file())

    def test_an_output_that_asks_for_a_file(self):
        self.compress_folder()
        message = self.warns("apply", self.path("base"), self.path("delta"), "-o",
                             self.path("out.safetensors"))
        self.assertIn("7 files", message)
        self.assertTrue((self.folder / "out.safetensors").is_file())

    def test_files_that_are_not_wanted(self):
        self.compress_folder("--no-files")
        self.assertEqual(self.inspect()["files"], [])
        self.apply()
        self.assertEqual(set(self.tree("out")), {"model.safetensors"})

    def test_what_is_not_carried_is_told(self):
        self.put("pytorch_model.bin", "weights")
        self.put("large.json", "x" * 5000)
        (self.folder / "tuneds" / "vocab.txt").symlink_to("merges.txt")
        message = self.compress_folder("--limit", "file=3000", run=self.warns)
        for text in ("pytorch_model.bin", "large.json", "5000", "--limit file", "vocab.txt",
                     "--follow-links"):
            self.assertIn(text, message)
        self.apply()
        self.assertEqual(self.files_of("out"), self.FILES)
        self.put("pytorch_model.bin", "weights")
        self.compress_folder("--follow-links", "--limit", "files=100000", run=self.warns)
        self.remove("out")
        self.apply()
        self.assertEqual(self.files_of("out"),
                         {**self.FILES, "large.json": "x" * 5000, "vocab.txt": ""})

    def test_no_warning_hides_a_greater_loss(self):
        values = np.random.default_rng(7).standard_normal((64, 96)).astype("f4")
        before = model.from_bf16(model.to_bf16(values))
        model.write(self.folder / "base", {"w": ("BF16", model.to_bf16(before))})
        model.write(self.folder / "tuneds" / "model.safetensors",
                    {"w": ("F32", before * (1 + 1e-4 * values))})
        for number in range(25):
            (self.folder / "tuneds" / f"{number}.link").symlink_to("config.json")
        lines = self.compress_folder("--preset", "unit_gain", run=self.warns).splitlines()
        self.assertEqual(len(lines), 22)
        self.assertIn("w: the delta is lost", lines[0])
        self.assertEqual(lines[-1], "deltadct: warning: and 5 more things that are left out")

    def test_an_output_of_ones_own_is_replaced_and_nothing_else(self):
        self.compress_folder()
        self.apply()
        self.assertIn("holds '", self.apply_fails(FAILED, "--force", output="tuneds"))
        if not has_attributes(self.folder):
            self.assertIn("holds '", self.apply_fails(FAILED, "--force"))
            return
        self.apply("--force")
        self.assertEqual(self.files_of("out"), self.FILES)
        self.put("config.json", "edited", "out")
        self.assertIn("config.json", self.apply_fails(FAILED, "--force"))
        self.remove("out")
        self.apply()
        self.put("thesis.txt", "mine", "out")
        self.assertIn("thesis.txt", self.apply_fails(FAILED, "--force"))

    def test_an_interrupted_run_is_resumed(self):
        self.compress_folder("--preset", "lossless")
        size = ["--max-shard-size", "20kB"]
        self.apply(*size, output="whole")
        command = ["apply", self.path("base"), self.path("delta"), *size, "-o", self.path("out")]
        self.interrupt(*command, most=20000)
        self.assertFalse((self.folder / "out").exists())
        self.assertTrue((self.folder / "out.partial").exists())
        self.ok(*command, "--resume")
        self.assertEqual(self.tree("out"), self.tree("whole"))


class Modes(Case):
    """Models that are not made of the same tensors."""

    EXPECTED = {
        "added": "added", "embed": "grown", "kept": "same", "conv": "grown", "classes": "shrunk",
        "weight": "delta", "wider": "delta", "narrower": "delta", "mixed": "grown",
        "norm": "lossless", "bias": "lossless", "ids": "lossless", "became_floats": "lossless",
        "reshaped": "lossless", "tiny": "lossless", "head": "tied", "copied": "tied",
        "gone": "removed", "gone_too": "removed",
    }

    def write_pair(self):
        random = np.random.default_rng(5)
        base, tuned = {}, {}

        def weights(*shape):
            return random.standard_normal(shape)

        def pair(name, dtype, shape, tuned_dtype=None, tuned_shape=None):
            before, after = weights(*shape), weights(*(tuned_shape or shape))
            rows = min(before.shape[0], after.shape[0])
            if before.shape[1:] == after.shape[1:]:
                after[:rows] = before[:rows] + 0.02 * after[:rows]
            base[name] = model.of_floats(dtype, before)
            tuned[name] = model.of_floats(tuned_dtype or dtype, after)

        base["gone"] = model.of_floats("F16", weights(8, 20))
        tuned["added"] = model.of_floats("BF16", weights(20, 30))
        pair("embed", "BF16", (100, 64), tuned_shape=(133, 64))
        base["kept"] = tuned["kept"] = model.of_floats("F32", weights(64, 20))
        pair("conv", "F32", (20, 8, 3, 3), tuned_shape=(21, 8, 3, 3))
        pair("classes", "F32", (50, 64), tuned_shape=(31, 64))
        pair("weight", "F16", (48, 48))
        pair("wider", "BF16", (40, 40), "F32")
        pair("narrower", "F64", (40, 40), "F16")
        pair("mixed", "F32", (30, 40), "BF16", (40, 40))
        pair("norm", "F32", (64,), "BF16")
        pair("bias", "F32", (64,))
        base["ids"] = ("I64", np.arange(64).reshape(8, 8))
        tuned["ids"] = ("I64", np.arange(64).reshape(8, 8) * 3)
        base["became_floats"] = ("I32", np.arange(1024).reshape(32, 32))
        tuned["became_floats"] = model.of_floats("F32", weights(32, 32))
        pair("reshaped", "F32", (32, 48), tuned_shape=(48, 32))
        pair("tiny", "F32", (15, 16), tuned_shape=(17, 16))
        head = model.floats("BF16", base["embed"][1]) + 0.02 * weights(100, 64)
        base["head"] = model.of_floats("BF16", head)
        tuned["head"] = tuned["embed"]
        tuned["copied"] = tuned["kept"]
        base["gone_too"] = ("BOOL", np.array([True]))
        self.base, self.tuned = base, tuned
        super().write_pair()

    def test_each_tensor_has_its_mode(self):
        summary = self.compress()
        entries = self.entries()
        self.assertEqual({name: entry["mode"] for name, entry in entries.items()}, self.EXPECTED)
        self.assertEqual(list(entries), [*self.tuned, "gone", "gone_too"])
        self.assertIn("1 same, 3 delta, 3 grown, 1 shrunk, 6 lossless, 1 added, 2 removed, 2 tied",
                      summary)

    def test_json_says_what_became_of_the_base(self):
        self.compress()
        entries = self.entries()
        reasons = {name: entry["reason"] for name, entry in entries.items() if "reason" in entry}
        self.assertEqual(reasons, {"norm": "rank", "bias": "rank", "ids": "dtype",
                                   "became_floats": "dtype", "reshaped": "shape", "tiny": "small"})
        targets = {name: entry["target"] for name, entry in entries.items() if "target" in entry}
        self.assertEqual(targets, {"head": "embed", "copied": "kept"})
        stacks = {name: entry["stack"] for name, entry in entries.items() if "stack" in entry}
        self.assertEqual(stacks, {"embed": [1, 100, 64], "conv": [1, 20, 72],
                                  "classes": [1, 31, 64], "weight": [1, 48, 48],
                                  "wider": [1, 40, 40], "narrower": [1, 40, 40],
                                  "mixed": [1, 30, 40]})
        shapes = {name: entry["base_shape"] for name, entry in entries.items()
                  if "base_shape" in entry}
        self.assertEqual(shapes, {"embed": [100, 64], "conv": [20, 8, 3, 3], "classes": [50, 64],
                                  "mixed": [30, 40], "reshaped": [32, 48], "tiny": [15, 16],
                                  "head": [100, 64]})
        dtypes = {name: entry["base_dtype"] for name, entry in entries.items()
                  if "base_dtype" in entry}
        self.assertEqual(dtypes, {"norm": "F32", "became_floats": "I32"})
        for name, entry in entries.items():
            dtype, array = self.restored(name) if name in self.tuned else self.base[name]
            self.assertEqual((entry["dtype"], entry["shape"]), (dtype, list(array.shape)), name)
            stored = entry["mode"] not in ("same", "tied", "removed")
            self.assertEqual(entry["bytes"] > 0, stored, name)

    def restored(self, name):
        """What a tensor should be close to: compressed ones have the base's dtype."""
        dtype, array = self.tuned[name]
        before = self.base.get(name, (dtype,))[0]
        if self.EXPECTED[name] not in ("delta", "grown", "shrunk") or before == dtype:
            return dtype, array
        return model.of_floats(before, model.floats(dtype, array))

    def test_text_names_each_mode(self):
        self.compress()
        lines = {line.split()[0]: line for line in
                 self.ok("inspect", self.path("delta")).splitlines()[1:-1]}
        for name, mode in self.EXPECTED.items():
            self.assertEqual(lines[name].split()[1], mode)
        for name, remark in (("embed", "base 100x64"), ("head", "as embed"), ("norm", "base F32"),
                             ("norm", "rank"), ("tiny", "small"), ("weight", "P=16 dct")):
            self.assertIn(remark, lines[name])

    def check(self, out):
        self.assertEqual(list(out), list(self.tuned))
        for name, (dtype, array) in out.items():
            want_dtype, want = self.restored(name)
            self.assertEqual((dtype, array.shape), (want_dtype, want.shape), name)
            mode = self.EXPECTED[name]
            if mode == "tied":
                target = {"head": "embed", "copied": "kept"}[name]
                self.assertEqual(array.tobytes(), out[target][1].tobytes())
                continue
            if mode not in ("delta", "grown", "shrunk"):
                self.assertEqual(array.tobytes(), want.tobytes(), name)
                continue
            base_dtype, base = self.base[name]
            rows = min(len(base), len(array))
            self.assertEqual(array[rows:].tobytes(), want[rows:].tobytes(), name)
            before = model.floats(base_dtype, base[:rows])
            found = model.floats(dtype, array[:rows]) - before
            exact = model.floats(dtype, want[:rows]) - before
            share = np.linalg.norm(found - exact) / np.linalg.norm(exact)
            self.assertLess(share, 0.3 if "BF16" in (dtype, self.tuned[name][0]) else 0.05, name)

    def test_all_of_them_come_back(self):
        for number, options in enumerate(([], ["--backend", "serial"], ["--io", "read"],
                                          ["--max-shard-size", "9kB"])):
            self.compress("--mix", "8:1", *options, output=f"delta{number}")
            self.ok("verify", self.path(f"delta{number}"), "--base", self.path("base"))
            self.check(self.apply(delta=f"delta{number}", output=f"out{number}"))
            self.check(self.apply("--max-shard-size", "9kB", delta=f"delta{number}",
                                  output=f"outs{number}"))

    def test_diff_says_what_it_cannot_compare(self):
        self.compress()
        self.apply()
        found = json.loads(self.ok("diff", self.path("base"), self.path("tuned"), self.path("out"),
                                   "--json"))
        self.assertEqual({row["name"] for row in found["tensors"]},
                         {"kept", "weight", "wider", "narrower", "norm", "bias"})
        self.assertEqual(set(found["without_base"]),
                         {"added", "embed", "conv", "classes", "mixed", "became_floats",
                          "reshaped", "tiny", "head", "copied"})
        text = self.ok("diff", self.path("base"), self.path("tuned"), self.path("out"))
        self.assertRegex(text, r"(?m)^embed +the base has none of this shape$")

    def test_diff_says_if_it_compares_nothing(self):
        integers = {"ids": ("I32", np.arange(8))}
        model.write(self.folder / "integers", integers)
        base, tuned, ints = map(self.path, ("base", "tuned", "integers"))
        for options in ([], ["--json"]):
            self.assertIn("no tensor of floating-point",
                          self.warns("diff", ints, ints, ints, *options))
            self.assertIn("BASE has none of its tensors",
                          self.warns("diff", ints, tuned, tuned, *options))
        self.compress()
        for number, name in enumerate(("BASE", "TUNED", "OTHER")):
            models = [base, tuned, tuned]
            models[number] = self.path("delta")
            self.assertIn(f"{name} is a delta archive: apply it", self.fails(FAILED, "diff", *models))

    def test_models_with_nothing_in_common(self):
        self.tuned = {f"other.{name}": tensor for name, tensor in self.tuned.items()}
        super().write_pair()
        self.warns("compress", self.path("base"), self.path("tuned"), "-o", self.path("delta"),
                   "--allow-unlike")
        self.assertEqual(set(self.modes().values()), {"added", "removed", "tied"})
        self.assert_same_tensors(self.apply(), self.tuned)

    def test_models_without_tensors(self):
        tuned = self.tuned
        for self.tuned in ({}, tuned):
            for options in ([], ["--max-shard-size", "9kB"]):
                super().write_pair()
                model.write(self.folder / ("base" if self.tuned else "tuned"), {}, METADATA)
                self.remove("delta", "out")
                message = self.warns("compress", self.path("base"), self.path("tuned"), "-o",
                                     self.path("delta"), *options)
                self.assertIn("100 % of", message)
                self.ok("verify", self.path("delta"), "--base", self.path("base"))
                self.assert_same_tensors(self.apply(*options), self.tuned)

    def test_names_of_any_kind(self):
        odd = ["a b", "__weight__", "delta:x", "manifest:1", "quote\"and\\slash", "tab\tnew\nline",
               "\u00e9\u4e2d\U0001f600", "../up", "x" * 300]
        random = np.random.default_rng(3)
        self.base = {name: model.of_floats("F32", random.standard_normal((20, 20)))
                     for name in odd}
        self.tuned = {name: model.of_floats("F32", array + 0.01 * random.standard_normal((20, 20)))
                      for name, (_, array) in self.base.items()}
        super().write_pair()
        for options in ([], ["--max-shard-size", "1kB"]):
            self.remove("delta")
            self.compress("--mix", "8:1", *options)
            self.assertEqual(list(self.modes().items()), [(name, "delta") for name in odd])
            lines = self.ok("inspect", self.path("delta")).splitlines()
            self.assertEqual(len(lines), len(odd) + 3)  # nothing breaks a line
            self.assertEqual(list(self.apply("--force")), odd)


class Lossless(Case):
    """--preset lossless."""

    def write_pair(self):
        random = np.random.default_rng(6)
        self.base, self.tuned = {}, {}
        for dtype, stored in model.DTYPES.items():
            size = np.dtype(stored).itemsize
            for name, shape in (("matrix", (70, 40)), ("vector", (33,)), ("scalar", ()),
                                ("empty", (3, 0, 2))):
                elements = int(np.prod(shape))
                bits = random.integers(0, 2 if dtype == "BOOL" else 256, (elements, size), "u1")
                before = bits.copy().view(stored).reshape(shape)
                bits[::3, 0] ^= 1
                after = bits.view(stored).reshape(shape)
                self.base[f"{dtype}.{name}"] = (dtype, before)
                self.tuned[f"{dtype}.{name}"] = (dtype, after)
        base, tuned = self.base, self.tuned
        base["retyped"] = ("F32", np.arange(99).astype("f4"))
        tuned["retyped"] = model.of_floats("BF16", np.arange(99))
        base["shorter"] = ("F16", np.arange(60).astype("f2").reshape(3, 20))
        tuned["shorter"] = ("F16", np.arange(20).astype("f2").reshape(1, 20))
        base["longer"] = ("F8_E4M3", np.arange(20).astype("u1"))
        tuned["longer"] = ("F8_E5M2", np.arange(200).astype("u1"))
        base["removed"] = ("F32", np.ones((20, 20)))
        tuned["added"] = ("F32", random.standard_normal((20, 20)))
        base["kept"] = tuned["kept"] = ("U8", np.arange(200).astype("u1"))
        tuned["twin"] = tuned["F64.matrix"]
        # More than a chunk, but not a multiple of it; compressible and not.
        long = random.integers(0, 256, 2_500_001, "u1")
        base["long"], tuned["long"] = ("U8", long), ("U8", long + (np.arange(long.size) % 9 == 0))
        tuned["noise"] = ("I8", random.integers(-128, 128, 1_100_000, "i1"))
        tuned["zeros"] = ("F32", np.zeros((1000, 300)))
        tuned["\u00e9"] = ("I16", np.arange(5))
        super().write_pair()
        metadata = {**METADATA, "note": "two\nlines, \"\u00fc\""}
        model.write(self.folder / "tuned", self.tuned, metadata)

    def test_the_file_comes_back_byte_for_byte(self):
        tuned = self.bytes("tuned")
        for number, options in enumerate(([], ["--backend", "serial", "--threads", "1"],
                                          ["--io", "read"], ["--no-dct", "--patch", "4"],
                                          ["--max-shard-size", "100kB"])):
            self.compress("--preset", "lossless", *options, output=f"delta{number}")
            modes = self.modes(f"delta{number}")
            self.assertLessEqual(set(modes.values()),
                                 {"same", "lossless", "added", "removed", "tied"})
            self.ok("verify", self.path(f"delta{number}"), "--base", self.path("base"))
            self.apply(delta=f"delta{number}", output=f"out{number}")
            self.assertEqual(self.bytes(f"out{number}"), tuned)
            if number:
                self.assertEqual(modes, self.modes("delta0"))

    def test_which_modes_there_are(self):
        summary = self.compress("--preset", "lossless")
        entries = self.entries()
        for name, mode in (("retyped", "lossless"), ("shorter", "lossless"),
                           ("longer", "lossless"), ("added", "added"), ("removed", "removed"),
                           ("kept", "same"), ("twin", "tied"), ("F8_E5M2.matrix", "lossless"),
                           ("F32.matrix", "lossless"), ("BOOL.empty", "same")):
            self.assertEqual(entries[name]["mode"], mode, name)
        for entry in entries.values():
            if entry["mode"] == "lossless":
                self.assertEqual(entry["reason"], "preset")
        self.assertEqual((entries["longer"]["dtype"], entries["longer"]["base_dtype"]),
                         ("F8_E5M2", "F8_E4M3"))
        self.assertNotIn("delta", summary.splitlines()[0])

    def test_small_changes_cost_little(self):
        random = np.random.default_rng(7)
        before, step = random.standard_normal((2, 512, 512))
        self.base = {"weight": model.of_floats("BF16", before)}
        self.tuned = {"weight": model.of_floats("BF16", before + 1e-3 * step)}
        model.write(self.folder / "base", self.base)
        model.write(self.folder / "tuned", self.tuned)
        self.compress("--preset", "lossless")
        self.assertLess(len(self.bytes("delta")), 0.6 * len(self.bytes("tuned")))

    def test_a_folder_comes_back_shard_by_shard(self):
        self.compress("--preset", "lossless")
        out = self.apply("--max-shard-size", "100kB")
        self.assert_same_tensors(out, self.tuned)

    def test_a_fine_tune_that_is_its_base(self):
        shutil.copy(self.folder / "tuned", self.folder / "base")
        self.compress("--preset", "lossless")
        self.assertEqual(set(self.modes().values()), {"same"})
        self.apply()
        self.assertEqual(self.bytes("out"), self.bytes("tuned"))

    def test_not_finite_is_no_matter(self):
        tensor = ("F32", np.array([[np.nan, -np.inf], [np.inf, -0.0]] * 200))
        model.write(self.folder / "base", {"x": ("F32", np.zeros((400, 2)))})
        model.write(self.folder / "tuned", {"x": tensor})
        self.compress("--preset", "lossless")
        self.apply()
        self.assertEqual(self.bytes("out"), self.bytes("tuned"))


class Renaming(Case):
    """A base whose names have prefixes that the fine-tune's lack."""

    RULES = ("--rename", r"^model\.=", "--rename", r"^lm(?=sc)=l", "--rename", "^(l)(s)=$2")

    def write_pair(self):
        super().write_pair()
        model.write(self.folder / "named", {
            ("model." if "layers" in name else "lm" if name == "scale" else "") + name: tensor
            for name, tensor in self.base.items()})

    def test_it_is_as_if_the_base_had_those_names(self):
        self.compress(output="expected")
        named, delta = self.path("named"), self.path("delta")
        self.ok("compress", named, self.path("tuned"), "-o", delta, *self.RULES)
        self.assertEqual(self.bytes("delta"), self.bytes("expected"))
        self.ok("verify", delta, "--base", named, *self.RULES)
        self.ok("apply", named, delta, "-o", self.path("out"), *self.RULES)
        self.apply(output="o")
        self.assertEqual(self.bytes("out"), self.bytes("o"))
        self.assertEqual(self.ok("diff", named, self.path("tuned"), self.path("out"), *self.RULES),
                         self.ok("diff", self.path("base"), self.path("tuned"), self.path("out")))
        self.assertIn("--rename", self.fails(FAILED, "apply", named, delta, "-o", self.path("x")))
        self.assertIn("--rename", self.fails(FAILED, "verify", delta, "--base", named))

    def test_names_that_become_one(self):
        error = self.compress_fails(FAILED, "--rename", r"layers\.\d=layers")
        self.assertIn("layers.0.attn.weight", error)
        self.assertIn("layers.1.attn.weight", error)
        self.assertIn("layers.attn.weight", error)

    def test_what_is_no_rule(self):
        for rule in ("", "model.", "(=x", "[=x"):
            self.compress_fails(USAGE, "--rename", rule)
        self.compress()
        self.fails(USAGE, "verify", self.path("delta"), "--rename", "a=b")
        self.compress("--rename", "=", "--force")  # a rule that changes no name


class DTypes(Case):
    """Dtypes that the codec does not take, and those that the tool does not know."""

    KNOWN = {"F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64, "F8_E4M3FNUZ": 8,
             "F8_E5M2FNUZ": 8, "F8_E4M3": 8, "BOOL": 8}
    UNKNOWN = {"U4": 4, "C128": 128, "X12": 12, "B1": 1}

    def write_pair(self):
        pass

    def write(self, dtypes):
        random = np.random.default_rng(5)
        before = random.standard_normal((64, 64)).astype("<f4")
        after = before + np.float32(0.01) * random.standard_normal((64, 64)).astype("<f4")
        base = {"w": ("F32", [64, 64], before.tobytes())}
        tuned = {"w": ("F32", [64, 64], after.tobytes())}
        for dtype, bits in dtypes.items():
            size = 16 * 24 * bits // 8
            base[dtype + " same"] = tuned[dtype + " same"] = (dtype, [16, 24], random.bytes(size))
            base[dtype] = (dtype, [16, 24], random.bytes(size))
            tuned[dtype] = (dtype, [16, 24], random.bytes(size))
        model.write_raw(self.folder / "base", base)
        model.write_raw(self.folder / "tuned", tuned)

    def test_known_ones_of_any_size_come_back(self):
        self.write(self.KNOWN)
        for preset in ("paper", "lossless"):
            self.compress("--preset", preset, "--force")
            for dtype in self.KNOWN:
                self.assertEqual(self.entries()[dtype]["dtype"], dtype)
                self.assertEqual(self.modes()[dtype + " same"], "same")
                self.assertEqual(self.modes()[dtype], "lossless")
            self.ok("verify", self.path("delta"), "--base", self.path("base"))
        self.ok("apply", self.path("base"), self.path("delta"), "-o", self.path("out"))
        self.assertEqual(self.bytes("out"), self.bytes("tuned"))
        self.ok("diff", self.path("base"), self.path("tuned"), self.path("out"))

    def test_unknown_ones_are_named_and_kept_where_asked(self):
        self.write(self.UNKNOWN)
        keep = ("--unknown-dtype", "keep")
        base, tuned, delta = map(self.path, ("base", "tuned", "delta"))
        error = self.compress_fails(FAILED)
        self.assertIn("U4", error)
        self.assertIn("--unknown-dtype keep", error)
        self.compress("--preset", "lossless", *keep)
        for command in (("inspect", delta), ("verify", delta), ("diff", base, tuned, base),
                        ("apply", base, delta, "-o", self.path("out"))):
            self.assertIn("U4", self.fails(FAILED, *command))
        self.assertIn(" U4 ", self.ok("inspect", delta, *keep))
        self.ok("verify", delta, "--base", base, *keep)
        self.ok("diff", base, tuned, tuned, *keep)
        self.ok("apply", base, delta, "-o", self.path("out"), *keep)
        self.assertEqual(self.bytes("out"), self.bytes("tuned"))

    def test_unknown_ones_of_no_plausible_size_are_refused(self):
        for size in (0, 1, 47, 383, 385, 16 * 24 * 17):
            for name in ("base", "tuned"):
                model.write_raw(self.folder / name, {"w": ("X", [16, 24], bytes(size))})
            error = self.compress_fails(FAILED, "--unknown-dtype", "keep")
            self.assertIn("dtype is not supported (X", error)


class Limits(Case):
    """--limit NAME=NUMBER."""

    def setUp(self):
        super().setUp()
        self.compress()
        model.write_folder(self.folder / "bases", self.base, (1, 4, 9))

    def refused(self, text, *command):
        self.assertRegex(self.fails(FAILED, *command), text)

    def test_each_limit_is_refused_by_name(self):
        base, bases, tuned, delta, new = map(self.path, ("base", "bases", "tuned", "delta", "new"))
        total = sum(array.nbytes for _, array in self.tuned.values())
        for limit, text, commands in (
                ("tensors=9", "too many tensors.*; --limit tensors=NUMBER allows more",
                 ("compress", "apply", "diff", "inspect")),
                ("header=100", "(header|index) of (\\d+) bytes; --limit header=\\2 allows it",
                 ("compress", "apply", "diff", "inspect", "shards")),
                ("rank=2", "experts.weight.*rank 3; --limit rank=3 allows it",
                 ("compress", "apply", "diff")),
                ("depth=2", "nested more than 2 deep at byte.*--limit depth=NUMBER",
                 ("compress", "apply", "diff", "inspect")),
                ("shards=3", "too many shards; --limit shards=NUMBER", ("shards",)),
                (f"bytes={total - 1}", "bytes of the tensors; --limit bytes=NUMBER",
                 ("inspect", "apply"))):
            lines = {"compress": ["compress", base, tuned, "-o", new],
                     "apply": ["apply", base, delta, "-o", new],
                     "diff": ["diff", base, tuned, tuned], "inspect": ["inspect", delta],
                     "shards": ["compress", bases, tuned, "-o", new]}
            for command in commands:
                self.refused(text, *lines[command], "--limit", limit)
            self.fails(FAILED, "verify", delta, "--base", bases, "--limit", limit)

    def test_what_is_within_the_limits(self):
        total = sum(array.nbytes for _, array in self.tuned.values())
        limits = ["--limit", "tensors=14", "--limit", "header=100000", "--limit", "rank=3",
                  "--limit", "depth=7", "--limit", "shards=4", f"--limit=bytes={total}",
                  "--limit", "expansion=0"]
        self.ok("compress", *limits, self.path("bases"), self.path("tuned"), "-o", self.path("d"))
        self.ok("apply", *limits, self.path("bases"), self.path("d"), "-o", self.path("o"))
        self.ok("inspect", *limits, self.path("d"))
        self.ok("verify", *limits, self.path("d"), "--base", self.path("bases"))
        self.ok("diff", *limits, *[self.path(name) for name in ("bases", "tuned", "o")])

    def test_the_last_of_a_limit_counts(self):
        self.ok("inspect", self.path("delta"), "--limit", "tensors=9", "--limit", "tensors=99")
        self.refused("too many tensors", "inspect", self.path("delta"), "--limit", "tensors=99",
                     "--limit", "tensors=9")

    def test_what_expands_is_refused_beyond_64_mib(self):
        for rows, code in ((64, DONE), (65, FAILED)):
            model.write(self.folder / "tuned", {"zeros": ("U8", np.zeros((rows, 1 << 20)))})
            self.warns("compress", self.path("base"), self.path("tuned"), "-o", self.path("delta"),
                       "--force", "--preset", "lossless", "--allow-unlike")
            self.ok("inspect", self.path("delta"), "--limit", "expansion=20000")
            for command in (["inspect", self.path("delta")], ["verify", self.path("delta")]):
                limited = [*command, "--limit", "expansion=0"]
                if code == DONE:
                    self.ok(*limited)
                else:
                    self.refused("zeros.*expands too much", *limited)

    def test_what_is_no_limit(self):
        for limit in ("tensor=3", "Tensors=3", "=3", "tensors", "tensors=", "tensors=x",
                      "tensors=3x", "tensors=-1", "tensors=nan", "tensors=1e30", "", "tensors=1=2",
                      "tensors =3"):
            for command in (["inspect", self.path("delta")], ["verify", self.path("delta")],
                            ["compress", self.path("base"), self.path("tuned"), "-o", "x"],
                            ["apply", self.path("base"), self.path("delta"), "-o", "x"],
                            ["diff", *[self.path("base")] * 3]):
                message = self.fails(USAGE, *command, "--limit", limit)
                self.assertIn("--limit", message)
                self.assertIn(f"'{limit}' is not a limit", message)


class Inputs(Case):
    """Outputs that are an input, or hold one, are refused before anything is written."""

    SIZE = ["--max-shard-size", "20kB"]

    def setUp(self):
        super().setUp()
        model.write_folder(self.folder / "bases", self.base, (3, 7))
        self.compress()
        self.compress(*self.SIZE, output="deltas")

    def refused(self, *command, output):
        for options in ([], ["--force"]):
            message = self.fails(FAILED, *command, "-o", output, *options)
            self.assertIn("output is one of the inputs", message)
        return message

    def test_an_output_is_no_input_by_any_name(self):
        (self.folder / "link").symlink_to("base")
        os.link(self.folder / "tuned", self.folder / "hard")
        (self.folder / "link.delta").symlink_to(self.folder / "delta")
        pair = [self.path("base"), self.path("tuned")]
        for output in ("base", "tuned", "./base", "elsewhere/../base", "link", "hard"):
            for size in ([], self.SIZE):
                self.refused("compress", *pair, *size, output=self.path(output))
        self.refused("compress", *pair, output=self.folder / "base")
        for output in ("delta", "link.delta"):
            for options in ([], ["--in-place"]):
                message = self.refused("apply", pair[0], self.path("delta"), *options,
                                       output=self.path(output))
                self.assertNotIn("--in-place", message)
        for output in ("base", "link"):
            message = self.refused("apply", pair[0], self.path("delta"), output=self.path(output))
            self.assertIn("--in-place", message)

    def test_an_output_is_no_folder_of_inputs(self):
        (self.folder / "link").symlink_to("bases")
        compress = ["compress", self.path("bases"), self.path("tuned"), *self.SIZE]
        for output in ("bases", "bases/", "link", "."):
            self.refused(*compress, output=self.path(output))
            self.refused("apply", self.path("bases"), self.path("deltas"), *self.SIZE,
                         output=self.path(output))
        self.refused("apply", self.path("bases"), self.path("deltas"), *self.SIZE,
                     output=self.path("deltas"))
        for file in (self.folder / "bases").iterdir():
            self.refused("compress", self.path("bases"), self.path("tuned"), output=file)
        (self.folder / "bases").rename(self.folder / "new.partial")
        self.refused("compress", self.path("new.partial"), self.path("tuned"), *self.SIZE,
                     output=self.path("new"))

    def test_a_base_is_replaced_where_that_is_asked_for(self):
        expected = self.apply()
        self.apply("--in-place", output="base")
        self.assert_same_tensors(model.read(self.folder / "base")[0], expected)
        self.assertIn("base is not the one", self.apply_fails(FAILED, output="new"))
        self.apply(*self.SIZE, base="bases", output="outs")
        self.apply(*self.SIZE, "--in-place", base="bases", output="bases")
        for file in (self.folder / "outs").iterdir():
            self.assertEqual(self.bytes("bases/" + file.name), file.read_bytes())
        self.assertEqual({path.name for path in self.folder.iterdir()},
                         {"base", "tuned", "delta", "out", "bases", "outs", "deltas", "elsewhere"})

    def test_a_folder_in_place_holds_nothing_but_the_base(self):
        (self.folder / "bases" / "config.json").write_text("{}")
        message = self.apply_fails(FAILED, *self.SIZE, "--in-place", base="bases", output="bases")
        self.assertIn("nothing else in it", message)
        (self.folder / "bases" / "config.json").unlink()
        message = self.apply_fails(FAILED, "--in-place", base="bases", output="bases")
        self.assertIn("--max-shard-size", message)

    def test_other_outputs_need_force_also_in_place(self):
        self.assertIn("exists", self.apply_fails(FAILED, "--in-place", output="tuned"))

    def test_compress_has_no_such_switch(self):
        self.compress_fails(USAGE, "--in-place", output="base")


class WrongBase(Case):
    """A base that is not the one an archive was made from."""

    def setUp(self):
        super().setUp()
        random = np.random.default_rng(8)
        before = random.standard_normal((64, 32))
        self.base["embed"] = model.of_floats("F32", before)
        self.tuned["embed"] = model.of_floats("F32", np.concatenate([before + 0.01, before[:9]]))
        self.base["labels"] = model.of_floats("F32", before)
        self.tuned["labels"] = model.of_floats("F32", before[:30] * 1.01)
        # Random bits of which few change: stored as the difference from the base.
        ids = random.integers(0, 1 << 62, 5000)
        self.base["ids"] = ("I64", ids)
        self.tuned["ids"] = ("I64", ids + (np.arange(5000) % 9 == 0))
        self.base["removed"] = model.of_floats("F32", before[:3])
        self.tuned["head"] = self.tuned["layers.0.attn.weight"]
        head = self.base["layers.0.attn.weight"][1] + 0.02 * random.standard_normal((96, 80))
        self.base["head"] = model.of_floats("F32", head)
        self.write_pair()
        self.compress()
        self.expected = self.apply()

    def edit(self, *names):
        """Another base, in which an element of these tensors is another one."""
        other = {}
        for name, (dtype, array) in self.base.items():
            if name in names:
                array = np.array(array, model.DTYPES[dtype])
                if dtype == "BOOL":
                    array.reshape(-1)[1] ^= True
                else:
                    array.reshape(-1)[-1] += 1
            other[name] = (dtype, array)
        model.write(self.folder / "other", other)

    def test_any_edited_tensor_is_named(self):
        for name in self.base:
            self.edit(name)
            for message in (self.apply_fails(FAILED, base="other", output="new"),
                            self.fails(FAILED, "verify", self.path("delta"), "--base",
                                       self.path("other"))):
                self.assertIn(f"other: {name}: base is not the one", message)
            # In a folder, complete shards may remain, under the stage's name.
            result = self.run_cli("apply", self.path("other"), self.path("delta"), "-o",
                                  self.path("new"), "--max-shard-size", "20kB")
            self.assertEqual(result.returncode, FAILED)
            self.assertIn(f"other: {name}: base is not the one", result.stderr)
            self.assertFalse((self.folder / "new").exists())

    def test_force_goes_on_where_it_can(self):
        deltas = DELTAS | {"embed", "labels"}
        for names in ([name] for name in (*sorted(deltas), "frozen.weight", "mask", "removed",
                                          "head")):
            self.edit(*names)
            warning = self.warns("apply", self.path("other"), self.path("delta"), "-o",
                                 self.path("forced"), "--force-base", "--force")
            self.assertEqual([line for line in warning.splitlines() if "warning" in line],
                             [f"deltadct: warning: {name}: base is not the one the delta was made "
                              "from" for name in names])
            out = model.read(self.folder / "forced")[0]
            other = model.read(self.folder / "other")[0]
            tied = {"head"} if "layers.0.attn.weight" in names else set()
            for name, (dtype, array) in out.items():
                if name not in set(names) - {"head", "removed"} | tied:
                    self.assertEqual(array.tobytes(), self.expected[name][1].tobytes(), name)
            # The delta is added to the base that was given.
            for name in set(names) & DELTAS:
                dtype, base = self.base[name]
                found = model.floats(dtype, out[name][1]) - model.floats(dtype, other[name][1])
                want = self.delta(name, self.expected)
                self.assertLess(np.abs(found - want).max(), 0.05)
            if names[0] in SAME:
                self.assertEqual(out[names[0]][1].tobytes(), other[names[0]][1].tobytes())

    def test_every_wrong_tensor_is_warned_of(self):
        names = sorted(DELTAS | SAME | {"embed", "labels", "removed", "head"})
        self.edit(*names)
        for options in ([], ["--max-shard-size", "10kB"]):
            warning = self.warns("apply", self.path("other"), self.path("delta"), "-o",
                                 self.path("forced" + str(len(options))), "--force-base", *options)
            self.assertEqual(sorted(line.split(": ")[2] for line in warning.splitlines()), names)

    def test_a_resumed_run_warns_of_all_tensors_too(self):
        # In the order of the fine-tune: first the mask's shard, then one that is too large.
        self.edit("mask", "layers.0.attn.weight")
        command = ["apply", self.path("other"), self.path("delta"), "-o", self.path("forced"),
                   "--force-base", "--max-shard-size", "20kB"]
        self.interrupt(*command, most=25000)
        self.assertTrue(list((self.folder / "forced.partial").glob("model-*.safetensors")))
        warning = self.warns(*command, "--resume")
        self.assertIn("mask", warning)
        self.assertIn("layers.0.attn.weight", warning)

    def test_force_cannot_restore_what_is_kept_without_loss(self):
        self.edit("ids")
        message = self.apply_fails(FAILED, "--force-base", base="other", output="new")
        self.assertIn("other: ids: base is not the one", message)
        self.assertIn("without loss", message)
        (self.folder / "old").write_bytes(b"mine")
        self.apply_fails(FAILED, "--force-base", "--force", base="other", output="old")

    def test_force_does_not_excuse_what_does_not_fit(self):
        for name in ("scale", "layers.1.mlp.weight"):
            dtype, array = self.base[name]
            for tensor in ((dtype, np.zeros((3, 3))), ("I64", np.zeros(array.shape))):
                self.refused_even_so({**self.base, name: tensor}, name)
            rest = {other: self.base[other] for other in self.base if other != name}
            self.refused_even_so(rest, name)

    def refused_even_so(self, base, name):
        model.write(self.folder / "other", base)
        message = self.apply_fails(FAILED, "--force-base", base="other", output="new")
        self.assertIn(name, message)

    def test_the_right_base_needs_no_force_and_gets_no_warning(self):
        self.apply("--force-base", output="forced")
        self.assertEqual(self.bytes("forced"), self.bytes("out"))

    def test_a_corrupted_archive_is_no_matter_of_the_base(self):
        self.edit("ids")
        whole = bytearray(self.bytes("delta"))
        whole[-5000] ^= 1
        (self.folder / "delta").write_bytes(whole)
        self.fails(FAILED, "apply", self.path("base"), self.path("delta"), "-o",
                   self.path("new"), "--force-base")


class Hostile(Case):
    """Names that would steer a terminal, or that hide what they are, are shown escaped."""

    EVIL = "\x1b]0;x\x07\x1b[2J\x7f\x9b31m\u202egnp\u2066\u200b\u061c\ufeff\u2028\\\r\n\t"
    FILE = EVIL + "\udcff\udc9b"  # file names need not even be UTF-8

    def setUp(self):
        super().setUp()
        random = np.random.default_rng(10)
        before = random.standard_normal((32, 32)).astype("<f4")
        after = before + np.float32(0.01)
        infinite = after.copy()
        infinite[3, 4] = np.inf
        for name, array in (("base", before), ("tuned", after), ("infinite", infinite)):
            model.write(self.folder / name, {self.EVIL: ("F32", array)}, {self.EVIL: self.EVIL})
        self.compress()

    def shown(self, code, *arguments, argv0=CLI):
        """What a command writes: one line a statement, in characters that are seen."""
        result = subprocess.run([argv0, *arguments], executable=CLI, check=False,
                                cwd=self.folder / "elsewhere", capture_output=True)
        texts = [stream.decode() for stream in (result.stdout, result.stderr)]
        self.assertEqual(result.returncode, code, texts)
        hidden = {hex(ord(c)) for text in texts for c in text
                  if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
        self.assertEqual(hidden, set(), (arguments, texts))
        if code == FAILED:
            self.assertEqual(texts[1].count("\n"), 1, texts[1])
        return "".join(texts)

    def escaped(self, *arguments, **settings):
        """The same for what is to show a hostile name."""
        self.assertIn(r"\x1b]0;x\x07\x1b[2J\x7f\u009b31m\u202egnp", self.shown(*arguments, **settings))

    def test_names_of_tensors(self):
        base, tuned, delta, out = map(self.path, ("base", "tuned", "delta", "out"))
        for preset in ("paper", "unit_gain", "bit_delta", "dare", "delta_come", "ultra_delta"):
            self.escaped(FAILED, "compress", base, self.path("infinite"), "-o", out, "--preset",
                         preset)
        self.escaped(FAILED, "apply", tuned, delta, "-o", out)
        self.escaped(DONE, "apply", tuned, delta, "-o", out, "--force-base")
        self.escaped(FAILED, "verify", delta, "--base", tuned)
        self.escaped(DONE, "inspect", delta)
        self.escaped(DONE, "diff", base, tuned, out)
        for command in (["inspect", delta], ["diff", base, tuned, out]):
            text = self.shown(DONE, *command, "--json")
            self.assertIn(r"\u001b]0;x\u0007\u001b[2J\u007f\u009b31m\u202egnp", text)
            json.loads(text)

    def test_long_names(self):
        for name in ("A" * 3_000_000, self.EVIL * 10_000):
            for file in ("base", "tuned"):
                _, (array,) = zip(*model.read(self.folder / file)[0].values())
                model.write(self.folder / ("long." + file), {name: ("F32", array)})
            long = [self.path("long." + file) for file in ("base", "tuned")]
            self.shown(DONE, "compress", *long, "-o", self.path("long"), "--force")
            for command in (["apply", self.path("base"), self.path("long"), "-o", "x"],
                            ["compress", long[0], long[1], "-o", "x", "--include", "y"],
                            ["diff", *long, self.path("base")]):
                self.assertLess(len(self.shown(FAILED, *command)), 1500)
            self.assertLess(len(self.shown(DONE, "inspect", self.path("long"))), 1500)

    def folder_of(self, name, files):
        folder = self.folder / name
        folder.mkdir()
        for file, content in files.items():
            with open(os.path.join(os.fsencode(folder), os.fsencode(file)), "wb") as out:
                out.write(content)
        return self.path(name)

    def test_names_of_files_in_folders(self):
        broken = self.folder_of("broken", {self.FILE + ".safetensors": b"garbage!!"})
        index = self.folder_of("index", {self.FILE + ".safetensors.index.json": b"{}"})
        sound = self.folder_of("sound", {self.FILE + ".safetensors": self.bytes("tuned")})
        delta, out = self.path("delta"), self.path("out")
        for bad in (broken, index):
            for command in (["inspect", bad], ["verify", bad], ["apply", bad, delta, "-o", out],
                            ["compress", bad, bad, "-o", out], ["diff", bad, bad, bad]):
                self.escaped(FAILED, *command)
        self.escaped(FAILED, "apply", sound, delta, "-o", out)
        self.folder_of("full", {self.FILE: b"of others"})
        self.escaped(FAILED, "compress", self.path("base"), self.path("tuned"), "-o",
                     self.path("full"), "--max-shard-size", "1kB", "--force")

    def test_names_in_an_index(self):
        for number, (tensor, shard) in enumerate((
                (self.EVIL + "?", "a.safetensors"), ("w", self.EVIL + ".safetensors"),
                ("w", "\u202egnp.\u200bsafetensors"), ("w", "\x9b31m.safetensors"))):
            text = json.dumps({"weight_map": {tensor: shard}}, ensure_ascii=False)
            folder = self.folder_of(f"index{number}", {
                "model.safetensors.index.json": text.encode(),
                "a.safetensors": self.bytes("base")})
            self.shown(FAILED, "inspect", folder)
            self.assertRegex(self.shown(FAILED, "diff", folder, folder, folder, "--strict"),
                             r"\\(x1b|u202e|u009b)")

    def write_manifest(self, edit, metadata=None):
        """The archive with another manifest, its checksum right."""
        library = ctypes.CDLL(ctypes.util.find_library("xxhash"))
        library.XXH3_64bits.restype = ctypes.c_uint64
        library.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
        sections, found = model.read(self.folder / "delta")
        manifest = json.loads(sections["manifest:1"][1].tobytes())
        edit(manifest, sections)
        text = json.dumps(manifest, ensure_ascii=False).encode()
        sections["manifest:1"] = ("U8", np.frombuffer(text, "u1"))
        checksum = f"{library.XXH3_64bits(text, len(text)):016x}"
        model.write(self.folder / "edited", sections,
                    {**found, "manifest": checksum, **(metadata or {})})

    @unittest.skipUnless(ctypes.util.find_library("xxhash"), "without the library of xxHash")
    def test_strings_in_a_manifest(self):
        def first(**members):
            return lambda manifest, _: manifest["tensors"][0].update(members)

        def codec(**members):
            return lambda manifest, _: manifest["codecs"][0].update(members)

        def tie(target):
            def edit(manifest, _):
                entry = manifest["tensors"][0]
                manifest["tensors"].append({
                    "name": "t", "mode": "tied", "dtype": "F32", "shape": entry["shape"],
                    "tuned": entry["tuned"], "target": target})
            return edit

        def nothing(*_):
            pass

        delta = self.path("edited")
        right_to_left = "\u202eabc"
        for edit, metadata in ((nothing, None), (first(mode=self.EVIL), None),
                               (first(dtype=self.EVIL), None), (first(reason=self.EVIL), None),
                               (first(shape=[self.EVIL]), None), (first(delta=self.EVIL), None),
                               (lambda manifest, _: manifest.update(requires=[self.EVIL]), None),
                               (lambda manifest, _: manifest.update({self.EVIL: 1}), None),
                               (codec(transform=self.EVIL), None),
                               (codec(transform="\x9b31mX"), None),
                               (codec(transform=right_to_left), None),
                               (codec(quantizer=right_to_left), None),
                               (codec(method=self.EVIL), None), (tie(self.EVIL), None),
                               (tie(self.EVIL + "?"), None), (nothing, {"version": self.EVIL}),
                               (nothing, {"part": self.EVIL}), (nothing, {"format": self.EVIL})):
            self.write_manifest(edit, metadata)
            for command in (["inspect", delta], ["inspect", "--json", delta], ["verify", delta],
                            ["apply", self.path("base"), delta, "-o", self.path("out"), "--force"]):
                result = self.run_cli(*command)
                self.shown(result.returncode, *command)
        self.write_manifest(first(reason=self.EVIL))
        self.escaped(DONE, "inspect", delta)
        self.write_manifest(codec(transform=right_to_left))
        self.assertIn(r"\u202eabc", self.shown(DONE, "inspect", delta))

    def test_arguments(self):
        evil, pair = self.FILE, [self.path("base"), self.path("tuned")]
        for command in (["inspect", evil], ["verify", evil], ["verify", self.path("delta"),
                        "--base", evil], ["apply", evil, evil, "-o", evil],
                        ["compress", evil, evil, "-o", evil], ["diff", evil, evil, evil],
                        ["compress", *pair, "-o", evil + "/" + evil]):
            self.escaped(FAILED, *command)
        self.shown(DONE, "compress", *pair, "-o", evil)
        self.escaped(FAILED, "compress", *pair, "-o", evil)
        self.escaped(DONE, "verify", evil)
        output = ["compress", *pair, "-o", "x"]
        for command in ([evil], ["--" + evil]):
            self.shown(USAGE, *command)
        for command in (["inspect", "a", evil], [*output, "--" + evil],
                        [*output, "--limit", evil], [*output, "--mix", evil],
                        [*output, "--include", "(" + evil], [*output, "--preset", evil],
                        [*output, "--max-shard-size", evil], [*output, "--threads", evil],
                        [*output, "--bpw", evil], [*output, "--patch", evil]):
            self.escaped(USAGE, *command)
        for command in (["--help"], ["inspect", "--help"], []):
            self.shown(DONE if command else USAGE, *command, argv0=evil)

    def test_a_terminal_is_steered_by_the_tool_alone(self):
        lead, follow = pty.openpty()
        name = self.EVIL * 100
        tensors = {name + str(k): ("U8", np.zeros(1 << 22)) for k in range(16)}
        model.write(self.folder / "many", tensors)
        subprocess.run([CLI, "compress", "../many", "../many", "-o", "../same"], stderr=follow,
                       cwd=self.folder / "elsewhere", stdout=subprocess.DEVNULL, check=True)
        os.close(follow)
        try:
            shown = os.read(lead, 65536).decode()
        except OSError:  # too quick to show progress
            shown = ""
        os.close(lead)
        for own in ("\r\x1b[K",):
            shown = shown.replace(own, "")
        self.assertTrue(shown.isprintable(), shown)


class Unlike(Case):
    """Pairs that are no base and a fine-tune of it."""

    def setUp(self):
        super().setUp()
        self.random = np.random.default_rng(3)
        self.weights = {f"model.layers.{k}.weight": self.normal(64, 64) for k in range(4)}
        self.write("base", self.weights)

    def normal(self, *shape):
        return 0.02 * self.random.standard_normal(shape)

    def write(self, name, weights, dtype="BF16", metadata=None):
        tensors = {tensor: model.of_floats(dtype, array) for tensor, array in weights.items()}
        model.write(self.folder / name, tensors, metadata)

    def tuned_by(self, change):
        """What a change of names or weights makes of the base, a little moved."""
        def moved(array):
            return array + 0.02 * self.normal(*np.shape(array))
        changed = (change(name, array) for name, array in self.weights.items())
        self.write("tuned", {name: moved(array) for name, array in changed})

    def refused(self, *texts):
        """Nothing is written, the error says so; with --allow-unlike it is a warning."""
        for options in ([], ["--preset", "unit_gain"], ["--preset", "lossless"]):
            message = self.compress_fails(FAILED, *options)
            for text in (*texts, "unlike", "--allow-unlike"):
                self.assertIn(text, message)
        warning = self.warns("compress", self.path("base"), self.path("tuned"), "-o",
                             self.path("delta"), "--allow-unlike")
        for text in texts:
            self.assertIn(text, warning)
        self.ok("verify", self.path("delta"), "--base", self.path("base"))
        self.remove("delta")

    def test_a_fine_tune_is_none_of_them_and_its_ratio_is_shown(self):
        self.tuned_by(lambda name, array: (name, array))
        self.assertRegex(self.compress(), r"\|D\|/\|W\| +0\.0[12]\d*\n")

    def test_a_prefix(self):
        self.tuned_by(lambda name, array: (name.removeprefix("model."), array))
        self.refused("no name in common", "4 tensors", "layers.0.weight", "--rename '^model[.]='")

    def test_fused_tensors(self):
        self.weights = {f"experts.{k}.w1": self.normal(64, 64) for k in range(4)}
        self.write("base", self.weights)
        self.write("tuned", {"experts.w1": np.stack(list(self.weights.values()))})
        self.refused("no name in common", "experts.0.w1", "fused")

    def test_an_adapter(self):
        name = "base_model.model.layers.0.lora_A.weight"
        self.write("tuned", {name: self.normal(8, 64)})
        self.refused("TUNED is an adapter", name, "merge it")

    def test_a_folder_of_an_adapter(self):
        adapter = self.folder / "adapter"
        adapter.mkdir()
        self.write("adapter/adapter_model.safetensors", {"x.weight": self.normal(8, 64)})
        (adapter / "adapter_config.json").write_text("{}")
        message = self.fails(FAILED, "compress", self.path("base"), adapter, "-o",
                             self.path("delta"))
        self.assertIn("adapter", message)

    def test_an_archive(self):
        self.tuned_by(lambda name, array: (name, array))
        self.compress(output="archive")
        shutil.move(self.folder / "archive", self.folder / "tuned")
        self.refused("TUNED is a delta archive", "deltadct apply")

    def test_another_base(self):
        self.tuned_by(lambda name, array: (name, self.normal(64, 64)))
        self.refused("|D|/|W| is 1.4", "another base")

    def test_weights_in_another_place(self):
        for change, text in ((np.transpose, "transposed"), (np.flipud, "rows are permuted"),
                             (np.fliplr, "columns are permuted")):
            self.tuned_by(lambda name, array, change=change: (name, change(array)))
            self.refused(text, "model.layers.0.weight")

    def test_a_head_drawn_anew_is_a_warning(self):
        self.write("base", {**self.weights, "head": self.normal(10, 64)})
        self.write("tuned", {**self.weights, "head": self.normal(10, 64)})
        warning = self.warns("compress", self.path("base"), self.path("tuned"), "-o",
                             self.path("delta"))
        self.assertIn("head: |D|/|W| is 1.", warning)
        self.assertIn("--exclude", warning)


class CommandLine(Case):
    def test_help_and_version(self):
        self.assertRegex(self.ok("--version"), r"^deltadct \d+\.\d+\.\d+\n$")
        commands = ("compress", "apply", "inspect", "verify", "diff")
        text = self.ok("--help")
        for command in commands:
            self.assertRegex(text, rf"(?m)^\s+{command}\s")
            self.assertIn("Usage", self.ok(command, "--help"))

    def test_no_or_unknown_command(self):
        for arguments in ([], ["explode"], ["--explode"], ["-x"], [""]):
            self.fails(USAGE, *arguments)

    def test_missing_or_too_many_arguments(self):
        for arguments in (["compress"], ["compress", "a"], ["compress", "a", "b"],
                          ["compress", "a", "b", "-o"], ["compress", "a", "b", "c", "-o", "d"],
                          ["apply", "a"], ["apply", "a", "b"], ["apply", "a", "-o", "c"],
                          ["inspect"], ["inspect", "a", "b"], ["verify"], ["verify", "a", "b"],
                          ["diff", "a", "b"], ["diff", "a", "b", "c", "d"],
                          ["inspect", "a", "verify"]):
            self.fails(USAGE, *arguments)

    def test_unknown_options(self):
        self.compress_fails(USAGE, "--explode")
        for command in (["apply", "a", "b", "-o", "c"], ["inspect", "a"], ["verify", "a"],
                        ["diff", "a", "b", "c"]):
            self.fails(USAGE, *command, "--explode")

    def test_values_that_are_none(self):
        for options in (["--patch", "5"], ["--patch", "0"], ["--patch", "-4"], ["--patch", "x"],
                        ["--patch", "16.0"], ["--patch", "128"], ["--patch"],
                        ["--mix", ""], ["--mix", "2"], ["--mix", "2:0.5"], ["--mix", "5:1"],
                        ["--mix", "2:0.5,2:0.5"], ["--mix", "2:1.5,0:-0.5"], ["--mix", "2:nan"],
                        ["--mix", "2:inf"], ["--mix", "2:0.5,0:0.5,"], ["--mix", "2:0.5;0:0.5"],
                        ["--mix", "2:0.5 ,0:0.5"], ["--mix", "99999999999:1"],
                        ["--include", "("], ["--include", "["], ["--exclude", "*"],
                        ["--exclude", "a{2,1}"], ["--threads", "-1"], ["--threads", "x"],
                        ["--threads", "100000"], ["--backend", "gpu"], ["--backend", "1"],
                        ["--backend", ""], ["--preset", "best"], ["--non-finite", "drop"],
                        ["--io", "write"], ["--max-shard-size", "x"], ["--max-shard-size", ""],
                        ["--max-shard-size", "-1"], ["--max-shard-size", "1.5"],
                        ["--size", "0"], ["--size", "0kB"], ["--size", "-5"], ["--size", " -5"],
                        ["--size=-5MB"], ["--size", "x"], ["--size", ""], ["--bpw", "0"],
                        ["--bpw", "-0"], ["--bpw", "-1"], ["--bpw", "nan"], ["--bpw", "inf"],
                        ["--bpw", "1e999"], ["--bpw", ""], ["--bpw", "1x"], ["--output", ""],
                        ["--max-shard-size", "5parsecs"], ["--max-shard-size", "99999999TB"]):
            for preset in ([], ["--preset", "unit_gain"]):
                message = self.compress_fails(USAGE, *preset, *options)
                self.assertIn(options[0].split("=")[0], message)
                self.assertEqual(message.count("\n"), 2, message)  # and where to look for help
                self.assertLess(len(message), 400)

    def test_an_empty_name_is_none(self):
        for command in (["compress", "", "b", "-o", "c"], ["compress", "a", "", "-o", "c"],
                        ["compress", "a", "b", "-o", ""], ["apply", "", "b", "-o", "c"],
                        ["apply", "a", "", "-o", "c"], ["apply", "a", "b", "-o", ""],
                        ["inspect", ""], ["verify", ""], ["verify", "a", "--base", ""],
                        ["diff", "", "b", "c"], ["diff", "a", "", "c"], ["diff", "a", "b", ""]):
            self.assertIn("empty name", self.fails(USAGE, *command))

    def test_more_threads_than_can_be(self):
        self.compress("--threads", "1", output="one")
        for number in ("100000", "2147483647"):
            environment = {**os.environ, "OMP_NUM_THREADS": number}
            result = subprocess.run([CLI, "compress", self.path("base"), self.path("tuned"), "-o",
                                     self.path("many"), "--force"],
                                    cwd=self.folder / "elsewhere", env=environment,
                                    capture_output=True, text=True, check=False)
            self.assertEqual(result.returncode, DONE, result.stderr)
            self.assertEqual(self.bytes("many"), self.bytes("one"))

    def test_options_that_are_not_the_presets(self):
        for options in (["--bpw", "1"], ["--preset", "unit_gain", "--bpw", "-1"],
                        ["--preset", "unit_gain", "--bpw", "x"],
                        ["--preset", "unit_gain", "--bpw", "1", "--mix", "1:1"],
                        ["--preset", "unit_gain", "--no-dct"], ["--preset", "dare", "--bpw", "1"],
                        ["--preset", "bit_delta", "--patch", "16"],
                        ["--preset", "delta_come", "--mix", "1:1"],
                        ["--preset", "ultra_delta", "--no-dct"],
                        *[["--preset", "unit_gain", "--patch", patch] for patch in (4, 8, 12)],
                        ["--preset", "unit_gain", "--mix", "8:1"],
                        ["--preset", "unit_gain", "--mix", "6:0.5,1:0.5"], ["--mix", "-2:1"]):
            self.assertIn(options[-2], self.compress_fails(USAGE, *options))

    def test_outputs_of_no_fit_name(self):
        for output in ("new/", "elsewhere/"):
            self.assertIn("--max-shard-size", self.compress_fails(FAILED, output=output))
        self.compress("--max-shard-size", "1MB", output="new/")

    def test_results_that_cannot_be_written(self):
        self.compress()
        for command in (["inspect", self.path("delta")], ["inspect", "--json", self.path("delta")],
                        ["verify", self.path("delta")],
                        ["diff", *[self.path(name) for name in ("base", "tuned", "tuned")]]):
            with open("/dev/full", "w", encoding="ascii") as full:
                result = subprocess.run([CLI, *command], cwd=self.folder / "elsewhere",
                                        stdout=full, stderr=subprocess.PIPE, check=False)
            self.assertEqual(result.returncode, FAILED, command)

    def test_an_output_is_the_result_whoever_listens(self):
        self.compress()
        writers = (["compress", self.path("base"), self.path("tuned")],
                   ["apply", self.path("base"), self.path("delta")])
        for number, command in enumerate(writers):
            for size in ([], ["--max-shard-size", "20kB"]):
                output = self.folder / f"out{number}{len(size)}"
                writer = [CLI, *command, *size, "-o", output, "--force"]
                for how in ("full", "closed", "broken"):
                    result = self.run_unheard(writer, how)
                    self.assertEqual(result.returncode, DONE, (how, result.stderr))
                    self.assertRegex(result.stderr.decode(), "^deltadct: warning: stdout: .*\n$")
                    self.assertTrue(output.exists())

    def run_unheard(self, command, how, descriptor=1):
        """Runs with a stdout that is full, closed, or a pipe that nobody reads from."""
        streams = {1: {"stderr": subprocess.PIPE}, 2: {"stdout": subprocess.PIPE}}[descriptor]
        name = {1: "stdout", 2: "stderr"}[descriptor]
        settings = {"cwd": self.folder / "elsewhere", "check": False, **streams}
        if how == "closed":
            return subprocess.run(command, preexec_fn=lambda: os.close(descriptor), **settings)
        if how == "full":
            with open("/dev/full", "w", encoding="ascii") as full:
                return subprocess.run(command, **{name: full}, **settings)
        lead, follow = os.pipe()
        os.close(lead)
        try:
            return subprocess.run(command, **{name: follow}, **settings)
        finally:
            os.close(follow)

    def test_closed_descriptors_are_not_taken_for_files(self):
        self.compress(output="whole")
        self.apply(delta="whole", output="whole.out")
        writers = ((["compress", self.path("base"), self.path("tuned"), "-o"], "whole"),
                   (["apply", self.path("base"), self.path("whole"), "-o"], "whole.out"))
        for closed in ([0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]):
            def close(closed=closed):
                for descriptor in closed:
                    os.close(descriptor)
            for access in ("map", "read"):
                for command, whole in writers:
                    # A warning and an error, neither of which may end up in a file.
                    for force, code in ((["--force"], DONE), ([], FAILED)):
                        result = subprocess.run(
                            [CLI, *command, self.path("new"), "--io", access, *force], check=False,
                            cwd=self.folder / "elsewhere", preexec_fn=close,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                        self.assertEqual(result.returncode, code)
                        self.assertEqual(self.bytes("new"), self.bytes(whole))
            result = subprocess.run([CLI, "inspect", self.path("whole")], check=False,
                                    cwd=self.folder / "elsewhere", preexec_fn=close,
                                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.assertEqual(result.returncode, FAILED if 1 in closed else DONE)

    def test_nobody_listens_to_progress(self):
        for how in ("full", "closed", "broken"):
            command = [CLI, "compress", self.path("base"), self.path("tuned"), "-o",
                       self.path("delta"), "--force"]
            result = self.run_unheard(command, how, descriptor=2)
            self.assertEqual(result.returncode, DONE)
            self.assertIn(b"bits per weight", result.stdout)

    def test_memory_that_is_not_there(self):
        def limited(most, *arguments):
            def limit():
                resource.setrlimit(resource.RLIMIT_AS, (most << 20, most << 20))
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            return subprocess.run([CLI, *arguments], cwd=self.folder / "elsewhere", check=False,
                                  capture_output=True, text=True, preexec_fn=limit)
        if limited(16, "--version").returncode != DONE:
            self.skipTest("a sanitizer takes more memory")
        not_loaded = 127  # the exit code of the program loader
        least = next(most for most in range(8, 17)
                     if limited(most, "--version").returncode != not_loaded)
        big = np.random.default_rng(3).standard_normal((1 << 11, 1 << 10)).astype("<f4")
        for name, step in (("base", 0), ("tuned", 0.01)):
            model.write(self.folder / name, {"big": ("F32", big + np.float32(step))})
        self.compress()
        base, tuned, delta, out = map(self.path, ("base", "tuned", "delta", "out"))
        named = 0
        for command in (["compress", base, tuned, "-o", out],
                        ["compress", base, tuned, "-o", out, "--max-shard-size", "1MB"],
                        ["apply", base, delta, "-o", out],
                        ["apply", base, delta, "-o", out, "--max-shard-size", "1MB"],
                        ["verify", delta, "--base", base], ["diff", base, tuned, tuned]):
            for access in ("map", "read"):
                failed = 0
                for most in range(least, 100, 4):
                    result = limited(most, *command, "--io", access)
                    self.assertFalse((self.folder / "out.partial").exists())
                    if result.returncode == DONE:
                        break
                    failed += 1
                    self.assertEqual(result.returncode, FAILED, (command, most, result.stderr))
                    self.assertRegex(result.stderr, r"^deltadct: .*not enough memory.*\n$")
                    self.assertFalse((self.folder / "out").exists())
                    named += "big: not enough memory" in result.stderr
                self.remove("out")
                self.assertGreater(failed, 0)
        self.assertGreater(named, 10)

    def test_a_bad_value_is_found_before_any_file_is_looked_at(self):
        self.fails(USAGE, "compress", "absent", "absent", "-o", "x", "--mix", "7:1")
        self.fails(USAGE, "apply", "absent", "absent", "-o", "x", "--threads", "many")


if __name__ == "__main__":
    unittest.main()
