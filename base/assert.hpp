#pragma once

// ZZ_ASSERT: an invariant that only this process can break. On in every build; prints the place and aborts.
// Never reachable from a peer's bytes (a peer's fault is a Refusal).

namespace zz::base {
[[noreturn]] void assert_failed(const char* expression, const char* file, int line) noexcept;
}

#define ZZ_ASSERT(expression) \
  (static_cast<bool>(expression) ? void(0) : ::zz::base::assert_failed(#expression, __FILE__, __LINE__))
