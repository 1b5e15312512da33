// Files that are no safetensors files: what they are, by their first bytes, and what helps.
#pragma once

#include <deltadct/config.hpp>

#include <cstddef>
#include <span>
#include <string_view>

namespace deltadct::inline DELTADCT_ABI::io::detail {

/// First bytes that tell, at most.
inline constexpr std::size_t kTellingBytes = 32;

inline constexpr const char* kConvertPickle =
    "a PyTorch file, which is a pickle: load it in its framework and save it as safetensors, as "
    "transformers' save_pretrained() does";
inline constexpr const char* kConvertGguf =
    "a GGUF file, as llama.cpp reads: give the safetensors model that it was made from";

/// What a file is whose first bytes are these, and what helps; nullptr where they may be those of a
/// safetensors file, or of anything else. A safetensors file never begins so: the '{' of its header
/// is its ninth byte.
inline const char* foreign_format(std::string_view first) noexcept {
  struct Known {
    std::string_view begins;
    const char* what;
  };
  static constexpr Known kKnown[] = {
      {"version https://git-lfs",
       "a Git LFS pointer in place of the file: `git lfs pull` fetches it"},
      {"GGUF", kConvertGguf},
      {std::string_view("PK\x03\x04", 4), kConvertPickle},
      {"\x80\x02", kConvertPickle},
      {"\x80\x03", kConvertPickle},
      {"\x80\x04", kConvertPickle},
      {"\x80\x05", kConvertPickle},
      {"\x89HDF", "an HDF5 file, as Keras writes: save the model as safetensors"},
      {"<!DOCTYPE", "a web page, as failed downloads leave: fetch the file again"},
      {"<!doctype", "a web page, as failed downloads leave: fetch the file again"},
      {"<html", "a web page, as failed downloads leave: fetch the file again"},
  };
  if (first.size() > 8 && first[8] == '{') return nullptr;
  for (const Known& known : kKnown) {
    if (first.starts_with(known.begins)) return known.what;
  }
  return nullptr;
}

inline const char* foreign_format(std::span<const std::byte> first) noexcept {
  return foreign_format(
      std::string_view(reinterpret_cast<const char*>(first.data()), first.size()));
}

}  // namespace deltadct::inline DELTADCT_ABI::io::detail
