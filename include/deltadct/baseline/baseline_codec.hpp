// BaselineCodec: a method published by others behind the interface of DeltaCodec, so that it can be
// stored, applied and measured in the same way. A method sees the whole matrix and defines its own
// packed form.
#pragma once

#include <deltadct/baseline/packed.hpp>
#include <deltadct/codec/ends.hpp>
#include <deltadct/compressed_tensor.hpp>
#include <deltadct/core/executor.hpp>
#include <deltadct/core/finite.hpp>
#include <deltadct/core/lost.hpp>
#include <deltadct/core/matrix_view.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <concepts>
#include <limits>
#include <memory>

namespace deltadct { inline namespace DELTADCT_ABI {

namespace concepts {

/// What BaselineCodec requires of a method. encode() appends the packed form of a dense, non-empty
/// matrix. max_bytes() bounds the size of that form, and throws too_large if no array can be so
/// large. check() throws corrupt_data unless encode() could have written the bytes. It takes time
/// linear in their number and memory for at most a few copies of them, and returns a bound on the
/// decoded magnitudes. The constructor of Decoder checks the same; any number of threads may then
/// call block(), which decodes a block of rows and columns.
template <class M, class T>
concept BaselineMethod = std::copy_constructible<M> && Compute<T> &&
    requires(const M& method, MatrixView<const T> delta, std::vector<std::byte>& out,
             std::span<const std::byte> packed, std::size_t n, T* to) {
  { M::name } -> std::convertible_to<std::string_view>;
  { method.text() } -> std::convertible_to<std::string>;
  method.encode(delta, out);
  { method.template max_bytes<T>(n, n) } -> std::same_as<std::size_t>;
  { M::template check<T>(packed, n, n) } -> std::same_as<T>;
  typename M::template Decoder<T>;
  requires std::constructible_from<typename M::template Decoder<T>, std::span<const std::byte>,
                                   std::size_t, std::size_t>;
  requires requires(const typename M::template Decoder<T>& decoder) {
    decoder.block(n, n, n, n, to);
    { decoder.largest() } -> std::same_as<T>;
  };
};

}  // namespace concepts

/// Encodes and decodes matrices with a baseline's method. The interface is that of DeltaCodec; it
/// is meant for comparisons, not for speed. Encoding runs on the calling thread. Decoding allocates
/// what the method needs. Errors are thrown as deltadct::Error; decoding throws before it writes
/// anything.
template <class Method, concepts::Element Element = float>
requires concepts::BaselineMethod<Method, compute_t<Element>>
class BaselineCodec {
 public:
  using Compute = compute_t<Element>;

  explicit BaselineCodec(Method method = {}) : method_(std::move(method)) {}

  const Method& method() const noexcept { return method_; }

  /// Everything that the compressed form may depend on.
  std::string build() const {
    return std::string(Method::name) + " " + method_.text() + " " + DELTADCT_ABI_TEXT;
  }

  /// Compresses tuned - base. Throws shape_mismatch and bad_view; non_finite, naming the first
  /// element that is not finite; out_of_range if a value that the method stores or decodes to would
  /// not be finite, or would be too small to store.
  template <class U, class W, concepts::Executor Executor = SerialExecutor>
  CompressedTensor encode(MatrixView<U> base, MatrixView<W> tuned,
                          const Executor& executor = {}) const {
    CompressedTensor out;
    std::vector<std::byte> workspace(encode_workspace_bytes(tuned.rows, tuned.cols));
    encode_into(out, workspace, base, tuned, executor);
    return out;
  }

  /// Compresses a delta.
  template <class U, concepts::Executor Executor = SerialExecutor>
  CompressedTensor encode(MatrixView<U> delta, const Executor& executor = {}) const {
    CompressedTensor out;
    std::vector<std::byte> workspace(encode_workspace_bytes(delta.rows, delta.cols));
    encode_into(out, workspace, delta, executor);
    return out;
  }

  /// As encode(), in scratch memory of the caller. Throws too_large if `workspace` has less than
  /// encode_workspace_bytes().
  template <class U, class W, concepts::Executor Executor = SerialExecutor>
  void encode_into(CompressedTensor& out, std::span<std::byte> workspace, MatrixView<U> base,
                   MatrixView<W> tuned, const Executor& = {}) const {
    check_view(base, "base");
    check_view(tuned, "tuned");
    check_shape(tuned, base.rows, base.cols, "tuned");
    encode_source(out, workspace, tuned.rows, tuned.cols,
                  DifferenceSource<std::remove_const_t<U>, std::remove_const_t<W>>{base, tuned});
  }

