#pragma once

// Peer: who is at the other end of a channel, as proven by its TLS key. Plain value.

#include <cstdint>
#include <string>

#include "base/ids.hpp"

namespace zz::crypto {

enum class Role : std::uint8_t { kNode, kHost, kExecutor, kClient, kOperator };

struct Peer {
  Role role = Role::kClient;
  std::uint32_t index = 0;  // NodeId, HostId or ClientId value; unused for executors
  ServiceId service{};      // executors only, with slot and incarnation
  SlotId slot{};
  Incarnation incarnation{};

  [[nodiscard]] NodeId node() const { return NodeId{static_cast<std::uint16_t>(index)}; }
  [[nodiscard]] HostId host() const { return HostId{static_cast<std::uint16_t>(index)}; }
  [[nodiscard]] ClientId client() const { return ClientId{index}; }
  auto operator<=>(const Peer&) const = default;
};

// "node 2", "host 0", "slot 1 of service 0 (incarnation 3)", "client 7".
std::string to_string(const Peer& peer);

}  // namespace zz::crypto
