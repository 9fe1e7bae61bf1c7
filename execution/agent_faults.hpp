#pragma once

// What an agent does under an injected fault, in clusters made for that. One thread.

#include <chrono>
#include <deque>
#include <optional>

#include "base/bytes.hpp"

namespace zz::execution {

// A lie that looks like an answer: the last letter or digit is another one.
SharedBytes falsify(const SharedBytes& reply);

// The votes of a slot that is slow.
class HeldVotes {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::size_t kMost = 65'536;  // further ones are dropped

  void hold(Clock::time_point due, SharedBytes vote);
  // The next one that is due, in the order of hold().
  std::optional<SharedBytes> take_due(Clock::time_point now);

 private:
  struct Held {
    Clock::time_point due;
    SharedBytes vote;
  };
  std::deque<Held> held_;
};

}  // namespace zz::execution
