// Judges whether a fine-tune can belong to a base, before anything is written: a delta from the
// wrong base is larger than the weights and of no use.
//
// The names are compared first, then a sample of the weights (see likeness.hpp). A pair is refused
// if most of the weights do not fit; if only a few do not, there is a warning.
#pragma once

#include <deltadct/io/arrangement.hpp>
#include <deltadct/io/likeness.hpp>
#include <deltadct/io/name_match.hpp>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// What is known about a pair that is not refused.
struct Plausibility {
  double weights_ratio = 0;  ///< |D| / |W| of a sample of the tensors of rank 2 or more in both
  std::vector<Warning> warnings;
};

namespace detail {

/// A tensor is unlike the base's if its cosine is below kUnlikeCosine and its ratio is at least
/// kUnlikeRatio: a delta that is small beside the weights does no harm, whatever its direction. In
/// measurements, tensors of different layers of one model had cosines of up to 0.18, and tensors
/// that were trained on had cosines down to 0.35.
inline constexpr double kUnlikeCosine = 0.25;
inline constexpr double kUnlikeRatio = 0.5;

/// From this ratio on, a tensor gets a warning.
inline constexpr double kFarRatio = 0.9;

/// If both models have more than this share of weights without a counterpart, there is a warning.
inline constexpr double kFewAlone = 0.1;

/// The most tensors that get a warning of their own, and that are examined for a cause.
inline constexpr std::size_t kMostNamed = 8;

inline constexpr const char* kBringFirst = "; bring BASE to TUNED's layout first";

inline std::string percent_text(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.0f %%", 100 * share);
  return text;
}

/// "12 tensors are in TUNED alone, such as NAME".
inline std::string alone_text(const TensorList& tensors, const char* model) {
  const bool one = tensors.size() == 1;
  return std::to_string(tensors.size()) + (one ? " tensor is in " : " tensors are in ") + model +
         " alone, " + (one ? "" : "such as ") + shortened(tensors.front()->name);
}

/// Finds out which tensors have a counterpart: a namesake whose shape differs at most in the first
/// extent.
struct Counterparts {
  struct Two {
    const ModelTensor* base;
    const ModelTensor* tuned;
  };
  std::vector<Two> common;
  std::vector<Two> reshaped;  ///< namesakes of other shapes
  TensorList base_alone;
  TensorList tuned_alone;
  double base_share = 0;   ///< share of the base's elements without a counterpart
  double tuned_share = 0;  ///< likewise for TUNED; 0 if a model has no elements

  Counterparts(const Model& base, const Model& tuned) {
    double base_all = 0;
    double tuned_all = 0;
    const auto count = [](const ModelTensor& tensor) {
      return static_cast<double>(tensor.elements());
    };
    for (const ModelTensor& tensor : tuned.tensors()) {
      const ModelTensor* from = base.find(tensor.name);
      tuned_all += count(tensor);
      if (from == nullptr) {
        tuned_alone.push_back(&tensor);
      } else if (!common_rows(from->shape, tensor.shape)) {
        reshaped.push_back({from, &tensor});
        base_share += count(*from);
      } else {
        common.push_back({from, &tensor});
        continue;
      }
      tuned_share += count(tensor);
    }
    for (const ModelTensor& tensor : base.tensors()) {
      base_all += count(tensor);
      if (tuned.find(tensor.name) != nullptr) continue;
      base_alone.push_back(&tensor);
      base_share += count(tensor);
    }
    base_share /= std::max(base_all, 1.0);
    tuned_share /= std::max(tuned_all, 1.0);
  }

  bool has_no_name_in_common() const noexcept { return common.empty() && reshaped.empty(); }

  /// "NAME (64x32 in TUNED, 32x64 in BASE)".
  static std::string shapes_text(const Two& two) {
    return shortened(two.tuned->name) + " (" + shape_text(two.tuned->shape) + " in TUNED, " +
           shape_text(two.base->shape) + " in BASE)";
  }

