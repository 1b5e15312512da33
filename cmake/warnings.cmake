# deltadct_warnings: the warnings the project's own programs are compiled with. Never linked by
# deltadct::deltadct, so no consumer sees them.
add_library(deltadct_warnings INTERFACE)
target_compile_options(
  deltadct_warnings INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wshadow
                              $<$<BOOL:${DELTADCT_WERROR}>:-Werror>)
