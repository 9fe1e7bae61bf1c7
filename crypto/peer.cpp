#include "crypto/peer.hpp"

#include <fmt/format.h>

namespace zz::crypto {

std::string to_string(const Peer& peer) {
  switch (peer.role) {
    case Role::kNode:
      return fmt::format("node {}", peer.index);
    case Role::kHost:
      return fmt::format("host {}", peer.index);
    case Role::kExecutor:
      return fmt::format("slot {} of service {} (incarnation {})", peer.slot.value, peer.service.value,
                         peer.incarnation.value);
    case Role::kClient:
      return fmt::format("client {}", peer.index);
    case Role::kOperator:
      return fmt::format("client {} (operator)", peer.index);
  }
  return "unknown peer";
}

}  // namespace zz::crypto
