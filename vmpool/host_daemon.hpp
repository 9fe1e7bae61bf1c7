#pragma once

// HostDaemon: drives the Pool of one host (docs/protocol.md §9 to §11). It dials every agreement node with the host's
// key, hands their WAKEs and notices to the core, carries out what the core wants in the one order that is safe, makes
// the keys of incarnations, and answers the control socket DIR/run/host-<id>.sock:
//
//   {"cmd":"status"}  {"host":0,"slots":[{"service":0,"slot":1,"incarnation":2,"state":"asleep","joined":true,
//                      "failures":0,"pids":[..],"error":"…","waking":{..}}]}; error: the slot's last one, if any
//                     waking, if the guest was asked for or is on duty: {"asked_us","handed_us","voted_us","whole_us",
//                      "touched_bytes"}: the first WAKE, its identity, its first vote, all state there; microseconds of
//                      this machine's monotonic clock
//   {"cmd":"fault","service":0,"slot":1,"kind":"wrong-reply"}  {"ok":true} or {"ok":false,"error":"…"}
//
// Everything runs on the io_context's single thread. `loop`, `cluster`, `key` and `backend` must outlive the daemon.
//
// Invariants:
//  1. The count of used incarnations is on disk before a guest with a new one boots.
//  2. A guest's secret key leaves the daemon once, when it is handed over, and is forgotten then.
//  3. Faults are injected only in clusters made for that (allow_faults).

#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <string>

#include "base/result.hpp"
#include "crypto/cluster.hpp"
#include "crypto/sign.hpp"
#include "vmpool/hypervisor.hpp"

namespace zz::vmpool {

inline constexpr int kPoolTickMs = 50;

struct HostOptions {
  HostId id;
  std::string dir;  // of the cluster
};

class HostDaemon {
 public:
  HostDaemon(boost::asio::io_context& loop, const crypto::ClusterFile& cluster, HostOptions options,
             const crypto::SecretKey& key, Hypervisor& backend);
  ~HostDaemon();  // leaves guests to the backend

  // The caller holds the HostLock. Boots the slots; error names the file or socket that is in the way.
  Result<void> start();
  // Destroys every guest, then calls `stopped` once. Calls back even if some guest resists: never earlier than it is
  // gone, so the caller sets its own limit.
  void stop(std::function<void()> stopped);
  // Told of what ends the daemon's usefulness (the count of incarnations cannot be stored). Set before start().
  void set_on_fatal(std::function<void(std::string)> on_fatal);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace zz::vmpool
