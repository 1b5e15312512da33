// Catches the error that a call throws.
#pragma once

#include <deltadct/core/error.hpp>

#include <filesystem>
#include <string>
#include <string_view>

#include <doctest/doctest.h>

namespace test {

/// Runs fn, which must throw a deltadct::Error, and returns the error.
template <class Fn>
deltadct::Error caught(Fn fn) {
  try {
    fn();
  } catch (const deltadct::Error& error) {
    return error;
  }
  FAIL("nothing was thrown");
  return {deltadct::Errc::io_failure, ""};
}

/// Whether the text of an error contains this.
inline bool names(const deltadct::Error& error, std::string_view text) {
  return std::string_view(error.what()).find(text) != std::string_view::npos;
}

/// Expects an error with a path as its place and this text in its detail.
inline void check_names(const deltadct::Error& error, deltadct::Errc code,
                        const std::filesystem::path& path, std::string_view text) {
  CHECK(error.code() == code);
  CHECK(error.where() == path.string());
  CHECK(error.detail().find(text) != std::string::npos);
}

}  // namespace test
