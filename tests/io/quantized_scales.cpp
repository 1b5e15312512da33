#include <deltadct/io/quantized_scales.hpp>

#include "support.hpp"

using namespace io_test;

namespace {

/// The scales of a model with codes of that name and a tensor of floats.
io::QuantizedScales scales_beside(const Folder& folder, const std::string& codes, DType dtype) {
  const Tensor tensors[] = {noise(codes, dtype, {64, 64}, 1), noise("f", DType::f32, {64, 64}, 2)};
  write_model(folder / "model", tensors);
  const auto model = io::Model::open(folder / "model");
  return {model, model};
}

}  // namespace

TEST_CASE("io/quantized_scales: names of scales beside codes") {
  const Folder folder;
  const std::pair<const char*, const char*> pairs[] = {
      {"m.w.weight", "m.w.weight_scale_inv"},
      {"m.w.weight", "m.w.scale_weight"},
      {"w", "w_scale"},
      {"layers.0.w", "scales.layers.0.w"},
      {"x.w.codes", "x.w_scales.data"},
      {"net.lin.weight", "net.lin_scale.value"},
      {"weight", "SCB"},
      {"x.weight", "x.weight.absmax"},
  };
  for (const auto& pair : pairs) {
    CAPTURE(pair.second);
    for (const DType dtype : {DType::f8_e4m3, DType::i8, DType::u8}) {
      CHECK(scales_beside(folder, pair.first, dtype).contains(pair.second));
    }
  }
}

TEST_CASE("io/quantized_scales: other names, and models without codes") {
  const Folder folder;
  const auto quantized = scales_beside(folder, "layers.0.w", DType::f8_e4m3);
  for (const char* name : {"embed.weight", "layer.upscaler.weight", "rescaled.weight", "SCBs",
                           "scaled.weight", "autoscale", "f", ""}) {
    CAPTURE(name);
    CHECK(!quantized.contains(name));
  }
  const auto plain = scales_beside(folder, "layers.0.w", DType::i64);
  for (const char* name : {"scales.layers.0.w", "lin_scale.value", "SCB", "x.weight.absmax"}) {
    CAPTURE(name);
    CHECK(!plain.contains(name));
  }
}