  template <class U, concepts::Executor Executor = SerialExecutor>
  void encode_into(CompressedTensor& out, std::span<std::byte> workspace, MatrixView<U> delta,
                   const Executor& = {}) const {
    check_view(delta, "delta");
    encode_source(out, workspace, delta.rows, delta.cols,
                  DeltaSource<std::remove_const_t<U>>{delta});
  }

  /// out = delta^. Throws codec_mismatch, corrupt_data, bad_view and shape_mismatch.
  template <class U, concepts::Executor Executor = SerialExecutor>
  void decode(const CompressedView& compressed, MatrixView<U> out,
              const Executor& executor = {}) const {
    const TensorHeader& header = detail::header_of(compressed);
    check_destination(out, "out");
    check_shape(out, header.rows, header.cols, "out");
    run(compressed, 0, 0, out, executor,
        [&](std::size_t i, std::size_t j, Compute x) { out(i, j) = static_cast<U>(x); });
  }

  /// weights += alpha * delta^, in place. Throws non_finite if alpha is not finite in the compute
  /// type; otherwise as decode().
  template <class U, concepts::Executor Executor = SerialExecutor>
  void decode_add(const CompressedView& compressed, MatrixView<U> weights, double alpha = 1,
                  const Executor& executor = {}) const {
    decode_add(compressed, MatrixView<const U>(weights), weights, alpha, executor);
  }

  /// out = base + alpha * delta^. base and out must be the same elements or not overlap; otherwise
  /// throws bad_view (see check_apart()). Other errors as for the overload in place.
  template <class U, concepts::Executor Executor = SerialExecutor>
  void decode_add(const CompressedView& compressed, MatrixView<const U> base, MatrixView<U> out,
                  double alpha = 1, const Executor& executor = {}) const {
    const TensorHeader& header = detail::header_of(compressed);
    check_shape(out, header.rows, header.cols, "out");
    add(compressed, 0, 0, base, out, alpha, executor);
  }

  /// block += alpha * the rows and columns of delta^ that begin at (row, col). Throws bad_range if
  /// the block leaves the matrix; otherwise as decode_add().
  template <class U, concepts::Executor Executor = SerialExecutor>
  void decode_add_block(const CompressedView& compressed, std::size_t row, std::size_t col,
                        MatrixView<U> block, double alpha = 1,
                        const Executor& executor = {}) const {
    add(compressed, row, col, MatrixView<const U>(block), block, alpha, executor);
  }

  /// Throws codec_mismatch, naming the difference, unless this method compressed the matrix.
  static void check(const CompressedView& compressed) {
    const TensorHeader& header = detail::header_of(compressed);
    if (header.patch == 0 && header.transform == Method::name) return;
    throw Error(Errc::codec_mismatch, "method",
                header.transform + " where this codec has " + std::string(Method::name));
  }

  /// Throws codec_mismatch or corrupt_data, naming the reason, unless encode() could have made the
  /// matrix and it decodes to finite values. Every decode begins with this check.
  static void validate(const CompressedView& compressed) {
    if (!check_whole(compressed)) return;
    const TensorHeader& header = *compressed.header;
    require_finite(Method::template check<Compute>(compressed.codes, header.rows, header.cols));
  }

  /// Bytes of scratch memory that encode_into() needs. Throws too_large if no array can have that
  /// many.
  std::size_t encode_workspace_bytes(std::size_t rows, std::size_t cols) const {
    return checked_size((SaturatingSize(rows) * cols + 1) * sizeof(Compute), rows, cols);
  }

  /// An upper bound of CompressedTensor::bytes() for any matrix of that shape. Throws too_large if
  /// no array can have that many bytes.
  std::size_t max_compressed_bytes(std::size_t rows, std::size_t cols) const {
    return rows == 0 || cols == 0 ? 0 : method_.template max_bytes<Compute>(rows, cols);
  }

 private:
  using Decoder = typename Method::template Decoder<Compute>;
  static constexpr std::size_t kTileRows = 32;
  static constexpr std::size_t kTileCols = 128;

