// The index of a sharded model.
#include "support.hpp"

using namespace fuzz;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const io::ShardIndex index = io::parse_shard_index(text, "fuzz", {.limits = limits()});
    for (const auto& [shard, tensors] : index.shards) {
      require(shard.find('/') == shard.npos && shard != ".." && !tensors.empty());
    }
    const io::ShardIndex again = io::parse_shard_index(io::shard_index_text(index), "fuzz");
    require(again.shards == index.shards && again.total_size == index.total_size);
  } catch (const Error&) {
  }
  return 0;
}
