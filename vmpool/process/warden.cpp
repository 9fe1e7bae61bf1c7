#include "vmpool/process/warden.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

namespace zz::vmpool {
namespace {

using Json = nlohmann::json;

std::string dump(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

// Both ends are ours, but the warden must survive whatever the daemon does.
template <class Out, class Read>
std::optional<Out> parse(const std::string& message, Read read) {
  try {
    return read(Json::parse(message));
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

}  // namespace

std::string encode_spawn(const SpawnCommand& command) {
  return dump({{"spawn", command.number},
               {"argv", command.argv},
               {"work", command.work},
               {"log", command.log},
               {"join", command.join}});
}

std::string encode_forget(std::uint64_t number) { return dump({{"forget", number}}); }

std::string encode_report(const WardenReport& report) {
  return dump(
      {{"kind", static_cast<int>(report.kind)}, {"number", report.number}, {"pid", report.pid}, {"text", report.text}});
}

std::optional<WardenCommand> parse_command(const std::string& message) {
  return parse<WardenCommand>(message, [](const Json& json) {
    WardenCommand out;
    if (json.contains("forget")) {
      out.forget = json.at("forget").get<std::uint64_t>();
      return out;
    }
    out.spawn = SpawnCommand{json.at("spawn").get<std::uint64_t>(), json.at("argv").get<std::vector<std::string>>(),
                             json.at("work").get<std::string>(), json.at("log").get<std::string>(),
                             json.at("join").get<std::string>()};
    return out;
  });
}

std::optional<WardenReport> parse_report(const std::string& message) {
  return parse<WardenReport>(message, [](const Json& json) {
    return WardenReport{static_cast<WardenReport::Kind>(json.at("kind").get<int>()),
                        json.at("number").get<std::uint64_t>(), json.at("pid").get<pid_t>(),
                        json.at("text").get<std::string>()};
  });
}

Result<Warden> Warden::start(const Options& options) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0)
    return Error{std::string("cannot make the warden's socket: ") + std::strerror(errno)};
  // No signal may reach the child before it has its own dispositions.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, &before);
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::close(ends[0]);
    run_warden(ends[1], options);
  }
  const int code = errno;
  ::sigprocmask(SIG_SETMASK, &before, nullptr);
  ::close(ends[1]);
  if (pid < 0) {
    ::close(ends[0]);
    return Error{std::string("cannot start the warden: ") + std::strerror(code)};
  }
  Warden warden(ends[0], pid);
  if (auto home = warden.await_home(); !home) return Error{home.error()};
  return warden;
}

Result<void> Warden::await_home() {
  pollfd ready{socket_, POLLIN, 0};
  while (::poll(&ready, 1, -1) < 0 && errno == EINTR) {
  }
  const auto report = next_report();
  if (!report || report->kind == WardenReport::Kind::kLost) return Error{"the warden ended at once"};
  if (report->kind == WardenReport::Kind::kNoHome) return Error{report->text};
  home_ = {static_cast<FreezerKind>(report->number), report->text};
  return {};
}

Warden::Warden(Warden&& other) noexcept
    : socket_(std::exchange(other.socket_, -1)), pid_(std::exchange(other.pid_, -1)), home_(std::move(other.home_)) {}

Warden::~Warden() {
  if (pid_ < 0) return;
  ::close(socket_);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

Result<void> Warden::send(const std::string& message, int fd) const {
  if (message.size() > kWardenMessageMax) return Error{"the guest's command line is too long"};
  iovec part{const_cast<char*>(message.data()), message.size()};  // NOLINT: sendmsg only reads it
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> extra{};
  if (fd >= 0) {
    header.msg_control = extra.data();
    header.msg_controllen = extra.size();
    cmsghdr* item = CMSG_FIRSTHDR(&header);
    item->cmsg_level = SOL_SOCKET;
    item->cmsg_type = SCM_RIGHTS;
    item->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(item), &fd, sizeof(int));
  }
  if (::sendmsg(socket_, &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
    return Error{std::string("the warden does not take commands: ") + std::strerror(errno)};
  return {};
}

Result<void> Warden::spawn(const SpawnCommand& command, int control_fd) {
  return send(encode_spawn(command), control_fd);
}

Result<void> Warden::forget(std::uint64_t number) { return send(encode_forget(number), -1); }

std::optional<WardenReport> Warden::next_report() {
  std::string buffer(kWardenMessageMax, '\0');
  const ssize_t size = ::recv(socket_, buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return std::nullopt;
  if (size <= 0) return WardenReport{};
  buffer.resize(static_cast<std::size_t>(size));
  return parse_report(buffer).value_or(WardenReport{});
}

}  // namespace zz::vmpool
