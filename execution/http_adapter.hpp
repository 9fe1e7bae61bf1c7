#pragma once

// HttpAdapter: drives a web service that runs as a process of its own and listens on $PORT of 127.0.0.1, one request
// at a time over one kept-alive connection. Operations and replies are those of execution/http_canonical.hpp.
//
// With a store, $STATE is a mount over the store's head (ServiceHome), and a request that ends the service is undone:
// the head is what it was before, the service is started again, and the next request goes on. Without FUSE, or with
// http.copy_state, $STATE is a plain directory that save() copies into the head; a request is undone by making it that
// of the last save() again, and running what came since. Without a store it is one that nobody but the service knows.
//
// Everything runs on the io_context's thread. Callbacks are never called after the adapter's end. With a store nothing
// here may be called with `head` held, and nobody else may write the head from execute() to its reply.
//
// Invariants:
//  1. A request is written to the service at most once. An idle connection is checked before it is used, and
//     replaced if the service has closed it.
//  2. Every invocation is answered once, unless replaced() comes before: with the canonical reply, or 504 when the
//     service does not answer within request_timeout_ms, or 502 when it closes the connection, breaks HTTP or is dead.
//     Time in which the service waits for absent state does not count.
//  3. start() succeeds at most once, on an initial state that nobody used before.
//  4. With a store: at a reply what the service did for the request is in the head, mappings too, at its agreed time;
//     after "no answer" (502, 504) nothing of it is. A reply that is too long (502) keeps its effects.

#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "crypto/cluster.hpp"
#include "execution/service.hpp"
#include "execution/service_home.hpp"

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
  ServiceStore store = {};                            // without objects: $STATE is a plain directory
  std::function<void(const std::string&)> warn = {};  // what people should know and no caller can mend; may be empty
};

class HttpAdapter final : public Adapter {
 public:
  // `died`: the service's process ended after a successful start; with a store, only if it cannot be started again, or
  // ends again and again without a request. Called once; the adapter answers 502 from then on.
  using Died = std::function<void(const std::string& why)>;
  HttpAdapter(boost::asio::io_context& loop, HttpAdapterConfig config, Died died);
  ~HttpAdapter() override;  // kills the service

  void start(Started done) override;
  void execute(const Invocation& invocation, Reply done) override;
  void supplied() override;

  // The store's head was replaced by adopt(): the service is ended, the invocation that is pending, if any, forgotten,
  // and the service started on what the head is now. Calls back when it accepts; not for a call that another follows
  // before that. After start() has called back; requires a store in use.
  void replaced(Started done) override;
  // The machine was resumed: does what on_wake says (a state that was replaced as well needs no more than replaced(),
  // before whose end this calls nobody back any more).
  void woken(Started done);
  // $STATE is a mount.
  [[nodiscard]] bool state_is_in_store() const override;
  // Between its calls the store must have the service's state of the last one, and the requests since are kept: their
  // number and bytes are what checkpoints allow.
  void save(Micros agreed, std::function<void()> done) override;

  [[nodiscard]] std::uint16_t port() const;  // 0 before start()
  [[nodiscard]] pid_t service_pid() const;   // -1 when it does not run

 private:
  class Core;
  std::shared_ptr<Core> core_;
};

// What a request of an evicted session gets.
[[nodiscard]] SharedBytes http_session_expired_reply();

}  // namespace zz::execution
