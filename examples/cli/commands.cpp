// The subcommands.
#include "commands.hpp"

#include "baselines.hpp"
#include "measures.hpp"
#include "progress.hpp"

#include <deltadct/any_codec.hpp>
#include <deltadct/openmp.hpp>

#include <charconv>
#include <cstdio>
#include <functional>
#include <iostream>
#include <map>
#include <optional>
#include <regex>
#include <stdexcept>

namespace cli {

using deltadct::Errc;
using deltadct::Error;
namespace io = deltadct::io;

namespace {

io::ReadOptions reading(const Common& common) {
  io::ReadOptions options;
  options.access = common.reading.access == "read" ? io::Access::read : io::Access::map;
  options.links = common.reading.follow_links ? io::Links::follow : io::Links::refuse;
  for (const std::string& limit : common.reading.limits) set_limit(options.limits, limit);
  return options;
}

io::OutputOptions writing(const Common& common) {
  return {common.writing.force ? io::Overwrite::yes : io::Overwrite::no,
          common.writing.max_shard_bytes, common.writing.resume ? io::Resume::yes : io::Resume::no};
}

deltadct::CodecFactory patch_factory(const Common& common) {
  if (common.backend == "serial") return deltadct::make_codec<deltadct::Serial>;
  return deltadct::make_codec<deltadct::DefaultBackend>;
}

deltadct::CodecFactory factory(const Common& common) {
  return with_baselines(patch_factory(common));
}

std::vector<std::regex> compile(const std::vector<std::string>& patterns) {
  return {patterns.begin(), patterns.end()};
}

bool matches(const std::vector<std::regex>& patterns, std::string_view name) {
  // The standard library's matcher takes a stack frame a character.
  constexpr std::size_t kLongest = 4096;
  if (!patterns.empty() && name.size() > kLongest) {
    throw Error(Errc::limit_exceeded, io::detail::printable(name), "too long a name for a pattern");
  }
  return std::ranges::any_of(patterns, [&](const std::regex& pattern) {
    return std::regex_search(name.begin(), name.end(), pattern);
  });
}

double per_weight(std::uint64_t bytes, std::uint64_t elements) {
  return elements == 0 ? 0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(elements);
}

/// "12 delta, 3 same": the modes that occur.
std::string modes_text(const io::CheckpointReport& report) {
  std::string text;
  for (const io::Mode mode : io::kModes) {
    if (report.count(mode) == 0) continue;
    text += (text.empty() ? "" : ", ") + std::to_string(report.count(mode)) + " " +
            std::string(io::mode_name(mode));
  }
  return text.empty() ? "none" : text;
}

void print_summary(const io::CheckpointReport& report, double seconds) {
  const auto model = static_cast<double>(report.model_bytes);
  std::printf("tensors          %s\n", modes_text(report).c_str());
  std::printf("size             %s, %.2f times smaller than %s\n",
              bytes_text(static_cast<double>(report.file_bytes)).c_str(),
              model / static_cast<double>(std::max<std::uint64_t>(report.file_bytes, 1)),
              bytes_text(model).c_str());
  std::printf("bits per weight  %.3f (every byte of the archive over every weight)\n",
              report.bits_per_weight());
  std::printf("  of the deltas  %.3f with bounds and widths, %.3f codes alone\n",
              per_weight(report.delta_bytes, report.delta_elements),
              per_weight(report.code_bytes, report.delta_elements));
  std::printf("time             %.2f s, %.2f GB/s\n", seconds, model / seconds / 1e9);
}

nlohmann::json entry_json(const io::DeltaArchive& archive, const io::ManifestEntry& entry) {
  nlohmann::json json = {{"name", entry.name},
                         {"mode", io::mode_name(entry.mode)},
                         {"dtype", deltadct::dtype_name(entry.dtype)},
                         {"shape", entry.shape},
                         {"bytes", archive.stored_bytes(entry)}};
  if (entry.base && entry.base->dtype != entry.dtype) {
    json["base_dtype"] = deltadct::dtype_name(entry.base->dtype);
  }
  if (entry.base && entry.base->shape != entry.shape) json["base_shape"] = entry.base->shape;
  if (!entry.reason.empty()) json["reason"] = entry.reason;
  if (!entry.target.empty()) json["target"] = entry.target;
  if (entry.matrices.empty()) return json;
  const deltadct::TensorHeader& codec = entry.matrices[0];
  json["stack"] = {entry.stack.count, entry.stack.rows, entry.stack.cols};
  if (codec.patch == 0) {
    json["method"] = codec.transform;
    return json;
  }
  json["patch"] = codec.patch;
  json["transform"] = codec.transform;
  json["quantizer"] = codec.quantizer;
  json["bound"] = deltadct::dtype_name(codec.bound);
  json["matrices"] = nlohmann::json::array();
  for (const deltadct::TensorHeader& header : entry.matrices) {
    nlohmann::json widths = nlohmann::json::array();
    for (const auto& k : header.classes) {
      widths.push_back({{"bits", k.bits}, {"patches", k.patches}});
    }
    json["matrices"].push_back({{"scale", header.scale}, {"widths", widths}});
  }
  return json;
}

/// What a person wants to know of an entry beside its size.
std::string remark(const io::ManifestEntry& entry) {
  std::string text;
  const auto append = [&](const std::string& part) {
    text += (text.empty() ? "" : ", ") + io::detail::printable(part);
  };
  if (entry.base && entry.base->dtype != entry.dtype) {
    append("base " + std::string(deltadct::dtype_name(entry.base->dtype)));
  }
  if (entry.base && entry.base->shape != entry.shape) {
    append("base " + io::shape_text(entry.base->shape));
  }
  if (!entry.reason.empty()) append(entry.reason);
  if (!entry.target.empty()) append("as " + entry.target);
  if (entry.matrices.empty()) return text;
  if (entry.matrices[0].patch == 0) {
    append(entry.matrices[0].transform);
    return text;
  }
  std::map<int, std::size_t, std::greater<>> patches;
  for (const deltadct::TensorHeader& header : entry.matrices) {
    for (const auto& k : header.classes) patches[k.bits] += k.patches;
  }
  std::string codec =
      "P=" + std::to_string(entry.matrices[0].patch) + " " + entry.matrices[0].transform;
  for (const auto& [bits, count] : patches) {
    codec += " " + std::to_string(bits) + "b:" + std::to_string(count);
  }
  append(codec);
  return text;
}

void inspect_text(const io::DeltaArchive& archive, double bits_per_weight) {
  std::printf("%-44s %-8s %-7s %-16s %12s %8s  %s\n", "tensor", "mode", "dtype", "shape", "bytes",
              "bits", "remarks");
  for (const io::ManifestEntry& entry : archive.entries()) {
    const std::uint64_t bytes = archive.stored_bytes(entry);
    std::printf("%-44s %-8s %-7s %-16s %12llu %8.3f  %s\n",
                io::detail::printable(entry.name).c_str(),
                std::string(io::mode_name(entry.mode)).c_str(),
                std::string(deltadct::dtype_name(entry.dtype)).c_str(),
                io::shape_text(entry.shape).c_str(), static_cast<unsigned long long>(bytes),
                per_weight(bytes, io::elements(entry.shape)), remark(entry).c_str());
  }
  std::printf("total: %s, %.3f bits per weight\n",
              bytes_text(static_cast<double>(archive.file_bytes())).c_str(), bits_per_weight);
}

/// Elements of a floating tensor as doubles.
std::vector<double> values(const io::Model& model, const io::ModelTensor& tensor) {
  io::TensorBytes bytes;
  model.read(tensor, bytes);
  bytes.align(deltadct::dtype_bytes(tensor.dtype));
  std::vector<double> result(tensor.elements());
  deltadct::with_element(tensor.dtype, [&]<class T>() {
    const auto* from = reinterpret_cast<const T*>(bytes.bytes().data());
    for (std::size_t i = 0; i < result.size(); ++i) {
      result[i] = static_cast<double>(static_cast<deltadct::compute_t<T>>(from[i]));
    }
  });
  bytes.release();
  return result;
}

Measures measure(const io::Model& base, const io::ModelTensor& base_tensor, const io::Model& tuned,
                 const io::ModelTensor& tuned_tensor, const io::Model& other,
                 const io::ModelTensor& other_tensor) {
  const auto b = values(base, base_tensor);
  const auto t = values(tuned, tuned_tensor);
  const auto o = values(other, other_tensor);
  Measures measures;
  for (std::size_t i = 0; i < b.size(); ++i) measures.add(t[i] - b[i], o[i] - b[i]);
  return measures;
}

/// The tensor of `other` that is to be judged by one of the fine-tune's.
const io::ModelTensor& judged(const io::Model& other, const io::ModelTensor& tensor) {
  const io::ModelTensor* found = other.find(tensor.name);
  const std::string where = io::detail::tensor_place(other.path().string(), tensor.name);
  if (found == nullptr) throw Error(Errc::missing_tensor, where);
  if (!deltadct::is_element(found->dtype)) {
    throw Error(Errc::unsupported_dtype, where, deltadct::dtype_name(found->dtype));
  }
  if (found->shape != tensor.shape) {
    throw Error(
        Errc::shape_mismatch, where,
        io::shape_text(found->shape) + " where the fine-tune has " + io::shape_text(tensor.shape));
  }
  return *found;
}

// JSON has no infinity; an exact reconstruction or an empty delta is null there.
nlohmann::json measures_json(const Measures& m) {
  const auto number = [](double x) -> nlohmann::json {
    return std::isfinite(x) ? nlohmann::json(x) : nlohmann::json(nullptr);
  };
  return {{"snr_db", number(m.snr())},
          {"gain", number(m.gain())},
          {"cosine", number(m.cosine())},
          {"mean_abs_ratio", number(m.mean_abs_ratio())}};
}

void print_measures(const std::string& name, const Measures& m) {
  std::printf("%-44s %9.3f %8.4f %8.4f %8.4f\n", io::detail::printable(name).c_str(), m.snr(),
              m.gain(), m.cosine(), m.mean_abs_ratio());
}

}  // namespace

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
  };
  const auto setter = setters.find(name);
  if (setter == setters.end()) {
    throw std::invalid_argument("'" + text + "' is not a limit: there is none of this name");
  }
  setter->second();
}

