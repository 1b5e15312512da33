// Every error of the codec, and a check that destinations stay untouched.
#include "support.hpp"

#include <functional>
#include <limits>

using namespace test;

namespace {

using Codec = DeltaCodec<DefaultPolicy<float, 8>>;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <class Fn>
void check_error(Errc code, std::string_view where, Fn fn) {
  CAPTURE(where);
  const Error error = caught(fn);
  CHECK(describe(error.code()) == describe(code));
  CHECK(error.where() == where);
}

CompressedTensor compressed() {
  const Codec codec{RatioAllocator(kWideMix)};
  return codec.encode(random_matrix<float>(35, 60, 1).view());
}

void spoil(Matrix<float>& matrix, std::size_t i, std::size_t j, float value) {
  matrix.view()(i, j) = value;
}

// fn(destination) must throw and leave the destination alone.
template <class Fn>
void check_untouched(std::size_t rows, std::size_t cols, Fn fn) {
  auto out = random_matrix<float>(rows, cols, 9);
  const auto before = values_of(out);
  CHECK_THROWS_AS(fn(out.view()), Error);
  CHECK(values_of(out) == before);
  CHECK(out.margins_untouched());
}

}  // namespace

TEST_CASE("errors: encode names the first element of the first patch that is not finite") {
  const Codec codec;
  for (const float bad : {kNan, -kNan, kInfinity, -kInfinity}) {
    auto tuned = random_matrix<float>(35, 60, 1);
    auto base = random_matrix<float>(35, 60, 2);
    spoil(tuned, 34, 59, bad);
    check_error(Errc::non_finite, "element (34, 59)", [&] { codec.encode(tuned.view()); });
    check_error(Errc::non_finite, "element (34, 59)",
                [&] { codec.encode(base.view(), tuned.view()); });
    check_error(Errc::non_finite, "element (34, 59)",
                [&] { codec.encode(tuned.view(), base.view()); });
    spoil(tuned, 9, 3, bad);
    spoil(tuned, 8, 13, bad);  // an earlier row, a later patch
    check_error(Errc::non_finite, "element (9, 3)",
                [&] { codec.encode(base.view(), tuned.view()); });
    spoil(tuned, 9, 1, bad);
    check_error(Errc::non_finite, "element (9, 1)", [&] { codec.encode(tuned.view()); });
    check_error(Errc::non_finite, "element (1, 9)",
                [&] { codec.encode(tuned.view().transposed()); });
  }
}

TEST_CASE("errors: a difference that overflows is not finite either") {
  const Codec codec;
  auto base = random_matrix<float>(16, 16, 1);
  auto tuned = random_matrix<float>(16, 16, 2);
  spoil(base, 3, 12, -3e38F);
  spoil(tuned, 3, 12, 3e38F);
  check_error(Errc::non_finite, "element (3, 12)",
              [&] { codec.encode(base.view(), tuned.view()); });
}

TEST_CASE("errors: coefficients beyond the bounds' range are refused, with the patch") {
  const Codec codec{RatioAllocator{{4, 1.0}}};
  auto delta = random_matrix<float>(24, 24, 1);
  for (std::size_t s = 0; s < 64; ++s) spoil(delta, 8 + s / 8, 16 + s % 8, 3e38F);
  check_error(Errc::out_of_range, "patch at element (8, 16)", [&] { codec.encode(delta.view()); });
}

TEST_CASE("errors: coefficients that overflow into NaN are refused, not lost") {
  const Codec codec{RatioAllocator{{4, 1.0}}};
  auto delta = random_matrix<float>(16, 16, 1);
  for (std::size_t s = 0; s < 64; ++s) spoil(delta, s / 8, s % 8, s < 32 ? 3e38F : -3e38F);
  check_error(Errc::out_of_range, "patch at element (0, 0)", [&] { codec.encode(delta.view()); });
}

TEST_CASE("errors: a scale that decoders cannot multiply by is refused") {
  CompressedTensor tensor = compressed();
  tensor.header.scale = 1e300;
  auto out = random_matrix<float>(tensor.header.rows, tensor.header.cols, 2);
  check_error(Errc::corrupt_data, "scale", [&] { Codec{}.decode(tensor, out.view()); });
}

