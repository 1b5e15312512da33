// The codecs of an operation on a whole model.
#pragma once

#include <deltadct/any_codec.hpp>
#include <deltadct/core/printable.hpp>
#include <deltadct/io/manifest.hpp>

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io { namespace detail {

/// The codecs that an operation needs. Each is made once.
class CodecCache {
 public:
  explicit CodecCache(CodecFactory factory, AnyAllocator allocator = {})
      : factory_(std::move(factory)), allocator_(std::move(allocator)) {}

  /// The codec that decodes an entry, which must have a delta.
  const AnyCodec& of(const ManifestEntry& entry) {
    const TensorHeader& header = entry.matrices[0];
    return get({.patch = header.patch,
                .transform = header.transform,
                .quantizer = header.quantizer,
                .double_precision = entry.dtype == DType::f64});
  }

  /// The codec of a spec, with the cache's allocator.
  const AnyCodec& get(CodecSpec spec) {
    auto& codec = codecs_[{spec.patch, spec.transform, spec.quantizer, spec.double_precision}];
    if (!codec) {
      spec.allocator = allocator_;
      codec = make(spec);
    }
    return *codec;
  }

  /// A new codec with the spec's own allocator.
  std::unique_ptr<AnyCodec> make(const CodecSpec& spec) const {
    auto codec = factory_(spec);
    if (codec) return codec;
    throw Error(Errc::codec_mismatch, "codec",
                "none for transform '" + shortened(spec.transform) + "', quantizer '" +
                    shortened(spec.quantizer) + "'");
  }

 private:
  CodecFactory factory_;
  AnyAllocator allocator_;
  std::map<std::tuple<int, std::string, std::string, bool>, std::unique_ptr<AnyCodec>> codecs_;
};

}}}}  // namespace deltadct::inline DELTADCT_ABI::io::detail
