// The switch EXPECT, for the preprocessor alone.
#include <phi4flash/config/macros.hpp>
#ifdef EXPECT
static_assert(EXPECT == 1);
#endif
