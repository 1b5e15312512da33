// The demonstration: a fine-tuned byte-level GPT, compressed to about one bit per weight, still
// does its job. Prints the losses on held-out C++ headers, and what each model writes.
//
//     char_gpt [WINDOWS]     WINDOWS of 256 bytes are evaluated; all of them by default
#include "engine.hpp"

#include <deltadct/io/checkpoint.hpp>
#include <deltadct/io/survey.hpp>
#include <deltadct/openmp.hpp>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <numbers>

namespace {

using char_gpt::Weights;
namespace io = deltadct::io;

const std::string kData = CHAR_GPT_DATA;

struct Row {
  std::string name;
  double loss = 0;             ///< nats per byte
  std::uint64_t bytes = 0;     ///< of the file that turns the base into this model; 0 if none
  double bits_per_weight = 0;  ///< all bytes of that file over all weights
  double ratio = 0;            ///< how many times smaller than the model
  std::string sample = {};
};

class Demo {
 public:
  explicit Demo(std::size_t windows)
      : windows_(windows),
        base_(char_gpt::load_weights(path("base"))),
        live_(base_),
        engine_(live_) {
    std::ifstream file(CHAR_GPT_HELDOUT, std::ios::binary);
    text_.assign(std::istreambuf_iterator<char>(file), {});
    if (text_.empty()) {
      throw deltadct::Error(deltadct::Errc::io_failure, CHAR_GPT_HELDOUT, "no held-out text");
    }
  }

  void run_base() { add({.name = "pre-trained (base)"}); }

  void run_tuned() {
    // In place, matrix by matrix, because the engine points into live_.
    for (const auto& [name, matrix] : char_gpt::load_weights(path("tuned"))) {
      live_.at(name) = matrix;
    }
    const auto bytes = std::filesystem::file_size(path("tuned"));
    add({.name = "fine-tuned", .bytes = bytes, .bits_per_weight = 16, .ratio = 1});
  }

  void run_delta(const std::string& name, const std::string& file, const char_gpt::Codec& codec) {
    io::CompressOptions options;
    options.codec = codec.spec;
    options.output.overwrite = io::Overwrite::yes;
    const auto base = io::Model::open(path("base"));
    const auto tuned = io::Model::open(path("tuned"));
    const auto report = io::compress_model(base, tuned, path(file), options, codec.make,
                                           deltadct::OpenMpExecutor{});
    char_gpt::apply_archive(path(file), path("base"), base_, live_, codec.make);
    add({.name = name,
         .bytes = report.file_bytes,
         .bits_per_weight = report.bits_per_weight(),
         .ratio =
             static_cast<double>(report.model_bytes) / static_cast<double>(report.file_bytes)});
  }

  /// UltraDelta treats a matrix by its rank among the others.
  deltadct::UltraDelta survey() const {
    return deltadct::UltraDelta::survey(
        io::survey_deltas(io::Model::open(path("base")), io::Model::open(path("tuned"))));
  }

  void print_table() const {
    const double first = rows_.front().loss;
    const double best = rows_[1].loss;
    std::printf("\n%-26s %9s %9s %10s %9s %10s %7s\n", "model", "nats/byte", "bits/byte",
                "recovered", "bits/wt", "size", "ratio");
    for (const Row& row : rows_) {
      std::printf("%-26s %9.4f %9.4f %8.1f %% ", row.name.c_str(), row.loss,
                  row.loss / std::numbers::ln2, 100 * (first - row.loss) / (first - best));
      if (row.bytes == 0) {
        std::printf("%9s %10s %7s\n", "-", "-", "-");
      } else {
        std::printf("%9.3f %7.0f kB %7.2f\n", row.bits_per_weight,
                    static_cast<double>(row.bytes) / 1000, row.ratio);
      }
    }
    std::printf(
        "\nrecovered: share of the loss between pre-trained and fine-tuned; bits/wt: every byte "
        "of\n"
        "the archive over every weight of the model; ratio: times smaller than the bfloat16 "
        "model.\n"
        "The archives are in %s.\n",
        kData.c_str());
  }

  void print_samples() const {
    for (const Row& row : rows_) {
      std::printf("\n--- %s ---\n%s\n", row.name.c_str(), row.sample.c_str());
    }
  }

 private:
  static std::string path(const std::string& name) { return kData + "/" + name + ".safetensors"; }

  // A model that is broken writes any byte, which should not reach a terminal.
  static std::string printable(std::string text) {
    for (char& c : text) {
      if (c != '\n' && (c < ' ' || c > '~')) c = '.';
    }
    return text;
  }

  void add(Row row) {
    const std::string prompt = "    template <class T>\n    ";
    row.loss =
        engine_.judge({reinterpret_cast<const std::uint8_t*>(text_.data()), text_.size()}, windows_)
            .loss();
    row.sample = printable(prompt + engine_.generate(prompt, 240, 0.4, 1));
    std::printf("%-26s %.4f\n", row.name.c_str(), row.loss);
    std::fflush(stdout);
    rows_.push_back(std::move(row));
  }

  std::size_t windows_;
  Weights base_;
  Weights live_;
  char_gpt::Gpt engine_;
  std::string text_;
  std::vector<Row> rows_;
};

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::size_t windows =
        argc > 1 ? std::strtoull(argv[1], nullptr, 10) : char_gpt::all_windows;
    Demo demo(windows);
    std::printf("held-out loss, nats a byte:\n");
    demo.run_base();
    demo.run_tuned();
    for (const int patch : {8, 16, 32, 64}) {
      const std::string size = std::to_string(patch);
      demo.run_delta("Delta-DCT, P = " + size, "delta_p" + size,
                     char_gpt::codec_of(deltadct::CodecSpec{.patch = patch}));
    }
    demo.run_delta("P = 16, without DCT", "delta_p16_identity",
                   char_gpt::codec_of(
                       deltadct::CodecSpec{.transform = std::string(deltadct::Identity::name)}));
    demo.run_delta("BitDelta", "bit_delta", char_gpt::codec_of(deltadct::BitDelta{}));
    demo.run_delta("Delta-CoMe", "delta_come", char_gpt::codec_of(deltadct::DeltaCome{}));
    demo.run_delta("DARE, p = 15/16", "dare", char_gpt::codec_of(deltadct::Dare{}));
    demo.run_delta("UltraDelta", "ultra_delta", char_gpt::codec_of(demo.survey()));
    demo.run_delta("unit gain, 1 bit", "delta_unit_gain", char_gpt::unit_gain(32, {{1, 1.0}}));
    // The budget counts weights that changed; this is 0.15 bits for each weight of the model.
    demo.run_delta("unit gain, 0.15 bits", "delta_unit_gain_low",
                   char_gpt::unit_gain(32, deltadct::BudgetAllocator(0.156)));
    demo.print_samples();
    demo.print_table();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "char_gpt: %s\n", error.what());
    return 1;
  }
}
