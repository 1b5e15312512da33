// C++17 is refused: the first line of the compiler's message says which flag to pass.
// flags: -std=c++17
// expect: error.*compile with -std=c\+\+20
#include <deltadct/codec.hpp>
