// The codec, compared with vectors that another implementation computed (make_vectors.py writes
// them).
#include "../codec/support.hpp"

#include <fstream>
#include <sstream>
#include <string>

using namespace test;

namespace {

struct Golden {
  Mix mix;
  Content content;
  std::vector<double> back;
};

struct Case {
  int p = 0;
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::vector<double> delta;
  std::vector<Golden> golden;
};

std::vector<double> numbers(std::istream& line, double unit) {
  std::vector<double> values;
  for (double value = 0; line >> value;) values.push_back(value * unit);
  return values;
}

Mix parse_mix(std::istream& line) {
  Mix mix;
  char colon = 0;
  for (BitShare share{}; line >> share.bits >> colon >> share.ratio;) mix.push_back(share);
  return mix;
}

Content::Patch parse_patch(std::istream& line) {
  Content::Patch patch;
  std::string digits;
  line >> patch.bits >> patch.lo >> patch.hi >> digits;
  if (patch.bits == 0) patch.hi = 0;
  const std::size_t width = patch.bits > 4 ? 2 : 1;
  for (std::size_t at = 0; at < digits.size(); at += width) {
    patch.codes.push_back(std::stoi(digits.substr(at, width), nullptr, 16));
  }
  return patch;
}

std::vector<Case> parse(const std::string& path) {
  std::ifstream file(path);
  REQUIRE(file.is_open());
  std::vector<Case> cases;
  for (std::string text; std::getline(file, text);) {
    std::istringstream line(text);
    std::string word;
    line >> word;
    if (word == "case") {
      Case& c = cases.emplace_back();
      line >> c.p >> c.rows >> c.cols;
      continue;
    }
    Case& c = cases.back();
    if (word == "delta") c.delta = numbers(line, 1.0 / 4096);
    if (word == "mix") {
      c.golden.push_back({parse_mix(line), {c.rows, c.cols, c.p, true, 1, {}}, {}});
    }
    if (word == "scale") line >> c.golden.back().content.scale;
    if (word == "patch") c.golden.back().content.patches.push_back(parse_patch(line));
    if (word == "back") c.golden.back().back = numbers(line, 1);
  }
  return cases;
}

const Case& case_of(int p) {
  static const std::vector<Case> cases = parse(DELTADCT_GOLDEN_VECTORS);
  const auto found = std::ranges::find(cases, p, &Case::p);
  REQUIRE(found != cases.end());
  return *found;
}

// Writes the compressed form of the vectors.
void put_patch(const Content::Patch& patch, int p, PatchPlace place, CompressedTensor& out) {
  const CompressedView view = out;
  const auto lo = static_cast<float>(patch.lo);
  const auto hi = static_cast<float>(patch.hi);
  std::byte* bounds = out.bounds.data() + (view.bounds_of(place) - view.bounds.data());
  std::memcpy(bounds, &lo, 4);
  if (patch.bits == 0) return;
  std::memcpy(bounds + 4, &hi, 4);
  std::byte* codes = out.codes.data() + (view.codes_of(place) - view.codes.data());
  for (int s = 0; s < p * p; ++s) {
    const int turned = s % p * p + s / p;
    write_code(codes, patch.bits, p * p, turned, patch.codes[static_cast<std::size_t>(s)]);
  }
}

CompressedTensor pack(const Golden& golden) {
  CompressedTensor out;
  const Content& content = golden.content;
  const int p = content.p;
  out.header = {content.rows, content.cols, p, "dct", "min_max", DType::f32, content.scale, {}};
  for (const BitShare& share : golden.mix) {
    out.header.classes.push_back({.bits = share.bits, .bound_count = share.bits == 0 ? 1 : 2});
  }
  for (const auto& patch : content.patches) {
    const auto k = std::ranges::find(golden.mix, patch.bits, &BitShare::bits) - golden.mix.begin();
    out.places.push_back({static_cast<std::uint32_t>(k)});
  }
  assign_slots(out.places, out.header.classes);
  const auto [bounds, codes] = out.header.lay_out();
  out.bounds.resize(bounds);
  out.codes.resize(codes);
  for (std::size_t k = 0; k < content.patches.size(); ++k) {
    put_patch(content.patches[k], p, out.places[k], out);
  }
  validate(out);
  return out;
}

Matrix<float> matrix_of(const Case& c) {
  Matrix<float> delta(c.rows, c.cols);
  for (std::size_t s = 0; s < c.delta.size(); ++s) {
    delta.view()(s / c.cols, s % c.cols) = static_cast<float>(c.delta[s]);
  }
  return delta;
}

template <int P_>
struct Size {
  static constexpr int P = P_;
};

}  // namespace

TEST_CASE_TEMPLATE("golden: vectors are encoded and decoded as before", S, Size<4>, Size<8>,
                   Size<12>, Size<16>, Size<32>, Size<64>) {
  const Case& c = case_of(S::P);
  const auto delta = matrix_of(c);
  REQUIRE(c.delta.size() == c.rows * c.cols);
  REQUIRE(c.golden.size() == 2);
  Tally tally;
  for (const Golden& golden : c.golden) {
    const DeltaCodec<DefaultPolicy<float, S::P>> codec{RatioAllocator(golden.mix)};
    const CompressedTensor encoded = codec.encode(delta.view());
    const Content found = read(encoded);
    const std::size_t before = tally.different;
    tally.compare(found, golden.content);
    CHECK(bounds_error(found, golden.content) < 2e-6);
    CHECK(nmse(decoded(codec, pack(golden)), golden.back) < 1e-10);
    // A tie moves a code by one level, so that the reconstruction is close, but not as close.
    CHECK(found.scale == doctest::Approx(golden.content.scale).epsilon(1e-3));
    if (tally.different == before) {
      CHECK(found.scale == doctest::Approx(golden.content.scale).epsilon(1e-5));
      CHECK(nmse(decoded(codec, encoded), golden.back) < 1e-10);
    }
  }
  tally.check();
}