  template <class Source>
  void encode_source(CompressedTensor& out, std::span<std::byte> workspace, std::size_t rows,
                     std::size_t cols, const Source& source) const {
    static_assert(std::same_as<typename Source::compute, Compute>,
                  "the views' elements must have the compute type of the codec");
    if (workspace.size() < encode_workspace_bytes(rows, cols)) {
      throw Error(Errc::too_large, "workspace", shape_text(rows, cols));
    }
    const std::size_t elements = rows * cols;
    void* start = workspace.data();
    std::size_t room = workspace.size();
    auto* delta = static_cast<Compute*>(
        std::align(alignof(Compute), elements * sizeof(Compute), start, room));
    // Loops over elements, not rows: a matrix without columns can have any number of rows.
    for (std::size_t s = 0; s < elements; s += cols) source.read(s / cols, 0, cols, delta + s);
    for (std::size_t s = 0; s < elements; ++s) {
      if (detail::all_finite(delta + s, 1)) continue;
      throw Error(Errc::non_finite,
                  "element (" + std::to_string(s / cols) + ", " + std::to_string(s % cols) + ")");
    }
    out = {};
    out.header.rows = rows;
    out.header.cols = cols;
    out.header.transform = Method::name;
    if (elements == 0) return;
    method_.encode(MatrixView<const Compute>(delta, rows, cols), out.codes);
    out.header.whole_bytes = out.codes.size();
    // The decoded values may be larger than the original ones.
    const auto largest = Method::template check<Compute>(out.codes, rows, cols);
    if (!detail::all_finite(&largest, 1)) {
      throw Error(Errc::out_of_range, "delta",
                  "beyond what " + std::string(Method::name) + " decodes to");
    }
  }

  template <class U, class Executor>
  void add(const CompressedView& compressed, std::size_t row, std::size_t col,
           MatrixView<const U> base, MatrixView<U> out, double alpha,
           const Executor& executor) const {
    check_destination(out, "out");
    check_view(base, "base");
    check_shape(base, out.rows, out.cols, "base");
    check_apart(base, out, "out");
    const auto factor = detail::checked_factor<Compute>(alpha, 1);
    run(compressed, row, col, out, executor, [&](std::size_t i, std::size_t j, Compute x) {
      out(i, j) = static_cast<U>(static_cast<Compute>(base(i, j)) + factor * x);
    });
  }

  /// Throws unless all but the method's packed form is valid. Returns whether there is a packed
  /// form, which an empty matrix does not have.
  static bool check_whole(const CompressedView& compressed) {
    check(compressed);
    deltadct::validate(compressed);
    if (!compressed.outliers.empty())
      detail::fail_validation("outliers beside a method's own form");
    const TensorHeader& header = *compressed.header;
    if (header.rows != 0 && header.cols != 0) return true;
    if (!compressed.codes.empty()) detail::fail_validation("size of the codes");
    return false;
  }

  static void require_finite(Compute largest) {
    if (!detail::all_finite(&largest, 1)) detail::fail_validation("values that are not finite");
  }

  static std::unique_ptr<const Decoder> decoder(const CompressedView& compressed) {
    if (!check_whole(compressed)) return nullptr;
    const TensorHeader& header = *compressed.header;
    auto result = std::make_unique<const Decoder>(compressed.codes, header.rows, header.cols);
    require_finite(result->largest());
    return result;
  }

  /// Calls put(i, j, value) for each element of `out`, the part of the matrix that begins at (row,
  /// col).
  template <class U, class Executor, class Put>
  void run(const CompressedView& compressed, std::size_t row, std::size_t col, MatrixView<U> out,
           const Executor& executor, Put put) const {
    static_assert(std::same_as<compute_t<U>, Compute>,
                  "the views' elements must have the compute type of the codec");
    const TensorHeader& header = detail::header_of(compressed);
    detail::check_block(row, col, out.rows, out.cols, header.rows, header.cols);
    const auto from = decoder(compressed);
    if (out.empty()) return;
    executor.parallel_for(ceil_div(out.rows, kTileRows), [&](std::size_t band) {
      Compute tile[kTileRows * kTileCols];
      const std::size_t first = band * kTileRows;
      const std::size_t rows = std::min(kTileRows, out.rows - first);
      for (std::size_t left = 0; left < out.cols; left += kTileCols) {
        const std::size_t cols = std::min(kTileCols, out.cols - left);
        from->block(row + first, rows, col + left, cols, tile);
        for (std::size_t i = 0; i < rows; ++i) {
          for (std::size_t j = 0; j < cols; ++j) put(first + i, left + j, tile[i * cols + j]);
        }
      }
    });
  }

  Method method_;
};

}}  // namespace deltadct::inline DELTADCT_ABI
