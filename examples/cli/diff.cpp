// The command `diff`.
#include "commands.hpp"
#include "measures.hpp"
#include "options.hpp"
#include "text.hpp"

#include <cmath>
#include <cstdio>
#include <limits>

namespace cli {

using deltadct::Errc;
using deltadct::Error;
namespace io = deltadct::io;

namespace {

/// Elements of a floating-point tensor as doubles.
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

/// a - b, or the largest finite number of that sign if a double cannot hold it.
double difference(double a, double b) {
  const double apart = a - b;
  if (!std::isinf(apart) || !std::isfinite(a) || !std::isfinite(b)) return apart;
  return std::copysign(std::numeric_limits<double>::max(), apart);
}

Measures measure(const io::Model& base, const io::ModelTensor& base_tensor, const io::Model& tuned,
                 const io::ModelTensor& tuned_tensor, const io::Model& other,
                 const io::ModelTensor& other_tensor) {
  const auto b = values(base, base_tensor);
  const auto t = values(tuned, tuned_tensor);
  const auto o = values(other, other_tensor);
  Measures measures;
  for (std::size_t i = 0; i < b.size(); ++i) {
    measures.add(difference(t[i], b[i]), difference(o[i], b[i]));
  }
  return measures;
}

/// The tensor of `other` that is compared with one of the fine-tune's.
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

// JSON has no infinity and no NaN, so the SNR of an exact reconstruction is null, and so are the
// figures of an empty delta.
nlohmann::json measures_json(const Measures& m) {
  const auto number = [](double x) -> nlohmann::json {
    return std::isfinite(x) ? nlohmann::json(x) : nlohmann::json(nullptr);
  };
  return {{"snr_db", number(m.snr())},
          {"gain", number(m.gain())},
          {"cosine", number(m.cosine())},
          {"mean_abs_ratio", number(m.mean_abs_ratio())}};
}

/// A figure in a column, or a dash if it is undefined.
std::string figure_text(int width, int digits, double x) {
  char text[64];
  if (std::isnan(x))
    std::snprintf(text, sizeof text, "%*s", width, "-");
  else
    std::snprintf(text, sizeof text, "%*.*f", width, digits, x);
  return text;
}

void print_measures(const std::string& name, const Measures& m) {
  std::printf("%-44s %s %s %s %s\n", deltadct::printable(name).c_str(),
              figure_text(9, 3, m.snr()).c_str(), figure_text(8, 4, m.gain()).c_str(),
              figure_text(8, 4, m.cosine()).c_str(), figure_text(8, 4, m.mean_abs_ratio()).c_str());
}

io::Model open_weights(const char* argument, io::Model model) {
  if (!io::detail::is_archive(model.metadata())) return model;
  throw Error(Errc::no_model, model.path().string(),
              std::string(argument) +
                  " is a delta archive: apply it to its base first, and give "
                  "the result");
}

}  // namespace

void diff(const std::string& base_path, const std::string& tuned_path,
          const std::string& other_path, bool json, const Common& common) {
  const auto base = open_weights("BASE", open_base(base_path, common));
  const auto tuned = open_weights("TUNED", open_model(tuned_path, common));
  const auto other = open_weights("OTHER", open_model(other_path, common));
  Measures total;
  nlohmann::json tensors = nlohmann::json::array();
  std::size_t compared_tensors = 0;
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
    const Measures measures = io::detail::require_memory(
        [&] { return tuned.place(tensor); },
        [&] { return measure(base, *from, tuned, tensor, other, compared); });
    total.add(measures);
    ++compared_tensors;
    if (json) {
      auto row = measures_json(measures);
      row["name"] = tensor.name;
      tensors.push_back(std::move(row));
    } else {
      print_measures(tensor.name, measures);
    }
  }
  if (compared_tensors == 0) {
    warn({tuned_path,
          without_base.empty()
              ? "it has no tensor of floating-point numbers, so nothing is compared"
              : "BASE has none of its tensors in the same shape, so nothing is compared"});
  }
  if (json) {
    return print_json(
        {{"total", measures_json(total)}, {"tensors", tensors}, {"without_base", without_base}});
  }
  print_measures("total", total);
  for (const std::string& name : without_base) {
    std::printf("%-44s the base has none of this shape\n", deltadct::printable(name).c_str());
  }
}

}  // namespace cli
