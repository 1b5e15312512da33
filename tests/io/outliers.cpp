// Outliers: which elements they are, the section that holds them, and malformed sections.
#include <deltadct/io/outliers.hpp>

#include "support.hpp"

using namespace io_test;
using deltadct::Outlier;
using deltadct::SerialExecutor;
using io::MatrixStack;

namespace {

/// A base of zeros, and a fine-tune drawn from a normal distribution.
template <class T>
struct Delta {
  Delta(std::size_t row_count, std::size_t col_count, double spread)
      : rows(row_count), cols(col_count), base(rows * cols), tuned(rows * cols) {
    std::mt19937 random(5);
    std::normal_distribution<double> draw(0, spread);
    for (T& x : tuned) x = static_cast<T>(draw(random));
  }

  std::vector<Outlier> find(double rate = 1) const {
    return io::find_outliers(base.data(), tuned.data(), rows, cols, rate, SerialExecutor{});
  }

  std::size_t rows, cols;
  std::vector<T> base, tuned;
};

const MatrixStack kStack{3, 40, 1000};

std::vector<std::vector<Outlier>> some_outliers() {
  return {{{0, 0, 1.5}, {0, 1, -2.25}, {39, 999, 4}}, {}, {{7, 300, 1e-30}, {7, 999, -1e30}}};
}

Errc refused(const Bytes& section, const MatrixStack& stack = kStack, DType dtype = DType::f32) {
  return caught([&] { io::parse_outliers(section, stack, dtype); }).code();
}

/// Expects a sound section to be refused after fn has altered it.
template <class Fn>
void check_refused(Fn fn) {
  Bytes section = io::outlier_section(some_outliers(), kStack, DType::f32);
  fn(section);
  CHECK(refused(section) == Errc::corrupt_data);
}

}  // namespace

TEST_CASE_TEMPLATE("outliers: draws from the normal distribution have none", T, float, double) {
  for (const double spread : {1.0, 1e-4, 1e-30, 1e30}) {
    CHECK(Delta<T>(300, 500, spread).find().empty());
  }
}

TEST_CASE_TEMPLATE("outliers: single elements are found at every scale", T, float, double) {
  for (const double spread : {1.0, 5e-4, 1e-30, 1e25}) {
    Delta<T> delta(256, 512, spread);
    delta.tuned[1000] = static_cast<T>(1000 * spread);
    delta.tuned[100'000] = static_cast<T>(-20 * spread);
    const auto found = delta.find();
    REQUIRE(found.size() == 2);
    CHECK(found[0] == Outlier{1, 488, static_cast<double>(delta.tuned[1000])});
    CHECK(found[1] == Outlier{195, 160, static_cast<double>(delta.tuned[100'000])});
  }
}

TEST_CASE("outliers: doubles beyond the range of their squares") {
  for (const double spread : {1e-300, 1e300}) {
    Delta<double> delta(64, 64, spread);
    CHECK(delta.find().empty());
    delta.tuned[77] = 1e4 * spread;
    CHECK(delta.find().size() == 1);
  }
}

TEST_CASE("outliers: one that hides others is no obstacle") {
  Delta<float> delta(256, 256, 1e-3);
  delta.tuned[5] = 1e6F;
  delta.tuned[6] = 1.0F;  // far below the limit that the first one would set
  CHECK(delta.find().size() == 2);
}

TEST_CASE("outliers: fewer bits a weight make them dearer") {
  Delta<float> delta(512, 512, 1);
  delta.tuned[9] = 12.0F;
  CHECK(delta.find(1).size() == 1);
  CHECK(delta.find(0.1).empty());
}

TEST_CASE("outliers: nothing where nothing or everything changed, or is not finite") {
  Delta<float> delta(16, 16, 0);
  CHECK(delta.find().empty());
  std::ranges::fill(delta.tuned, 0.5F);
  CHECK(delta.find().empty());
  delta.tuned[3] = std::numeric_limits<float>::quiet_NaN();
  CHECK(delta.find().empty());
  delta.tuned[3] = std::numeric_limits<float>::infinity();
  CHECK(delta.find().empty());
  CHECK(Delta<float>(0, 7, 1).find().empty());
}

TEST_CASE("outliers: a section is read back") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    auto outliers = some_outliers();
    if (dtype == DType::f32) {
      for (auto& matrix : outliers) {
        for (Outlier& outlier : matrix) {
          outlier.value = static_cast<double>(static_cast<float>(outlier.value));
        }
      }
    }
    const Bytes section = io::outlier_section(outliers, kStack, dtype);
    CHECK(section.size() % 8 == 0);
    CHECK(io::parse_outliers(section, kStack, dtype) == outliers);
  }
  const std::vector<std::vector<Outlier>> none(3);
  CHECK(io::outlier_section(none, kStack, DType::f32).empty());
}

TEST_CASE("outliers: sections that are none are refused") {
  CHECK(refused({}) == Errc::corrupt_data);
  check_refused([](Bytes& section) { section.resize(section.size() - 8); });
  check_refused([](Bytes& section) { section.resize(section.size() + 8); });
  check_refused([](Bytes& section) { section.resize(section.size() - 1); });
  check_refused([](Bytes& section) { section.back() = std::byte{1}; });
  for (const int count : {0, 4, 6, 255}) {
    check_refused([&](Bytes& section) { section[0] = static_cast<std::byte>(count); });
  }
  check_refused([](Bytes& section) { section[7] = std::byte{255}; });  // 2^63 of them
  // Values that are not finite.
  check_refused(
      [](Bytes& section) { section[11] = std::byte{0x7F}, section[10] = std::byte{0x80}; });
  // A gap that leads out of the tensor, one without an end, one not in its shortest form.
  const std::size_t gaps = 8 + 5 * 4;
  check_refused([&](Bytes& section) { section[gaps] = section[gaps + 1] = std::byte{255}; });
  check_refused(
      [&](Bytes& section) { std::fill(section.begin() + gaps, section.end(), std::byte{255}); });
  check_refused([&](Bytes& section) {
    section[gaps] = std::byte{0x80};
    section[gaps + 1] = std::byte{0};
  });
  // For another stack, and for an empty one.
  const Bytes sound = io::outlier_section(some_outliers(), kStack, DType::f32);
  CHECK(refused(sound, {1, 40, 1000}) == Errc::corrupt_data);
  CHECK(refused(sound, {1, 0, 0}) == Errc::corrupt_data);
  CHECK(refused(sound, kStack, DType::f64) == Errc::corrupt_data);
}
