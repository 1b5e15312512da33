// Every baseline, compared with baselines.txt, which make_baselines.py writes.
#include <deltadct/baseline/any_baseline.hpp>

#include <fstream>
#include <sstream>

#include <doctest/doctest.h>

using namespace deltadct;

namespace {

constexpr std::size_t kRows = 250;
constexpr std::size_t kCols = 270;

std::vector<float> make_delta() {
  std::vector<float> delta(kRows * kCols);
  for (std::size_t s = 0; s < delta.size(); ++s) {
    const std::uint64_t bits = random_bits(2024, s);
    if (bits % 16 == 0) continue;
    double sum = -2 * 0xFFFF;
    for (int part = 0; part < 4; ++part) {
      sum += static_cast<double>(bits >> (16 * part) & 0xFFFF);
    }
    delta[s] = static_cast<float>(sum * 0x1p-28);
  }
  return delta;
}

struct Expected {
  std::string method;
  double setting = 0;
  std::size_t bytes = 0;
  std::vector<double> of_rows, of_cols;
};

std::vector<Expected> read_expected() {
  std::ifstream file(DELTADCT_GOLDEN_BASELINES);
  std::vector<Expected> all;
  for (std::string line, word; std::getline(file, line);) {
    std::istringstream text(line);
    text >> word;
    if (word == "method") {
      all.emplace_back();
      text >> all.back().method >> all.back().setting;
    } else if (word == "bytes") {
      text >> all.back().bytes;
    } else {
      std::vector<double>& values = word == "of_rows" ? all.back().of_rows : all.back().of_cols;
      for (double x = 0; text >> x;) values.push_back(x);
    }
  }
  return all;
}

AnyBaseline baseline(const Expected& expected) {
  if (expected.method == "bit_delta") {
    return BitDelta{static_cast<BitDelta::Axis>(expected.setting)};
  }
  if (expected.method == "delta_come") return DeltaCome{};
  if (expected.method == "dare") return Dare{.drop = expected.setting};
  return UltraDelta{.groups = {{{.sparsity = expected.setting}}}};
}

void check_close(const std::vector<double>& found, const std::vector<double>& expected) {
  REQUIRE(found.size() == expected.size());
  double difference = 0;
  double square = 0;
  for (std::size_t s = 0; s < found.size(); ++s) {
    difference += (found[s] - expected[s]) * (found[s] - expected[s]);
    square += expected[s] * expected[s];
  }
  CHECK(difference <= 1e-10 * square);
}

template <class Method>
void check(const Method& method, const Expected& expected) {
  const std::vector<float> delta = make_delta();
  const BaselineCodec<Method> codec(method);
  const CompressedTensor packed = codec.encode(MatrixView<const float>(delta.data(), kRows, kCols));
  CHECK(packed.bytes() == expected.bytes);
  std::vector<float> back(delta.size());
  codec.decode(packed, MatrixView<float>(back.data(), kRows, kCols));
  std::vector<double> of_rows(kRows);
  std::vector<double> of_cols(kCols);
  for (std::size_t i = 0; i < kRows; ++i) {
    for (std::size_t j = 0; j < kCols; ++j) {
      const auto x = static_cast<double>(back[i * kCols + j]);
      of_rows[i] += x * (static_cast<double>(7 * j % 11) - 5);
      of_cols[j] += x * (static_cast<double>(5 * i % 13) - 6);
    }
  }
  check_close(of_rows, expected.of_rows);
  check_close(of_cols, expected.of_cols);
}

}  // namespace

TEST_CASE("golden/baselines: sizes and reconstructions are those of numpy") {
  const auto all = read_expected();
  REQUIRE(all.size() == 8);
  for (const Expected& expected : all) {
    CAPTURE(expected.method);
    CAPTURE(expected.setting);
    std::visit([&](const auto& method) { check(method, expected); }, baseline(expected));
  }
}
