// The presets that are published methods of others.
#pragma once

#include "commands.hpp"

namespace cli {

bool is_baseline(const std::string& preset);

/// A factory for the codecs of baselines; `others` makes those with patches.
deltadct::CodecFactory with_baselines(const deltadct::CodecFactory& others);

/// The same for compressing with these arguments. Also sets the options' codec.
deltadct::CodecFactory with_preset(const CompressArguments& arguments,
                                   const deltadct::io::Model& base,
                                   const deltadct::io::Model& tuned,
                                   deltadct::io::CompressOptions& options,
                                   const deltadct::CodecFactory& others);

}  // namespace cli
