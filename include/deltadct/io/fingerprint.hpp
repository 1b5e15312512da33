// XXH3-64 of a tensor's bytes. It distinguishes one base from another and detects accidental
// changes. It does not protect against forgery.
#pragma once

#include <deltadct/config.hpp>

#ifndef XXH_INLINE_ALL
  #define XXH_INLINE_ALL  // header-only, so there is nothing to link
#endif
#if defined(__GNUC__) && !defined(__clang__)
  // g++ 12 warns about its own AVX-512 intrinsics wherever they are inlined.
  #pragma GCC diagnostic push
  #pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <xxhash.h>
#if defined(__GNUC__) && !defined(__clang__)
  #pragma GCC diagnostic pop
#endif

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// Hashes bytes that arrive in pieces.
class Fingerprint {
 public:
  Fingerprint() { XXH3_64bits_reset(&state_); }

  Fingerprint& add(std::span<const std::byte> bytes) {
    XXH3_64bits_update(&state_, bytes.data(), bytes.size());
    return *this;
  }

  /// 16 lower-case hexadecimal digits, most significant first.
  std::string hex() const {
    std::string text(16, '0');
    std::uint64_t value = XXH3_64bits_digest(&state_);
    for (std::size_t i = text.size(); i-- > 0; value >>= 4)
      text[i] = "0123456789abcdef"[value & 15];
    return text;
  }

 private:
  XXH3_state_t state_;
};

/// The hash of bytes in memory.
inline std::string fingerprint(std::span<const std::byte> bytes) {
  return Fingerprint().add(bytes).hex();
}

/// Whether a text could be a hash: 16 lower-case hexadecimal digits.
inline bool is_fingerprint(std::string_view text) noexcept {
  return text.size() == 16 && text.find_first_not_of("0123456789abcdef") == text.npos;
}

}}}  // namespace deltadct::inline DELTADCT_ABI::io
