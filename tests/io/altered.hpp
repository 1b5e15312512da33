// What is left of a sound archive after a test has altered it: how it is refused, and how far
// reading gets.
#pragma once

#include "builder.hpp"
#include "draft.hpp"

#include <deltadct/io/apply.hpp>

#include <map>

namespace io_test {

using nlohmann::json;

// Where the parts of the section of "w" in a small archive begin and end.
inline constexpr std::size_t kBoundsEnd = 36;
inline constexpr std::size_t kWidths = 40;
inline constexpr std::size_t kCodes = 48;
inline constexpr std::size_t kCodesEnd = 60;

/// Overwrites one byte of a file, in place.
inline void put_byte(const fs::path& path, std::size_t at, std::byte value) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(static_cast<std::streamoff>(at));
  file.put(static_cast<char>(value));
}

struct Refusal {
  Error error;
  Step step;
};

/// The error of open() followed by reading everything, the same for both kinds of access, and how
/// far reading got.
inline Refusal refusal(const fs::path& path) {
  Step step{};
  const Error read = caught([&] { read_all(path, {.access = Access::read}, step); });
  const Error error = caught([&] { read_all(path, {}, step); });
  CHECK(read.code() == error.code());
  CHECK(std::string(read.what()) == error.what());
  CHECK(names(error, path.string()));
  if (step == Step::validate) {
    const auto archive = DeltaArchive::open(path);
    const Error verified = caught([&] { io::verify_archive(archive, nullptr, serial_codec); });
    CHECK(std::string(verified.what()) == error.what());
  }
  return {error, step};
}

/// The refusal of a small archive altered by fn.
template <class Fn>
Refusal altered(Fn fn, const RatioAllocator& mix = kPaper) {
  static std::map<const RatioAllocator*, Draft> sound;
  const Folder folder;
  if (!sound.contains(&mix)) {
    write_small(folder / "a", mix);
    sound.emplace(&mix, folder / "a");
  }
  Draft draft = sound.at(&mix);
  fn(draft);
  draft.write(folder / "b");
  return refusal(folder / "b");
}

/// The same with an entry altered.
template <class Fn>
Refusal altered_entry(Fn fn, const std::string& name = "w", const RatioAllocator& mix = kPaper) {
  return altered([&](Draft& draft) { fn(draft.entry(name)); }, mix);
}

/// The same with the bytes of a section altered, under a matching checksum.
template <class Fn>
Refusal altered_section(const std::string& name, Fn fn, const RatioAllocator& mix = kPaper) {
  return altered(
      [&](Draft& draft) {
        fn(draft.section(name).bytes);
        draft.seal(name.substr(name.find(':') + 1));
      },
      mix);
}

/// Expects an error with this code that names the tensor and comes as early as possible.
inline void check_refused(const Refusal& refusal, Errc code, Step step,
                          const char* tensor = ": w") {
  INFO(std::string(refusal.error.what()));
  CHECK(refusal.error.code() == code);
  CHECK(refusal.step == step);
  CHECK(names(refusal.error, tensor));
}

inline void set_float(Bytes& bytes, std::size_t index, float value) {
  std::memcpy(bytes.data() + 4 * index, &value, 4);
}

inline json& scale(json& entry) {
  return entry["matrices"][0][0];
}

inline json& classes(json& entry) {
  return entry["matrices"][0][1];
}

/// The refusal of "n", an added tensor of 3 bytes, with this section.
inline Refusal altered_chunks(const Bytes& section) {
  return altered([&](Draft& draft) {
    draft.replace("lossless:n", section);
    draft.seal("n");
  });
}

}  // namespace io_test
