// Bytes of a tensor, mapped or read.
#pragma once

#include <deltadct/io/input_file.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// Bytes of a tensor, which keep their shard open. An object that is reused from tensor to tensor
/// allocates only as tensors grow.
class TensorBytes {
 public:
  TensorBytes() = default;
  TensorBytes(TensorBytes&&) = default;
  TensorBytes& operator=(TensorBytes&&) = default;

  std::span<const std::byte> bytes() const noexcept { return bytes_; }
  std::size_t size() const noexcept { return bytes_.size(); }

  /// Moves the bytes to an address that is a multiple of `alignment`, copying them if necessary.
  void align(std::size_t alignment) {
    if (reinterpret_cast<std::uintptr_t>(bytes_.data()) % alignment == 0) return;
    storage_.assign(bytes_.begin(), bytes_.end());
    bytes_ = storage_;
  }

  /// Marks the bytes as no longer needed by a forward pass; they stay readable. See
  /// InputFile::release().
  void release() const noexcept {
    if (file_) file_->release(offset_, bytes_.size());
  }

 private:
  friend class Model;

  std::shared_ptr<const InputFile> file_;
  std::uint64_t offset_ = 0;
  std::vector<std::byte> storage_;
  std::span<const std::byte> bytes_;
};

}}}  // namespace deltadct::inline DELTADCT_ABI::io
