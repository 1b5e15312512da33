// A baseline chosen at run time.
#include <deltadct/baseline/any_baseline.hpp>

#include "support.hpp"

using namespace baseline_test;

TEST_CASE("baseline: any codec by its name, with the settings that were chosen") {
  const auto delta = noise<float>(64, 64);
  const auto base = zeros<float>(64, 64);
  const auto bytes = [&](const AnyBaseline& chosen, const CodecSpec& spec) {
    CompressedTensor out;
    std::vector<std::byte> workspace;
    const CodecFactory factory = with_baselines(make_codec<Serial>, chosen);
    factory(spec)->encode_into(out, workspace, DType::f32, base.values.data(), delta.values.data(),
                               64, 64, SerialExecutor{});
    return out.bytes();
  };
  const AnyBaseline rows = BitDelta{BitDelta::Axis::row};
  CHECK(bytes(rows, baseline_spec(rows)) == 1 + 128 + 512);
  CHECK(bytes(rows, baseline_spec(Dare{})) < 1000);
  CHECK(baseline_spec(UltraDelta{}).transform == "ultra_delta");
  CodecSpec unknown = baseline_spec(rows);
  unknown.transform = "zip";
  CHECK(caught([&] { make_baseline_codec(unknown); }).code() == Errc::codec_mismatch);
  CHECK(make_baseline_codec(baseline_spec(rows), rows)->build() !=
        make_baseline_codec(baseline_spec(rows))->build());
}
