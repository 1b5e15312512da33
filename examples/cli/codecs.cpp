// Which patch size goes to which translation unit.
#include "codecs.hpp"

namespace cli {

template <>
std::unique_ptr<deltadct::AnyCodec> make_codec_of_patch<4>(const deltadct::CodecSpec&, Backend);
template <>
std::unique_ptr<deltadct::AnyCodec> make_codec_of_patch<8>(const deltadct::CodecSpec&, Backend);
template <>
std::unique_ptr<deltadct::AnyCodec> make_codec_of_patch<12>(const deltadct::CodecSpec&, Backend);
template <>
std::unique_ptr<deltadct::AnyCodec> make_codec_of_patch<16>(const deltadct::CodecSpec&, Backend);
template <>
std::unique_ptr<deltadct::AnyCodec> make_codec_of_patch<32>(const deltadct::CodecSpec&, Backend);
template <>
std::unique_ptr<deltadct::AnyCodec> make_codec_of_patch<64>(const deltadct::CodecSpec&, Backend);

std::unique_ptr<deltadct::AnyCodec> make_codec(const deltadct::CodecSpec& spec, Backend backend) {
  const auto make = [&]() -> std::unique_ptr<deltadct::AnyCodec> {
    switch (spec.patch) {
      case 4:
        return make_codec_of_patch<4>(spec, backend);
      case 8:
        return make_codec_of_patch<8>(spec, backend);
      case 12:
        return make_codec_of_patch<12>(spec, backend);
      case 16:
        return make_codec_of_patch<16>(spec, backend);
      case 32:
        return make_codec_of_patch<32>(spec, backend);
      case 64:
        return make_codec_of_patch<64>(spec, backend);
      default:
        return nullptr;
    }
  };
  if (auto codec = make()) return codec;
  throw deltadct::Error(
      deltadct::Errc::codec_mismatch, "codec",
      "patch size " + std::to_string(spec.patch) + ", transform '" + spec.transform + "'");
}

}  // namespace cli
