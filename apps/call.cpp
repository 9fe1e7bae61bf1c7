// zz call: one request to a service of a cluster, and its agreed reply.

#include <fmt/format.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <chrono>
#include <csignal>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "apps/caller.hpp"
#include "apps/commands.hpp"
#include "client/client.hpp"

namespace zz::apps {
namespace {

using Clock = std::chrono::steady_clock;

struct CallFlags {
  std::string dir;
  std::string service;
  std::optional<std::uint32_t> client;
  std::uint32_t timeout_ms = 10'000;
  bool json = false;
  std::string text;
};

// Standard input to its end; nothing when it is longer than `max`.
std::optional<std::string> read_input(std::size_t max) {
  std::string out;
  char buffer[1 << 16];
  while (std::cin.read(buffer, sizeof(buffer)), std::cin.gcount() > 0) {
    out.append(buffer, static_cast<std::size_t>(std::cin.gcount()));
    if (out.size() > max) return std::nullopt;
  }
  return out;
}

void print(const CallFlags& flags, const client::Answer& answer, std::int64_t latency_us) {
  const std::string_view reply = answer.reply.text();
  if (!flags.json) {
    std::cout << reply << (reply.ends_with('\n') ? "" : "\n");
    return;
  }
  nlohmann::json out = {{"latency_us", latency_us}};
  try {
    static_cast<void>(nlohmann::json(reply).dump());  // only UTF-8 can be JSON text
    out["reply"] = reply;
  } catch (const nlohmann::json::exception&) {
    out["reply_hex"] = to_hex(answer.reply.view());
  }
  std::cout << out.dump() << '\n';
}

std::string failure(const CallFlags& flags, const client::Answer& answer, const client::Client& client,
                    const crypto::ClusterFile& cluster) {
  if (answer.outcome == client::Outcome::kRejected) {
    return fmt::format("the agreement nodes refused the request: {}", to_string(answer.reason));
  }
  return fmt::format(
      "no agreed reply within {} ms ({} of {} agreement nodes reachable now; {} are needed); the request may still be "
      "executed",
      flags.timeout_ms, client.connected_nodes(), cluster.n(), 2 * cluster.f + 1);
}

Result<void> run_call(const CallFlags& flags) {
  const auto caller = load_caller(flags.dir, flags.client, flags.service);
  if (!caller) return Error{caller.error()};
  const std::size_t max = caller->cluster.limits.op_bytes_max;
  const std::optional<std::string> op = flags.text == "-" ? read_input(max) : flags.text;
  if (!op || op->size() > max) return Error{fmt::format("the request is longer than op_bytes_max ({} bytes)", max)};

  boost::asio::io_context loop(1);
  boost::asio::signal_set signals(loop, SIGINT, SIGTERM);
  signals.async_wait([&loop](const boost::system::error_code& error, int) {
    if (!error) loop.stop();
  });
  client::ClientOptions options;
  options.timeout = Micros{std::int64_t{flags.timeout_ms} * 1'000};
  auto client = client::Client::open(loop, caller->cluster, caller->key, options);
  if (!client) return Error{client.error()};

  std::optional<client::Answer> answer;
  const auto start = Clock::now();
  const Refusal refusal =
      (*client)->submit(caller->service.id, SharedBytes::copy(*op), [&](const client::Answer& given) {
        answer = given;
        loop.stop();
      });
  if (refusal != Refusal::kNone) return Error{fmt::format("not sent: {}", to_string(refusal))};
  loop.run();
  if (!answer) return Error{"interrupted; the request may still be executed"};
  if (answer->outcome != client::Outcome::kReply) {
    return Error{failure(flags, *answer, **client, caller->cluster)};
  }
  const auto taken = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - start);
  print(flags, *answer, taken.count());
  return {};
}

}  // namespace

void add_call(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<CallFlags>();
  CLI::App* command = app.add_subcommand("call", "sends one request and prints the agreed reply");
  command->add_option("--dir", flags->dir, "cluster directory")->required();
  command->add_option("--service", flags->service, "name of the service (default: the first)");
  command->add_option("--client", flags->client, "client identity to use (default: 2)");
  command->add_option("--timeout-ms", flags->timeout_ms, "give up after this time")
      ->check(CLI::Range(1u, 3'600'000u))
      ->capture_default_str();
  command->add_flag("--json", flags->json, "print one JSON object: reply (or reply_hex), latency_us");
  command->add_option("text", flags->text, "the request; - reads it from standard input")->required();
  command->callback([flags, &exit_code] {
    const auto done = run_call(*flags);
    exit_code = done ? 0 : 1;
    if (!done) std::cerr << "zz call: " << done.error() << '\n';
  });
}

}  // namespace zz::apps
