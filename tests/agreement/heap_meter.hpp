#pragma once

// Counts what the current thread asks of operator new, for bounds on what hostile input may cost. Linking
// heap_meter.cpp replaces operator new and delete of the whole test program.

#include <cstddef>

namespace zz::testing {

// Bytes asked for since the thread began.
std::size_t heap_bytes();

}  // namespace zz::testing
