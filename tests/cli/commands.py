"""The command line tool, run as a user would: results, exit codes, messages, files left behind.

DELTADCT_CLI is the executable; arguments are those of unittest.
"""

import json
import os
import pathlib
import pty
import re
import subprocess
import tempfile
import unittest

import numpy as np

import model

CLI = os.path.abspath(os.environ["DELTADCT_CLI"])
DONE, FAILED, USAGE = 0, 1, 2
FLOATS = ("F64", "F32", "F16", "BF16")


def example_pair():
    """A base and a fine-tune with every mode: deltas of all dtypes, lossless and unchanged ones."""
    random = np.random.default_rng(1)
    base, tuned = {}, {}

    def add(name, dtype, shape, step=0.02):
        before = random.standard_normal(shape)
        after = before + step * random.standard_normal(shape)
        store = model.to_bf16 if dtype == "BF16" else lambda x: np.asarray(x, model.DTYPES[dtype])
        base[name] = (dtype, store(before))
        tuned[name] = (dtype, store(after))

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
    return base, tuned


DELTAS = {"layers.0.attn.weight", "layers.0.mlp.weight", "layers.1.attn.weight",
          "layers.1.mlp.weight", "experts.weight"}
SAME = {"frozen.weight", "mask"}


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
        model.write(self.folder / "base", self.base, {"format": "pt"})
        model.write(self.folder / "tuned", self.tuned)

    def path(self, name):
        return os.path.join("..", name)

    def run_cli(self, *arguments):
        return subprocess.run([CLI, *map(str, arguments)], cwd=self.folder / "elsewhere",
                              capture_output=True, text=True, check=False)

    def ok(self, *arguments):
        result = self.run_cli(*arguments)
        self.assertEqual(result.returncode, DONE, result.stderr)
        # Progress, if there is any, is whole lines: stderr is no terminal.
        self.assertNotRegex(result.stderr, r"[\r\x1b]")
        for line in result.stderr.splitlines():
            self.assertRegex(line, r"^\w+ \d+% ")
        return result.stdout

    def fails(self, code, *arguments):
        """Runs what must fail: nothing on stdout, nothing written, a message. Returns that."""
        before = self.files()
        result = self.run_cli(*arguments)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        self.assertEqual(result.stdout, "")
        self.assertNotEqual(result.stderr, "")
        self.assertEqual(self.files(), before)
        if code == FAILED:
            self.assertTrue(result.stderr.startswith("deltadct: "), result.stderr)
            self.assertEqual(result.stderr.count("\n"), 1)
        return result.stderr

    def files(self):
        return {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}

    def bytes(self, name):
        return (self.folder / name).read_bytes()

    def compress(self, *options, output="delta"):
        return self.ok("compress", self.path("base"), self.path("tuned"), "-o", self.path(output),
                       *options)

    def compress_fails(self, code, *options, output="delta"):
        return self.fails(code, "compress", self.path("base"), self.path("tuned"), "-o",
                          self.path(output), *options)

    def apply(self, *options, delta="delta", output="out"):
        self.ok("apply", self.path("base"), self.path(delta), "-o", self.path(output), *options)
        return model.read(self.folder / output)[0]

    def inspect(self, name="delta"):
        return json.loads(self.ok("inspect", "--json", self.path(name)))

    def modes(self, name="delta"):
        return {tensor["name"]: tensor["mode"] for tensor in self.inspect(name)["tensors"]}

    def delta(self, name, other=None):
        """The difference of a tensor of a model from the base's, in doubles."""
        dtype, base = self.base[name]
        return model.floats(dtype, (other or self.tuned)[name][1]) - model.floats(dtype, base)


