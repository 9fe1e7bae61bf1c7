#pragma once

// Observer: where the cores report what they did. Logs, metrics, status and simulator traces are sinks of it;
// a core holds no logger. Called on the core's thread, synchronously; a sink must not call back into the core.

#include <string_view>

#include "base/ids.hpp"

namespace zz {

enum class EventKind : std::uint8_t {
  kProposed,          // primary: n
  kPrepared,          // n
  kCommitted,         // n
  kDiverged,          // first sign of trouble at n: slot (where one is known), why =
                      // mismatch | overdue | gone | checkpoint
  kWakeRequested,     // slot, incarnation, n, why
  kVoted,             // executor: n
  kComplained,        // would leave view: why = the complaint, or "others" do
  kViewLeft,          // a higher view is wanted from now on: why = "complaints", or "joined"
  kViewEntered,       // view, n = where its first own proposal will be
  kConflict,          // n: more than f nodes must be faulty, why = what contradicts what
  kCheckpoint,        // n is stable
  kClosed,            // n has g+1 equal votes
  kSettled,           // n had a sign of trouble and now has g+1 equal votes
  kSuspected,         // slot, incarnation, n, why = wrong | late | surplus
  kEpochChanged,      // epoch took effect after n
  kEvicted,           // slot, incarnation left for a reason other than surplus, why
  kJoined,            // slot, incarnation
  kNotDeterministic,  // n: all slots voted and no g+1 agree; why = checkpoint, or "convictions": more than g were wrong
  kSlotState,         // pool: slot, incarnation, why = new state's name
  kRefused,           // why = refusal's name; node or slot when known
};

std::string_view to_string(EventKind kind);

struct Event {
  EventKind kind{};
  ServiceId service{};
  Seq n{};
  Epoch epoch{};
  SlotId slot{};
  Incarnation incarnation{};
  NodeId node{};
  View view{};
  std::string_view why{};  // valid during the call only
};

class Observer {
 public:
  virtual ~Observer() = default;
  virtual void on_event(const Event& event) = 0;
};

// Ignores everything.
class NullObserver final : public Observer {
 public:
  void on_event(const Event&) override {}
};

}  // namespace zz
