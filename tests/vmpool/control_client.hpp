#pragma once

// A client of a control socket on the test's own loop.

#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "tests/support/run_until.hpp"

namespace zz::vmpool {

class ControlClient {
 public:
  ControlClient(boost::asio::io_context& loop, const std::string& path) : loop_(loop), socket_(loop) {
    socket_.connect(boost::asio::local::stream_protocol::endpoint(path), connected_);
  }
  [[nodiscard]] bool connected() const { return !connected_; }
  void send(const std::string& text) { boost::asio::write(socket_, boost::asio::buffer(text), connected_); }
  // The next line; nothing when the server closes instead.
  std::optional<nlohmann::json> next() {
    std::optional<nlohmann::json> out;
    bool over = false;
    boost::asio::async_read_until(socket_, boost::asio::dynamic_buffer(input_), '\n',
                                  [&](const boost::system::error_code& error, std::size_t size) {
                                    over = true;
                                    if (error) return;
                                    out = nlohmann::json::parse(input_.substr(0, size), nullptr, false);
                                    input_.erase(0, size);
                                  });
    if (!test::run_until(loop_, [&] { return over; })) std::abort();
    return out;
  }
  std::optional<nlohmann::json> ask(const std::string& line) {
    send(line + "\n");
    return next();
  }

 private:
  boost::asio::io_context& loop_;
  boost::asio::local::stream_protocol::socket socket_;
  boost::system::error_code connected_;
  std::string input_;
};

}  // namespace zz::vmpool
