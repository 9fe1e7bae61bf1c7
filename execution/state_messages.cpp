#include "execution/state_messages.hpp"

#include <utility>

namespace zz::execution {

std::optional<state::PartKind> checked_kind(std::uint8_t kind, const state::Place& place) {
  if (place.depth > state::kLeafDepth || (place.prefix & ~state::prefix_mask(place.depth)) != 0) return std::nullopt;
  switch (kind) {
    case 0:
      if (place != state::Place{}) return std::nullopt;
      return state::PartKind::kRoot;
    case 1:
      if (place.is_object()) return std::nullopt;
      return state::PartKind::kNode;
    case 2:
      if (!place.is_object()) return std::nullopt;
      return state::PartKind::kObject;
    default:
      return std::nullopt;
  }
}

agreement::StateWant to_message(const state::Want& want) {
  return {static_cast<std::uint8_t>(want.kind), want.place.prefix, want.place.depth, want.bytes_max, want.digest};
}

agreement::StatePart to_message(state::Part part) {
  return {static_cast<std::uint8_t>(part.kind), part.place.prefix, part.place.depth, std::move(part.bytes)};
}

std::optional<state::Want> from_message(const agreement::StateWant& want) {
  const state::Place place{want.prefix, want.depth};
  const std::optional<state::PartKind> kind = checked_kind(want.kind, place);
  if (!kind) return std::nullopt;
  return state::Want{*kind, place, want.bytes_max, want.digest, state::ObjectId{place.prefix}};
}

std::optional<state::Part> from_message(const agreement::StatePart& part) {
  const state::Place place{part.prefix, part.depth};
  const std::optional<state::PartKind> kind = checked_kind(part.kind, place);
  if (!kind) return std::nullopt;
  return state::Part{*kind, place, part.bytes};
}

}  // namespace zz::execution
