// Dtypes of files: known ones, and others by name and size.
#include "../support/caught.hpp"

#include <deltadct/core/stored_dtype.hpp>

#include <string>

#include <doctest/doctest.h>

using namespace deltadct;

TEST_CASE("stored dtype: every known one is what it is alone") {
  for (const auto& row : detail::kDTypes) {
    const StoredDType dtype = row.dtype;
    CHECK(dtype.is_known());
    CHECK(dtype == row.dtype);
    CHECK(row.dtype == dtype);
    CHECK(static_cast<DType>(dtype) == row.dtype);
    CHECK(dtype_name(dtype) == row.name);
    CHECK(dtype_bits(dtype) == row.bits);
    CHECK(dtype_bytes(dtype) == dtype_bytes(row.dtype));
    CHECK(is_element(dtype) == is_element(row.dtype));
    // A known dtype has its own size, whatever is given.
    CHECK(StoredDType::named(row.name, 3) == dtype);
  }
  CHECK(StoredDType(DType::f32) != DType::f16);
}

TEST_CASE("stored dtype: another one has a name and a size, and no elements to compute with") {
  const StoredDType dtype = StoredDType::named("U4", 4).value();
  CHECK(!dtype.is_known());
  CHECK(dtype_name(dtype) == "U4");
  CHECK(dtype_bits(dtype) == 4);
  CHECK(dtype_bytes(dtype) == 1);
  CHECK(dtype_bytes(StoredDType::named("C128", 128).value()) == 16);
  CHECK(dtype_bytes(StoredDType::named("X12", 12).value()) == 2);
  CHECK(!is_element(dtype));
  CHECK(dtype == StoredDType::named("U4", 4));
  CHECK(dtype != StoredDType::named("U4", 8));
  CHECK(dtype != StoredDType::named("I4", 4));
  for (const auto& row : detail::kDTypes) CHECK(dtype != row.dtype);
  const Error error = test::caught([&] { static_cast<void>(static_cast<DType>(dtype)); });
  CHECK(error.code() == Errc::unsupported_dtype);
  CHECK(error.where() == "U4");
}

TEST_CASE("stored dtype: sizes and names that are none of a dtype") {
  CHECK(StoredDType::named("X", 1).has_value());
  CHECK(StoredDType::named("X", kMaxUnknownBits).has_value());
  CHECK(!StoredDType::named("X", 0).has_value());
  CHECK(!StoredDType::named("X", kMaxUnknownBits + 1).has_value());
  CHECK(StoredDType::named(std::string(32, 'x'), 8).has_value());
  for (const std::string& name :
       {std::string(), std::string(33, 'x'), std::string("a b"), std::string("\"x"),
        std::string("x\n"), std::string("F32 "), std::string("\x1b[0m"), std::string("\xC3\xA4")}) {
    CAPTURE(name);
    CHECK(!StoredDType::named(name, 8).has_value());
  }
}
