// Models of several shards, sound or not, and what is expected of them.
#pragma once

#include "pair.hpp"

namespace io_test {

using io::Links;
using nlohmann::json;

inline const std::string kIndex = "model.safetensors.index.json";
inline const ReadOptions kStrict{.strictness = io::Strictness::strict};

inline std::string name_of(std::size_t i) {
  return "t" + std::to_string(i);
}

inline std::vector<Tensor> some_tensors(std::size_t count) {
  std::vector<Tensor> tensors;
  for (std::size_t i = 0; i < count; ++i) {
    tensors.push_back(noise(name_of(i), DType::f32, {8, 10}, static_cast<unsigned>(i)));
  }
  return tensors;
}

/// Divides tensors into shards of `count` each.
inline std::vector<std::vector<Tensor>> cut(const std::vector<Tensor>& tensors, std::size_t count) {
  std::vector<std::vector<Tensor>> shards;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (i % count == 0) shards.emplace_back();
    shards.back().push_back(tensors[i]);
  }
  return shards;
}

inline json weights(const std::vector<std::pair<std::string, std::string>>& map) {
  json result = json::object();
  for (const auto& [tensor, shard] : map) result[tensor] = shard;
  return {{"weight_map", result}};
}

/// A folder with the shards a.safetensors (tensors a and b) and c.safetensors (tensor c), and an
/// index that the test writes.
struct Sharded {
  Sharded() {
    write_model(folder / "a.safetensors", std::vector{a, b});
    write_model(folder / "c.safetensors", std::vector{c});
    index(sound());
  }

  static json sound() {
    return weights({{"a", "a.safetensors"}, {"b", "a.safetensors"}, {"c", "c.safetensors"}});
  }
  void index(const std::string& text) const { put(folder / kIndex, bytes_of(text)); }
  void index(const json& value) const { index(value.dump()); }

  Error refused(const ReadOptions& options = {}) const {
    const Error error = caught([&] { Model::open(folder.path, options); });
    INFO(std::string(error.what()));
    CHECK(names(error, folder.path.string()));
    return error;
  }
  Errc refuses(const json& value, const ReadOptions& options = {}) const {
    index(value);
    return refused(options).code();
  }
  Errc refuses_text(const std::string& text, const ReadOptions& options = {}) const {
    index(text);
    return refused(options).code();
  }

  Tensor a = noise("a", DType::f32, {3}, 1);
  Tensor b = noise("b", DType::i8, {5}, 2);
  Tensor c = noise("c", DType::bf16, {2, 2}, 3);
  Folder folder;
};

/// Expects exactly these warnings, given by the end of their place and a part of their text.
inline void check_warns(const Model& model,
                        const std::vector<std::pair<std::string, std::string>>& expected) {
  const std::vector<io::Warning> warnings = model.warnings();
  REQUIRE(warnings.size() == expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    INFO(warnings[i].where << ": " << warnings[i].what);
    CHECK(warnings[i].where.ends_with(expected[i].first));
    CHECK(warnings[i].what.find(expected[i].second) != std::string::npos);
    CHECK(warnings[i].what.size() <= 200);  // fits one line
  }
}

inline void check_holds(const Model& model, const std::vector<Tensor>& tensors) {
  REQUIRE(model.tensors().size() == tensors.size());
  for (const Tensor& tensor : tensors) {
    CAPTURE(tensor.name);
    const auto* const found = model.find(tensor.name);
    REQUIRE(found != nullptr);
    CHECK(found->dtype == tensor.dtype);
    CHECK(found->shape == tensor.shape);
    CHECK(data(model, tensor.name) == tensor.bytes);
  }
  CHECK(model.find("absent") == nullptr);
}

}  // namespace io_test