  std::string text() const {
    if (has_no_name_in_common()) {
      return "no name in common: " + alone_text(tuned_alone, "TUNED") + "; " +
             alone_text(base_alone, "BASE");
    }
    std::string text = percent_text(tuned_share) + " of TUNED's weights and " +
                       percent_text(base_share) + " of BASE's have no counterpart";
    if (!tuned_alone.empty()) text += "; " + alone_text(tuned_alone, "TUNED");
    if (!base_alone.empty()) text += "; " + alone_text(base_alone, "BASE");
    if (!reshaped.empty()) {
      text += "; " + std::to_string(reshaped.size()) + (reshaped.size() == 1 ? " has" : " have") +
              " another shape: " + shapes_text(reshaped.front());
    }
    return text;
  }

  static std::string change_text(const PrefixChange& change) {
    const auto quoted = [](const std::string& text) { return "'" + shortened(text) + "'"; };
    if (change.to.empty()) return "BASE's names have " + quoted(change.from) + " before TUNED's";
    if (change.from.empty()) return "TUNED's names have " + quoted(change.to) + " before BASE's";
    return "BASE's names have " + quoted(change.from) + " where TUNED's have " + quoted(change.to);
  }

  /// What would give the tensors counterparts, as far as the names show; may be empty.
  std::string advice() const {
    if (const auto change = prefix_change(base_alone, tuned_alone)) {
      TensorList shared;
      for (const Two& two : common) shared.push_back(two.base);
      for (const Two& two : reshaped) shared.push_back(two.base);
      const auto option = rename_option(*change, shared);
      return "; " + change_text(*change) + (option ? ": compress with " + *option : "");
    }
    for (const bool in_tuned : {true, false}) {
      const auto part =
          in_tuned ? fused_part(tuned_alone, base_alone) : fused_part(base_alone, tuned_alone);
      if (!part) continue;
      return "; TUNED's " + *part + " are " + (in_tuned ? "fused" : "separate") + ", BASE's are " +
             (in_tuned ? "separate" : "fused") + ": bring both to one layout first";
    }
    return "";
  }
};

class PairJudge {
 public:
  PairJudge(const Model& base, const Model& tuned, bool allow_unlike)
      : base_(base), tuned_(tuned), allow_unlike_(allow_unlike), counterparts_(base, tuned) {}

  Plausibility judge() {
    judge_archive(tuned_, "TUNED");
    judge_archive(base_, "BASE");
    judge_adapter(tuned_, counterparts_.tuned_alone, counterparts_.tuned_share, "TUNED");
    judge_adapter(base_, counterparts_.base_alone, counterparts_.base_share, "BASE");
    judge_names();
    judge_weights();
    return std::move(found_);
  }

 private:
  struct Compared {
    Counterparts::Two two;
    Likeness likeness;

    double elements() const noexcept {
      return static_cast<double>(std::min(two.base->elements(), two.tuned->elements()));
    }
    bool is_unlike() const noexcept {
      return likeness.comparable && likeness.cosine < kUnlikeCosine &&
             likeness.ratio() >= kUnlikeRatio;
    }
    bool is_far() const noexcept {
      return is_unlike() || (likeness.comparable && likeness.ratio() >= kFarRatio);
    }
    std::string text() const {
      char figures[96];
      std::snprintf(figures, sizeof figures, "|D|/|W| is %.3g, the cosine with the base's %.2f",
                    likeness.ratio(), std::round(100 * likeness.cosine) / 100 + 0.0);
      return figures;
    }
  };

  void object(const Model& model, const std::string& what) {
    if (!allow_unlike_) {
      throw Error(Errc::unlike_models, model.path().string(),
                  what + "; --allow-unlike continues anyway");
    }
    warn(model.path().string(), what);
  }
  void warn(const std::string& where, const std::string& what) {
    found_.warnings.push_back({where, what});
  }

  void judge_archive(const Model& model, const char* argument) {
    const auto format = model.metadata().find("format");
    if (format == model.metadata().end() || format->second != "deltadct") return;
    object(model, std::string(argument) +
                      " is a delta archive, not a model: apply it first, with 'deltadct apply "
                      "ITS_BASE " +
                      shortened(model.path().string()) + " -o MODEL', and give MODEL");
  }

