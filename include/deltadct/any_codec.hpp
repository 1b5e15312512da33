// AnyCodec: a codec whose patch size, transform and element type are chosen at run time, for
// programs that read archives written by others. Opt-in, because make_codec() instantiates every
// combination.
#pragma once

#include <deltadct/codec.hpp>
#include <deltadct/core/text.hpp>

#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <type_traits>
#include <variant>

namespace deltadct { inline namespace DELTADCT_ABI {

/// A reference to any executor, for calls through a virtual function. The executor must outlive it.
class ExecutorRef {
 public:
  template <concepts::Executor E>
  requires(!std::same_as<E, ExecutorRef>) ExecutorRef(const E& executor)
  noexcept
      : executor_(&executor), run_([](const void* e, std::size_t n, const void* fn, Call call) {
          static_cast<const E*>(e)->parallel_for(n, [=](std::size_t i) { call(fn, i); });
        }) {}

  template <class Fn>
  void parallel_for(std::size_t n, Fn&& fn) const {
    run_(executor_, n, &fn, [](const void* f, std::size_t i) {
      (*static_cast<const std::remove_cvref_t<Fn>*>(f))(i);
    });
  }

 private:
  using Call = void (*)(const void*, std::size_t);

  const void* executor_;
  void (*run_)(const void*, std::size_t, const void*, Call);
};

/// An allocator that is chosen at run time.
class AnyAllocator {
 public:
  AnyAllocator() = default;
  AnyAllocator(std::initializer_list<BitShare> mix) : chosen_(RatioAllocator(mix)) {}
  AnyAllocator(RatioAllocator allocator) : chosen_(std::move(allocator)) {}
  AnyAllocator(BudgetAllocator allocator) : chosen_(allocator) {}

  std::span<const int> widths() const {
    return std::visit([](const auto& a) { return std::span<const int>(a.widths()); }, chosen_);
  }

  template <class Score>
  void allocate(const PatchGrid& grid, std::span<const Score> scores,
                std::span<std::uint32_t> order, std::span<std::uint32_t> classes) const {
    if (budget() != nullptr)
      budget()->allocate(grid, scores, order, classes);
    else
      std::get<RatioAllocator>(chosen_).allocate(scores, order, classes);
  }

  /// The mix. Requires that budget() is null.
  std::span<const BitShare> mix() const { return std::get<RatioAllocator>(chosen_).mix(); }

  /// The budget, or null if the allocator is a mix.
  const BudgetAllocator* budget() const noexcept { return std::get_if<BudgetAllocator>(&chosen_); }

  /// Everything that its choices depend on, for people and for comparison.
  std::string text() const {
    if (budget() != nullptr) {
      return "budget " + detail::exact_text(budget()->bits_per_weight());
    }
    std::string text = "mix";
    for (const BitShare& share : std::get<RatioAllocator>(chosen_).mix()) {
      text += " " + std::to_string(share.bits) + ":" + detail::exact_text(share.ratio);
    }
    return text;
  }

 private:
  std::variant<RatioAllocator, BudgetAllocator> chosen_;
};

/// What distinguishes one codec from another at run time. Only encoders use the allocator. For a
/// method without patches (baseline/any_baseline.hpp), patch is 0, transform is the method's name
/// and quantizer is empty.
struct CodecSpec {
  int patch = 16;
  std::string transform{Dct::name};
  std::string quantizer{MinMax<0>::name};
  bool double_precision = false;  ///< for matrices of double
  AnyAllocator allocator{};
};

/// The spec of UnitGainPolicy, with one bit for every coefficient.
inline CodecSpec unit_gain_spec() {
  return {.patch = 32,
          .transform = std::string(RandomizedDct::name),
          .quantizer = std::string(Gaussian<0>::name),
          .allocator = {{1, 1.0}}};
}

/// Bytes that a patch of that codec stores beside its codes.
inline constexpr std::size_t kUnitGainBoundsBytes = sizeof(UnitGainPolicy<float, 32>::Bound);

/// A DeltaCodec behind virtual functions. Matrices must be dense, row-major and aligned to their
/// dtype. Every method with a dtype throws unsupported_dtype if that is not an element type, and
/// codec_mismatch if its compute type is not the codec's.
class AnyCodec {
 public:
  virtual ~AnyCodec() = default;

  /// Names what the last digit of a result may depend on: backend, version and instruction set.
  virtual std::string build() const = 0;

  /// See DeltaCodec::max_compressed_bytes().
  virtual std::size_t max_compressed_bytes(std::size_t rows, std::size_t cols) const = 0;

  /// See DeltaCodec::encode_into(). The workspace grows as needed.
  virtual void encode_into(CompressedTensor& out, std::vector<std::byte>& workspace, DType dtype,
                           const void* base, const void* tuned, std::size_t rows, std::size_t cols,
                           const ExecutorRef& executor) const = 0;

  /// See DeltaCodec::validate().
  virtual void validate(const CompressedView& compressed, DType dtype) const = 0;

  /// out = base + alpha * delta^. base and out must be the same or must not overlap. See
  /// DeltaCodec::decode_add().
  virtual void decode_add(const CompressedView& compressed, DType dtype, const void* base,
                          void* out, double alpha, const ExecutorRef& executor) const = 0;

  /// See DeltaCodec::decode_add_block(). The block must be dense, rows x cols.
  virtual void decode_add_block(const CompressedView& compressed, DType dtype, std::size_t row,
                                std::size_t col, void* block, std::size_t rows, std::size_t cols,
                                double alpha, const ExecutorRef& executor) const = 0;
};

/// The AnyCodec of a DeltaCodec, or of a type with the same members.
template <class Codec>
class ErasedCodec final : public AnyCodec {
 public:
  explicit ErasedCodec(Codec codec) : codec_(std::move(codec)) {}

