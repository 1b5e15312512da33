// Safetensors files that a test writes byte by byte, and how they are refused.
#pragma once

#include "../support/caught.hpp"
#include "../support/files.hpp"

#include <deltadct/io/model.hpp>

#include <string>
#include <string_view>

#include <doctest/doctest.h>

namespace io_test {

using deltadct::DType;
using deltadct::Errc;
using deltadct::Error;
using namespace deltadct::io;
using namespace test;

inline std::string little_endian(std::uint64_t value) {
  std::string text;
  for (int i = 0; i < 8; ++i) text += static_cast<char>(value >> (8 * i) & 0xFF);
  return text;
}

inline std::string container(std::string_view header, std::string_view data = "") {
  return little_endian(header.size()) + std::string(header) + std::string(data);
}

inline std::string stored_text(const Model& model, std::string_view name) {
  TensorBytes bytes;
  model.read(*model.find(name), bytes);
  return text_of(bytes.bytes());
}

inline std::string entry(std::string_view name, std::string_view dtype, std::string_view shape,
                         std::string_view offsets) {
  std::string text = "\"";
  text.append(name).append(R"(":{"dtype":")").append(dtype).append(R"(","shape":[)");
  text.append(shape).append("],\"data_offsets\":[").append(offsets).append("]}");
  return text;
}

inline SafetensorsHeader parse(std::string_view header, std::uint64_t data_bytes,
                               const Limits& limits = {}) {
  return parse_safetensors_header(header, data_bytes, "m.safetensors", {.limits = limits});
}

/// Expects a header to be refused with the name of the file, and of the tensor if one is given.
inline void check_refused(std::string_view header, std::uint64_t data_bytes, Errc code,
                          const std::string& tensor, const Limits& limits = {}) {
  CAPTURE(header);
  const Error error = caught([&] { parse(header, data_bytes, limits); });
  const std::string what = error.what();
  CAPTURE(what);
  CHECK(error.code() == code);
  CHECK(error.where() == (tensor.empty() ? "m.safetensors" : "m.safetensors: " + tensor));
}

inline void check_bad(std::string_view header, std::uint64_t data_bytes,
                      const std::string& tensor) {
  check_refused(header, data_bytes, Errc::bad_container, tensor);
}

/// Expects a file to be refused with both kinds of access, with its path in the message.
inline void check_file_refused(std::string_view bytes, Errc code, const Limits& limits = {}) {
  const Folder folder;
  put_text(folder / "m", bytes);
  for (const Access access : {Access::map, Access::read}) {
    const ReadOptions options{.access = access, .limits = limits};
    const Error error = caught([&] { Model::open(folder / "m", options); });
    const std::string what = error.what();
    CAPTURE(what);
    CHECK(error.code() == code);
    CHECK(error.where().find((folder / "m").string()) == 0);
  }
}

}  // namespace io_test
