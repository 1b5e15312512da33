// Opt-in: the CUDA backend. The base, the deltas and their sums lie in device memory. Nothing is
// allocated there, and nothing waits, unless stated otherwise.
//
//     DeltaCodec<Policy, Cuda> codec;
//     tensor = codec.upload(compressed, memory, stream)         host -> device, checked
//     codec.decode_add(tensor, weights, alpha, stream)          one pass over the weights
//
//     encoding = codec.encode(base, tuned, memory, workspace, stream)
//     tensor = codec.finish(encoding)                           waits
//     compressed = codec.download(tensor, stream)               device -> host, waits
//
// Needs the CUDA Toolkit (link cudart). nvcc compiles the kernels, with --expt-relaxed-constexpr.
// In a file for nvcc, `template struct deltadct::CudaKernels<Policy, Element>;` compiles those of a
// policy for one element type. Any other file, of any compiler, may then use them. Both files must
// be compiled for the same instruction set of the host; otherwise the linker does not find the
// kernels.
#pragma once

#include <deltadct/backend/cuda/cuda.hpp>
#include <deltadct/codec.hpp>
#include <deltadct/codec/device/decode.hpp>
#include <deltadct/codec/device/encode.hpp>

#include <functional>

#if defined(__CUDACC__)
  #include <deltadct/codec/device/queue.hpp>
#endif

namespace deltadct { inline namespace DELTADCT_ABI {

/// A view of a compressed matrix in device memory. It is cheap to copy, and valid as long as the
/// memory holds what upload() or encode() wrote. Only the codec of its policy makes one, from a
/// tensor that it checked on the host or encoded itself.
template <concepts::Policy Policy>
class CudaTensor {
 public:
  std::size_t rows() const noexcept { return rows_; }
  std::size_t cols() const noexcept { return cols_; }

 private:
  friend class DeltaCodec<Policy, Cuda>;
  CudaTensor() = default;

  std::size_t rows_ = 0;
  std::size_t cols_ = 0;
  double scale_ = 1;
  detail::DeviceArrays arrays_{};
};

/// What encode() has enqueued, and on which stream.
template <concepts::Policy Policy>
class CudaEncoding {
  friend class DeltaCodec<Policy, Cuda>;
  CudaEncoding() = default;

  TensorHeader header_;
  detail::DeviceArrays arrays_{};
  const detail::DeviceOutcome* outcome_ = nullptr;
  cudaStream_t stream_ = nullptr;
};

/// The kernels of a policy for matrices of U; see the top of this file.
template <concepts::Policy Policy, concepts::Element U>
struct CudaKernels {
  using T = compute_t<U>;
  using LayOut = std::function<detail::DeviceArrays(const TensorHeader&)>;

  template <detail::DecodeMode Mode>
  using Decode = detail::DecodeKernel<Policy, U, Mode>;

  static void decode(const Decode<detail::DecodeMode::store>& kernel, cudaStream_t stream);
  static void decode(const Decode<detail::DecodeMode::add>& kernel, cudaStream_t stream);
  static void decode(const Decode<detail::DecodeMode::add_in_place>& kernel, cudaStream_t stream);
  static void encode(const detail::DeviceEncoder<Policy, U, true>& encoder,
                     const typename Policy::Allocator& allocator,
                     const detail::DeviceWorkspace<T>& workspace, TensorHeader& header,
                     const LayOut& lay_out, cudaStream_t stream);
  static void encode(const detail::DeviceEncoder<Policy, U, false>& encoder,
                     const typename Policy::Allocator& allocator,
                     const detail::DeviceWorkspace<T>& workspace, TensorHeader& header,
                     const LayOut& lay_out, cudaStream_t stream);
  /// Bytes of device memory needed to sort that many patches.
  static std::size_t sorting_bytes(std::size_t patches);
};

/// The codec of a policy on a device. Results agree with those of the other backends, except for
/// the last digit of sums.
///
/// Views are of device memory, and of any element type whose compute type is the policy's. Access
/// is fastest if rows are contiguous and, for elements of two bytes, begin at multiples of four
/// bytes. Methods enqueue work on the stream and return. They throw what they find before that: the
/// errors of the methods of DeltaCodec with the same names; bad_view if a pointer is not aligned to
/// its elements; and device_failure if there is no device, its driver is too old, the program was
/// not compiled for its architecture, or the stream belongs to another device. Methods that neither
/// wait nor copy from or to the host may be called while a stream is being captured.
template <concepts::Policy Policy>
class DeltaCodec<Policy, Cuda> {
 public:
  using Compute = compute_t<typename Policy::Element>;
  using Allocator = typename Policy::Allocator;
  using Tensor = CudaTensor<Policy>;
  using Encoding = CudaEncoding<Policy>;
  static constexpr int patch = Policy::patch;

