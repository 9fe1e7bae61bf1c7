#pragma once

// HttpUser: a raw TCP connection to the gateway, for tests that must control every byte. Blocking, with one generous
// deadline for everything it waits for.

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>

namespace zz::apps {

inline constexpr int kHttpUserDeadlineSeconds = 20;

struct RawReply {
  unsigned status = 0;
  std::string head;  // status line and fields, lower case
  std::string body;

  [[nodiscard]] bool has(const std::string& field) const {
    return head.find("\r\n" + field + "\r\n") != std::string::npos;
  }
  [[nodiscard]] bool names(const std::string& name) const {
    return head.find("\r\n" + name + ":") != std::string::npos;
  }
};

class HttpUser {
 public:
  explicit HttpUser(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const timeval deadline{.tv_sec = kHttpUserDeadlineSeconds, .tv_usec = 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof(deadline));
    ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &deadline, sizeof(deadline));
    const int on = 1;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    EXPECT_EQ(::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }
  HttpUser(HttpUser&& other) noexcept : fd_(std::exchange(other.fd_, -1)), received_(std::move(other.received_)) {}
  HttpUser& operator=(HttpUser&&) = delete;
  ~HttpUser() { close(); }

  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  void finish_sending() { ::shutdown(fd_, SHUT_WR); }

  // False when the other end no longer takes it all.
  bool send(const std::string& bytes) {
    std::size_t sent = 0;
    while (sent < bytes.size()) {
      const ssize_t n = ::send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) return false;
      sent += static_cast<std::size_t>(n);
    }
    return true;
  }

  // The next reply; status 0 when the connection ends (or the deadline passes) before one is whole.
  RawReply receive(bool head_request = false) {
    std::size_t end = std::string::npos;
    while ((end = received_.find("\r\n\r\n")) == std::string::npos) {
      if (!read_more()) return {};
    }
    RawReply reply;
    reply.head = received_.substr(0, end + 2);
    std::transform(reply.head.begin(), reply.head.end(), reply.head.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    reply.status = static_cast<unsigned>(std::strtoul(reply.head.substr(9, 3).c_str(), nullptr, 10));
    received_.erase(0, end + 4);
    const std::size_t field = reply.head.find("\r\ncontent-length: ");
    if (field == std::string::npos || head_request) return reply;
    const std::size_t length = std::strtoul(reply.head.c_str() + field + 18, nullptr, 10);
    while (received_.size() < length) {
      if (!read_more()) return {};
    }
    reply.body = received_.substr(0, length);
    received_.erase(0, length);
    return reply;
  }

  // True when the other end closes the connection, and nothing more came.
  bool ended() {
    while (read_more()) {
    }
    return closed_ && received_.empty();
  }
  [[nodiscard]] const std::string& received() const { return received_; }

 private:
  bool read_more() {
    char buffer[16384];
    const ssize_t n = ::recv(fd_, buffer, sizeof(buffer), 0);
    closed_ = closed_ || n == 0 || (n < 0 && errno == ECONNRESET);
    if (n <= 0) return false;
    received_.append(buffer, static_cast<std::size_t>(n));
    return true;
  }

  int fd_;
  bool closed_ = false;
  std::string received_;
};

}  // namespace zz::apps