void compress(const CompressArguments& arguments, const Common& common) {
  io::CompressOptions options;
  if (arguments.preset == "unit_gain") options.codec = deltadct::unit_gain_spec();
  if (arguments.no_dct) options.codec.transform = deltadct::Identity::name;
  if (arguments.patch != 0) options.codec.patch = arguments.patch;
  if (!arguments.mix.empty()) options.codec.allocator = parse_mix(arguments.mix);
  if (arguments.preset == "unit_gain" && arguments.bits_per_weight != 0) {
    options.codec.allocator = deltadct::BudgetAllocator(arguments.bits_per_weight);
  }
  options.lossless = arguments.preset == "lossless";
  options.non_finite = arguments.non_finite == "keep" ? io::NonFinite::keep : io::NonFinite::refuse;
  options.output = writing(common);
  const auto include = compile(arguments.include);
  const auto exclude = compile(arguments.exclude);
  options.selected = [&](std::string_view name) {
    return (include.empty() || matches(include, name)) && !matches(exclude, name);
  };
  const auto base = io::Model::open(arguments.base, reading(common));
  const auto tuned = io::Model::open(arguments.tuned, reading(common));
  const deltadct::OpenMpExecutor executor{common.threads};
  deltadct::CodecFactory codecs = patch_factory(common);
  if (is_baseline(arguments.preset)) {
    codecs = with_preset(arguments, base, tuned, options, std::move(codecs));
  }
  io::CheckpointReport report;
  double seconds = 0;
  {
    ProgressReport progress("compress");
    report = io::compress_model(base, tuned, common.writing.output, options, codecs, executor,
                                std::ref(progress));
    seconds = progress.seconds();
  }
  print_summary(report, seconds);
}

