// What each subcommand takes and does. Results go to stdout; errors are thrown.
#pragma once

#include "codecs.hpp"

#include <deltadct/io/checkpoint.hpp>

#include <string>

namespace cli {

struct Common {
  std::string backend = "simd";
  int threads = 0;  ///< 0: as many as OpenMP likes
  bool force = false;
};

struct CompressArguments {
  std::string base, tuned, output;
  std::string preset = "paper";
  int patch = 16;
  std::string mix = "2:0.5,0:0.5";
  std::vector<std::string> include, exclude;
  std::string non_finite = "refuse";
  bool no_dct = false;
};

/// A mix such as "2:0.5,0:0.5". Throws deltadct::Error (bad_mix).
deltadct::RatioAllocator parse_mix(const std::string& text);

void compress(const CompressArguments& arguments, const Common& common);
void apply(const std::string& base, const std::string& delta, const std::string& output,
           const Common& common);
void inspect(const std::string& delta, bool json);
void verify(const std::string& delta, const std::string& base);
void diff(const std::string& base, const std::string& tuned, const std::string& other, bool json);

}  // namespace cli
