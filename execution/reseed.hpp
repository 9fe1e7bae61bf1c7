#pragma once

#include <array>
#include <cstdint>

namespace zz::execution {

// Fresh randomness for a guest that may be a copy of another: into the library's generator and the kernel's pool.
void reseed(const std::array<std::uint8_t, 32>& entropy);

}  // namespace zz::execution