  /// An adapter shares few tensors with a model. A model can have tensors named like an adapter's,
  /// but then its base has them, too.
  void judge_adapter(const Model& model, const TensorList& alone, double share,
                     const char* argument) {
    if (2 * share <= 1) return;
    const auto named = std::ranges::find_if(
        alone, [](const ModelTensor* tensor) { return is_adapter_name(tensor->name); });
    const bool config = has_adapter_config(model);
    if (named == alone.end() && !config) return;
    std::string why = config ? "adapter_config.json lies beside it" : "";
    if (named != alone.end()) {
      why += (config ? ", and it has " : "it has ") + shortened((*named)->name);
    }
    object(model, std::string(argument) + " is an adapter, not a model (" + why +
                      "): merge it into its base first, and give the merged model");
  }

  void judge_names() {
    const double least = std::min(counterparts_.base_share, counterparts_.tuned_share);
    if (2 * least > 1) {
      object(tuned_, counterparts_.text() + counterparts_.advice() + reshaped_advice());
    } else if (least > kFewAlone) {
      warn(tuned_.path().string(), counterparts_.text() + counterparts_.advice());
    }
    if (2 * least <= 1) {
      warn_of_transposed();
      warn_of_part(base_, counterparts_.tuned_share, "BASE", "TUNED", "stored in full");
      warn_of_part(tuned_, counterparts_.base_share, "TUNED", "BASE", "removed");
    }
  }

  /// Whether a file's name is that of one of several shards, such as
  /// model-00001-of-00003.safetensors.
  static bool is_shard_name(const std::string& name) {
    const std::size_t of = name.find("-of-");
    const auto digits = [&](std::size_t begin, std::size_t end) {
      return begin < end && end <= name.size() &&
             name.find_first_not_of("0123456789", begin) >= end;
    };
    if (of == name.npos) return false;
    const std::size_t dash = name.rfind('-', of - 1);
    return of != 0 && dash != name.npos && digits(dash + 1, of) &&
           digits(of + 4, name.find('.', of) == name.npos ? name.size() : name.find('.', of));
  }

  /// Warns if most weights of one model are missing in the other, which has few of its own.
  void warn_of_part(const Model& part, double share, const char* argument, const char* whole,
                    const char* result) {
    if (2 * share <= 1) return;
    std::string text = percent_text(share) + " of " + whole + "'s weights have no counterpart in " +
                       argument + ", and are " + result;
    if (part.shards() == 1 && is_shard_name(part.files().front().path.filename().string())) {
      text += std::string("; ") + argument +
              " is named like one shard of a model: give the folder that holds all shards";
    } else {
      text += std::string("; is ") + argument + " the whole model?";
    }
    warn(part.path().string(), text);
    found_.warnings.back().loss = Loss::weights;
  }

  std::optional<std::string> transposed_text(const Counterparts::Two& two) const {
    const bool floating = is_element(two.base->dtype) && is_element(two.tuned->dtype);
    if (!floating || !is_transposed(two.base->shape, two.tuned->shape)) return std::nullopt;
    return rearrangement(base_, *two.base, tuned_, *two.tuned);
  }

  /// The first rearrangement found among the first tensors of other shapes.
  std::string reshaped_advice() const {
    for (const auto& two : std::span(counterparts_.reshaped)
                               .first(std::min(kMostNamed, counterparts_.reshaped.size()))) {
      if (const auto text = transposed_text(two)) {
        return "; " + shortened(two.tuned->name) + ": " + *text + kBringFirst;
      }
    }
    return "";
  }

  void warn_of_transposed() {
    std::size_t named = 0;
    for (const auto& two : counterparts_.reshaped) {
      if (named == kMostNamed) return;
      if (const auto text = transposed_text(two)) {
        warn(two.tuned->name, *text +
                                  ", and is kept without loss at full size; transpose one of "
                                  "the two first");
        ++named;
      }
    }
  }

  void judge_weights() {
    LikenessMeter meter(base_, tuned_);
    std::vector<Compared> compared;
    for (const auto& two : counterparts_.common) {
      if (!is_element(two.base->dtype) || !is_element(two.tuned->dtype)) continue;
      if (two.tuned->shape.size() < 2) continue;
      compared.push_back({two, meter.compare(*two.base, *two.tuned)});
    }
    found_.weights_ratio = total_ratio(compared);
    std::erase_if(compared, [](const Compared& one) { return !one.likeness.comparable; });
    judge_likeness(compared);
  }

