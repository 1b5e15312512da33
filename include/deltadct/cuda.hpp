// Opt-in: the CUDA backend. Base, deltas and what they add up to lie in a device's memory; nothing
// is allocated there, and nothing waits, but where it says so.
//
//     DeltaCodec<Policy, Cuda> codec;
//     tensor = codec.upload(compressed, memory, stream)         host -> device, checked
//     codec.decode_add(tensor, weights, alpha, stream)          one pass over the weights
//
//     encoding = codec.encode(base, tuned, memory, workspace, stream)
//     tensor = codec.finish(encoding)                           waits
//     compressed = codec.download(tensor, stream)               device -> host, waits
//
// Needs the CUDA Toolkit (link cudart). Kernels are compiled by nvcc, with
// --expt-relaxed-constexpr: in a file of its, `template struct deltadct::CudaKernels<Policy,
// Element>;` compiles those of a policy for one type of element, and any other file, of any
// compiler, may use them. Both are compiled for the same instruction set of the host, else the
// linker does not find them.
#pragma once

#include <deltadct/backend/cuda/cuda.hpp>
#include <deltadct/codec.hpp>
#include <deltadct/codec/device/decode.hpp>
#include <deltadct/codec/device/encode.hpp>

#include <functional>

#if defined(__CUDACC__)
  #include <deltadct/codec/device/queue.hpp>
#endif

namespace deltadct::inline DELTADCT_ABI {

/// A compressed matrix in a device's memory, of which it is a view: cheap to copy, valid as long as
/// the memory holds what upload() wrote. Made only of what was checked on the host, by the codec of
/// its policy.
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

/// The kernels of a policy for matrices of U; see above.
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
  /// What sorting so many patches takes of the device's memory.
  static std::size_t sorting_bytes(std::size_t patches);
};

/// The codec of a policy on a device. Results agree with those of the other backends but for the
/// last place of sums.
///
/// Views are of the device's memory, of any element type whose compute type is the policy's. Those
/// whose rows are contiguous and, for elements of two bytes, begin at multiples of four, are read
/// and written fastest. Methods enqueue on the stream and return, and throw what they find before:
/// as their namesakes of DeltaCodec; bad_view where a pointer is not aligned to its elements; and
/// device_failure where there is no device, its driver is too old, the program was not compiled for
/// its architecture, or a kernel's stream is another device's. Those that neither wait nor copy
/// from or to the host are safe while a stream is captured.
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

  /// Memory that is passed here begins at a multiple of this.
  static constexpr std::size_t alignment = detail::kDeviceAlignment;
  /// What upload() takes of the device's memory. Throws corrupt_data where the header is none that
  /// encode() could have made.
  static std::size_t device_bytes(const TensorHeader& header) {
    validate_header(header);
    detail::DeviceArrays arrays{};
    return detail::lay_out_on_device(header, nullptr, arrays);
  }

  /// Enqueues the copies of a tensor, which stays as it is until they are made: pinned memory is
  /// copied without the host, any other may be waited for. Throws what validate() throws,
  /// codec_mismatch where the bounds are of another dtype than the policy's, too_large where the
  /// memory is not enough, bad_view where it is not aligned, and device_failure.
  static Tensor upload(const CompressedView& compressed, std::span<std::byte> memory,
                       cudaStream_t stream = nullptr) {
    const TensorHeader& header = detail::header_of(compressed);
    DeltaCodec<Policy, Serial>::validate(compressed);
    if (header.bound != dtype_of<typename Policy::Bound>()) {
      throw Error(Errc::codec_mismatch, "dtype of the bounds", dtype_name(header.bound));
    }
    if (!compressed.outliers.empty()) {
      throw Error(Errc::codec_mismatch, "outliers", "which kernels do not add");
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

  /// A tensor in the host's memory; waits for the stream. Throws device_failure.
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

  /// Bytes of the device's memory that encode() takes as workspace, for matrices of U. Throws
  /// too_large where encode() would.
  template <class U = typename Policy::Element>
  static std::size_t encode_workspace_bytes(std::size_t rows, std::size_t cols) {
    const std::size_t patches = Encoder<U, false>::patches_of(rows, cols);
    return detail::DeviceWorkspace<Compute>(nullptr, patches,
                                            CudaKernels<Policy, U>::sorting_bytes(patches))
        .bytes;
  }

  /// An upper bound of device_bytes() for a matrix of that shape, whatever it holds. Throws
  /// too_large where encode() would.
  std::size_t max_device_bytes(std::size_t rows, std::size_t cols) const {
    const DeltaCodec<Policy, Serial> host(allocator_);
    constexpr std::size_t padding = (1 + 2 * kMaxWidthClasses) * alignment;
    return checked_size(SaturatingSize(host.max_compressed_bytes(rows, cols)) + padding, rows,
                        cols);
  }

  /// Compresses tuned - base into `memory`, of device_bytes() of what results; enough is
  /// max_device_bytes(). Both it and the workspace stay as they are until finish(). Allocators that
  /// give out bits by rank alone, as the paper's does, need nothing of the host, and nothing is
  /// enqueued where this throws; others are called with the scores, for which it waits. Throws
  /// shape_mismatch, bad_view, too_large, what the allocator throws, bad_mix where its widths or
  /// counts are none, and device_failure.
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

  /// What was encoded; waits for the stream of encode(). Throws device_failure, and non_finite with
  /// the first patch that holds a NaN or an infinity, or whose coefficients leave the range of the
  /// bounds, and where the delta leaves that of the compute type.
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

  /// out = base + alpha * delta^. base and out are the same elements or do not overlap.
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
    const detail::DeviceWorkspace<Compute> arrays(
        workspace.data(), patches, CudaKernels<Policy, U>::sorting_bytes(patches));
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
    // Apart, or the same elements, as was checked.
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
  const T* values = nullptr;
  T* sorted = nullptr;
  const std::uint32_t* index = nullptr;
  std::uint32_t* order = nullptr;
  using Queue = detail::CudaQueue;
  detail::check_cuda(
      Queue::sort_scores(nullptr, scores, values, sorted, index, order, patches, nullptr),
      "cub::DeviceRadixSort");
  detail::check_cuda(
      Queue::sort_classes(nullptr, classes, index, order, index, order, patches, nullptr),
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

}  // namespace deltadct::inline DELTADCT_ABI
