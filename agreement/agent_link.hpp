#pragma once

// What a host daemon and the execution agent inside its guest say to each other, over a private stream (a
// socket pair here, virtio-serial in a virtual machine): one JSON object per line, at most kAgentLineMax bytes.
//
//   host to agent    {"identity":
//   {"service":0,"slot":1,"incarnation":3,"epoch":2,"key_seed":"<hex>","entropy":"<hex>"}}
//                    {"fault": "wrong-reply" | "slow"}
//   agent to host    {"event": "ready"} | {"event": "failed", "error": "…"} | {"event": "faulted"}
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
struct FromAgent {
  enum class Kind { kReady, kFailed, kFaulted } kind = Kind::kReady;
  std::string error;
};

// Lines without the newline.
std::string encode(const ToAgent& message);
std::string encode(const FromAgent& message);
Result<ToAgent> parse_to_agent(std::string_view line);
Result<FromAgent> parse_from_agent(std::string_view line);

}  // namespace zz::agreement
