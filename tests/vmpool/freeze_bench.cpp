// How long the process backend takes to boot, freeze, wake and destroy a guest, per kind of freezer:
//   build/release/bin/freeze_bench [rounds]
// Medians and maxima in microseconds, from the call to its answer on the loop, for a guest that waits and for one that
// burns CPU in two threads (which then competes with the loop). Booting includes the start of the guest's program,
// destroying the removal of its directory.

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "tests/vmpool/process_fixture.hpp"

namespace zz::vmpool {
namespace {

struct Row {
  const char* name;
  std::vector<double> times_us;
};

void print(const std::string& kind, std::vector<Row>& rows) {
  for (Row& row : rows) {
    std::sort(row.times_us.begin(), row.times_us.end());
    std::printf("%-18s %-10s median %8.0f us   max %8.0f us\n", kind.c_str(), row.name,
                row.times_us[row.times_us.size() / 2], row.times_us.back());
  }
}

bool measure(FreezerKind kind, const std::string& behaviour, int rounds) {
  ProcessWorld world(kind);
  world.behaviour = behaviour;
  if (const std::string missing = world.open(); !missing.empty()) {
    std::printf("%-10s not available: %s\n", std::string(to_string(kind)).c_str(), missing.c_str());
    return true;
  }
  std::vector<Row> rows = {{"boot", {}}, {"freeze", {}}, {"thaw", {}}, {"hand-over", {}}, {"destroy", {}}};
  bool ok = true;
  for (int i = 1; i <= rounds; ++i) {
    const GuestId guest = guest_id(static_cast<std::uint64_t>(i));
    const auto timed = [&](std::size_t row, const auto& call) {
      const auto before = std::chrono::steady_clock::now();
      ok = call().ok() && ok;
      const auto took = std::chrono::steady_clock::now() - before;
      rows[row].times_us.push_back(std::chrono::duration<double, std::micro>(took).count());
    };
    timed(0, [&] { return world.boot(guest); });
    timed(1, [&] { return world.freeze(guest); });
    timed(2, [&] { return world.thaw(guest); });
    timed(3, [&] { return world.hand_over({guest, Epoch{}, {}, {}}); });
    timed(4, [&] { return world.destroy(guest); });
  }
  print(std::string(to_string(kind)) + " " + (behaviour.empty() ? "waiting" : behaviour), rows);
  return ok;
}

}  // namespace
}  // namespace zz::vmpool

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::max(1, std::atoi(argv[1])) : 50;
  bool ok = true;
  for (const auto kind :
       {zz::vmpool::FreezerKind::kCgroupV2, zz::vmpool::FreezerKind::kCgroupV1, zz::vmpool::FreezerKind::kSignals})
    for (const char* behaviour : {"", "spin"}) ok = zz::vmpool::measure(kind, behaviour, rounds) && ok;
  return ok ? 0 : 1;
}
