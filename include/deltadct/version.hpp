// The library's version; major and minor also name the inline namespace (see config.hpp).
#pragma once

#define DELTADCT_VERSION_MAJOR 0
#define DELTADCT_VERSION_MINOR 1
#define DELTADCT_VERSION_PATCH 0
#define DELTADCT_VERSION_STRING "0.1.0"
