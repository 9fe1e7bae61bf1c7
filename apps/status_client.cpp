#include "apps/status_client.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "agreement/codec.hpp"
#include "crypto/sign.hpp"
#include "crypto/tls.hpp"
#include "net/channel.hpp"

namespace zz::apps {

using nlohmann::json;

namespace {

// A JSON object, or nothing. Depth is checked before parsing, so that no answer can exhaust the stack.
std::optional<json> parse_object(std::string_view text) {
  int depth = 0;
  for (const char c : text) {
    if (c == '{' || c == '[') ++depth;
    if (c == '}' || c == ']') --depth;
    if (depth > kJsonDepthMax) return std::nullopt;
  }
  json parsed = json::parse(text, nullptr, false);
  if (parsed.is_discarded() || !parsed.is_object()) return std::nullopt;
  return parsed;
}

}  // namespace

struct StatusClient::State final : net::Handler, std::enable_shared_from_this<StatusClient::State> {
  State(boost::asio::io_context& loop, crypto::ClusterFile file)
      : cluster(std::move(file)), timer(loop), executor(loop.get_executor()) {}

  void on_up(net::Channel& channel) override {
    if (pending && !answers.contains(channel.peer().index)) send_query(channel);
  }
  void on_message(net::Channel& channel, const SharedBytes& message) override {
    if (!pending || channel.peer().role != crypto::Role::kNode) return;
    const agreement::Decoded decoded = agreement::decode(message, agreement::CodecLimits{});
    if (decoded.refusal != Refusal::kNone) return;
    const auto* report = std::get_if<agreement::StatusReport>(&decoded.message.body);
    if (report == nullptr) return;
    std::optional<json> answer = parse_object(report->json);
    if (!answer) return;
    (*answer)["node"] = channel.peer().index;
    answers.insert_or_assign(channel.peer().index, std::move(*answer));
    if (answers.size() == cluster.nodes.size()) finish();
  }
  void on_down(net::Channel&, std::string_view) override {}
  void on_refused(Refusal, std::string_view, std::string_view) override {}

  void send_query(net::Channel& channel) {
    static const SharedBytes kQuery = agreement::encode({ServiceId{}, agreement::StatusQuery{}});
    channel.send(kQuery);
  }

  void ask(std::uint32_t timeout_ms, std::function<void(Answers)> done) {
    ZZ_ASSERT(!pending);
    pending = std::move(done);
    answers.clear();
    timer.expires_after(std::chrono::milliseconds(timeout_ms));
    timer.async_wait([weak = weak_from_this(), question = ++questions](boost::system::error_code) {
      const auto self = weak.lock();
      if (self && self->pending && self->questions == question) self->finish();
    });
    for (const crypto::NodeEntry& node : cluster.nodes) {
      net::Channel* channel = network->find({.role = crypto::Role::kNode, .index = node.id.value});
      if (channel != nullptr) send_query(*channel);
    }
  }

  void finish() {
    timer.cancel();
    Answers list;
    for (auto& [node, answer] : answers) list.push_back(std::move(answer));
    answers.clear();
    boost::asio::post(executor, [done = std::exchange(pending, nullptr), result = std::move(list)]() mutable {
      done(std::move(result));
    });
  }

