// Baselines as codecs chosen at run time, for programs that write or read archives. Needs Eigen 3.
#pragma once

#include <deltadct/any_codec.hpp>
#include <deltadct/baseline/bit_delta.hpp>
#include <deltadct/baseline/dare.hpp>
#include <deltadct/baseline/delta_come.hpp>
#include <deltadct/baseline/ultra_delta.hpp>

namespace deltadct { inline namespace DELTADCT_ABI {

/// A baseline with its settings. Only encoders use the settings.
using AnyBaseline = std::variant<BitDelta, DeltaCome, Dare, UltraDelta>;

/// The spec of the codec of a baseline.
inline CodecSpec baseline_spec(const AnyBaseline& baseline) {
  return {.patch = 0,
          .transform = std::visit([]<class M>(const M&) { return std::string(M::name); }, baseline),
          .quantizer = {}};
}

/// The codec of a baseline. It computes in T, float or double.
template <concepts::Compute T>
std::unique_ptr<AnyCodec> make_baseline(const AnyBaseline& baseline) {
  return std::visit(
      []<class Method>(const Method& method) -> std::unique_ptr<AnyCodec> {
        using Codec = BaselineCodec<Method, T>;
        return std::make_unique<ErasedCodec<Codec>>(Codec(method));
      },
      baseline);
}

#ifdef DELTADCT_EXTERN_CODECS
// See make_codec() (any_codec.hpp).
extern template std::unique_ptr<AnyCodec> make_baseline<float>(const AnyBaseline&);
extern template std::unique_ptr<AnyCodec> make_baseline<double>(const AnyBaseline&);
#endif

/// The baseline with the budget of the spec, if the method has a budget.
inline AnyBaseline with_budget(AnyBaseline baseline, const CodecSpec& spec) {
  const BudgetAllocator* budget = spec.allocator.budget();
  auto* method = std::get_if<DeltaCome>(&baseline);
  if (budget != nullptr && method != nullptr) method->bits_per_weight = budget->bits_per_weight();
  return baseline;
}

/// The codec of a spec without patches, with the settings of `chosen` if that is its method. Throws
/// codec_mismatch if this version does not have the method.
inline std::unique_ptr<AnyCodec> make_baseline_codec(const CodecSpec& spec,
                                                     const AnyBaseline& chosen = {}) {
  for (const AnyBaseline& baseline : {chosen, AnyBaseline(BitDelta{}), AnyBaseline(DeltaCome{}),
                                      AnyBaseline(Dare{}), AnyBaseline(UltraDelta{})}) {
    if (baseline_spec(baseline).transform != spec.transform) continue;
    const AnyBaseline asked = with_budget(baseline, spec);
    return spec.double_precision ? make_baseline<double>(asked) : make_baseline<float>(asked);
  }
  throw Error(Errc::codec_mismatch, "method", "'" + spec.transform + "'");
}

/// A factory that makes the codecs of baselines, `chosen` with its settings, and leaves codecs with
/// patches to `others`.
inline CodecFactory with_baselines(const CodecFactory& others, const AnyBaseline& chosen = {}) {
  return [=](const CodecSpec& spec) {
    return spec.patch == 0 ? make_baseline_codec(spec, chosen) : others(spec);
  };
}

}}  // namespace deltadct::inline DELTADCT_ABI
