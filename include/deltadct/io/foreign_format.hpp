// Recognises files that are not safetensors files by their first bytes, and says what to do.
#pragma once

#include <deltadct/config.hpp>

#include <cstddef>
#include <span>
#include <string_view>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io { namespace detail {

/// The most first bytes that are needed.
inline constexpr std::size_t kTellingBytes = 32;

inline constexpr const char* kConvertPickle =
    "a PyTorch file, which is a pickle: load it in its framework and save it as safetensors, as "
    "transformers' save_pretrained() does";
inline constexpr const char* kConvertGguf =
    "a GGUF file, as llama.cpp reads: give the safetensors model that it was made from";

/// Says what a file with these first bytes is and what to do about it; nullptr if it may be a
/// safetensors file or something unknown. A safetensors file is never mistaken for another. Its
/// ninth byte is the '{' of its header, or a blank before it. Binary formats are not recognised if
/// that byte is a blank. Texts are: as the length of a header they would exceed every file.
inline const char* foreign_format(std::string_view first) noexcept {
  struct Known {
    std::string_view begins;
    const char* what;
    bool is_binary = false;  ///< may begin like a safetensors file's length
  };
  static constexpr Known kKnown[] = {
      {"version https://git-lfs",
       "a Git LFS pointer in place of the file: `git lfs pull` fetches it"},
      {"GGUF", kConvertGguf},
      {std::string_view("PK\x03\x04", 4), kConvertPickle, true},
      {"\x80\x02", kConvertPickle, true},
      {"\x80\x03", kConvertPickle, true},
      {"\x80\x04", kConvertPickle, true},
      {"\x80\x05", kConvertPickle, true},
      {"\x89HDF", "an HDF5 file, as Keras writes: save the model as safetensors"},
      {"<!DOCTYPE", "a web page, as failed downloads leave: fetch the file again"},
      {"<!doctype", "a web page, as failed downloads leave: fetch the file again"},
      {"<html", "a web page, as failed downloads leave: fetch the file again"},
  };
  const char ninth = first.size() > 8 ? first[8] : '\0';
  if (ninth == '{') return nullptr;
  const bool is_blank = ninth == ' ' || ninth == '\t' || ninth == '\n' || ninth == '\r';
  for (const Known& known : kKnown) {
    if (first.starts_with(known.begins)) return is_blank && known.is_binary ? nullptr : known.what;
  }
  return nullptr;
}

inline const char* foreign_format(std::span<const std::byte> first) noexcept {
  return foreign_format(
      std::string_view(reinterpret_cast<const char*>(first.data()), first.size()));
}

}}}}  // namespace deltadct::inline DELTADCT_ABI::io::detail
