// Compresses every pair by every method, and judges the resulting models. Writes JSON to FILE, from
// which report.py makes docs/fidelity.md.
//
//     bench_fidelity FILE [WINDOWS [PAIR]]     each GPT reads WINDOWS of 256 bytes (default 400)
#include "methods.hpp"
#include "pairs.hpp"

#include <deltadct/io/compress.hpp>
#include <deltadct/openmp.hpp>

#include <nlohmann/json.hpp>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <random>

namespace {

using namespace fidelity;
using char_gpt::Codec;
using char_gpt::Judgement;
using char_gpt::Matrix;
using char_gpt::Weights;
using nlohmann::json;
namespace fs = std::filesystem;
namespace io = deltadct::io;

struct Seconds {
  double encode = 0;
  double decode = 0;
};

/// A codec that measures the time it takes.
class TimedCodec final : public deltadct::AnyCodec {
 public:
  TimedCodec(std::unique_ptr<AnyCodec> codec, Seconds& seconds)
      : codec_(std::move(codec)), seconds_(seconds) {}

  std::string build() const override { return codec_->build(); }
  std::size_t max_compressed_bytes(std::size_t rows, std::size_t cols) const override {
    return codec_->max_compressed_bytes(rows, cols);
  }
  void encode_into(deltadct::CompressedTensor& out, std::vector<std::byte>& workspace,
                   deltadct::DType dtype, const void* base, const void* tuned, std::size_t rows,
                   std::size_t cols, const deltadct::ExecutorRef& executor) const override {
    count(seconds_.encode,
          [&] { codec_->encode_into(out, workspace, dtype, base, tuned, rows, cols, executor); });
  }
  void validate(const deltadct::CompressedView& compressed, deltadct::DType dtype) const override {
    codec_->validate(compressed, dtype);
  }
  void decode_add(const deltadct::CompressedView& compressed, deltadct::DType dtype,
                  const void* base, void* out, double alpha,
                  const deltadct::ExecutorRef& executor) const override {
    count(seconds_.decode,
          [&] { codec_->decode_add(compressed, dtype, base, out, alpha, executor); });
  }
  void decode_add_block(const deltadct::CompressedView& compressed, deltadct::DType dtype,
                        std::size_t row, std::size_t col, void* block, std::size_t rows,
                        std::size_t cols, double alpha,
                        const deltadct::ExecutorRef& executor) const override {
    codec_->decode_add_block(compressed, dtype, row, col, block, rows, cols, alpha, executor);
  }

 private:
  template <class Fn>
  static void count(double& seconds, Fn fn) {
    const auto begin = std::chrono::steady_clock::now();
    fn();
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

  std::unique_ptr<AnyCodec> codec_;
  Seconds& seconds_;
};

/// How close a delta is after decoding, over everything that was compressed.
struct Likeness {
  double dd = 0, dr = 0, rr = 0, ee = 0;  // sums of D^2, D D^, D^^2, (D - D^)^2

  void add(const Matrix& base, const Matrix& tuned, const Matrix& live) {
    for (Eigen::Index s = 0; s < base.size(); ++s) {
      const double d = double{tuned.data()[s]} - double{base.data()[s]};
      const double r = double{live.data()[s]} - double{base.data()[s]};
      dd += d * d;
      dr += d * r;
      rr += r * r;
      ee += (d - r) * (d - r);
    }
  }
  json to_json() const {
    return {
        {"snr", 10 * std::log10(dd / ee)}, {"gain", dr / dd}, {"cosine", dr / std::sqrt(dd * rr)}};
  }
};

/// A histogram of D^ over the standard deviation of D, in bins of a twentieth from -3 to 3.
json histogram(const Matrix& base, const Matrix& tuned, const Matrix& live) {
  const Matrix delta = tuned - base;
  const float deviation = std::sqrt(delta.squaredNorm() / static_cast<float>(delta.size()));
  std::vector<std::size_t> counts(120);
  for (Eigen::Index s = 0; s < base.size(); ++s) {
    const float x = (live.data()[s] - base.data()[s]) / deviation;
    const float bin = std::floor((x + 3) * 20);
    if (bin >= 0 && bin < 120) ++counts[static_cast<std::size_t>(bin)];
  }
  return counts;
}

/// The mean excess of losses over others, and its standard error.
std::pair<double, double> excess(const Judgement& found, const Judgement& best) {
  const auto n = static_cast<double>(found.losses.size());
  const double mean = found.loss() - best.loss();
  double squares = 0;
  for (std::size_t k = 0; k < found.losses.size(); ++k) {
    const double apart = found.losses[k] - best.losses[k] - mean;
    squares += apart * apart;
  }
  return {mean, std::sqrt(squares / (n - 1) / n)};
}

class Bench {
 public:
  Bench(const Pair& pair, const fs::path& scratch)
      : pair_(pair),
        archive_((scratch / "delta.safetensors").string()),
        base_model_(io::Model::open(pair.base)),
        tuned_model_(io::Model::open(pair.tuned)),
        base_(char_gpt::load_weights(pair.base.string())),
        tuned_(char_gpt::load_weights(pair.tuned.string())),
        live_(base_),
        best_(pair.judge(tuned_)) {}

