#pragma once

// The port between zz and an application: what an executor drives, one request at a time, in the agreed order.

#include <functional>
#include <memory>
#include <optional>

#include "base/bytes.hpp"
#include "base/ids.hpp"
#include "base/result.hpp"
#include "execution/service_state.hpp"

namespace zz::execution {

// What a service may know besides the operation; the same on every replica.
struct Invocation {
  Seq n;
  Micros time;  // agreed: strictly increasing over n, equal for the requests of one batch
  Digest seed;  // agreed: distinct per batch, not secret
  ClientId client;
  SharedBytes op;
};

// An in-process application (the `in-process` adapter). All that it knows is in its state, so that a replica that has
// the state behaves like the one it is from; and it must be deterministic: equal calls on equal states give equal
// replies and leave equal states. One thread.
class Service {
 public:
  virtual ~Service() = default;
  // Applies one operation and returns its reply; an invalid operation gets a reply that says so. Nothing: something
  // that it read is absent (state.missing()); the same call comes again. The caller commits, or drops the changes: so
  // it finds out what a later request will need, of which time and seed are not known yet.
  virtual std::optional<SharedBytes> execute(const Invocation& invocation, ServiceState& state) = 0;
};

// Drives one service, local or out of process. One thread (the loop's); at most one invocation at a time.
class Adapter {
 public:
  using Reply = std::function<void(SharedBytes)>;
  using Started = std::function<void(Result<void>)>;
  virtual ~Adapter() = default;
  // Makes the service ready on a fresh copy of its initial state. Calls back once; an error names command and cause.
  virtual void start(Started done) = 0;
  // Requires that no invocation is pending. Calls back exactly once, possibly before returning. A service
  // that crashes or hangs answers with a definite error reply; it never calls back with nothing.
  virtual void execute(const Invocation& invocation, Reply done) = 0;
  // Absent parts of the state have come: what waits for them is tried again.
  virtual void supplied() {}
  // The invocation that runs waits for absent parts. These will follow it: what they are known to need can be asked for
  // with the same round trip.
  virtual void foresee(const std::vector<Invocation>& /*upcoming*/) {}
  // The state is another one: what was being run is forgotten, and calls back no more. Calls back once the service runs
  // on that state, as start() does; not for a call that another follows before.
  virtual void replaced(Started done) = 0;
  // At each reply all of the service's state is in the store: what a checkpoint covers. From start() on. Else save()
  // puts it there, when a checkpoint is due, and what it writes is of that agreed time. It calls back once, possibly
  // before returning; not if replaced() comes before or the service dies of it. Requires that no invocation is pending.
  [[nodiscard]] virtual bool state_is_in_store() const = 0;
  virtual void save(Micros /*agreed*/, std::function<void()> done) { done(); }
};

}  // namespace zz::execution
