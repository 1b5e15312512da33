"""Runs of the command line tool that are cut short: killed at any moment, out of room on the disk,
robbed of their input. The output is the old one or none at all, or complete.

DELTADCT_CLI is the executable; arguments are those of unittest. The sizes of the models are chosen
so that runs take long enough to be killed, and no longer.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import numpy as np

import model

CLI = os.path.abspath(os.environ["DELTADCT_CLI"])
DONE, FAILED = 0, 1
KILLS = 50
COLS, TENSORS = 1024, 16
PLAN, REPLACED = "deltadct.plan", "deltadct.replaced"
FILES = ("config.json", "1_Pooling/config.json")


def write_pair(folder, rows):
    """A base, and a fine-tune in shards: TENSORS deltas, and a tensor of most other modes."""
    generator = np.random.default_rng(1)
    size = rows * COLS
    before, step = generator.standard_normal((2, size + TENSORS), "f4")
    base, tuned = {}, {}
    for stored, values in ((base, before), (tuned, before + np.float32(0.01) * step)):
        bits = model.to_bf16(values)
        for k in range(TENSORS):  # all different
            stored[f"{k}.weight"] = ("BF16", bits[k:k + size].reshape(rows, COLS))
    ids = generator.integers(0, 1 << 20, size // 2)
    base["ids"], tuned["ids"] = ("I32", ids), ("I32", ids ^ (ids % 7 == 0))
    base["removed"] = ("I32", ids[:size // 8])
    tuned["added"] = ("I32", ids[:size // 4] * 3)
    tuned["head"] = tuned["0.weight"]
    model.write(folder / "base", base)
    model.write_folder(folder / "tuned", tuned, (6, 11), {"format": "pt"})
    for name in FILES:
        (folder / "tuned" / name).parent.mkdir(exist_ok=True)
        (folder / "tuned" / name).write_text(json.dumps({"of": name}))


def contents(path):
    """A digest of every file of an output; None where there is none."""
    if not os.path.lexists(path):
        return None
    files = ([file for file in files_in(path) if file.name not in (PLAN, REPLACED)]
             if path.is_dir() else [path])
    return {str(file.relative_to(path)): hashlib.sha1(file.read_bytes()).hexdigest()
            for file in files}


def mark_as_written(path):
    """Marks a file as the tool does, so that it may be replaced."""
    status = path.stat()
    seconds, nanoseconds = divmod(status.st_mtime_ns, 10**9)
    with contextlib.suppress(OSError):
        os.setxattr(path, "user.deltadct.written",
                    f"{status.st_size} {seconds}.{nanoseconds}".encode())


def files_in(path):
    return [file for file in path.rglob("*") if not file.is_dir()]


class Operation:
    """A command that writes a file or a folder, and what it writes when it is left alone."""

    def __init__(self, folder, command, shards):
        inputs = {"compress": ("base", "tuned"), "apply": ("base", "delta")}[command]
        self.command = [CLI, command, *[str(folder / name) for name in inputs]]
        self.sharded = shards > 1
        self.name = command + (" to shards" if self.sharded else "")
        if self.sharded:
            whole = (folder / "delta").stat().st_size
            if command == "apply":
                whole = (folder / "base").stat().st_size
            self.command += ["--max-shard-size", str(max(whole // shards, 1))]
        output = folder / "whole"
        self.seconds = min(self.timed(output) for _ in range(3))
        self.whole = contents(output)
        self.folder = output.is_dir()
        sizes = [file.stat().st_size for file in (files_in(output) if self.folder else [output])]
        self.largest, self.bytes = max(sizes), sum(sizes)
        remove(output)

    def timed(self, output):
        remove(output)
        start = time.monotonic()
        subprocess.run([*self.command, "-o", str(output)], check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - start


def remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def prepare(rows):
    """A folder with a pair of that size and its archive, and the seconds compressing took."""
    temporary = tempfile.TemporaryDirectory()
    folder = pathlib.Path(temporary.name)
    write_pair(folder, rows)
    start = time.monotonic()
    subprocess.run([CLI, "compress", folder / "base", folder / "tuned", "-o", folder / "delta"],
                   check=True, stdout=subprocess.DEVNULL)
    return temporary, time.monotonic() - start


def prepare_to_last(seconds, most_rows=2048):
    """As prepare(), of a size for which compressing takes about that long."""
    rows = 64
    temporary, taken = prepare(rows)
    while taken < 0.6 * seconds and rows < most_rows:
        rows = min(most_rows, int(rows * min(8, max(1.5, seconds / taken))))
        temporary.cleanup()
        temporary, taken = prepare(rows)
    return temporary


class Case(unittest.TestCase):
    """Outputs of a test lie in a folder of their own."""

    @classmethod
    def setUpClass(cls):
        cls.temporary = cls.make()
        cls.addClassCleanup(cls.temporary.cleanup)
        cls.inputs = pathlib.Path(cls.temporary.name)
        cls.operations = [Operation(cls.inputs, command, shards)
                          for command in ("compress", "apply") for shards in (1, 6)]

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        self.output = self.folder / "out"
        self.partial = self.folder / "out.partial"

    def start(self, operation, *options, **settings):
        return subprocess.Popen([*operation.command, "-o", str(self.output), *options], text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings)

    def run_to_the_end(self, operation, *options, **settings):
        """The exit code and what was written to stderr."""
        with self.start(operation, *options, **settings) as process:
            message = process.communicate()[1]
        return process.returncode, message

    def finish(self, operation, *options):
        code, message = self.run_to_the_end(operation, *options)
        self.assertEqual(code, DONE, message)
        self.assertEqual(contents(self.output), operation.whole)
        self.assertFalse(self.partial.exists())

    def write_old(self, operation):
        """An output to be replaced."""
        if operation.folder:
            self.output.mkdir()
            old = self.output / "old.safetensors"
            old.write_bytes(b"old")
            mark_as_written(old)
        else:
            self.output.write_bytes(b"old")
        return contents(self.output)

    def check_leftovers(self):
        """Nothing is left but outputs, a folder in progress and temporary files."""
        names = {path.name for path in self.folder.iterdir()}
        others = {name for name in names - {"out", "out.partial"}
                  if not (name.startswith(".deltadct-") and name.endswith(".tmp"))}
        self.assertEqual(others, set())
        if self.partial.is_dir():
            names = [str(path.relative_to(self.partial)) for path in files_in(self.partial)]
            self.assertFalse([name for name in names if name not in (PLAN, REPLACED, *FILES) and not
                              name.endswith((".tmp", ".safetensors", ".index.json"))])

    def clear(self):
        for path in self.folder.iterdir():
            remove(path)

    def verify(self, operation):
        """Has the tool itself judge a complete output."""
        if operation.command[1] == "compress":
            verify = [CLI, "verify", str(self.output), "--base", str(self.inputs / "base")]
        else:
            verify = [CLI, "compress", str(self.inputs / "base"), str(self.output), "-o",
                      str(self.folder / "verified")]
        subprocess.run(verify, check=True, stdout=subprocess.DEVNULL)
        remove(self.folder / "verified")


class Kills(Case):
    """SIGKILL."""

    @staticmethod
    def make():
        return prepare_to_last(0.5)

    def run_and_kill(self, operation, moment, options):
        """Whether the run was killed rather than quicker."""
        with self.start(operation, *options) as process:
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                process.kill()
            message = process.communicate()[1]
        # LLVM's OpenMP registers a process in a file, and a later process with the same number
        # that finds an empty one gets SIGBUS.
        pathlib.Path(f"/dev/shm/__KMP_REGISTERED_LIB_{process.pid}_{os.getuid()}").unlink(missing_ok=True)
        self.assertIn(process.returncode, (DONE, -signal.SIGKILL), message)
        return process.returncode != DONE

    def kill_often(self, command):
        operations = [found for found in self.operations if found.command[1] == command]
        chance = random.Random(command)
        counts = {"killed": 0, "finished": 0, "resumed": 0, "started over": 0}
        for number in range(KILLS):
            operation = operations[number % 2]
            self.clear()
            forced = chance.random() < 0.5
            old = self.write_old(operation) if forced else None
            options = ["--force"] if forced else []
            # One random moment in each of KILLS equal parts of a run, and slightly beyond its end.
            share = (number + chance.random()) / KILLS
            killed = self.run_and_kill(operation, 1.05 * share * operation.seconds, options)
            counts["killed" if killed else "finished"] += 1
            found = contents(self.output)
            self.check_leftovers()
            if not killed or found != old:
                self.assertEqual(found, operation.whole, operation.name)
                self.verify(operation)
                continue
            if chance.random() < 0.4:
                resume = operation.sharded and chance.random() < 0.7
                self.finish(operation, *options, *["--resume"] * resume)
                counts["resumed" if resume else "started over"] += 1
        print(command, counts, flush=True)
        self.assertGreater(counts["killed"], 0)

    def test_compress(self):
        self.kill_often("compress")

    def test_apply(self):
        self.kill_often("apply")

    def test_a_run_killed_again_and_again(self):
        for operation in self.operations:
            if not operation.sharded:
                continue
            self.clear()
            old = self.write_old(operation)
            for share in (0.3, 0.5, 0.2, 0.6, 0.6, 0.6):
                killed = self.run_and_kill(operation, share * operation.seconds,
                                           ["--force", "--resume"])
                if not killed:
                    break
                self.assertIn(contents(self.output), (old, operation.whole))
                self.check_leftovers()
            self.finish(operation, "--force", "--resume")


class Small(Case):
    """What does not depend on how long a run takes."""

    @staticmethod
    def make():
        return prepare(64)[0]

    def limited(self, operation, most, *options):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # which Python ignores
        return self.run_to_the_end(operation, *options, preexec_fn=limit)

    def check_failure(self, operation, code, message, old):
        self.assertEqual(code, FAILED, message)
        self.assertTrue(message.startswith("deltadct: "), message)
        self.assertEqual(message.count("\n"), 1, message)
        self.assertIn(str(self.output), message)
        self.assertEqual(contents(self.output), old)
        self.check_leftovers()
        # Only complete parts of a folder are worth keeping.
        self.assertEqual([path.name for path in self.folder.rglob("*.tmp")], [])
        self.assertTrue(operation.sharded or not self.partial.exists())

    def test_files_that_may_not_be_that_long(self):
        for operation in self.operations:
            for old in (False, True):
                self.clear()
                before = self.write_old(operation) if old else None
                options = ["--force"] if old else []
                for share in (0, 0.001, 0.2, 0.5, 0.8, 0.99):
                    # Some OpenMP runtimes write a file of about a kilobyte themselves.
                    most = max(1024, int(share * operation.largest))
                    code, message = self.limited(operation, most, *options)
                    self.check_failure(operation, code, message, before)
                    self.assertIn("File too large", message)
                self.finish(operation, *options, *["--resume"] * operation.sharded)

    def test_a_full_disk(self):
        disk = self.folder / "disk"
        disk.mkdir()
        mounted = shutil.which("mount") and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "deltadct", str(disk)], check=False,
            stderr=subprocess.DEVNULL).returncode == 0
        if not mounted:
            self.skipTest("only who may mount a file system can have a small one")
        self.addCleanup(subprocess.run, ["umount", str(disk)], check=False)
        self.folder, self.output = disk, disk / "out"
        self.partial = disk / "out.partial"
        for operation in self.operations:
            for share in (0.1, 0.5, 0.95):
                self.clear()
                self.resize(disk, int(share * operation.bytes))
                code, message = self.run_to_the_end(operation)
                self.check_failure(operation, code, message, None)
                self.assertIn("No space left", message)
                if operation.sharded:
                    self.resize(disk, 2 * operation.bytes + (1 << 20))
                    self.finish(operation, "--resume")
            self.clear()
            self.resize(disk, operation.bytes // 2)
            old = self.write_old(operation)
            code, message = self.run_to_the_end(operation, "--force")
            self.check_failure(operation, code, message, old)

    @staticmethod
    def resize(disk, size):
        subprocess.run(["mount", "-o", f"remount,size={max(size, 8192)}", str(disk)], check=True)

    def test_a_kill_at_any_call_of_the_system(self):
        calls = ("openat,rename,renameat,renameat2,fsync,pwrite64,unlink,unlinkat,mkdir,"
                 "ftruncate,rmdir,linkat,fsetxattr")
        self.trace("true", calls)
        counts = {}
        for operation in self.operations:
            for number in range(1, 1000):
                self.clear()
                old = self.write_old(operation)
                command = [*operation.command, "-o", str(self.output), "--force", "--threads", "1"]
                code = self.trace(command, calls, f":signal=KILL:when={number}")[0].returncode
                self.assertIn(contents(self.output), (old, operation.whole))
                self.check_leftovers()
                if code == DONE:
                    break
                self.assertEqual(code, -signal.SIGKILL)
                counts[operation.name] = number
                if operation.folder:
                    resume = operation.sharded and number % 2
                    self.finish(operation, "--force", *["--resume"] * resume)
            else:
                self.fail("every run was killed")
        print(counts, flush=True)

    def test_an_error_of_any_call_of_the_system(self):
        """Exit status 1 means that the old output is there, and no stage without a complete part;
        0 that the new one is, whatever failed afterwards."""
        # Without the calls that clean up: unlink and rmdir.
        calls = "rename,renameat,renameat2,fsync,pwrite64,mkdir,ftruncate,linkat,flock,write"
        self.trace("true", calls)
        failures = 0
        for operation in self.operations:
            command = [*operation.command, "-o", str(self.output), "--force", "--threads", "1"]
            self.clear()
            self.write_old(operation)
            count = len(re.findall(rf"(?m)^({calls.replace(',', '|')})\(",
                                   self.trace(command, calls)[1]))
            self.assertGreater(count, 4)
            for number in range(1, count + 1):
                self.clear()
                old = self.write_old(operation)
                result, _ = self.trace(command, calls, f":error=EIO:when={number}")
                failed = result.returncode != DONE
                where = (operation.name, number, result.stderr)
                self.assertIn(result.returncode, (DONE, FAILED), where)
                self.assertEqual(contents(self.output), old if failed else operation.whole, where)
                self.assertLessEqual(result.stderr.count("\n"), 1, where)
                self.check_leftovers()
                if self.partial.exists():
                    self.assertTrue(list(self.partial.glob("*.safetensors")), where)
                failures += failed
        self.assertGreater(failures, 20)

    def trace(self, command, calls, injected=None):
        """Runs under strace: the result, and a line for each of those calls. With what is injected
        into one of them."""
        quiet = {**os.environ,  # LeakSanitizer does not work under strace
                 "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"}
        if not shutil.which("strace"):
            self.skipTest("without strace")
        with tempfile.NamedTemporaryFile("r") as log:
            options = ["-e", f"inject={calls}{injected}"] if injected else []
            result = subprocess.run(
                ["strace", "-o", log.name, "-e", "trace=" + calls, *options,
                 *([command] if isinstance(command, str) else command)],
                check=False, env=quiet, capture_output=True, text=True)
            if not injected and result.returncode != DONE:
                self.skipTest("strace may trace nothing")
            return result, log.read()

    def test_a_kill_before_the_plan_is_removed(self):
        for operation in self.operations:
            if operation.folder:
                self.clear()
                self.finish(operation)
                (self.output / PLAN).write_text("of the run that was killed")
                self.verify(operation)
                self.finish(operation, "--force")

    def test_a_kill_before_anything_is_complete(self):
        for operation in self.operations:
            if not operation.sharded:
                continue
            for names in ([], [PLAN], [PLAN, ".deltadct-0123456789abcdef.tmp"]):
                for options in ([], ["--resume"]):
                    self.clear()
                    self.partial.mkdir()
                    for name in names:
                        (self.partial / name).write_bytes(b"")
                    self.finish(operation, *options)


class Meanwhile(Case):
    """What others do while the tool runs: it is stopped as soon as it has begun to write."""

    @staticmethod
    def make():
        return prepare_to_last(0.6)

    def start_and_stop(self, operation, *options):
        """A process that has opened its inputs, and has most of its work before it."""
        process = self.start(operation, "--threads", "1", *options)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        while process.poll() is None and not self.writes(process):
            time.sleep(0.0005)
        process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        self.assertTrue(os.WIFSTOPPED(status), "it was too quick to be stopped")
        self.assertTrue(self.writes(process))
        return process

    def writes(self, process):
        """Whether the process has an output open, which has no name yet or a temporary one."""
        files = pathlib.Path(f"/proc/{process.pid}/fd")
        for file in files.iterdir():
            with contextlib.suppress(FileNotFoundError):
                target = os.readlink(file)
                if target.startswith(str(self.folder)) and (
                        target.endswith(" (deleted)") or ".deltadct-" in target):
                    return True
        return False

    def go_on(self, process):
        process.send_signal(signal.SIGCONT)
        message = process.communicate()[1]
        return process.returncode, message

    def check_cut_input(self, operation, name, left, *options):
        """An input is shortened to `left` of its length while it is read."""
        path = self.inputs / name
        kept = self.inputs / "kept"
        shutil.copy2(path, kept)
        for old in (False, True):
            for _ in range(20):  # it may be stopped too late, with everything it needs in memory
                self.clear()
                before = self.write_old(operation) if old else None
                process = self.start_and_stop(operation, *options, *["--force"] * old)
                os.truncate(path, int(left * path.stat().st_size))
                code, message = self.go_on(process)
                shutil.copyfile(kept, path)
                if code != DONE:
                    break
                self.assertEqual(contents(self.output), operation.whole)
            self.assertEqual(code, FAILED, message)
            self.assertTrue(message.startswith("deltadct: "), message)
            self.assertEqual(message.count("\n"), 1, message)
            self.assertEqual(contents(self.output), before)
            self.check_leftovers()
            if self.partial.exists():  # it holds something worth keeping
                self.assertNotEqual([file.name for file in self.partial.iterdir()], [PLAN])
            if "read" in options:
                self.assertIn(name, message)
        kept.unlink()

    def test_an_input_that_shrinks(self):
        last_shard = os.path.join("tuned", "model-00003-of-00003.safetensors")
        for operation in self.operations:
            other = {"compress": last_shard, "apply": "delta"}[operation.command[1]]
            for access in ("map", "read"):
                for name, left in (("base", 0), ("base", 0.5), (other, 0.5)):
                    self.check_cut_input(operation, name, left, "--io", access)

    def test_an_output_that_appears(self):
        for operation in self.operations:
            self.clear()
            process = self.start_and_stop(operation)
            old = self.write_old(operation)
            code, message = self.go_on(process)
            self.assertEqual(code, FAILED)
            self.assertIn("output exists", message)
            self.assertEqual(contents(self.output), old)
            self.check_leftovers()

    def test_a_folder_is_written_by_one_at_a_time(self):
        for operation in self.operations:
            if not operation.sharded:
                continue
            self.clear()
            process = self.start_and_stop(operation)
            for options in ([], ["--force"], ["--resume"]):
                code, message = self.run_to_the_end(operation, *options)
                self.assertEqual(code, FAILED)
                self.assertIn("another process is writing it", message)
            code, message = self.go_on(process)
            self.assertEqual(code, DONE, message)
            self.assertEqual(contents(self.output), operation.whole)
            self.assertFalse(self.partial.exists())

    def test_terminated_runs_leave_no_output(self):
        for operation in self.operations:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                self.clear()
                process = self.start_and_stop(operation)
                process.send_signal(number)
                code, _ = self.go_on(process)
                self.assertEqual(code, -number)
                self.assertIsNone(contents(self.output))
                self.check_leftovers()
                if self.partial.exists():  # it holds something worth keeping
                    self.assertNotEqual([file.name for file in self.partial.iterdir()], [PLAN])


if __name__ == "__main__":
    unittest.main()
