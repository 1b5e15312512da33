// Restored tensors that are kept for those that are tied to them.
#pragma once

#include <deltadct/io/archive.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io { namespace detail {

/// Keeps restored tensors that others are tied to, until all of those have been restored. Does so
/// only for methods whose decoding costs far more than a copy, and within the bytes of the largest
/// tensor.
class KeptTargets {
 public:
  explicit KeptTargets(const DeltaArchive& archive) {
    for (const ManifestEntry& entry : archive.entries()) {
      if (entry.mode != Mode::removed) room_ = std::max(room_, entry.bytes());
      const ManifestEntry& target = archive.target(entry);
      if (&target == &entry || !has_delta(target.mode) || target.matrices[0].patch != 0) continue;
      ++targets_.try_emplace(&target).first->second.uses;
    }
  }

  /// Call this before a target, or a tensor tied to it, is restored. Returns whether the target is
  /// kept, and then sets `bytes`, which are valid until the next call.
  bool take(const ManifestEntry& target, std::span<std::byte>& bytes) {
    const auto found = targets_.find(&target);
    if (found == targets_.end()) return false;
    Target& kept = found->second;
    const bool is_kept = kept.is_kept;
    if (is_kept) bytes = kept.bytes;
    if (--kept.uses == 0) {
      room_ += kept.bytes.size();
      last_ = std::move(kept.bytes);
      targets_.erase(found);
    }
    return is_kept;
  }

  /// Keeps a restored target if it will be needed again and there is room.
  void offer(const ManifestEntry& target, std::span<const std::byte> bytes) {
    const auto found = targets_.find(&target);
    if (found == targets_.end() || found->second.is_kept || bytes.size() > room_) return;
    room_ -= bytes.size();
    found->second.is_kept = true;
    found->second.bytes.assign(bytes.begin(), bytes.end());
  }

 private:
  struct Target {
    std::size_t uses = 1;  // still to come: its own, and those of its ties
    bool is_kept = false;
    std::vector<std::byte> bytes;
  };

  std::uint64_t room_ = 0;
  std::map<const ManifestEntry*, Target> targets_;
  std::vector<std::byte> last_;
};

}}}}  // namespace deltadct::inline DELTADCT_ABI::io::detail
