// DeltaCodec: compresses the delta of one weight matrix, and decodes it into a matrix or adds it to
// live weights.
//
//     base, tuned -> delta -> patches -> scores -> bit widths -> DCT -> quantize -> pack
//     unpack -> dequantize -> inverse DCT -> rescale -> add to the weights (one fused pass)
//
// This is the header to include. It needs the standard library and, for the SIMD backend, xsimd.
#pragma once

#include <deltadct/backend/serial/serial.hpp>
#if DELTADCT_HAS_SIMD
  #include <deltadct/backend/simd/simd.hpp>
#endif
#include <deltadct/codec/host/decode.hpp>
#include <deltadct/codec/host/encode.hpp>
#include <deltadct/compressed_tensor.hpp>
#include <deltadct/core/executor.hpp>
#include <deltadct/policy.hpp>

#include <utility>

namespace deltadct { inline namespace DELTADCT_ABI {

#if DELTADCT_HAS_SIMD
using DefaultBackend = Simd;
#else
using DefaultBackend = Serial;
#endif

/// Encodes and decodes matrices with the stages of a policy on a backend.
///
/// A codec holds its allocator and its backend's kernel, which is usually empty. It is immutable
/// and cheap to copy, and any number of threads may call its methods at once. Results do not depend
/// on the executor. Views may hold any element type whose compute type is the policy's: float, half
/// and bfloat16, or double.
///
/// Errors are thrown as deltadct::Error. Decoding throws before it writes anything to a
/// destination.
template <concepts::Policy Policy, concepts::Backend Backend = DefaultBackend>
class DeltaCodec {
 public:
  using Compute = compute_t<typename Policy::Element>;
  using Allocator = typename Policy::Allocator;
  using Kernel = DctKernel<Backend>;
  static constexpr int patch = Policy::patch;

  /// Prepares the kernel. Throws what DctKernel::prepare() throws.
  explicit DeltaCodec(Allocator allocator = Allocator{}, Kernel kernel = Kernel{})
      : allocator_(std::move(allocator)), kernel_(std::move(kernel)) {
    kernel_.template prepare<patch, Compute>();
  }

  const Allocator& allocator() const noexcept { return allocator_; }

  /// Names what the last digit of a result may depend on: backend, version and instruction set.
  static std::string build() { return std::string(Kernel::name) + " " + DELTADCT_ABI_TEXT; }

  /// Compresses tuned - base, without outliers. Throws shape_mismatch, bad_view or too_large;
  /// non_finite, naming the first element of the first patch that holds a NaN or an infinity;
  /// out_of_range if coefficients exceed the range of the bounds, if the decoded delta exceeds the
  /// range of the compute type, or if values are too small to be stored; whatever the allocator
  /// throws; bad_mix if its widths are not valid; and corrupt_data if it assigns a class that does
  /// not exist.
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

  /// Like encode(), but works in the caller's memory: a workspace of encode_workspace_bytes()
  /// bytes, and an `out` whose arrays are reused. Once these arrays are large enough, only the
  /// allocator allocates. Throws too_large if the workspace is too small. After an error, the
  /// contents of `out` are unspecified.
  template <class U, class W, concepts::Executor Executor = SerialExecutor>
  void encode_into(CompressedTensor& out, std::span<std::byte> workspace, MatrixView<U> base,
                   MatrixView<W> tuned, const Executor& executor = {}) const {
    check_view(base, "base");
    check_view(tuned, "tuned");
    check_shape(tuned, base.rows, base.cols, "tuned");
    encode_source(out, workspace, tuned.rows, tuned.cols,
                  DifferenceSource<std::remove_const_t<U>, std::remove_const_t<W>>{base, tuned},
                  executor);
  }

  template <class U, concepts::Executor Executor = SerialExecutor>
  void encode_into(CompressedTensor& out, std::span<std::byte> workspace, MatrixView<U> delta,
                   const Executor& executor = {}) const {
    check_view(delta, "delta");
    encode_source(out, workspace, delta.rows, delta.cols,
                  DeltaSource<std::remove_const_t<U>>{delta}, executor);
  }

