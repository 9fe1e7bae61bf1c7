#pragma once

// Wants and parts of the object store as messages, and back. What comes from a peer becomes a value of the store only
// if its kind and place exist; nothing is said about its bytes.

#include <optional>

#include "agreement/messages.hpp"
#include "execution/state/object_store.hpp"

namespace zz::execution {

// A place of that kind: an object's is its id, an inner node's ends above the objects, and bits below the depth are
// zero.
std::optional<state::PartKind> checked_kind(std::uint8_t kind, const state::Place& place);

agreement::StateWant to_message(const state::Want& want);
agreement::StatePart to_message(state::Part part);
// Nothing: no such kind or place.
std::optional<state::Want> from_message(const agreement::StateWant& want);
std::optional<state::Part> from_message(const agreement::StatePart& part);

// The most that the parts of a path can weigh.
constexpr std::uint64_t path_bytes_max(unsigned below, bool with_root) {
  return (with_root ? state::kRootBytesMax : 0) + (state::kLeafDepth - below) * state::kNodeBytesMax +
         state::kObjectBytesMax;
}

}  // namespace zz::execution