  std::string build() const override { return codec_.build(); }

  std::size_t max_compressed_bytes(std::size_t rows, std::size_t cols) const override {
    return codec_.max_compressed_bytes(rows, cols);
  }

  void encode_into(CompressedTensor& out, std::vector<std::byte>& workspace, DType dtype,
                   const void* base, const void* tuned, std::size_t rows, std::size_t cols,
                   const ExecutorRef& executor) const override {
    workspace.resize(std::max(workspace.size(), codec_.encode_workspace_bytes(rows, cols)));
    with_typed(dtype, [&]<class U>() {
      codec_.encode_into(out, workspace,
                         MatrixView<const U>(static_cast<const U*>(base), rows, cols),
                         MatrixView<const U>(static_cast<const U*>(tuned), rows, cols), executor);
    });
  }

  void validate(const CompressedView& compressed, DType dtype) const override {
    codec_.validate(compressed);
    with_typed(dtype, []<class U>() {});
  }

  void decode_add(const CompressedView& compressed, DType dtype, const void* base, void* out,
                  double alpha, const ExecutorRef& executor) const override {
    const TensorHeader& header = detail::header_of(compressed);
    with_typed(dtype, [&]<class U>() {
      codec_.decode_add(
          compressed, MatrixView<const U>(static_cast<const U*>(base), header.rows, header.cols),
          MatrixView<U>(static_cast<U*>(out), header.rows, header.cols), alpha, executor);
    });
  }

  void decode_add_block(const CompressedView& compressed, DType dtype, std::size_t row,
                        std::size_t col, void* block, std::size_t rows, std::size_t cols,
                        double alpha, const ExecutorRef& executor) const override {
    with_typed(dtype, [&]<class U>() {
      codec_.decode_add_block(compressed, row, col,
                              MatrixView<U>(static_cast<U*>(block), rows, cols), alpha, executor);
    });
  }

 private:
  template <class Fn>
  static void with_typed(DType dtype, Fn&& fn) {
    if (!is_element(dtype)) throw Error(Errc::unsupported_dtype, dtype_text(dtype));
    with_element(dtype, [&]<class U>() {
      if constexpr (std::same_as<compute_t<U>, typename Codec::Compute>)
        fn.template operator()<U>();
      else
        throw Error(Errc::codec_mismatch, dtype_name(dtype), "its compute type is not the codec's");
    });
  }

  Codec codec_;
};

/// A policy whose allocator is chosen at run time.
template <concepts::Policy Policy>
struct RuntimePolicy : Policy {
  using Allocator = AnyAllocator;
};

/// The AnyCodec of one policy and backend.
template <concepts::Policy Policy, class Backend = DefaultBackend>
std::unique_ptr<AnyCodec> make_policy_codec(AnyAllocator allocator = {}) {
  using Codec = DeltaCodec<RuntimePolicy<Policy>, Backend>;
  return std::make_unique<ErasedCodec<Codec>>(Codec(std::move(allocator)));
}

/// The codec of a spec whose patch size is P, or nullptr if there is no such transform or
/// quantizer.
template <class Backend, int P>
std::unique_ptr<AnyCodec> make_sized_codec(const CodecSpec& spec) {
  const auto make_if = [&]<class Policy>() -> std::unique_ptr<AnyCodec> {
    if (spec.transform != Policy::Transform::name ||
        spec.quantizer != Policy::template Quantizer<0>::name) {
      return nullptr;
    }
    return make_policy_codec<Policy, Backend>(spec.allocator);
  };
  const auto make = [&]<class T>() -> std::unique_ptr<AnyCodec> {
    auto codec = make_if.template operator()<DefaultPolicy<T, P>>();
    if (!codec) codec = make_if.template operator()<WithoutDct<T, P>>();
    // In smaller patches the steps would cost more than they gain.
    if constexpr (P >= 16) {
      if (!codec) codec = make_if.template operator()<UnitGainPolicy<T, P>>();
    }
    return codec;
  };
  return spec.double_precision ? make.template operator()<double>()
                               : make.template operator()<float>();
}

/// The codec of a spec. The paper's codec, with or without the DCT, exists for every patch size;
/// unit gain exists for 16, 32 and 64. Throws codec_mismatch if this version has no such codec.
template <class Backend = DefaultBackend>
std::unique_ptr<AnyCodec> make_codec(const CodecSpec& spec) {
  const auto make = [&]() -> std::unique_ptr<AnyCodec> {
    switch (spec.patch) {
      case 4:
        return make_sized_codec<Backend, 4>(spec);
      case 8:
        return make_sized_codec<Backend, 8>(spec);
      case 12:
        return make_sized_codec<Backend, 12>(spec);
      case 16:
        return make_sized_codec<Backend, 16>(spec);
      case 32:
        return make_sized_codec<Backend, 32>(spec);
      case 64:
        return make_sized_codec<Backend, 64>(spec);
      default:
        return nullptr;
    }
  };
  if (auto codec = make()) return codec;
  throw Error(Errc::codec_mismatch, "codec",
              "patch size " + std::to_string(spec.patch) + ", transform '" + spec.transform +
                  "', quantizer '" + spec.quantizer + "'");
}

#ifdef DELTADCT_EXTERN_CODECS
// The target deltadct::codecs defines this macro and has the definitions.
extern template std::unique_ptr<AnyCodec> make_codec<Serial>(const CodecSpec&);
extern template std::unique_ptr<AnyCodec> make_codec<DefaultBackend>(const CodecSpec&);
#endif

/// Makes codecs. A reader of archives calls it once for every codec that an archive names.
using CodecFactory = std::function<std::unique_ptr<AnyCodec>(const CodecSpec&)>;

}}  // namespace deltadct::inline DELTADCT_ABI