void apply(const std::string& base_path, const std::string& delta, bool force_base,
           const Common& common) {
  const auto base = io::Model::open(base_path, reading(common));
  const auto archive = io::DeltaArchive::open(delta, reading(common));
  const deltadct::OpenMpExecutor executor{common.threads};
  const io::ApplyOptions options{force_base ? io::WrongBase::accept : io::WrongBase::refuse,
                                 writing(common)};
  io::CheckpointReport report;
  double seconds = 0;
  {
    ProgressReport progress("apply");
    report = io::apply_archive(base, archive, common.writing.output, options, factory(common),
                               executor, std::ref(progress));
    seconds = progress.seconds();
  }
  for (const std::string& name : report.wrong_bases) {
    std::fprintf(stderr, "deltadct: warning: %s: %s\n", io::detail::printable(name).c_str(),
                 std::string(deltadct::describe(Errc::wrong_base)).c_str());
  }
  std::printf("%s; %s in %.2f s, %.2f GB/s\n", modes_text(report).c_str(),
              bytes_text(static_cast<double>(report.model_bytes)).c_str(), seconds,
              static_cast<double>(report.model_bytes) / seconds / 1e9);
}

void inspect(const std::string& delta, bool json, const Common& common) {
  const auto archive = io::DeltaArchive::open(delta, reading(common));
  io::CheckpointReport report;
  report.file_bytes = archive.file_bytes();
  for (const io::ManifestEntry& entry : archive.entries()) report.add(entry);
  const double bits = report.bits_per_weight();
  if (!json) return inspect_text(archive, bits);
  nlohmann::json result = {{"version", io::kFormatVersion},
                           {"bytes", archive.file_bytes()},
                           {"weights", report.elements},
                           {"bits_per_weight", bits},
                           {"tensors", nlohmann::json::array()}};
  for (const io::ManifestEntry& entry : archive.entries()) {
    result["tensors"].push_back(entry_json(archive, entry));
  }
  std::cout << result.dump(2) << '\n';
}

