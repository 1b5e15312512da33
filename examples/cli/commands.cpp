// The subcommands.
#include "commands.hpp"

#include "measures.hpp"
#include "progress.hpp"

#include <deltadct/openmp.hpp>

#include <charconv>
#include <cstdio>
#include <iostream>
#include <optional>
#include <regex>

namespace cli {

using deltadct::Errc;
using deltadct::Error;
namespace io = deltadct::io;

namespace {

io::Overwrite overwrite(const Common& common) {
  return common.force ? io::Overwrite::yes : io::Overwrite::no;
}

deltadct::CodecFactory factory(const Common& common) {
  const Backend backend = common.backend == "serial" ? Backend::serial : Backend::simd;
  return [backend](const deltadct::CodecSpec& spec) { return make_codec(spec, backend); };
}

std::vector<std::regex> compile(const std::vector<std::string>& patterns) {
  return {patterns.begin(), patterns.end()};
}

bool matches(const std::vector<std::regex>& patterns, std::string_view name) {
  return std::ranges::any_of(patterns, [&](const std::regex& pattern) {
    return std::regex_search(name.begin(), name.end(), pattern);
  });
}

double per_weight(std::uint64_t bytes, std::uint64_t elements) {
  return elements == 0 ? 0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(elements);
}

void print_summary(const io::CheckpointReport& report, double seconds) {
  const auto model = static_cast<double>(report.model_bytes);
  std::printf("tensors          %zu delta, %zu lossless, %zu unchanged\n", report.delta_tensors,
              report.raw_tensors, report.same_tensors);
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
  if (entry.mode != io::Mode::delta) return json;
  const deltadct::TensorHeader& header = entry.header;
  json["patch"] = header.patch;
  json["transform"] = header.transform;
  json["quantizer"] = header.quantizer;
  json["bound"] = deltadct::dtype_name(header.bound);
  json["scale"] = header.scale;
  json["widths"] = nlohmann::json::array();
  for (const auto& k : header.classes) {
    json["widths"].push_back({{"bits", k.bits}, {"patches", k.patches}});
  }
  return json;
}

std::uint64_t elements(const io::ManifestEntry& entry) {
  return io::TensorInfo{entry.name, entry.dtype, entry.shape, 0, 0}.elements();
}

std::string shape_text(const std::vector<std::uint64_t>& shape) {
  std::string text;
  for (const std::uint64_t extent : shape) {
    text += (text.empty() ? "" : "x") + std::to_string(extent);
  }
  return text.empty() ? "scalar" : text;
}

void inspect_text(const io::DeltaArchive& archive, double bits_per_weight) {
  std::printf("%-44s %-6s %-6s %-16s %12s %8s  %s\n", "tensor", "mode", "dtype", "shape", "bytes",
              "bits", "codec");
  for (const io::ManifestEntry& entry : archive.entries()) {
    std::string codec;
    if (entry.mode == io::Mode::delta) {
      codec = "P=" + std::to_string(entry.header.patch) + " " +
              io::detail::printable(entry.header.transform);
      for (const auto& k : entry.header.classes) {
        codec += " " + std::to_string(k.bits) + "b:" + std::to_string(k.patches);
      }
    }
    const std::uint64_t bytes = archive.stored_bytes(entry);
    std::printf(
        "%-44s %-6s %-6s %-16s %12llu %8.3f  %s\n", io::detail::printable(entry.name).c_str(),
        std::string(io::mode_name(entry.mode)).c_str(),
        std::string(deltadct::dtype_name(entry.dtype)).c_str(), shape_text(entry.shape).c_str(),
        static_cast<unsigned long long>(bytes), per_weight(bytes, elements(entry)), codec.c_str());
  }
  std::printf("total: %s, %.3f bits per weight\n",
              bytes_text(static_cast<double>(archive.file_bytes())).c_str(), bits_per_weight);
}

/// Elements of a floating tensor as doubles.
std::vector<double> values(const io::SafetensorsFile& file, const io::TensorInfo& tensor) {
  std::vector<std::byte> storage;
  const auto bytes = io::detail::aligned_data(file, tensor, storage);
  std::vector<double> result(tensor.elements());
  deltadct::with_element(tensor.dtype, [&]<class T>() {
    const auto* from = reinterpret_cast<const T*>(bytes.data());
    for (std::size_t i = 0; i < result.size(); ++i) {
      result[i] = static_cast<double>(static_cast<deltadct::compute_t<T>>(from[i]));
    }
  });
  file.release(tensor);
  return result;
}

Measures measure(const io::SafetensorsFile& base, const io::SafetensorsFile& tuned,
                 const io::SafetensorsFile& other, const io::TensorInfo& tensor) {
  const auto b = values(base, tensor);
  const auto t = values(tuned, io::detail::counterpart(tuned, tensor));
  const auto o = values(other, io::detail::counterpart(other, tensor));
  Measures measures;
  for (std::size_t i = 0; i < b.size(); ++i) measures.add(t[i] - b[i], o[i] - b[i]);
  return measures;
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

void compress(const CompressArguments& arguments, const Common& common) {
  io::CompressOptions options;
  options.codec.patch = arguments.patch;
  options.codec.allocator = parse_mix(arguments.mix);
  if (arguments.no_dct) options.codec.transform = deltadct::Identity::name;
  options.non_finite = arguments.non_finite == "keep" ? io::NonFinite::keep : io::NonFinite::refuse;
  options.overwrite = overwrite(common);
  const auto include = compile(arguments.include);
  const auto exclude = compile(arguments.exclude);
  options.selected = [&](std::string_view name) {
    return (include.empty() || matches(include, name)) && !matches(exclude, name);
  };
  const auto base = io::SafetensorsFile::open(arguments.base);
  const auto tuned = io::SafetensorsFile::open(arguments.tuned);
  const deltadct::OpenMpExecutor executor{common.threads};
  io::CheckpointReport report;
  double seconds = 0;
  {
    ProgressReport progress("compress");
    report = io::compress_model(base, tuned, arguments.output, options, factory(common), executor,
                                std::ref(progress));
    seconds = progress.seconds();
  }
  print_summary(report, seconds);
}

void apply(const std::string& base_path, const std::string& delta, const std::string& output,
           const Common& common) {
  const auto base = io::SafetensorsFile::open(base_path);
  const auto archive = io::DeltaArchive::open(delta);
  const deltadct::OpenMpExecutor executor{common.threads};
  ProgressReport progress("apply");
  const auto report = io::apply_archive(base, archive, output, overwrite(common), factory(common),
                                        executor, std::ref(progress));
  const double seconds = progress.seconds();
  std::printf("%zu tensors, %s in %.2f s, %.2f GB/s\n", base.tensors().size(),
              bytes_text(static_cast<double>(report.model_bytes)).c_str(), seconds,
              static_cast<double>(report.model_bytes) / seconds / 1e9);
}

void inspect(const std::string& delta, bool json) {
  const auto archive = io::DeltaArchive::open(delta);
  std::uint64_t weights = 0;
  for (const io::ManifestEntry& entry : archive.entries()) weights += elements(entry);
  const double bits = per_weight(archive.file_bytes(), weights);
  if (!json) return inspect_text(archive, bits);
  nlohmann::json result = {{"version", io::kFormatVersion},
                           {"bytes", archive.file_bytes()},
                           {"weights", weights},
                           {"bits_per_weight", bits},
                           {"tensors", nlohmann::json::array()}};
  for (const io::ManifestEntry& entry : archive.entries()) {
    result["tensors"].push_back(entry_json(archive, entry));
  }
  std::cout << result.dump(2) << '\n';
}

void verify(const std::string& delta, const std::string& base_path) {
  const auto archive = io::DeltaArchive::open(delta);
  std::optional<io::SafetensorsFile> base;
  if (!base_path.empty()) base.emplace(io::SafetensorsFile::open(base_path));
  {
    ProgressReport progress("verify");
    io::verify_archive(archive, base ? &*base : nullptr, factory({}), std::ref(progress));
  }
  std::printf("%s: %zu tensors sound%s\n", delta.c_str(), archive.entries().size(),
              base ? ", made from this base" : "");
}

void diff(const std::string& base_path, const std::string& tuned_path,
          const std::string& other_path, bool json) {
  const auto base = io::SafetensorsFile::open(base_path);
  const auto tuned = io::SafetensorsFile::open(tuned_path);
  const auto other = io::SafetensorsFile::open(other_path);
  Measures total;
  nlohmann::json tensors = nlohmann::json::array();
  if (!json) {
    std::printf("%-44s %9s %8s %8s %8s\n", "tensor", "SNR dB", "gain", "cosine", "mean-abs");
  }
  for (const io::TensorInfo& tensor : base.tensors()) {
    if (!deltadct::is_element(tensor.dtype)) continue;
    const Measures measures = measure(base, tuned, other, tensor);
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
    std::cout << nlohmann::json{{"total", measures_json(total)}, {"tensors", tensors}}.dump(2)
              << '\n';
  } else {
    print_measures("total", total);
  }
}

}  // namespace cli
