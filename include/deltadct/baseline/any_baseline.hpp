// Baselines among the codecs that are chosen at run time: for archives, and whoever reads them.
// Needs Eigen 3.
#pragma once

#include <deltadct/any_codec.hpp>
#include <deltadct/baseline/bit_delta.hpp>
#include <deltadct/baseline/dare.hpp>
#include <deltadct/baseline/delta_come.hpp>
#include <deltadct/baseline/ultra_delta.hpp>

namespace deltadct::inline DELTADCT_ABI {

/// A baseline with its settings. They matter to encoders only.
using AnyBaseline = std::variant<BitDelta, DeltaCome, Dare, UltraDelta>;

/// The spec of a baseline's codec.
inline CodecSpec baseline_spec(const AnyBaseline& baseline) {
  return {.patch = 0,
          .transform = std::visit([]<class M>(const M&) { return std::string(M::name); }, baseline),
          .quantizer = {}};
}

/// The codec of a baseline that computes in T, float or double.
template <concepts::Compute T>
std::unique_ptr<AnyCodec> make_baseline(const AnyBaseline& baseline) {
  return std::visit(
      []<class Method>(const Method& method) -> std::unique_ptr<AnyCodec> {
        using Codec = BaselineCodec<Method, T>;
        return std::make_unique<AnyCodecOf<Codec>>(Codec(method));
      },
      baseline);
}

#ifdef DELTADCT_EXTERN_CODECS
// As of make_codec() (any_codec.hpp): a program compiles them in one translation unit.
extern template std::unique_ptr<AnyCodec> make_baseline<float>(const AnyBaseline&);
extern template std::unique_ptr<AnyCodec> make_baseline<double>(const AnyBaseline&);
#endif

/// A baseline as a spec asks for it: within its budget, where the method has one.
inline AnyBaseline with_budget(AnyBaseline baseline, const CodecSpec& spec) {
  const BudgetAllocator* budget = spec.allocator.budget();
  auto* method = std::get_if<DeltaCome>(&baseline);
  if (budget != nullptr && method != nullptr) method->bits_per_weight = budget->bits_per_weight();
  return baseline;
}

/// The codec of a spec without patches, with the settings of `chosen` if that is its method. Throws
/// codec_mismatch where this version has none.
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

/// Makes the codecs of baselines, `chosen` with its settings, and by `others` those with patches.
inline CodecFactory with_baselines(CodecFactory others, AnyBaseline chosen = {}) {
  return [=](const CodecSpec& spec) {
    return spec.patch == 0 ? make_baseline_codec(spec, chosen) : others(spec);
  };
}

}  // namespace deltadct::inline DELTADCT_ABI
