// The safetensors header: 8 bytes for the length of the data that follows it, then the header's
// text.
#include "support.hpp"

using namespace fuzz;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 8) return 0;
  std::uint64_t data_bytes = 0;
  std::memcpy(&data_bytes, data, 8);
  const std::string_view text(reinterpret_cast<const char*>(data) + 8, size - 8);
  try {
    const io::ReadOptions options{.limits = limits(), .unknown_dtype = io::UnknownDType::keep};
    const auto header = io::parse_safetensors_header(text, data_bytes, "fuzz", options);
    std::uint64_t end = 0;
    for (const io::TensorInfo& tensor : header.tensors) {
      require(tensor.begin == end && tensor.end >= end);
      require(io::tensor_bytes(tensor.dtype, tensor.shape) == tensor.bytes());
      end = tensor.end;
    }
    require(end == data_bytes);
    // A header that was read must be written such that it can be read again.
    const std::string again = io::detail::header_text(header.tensors, header.metadata, "fuzz");
    const auto reread = io::parse_safetensors_header(again, data_bytes, "fuzz", options);
    require(reread.tensors.size() == header.tensors.size());
  } catch (const Error&) {
  }
  return 0;
}
