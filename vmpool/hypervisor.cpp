#include "vmpool/hypervisor.hpp"

#include <array>

namespace zz::vmpool {
namespace {

constexpr std::array kFaults = {FaultKind::kWrongReply, FaultKind::kSilent, FaultKind::kSlow, FaultKind::kCrash};

}  // namespace

std::string to_string(const GuestId& guest) {
  return "s" + std::to_string(guest.service.value) + "-slot" + std::to_string(guest.slot.value) + "-" +
         std::to_string(guest.incarnation.value);
}

std::optional<FaultKind> parse_fault(std::string_view name) {
  for (const FaultKind kind : kFaults) {
    if (to_string(kind) == name) return kind;
  }
  return std::nullopt;
}

std::string_view to_string(FaultKind kind) {
  switch (kind) {
    case FaultKind::kWrongReply:
      return "wrong-reply";
    case FaultKind::kSilent:
      return "silent";
    case FaultKind::kSlow:
      return "slow";
    case FaultKind::kCrash:
      return "crash";
  }
  return "unknown";
}

}  // namespace zz::vmpool