  explicit DeltaCodec(Allocator allocator = Allocator{}) : allocator_(std::move(allocator)) {}

  const Allocator& allocator() const noexcept { return allocator_; }

  /// Memory passed to the codec must begin at a multiple of this many bytes.
  static constexpr std::size_t alignment = detail::kDeviceAlignment;
  /// Bytes of device memory that upload() needs. Throws corrupt_data unless encode() could have
  /// made the header.
  static std::size_t device_bytes(const TensorHeader& header) {
    validate_header(header);
    detail::DeviceArrays arrays{};
    return detail::lay_out_on_device(header, nullptr, arrays);
  }

  /// Enqueues the copies of a tensor, which must stay unchanged until they are done. Pinned memory
  /// is copied without the host; for other memory the call may wait. Throws what validate() throws;
  /// codec_mismatch if the dtype of the bounds is not the policy's, or if there are outliers, which
  /// kernels do not add; too_large if the memory is too small; bad_view if it is not aligned; and
  /// device_failure.
  static Tensor upload(const CompressedView& compressed, std::span<std::byte> memory,
                       cudaStream_t stream = nullptr) {
    const TensorHeader& header = detail::header_of(compressed);
    DeltaCodec<Policy, Serial>::validate(compressed);
    if (header.bound != dtype_of<typename Policy::Bound>()) {
      throw Error(Errc::codec_mismatch, "dtype of the bounds", dtype_name(header.bound));
    }
    if (!compressed.outliers.empty()) {
      throw Error(Errc::codec_mismatch, "outliers", "kernels do not add them");
    }
    Tensor tensor;
    tensor.rows_ = header.rows;
    tensor.cols_ = header.cols;
    tensor.scale_ = header.scale;
    const std::size_t bytes = detail::lay_out_on_device(header, memory.data(), tensor.arrays_);
    check_memory(memory, bytes, "memory");
    detail::for_each_copy(
        compressed, header, tensor.arrays_, [&](const void* from, std::size_t to, std::size_t n) {
          if (n == 0) return;
          detail::check_cuda(
              cudaMemcpyAsync(memory.data() + to, from, n, cudaMemcpyHostToDevice, stream),
              "cudaMemcpyAsync");
        });
    return tensor;
  }

