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

/// The codec of a spec without patches, with the settings of `chosen` if that is its method. Throws
/// codec_mismatch where this version has none.
inline std::unique_ptr<AnyCodec> make_baseline_codec(const CodecSpec& spec,
                                                     const AnyBaseline& chosen = {}) {
  std::unique_ptr<AnyCodec> codec;
  const auto make = [&]<class Method, class Element>() {
    const auto* method = std::get_if<Method>(&chosen);
    using Codec = BaselineCodec<Method, Element>;
    codec = std::make_unique<AnyCodecOf<Codec>>(Codec(method != nullptr ? *method : Method{}));
  };
  const auto make_if = [&]<class Method>() {
    if (spec.transform != Method::name) return;
    if (spec.double_precision)
      make.template operator()<Method, double>();
    else
      make.template operator()<Method, float>();
  };
  [&]<class... Methods>(std::type_identity<std::variant<Methods...>>) {
    (make_if.template operator()<Methods>(), ...);
  }(std::type_identity<AnyBaseline>{});
  if (codec) return codec;
  throw Error(Errc::codec_mismatch, "method", "'" + spec.transform + "'");
}

/// Makes the codecs of baselines, `chosen` with its settings, and by `others` those with patches.
inline CodecFactory with_baselines(CodecFactory others, AnyBaseline chosen = {}) {
  return [=](const CodecSpec& spec) {
    return spec.patch == 0 ? make_baseline_codec(spec, chosen) : others(spec);
  };
}

}  // namespace deltadct::inline DELTADCT_ABI
