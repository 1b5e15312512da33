// The manifest of a delta archive: a description of each tensor and of each file beside them.
#pragma once

#include <deltadct/compressed_tensor.hpp>
#include <deltadct/io/file_entry.hpp>
#include <deltadct/io/recovery.hpp>
#include <deltadct/io/tensor_info.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// The version of the format that this library writes, and the only one that it reads.
inline constexpr int kFormatVersion = 1;

/// How a tensor is stored.
enum class Mode {
  same,      ///< nothing is stored: it equals the base's
  delta,     ///< its difference from the base, compressed
  grown,     ///< the rows that the base has as a delta, those that it lacks without loss
  shrunk,    ///< a delta of the rows that are left
  lossless,  ///< its bytes, coded relative to the base's
  added,     ///< its bytes: the base has no such tensor
  removed,   ///< only the base has it
  tied,      ///< it equals another tensor of the model
};

inline constexpr Mode kModes[] = {Mode::same,     Mode::delta, Mode::grown,   Mode::shrunk,
                                  Mode::lossless, Mode::added, Mode::removed, Mode::tied};

constexpr std::string_view mode_name(Mode mode) noexcept {
  switch (mode) {
    case Mode::same:
      return "same";
    case Mode::delta:
      return "delta";
    case Mode::grown:
      return "grown";
    case Mode::shrunk:
      return "shrunk";
    case Mode::lossless:
      return "lossless";
    case Mode::added:
      return "added";
    case Mode::removed:
      return "removed";
    case Mode::tied:
      return "tied";
  }
  return "";
}

constexpr bool has_delta(Mode mode) noexcept {
  return mode == Mode::delta || mode == Mode::grown || mode == Mode::shrunk;
}
constexpr bool has_lossless(Mode mode) noexcept {
  return mode == Mode::lossless || mode == Mode::added || mode == Mode::grown;
}
/// Whether applying an entry reads the base's tensor.
constexpr bool needs_base(Mode mode) noexcept {
  return mode == Mode::same || mode == Mode::lossless || has_delta(mode);
}

/// A tensor seen as matrices of one shape that follow one another in its data.
struct MatrixStack {
  std::size_t count = 1;
  std::size_t rows = 0;
  std::size_t cols = 0;

  bool operator==(const MatrixStack&) const = default;
};

/// A tensor of the base, with what is needed to recognise it.
struct BaseTensor {
  StoredDType dtype = DType::f32;
  std::vector<std::uint64_t> shape;
  std::string fingerprint;  ///< of its bytes

  bool operator==(const BaseTensor&) const = default;
};

/// How much of a delta is lost once it is added to the base and rounded.
struct LostRows {
  std::uint64_t rows = 0;     ///< rows whose delta is lost
  std::uint64_t changed = 0;  ///< rows that differ from the base's
  bool tuned_keeps = false;   ///< whether the fine-tune's dtype holds what the base's loses

  bool operator==(const LostRows&) const = default;
};

/// A tensor of the archive. dtype and shape are those of the restored tensor; for `removed`, those
/// of the base's tensor.
struct ManifestEntry {
  std::string name;
  Mode mode = Mode::same;
  StoredDType dtype = DType::f32;
  std::vector<std::uint64_t> shape;
  std::optional<BaseTensor> base;  ///< if the base has a tensor of that name
  std::string tuned;               ///< fingerprint of the fine-tune's bytes; none for `removed`
  std::string delta_sum;           ///< fingerprint of the section delta:NAME
  std::string lossless_sum;        ///< fingerprint of the section lossless:NAME
  std::string outliers_sum;        ///< fingerprint of the section outliers:NAME, if there is one
  std::string reason;              ///< why it is kept without loss, for people
  std::string target;              ///< for `tied`: the tensor that it equals
  MatrixStack stack;               ///< for modes with a delta: what is compressed
  std::vector<TensorHeader> matrices;
  std::optional<DType>
      tuned_dtype;  ///< for modes with a delta: the fine-tune's dtype, if it differs
  std::optional<Recovery> recovery;  ///< for modes with a delta, for people: how much is restored
  std::optional<LostRows> lost;      ///< for modes with a delta, for people: set if it is lost