TEST_CASE("errors: encode leaves its output untouched on a value that is not finite") {
  const Codec codec;
  CompressedTensor out = compressed();
  const auto codes = out.codes;
  const auto bounds = out.bounds;
  auto delta = random_matrix<float>(16, 16, 1);
  spoil(delta, 0, 0, kNan);
  std::vector<std::byte> workspace(codec.encode_workspace_bytes(16, 16));
  CHECK_THROWS_AS(codec.encode_into(out, workspace, delta.view()), Error);
  CHECK(out.header.rows == 35);
  CHECK(out.codes == codes);
  CHECK(out.bounds == bounds);
}

TEST_CASE("errors: encode refuses shapes, views and workspaces that do not do") {
  const Codec codec;
  float x[64] = {};
  const MatrixView<float> good(x, 8, 8);
  check_error(Errc::shape_mismatch, "tuned",
              [&] { codec.encode(good, MatrixView<float>(x, 8, 7)); });
  check_error(Errc::shape_mismatch, "tuned",
              [&] { codec.encode(good, MatrixView<float>(x, 7, 8)); });
  check_error(Errc::bad_view, "base",
              [&] { codec.encode(MatrixView<float>(nullptr, 8, 8), good); });
  check_error(Errc::bad_view, "tuned",
              [&] { codec.encode(good, MatrixView<float>(nullptr, 8, 8)); });
  check_error(Errc::bad_view, "delta", [&] { codec.encode(MatrixView<float>(x, 8, 8, 0)); });
  check_error(Errc::bad_view, "delta", [&] { codec.encode(MatrixView<float>(x, 8, 8, -8)); });
  check_error(Errc::bad_view, "delta", [&] { codec.encode(MatrixView<float>(x, 8, 8, 8, 0)); });
  CompressedTensor out;
  std::vector<std::byte> small(codec.encode_workspace_bytes(8, 8) / 2);
  check_error(Errc::too_large, "workspace", [&] { codec.encode_into(out, small, good); });
}

TEST_CASE("errors: a matrix with more patches than places can name is refused") {
  const Codec codec;
  float x = 0;
  const MatrixView<float> vast(&x, std::size_t{1} << 34, std::size_t{1} << 34, 1, 1);
  check_error(Errc::too_large, "matrix", [&] { codec.encode(vast); });
  check_error(Errc::too_large, "matrix",
              [&] { codec.encode_workspace_bytes(std::size_t{1} << 34, std::size_t{1} << 34); });
  check_error(Errc::too_large, "matrix",
              [&] { codec.encode_workspace_bytes(std::size_t{1} << 40, 1); });
}

TEST_CASE("errors: a size that would wrap is refused, by every function that tells sizes") {
  const std::pair<std::size_t, std::size_t> vast[] = {{SIZE_MAX, SIZE_MAX},
                                                      {std::size_t{1} << 34, std::size_t{1} << 34},
                                                      {std::size_t{1} << 32, 8 << 20},
                                                      {SIZE_MAX, 1},
                                                      {1, SIZE_MAX - 6}};
  for (const auto& vast_shape : vast) {
    const std::size_t rows = vast_shape.first;
    const std::size_t cols = vast_shape.second;
    CAPTURE(rows);
    CAPTURE(cols);
    const auto refuse = [&](auto size) {
      check_error(Errc::too_large, "matrix", [&] { size(rows, cols); });
    };
    refuse([](auto... shape) { Codec{}.max_compressed_bytes(shape...); });
    refuse([](auto... shape) { Codec{}.encode_workspace_bytes(shape...); });
    refuse([](auto... shape) {
      DeltaCodec<DefaultPolicy<double, 4>>{}.max_compressed_bytes(shape...);
    });
    refuse([](std::size_t r, std::size_t c) { count_patches(r, c, 8); });
    refuse([](std::size_t r, std::size_t c) {
      TensorHeader header;
      header.rows = r;
      header.cols = c;
      header.patch = 8;
      header.patches();
    });
  }
  CHECK(Codec{}.max_compressed_bytes(SIZE_MAX, 0) == 0);
  CHECK(Codec{}.max_compressed_bytes(0, SIZE_MAX) == 0);
  CHECK_NOTHROW(Codec{}.encode(MatrixView<const float>(nullptr, SIZE_MAX, 0)));

  TensorHeader header = compressed().header;
  header.classes[0].patches = SIZE_MAX / 64;
  check_error(Errc::too_large, "matrix", [&] { header.lay_out(); });
}

