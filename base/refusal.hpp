#pragma once

// Refusal: why an input that a peer controls was not accepted. Counted per reason, never fatal.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace zz {

enum class Refusal : std::uint8_t {
  kNone,         // accepted
  kMalformed,    // does not decode, or breaks a bound of its own kind
  kOversize,     // longer than the limit of its kind
  kUnknownPeer,  // key is not in the cluster file nor joined
  kWrongRole,    // this kind of message does not come from that role
  kUnknownService,
  kBadSignature,
  kStaleView,
  kFutureView,
  kNotPrimary,   // pre-prepare from a node that is not the view's primary
  kOutOfWindow,  // sequence or request number outside its window
  kDuplicate,    // already have it from this sender
  kConflict,     // contradicts what the same sender said before
  kBadTime,      // agreed time not increasing or too far from our clock
  kStaleEpoch,
  kStaleIncarnation,
  kUnknownSlot,
  kQueueFull,  // a bounded queue of ours is full
  kQuota,      // the peer's own quota is used up
  kSessionExpired,
  kNotReady,     // cannot be judged or served yet
  kNotAllowed,   // forbidden by configuration
  kWrongDigest,  // does not hash to the digest that was agreed
  kNotWanted,    // nobody asked for it
  kCount,        // not a reason: number of reasons
};

std::string_view to_string(Refusal reason);

// Counts by reason.
struct RefusalCounts {
  std::array<std::uint64_t, static_cast<std::size_t>(Refusal::kCount)> counts{};
  void add(Refusal reason) { ++counts[static_cast<std::size_t>(reason)]; }
  [[nodiscard]] std::uint64_t of(Refusal reason) const { return counts[static_cast<std::size_t>(reason)]; }
};

}  // namespace zz