  crypto::ClusterFile cluster;
  boost::asio::steady_timer timer;
  boost::asio::io_context::executor_type executor;
  std::function<void(Answers)> pending;
  std::uint64_t questions = 0;
  std::map<std::uint32_t, json> answers;
  std::unique_ptr<net::Network> network;  // last: goes first, so that no handler call meets a dying State
};

StatusClient::StatusClient(std::shared_ptr<State> state) : state_(std::move(state)) {}
StatusClient::~StatusClient() {
  state_->pending = nullptr;
  state_->timer.cancel();
  state_->network.reset();
}

Result<std::unique_ptr<StatusClient>> StatusClient::open(boost::asio::io_context& loop, const std::string& dir) {
  if (auto ready = crypto::init(); !ready) return Error{ready.error()};
  auto cluster = crypto::load_cluster(dir + "/cluster.toml");
  if (!cluster) return Error{cluster.error()};
  auto key = crypto::load_secret_key(dir + "/keys/client-0.key");
  if (!key) return Error{key.error()};
  auto state = std::make_shared<State>(loop, std::move(cluster).value());
  std::map<crypto::PublicKey, crypto::Peer> peers;
  for (const crypto::NodeEntry& node : state->cluster.nodes) {
    peers.emplace(node.key, crypto::Peer{.role = crypto::Role::kNode, .index = node.id.value});
  }
  auto lookup = [peers = std::move(peers)](const crypto::PublicKey& who) -> std::optional<crypto::Peer> {
    const auto found = peers.find(who);
    if (found == peers.end()) return std::nullopt;
    return found->second;
  };
  auto tls = crypto::TlsContext::make(*key, std::move(lookup));
  if (!tls) return Error{tls.error()};
  state->network = std::make_unique<net::Network>(
      loop, std::move(tls).value(),
      net::NetLimits{.frame_bytes_max = state->cluster.limits.frame_bytes_max, .backoff_max_ms = 200}, *state);
  for (const crypto::NodeEntry& node : state->cluster.nodes) state->network->dial(node.address, node.key);
  return std::unique_ptr<StatusClient>(new StatusClient(std::move(state)));
}

void StatusClient::ask(std::uint32_t timeout_ms, std::function<void(Answers)> done) {
  state_->ask(timeout_ms, std::move(done));
}

const crypto::ClusterFile& StatusClient::cluster() const { return state_->cluster; }

Result<std::vector<json>> query_status(const std::string& dir, std::uint32_t timeout_ms) {
  boost::asio::io_context loop(1);
  auto client = StatusClient::open(loop, dir);
  if (!client) return Error{client.error()};
  StatusClient::Answers result;
  (*client)->ask(timeout_ms, [&](StatusClient::Answers answers) {
    result = std::move(answers);
    loop.stop();
  });
  loop.run();
  if (result.empty()) {
    return Error{
        fmt::format("no agreement node of {} answered within {} ms (is the cluster running?)", dir, timeout_ms)};
  }
  return result;
}

std::string host_socket_path(const std::string& dir, HostId host) {
  return fmt::format("{}/run/host-{}.sock", dir, host.value);
}

namespace {

// A file descriptor that closes itself.
struct Descriptor {
  int value = -1;
  explicit Descriptor(int fd) : value(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

using Deadline = std::chrono::steady_clock::time_point;

// Waits until `events` are possible on `fd`; false when the deadline passes first.
bool await(int fd, short events, Deadline deadline) {
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
    if (left <= 0) return false;
    pollfd entry{.fd = fd, .events = events, .revents = 0};
    const int ready = ::poll(&entry, 1, static_cast<int>(left));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

Result<std::string> exchange_line(int fd, const std::string& line, const std::string& path, Deadline deadline) {
  std::size_t sent = 0;
  while (sent < line.size()) {
    if (!await(fd, POLLOUT, deadline)) return Error{path + ": the host daemon does not take the command"};
    const ssize_t n = ::send(fd, line.data() + sent, line.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN && errno != EINTR) return Error{path + ": " + std::strerror(errno)};
    if (n > 0) sent += static_cast<std::size_t>(n);
  }
  std::string answer;
  std::array<char, 4096> buffer{};
  while (answer.find('\n') == std::string::npos) {
    if (answer.size() > kHostAnswerBytesMax) return Error{path + ": the host daemon's answer is too long"};
    if (!await(fd, POLLIN, deadline)) return Error{path + ": the host daemon does not answer"};
    const ssize_t n = ::recv(fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n == 0) return Error{path + ": the host daemon closed the connection without an answer"};
    if (n < 0 && errno != EAGAIN && errno != EINTR) return Error{path + ": " + std::strerror(errno)};
    if (n > 0) answer.append(buffer.data(), static_cast<std::size_t>(n));
  }
  answer.resize(answer.find('\n'));
  return answer;
}

}  // namespace

Result<json> query_host_socket(const std::string& path, const json& command, std::uint32_t timeout_ms) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return Error{path + ": too long for a socket path"};
  std::memcpy(address.sun_path, path.data(), path.size());
  const Descriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (fd.value < 0) return Error{std::string("cannot make a socket: ") + std::strerror(errno)};
  if (::connect(fd.value, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return Error{fmt::format("{}: {} (is the host daemon running?)", path, std::strerror(errno))};
  }
  const Deadline deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  auto line = exchange_line(fd.value, command.dump() + "\n", path, deadline);
  if (!line) return Error{line.error()};
  std::optional<json> answer = parse_object(*line);
  if (!answer) return Error{path + ": the host daemon's answer is not a JSON object"};
  return std::move(*answer);
}

}  // namespace zz::apps
