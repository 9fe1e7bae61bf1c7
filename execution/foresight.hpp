#pragma once

// Foresight: asks with one round trip for what the next requests need of a state that is not here yet, when execution
// waits for a part (docs/decisions/0021). Each request is looked at once; again only when execution waits for something
// while nothing is on its way: then what was looked at lacks more than was seen.
//
// One thread, the loop's. A call takes kForesight or the time of one request, whatever there is to look at; the rest
// waits for the next one.

#include <chrono>
#include <functional>
#include <vector>

#include "base/ids.hpp"
#include "execution/service.hpp"

namespace zz::execution {

class Foresight {
 public:
  static constexpr std::size_t kForeseenMax = 512;  // requests looked at in one call; each costs a run
  static constexpr std::chrono::milliseconds kForesight{5};
  // As Executor::upcoming().
  using Upcoming = std::function<std::vector<Invocation>(Seq n, std::size_t limit)>;

  // Execution lacks something; `asked`: something is wanted or on its way already. What look() itself finds to be
  // lacking comes here as well, and counts for nothing.
  void lacks(bool asked) {
    if (!looking_ && !asked) seen_ = Seq{};
  }
  // The state is another one.
  void restart() { seen_ = Seq{}; }
  void look(const Upcoming& upcoming, Adapter& adapter);

 private:
  Seq seen_;  // the last batch that was looked at
  bool looking_ = false;
};

}  // namespace zz::execution
