#pragma once

// Client: asks a replicated service and hands back replies that f+1 agreement nodes vouch for
// (docs/protocol.md §4). It keeps one channel to every agreement node and runs several sessions over them; a
// session is one window of requests (client/session.hpp holds the rules).
//
// Everything runs on the io_context's single thread, callbacks too; nothing blocks. All submissions of a loop
// turn leave in one message per session. One process at a time may use a client identity: nodes keep one
// channel per peer.
//
// Lifetimes: loop, cluster and key outlive the client; callbacks of requests still outstanding when it is
// destroyed are dropped without a call. A callback may submit; it must not destroy the client.

#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>

#include "base/refusal.hpp"
#include "base/result.hpp"
#include "client/session.hpp"
#include "crypto/cluster.hpp"
#include "crypto/sign.hpp"

namespace zz::client {

struct ClientOptions {
  std::uint32_t sessions = 1;  // per service, at least 1, at most the cluster's client_sessions_max
  Micros timeout{30'000'000};  // of each request
};

struct Answer {
  Outcome outcome = Outcome::kTimedOut;
  SharedBytes reply;                // kReply; a slice of the frame it came in: copy what is kept for long
  Refusal reason = Refusal::kNone;  // kRejected
};

class Client {
 public:
  using Done = std::function<void(const Answer&)>;

  // Starts dialling every node and returns at once. Requires crypto::init().
  static Result<std::unique_ptr<Client>> open(boost::asio::io_context& loop, const crypto::ClusterFile& cluster,
                                              const crypto::SecretKey& key, const ClientOptions& options = {});
  ~Client();

  // Sends `op` to `service`. kNone: taken, and `done` is called exactly once, never from inside this call.
  // Otherwise `done` is not called: kQueueFull (BUSY: every window is full, try again after a callback),
  // kOversize, kUnknownService. Requests of one service may be executed in another order than they were submitted.
  Refusal submit(ServiceId service, SharedBytes op, Done done);

  // Agreement nodes with a live channel now.
  [[nodiscard]] std::uint32_t connected_nodes() const;
  [[nodiscard]] std::size_t outstanding() const;
  // Sum over all sessions so far.
  [[nodiscard]] SessionStats stats() const;
  // What nodes and strangers got wrong, by reason.
  [[nodiscard]] const RefusalCounts& refusals() const;

 private:
  struct State;
  explicit Client(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace zz::client
