// What a resumed operation must have in common with the one that was interrupted.
#pragma once

#include <deltadct/io/fingerprint.hpp>
#include <deltadct/io/json.hpp>
#include <deltadct/io/model.hpp>

#include <span>
#include <utility>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io { namespace detail {

/// Identifies the files of a model, and the names of its tensors, in the plan of an operation that
/// may be resumed.
inline nlohmann::json identity_json(const Model& model) {
  nlohmann::json files = nlohmann::json::array();
  for (const FileIdentity& file : model.identity()) {
    // The device's number may change after a restart.
    files.push_back({file.inode, file.bytes, file.modified_ns});
  }
  Fingerprint names;
  for (const ModelTensor& tensor : model.tensors()) {
    names.add(std::as_bytes(std::span(tensor.name.c_str(), tensor.name.size() + 1)));
  }
  return {{"files", std::move(files)}, {"names", names.hex()}};
}

}}}}  // namespace deltadct::inline DELTADCT_ABI::io::detail
