#pragma once

// An HttpAdapter driven to completion call by call, and services to drive.

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <boost/beast/http/verb.hpp>
#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "execution/http_adapter.hpp"
#include "execution/http_canonical.hpp"
#include "execution/webdav_sample.hpp"
#include "tests/execution/temp_dir.hpp"

namespace zz::execution::testing {

namespace fs = std::filesystem;
namespace http = boost::beast::http;

inline constexpr std::chrono::seconds kPatience{30};

struct Header {
  std::string name;
  std::string value;
};

inline SharedBytes operation(http::verb verb, const std::string& target, const std::string& body = {},
                             const std::vector<Header>& headers = {}) {
  HttpRequest request(verb, target, 11);
  request.set(http::field::host, "example.org");
  for (const Header& header : headers) request.set(header.name, header.value);
  request.body() = body;
  auto made = make_http_operation(request);
  EXPECT_TRUE(made.ok());
  return SharedBytes(std::move(*made));
}

// One adapter with a working directory of its own, driven to completion call by call.
class Driven {
 public:
  explicit Driven(HttpAdapterConfig config) {
    fs::create_directory(dir.path / "work");
    config.name = "web";
    config.work_dir = dir.path / "work";
    config.warn = [this](const std::string& what) { warned = what; };
    adapter.emplace(loop, std::move(config), [this](const std::string& why) { died = why; });
  }
  // Empty when it started.
  std::string start() {
    std::optional<std::string> outcome;
    adapter->start([&](const Result<void>& result) { outcome = result.ok() ? "" : result.error(); });
    until([&] { return outcome.has_value(); });
    return outcome.value_or("no answer");
  }
  std::string call(const SharedBytes& op) {
    std::optional<SharedBytes> reply;
    ++calls;
    adapter->execute({Seq{calls}, Micros{static_cast<std::int64_t>(calls) * 1'000'000}, Digest{}, ClientId{0}, op},
                     [&](SharedBytes body) { reply = std::move(body); });
    until([&] { return reply.has_value(); });
    return reply ? std::string(reply->text()) : std::string("no answer");
  }
  std::string call(http::verb verb, const std::string& target, const std::string& body = {},
                   const std::vector<Header>& headers = {}) {
    return call(operation(verb, target, body, headers));
  }
  std::string get(const std::string& target) { return call(http::verb::get, target); }
  void age_files() {
    const auto then = fs::file_time_type::clock::now() - std::chrono::hours(5);
    for (const auto& entry : fs::recursive_directory_iterator(dir.path / "work/state"))
      fs::last_write_time(entry.path(), then);
  }
  void until(const std::function<bool()>& done) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (!done() && std::chrono::steady_clock::now() < deadline) {
      loop.restart();
      loop.run_one_for(std::chrono::milliseconds(5));
    }
  }

  TempDir dir;
  boost::asio::io_context loop;
  std::string died;
  std::string warned;
  std::uint64_t calls = 0;  // each is a batch of its own, a second after the one before
  std::optional<HttpAdapter> adapter;
};

inline HttpAdapterConfig odd_service(const std::vector<std::string>& flags = {}) {
  HttpAdapterConfig config;
  config.command = {ODD_SERVICE};
  config.command.insert(config.command.end(), flags.begin(), flags.end());
  config.command.push_back("$PORT");
  config.http.request_timeout_ms = 5'000;
  return config;
}

// nginx with WebDAV on an initial state in `dir`.
inline HttpAdapterConfig webdav(const TempDir& dir) {
  const auto sample = make_webdav_sample(dir.path / "initial");
  EXPECT_TRUE(sample.ok()) << (sample.ok() ? "" : sample.error());
  HttpAdapterConfig config;
  if (!sample.ok()) return config;
  config.command = sample->command;
  config.initial_state = sample->initial_state;
  config.http = sample->http;
  return config;
}

}  // namespace zz::execution::testing
