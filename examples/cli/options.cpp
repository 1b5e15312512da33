// The meaning of options that several commands share.
#include "options.hpp"

#include "names.hpp"
#include "text.hpp"

#include <charconv>
#include <functional>
#include <map>
#include <stdexcept>

namespace cli {

using deltadct::Errc;
using deltadct::Error;
namespace io = deltadct::io;

io::ReadOptions reading(const Common& common) {
  io::ReadOptions options;
  options.access = common.reading.access == "read" ? io::Access::read : io::Access::map;
  options.links = common.reading.follow_links ? io::Links::follow : io::Links::refuse;
  options.unknown_dtype =
      common.reading.unknown_dtype == "keep" ? io::UnknownDType::keep : io::UnknownDType::refuse;
  options.strictness = common.reading.strict ? io::Strictness::strict : io::Strictness::lenient;
  for (const std::string& limit : common.reading.limits) set_limit(options.limits, limit);
  return options;
}

io::Model open_model(const std::string& path, const Common& common) {
  auto model = io::Model::open(path, reading(common));
  warn(model.warnings());
  return model;
}

io::Model open_base(const std::string& path, const Common& common) {
  auto model = open_model(path, common);
  if (common.reading.renames.empty()) return model;
  return renamed(std::move(model), common.reading.renames);
}

io::OutputOptions writing(const Common& common) {
  return {common.writing.force ? io::Overwrite::yes : io::Overwrite::no,
          common.writing.max_shard_bytes, common.writing.resume ? io::Resume::yes : io::Resume::no};
}

deltadct::CodecFactory patch_factory(const Common& common) {
  if (common.backend == "serial") return deltadct::make_codec<deltadct::Serial>;
  return deltadct::make_codec<deltadct::DefaultBackend>;
}

deltadct::RatioAllocator parse_mix(const std::string& text) {
  std::vector<deltadct::BitShare> mix;
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const char* at = text.data() + begin;
    const char* last = text.data() + end;
    deltadct::BitShare share{};
    const auto bits = std::from_chars(at, last, share.bits);
    const bool colon = bits.ec == std::errc{} && bits.ptr != last && *bits.ptr == ':';
    const auto ratio = colon ? std::from_chars(bits.ptr + 1, last, share.ratio)
                             : std::from_chars_result{at, std::errc::invalid_argument};
    if (ratio.ec != std::errc{} || ratio.ptr != last) {
      throw Error(Errc::bad_mix, "'" + text.substr(begin, end - begin) + "'",
                  "expected BITS:RATIO, as in 2:0.5,0:0.5");
    }
    mix.push_back(share);
    begin = end + 1;
  }
  return deltadct::RatioAllocator(std::move(mix));
}

void set_limit(io::Limits& limits, const std::string& text) {
  const std::size_t equals = std::min(text.find('='), text.size());
  const std::string name = text.substr(0, equals);
  double value = -1;
  const char* first = text.data() + std::min(equals + 1, text.size());
  const char* last = text.data() + text.size();
  const auto parsed = std::from_chars(first, last, value);
  if (parsed.ec != std::errc{} || parsed.ptr != last || !(value >= 0 && value <= 1e18)) {
    throw std::invalid_argument(
        "'" + text + "' is not a limit: expected NAME=NUMBER, as in tensors=1000, up to 1e18");
  }
  const auto whole = static_cast<std::uint64_t>(value);
  const std::map<std::string, std::function<void()>> setters = {
      {"bytes", [&] { limits.bytes = whole; }},
      {"tensors", [&] { limits.tensors = static_cast<std::size_t>(whole); }},
      {"header", [&] { limits.header_bytes = whole; }},
      {"rank", [&] { limits.rank = static_cast<std::size_t>(whole); }},
      {"depth", [&] { limits.depth = static_cast<int>(std::min(value, 1e6)); }},
      {"shards", [&] { limits.shards = static_cast<std::size_t>(whole); }},
      {"expansion", [&] { limits.expansion = value; }},
      {"file", [&] { limits.file_bytes = whole; }},
      {"files", [&] { limits.files_bytes = whole; }},
  };
  const auto setter = setters.find(name);
  if (setter == setters.end()) {
    throw std::invalid_argument("'" + text + "' is not a limit: unknown name");
  }
  setter->second();
}

}  // namespace cli
