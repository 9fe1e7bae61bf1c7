#pragma once

// What a host daemon and the execution agent inside its guest say to each other, over a private stream (a
// socket pair here, virtio-serial in a virtual machine): one JSON object per line, at most kAgentLineMax bytes.
//
//   host to agent    {"identity":
//   {"service":0,"slot":1,"incarnation":3,"epoch":2,"key_seed":"<hex>","entropy":"<hex>"}}
//                    {"fault": "wrong-reply" | "slow"}
//   agent to host    {"event": "ready"} | {"event": "failed", "error": "…"} | {"event": "faulted"}
//                    {"event": "duty", "voted_us": 12000, "whole_us": 900000, "touched_bytes": 40000}
//
// The host trusts nothing the agent says beyond its own slot. Plain functions, any thread.

#include <optional>
#include <string>
#include <string_view>

#include "base/ids.hpp"
#include "base/result.hpp"

namespace zz::agreement {

inline constexpr std::size_t kAgentLineMax = 4'096;

struct AgentIdentity {
  ServiceId service;
  SlotId slot;
  Incarnation incarnation;
  Epoch epoch;
  std::array<std::uint8_t, 32> key_seed{};
  std::array<std::uint8_t, 32> entropy{};
};

struct ToAgent {
  std::optional<AgentIdentity> identity;
  std::string fault;  // empty: none
};
// How a life got on since it took its identity, in microseconds from then. Nothing: not yet.
struct Duty {
  std::optional<std::uint64_t> voted_us;  // its first vote left
  std::optional<std::uint64_t> whole_us;  // nothing of the state is absent any more
  std::uint64_t touched_bytes = 0;        // fetched because execution waited for them
  bool operator==(const Duty&) const = default;
};
struct FromAgent {
  enum class Kind { kReady, kFailed, kFaulted, kDuty } kind = Kind::kReady;
  std::string error{};  // kFailed
  Duty duty{};          // kDuty
};

// Lines without the newline.
std::string encode(const ToAgent& message);
std::string encode(const FromAgent& message);
Result<ToAgent> parse_to_agent(std::string_view line);
Result<FromAgent> parse_from_agent(std::string_view line);

}  // namespace zz::agreement
