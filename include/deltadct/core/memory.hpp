// Turns failed allocations into the library's error.
#pragma once

#include <deltadct/core/error.hpp>

#include <new>
#include <stdexcept>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// Runs fn. If memory runs out, throws out_of_memory with the place that where() returns.
template <class Where, class Fn>
auto require_memory(Where where, Fn&& fn) -> decltype(fn()) {
  try {
    return fn();
  } catch (const std::bad_alloc&) {
    throw Error(Errc::out_of_memory, where());
  } catch (const std::length_error&) {
    throw Error(Errc::out_of_memory, where(), "more elements than an array can have");
  }
}

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