class RoundTrip(Case):
    def test_lossless_tensors_come_back_and_deltas_nearly(self):
        self.compress("--mix", "8:1")
        out = self.apply()
        self.assertEqual(list(out), list(self.base))
        for name, (dtype, array) in out.items():
            self.assertEqual(dtype, self.base[name][0])
            if name not in DELTAS:
                np.testing.assert_array_equal(array, self.tuned[name][1])
                continue
            error = np.linalg.norm(self.delta(name, out) - self.delta(name))
            share = error / np.linalg.norm(self.delta(name))
            self.assertLess(share, 0.3 if dtype == "BF16" else 0.05, name)

    def test_the_base_gives_metadata_and_the_fine_tune_nothing(self):
        self.compress()
        self.apply()
        self.assertEqual(model.read(self.folder / "out")[1], {"format": "pt"})

    def test_every_patch_size_mix_and_transform(self):
        for patch in (4, 8, 12, 16, 32, 64):
            for options in ([], ["--mix", "8:0.1,4:0.2,3:0.2,1:0.3,0:0.2"], ["--no-dct"]):
                self.compress("--patch", patch, "--force", *options)
                self.apply("--force")
                self.ok("verify", self.path("delta"), "--base", self.path("base"))

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
        for name in DELTAS:  # codes may differ where they are ties
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
        try:
            shown = os.read(lead, 65536).decode()
        except OSError:  # nothing was written
            shown = ""
        os.close(lead)
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
        self.assertEqual(deltas("--include", "nothing"), set())

    def test_a_pattern_may_stand_before_the_models(self):
        for option in ("--include", "--exclude"):
            self.ok("compress", option, "attn", self.path("base"), self.path("tuned"), "-o",
                    self.path("delta"), "--force")
            self.ok("compress", option + "=attn", self.path("base"), self.path("tuned"), "-o",
                    self.path("delta"), "--force")

    def test_options_show_in_the_archive(self):
        self.compress("--patch", 8, "--mix", "4:0.25,1:0.75", "--no-dct")
        tensor = self.inspect()["tensors"][0]
        self.assertEqual(tensor["name"], "layers.0.attn.weight")
        self.assertEqual(tensor["patch"], 8)
        self.assertEqual(tensor["transform"], "identity")
        self.assertEqual([width["bits"] for width in tensor["widths"]], [4, 1])
        self.assertEqual([width["patches"] for width in tensor["widths"]], [30, 90])
        self.compress("--force", "--preset", "paper")
        tensor = self.inspect()["tensors"][0]
        self.assertEqual((tensor["patch"], tensor["transform"]), (16, "dct"))
        self.assertEqual([width["bits"] for width in tensor["widths"]], [2, 0])

    def test_the_summary_counts_every_byte(self):
        summary = self.compress()
        weights = sum(array.size for _, array in self.base.values())
        bits = 8 * len(self.bytes("delta")) / weights
        self.assertIn(f"{bits:.3f} (every byte", summary)
        self.assertRegex(summary, r"5 delta, 3 lossless, 2 unchanged")

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

    def test_models_that_do_not_fit_are_named(self):
        del self.tuned["scale"]
        self.write_pair()
        self.assertIn("scale", self.compress_fails(FAILED))
        self.tuned["scale"] = ("F64", np.float64(1))
        self.write_pair()
        self.assertRegex(self.compress_fails(FAILED), r"scale: dtypes differ.*F64.*F32|"
                                                      r"scale: dtypes differ.*F32.*F64")
        self.tuned["scale"] = ("F32", np.zeros(1))
        self.write_pair()
        self.assertIn("scale: shapes differ", self.compress_fails(FAILED))

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


class Apply(Case):
    def setUp(self):
        super().setUp()
        self.compress()

    def apply_fails(self, code, *options, delta="delta", output="out"):
        return self.fails(code, "apply", self.path("base"), self.path(delta), "-o",
                          self.path(output), *options)

    def test_another_base_is_refused_by_tensor(self):
        self.base["layers.1.attn.weight"][1][3, 3] += 1
        self.write_pair()
        message = self.apply_fails(FAILED)
        self.assertIn("layers.1.attn.weight", message)
        self.assertIn("base", message)

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
        self.assertIn("no delta archive", self.apply_fails(FAILED, delta="tuned"))

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
            if tensor["mode"] == "raw":
                self.assertEqual(tensor["bytes"], array.nbytes)
            if tensor["mode"] != "delta":
                continue
            rows, cols = array.reshape(-1, array.shape[-1]).shape
            patches = -(-rows // 16) * -(-cols // 16)
            self.assertEqual(sum(width["patches"] for width in tensor["widths"]), patches)
            self.assertEqual(tensor["bound"], "F64" if dtype == "F64" else "F32")
            self.assertTrue(np.isfinite(tensor["scale"]))

    def test_text_lists_every_tensor_and_the_total(self):
        lines = self.ok("inspect", self.path("delta")).splitlines()
        for name, (dtype, array) in self.base.items():
            row = [line for line in lines if line.split()[0] == name]
            self.assertEqual(len(row), 1)
            self.assertIn(dtype, row[0])
            self.assertIn("x".join(map(str, array.shape)) or "scalar", row[0])
        self.assertIn("bits per weight", lines[-1])

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
        for section in ("codes:experts.weight", "bounds:layers.1.mlp.weight", "raw:ids"):
            bad = bytearray(whole)
            bad[8 + int(length) + header[section]["data_offsets"][0]] ^= 1
            (self.folder / "delta").write_bytes(bad)
            message = self.fails(FAILED, "verify", self.path("delta"))
            self.assertIn(section.split(":")[1], message)

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
        names = [name for name, (dtype, _) in self.base.items() if dtype in FLOATS]
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

    def test_text_has_a_row_for_every_floating_tensor(self):
        lines = self.ok("diff", self.path("base"), self.path("tuned"),
                        self.path("tuned")).splitlines()
        names = [name for name, (dtype, _) in self.base.items() if dtype in FLOATS]
        self.assertEqual([line.split()[0] for line in lines[1:]], names + ["total"])

    def test_models_that_do_not_fit(self):
        model.write(self.folder / "other", {"scale": self.base["scale"]})
        message = self.fails(FAILED, "diff", self.path("base"), self.path("tuned"),
                             self.path("other"), "--json")
        self.assertIn("layers.0.attn.weight: tensor is missing", message)
        self.fails(FAILED, "diff", self.path("base"), self.path("absent"), self.path("tuned"))


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
                        ["--backend", ""], ["--preset", "best"], ["--non-finite", "drop"]):
            message = self.compress_fails(USAGE, *options)
            self.assertIn(options[0], message)

    def test_a_bad_value_is_found_before_any_file_is_looked_at(self):
        self.fails(USAGE, "compress", "absent", "absent", "-o", "x", "--mix", "7:1")
        self.fails(USAGE, "apply", "absent", "absent", "-o", "x", "--threads", "many")


if __name__ == "__main__":
    unittest.main()
