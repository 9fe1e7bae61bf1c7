#pragma once

// Gateway: plain HTTP/1.1 in, ordered operations out, voted replies back (one service).
//
// Every request becomes one operation (execution/http_canonical.hpp) handed to `Submit`; the accepted reply
// goes to the user. Lives on the io_context's single thread; the cluster file and service entry must outlive
// it, and so must what `Submit` refers to, until stop() or the destructor returns.
//
// Invariants:
//  1. Requests of one connection are submitted in the order they were sent, and answered in that order: a request is
//     submitted only after its predecessor on that connection was answered. Pipelined ones wait in the socket
//     and in a read buffer of bounded size; users who want more in flight open more connections.
//  2. Nothing is submitted before its whole body is here, and nothing that was refused is ever submitted.
//  3. After any refusal, and whenever the end of a request is in doubt, the connection is closed after the answer.
//  4. A connection holds at most gateway_header_bytes_max + kReadBytes unread bytes, one body of
//     gateway_body_bytes_max and one reply; there are at most gateway_connections_max connections.
//  5. An answer that does not come in time is said to be missing (504); the request may still be executed later.
//
// A plain HTTP user trusts the gateway (docs/protocol.md §1): what agreement voted on is checked here, not there.

#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <functional>
#include <memory>

#include "base/bytes.hpp"
#include "base/refusal.hpp"
#include "base/result.hpp"
#include "client/client.hpp"
#include "crypto/cluster.hpp"

namespace zz::apps {

// Orders one operation, as client::Client::submit does: kNone when it was taken, and `done` is called once, possibly
// before this returns; otherwise `done` is not called.
using Submit = std::function<Refusal(SharedBytes op, client::Client::Done done)>;

inline constexpr std::size_t kReadBytes = 16u << 10;       // read at a time
inline constexpr std::uint32_t kHeadTimeoutMs = 10'000;    // from a head's first byte to its last
inline constexpr std::uint32_t kAnswerTimeoutMs = 30'000;  // then 504
inline constexpr std::uint32_t kBytesPerSecondMin = 500;   // slower, either way, counts as idle
inline constexpr std::uint32_t kLingerMs = 2'000;          // reads on after a refusal, so that it arrives
inline constexpr std::size_t kLingerBytesMax = 4u << 20;
inline constexpr std::size_t kTurnedAwayMax = 64;  // connections that get their 503 at one time

// Deadlines that tests make short.
struct GatewayOptions {
  std::uint32_t head_timeout_ms = kHeadTimeoutMs;
  std::uint32_t answer_timeout_ms = kAnswerTimeoutMs;
  std::uint32_t linger_ms = kLingerMs;
};

struct GatewayStats {
  std::uint64_t connections = 0;  // accepted so far
  std::uint64_t open = 0;         // now
  std::uint64_t turned_away = 0;  // over gateway_connections_max
  std::uint64_t requests = 0;     // submitted
  std::uint64_t replies = 0;      // voted replies sent on
  std::uint64_t refused = 0;      // answered by the gateway itself, 4xx or 501
  std::uint64_t unanswered = 0;   // answered by the gateway itself, 502, 503 or 504
  std::uint64_t timeouts = 0;     // connections closed as idle or slow
};

class Gateway {
 public:
  Gateway(boost::asio::io_context& loop, const crypto::ClusterFile& cluster, const crypto::ServiceEntry& service,
          Submit submit, GatewayOptions options = {});
  ~Gateway();
  Gateway(const Gateway&) = delete;
  Gateway& operator=(const Gateway&) = delete;

  // Listens on the service's gateway address (port 0: any free port). Error names the address and the way out.
  Result<void> listen();
  [[nodiscard]] std::uint16_t port() const;  // 0 when not listening
  // Closes the listening socket and every connection; `submit` is not called again.
  void stop();
  [[nodiscard]] const GatewayStats& stats() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace zz::apps
