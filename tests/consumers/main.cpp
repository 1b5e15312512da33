// The program of both downstream projects. EXPECTED_VERSION comes from the build that tests them.
#include <deltadct/any_codec.hpp>

#include <string_view>

static_assert(std::string_view(DELTADCT_VERSION_STRING) == EXPECTED_VERSION);

int main() {
  [[maybe_unused]] const deltadct::DeltaCodec<deltadct::DefaultPolicy<float, 16>> codec{};
#ifdef DELTADCT_EXTERN_CODECS  // which deltadct::codecs defines
  if (deltadct::make_codec({})->max_compressed_bytes(16, 16) != codec.max_compressed_bytes(16, 16))
    return 1;
#endif
}