TEST_CASE("errors: a factor that is not finite is refused before anything is written") {
  const Codec codec;
  const CompressedTensor c = compressed();
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double alpha : {std::nan(""), -std::nan(""), infinity, -infinity, 1e300, -1e300}) {
    CAPTURE(alpha);
    check_untouched(35, 60, [&](auto out) { codec.decode_add(c, out, alpha); });
    check_untouched(
        35, 60, [&](auto out) { codec.decode_add(c, MatrixView<const float>(out), out, alpha); });
    check_untouched(9, 60, [&](auto out) { codec.decode_add_block(c, 3, 0, out, alpha); });
    auto out = random_matrix<float>(35, 60, 9);
    check_error(Errc::non_finite, "alpha", [&] { codec.decode_add(c, out.view(), alpha); });
  }
}

TEST_CASE("errors: decode refuses shapes and views that do not do") {
  const Codec codec;
  const CompressedTensor c = compressed();
  std::vector<float> x(4000);
  check_error(Errc::shape_mismatch, "out",
              [&] { codec.decode(c, MatrixView<float>(x.data(), 60, 35)); });
  check_error(Errc::shape_mismatch, "out",
              [&] { codec.decode_add(c, MatrixView<float>(x.data(), 35, 59)); });
  check_error(Errc::shape_mismatch, "base", [&] {
    codec.decode_add(c, MatrixView<const float>(x.data(), 34, 60),
                     MatrixView<float>(x.data(), 35, 60));
  });
  check_error(Errc::bad_view, "out", [&] { codec.decode(c, MatrixView<float>(nullptr, 35, 60)); });
  check_error(Errc::bad_view, "out",
              [&] { codec.decode(c, MatrixView<float>(x.data(), 35, 60, 59)); });
  check_error(Errc::bad_view, "out",
              [&] { codec.decode(c, MatrixView<float>(x.data(), 35, 60, 1, 1)); });
  check_error(Errc::bad_view, "out",
              [&] { codec.decode_add(c, MatrixView<float>(x.data(), 35, 60, 0)); });
  check_error(Errc::bad_view, "base", [&] {
    codec.decode_add(c, MatrixView<const float>(nullptr, 35, 60),
                     MatrixView<float>(x.data(), 35, 60));
  });
  check_error(Errc::bad_view, "out", [&] {
    codec.decode_add(c, MatrixView<const float>(x.data(), 35, 60),
                     MatrixView<float>(x.data() + 60, 35, 60));
  });
  std::vector<float> halves(35 * 120);
  CHECK_NOTHROW(codec.decode_add(c, MatrixView<const float>(halves.data(), 35, 60, 120),
                                 MatrixView<float>(halves.data() + 60, 35, 60, 120)));
}

TEST_CASE("errors: a block that leaves the tensor is refused, overflow or not") {
  const Codec codec;
  const CompressedTensor c = compressed();
  std::vector<float> x(4000);
  const auto refuse = [&](std::size_t row, std::size_t col, std::size_t rows, std::size_t cols) {
    check_error(Errc::bad_range, "block", [&] {
      codec.decode_add_block(c, row, col, MatrixView<float>(x.data(), rows, cols));
    });
  };
  refuse(0, 0, 36, 60);
  refuse(0, 0, 35, 61);
  refuse(1, 0, 35, 60);
  refuse(0, 1, 35, 60);
  refuse(36, 0, 0, 60);
  refuse(0, 61, 35, 0);
  refuse(SIZE_MAX, 0, 2, 1);
  refuse(0, SIZE_MAX, 1, 2);
  CHECK_NOTHROW(codec.decode_add_block(c, 35, 60, MatrixView<float>(nullptr, 0, 0)));
  CHECK(std::ranges::all_of(x, [](float value) { return value == 0; }));
}

