#pragma once

// Asking a cluster how it is: every agreement node over its own channel (as client 0, the operator), and host
// daemons over their local control sockets.
//
// StatusClient lives on the io_context's single thread and keeps its channels between questions; query_status
// and query_host_socket are blocking and stand alone. What nodes answer is theirs to say: each answer is
// attributed to the node of its channel and is otherwise only known to be a JSON object of bounded size.

#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "crypto/cluster.hpp"

namespace zz::apps {

inline constexpr std::uint32_t kStatusTimeoutMs = 2'000;
inline constexpr std::uint32_t kHostTimeoutMs = 10'000;
inline constexpr std::size_t kHostAnswerBytesMax = 1u << 20;
inline constexpr int kJsonDepthMax = 32;  // deeper answers are ignored

class StatusClient {
 public:
  // One object per node that answered, in ascending order of "node".
  using Answers = std::vector<nlohmann::json>;

  // Loads DIR/cluster.toml and the operator's key, and starts dialling. `loop` must outlive the client.
  static Result<std::unique_ptr<StatusClient>> open(boost::asio::io_context& loop, const std::string& dir);
  ~StatusClient();  // a pending question is dropped without a call

  // Asks every node and calls back once, never from inside this call: when all have answered or `timeout_ms`
  // is over. Requires that no question is pending.
  void ask(std::uint32_t timeout_ms, std::function<void(Answers)> done);
  [[nodiscard]] const crypto::ClusterFile& cluster() const;

 private:
  struct State;
  explicit StatusClient(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

// Asks once, on a loop of its own. Error when the cluster or key cannot be loaded or nobody answered.
Result<std::vector<nlohmann::json>> query_status(const std::string& dir, std::uint32_t timeout_ms = kStatusTimeoutMs);

// DIR/run/host-<id>.sock
std::string host_socket_path(const std::string& dir, HostId host);
// Sends one JSON line to a host daemon's control socket and returns its one-line answer. An answer
// {"ok":false,...} is returned like any other; errors are the socket's.
Result<nlohmann::json> query_host_socket(const std::string& path, const nlohmann::json& command,
                                         std::uint32_t timeout_ms = kHostTimeoutMs);

}  // namespace zz::apps
