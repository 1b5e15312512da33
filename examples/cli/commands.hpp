// The arguments of each subcommand, and what it does. Results go to stdout; errors are thrown.
#pragma once

#include <deltadct/io/checkpoint.hpp>

#include <string>

namespace cli {

/// How inputs are read.
struct Reading {
  std::string access = "map";
  bool follow_links = false;
  std::string unknown_dtype = "refuse";
  bool strict = false;
  std::vector<std::string> limits;   ///< NAME=VALUE
  std::vector<std::string> renames;  ///< FROM=TO, of BASE's names
};

/// How outputs are written.
struct Writing {
  std::string output;
  std::uint64_t max_shard_bytes = 0;
  bool resume = false;
  bool force = false;
};

struct Common {
  std::string backend = "simd";
  int threads = 0;  ///< 0: as many as OpenMP chooses
  Reading reading;
  Writing writing;
};

struct CompressArguments {
  std::string base, tuned;
  std::string preset = "paper";
  int patch = 0;               ///< 0: the preset's
  std::string mix;             ///< empty: the preset's
  double bits_per_weight = 0;  ///< of the archive, over the weights that changed; 0: no budget
  std::uint64_t bytes = 0;     ///< of the archive; 0: no limit
  std::vector<std::string> include, exclude;
  std::string non_finite = "refuse";
  bool no_dct = false;
  bool no_files = false;
  bool allow_unlike = false;
  bool verbose = false;
};

struct ApplyArguments {
  std::string base, delta;
  bool force_base = false;
  bool in_place = false;
  std::string dtype = "base";
  std::string round = "nearest";
};

void compress(const CompressArguments& arguments, const Common& common);
void apply(const ApplyArguments& arguments, const Common& common);
void inspect(const std::string& delta, bool json, const Common& common);
void verify(const std::string& delta, const std::string& base, const Common& common);
void diff(const std::string& base, const std::string& tuned, const std::string& other, bool json,
          const Common& common);

}  // namespace cli
