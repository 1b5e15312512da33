// The codecs the command can choose from at run time, each patch size compiled on its own.
#pragma once

#include <deltadct/any_codec.hpp>

namespace cli {

enum class Backend { simd, serial };

/// The codec of a spec on a backend; throws deltadct::Error where there is none.
std::unique_ptr<deltadct::AnyCodec> make_codec(const deltadct::CodecSpec& spec, Backend backend);

/// The codecs of one patch size: codec_of_patch.cpp, compiled once for each.
template <int P>
std::unique_ptr<deltadct::AnyCodec> make_codec_of_patch(const deltadct::CodecSpec& spec,
                                                        Backend backend);

}  // namespace cli
