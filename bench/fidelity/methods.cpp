#include "methods.hpp"

#include <deltadct/io/survey.hpp>

#include <charconv>

namespace fidelity {

using char_gpt::Codec;
using char_gpt::codec_of;
using char_gpt::unit_gain;
using deltadct::BudgetAllocator;
using deltadct::CodecSpec;
namespace io = deltadct::io;

namespace {

struct WithoutRescale : deltadct::PaperPolicy<float, 16> {
  using Rescale = deltadct::NoRescale;
};

std::string text(double x) {
  char buffer[16];
  return {buffer, std::to_chars(buffer, buffer + sizeof buffer, x).ptr};
}

class Methods {
 public:
  void add(const std::string& group, const std::string& name, double x, Codec codec) {
    all_.push_back({group, name, x, 0, [=](double) { return codec; }});
  }
  void add_within(const std::string& group, const std::string& name, double budget,
                  std::function<Codec(double)> codec) {
    all_.push_back({group, name, budget, budget, std::move(codec)});
  }
  std::vector<Method> take() { return std::move(all_); }

 private:
  std::vector<Method> all_;
};

void add_paper(Methods& methods) {
  for (const int patch : {8, 12, 16, 32, 64}) {
    const std::string name = "Delta-DCT, P = " + std::to_string(patch);
    methods.add("paper", name, patch, codec_of(CodecSpec{.patch = patch}));
    methods.add(
        "without DCT", name + ", without DCT", patch,
        codec_of(CodecSpec{.patch = patch, .transform = std::string(deltadct::Identity::name)}));
  }
  methods.add("without rescale", "Delta-DCT, P = 16, without rescale", 16,
              {{}, [](const CodecSpec& spec) {
                 return deltadct::make_policy_codec<WithoutRescale>(spec.allocator);
               }});
  for (const int bits : {1, 2, 4, 6, 8}) {
    methods.add("bits everywhere", std::to_string(bits) + " bits everywhere", bits,
                codec_of(CodecSpec{.allocator = {{bits, 1.0}}}));
  }
  for (const int tenths : {1, 2, 3, 4, 5, 6, 7, 8, 9}) {
    const double sparsity = tenths / 10.0;
    methods.add("patch sparsity", std::to_string(10 * tenths) + " % of the patches dropped",
                sparsity, codec_of(CodecSpec{.allocator = {{8, 1 - sparsity}, {0, sparsity}}}));
  }
}

void add_baselines(Methods& methods, const io::Model& base, const io::Model& tuned) {
  using deltadct::BitDelta;
  methods.add("BitDelta", "BitDelta", 0, codec_of(BitDelta{}));
  methods.add("BitDelta", "BitDelta, a scale a row", 1, codec_of(BitDelta{BitDelta::Axis::row}));
  methods.add("BitDelta", "BitDelta, a scale a column", 2,
              codec_of(BitDelta{BitDelta::Axis::column}));
  methods.add("Delta-CoMe", "Delta-CoMe 8+3+2", 0, codec_of(deltadct::DeltaCome{}));
  for (const double budget : {0.5, 1.07}) {
    methods.add_within("Delta-CoMe", "Delta-CoMe, ranks cut to " + text(budget), budget,
                       [](double bits) { return codec_of(deltadct::DeltaCome{bits}); });
  }
  for (const double kept : {0.5, 0.25, 0.0625, 0.03125}) {
    methods.add("DARE", "DARE, p = " + text(1 - kept), 1 - kept,
                codec_of(deltadct::Dare{.drop = 1 - kept}));
  }
  const auto spreads = io::survey_deltas(base, tuned);
  for (const double sparsity : {0.5, 0.9, 0.97}) {
    methods.add("UltraDelta", "UltraDelta, s = " + text(sparsity), sparsity,
                codec_of(deltadct::UltraDelta::survey(spreads, sparsity)));
  }
}

void add_unit_gain(Methods& methods) {
  for (const int patch : {16, 32, 64}) {
    const std::string of_size = ", P = " + std::to_string(patch);
    methods.add("unit gain", "unit gain, 1 bit" + of_size, patch, unit_gain(patch, {{1, 1.0}}));
    for (const double budget : {0.1, 0.15, 0.25, 0.5, 1.07, 2.0, 3.0, 4.0}) {
      methods.add_within("unit gain" + of_size, "unit gain, " + text(budget) + " bpw" + of_size,
                         budget,
                         [=](double bits) { return unit_gain(patch, BudgetAllocator(bits)); });
    }
  }
}

}  // namespace

std::vector<Method> all_methods(const io::Model& base, const io::Model& tuned) {
  Methods methods;
  add_paper(methods);
  add_baselines(methods, base, tuned);
  add_unit_gain(methods);
  return methods.take();
}

}  // namespace fidelity
