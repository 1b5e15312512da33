// What options of several commands mean.
#pragma once

#include "commands.hpp"

namespace cli {

deltadct::io::ReadOptions reading(const Common& common);
/// Opens a model, and tells what there is to say of it.
deltadct::io::Model open_model(const std::string& path, const Common& common);
/// Opens a base, and gives its tensors the names that were asked for.
deltadct::io::Model open_base(const std::string& path, const Common& common);

deltadct::io::OutputOptions writing(const Common& common);

/// Makes the codecs with patches of the backend that was asked for.
deltadct::CodecFactory patch_factory(const Common& common);

/// A limit such as "tensors=1000" put into limits. Throws std::invalid_argument for another name or
/// no number.
void set_limit(deltadct::io::Limits& limits, const std::string& text);

/// A mix such as "2:0.5,0:0.5". Throws deltadct::Error (bad_mix).
deltadct::RatioAllocator parse_mix(const std::string& text);

}  // namespace cli