  /// out = delta^. Throws codec_mismatch or corrupt_data (see check()), bad_view or shape_mismatch.
  /// Decoding allocates nothing, apart from what FFTW may allocate. Its only workspace is the
  /// stack: at most 210 KiB, for patches of 64 x 64 doubles.
  template <class U, concepts::Executor Executor = SerialExecutor>
  void decode(const CompressedView& compressed, MatrixView<U> out,
              const Executor& executor = {}) const {
    if constexpr (accepts<U>()) {
      check(compressed);
      check_destination(out, "out");
      check_shape(out, compressed.header->rows, compressed.header->cols, "out");
      const detail::Region all{0, 0, out.rows, out.cols};
      const auto scale = static_cast<Compute>(compressed.header->scale);
      Decoder(kernel_, compressed, all, scale).run(detail::StoreRows<U>{out}, executor);
      detail::add_outliers(compressed.outliers, all, 1.0, out);
    }
  }

  /// weights += alpha * delta^, in place. Throws non_finite if alpha is not finite, or if alpha
  /// times the scale is not finite in the compute type. Other errors: see decode().
  template <class U, concepts::Executor Executor = SerialExecutor>
  void decode_add(const CompressedView& compressed, MatrixView<U> weights, double alpha = 1,
                  const Executor& executor = {}) const {
    decode_add(compressed, MatrixView<const U>(weights), weights, alpha, executor);
  }

  /// out = base + alpha * delta^. base and out must be the same elements or must not overlap;
  /// otherwise throws bad_view (see check_apart()). Other errors: see the overload that works in
  /// place.
  template <class U, concepts::Executor Executor = SerialExecutor>
  void decode_add(const CompressedView& compressed, MatrixView<const U> base, MatrixView<U> out,
                  double alpha = 1, const Executor& executor = {}) const {
    check(compressed);
    check_shape(out, compressed.header->rows, compressed.header->cols, "out");
    add_region(compressed, 0, 0, base, out, alpha, executor);
  }

  /// block += alpha * the part of delta^ that begins at (row, col) and has the block's shape, such
  /// as the slice of a tensor-parallel rank. The result is bit-identical to that of decode_add()
  /// for the same elements. Throws bad_range if the block leaves the tensor. Other errors: see
  /// decode_add().
  template <class U, concepts::Executor Executor = SerialExecutor>
  void decode_add_block(const CompressedView& compressed, std::size_t row, std::size_t col,
                        MatrixView<U> block, double alpha = 1,
                        const Executor& executor = {}) const {
    check(compressed);
    const TensorHeader& header = *compressed.header;
    detail::check_block(row, col, block.rows, block.cols, header.rows, header.cols);
    add_region(compressed, row, col, MatrixView<const U>(block), block, alpha, executor);
  }

  /// Throws codec_mismatch, naming what differs, if stages other than this policy's made the
  /// tensor. Throws corrupt_data if the view has no tensor, if the scale is not finite, if the
  /// dtype of the bounds is not a floating-point type, or if the arrays do not have the sizes that
  /// the header gives. Every decode begins with this check.
  static void check(const CompressedView& compressed) {
    const TensorHeader& header = detail::header_of(compressed);
    const auto require = [](std::string_view found, std::string_view expected, const char* what) {
      if (found == expected) return;
      throw Error(Errc::codec_mismatch, what,
                  std::string(found) + " where this codec has " + std::string(expected));
    };
    const auto require_number = [&](int found, int expected, const char* what) {
      if (found != expected) require(std::to_string(found), std::to_string(expected), what);
    };
    require_number(header.patch, patch, "patch size");
    require(header.transform, Policy::Transform::name, "transform");
    require(header.quantizer, Policy::template Quantizer<0>::name, "quantizer");
    if (!detail::is_within<Compute>(header.scale)) {
      throw Error(Errc::corrupt_data, "scale", "not finite in the compute type");
    }
    detail::check_bound_dtype(header.bound);
    if (dtype_bytes(header.bound) > sizeof(Compute)) {
      throw Error(Errc::codec_mismatch, "dtype of the bounds", "wider than the compute type");
    }
    for (const WidthClass& k : header.classes) {
      if (!Plan::has_width(k.bits)) {
        throw Error(Errc::codec_mismatch, "bit width", std::to_string(k.bits));
      }
      require_number(k.bound_count, Plan::bound_count(k.bits), "bounds of a patch");
    }
    detail::check_arrays(compressed);
  }

