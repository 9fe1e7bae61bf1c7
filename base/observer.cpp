#include "base/observer.hpp"

namespace zz {

std::string_view to_string(EventKind kind) {
  switch (kind) {
    case EventKind::kProposed:
      return "proposed";
    case EventKind::kPrepared:
      return "prepared";
    case EventKind::kCommitted:
      return "committed";
    case EventKind::kDiverged:
      return "diverged";
    case EventKind::kWakeRequested:
      return "wake-requested";
    case EventKind::kVoted:
      return "voted";
    case EventKind::kComplained:
      return "complained";
    case EventKind::kViewLeft:
      return "view-left";
    case EventKind::kViewEntered:
      return "view-entered";
    case EventKind::kConflict:
      return "conflict";
    case EventKind::kCheckpoint:
      return "checkpoint";
    case EventKind::kClosed:
      return "closed";
    case EventKind::kSettled:
      return "settled";
    case EventKind::kSuspected:
      return "suspected";
    case EventKind::kEpochChanged:
      return "epoch-changed";
    case EventKind::kEvicted:
      return "evicted";
    case EventKind::kJoined:
      return "joined";
    case EventKind::kNotDeterministic:
      return "not-deterministic";
    case EventKind::kSlotState:
      return "slot-state";
    case EventKind::kRefused:
      return "refused";
  }
  return "unknown";
}

}  // namespace zz
