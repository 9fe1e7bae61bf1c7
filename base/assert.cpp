#include "base/assert.hpp"

#include <cstdio>
#include <cstdlib>

namespace zz::base {

void assert_failed(const char* expression, const char* file, int line) noexcept {
  std::fprintf(stderr, "zz: invariant broken: %s at %s:%d\n", expression, file, line);
  std::abort();
}

}  // namespace zz::base
