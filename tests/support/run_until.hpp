#pragma once

// Runs an event loop until something has happened. Tests wait for events with it; nothing sleeps.

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <functional>

namespace zz::test {

// Far more than any awaited event takes, even on a busy machine under a sanitizer.
inline constexpr std::chrono::seconds kDeadline{30};

// True as soon as `done()` holds; false when it does not within `deadline` or nothing is left that could make it.
inline bool run_until(boost::asio::io_context& loop, const std::function<bool()>& done,
                      std::chrono::steady_clock::duration deadline = kDeadline) {
  const auto end = std::chrono::steady_clock::now() + deadline;
  while (!done()) {
    loop.restart();
    if (loop.run_one_until(end) == 0) return done();
  }
  return true;
}

}  // namespace zz::test
