#pragma once

// What the demo makes of the nodes' status answers (status_client.hpp): one picture of one service that at
// least one correct node stands behind. Answers are the nodes' own words: members that are missing or of
// another type count as not said. Pure functions.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace zz::apps {

struct SlotStatus {
  std::uint32_t slot = 0;
  std::uint64_t incarnation = 0;  // 0: none joined
  bool active = false;
  bool connected = false;
  bool operator==(const SlotStatus&) const = default;
};

// One node's word on one service.
struct ServiceStatus {
  std::uint64_t ordered = 0;
  std::uint64_t closed = 0;
  std::uint64_t epoch = 0;
  std::vector<SlotStatus> slots;  // ascending
  std::uint64_t divergences = 0;
  std::uint64_t wakes = 0;
  std::uint64_t evictions = 0;
  std::uint64_t not_deterministic = 0;
  std::vector<std::uint64_t> first_correct_reply_us;  // one per settled divergence, oldest first
};
// Nothing when the answer does not speak of that service.
std::optional<ServiceStatus> read_service(const nlohmann::json& answer, std::string_view service);

// The cluster's word. Counters: the largest value that f+1 nodes reach, so that f liars cannot raise it.
struct ClusterStatus {
  std::size_t answered = 0;  // nodes that spoke of the service
  std::uint64_t ordered = 0;
  std::uint64_t closed = 0;
  std::uint64_t divergences = 0;
  std::uint64_t wakes = 0;
  std::uint64_t evictions = 0;
  std::uint64_t not_deterministic = 0;
  std::size_t settled = 0;             // divergences that f+1 nodes saw settled
  std::uint64_t first_correct_us = 0;  // the largest of any node and divergence
  std::uint64_t epoch = 0;
  // The slots as f+1 nodes see them (incarnation, active, connected each); empty when no f+1 are in the same epoch.
  std::vector<SlotStatus> slots;

  [[nodiscard]] std::size_t active() const;
  [[nodiscard]] const SlotStatus* find(std::uint32_t slot) const;
};
ClusterStatus combine(const std::vector<nlohmann::json>& answers, std::string_view service, std::uint32_t f);

// The longest time from a sign of trouble to g+1 equal votes that any node lists in `now` and did not list in `before`.
std::uint64_t longest_since(const std::vector<nlohmann::json>& before, const std::vector<nlohmann::json>& now,
                            std::string_view service);

// One slot as its host daemon tells it.
struct HostSlot {
  std::uint32_t slot = 0;
  std::uint64_t incarnation = 0;
  std::string state;
};
// The slots of service number `service` in a host daemon's answer to {"cmd":"status"}.
std::vector<HostSlot> read_host(const nlohmann::json& answer, std::uint32_t service);

}  // namespace zz::apps