TEST_CASE("errors: a tensor that another codec made is refused by what differs") {
  const Codec codec;
  const CompressedTensor good = compressed();
  std::vector<float> x(35 * 60);
  const auto refuse = [&](std::string_view what, const std::function<void(TensorHeader&)>& alter) {
    CompressedTensor c = good;
    alter(c.header);
    check_error(Errc::codec_mismatch, what,
                [&] { codec.decode(c, MatrixView<float>(x.data(), 35, 60)); });
    check_error(Errc::codec_mismatch, what,
                [&] { codec.decode_add(c, MatrixView<float>(x.data(), 35, 60)); });
    check_error(Errc::codec_mismatch, what,
                [&] { codec.decode_add_block(c, 0, 0, MatrixView<float>(x.data(), 1, 1)); });
  };
  refuse("patch size", [](TensorHeader& h) { h.patch = 16; });
  refuse("transform", [](TensorHeader& h) { h.transform = "identity"; });
  refuse("quantizer", [](TensorHeader& h) { h.quantizer = "sign"; });
  refuse("bounds of a patch", [](TensorHeader& h) { h.classes[0].bound_count = 1; });
  CompressedTensor c = good;
  c.header.patch = 16;
  const Error error = caught([&] { codec.decode(c, MatrixView<float>(x.data(), 35, 60)); });
  CHECK(error.detail() == "16 where this codec has 8");
}

TEST_CASE("errors: a destination is untouched by a call that throws") {
  const Codec codec;
  const CompressedTensor c = compressed();
  check_untouched(35, 59, [&](auto out) { codec.decode(c, out); });
  check_untouched(35, 59, [&](auto out) { codec.decode_add(c, out); });
  check_untouched(35, 60, [&](auto out) { codec.decode_add_block(c, 1, 0, out); });
  check_untouched(35, 60, [&](auto out) {
    codec.decode_add(c, MatrixView<const float>(out.data, 60, 35), out);
  });
  CompressedTensor other = c;
  other.header.transform = "identity";
  check_untouched(35, 60, [&](auto out) { codec.decode(other, out); });
}

TEST_CASE("errors: a view of nothing, or of half a tensor, is refused by whatever is given it") {
  const CompressedTensor good = compressed();
  const auto refuse = [&](const CompressedView& view, std::string_view what) {
    check_error(Errc::corrupt_data, what, [&] { validate(view); });
    check_error(Errc::corrupt_data, what, [&] { Codec::check(view); });
    check_error(Errc::corrupt_data, what, [&] { Codec::validate(view); });
    check_untouched(35, 60, [&](auto out) { Codec{}.decode(view, out); });
    check_untouched(35, 60, [&](auto out) { Codec{}.decode_add(view, out); });
    check_untouched(35, 60,
                    [&](auto out) { Codec{}.decode_add(view, MatrixView<const float>(out), out); });
    check_untouched(35, 60, [&](auto out) { Codec{}.decode_add_block(view, 0, 0, out); });
  };
  refuse({}, "header, which is missing");
  refuse({nullptr, good.places, good.bounds, good.codes}, "header, which is missing");
  refuse({&good.header, good.places, {}, good.codes}, "size of the bounds");
  refuse({&good.header, good.places, good.bounds, {}}, "size of the codes");
  refuse({&good.header, {}, good.bounds, good.codes}, "number of places");
}

TEST_CASE("errors: bounds of what is no floating dtype, or no dtype, are refused") {
  CompressedTensor c = compressed();
  for (const DType bound : {DType::i32, DType::u8, DType::boolean, DType::f8_e4m3,
                            static_cast<DType>(100), static_cast<DType>(255)}) {
    c.header.bound = bound;
    check_error(Errc::corrupt_data, "dtype of the bounds", [&] { validate(c); });
    check_error(Errc::corrupt_data, "dtype of the bounds", [&] { Codec::validate(c); });
    check_untouched(35, 60, [&](auto out) { Codec{}.decode(c, out); });
    check_untouched(35, 60, [&](auto out) { Codec{}.decode_add(c, out); });
    check_untouched(35, 60, [&](auto out) { Codec{}.decode_add_block(c, 0, 0, out); });
  }
  CHECK(caught([&] { validate(c); }).detail() == "255");
  CHECK(dtype_text(DType::bf16) == "BF16");
}

TEST_CASE("errors: validate accepts what encode made") {
  const CompressedTensor made = compressed();
  CHECK_NOTHROW(validate(made));
  const Codec codec;
  const CompressedTensor empty = codec.encode(MatrixView<const float>(nullptr, 0, 7));
  CHECK_NOTHROW(validate(empty));
}

