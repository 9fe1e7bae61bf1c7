#pragma once

// DemoTeller: the demo's voice on standard output. Steps are numbered and carry the time since the start; between
// them a line of progress is rewritten in place on a terminal, and printed now and then elsewhere. One thread.

#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zz::apps {

class DemoTeller {
 public:
  // `out` stays open and is flushed after every line. `terminal`: whether lines can be rewritten.
  DemoTeller(std::FILE* out, bool terminal);
  ~DemoTeller();
  DemoTeller(const DemoTeller&) = delete;
  DemoTeller& operator=(const DemoTeller&) = delete;

  void headline(std::string_view text);
  // One numbered step.
  void step(std::string_view text);
  // A detail of the last step, without a number.
  void detail(std::string_view text);
  void progress(std::string_view text);
  // Two columns.
  void table(const std::vector<std::pair<std::string, std::string>>& rows);
  void line(std::string_view text);
  [[nodiscard]] double seconds() const;  // since the start

 private:
  void clear_progress();
  void put(const std::string& text);

  using Clock = std::chrono::steady_clock;
  void wait_with_progress();

  std::FILE* out_;
  bool terminal_;
  bool showing_progress_ = false;
  int steps_ = 0;
  Clock::time_point start_ = Clock::now();
  Clock::time_point progress_at_ = start_;
};

}  // namespace zz::apps
