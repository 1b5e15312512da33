#!/usr/bin/env bash
# Installs what the project needs on Debian 12, then runs workflows of CMakePresets.json:
#
#   demo    the command line tool and the demonstration, which it then runs
#   test    everything with g++, everything with clang++ and, where there is nvcc, what it compiles
#   clang   everything with clang++
#   cuda    what nvcc compiles; on a machine with a device, its tests under compute-sanitizer, too, and
#           the benchmarks, and docs/benchmarks.md from them: cmake/cuda.sh
#   valgrind   tests under valgrind, without this machine's instruction set
#   bench   the benchmarks, and docs/benchmarks.md from them
#   fidelity   what models do after every method, and docs/fidelity.md from that
#   asan    tests under the address and undefined-behaviour sanitizers
#   fuzz [SECONDS]   every fuzz target, side by side, for that long (1200)
set -euo pipefail
cd "$(dirname "$0")/.."

# Where NVIDIA's packages leave it.
[[ ! -x /usr/local/cuda/bin/nvcc ]] || PATH=$PATH:/usr/local/cuda/bin

packages=(
  g++ clang libomp-dev cmake ninja-build ccache
  libxsimd-dev libeigen3-dev libfftw3-dev libtbb-dev nlohmann-json3-dev libxxhash-dev libzstd-dev libcli11-dev
  doctest-dev libbenchmark-dev
  python3 python3-numpy python3-scipy
  g++-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
  lib32stdc++-12-dev libc6-dev-i386 # g++-multilib and the cross compiler exclude each other
)

is_installed() {
  [[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]
}

# Of what is named beside what everything needs.
install_missing() {
  local package missing=()
  for package in "${packages[@]}" "$@"; do
    is_installed "$package" || missing+=("$package")
  done
  [[ ${#missing[@]} -eq 0 ]] && return

  local as_root=()
  [[ $EUID -eq 0 ]] || as_root=(sudo)
  "${as_root[@]}" apt-get update
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends "${missing[@]}"
}

# Runs every workflow named, whatever became of the one before, and ends with ctest's summaries; before
# them, with what kernels take of a device.
run_workflows() {
  local preset failed=0
  mkdir -p build
  for preset in "$@"; do
    cmake --workflow --preset "$preset" 2>&1 | tee "build/$preset.log" || failed=1
    [[ $preset != cuda ]] || python3 bench/cuda/resources.py build/cuda.log || failed=1
  done
  for preset in "$@"; do
    echo
    echo "$preset:"
    grep -E '% tests passed|^Total Test time|^[[:space:]]+[0-9]+ - ' "build/$preset.log" ||
      echo "no tests were run"
  done
  return $failed
}

# Runs every fuzz target over a corpus of its own, which starts from the seeds; what they find is left
# in build/fuzz.
run_fuzzers() {
  local target pids=() failed=0
  for target in header index archive backends; do
    mkdir -p "build/fuzz/corpus/$target"
    ./build/fuzz/tests/fuzz/fuzz_$target -max_total_time="$1" -print_final_stats=1 -timeout=60 \
      -dict=tests/fuzz/json.dict -artifact_prefix="build/fuzz/$target-" \
      "build/fuzz/corpus/$target" "tests/fuzz/corpus/$target" >"build/fuzz/$target.log" 2>&1 &
    pids+=($!)
  done
  for target in header index archive backends; do
    wait "${pids[0]}" || failed=1
    pids=("${pids[@]:1}")
    echo "$target: $(grep -E ' cov: ' "build/fuzz/$target.log" | tail -1)"
    grep -E 'number_of_executed_units|SUMMARY' "build/fuzz/$target.log" || true
  done
  return $failed
}

usage() {
  echo "usage: $0 demo|test|clang|cuda|asan|valgrind|bench|fidelity|fuzz" >&2
  exit 2
}

[[ $# -eq 1 || ($# -eq 2 && $1 == fuzz) ]] || usage
case "$1" in
  demo)
    install_missing
    cmake --workflow --preset demo
    exec ./build/release/examples/char_gpt
    ;;
  test)
    install_missing
    workflows=(dev clang)
    ! command -v nvcc >/dev/null || workflows+=(cuda)
    run_workflows "${workflows[@]}"
    ;;
  cuda)
    install_missing libvkfft-dev
    exec ./cmake/cuda.sh
    ;;
  clang | asan)
    install_missing
    run_workflows "$1"
    ;;
  valgrind)
    install_missing valgrind
    run_workflows valgrind
    ;;
  bench)
    install_missing libzfp-dev python3-matplotlib
    cmake --preset release
    exec cmake --build --preset release --target bench-report
    ;;
  fidelity)
    install_missing python3-matplotlib
    cmake --preset release
    exec cmake --build --preset release --target fidelity-report
    ;;
  fuzz)
    install_missing
    cmake --workflow --preset fuzz
    run_fuzzers "${2:-1200}"
    ;;
  *) usage ;;
esac