TEST_CASE("errors: validate refuses every field that was altered") {
  const CompressedTensor good = compressed();
  REQUIRE(good.header.classes.size() == 4);
  const auto refuse = [&](std::string_view what,
                          const std::function<void(CompressedTensor&)>& alter) {
    CompressedTensor c = good;
    alter(c);
    check_error(Errc::corrupt_data, what, [&] { validate(c); });
  };
  using C = CompressedTensor;
  const auto set_bound = [](C& c, float value) { std::memcpy(c.bounds.data() + 8, &value, 4); };
  refuse("width classes", [](C& c) { c.header.patch = 0; });  // those of a method without patches
  refuse("patch size", [](C& c) { c.header.patch = -8; });
  refuse("patch size", [](C& c) { c.header.patch = 65; });
  refuse("scale", [](C& c) { c.header.scale = std::nan(""); });
  refuse("scale", [](C& c) { c.header.scale = -HUGE_VAL; });
  refuse("dtype of the bounds", [](C& c) { c.header.bound = DType::i32; });
  refuse("number of patches", [](C& c) { c.header.rows = SIZE_MAX; });
  refuse("number of patches", [](C& c) { c.header.cols = SIZE_MAX; });
  refuse("patches of the width classes", [](C& c) { c.header.rows += 8; });
  refuse("patches of a width class", [](C& c) { c.header.cols = 0; });
  refuse("bit width", [](C& c) { c.header.classes[1].bits = 5; });
  refuse("bit width", [](C& c) { c.header.classes[0].bits = 16; });
  refuse("bit width", [](C& c) { c.header.classes[3].bits = -1; });
  refuse("bit width", [](C& c) { c.header.classes[3].bits = -7; });  // for 64 coefficients
  refuse("order of the width classes",
         [](C& c) { std::swap(c.header.classes[0].bits, c.header.classes[1].bits); });
  refuse("order of the width classes", [](C& c) { c.header.classes[1].bits = 8; });
  refuse("bounds of a patch", [](C& c) { c.header.classes[0].bound_count = 0; });
  refuse("bounds of a patch", [](C& c) { c.header.classes[0].bound_count = 9; });
  refuse("patches of a width class", [](C& c) { c.header.classes[0].patches = SIZE_MAX; });
  refuse("patches of the width classes", [](C& c) { --c.header.classes[0].patches; });
  refuse("patches of the width classes", [](C& c) { c.header.classes.pop_back(); });
  refuse("width classes", [](C& c) { c.header.classes.resize(9, c.header.classes[0]); });
  refuse("size of the bounds", [](C& c) { c.bounds.pop_back(); });
  refuse("size of the bounds", [](C& c) { c.header.bound = DType::f64; });
  refuse("size of the codes", [](C& c) { c.codes.push_back({}); });
  refuse("number of places", [](C& c) { c.places.pop_back(); });
  refuse("place of a patch", [](C& c) { std::swap(c.places.front(), c.places.back()); });
  refuse("place of a patch", [](C& c) { c.places[3] = PatchPlace::make(7, 0); });
  refuse("place of a patch", [](C& c) { c.places[3].packed += 1; });
  refuse("offset of a width class", [](C& c) { c.header.classes[1].bounds_at += 4; });
  refuse("offset of a width class", [](C& c) { c.header.classes[1].codes_at -= 1; });
  refuse("bounds", [&](C& c) { set_bound(c, kNan); });
  refuse("bounds", [&](C& c) { set_bound(c, kInfinity); });
}

TEST_CASE("errors: validate counts the places of every class") {
  CompressedTensor c = compressed();
  // Move one patch from the first class to the last, and adjust the sizes to fit.
  auto& classes = c.header.classes;
  classes[0].patches -= 1;
  classes[3].patches += 1;
  const auto [bounds, codes] = c.header.lay_out();
  c.bounds.resize(bounds);
  c.codes.resize(codes);
  check_error(Errc::corrupt_data, "patches of a width class", [&] { validate(c); });
}

TEST_CASE("errors: assign_slots refuses classes that are not there") {
  std::vector<WidthClass> classes(2);
  std::vector<PatchPlace> places{{0}, {1}, {0}, {1}, {1}};
  assign_slots(places, classes);
  CHECK(classes[0].patches == 2);
  CHECK(classes[1].patches == 3);
  CHECK(places[4].width_class() == 1);
  CHECK(places[4].slot() == 2);
  std::vector<PatchPlace> bad{{0}, {2}};
  check_error(Errc::corrupt_data, "width class of a patch", [&] { assign_slots(bad, classes); });
}