  json run() {
    const Judgement before = pair_.judge(base_);
    json result = {{"name", pair_.name},         {"task", pair_.task},
                   {"base_loss", before.loss()}, {"base_right", before.right},
                   {"loss", best_.loss()},       {"right", best_.right},
                   {"rows", json::array()}};
    std::fprintf(stderr, "%s: base %.4f, fine-tuned %.4f\n", pair_.name.c_str(), before.loss(),
                 best_.loss());
    for (const Method& method : all_methods(base_model_, tuned_model_)) {
      result["rows"].push_back(judge(method));
    }
    return result;
  }

 private:
  /// Compresses to archive_.
  io::CheckpointReport compress(const Codec& codec) {
    io::CompressOptions options;
    options.output.overwrite = io::Overwrite::yes;
    options.codec = codec.spec;
    seconds_ = {};
    return io::compress_model(base_model_, tuned_model_, archive_, options, timed(codec),
                              executor_);
  }

  /// The codec that makes the most of a method's budget, if any can meet it. A budget counts every
  /// weight of the model, but a codec is given bits per changed weight.
  std::optional<Codec> fit(const Method& method) {
    if (method.budget == 0) return method.codec(0);
    std::optional<Codec> best;
    double low = 0;
    double high = 1.2 * method.budget;
    double bits = method.budget;
    for (int attempt = 0; attempt < 10; ++attempt, bits = (low + high) / 2) {
      Codec codec = method.codec(bits);
      try {
        const double found = compress(codec).bits_per_weight();
        (found <= method.budget ? low : high) = bits;
        if (found <= method.budget) best = std::move(codec);
        if (found <= method.budget && found > method.budget - 0.003) break;
      } catch (const deltadct::Error& error) {
        if (error.code() != deltadct::Errc::bad_mix) throw;
        low = bits;
      }
    }
    return best;
  }

  deltadct::CodecFactory timed(const Codec& codec) {
    return [this, &codec](const deltadct::CodecSpec& spec) {
      return std::make_unique<TimedCodec>(codec.make(spec), seconds_);
    };
  }

  json judge(const Method& method) {
    json row = {{"group", method.group}, {"name", method.name}, {"x", method.x}};
    const auto codec = fit(method);
    if (!codec) {
      std::fprintf(stderr, "  %-44s cannot be met\n", method.name.c_str());
      return row;
    }
    const auto report = compress(*codec);
    char_gpt::apply_archive(archive_, pair_.base.string(), base_, live_, timed(*codec));
    Likeness likeness;
    const auto archive = io::DeltaArchive::open(archive_);
    for (const auto& entry : archive.entries()) {
      if (entry.mode == io::Mode::delta) {
        likeness.add(base_.at(entry.name), tuned_.at(entry.name), live_.at(entry.name));
      }
    }
    const Judgement found = pair_.judge(live_);
    const auto [more, error] = excess(found, best_);
    row.update(likeness.to_json());
    row.update(json{{"bytes", report.file_bytes},
                    {"bpw", report.bits_per_weight()},
                    {"loss", found.loss()},
                    {"right", found.right},
                    {"excess", more},
                    {"error", error},
                    {"encode", seconds_.encode},
                    {"decode", seconds_.decode}});
    const std::string shown = "blocks.1.up.weight";
    row["histogram"] = histogram(base_.at(shown), tuned_.at(shown), live_.at(shown));
    std::fprintf(stderr, "  %-44s %6.3f bpw  excess %8.4f +- %.4f\n", method.name.c_str(),
                 report.bits_per_weight(), more, error);
    return row;
  }

