#include "tests/sim/hooks.hpp"

namespace zz::sim {

void count(Counters& counters, std::string_view name, std::uint64_t by) {
  const auto it = counters.find(name);
  if (it != counters.end()) {
    it->second += by;
  } else {
    counters.emplace(name, by);
  }
}

}  // namespace zz::sim