void verify(const std::string& delta, const std::string& base_path, const Common& common) {
  const auto archive = io::DeltaArchive::open(delta, reading(common));
  std::optional<io::Model> base;
  if (!base_path.empty()) base.emplace(io::Model::open(base_path, reading(common)));
  const deltadct::OpenMpExecutor executor{common.threads};
  {
    ProgressReport progress("verify");
    io::verify_archive(archive, base ? &*base : nullptr, factory(common), executor,
                       std::ref(progress));
  }
  std::printf("%s: %zu tensors sound%s\n", delta.c_str(), archive.entries().size(),
              base ? ", made from this base" : "");
}

void diff(const std::string& base_path, const std::string& tuned_path,
          const std::string& other_path, bool json, const Common& common) {
  const auto base = io::Model::open(base_path, reading(common));
  const auto tuned = io::Model::open(tuned_path, reading(common));
  const auto other = io::Model::open(other_path, reading(common));
  Measures total;
  nlohmann::json tensors = nlohmann::json::array();
  std::vector<std::string> without_base;
  if (!json) {
    std::printf("%-44s %9s %8s %8s %8s\n", "tensor", "SNR dB", "gain", "cosine", "mean-abs");
  }
  for (const io::ModelTensor& tensor : tuned.tensors()) {
    if (!deltadct::is_element(tensor.dtype)) continue;
    const io::ModelTensor& compared = judged(other, tensor);
    const io::ModelTensor* from = base.find(tensor.name);
    if (from == nullptr || from->shape != tensor.shape || !deltadct::is_element(from->dtype)) {
      without_base.push_back(tensor.name);
      continue;
    }
    const Measures measures = measure(base, *from, tuned, tensor, other, compared);
    total.add(measures);
    if (json) {
      auto row = measures_json(measures);
      row["name"] = tensor.name;
      tensors.push_back(std::move(row));
    } else {
      print_measures(tensor.name, measures);
    }
  }
  if (json) {
    std::cout << nlohmann::json{{"total", measures_json(total)},
                                {"tensors", tensors},
                                {"without_base", without_base}}
                     .dump(2)
              << '\n';
    return;
  }
  print_measures("total", total);
  for (const std::string& name : without_base) {
    std::printf("%-44s the base has none of this shape\n", io::detail::printable(name).c_str());
  }
}

}  // namespace cli
