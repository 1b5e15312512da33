// A big-endian machine is refused.
// flags: -U__BYTE_ORDER__ -D__BYTE_ORDER__=__ORDER_BIG_ENDIAN__
// expect: little-endian
#include <deltadct/codec.hpp>