  /// The wrong base makes most tensors unlike, and with them most of the weights that changed. A
  /// head or a vocabulary that was initialised anew is only one or two tensors, however large.
  /// Weights that are found in another arrangement are no coincidence, and are refused as well.
  void judge_likeness(std::vector<Compared>& compared) {
    const std::size_t tensors = compared.size();
    const double all = elements_of(compared);
    std::erase_if(compared, [](const Compared& one) { return one.likeness.delta_square == 0; });
    const double changed = elements_of(compared);
    std::erase_if(compared, [](const Compared& one) { return !one.is_far(); });
    std::vector<Compared> unlike;
    std::ranges::copy_if(compared, std::back_inserter(unlike), &Compared::is_unlike);
    const double weights = elements_of(unlike);
    const bool most = 2 * unlike.size() > tensors && 2 * weights > changed;
    if (most || 2 * weights > all) {
      const std::string cause = first_cause(unlike);
      if (most || !cause.empty()) {
        return object(tuned_, unlike_text(unlike.front(), weights / changed, cause));
      }
    }
    warn_of_far(compared);
  }

  static double elements_of(const std::vector<Compared>& compared) {
    double sum = 0;
    for (const Compared& one : compared) sum += one.elements();
    return sum;
  }

  /// Computed in the largest unit of all tensors, so that no square leaves the range of double.
  static double total_ratio(const std::vector<Compared>& compared) {
    int largest = std::numeric_limits<int>::min();
    for (const Compared& one : compared) largest = std::max(largest, one.likeness.exponent);
    Likeness total;
    for (const Compared& one : compared) {
      const int shift = 2 * (one.likeness.exponent - largest);
      total.delta_square += std::ldexp(one.likeness.delta_square, shift);
      total.weights_square += std::ldexp(one.likeness.weights_square, shift);
    }
    return total.ratio();
  }

  std::optional<std::string> cause(const Compared& one) const {
    return rearrangement(base_, *one.two.base, tuned_, *one.two.tuned);
  }

  /// The cause for the first of these tensors that has one, with the tensor's name; or empty.
  std::string first_cause(const std::vector<Compared>& unlike) const {
    for (const Compared& one : std::span(unlike).first(std::min(kMostNamed, unlike.size()))) {
      if (const auto found = cause(one)) return shortened(one.two.tuned->name) + ": " + *found;
    }
    return "";
  }

  std::string unlike_text(const Compared& first, double share, const std::string& cause) const {
    char ratio[64];
    std::snprintf(ratio, sizeof ratio, "|D|/|W| is %.3g in total; ", found_.weights_ratio);
    return ratio + percent_text(share) + " of the weights that changed are nothing like BASE's (" +
           shortened(first.two.tuned->name) + ": " + first.text() + "); " +
           (cause.empty() ? "this looks like another base" : cause + kBringFirst);
  }

  void warn_of_far(const std::vector<Compared>& far) {
    for (std::size_t k = 0; k < std::min(far.size(), kMostNamed); ++k) {
      const auto found = cause(far[k]);
      const char* seems = far[k].is_unlike() ? "it seems newly initialised" : "its delta is large";
      warn(far[k].two.tuned->name,
           far[k].text() + "; " + (found ? *found : seems) + "; --exclude keeps it without loss");
    }
    if (far.size() > kMostNamed) {
      warn(tuned_.path().string(),
           std::to_string(far.size() - kMostNamed) + " more tensors have such a delta");
    }
  }

  const Model& base_;
  const Model& tuned_;
  bool allow_unlike_;
  Counterparts counterparts_;
  Plausibility found_;
};

}  // namespace detail

/// Throws unlike_models, saying why, if the fine-tune cannot belong to that base: they have no
/// names or few weights in common, one is an adapter or a delta archive, or the weights are nothing
/// like the base's. With allow_unlike, that becomes the first warning. Throws io_failure.
inline Plausibility judge_pair(const Model& base, const Model& tuned, bool allow_unlike = false) {
  return detail::PairJudge(base, tuned, allow_unlike).judge();
}

}}}  // namespace deltadct::inline DELTADCT_ABI::io
