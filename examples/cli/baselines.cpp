// The presets that are published methods of others, with the settings of their publications.
#include "baselines.hpp"

#include <deltadct/baseline/any_baseline.hpp>
#include <deltadct/io/survey.hpp>

namespace cli {

bool is_baseline(const std::string& preset) {
  return preset == deltadct::BitDelta::name || preset == deltadct::DeltaCome::name ||
         preset == deltadct::Dare::name || preset == deltadct::UltraDelta::name;
}

deltadct::CodecFactory with_baselines(const deltadct::CodecFactory& others) {
  return deltadct::with_baselines(others);
}

deltadct::CodecFactory with_preset(const CompressArguments& arguments,
                                   const deltadct::io::Model& base,
                                   const deltadct::io::Model& tuned,
                                   deltadct::io::CompressOptions& options,
                                   const deltadct::CodecFactory& others) {
  deltadct::AnyBaseline baseline;
  if (arguments.preset == deltadct::DeltaCome::name) {
    baseline = deltadct::DeltaCome{};
  } else if (arguments.preset == deltadct::Dare::name) {
    baseline = deltadct::Dare{};
  } else if (arguments.preset == deltadct::UltraDelta::name) {
    baseline =
        deltadct::UltraDelta::survey(deltadct::io::survey_deltas(base, tuned, options.selected));
  }
  options.codec = deltadct::baseline_spec(baseline);
  return deltadct::with_baselines(others, baseline);
}

}  // namespace cli
