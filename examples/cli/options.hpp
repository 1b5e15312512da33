// The meaning of options that several commands share.
#pragma once

#include "commands.hpp"

namespace cli {

deltadct::io::ReadOptions reading(const Common& common);
/// Opens a model and prints its warnings.
deltadct::io::Model open_model(const std::string& path, const Common& common);
/// Opens a base and renames its tensors as requested.
deltadct::io::Model open_base(const std::string& path, const Common& common);

deltadct::io::OutputOptions writing(const Common& common);

/// A factory for codecs with patches, on the requested backend.
deltadct::CodecFactory patch_factory(const Common& common);

/// Sets a limit from a text such as "tensors=1000". Throws std::invalid_argument for an unknown
/// name or a value that is not a number.
void set_limit(deltadct::io::Limits& limits, const std::string& text);

/// Parses a mix such as "2:0.5,0:0.5". Throws deltadct::Error (bad_mix).
deltadct::RatioAllocator parse_mix(const std::string& text);

}  // namespace cli