  std::uint64_t bytes() const noexcept { return tensor_bytes(dtype, shape).value_or(0); }
};

/// The manifest of an archive, or of one part of a sharded one.
struct Manifest {
  Metadata metadata;  ///< of the fine-tune's files
  std::vector<ManifestEntry> entries;
  bool folder = false;             ///< whether the fine-tune was a folder
  std::vector<FileEntry> files{};  ///< the files of that folder
  /// Of the fine-tune's index, without total_size: the JSON of an object, or nothing.
  std::string index_metadata{};
};

/// The shape that a tensor shares with its base if they differ only in the first extent; nothing if
/// they differ in more.
inline std::optional<std::vector<std::uint64_t>> common_rows(std::span<const std::uint64_t> a,
                                                             std::span<const std::uint64_t> b) {
  if (a.size() != b.size()) return std::nullopt;
  if (a.empty()) return std::vector<std::uint64_t>{};
  if (!std::ranges::equal(a.subspan(1), b.subspan(1))) return std::nullopt;
  std::vector<std::uint64_t> shape(a.begin(), a.end());
  shape[0] = std::min(a[0], b[0]);
  return shape;
}

inline std::uint64_t elements(std::span<const std::uint64_t> shape) noexcept {
  return std::accumulate(shape.begin(), shape.end(), std::uint64_t{1}, std::multiplies<>{});
}

/// The matrices as which a tensor of any rank is compressed. Rank 0 and 1: one column. Rank 3 or
/// more with the last two extents at least as large as the largest patch (such as the experts of a
/// mixture): one matrix after another. Anything else: the first extent by all others, as a
/// convolution is applied.
inline MatrixStack stack_of(std::span<const std::uint64_t> shape) noexcept {
  constexpr std::uint64_t kMatrixSide = 64;
  const auto product = [&](std::size_t first, std::size_t count) {
    return static_cast<std::size_t>(elements(shape.subspan(first, count)));
  };
  const std::size_t rank = shape.size();
  if (rank < 2) return {1, product(0, rank), 1};
  if (rank > 2 && shape[rank - 2] >= kMatrixSide && shape[rank - 1] >= kMatrixSide) {
    return {product(0, rank - 2), product(rank - 2, 1), product(rank - 1, 1)};
  }
  return {1, product(0, 1), product(1, rank - 1)};
}

/// Whether a tensor can be seen as that stack: count, rows and cols must be products of adjacent
/// extents, and the first extent must not be among the columns.
inline bool is_stack_of(const MatrixStack& stack, std::span<const std::uint64_t> shape) noexcept {
  for (std::size_t col = std::min<std::size_t>(1, shape.size()); col <= shape.size(); ++col) {
    for (std::size_t row = 0; row <= col; ++row) {
      if (stack.count == elements(shape.first(row)) &&
          stack.rows == elements(shape.subspan(row, col - row)) &&
          stack.cols == elements(shape.subspan(col))) {
        return true;
      }
    }
  }
  return false;
}

/// "768x256", or "scalar".
inline std::string shape_text(std::span<const std::uint64_t> shape) {
  std::string text;
  for (const std::uint64_t extent : shape) {
    text += (text.empty() ? "" : "x") + std::to_string(extent);
  }
  return text.empty() ? "scalar" : text;
}

namespace detail {

/// Features that are newer than the first release and that a reader must know to restore anything.
inline constexpr const char* kOutliersFeature = "outliers";
inline constexpr const char* kFilesFeature = "files";

/// The features that a manifest uses.
inline std::vector<std::string> required_by(const Manifest& manifest) {
  std::vector<std::string> features;
  const auto has_outliers = [](const ManifestEntry& entry) { return !entry.outliers_sum.empty(); };
  if (!manifest.files.empty()) features.emplace_back(kFilesFeature);
  if (std::ranges::any_of(manifest.entries, has_outliers)) features.emplace_back(kOutliersFeature);
  return features;
}

}  // namespace detail

}}}  // namespace deltadct::inline DELTADCT_ABI::io
