#include "base/refusal.hpp"

namespace zz {

std::string_view to_string(Refusal reason) {
  switch (reason) {
    case Refusal::kNone:
      return "none";
    case Refusal::kMalformed:
      return "malformed";
    case Refusal::kOversize:
      return "oversize";
    case Refusal::kUnknownPeer:
      return "unknown-peer";
    case Refusal::kWrongRole:
      return "wrong-role";
    case Refusal::kUnknownService:
      return "unknown-service";
    case Refusal::kBadSignature:
      return "bad-signature";
    case Refusal::kStaleView:
      return "stale-view";
    case Refusal::kFutureView:
      return "future-view";
    case Refusal::kNotPrimary:
      return "not-primary";
    case Refusal::kOutOfWindow:
      return "out-of-window";
    case Refusal::kDuplicate:
      return "duplicate";
    case Refusal::kConflict:
      return "conflict";
    case Refusal::kBadTime:
      return "bad-time";
    case Refusal::kStaleEpoch:
      return "stale-epoch";
    case Refusal::kStaleIncarnation:
      return "stale-incarnation";
    case Refusal::kUnknownSlot:
      return "unknown-slot";
    case Refusal::kQueueFull:
      return "queue-full";
    case Refusal::kQuota:
      return "quota";
    case Refusal::kSessionExpired:
      return "session-expired";
    case Refusal::kNotReady:
      return "not-ready";
    case Refusal::kNotAllowed:
      return "not-allowed";
    case Refusal::kWrongDigest:
      return "wrong-digest";
    case Refusal::kNotWanted:
      return "not-wanted";
    case Refusal::kCount:
      break;
  }
  return "unknown";
}

}  // namespace zz
