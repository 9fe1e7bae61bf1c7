#pragma once

// Strong identifiers: values that cannot be mixed up in a call. Plain values, any thread.

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace zz {

template <class Tag, class Rep>
struct Strong {
  using rep = Rep;
  Rep value{};
  auto operator<=>(const Strong&) const = default;
  [[nodiscard]] constexpr Strong next() const { return Strong{static_cast<Rep>(value + 1)}; }
};

using NodeId = Strong<struct NodeTag, std::uint16_t>;              // agreement node, 0..3f
using HostId = Strong<struct HostTag, std::uint16_t>;              // physical host (its vmpool daemon)
using ServiceId = Strong<struct ServiceTag, std::uint16_t>;        // replicated application
using SlotId = Strong<struct SlotTag, std::uint16_t>;              // place of an execution replica, 0..2g
using ClientId = Strong<struct ClientTag, std::uint32_t>;          // client or gateway identity
using Incarnation = Strong<struct IncarnationTag, std::uint64_t>;  // one life of a slot, from 1; 0 = none yet
using SessionId = Strong<struct SessionTag, std::uint64_t>;        // random, chosen at client start
using RequestNumber = Strong<struct RequestTag, std::uint64_t>;    // per session, from 1, no gaps
using View = Strong<struct ViewTag, std::uint64_t>;                // from 0
using Seq = Strong<struct SeqTag, std::uint64_t>;                  // batch number, from 1; 0 = nothing
using Epoch = Strong<struct EpochTag, std::uint64_t>;              // active-set epoch, from 0
using Micros = Strong<struct MicrosTag, std::int64_t>;  // microseconds; agreed or wall time since 1970, or a duration

// SHA-256 value. Equality is bytewise; not secret.
struct Digest {
  std::array<std::uint8_t, 32> bytes{};
  auto operator<=>(const Digest&) const = default;
  [[nodiscard]] bool is_zero() const { return *this == Digest{}; }
};

}  // namespace zz

template <class Tag, class Rep>
struct std::hash<zz::Strong<Tag, Rep>> {
  std::size_t operator()(const zz::Strong<Tag, Rep>& id) const noexcept { return std::hash<Rep>{}(id.value); }
};
