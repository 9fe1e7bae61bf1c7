#pragma once

// IncidentLog: an Observer sink that logs what people want to read about and measures how long trouble lasts:
// from the first sign at a batch to its g+1 equal votes. One thread; the clock is injected.

#include <chrono>
#include <deque>
#include <functional>
#include <map>

#include "base/observer.hpp"

namespace zz::agreement {

class IncidentLog final : public Observer {
 public:
  using Clock = std::function<std::chrono::steady_clock::time_point()>;
  static constexpr std::size_t kIncidentsMax = 256;  // open and finished ones kept per service

  explicit IncidentLog(Clock clock) : clock_(std::move(clock)) {}

  void on_event(const Event& event) override;
  // Microseconds from detection to g+1 equal votes, oldest first, at most kIncidentsMax.
  [[nodiscard]] std::deque<std::int64_t> settled_us(ServiceId service) const;

 private:
  struct PerService {
    std::map<Seq, std::chrono::steady_clock::time_point> open;
    std::deque<std::int64_t> settled;
  };
  Clock clock_;
  std::map<ServiceId, PerService> services_;
};

}  // namespace zz::agreement
