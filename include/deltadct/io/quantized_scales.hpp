// Finds the floating-point tensors that scale the codes of others. An error in one of them is an
// error in every weight that it scales.
#pragma once

#include <deltadct/io/model.hpp>

#include <algorithm>
#include <initializer_list>
#include <set>
#include <string>
#include <string_view>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// The scales and zero points of a quantized checkpoint, recognised by their names and neighbours.
class QuantizedScales {
 public:
  /// Looks for codes in both models: what is quantized in one is quantized in the other.
  QuantizedScales(const Model& base, const Model& tuned) {
    for (const Model* model : {&base, &tuned}) {
      for (const ModelTensor& tensor : model->tensors()) {
        if (!holds_codes(tensor.dtype)) continue;
        codes_.insert(tensor.name);
        if (const auto module = module_of(tensor.name); !module.empty()) modules_.emplace(module);
      }
    }
  }

  /// Whether a floating-point tensor belongs to codes: it is named like a scale or a zero point, it
  /// is in one module with codes ("mlp.up_proj.weight", "mlp.up_proj.scales"), or its name is that
  /// of codes with a suffix ("w", "w_scale_inv"). Where there are codes, it suffices that one part
  /// of the name is named so ("scales.layers.0", "proj_scale.value").
  bool contains(std::string_view name) const {
    const auto module = module_of(name);
    if (modules_.contains(module) || is_named_so(name.substr(module.size()))) return true;
    if (!codes_.empty() && has_part_named_so(name)) return true;
    for (std::size_t end = name.find_last_of("._"); end != name.npos && end != 0;
         end = name.find_last_of("._", end - 1)) {
      if (codes_.contains(name.substr(0, end))) return true;
    }
    return false;
  }

 private:
  /// FP8 and smaller, and integers of up to 32 bits. 64-bit integers are indices, 1-bit ones masks.
  static bool holds_codes(const StoredDType& dtype) noexcept {
    const std::string_view name = dtype_name(dtype);
    constexpr std::string_view kCodes[] = {"F8_", "F6_", "F4", "I8",  "U8", "I16",
                                           "U16", "I4",  "U4", "I32", "U32"};
    return std::ranges::any_of(kCodes, [&](std::string_view code) {
      return code.ends_with('_') || code == "F4" ? name.starts_with(code) : name == code;
    });
  }

  static std::string_view module_of(std::string_view name) noexcept {
    const std::size_t dot = name.rfind('.');
    return dot == name.npos ? std::string_view{} : name.substr(0, dot);
  }

  static bool is_named_so(std::string_view leaf) noexcept {
    for (const std::string_view ending : {"scale", "scales", "scale_inv", "qzeros", "zero_point"}) {
      if (!leaf.ends_with(ending)) continue;
      const std::string_view before = leaf.substr(0, leaf.size() - ending.size());
      if (before.empty() || before.ends_with('_') || before.ends_with('.')) return true;
    }
    return false;
  }

  static bool has_part_named_so(std::string_view name) noexcept {
    for (std::size_t begin = 0; begin <= name.size();) {
      const std::size_t end = std::min(name.find('.', begin), name.size());
      const std::string_view part = name.substr(begin, end - begin);
      // bitsandbytes calls its scales SCB or absmax.
      if (is_named_so(part) || part == "SCB" || part == "absmax") return true;
      begin = end + 1;
    }
    return false;
  }

  std::set<std::string, std::less<>> codes_;
  std::set<std::string, std::less<>> modules_;
};

}}}  // namespace deltadct::inline DELTADCT_ABI::io
