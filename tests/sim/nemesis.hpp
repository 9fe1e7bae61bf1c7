#pragma once

// Nemesis: injects the faults that a seed has drawn, each now and then, until the healing, and ends each after a while.
// One thread, virtual time.

#include <functional>
#include <vector>

#include "tests/sim/draw.hpp"
#include "tests/sim/kernel.hpp"

namespace zz::sim {

class World;

class Nemesis {
 public:
  Nemesis(World& world, const Draw& draw, std::uint64_t seed);

  void begin();
  void inject(Fault fault);
  void heal(std::uint64_t action);

 private:
  void again(Fault fault);
  void later(std::int64_t delay, std::function<void()> action);
  [[nodiscard]] NodeId any_node();
  [[nodiscard]] std::optional<NodeId> any_correct();
  [[nodiscard]] Party any_other(Party node);
  void one_way_cut();
  void partition();
  void swizzle();
  void crash(bool all);
  void lose_promises(bool noticed);

  World& world_;
  const Draw& draw_;
  Prng prng_;
  std::vector<std::function<void()>> actions_;
};

}  // namespace zz::sim
