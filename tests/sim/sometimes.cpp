#include "tests/sim/sometimes.hpp"

#include "tests/sim/adversary.hpp"
#include "tests/sim/kernel.hpp"
#include "tests/sim/plan.hpp"

namespace zz::sim {

namespace {

constexpr std::string_view kPaths[] = {
    "recovery.restart",
    "recovery.learner",
    "recovery.replayed-order",
    "recovery.restart-in-view-change",
    "recovery.restart-with-stable-checkpoint",
    "recovery.view-change",
    "recovery.new-view",
    "recovery.stable-checkpoint",
    "complaint.silent",
    "complaint.held",
    "client.retransmits",
    "client.hedges",
    "for-ever.crashed",
    "for-ever.cut-off",
    "for-ever.flapping",
    "for-ever.host-dead",
    "for-ever.guest-flapping",
    "event.evicted",
    "event.joined",
    "event.epoch-changed",
    "event.wake-requested",
    "event.closed",
    "event.settled",
    "event.view-left",
    "event.view-entered",
    "event.checkpoint",
    "wake.rejuvenation",
    "wake.one-by-one",
    "slot.rejuvenated",
    "sign.mismatch",
    "sign.overdue",
    "sign.gone",
    "sign.checkpoint",
    "evidence.roots",
    "slot.adopted",
    "slot.ended",
    "slot.state-asked",
    "slot.state-whole",
    "slot.state-stale",
    "slot.replays",
    "byzantine-slot.wrong-root",
    "byzantine-slot.wrong-state",
    "byzantine.mutate.state-parts",
    "byzantine.lie-checkpoint.to-slot",
};

// Between people and the cluster only.
bool is_operators(std::string_view message) { return message.starts_with("STATUS-"); }

}  // namespace

std::vector<std::string> must_happen() {
  std::vector<std::string> out(std::begin(kPaths), std::end(kPaths));
  for (std::size_t i = 0; i < kFaults; ++i) {
    out.push_back("fault." + std::string(to_string(static_cast<Fault>(i))));
  }
  for (const std::string& kind : adversary_kinds()) out.push_back("byzantine-node." + kind);
  out.push_back("byzantine-node." + std::string(kTwin));
  for (std::size_t i = 0; i < static_cast<std::size_t>(SlotVice::kCount); ++i) {
    out.push_back("byzantine-slot-kind." + std::string(to_string(static_cast<SlotVice>(i))));
  }
  for (std::size_t i = 0; i < kMessageKinds; ++i) {
    if (!is_operators(message_name(i))) out.push_back("message." + std::string(message_name(i)));
  }
  return out;
}

}  // namespace zz::sim
