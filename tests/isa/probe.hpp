// A function in the library's namespace, which one translation unit calls and another defines.
#pragma once

#include <deltadct/config.hpp>

namespace deltadct { inline namespace DELTADCT_ABI {
const char* probe();
}}
