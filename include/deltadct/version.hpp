// The library's version. Major and minor are also part of the inline namespace's name (see
// abi.hpp).
#pragma once

#define DELTADCT_VERSION_MAJOR 0
#define DELTADCT_VERSION_MINOR 1
#define DELTADCT_VERSION_PATCH 0
#define DELTADCT_VERSION_STRING "0.1.0"