  const Pair& pair_;
  std::string archive_;
  io::Model base_model_, tuned_model_;
  Weights base_, tuned_, live_;
  Judgement best_;
  Seconds seconds_;
  deltadct::OpenMpExecutor executor_;
};

/// The calculated bytes of a matrix in an archive.
std::size_t stored_bytes(std::size_t rows, std::size_t cols, int patch, bool unit_gain) {
  const auto p = static_cast<std::size_t>(patch);
  const std::size_t patches = deltadct::ceil_div(rows, p) * deltadct::ceil_div(cols, p);
  const auto padded = [](std::size_t bytes) {
    return deltadct::ceil_div(bytes, std::size_t{8}) * 8;
  };
  if (unit_gain) return padded(2 * patches) + padded(patches * p * p / 8);
  const std::size_t kept = patches - patches / 2;
  return padded(8 * kept + 4 * (patches - kept)) +
         padded(deltadct::ceil_div(patches, std::size_t{8})) + padded(kept * p * p / 4);
}

/// The size of a delta of a model with the shapes of Llama 2 7B, with all matrices compressed; and
/// the size of one layer's matrix, both calculated and encoded.
json storage() {
  json result = json::array();
  std::vector<std::array<std::size_t, 2>> shapes(2, {32000, 4096});
  for (int layer = 0; layer < 32; ++layer) {
    shapes.insert(shapes.end(), 4, {4096, 4096});
    shapes.insert(shapes.end(), 2, {11008, 4096});
    shapes.push_back({4096, 11008});
  }
  const std::size_t rows = 4096, cols = 11008;
  std::vector<float> delta(rows * cols);
  std::mt19937 random(1);
  for (float& x : delta) x = static_cast<float>(static_cast<double>(random()) * 0x1p-32 - 0.5);
  const std::vector<float> zero(delta.size());
  for (const bool unit_gain : {false, true}) {
    for (const int patch : {8, 16, 32, 64}) {
      if (unit_gain && patch < 16) continue;
      std::size_t bytes = 0;
      for (const auto& shape : shapes) bytes += stored_bytes(shape[0], shape[1], patch, unit_gain);
      deltadct::CodecSpec spec;
      if (unit_gain) spec = deltadct::unit_gain_spec();
      spec.patch = patch;
      deltadct::CompressedTensor compressed;
      std::vector<std::byte> workspace, section;
      deltadct::make_codec<deltadct::DefaultBackend>(spec)->encode_into(
          compressed, workspace, deltadct::DType::f32, zero.data(), delta.data(), rows, cols,
          deltadct::SerialExecutor{});
      io::append_matrix(section, compressed);
      result.push_back({{"method", unit_gain ? "unit gain, 1 bit" : "Delta-DCT"},
                        {"patch", patch},
                        {"bytes", bytes},
                        {"layer_calculated", stored_bytes(rows, cols, patch, unit_gain)},
                        {"layer_encoded", section.size()}});
    }
  }
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc < 2) throw std::invalid_argument("usage: bench_fidelity FILE [WINDOWS [PAIR]]");
    const std::size_t windows = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 400;
    const Folders folders{CHAR_GPT_DATA, FIDELITY_MODELS, fs::path(argv[1]).parent_path()};
    json result = {{"storage", storage()}, {"windows", windows}, {"pairs", json::array()}};
    for (const Pair& pair : open_pairs(folders, CHAR_GPT_HELDOUT, windows)) {
      if (argc > 3 && pair.name != argv[3]) continue;
      result["pairs"].push_back(Bench(pair, folders.scratch).run());
    }
    std::ofstream(argv[1]) << result.dump(1) << '\n';
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_fidelity: %s\n", error.what());
    return 1;
  }
}
