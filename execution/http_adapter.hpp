#pragma once

// HttpAdapter: drives a web service that runs as a process of its own and listens on $PORT of 127.0.0.1, one request
// at a time over one kept-alive connection. Operations and replies are those of execution/http_canonical.hpp.
//
// Everything runs on the io_context's thread. Callbacks are never called after the adapter's end.
//
// Invariants:
//  1. A request is written to the service at most once. An idle connection is checked before it is used, and
//     replaced if the service has closed it.
//  2. Every invocation is answered once: with the canonical reply, or 504 when the service does not answer within
//     request_timeout_ms, or 502 when it closes the connection, breaks HTTP or is dead.
//  3. start() succeeds at most once, on a copy of the initial state that nobody used before.

#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "crypto/cluster.hpp"
#include "execution/service.hpp"

namespace zz::execution {

// A connection idle for longer is not used again: servers close idle connections, and a request must not cross that.
inline constexpr int kServiceIdleMs = 1'000;

struct HttpAdapterConfig {
  std::string name;                  // of the service, for errors
  std::vector<std::string> command;  // argv; $PORT and $STATE are replaced and exported
  std::string initial_state;         // empty: start empty
  std::string work_dir;              // exists; state/ and service.log are made in it, and it is the working directory
  crypto::HttpOptions http;
  std::size_t reply_bytes_max = 4u << 20;
};

class HttpAdapter final : public Adapter {
 public:
  // `died`: the service's process ended after a successful start. Called once; the adapter answers 502 from then on.
  using Died = std::function<void(const std::string& why)>;
  HttpAdapter(boost::asio::io_context& loop, HttpAdapterConfig config, Died died);
  ~HttpAdapter() override;  // kills the service

  void start(Started done) override;
  void execute(const Invocation& invocation, Reply done) override;

  [[nodiscard]] std::uint16_t port() const;  // 0 before start()
  [[nodiscard]] pid_t service_pid() const;   // -1 when it does not run

 private:
  class Core;
  std::shared_ptr<Core> core_;
};

// What a request of an evicted session gets.
[[nodiscard]] SharedBytes http_session_expired_reply();

}  // namespace zz::execution