  /// Throws codec_mismatch or corrupt_data, naming the reason, unless encode() could have made the
  /// tensor. Decoding a tensor that passes stays within its arrays and gives finite values. Takes
  /// time linear in the number of patches. Call it once for a tensor from elsewhere, before the
  /// first decode.
  static void validate(const CompressedView& compressed) {
    check(compressed);
    deltadct::validate(compressed);
    const DType bound = compressed.header->bound;
    double largest = 0;
    for (const PatchPlace place : compressed.places) {
      const int bits = compressed.width_class(place).bits;
      const std::byte* bounds = compressed.bounds_of(place);
      detail::validate_patch<Policy>(bits, compressed.codes_of(place), bounds, bound);
      largest = std::max(largest, detail::largest_element<Policy>(bits, bounds, bound));
    }
    if (!detail::is_within<Compute>(compressed.header->scale * largest)) {
      detail::fail_validation("scale and bounds, which decode to values that are not finite");
    }
    for (const Outlier& outlier : compressed.outliers) {
      if (!detail::is_within<Compute>(outlier.value))
        detail::fail_validation("value of an outlier");
    }
  }

  /// Bytes of workspace that encode_into() needs. Throws too_large if encode() would.
  std::size_t encode_workspace_bytes(std::size_t rows, std::size_t cols) const {
    return detail::MatrixEncoder<Policy, Backend>(kernel_, rows, cols).workspace_bytes();
  }

  /// An upper bound of CompressedTensor::bytes() for any matrix of that shape. Throws too_large if
  /// encode() would.
  std::size_t max_compressed_bytes(std::size_t rows, std::size_t cols) const {
    return Plan::max_bytes(allocator_, rows, cols);
  }

 private:
  using Plan = detail::Plan<Policy>;
  using Decoder = detail::RegionDecoder<Policy, Backend>;

  /// Reports a wrong element type with one readable message. Callers skip their body in that case,
  /// so that no other errors follow.
  template <class U>
  static constexpr bool accepts() noexcept {
    constexpr bool result = detail::is_computed_as<U, Compute>;
    static_assert(result, "the views' elements must have the compute type of the policy");
    return result;
  }

  template <class Source, class Executor>
  void encode_source(CompressedTensor& out, std::span<std::byte> workspace, std::size_t rows,
                     std::size_t cols, const Source& source, const Executor& executor) const {
    if constexpr (accepts<typename Source::compute>()) {
      out.outliers.clear();
      detail::MatrixEncoder<Policy, Backend>(kernel_, rows, cols)
          .run(source, allocator_, workspace, out, executor);
    }
  }

  template <class U, class Executor>
  void add_region(const CompressedView& compressed, std::size_t row, std::size_t col,
                  MatrixView<const U> base, MatrixView<U> out, double alpha,
                  const Executor& executor) const {
    if constexpr (accepts<U>()) {
      check_destination(out, "out");
      check_view(base, "base");
      check_shape(base, out.rows, out.cols, "base");
      check_apart(base, out, "out");
      const auto factor = detail::checked_factor<Compute>(alpha, compressed.header->scale);
      const detail::Region region{row, col, out.rows, out.cols};
      Decoder(kernel_, compressed, region, factor).run(detail::AddRows<U>{base, out}, executor);
      detail::add_outliers(compressed.outliers, region, alpha, out);
    }
  }

  Allocator allocator_;
  [[no_unique_address]] Kernel kernel_;
};

}}  // namespace deltadct::inline DELTADCT_ABI
