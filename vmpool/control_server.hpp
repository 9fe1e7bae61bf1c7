#pragma once

// ControlServer: a Unix stream socket on which the owner of a daemon asks it things: one JSON object per line in, one
// line out, in order. The socket's mode is 0600; whoever can open it is trusted, but not to be free of mistakes: lines,
// connections and what one connection can have under way are bounded, and bad input is answered with
// {"ok":false,"error":"…"}.
//
// Runs on the io_context's single thread; the handler must outlive the server, and the io_context too.

#include <boost/asio/io_context.hpp>
#include <cstddef>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/result.hpp"

namespace zz::vmpool {

inline constexpr std::size_t kControlLineMax = 4'096;
inline constexpr std::size_t kControlConnectionsMax = 16;

class ControlServer {
 public:
  // `answer` takes one JSON object, may be called later, and must be called once.
  using Answer = std::function<void(const nlohmann::json&)>;
  using OnCommand = std::function<void(const nlohmann::json& command, Answer answer)>;

  // Replaces a socket that nobody serves any more: the caller knows that it is alone.
  static Result<std::unique_ptr<ControlServer>> make(boost::asio::io_context& loop, const std::string& path,
                                                     OnCommand on_command);
  ~ControlServer();  // closes everything and removes the socket

  static nlohmann::json refusal(const std::string& why);

 private:
  struct State;
  explicit ControlServer(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace zz::vmpool
