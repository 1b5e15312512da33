#!/usr/bin/env bash
# Builds and runs everything that uses a CUDA device, on the first device found, and installs nothing. Needs
# nvcc, CMake 3.25, Python 3 and doctest's header. Arguments are settings for CMake, such as
# -DDELTADCT_DOCTEST_INCLUDE_DIR=... or -DDELTADCT_VKFFT_INCLUDE_DIR=... The script builds the CUDA targets,
# prints the registers and shared memory of every kernel, and runs the tests. If there is a device, it runs the
# test programs again under compute-sanitizer (memcheck, racecheck, synccheck), then the benchmarks. Their lines
# go to build/cuda/bench.jsonl, and their table to docs/benchmarks.md.
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
# Some tests make API calls fail on purpose, so memcheck does not report those.
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
