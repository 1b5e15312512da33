#!/usr/bin/env bash
# All that there is for a device, on the first one met, with what is at hand: nothing is installed.
# Needs nvcc, CMake 3.25, Python 3 and doctest's header; settings for CMake may follow, such as
# -DDELTADCT_DOCTEST_INCLUDE_DIR=... or -DDELTADCT_VKFFT_INCLUDE_DIR=... Builds the CUDA targets, says
# what kernels take of a device, and, where there is one, runs the tests, again under compute-sanitizer
# (memcheck, racecheck, synccheck), and the benchmarks, whose lines go to build/cuda/bench.jsonl and whose table
# to docs/benchmarks.md.
set -euo pipefail
cd "$(dirname "$0")/.."

build=build/cuda
mkdir -p $build
cmake -S . -B $build -DCMAKE_BUILD_TYPE=Release "-DCMAKE_CUDA_ARCHITECTURES=80-real;90" \
  -DDELTADCT_CUDA=ON "$@"
cmake --build $build --parallel --target tests_cuda cuda_engine bench_cuda_all 2>&1 |
  tee build/cuda.log
python3 bench/cuda/resources.py build/cuda.log
ctest --test-dir $build -R ^cuda/ --output-on-failure
if ! nvidia-smi -L 2>/dev/null; then
  echo "no device: neither compute-sanitizer nor the benchmarks were run"
  exit 0
fi

failed=0
# Calls that fail on purpose are the tests' to check, not memcheck's.
for tool in "memcheck --report-api-errors no" racecheck synccheck; do
  for program in $build/tests/cuda/test_cuda_*; do
    [[ -x $program && -f $program ]] || continue
    echo "$tool: $(basename "$program")"
    # shellcheck disable=SC2086
    compute-sanitizer --tool $tool --error-exitcode 1 "$program" | tail -3 || failed=1
  done
done
$build/bench/cuda/bench_cuda | tee $build/bench.jsonl
if [[ -x $build/bench/cuda/bench_vkfft ]]; then
  $build/bench/cuda/bench_vkfft | tee -a $build/bench.jsonl || failed=1
fi
python3 bench/cuda/report.py $build/bench.jsonl || failed=1
exit $failed