  /// Copies a tensor to host memory. Waits for the stream. Throws device_failure.
  static CompressedTensor download(const Tensor& tensor, cudaStream_t stream = nullptr) {
    CompressedTensor out;
    detail::Plan<Policy>::begin(out.header, tensor.rows_, tensor.cols_);
    out.header.scale = tensor.scale_;
    out.header.classes = detail::classes_on_device(tensor.arrays_, out.header.bound);
    detail::resize_arrays(out);
    detail::for_each_copy(
        out, out.header, tensor.arrays_, [&](void* to, std::size_t from, std::size_t n) {
          if (n == 0) return;
          detail::check_cuda(
              cudaMemcpyAsync(to, tensor.arrays_.data + from, n, cudaMemcpyDeviceToHost, stream),
              "cudaMemcpyAsync");
        });
    detail::check_cuda(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    return out;
  }

  /// Bytes of device memory that encode() needs as workspace, for matrices of U. Throws too_large
  /// if encode() would.
  template <class U = typename Policy::Element>
  static std::size_t encode_workspace_bytes(std::size_t rows, std::size_t cols) {
    const std::size_t patches = Encoder<U, false>::patches_of(rows, cols);
    return detail::DeviceWorkspace<Compute>(nullptr, patches,
                                            CudaKernels<Policy, U>::sorting_bytes(patches))
        .bytes;
  }

  /// An upper bound of device_bytes() for any matrix of that shape. Throws too_large if encode()
  /// would.
  std::size_t max_device_bytes(std::size_t rows, std::size_t cols) const {
    const DeltaCodec<Policy, Serial> host(allocator_);
    constexpr std::size_t padding = (1 + 2 * kMaxWidthClasses) * alignment;
    return checked_size(SaturatingSize(host.max_compressed_bytes(rows, cols)) + padding, rows,
                        cols);
  }

  /// Compresses tuned - base into `memory`, which must have device_bytes() of the result;
  /// max_device_bytes() always suffice. Memory and workspace must stay unchanged until finish(). An
  /// allocator that assigns bits by rank alone, as the paper's does, needs nothing from the host;
  /// its errors, and those of the arguments, are then thrown before anything is enqueued. Any other
  /// allocator is called with the scores, for which this waits. Throws shape_mismatch, bad_view or
  /// too_large; whatever the allocator throws; bad_mix if its widths or counts are not valid;
  /// corrupt_data if it assigns a class that does not exist; and device_failure.
  template <class U, class W>
  requires std::same_as<std::remove_const_t<U>, std::remove_const_t<W>> Encoding
  encode(MatrixView<U> base, MatrixView<W> tuned, std::span<std::byte> memory,
         std::span<std::byte> workspace, cudaStream_t stream = nullptr)
  const {
    check_matrix(base, "base");
    check_matrix(tuned, "tuned");
    check_shape(tuned, base.rows, base.cols, "tuned");
    return encode_delta<std::remove_const_t<U>, true>({base, tuned}, memory, workspace, stream);
  }

  /// Compresses a delta.
  template <class U>
  Encoding encode(MatrixView<U> delta, std::span<std::byte> memory, std::span<std::byte> workspace,
                  cudaStream_t stream = nullptr) const {
    check_matrix(delta, "delta");
    return encode_delta<std::remove_const_t<U>, false>({{}, delta}, memory, workspace, stream);
  }

  /// The tensor that was encoded. Waits for the stream of encode(). Throws device_failure;
  /// non_finite, naming the first patch that holds a NaN or an infinity; and out_of_range if
  /// coefficients exceed the range of the bounds, naming the first such patch, if the decoded delta
  /// exceeds the range of the compute type, or if values are too small to be stored.
  static Tensor finish(const Encoding& encoding) {
    detail::DeviceOutcome outcome;
    detail::check_cuda(cudaMemcpyAsync(&outcome, encoding.outcome_, sizeof(outcome),
                                       cudaMemcpyDeviceToHost, encoding.stream_),
                       "cudaMemcpyAsync");
    detail::check_cuda(cudaStreamSynchronize(encoding.stream_), "cudaStreamSynchronize");
    Tensor tensor;
    tensor.rows_ = encoding.header_.rows;
    tensor.cols_ = encoding.header_.cols;
    tensor.scale_ = Encoder<Compute, false>::scale_of(outcome, encoding.header_);
    tensor.arrays_ = encoding.arrays_;
    return tensor;
  }

  /// out = delta^.
  template <class U>
  void decode(const Tensor& tensor, MatrixView<U> out, cudaStream_t stream = nullptr) const {
    check_matrix(out, "out");
    check_destination(out, "out");
    check_shape(out, tensor.rows_, tensor.cols_, "out");
    run<U, detail::DecodeMode::store>(tensor, 0, 0, {{}, out}, 1, stream);
  }

  /// weights += alpha * delta^, in place.
  template <class U>
  void decode_add(const Tensor& tensor, MatrixView<U> weights, double alpha = 1,
                  cudaStream_t stream = nullptr) const {
    decode_add(tensor, MatrixView<const U>(weights), weights, alpha, stream);
  }

  /// out = base + alpha * delta^. base and out must be the same elements or must not overlap.
  template <class U>
  void decode_add(const Tensor& tensor, MatrixView<const U> base, MatrixView<U> out,
                  double alpha = 1, cudaStream_t stream = nullptr) const {
    check_shape(out, tensor.rows_, tensor.cols_, "out");
    add_region(tensor, 0, 0, base, out, alpha, stream);
  }

  /// block += alpha * the rows and columns of delta^ that begin at (row, col).
  template <class U>
  void decode_add_block(const Tensor& tensor, std::size_t row, std::size_t col, MatrixView<U> block,
                        double alpha = 1, cudaStream_t stream = nullptr) const {
    detail::check_block(row, col, block.rows, block.cols, tensor.rows_, tensor.cols_);
    add_region(tensor, row, col, MatrixView<const U>(block), block, alpha, stream);
  }

 private:
  template <class U, bool Subtracts>
  using Encoder = detail::DeviceEncoder<Policy, U, Subtracts>;

  template <class U, bool Subtracts>
  Encoding encode_delta(const detail::DeviceDelta<Compute, U, Subtracts>& delta,
                        std::span<std::byte> memory, std::span<std::byte> workspace,
                        cudaStream_t stream) const {
    const Encoder<U, Subtracts> encoder(delta);
    const std::size_t patches = encoder.patches_of(delta.tuned.rows, delta.tuned.cols);
    const detail::DeviceWorkspace<Compute> arrays(workspace.data(), patches,
                                                  CudaKernels<Policy, U>::sorting_bytes(patches));
    check_memory(workspace, arrays.bytes, "workspace");
    check_memory(memory, 0, "memory");
    Encoding encoding;
    encoding.outcome_ = arrays.outcome;
    encoding.stream_ = stream;
    CudaKernels<Policy, U>::encode(
        encoder, allocator_, arrays, encoding.header_,
        [&](const TensorHeader& header) {
          const std::size_t bytes =
              detail::lay_out_on_device(header, memory.data(), encoding.arrays_);
          check_memory(memory, bytes, "memory");
          return encoding.arrays_;
        },
        stream);
    return encoding;
  }

  static void check_memory(std::span<std::byte> memory, std::size_t bytes, const char* what) {
    if (memory.size() < bytes) {
      throw Error(
          Errc::too_large, what,
          std::to_string(memory.size()) + " bytes where " + std::to_string(bytes) + " are needed");
    }
    if (reinterpret_cast<std::uintptr_t>(memory.data()) % alignment != 0) {
      throw Error(Errc::bad_view, what, "not aligned to " + std::to_string(alignment) + " bytes");
    }
  }

  template <class U>
  static void check_matrix(const MatrixView<U>& view, const char* what) {
    static_assert(std::same_as<compute_t<std::remove_const_t<U>>, Compute>,
                  "the views' elements must have the compute type of the policy");
    check_view(view, what);
    if (!view.empty() && reinterpret_cast<std::uintptr_t>(view.data) % sizeof(U) != 0) {
      throw Error(Errc::bad_view, what, "not aligned to its elements");
    }
  }

  template <class U>
  void add_region(const Tensor& tensor, std::size_t row, std::size_t col, MatrixView<const U> base,
                  MatrixView<U> out, double alpha, cudaStream_t stream) const {
    check_matrix(out, "out");
    check_destination(out, "out");
    check_matrix(base, "base");
    check_shape(base, out.rows, out.cols, "base");
    check_apart(base, out, "out");
    // check_apart() has passed, so base and out are either the same elements or apart.
    if (base.data == out.data)
      run<U, detail::DecodeMode::add_in_place>(tensor, row, col, {{}, out}, alpha, stream);
    else
      run<U, detail::DecodeMode::add>(tensor, row, col, {base, out}, alpha, stream);
  }

  template <class U, detail::DecodeMode Mode>
  static void run(const Tensor& tensor, std::size_t row, std::size_t col,
                  const detail::DeviceRows<U>& rows, double alpha, cudaStream_t stream) {
    using Kernel = detail::DecodeKernel<Policy, U, Mode>;
    const detail::DeviceRegion region(tensor.cols_, row, col, rows.out.rows, rows.out.cols, patch,
                                      Kernel::Threads::patches);
    const auto factor = detail::checked_factor<Compute>(alpha, tensor.scale_);
    CudaKernels<Policy, U>::decode(Kernel(tensor.arrays_, region, rows, factor), stream);
  }

  Allocator allocator_;
};

#if defined(__CUDACC__)

template <concepts::Policy Policy, concepts::Element U>
std::size_t CudaKernels<Policy, U>::sorting_bytes(std::size_t patches) {
  std::size_t scores = 0;
  std::size_t classes = 0;
  using Queue = detail::CudaQueue;
  detail::check_cuda(
      Queue::sort_scores<T>(nullptr, scores, nullptr, nullptr, nullptr, nullptr, patches, nullptr),
      "cub::DeviceRadixSort");
  detail::check_cuda(
      Queue::sort_classes(nullptr, classes, nullptr, nullptr, nullptr, nullptr, patches, nullptr),
      "cub::DeviceRadixSort");
  return std::max(scores, classes);
}

template <concepts::Policy Policy, concepts::Element U>
void CudaKernels<Policy, U>::encode(const detail::DeviceEncoder<Policy, U, true>& encoder,
                                    const typename Policy::Allocator& allocator,
                                    const detail::DeviceWorkspace<T>& workspace,
                                    TensorHeader& header, const LayOut& lay_out,
                                    cudaStream_t stream) {
  encoder.run(detail::CudaQueue{stream, workspace.sorting, workspace.sorting_bytes}, allocator,
              workspace, header, lay_out);
}

template <concepts::Policy Policy, concepts::Element U>
void CudaKernels<Policy, U>::encode(const detail::DeviceEncoder<Policy, U, false>& encoder,
                                    const typename Policy::Allocator& allocator,
                                    const detail::DeviceWorkspace<T>& workspace,
                                    TensorHeader& header, const LayOut& lay_out,
                                    cudaStream_t stream) {
  encoder.run(detail::CudaQueue{stream, workspace.sorting, workspace.sorting_bytes}, allocator,
              workspace, header, lay_out);
}

template <concepts::Policy Policy, concepts::Element U>
void CudaKernels<Policy, U>::decode(const Decode<detail::DecodeMode::store>& kernel,
                                    cudaStream_t stream) {
  detail::launch(kernel, stream);
}

template <concepts::Policy Policy, concepts::Element U>
void CudaKernels<Policy, U>::decode(const Decode<detail::DecodeMode::add>& kernel,
                                    cudaStream_t stream) {
  detail::launch(kernel, stream);
}

template <concepts::Policy Policy, concepts::Element U>
void CudaKernels<Policy, U>::decode(const Decode<detail::DecodeMode::add_in_place>& kernel,
                                    cudaStream_t stream) {
  detail::launch(kernel, stream);
}

#endif

}}  // namespace deltadct::inline DELTADCT_ABI
