#pragma once

// Orphans: the descendants of our children that outlive their parents, and so become ours. Linux only; one thread.

#include <sys/types.h>

#include <chrono>
#include <set>
#include <vector>

namespace zz::apps {

class Orphans {
 public:
  // From now on this process adopts orphaned descendants. Children that it has already are left alone.
  Orphans();
  // Adopts no more, unless it did before.
  ~Orphans();
  Orphans(const Orphans&) = delete;
  Orphans& operator=(const Orphans&) = delete;

  // Waits until the adopted ones are gone; those that are left at `deadline` are killed. Only children in another
  // process group than ours count: what a command starts for itself stays with it.
  void clear(std::chrono::steady_clock::time_point deadline);

 private:
  [[nodiscard]] std::vector<pid_t> adopted() const;
  std::set<pid_t> before_;
  int was_adopting_ = 0;
};

}  // namespace zz::apps
