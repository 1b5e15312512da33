#!/usr/bin/env bash
# Installs what the project needs on Debian 12, then runs workflows of CMakePresets.json:
#
#   demo    builds the command line tool and the demonstration, and runs the demonstration
#   test    builds and tests everything with g++ and with clang++ and, if there is nvcc, the CUDA targets
#   clang   builds and tests everything with clang++
#   cuda    runs cmake/cuda.sh: builds and tests the CUDA targets; on a machine with a device, also runs the
#           tests under compute-sanitizer, runs the benchmarks and writes them to docs/benchmarks.md
#   valgrind   runs tests under valgrind, built without this machine's instruction set
#   bench   runs the benchmarks and writes docs/benchmarks.md
#   fidelity   measures what models lose under every method and writes docs/fidelity.md
#   asan    runs the tests under the address and undefined-behaviour sanitizers
#   fuzz [SECONDS]   runs all fuzz targets in parallel for that long (1200)
set -euo pipefail
cd "$(dirname "$0")/.."

# NVIDIA's packages install nvcc here.
[[ ! -x /usr/local/cuda/bin/nvcc ]] || PATH=$PATH:/usr/local/cuda/bin

packages=(
  g++ clang clang-format clang-tidy libomp-dev cmake ninja-build ccache
  libxsimd-dev libeigen3-dev libfftw3-dev libtbb-dev nlohmann-json3-dev libxxhash-dev libzstd-dev libcli11-dev
  doctest-dev libbenchmark-dev
  python3 python3-numpy python3-scipy
  g++-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
  lib32stdc++-12-dev libc6-dev-i386 # g++-multilib and the cross compiler exclude each other
)

is_installed() {
  [[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]
}

# Installs those of `packages` and of the arguments that are missing.
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

# Runs every named workflow, even if the one before failed, and prints ctest's summaries at the end. After the
# workflow cuda, it prints the registers and shared memory that kernels use.
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

# Runs every fuzz target over its own corpus, which starts from the seeds, and leaves findings in build/fuzz.
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
