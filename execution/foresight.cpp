#include "execution/foresight.hpp"

#include <iterator>

namespace zz::execution {

void Foresight::look(const Upcoming& upcoming, Adapter& adapter) {
  using Clock = std::chrono::steady_clock;
  const std::vector<Invocation> requests = upcoming(seen_, kForeseenMax);
  if (requests.empty()) return;
  const auto until = Clock::now() + kForesight;
  looking_ = true;
  auto at = requests.begin();
  do {
    adapter.foresee({*at++});
  } while (at != requests.end() && Clock::now() < until);
  looking_ = false;
  // A batch that takes longer than that is not begun again.
  const bool whole = at == requests.end() || at->n == requests.front().n;
  seen_ = whole ? std::prev(at)->n : Seq{at->n.value - 1};
}

}  // namespace zz::execution
