// The codecs of the patch size CLI_PATCH. A translation unit a size keeps compilers' memory and
// time within bounds.
#include "codecs.hpp"

namespace cli {

template <>
std::unique_ptr<deltadct::AnyCodec> make_codec_of_patch<CLI_PATCH>(const deltadct::CodecSpec& spec,
                                                                   Backend backend) {
  return backend == Backend::serial
             ? deltadct::make_codec_of_size<deltadct::Serial, CLI_PATCH>(spec)
             : deltadct::make_codec_of_size<deltadct::DefaultBackend, CLI_PATCH>(spec);
}

}  // namespace cli
