#include "tests/agreement/heap_meter.hpp"

#include <cstdlib>
#include <new>

namespace {
thread_local std::size_t asked = 0;
}  // namespace

void* operator new(std::size_t size) {
  asked += size;
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

std::size_t zz::testing::heap_bytes() { return asked; }
