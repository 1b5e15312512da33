// C++17 is refused by the first line of what a compiler says, which says what to pass.
// flags: -std=c++17
// expect: error.*compile with -std=c\+\+20
#include <deltadct/codec.hpp>
