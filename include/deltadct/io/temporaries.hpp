// The temporary files of this process, so that a signal handler can remove them.
#pragma once

#include <deltadct/config.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include <unistd.h>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// The path of a temporary file, from before the file exists until it has another name or is
/// removed. Several threads may have such objects. The 65th at a time is not noted.
class TemporaryPath {
 public:
  TemporaryPath() = default;
  explicit TemporaryPath(const std::string& path) : path_(new char[path.size() + 1]) {
    std::memcpy(path_.get(), path.c_str(), path.size() + 1);
    for (Slot& slot : slots) {
      const char* free = nullptr;
      if (!slot.compare_exchange_strong(free, path_.get())) continue;
      slot_ = &slot;
      return;
    }
  }
  TemporaryPath(TemporaryPath&& other) noexcept { swap(other); }
  TemporaryPath& operator=(TemporaryPath&& other) noexcept {
    swap(other);
    return *this;
  }
  ~TemporaryPath() {
    if (slot_ != nullptr) slot_->store(nullptr);
  }

  /// Removes the files of all such objects. It makes only calls that are safe in a signal handler
  /// after which no destructor runs.
  static void remove_all() noexcept {
    for (const Slot& slot : slots) {
      if (const char* path = slot.load()) ::unlink(path);
    }
  }

 private:
  using Slot = std::atomic<const char*>;
  static_assert(Slot::is_always_lock_free);

  void swap(TemporaryPath& other) noexcept {
    path_.swap(other.path_);
    std::swap(slot_, other.slot_);
  }

  static inline std::array<Slot, 64> slots{};

  std::unique_ptr<char[]> path_;
  Slot* slot_ = nullptr;
};

}}}  // namespace deltadct::inline DELTADCT_ABI::io
