#include "apps/free_ports.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sodium.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fstream>
#include <memory>

namespace zz::apps {
namespace {

constexpr std::uint32_t kLowestPort = 10'000;
constexpr std::uint32_t kRangeMin = 4'096;  // fewer ports than this to choose from: leave the choice to the kernel
constexpr int kTriesPerPort = 200;

// A listening place that is held while this lives.
class Held {
 public:
  explicit Held(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const int on = 1;
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    socklen_t size = sizeof address;
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    if (fd_ >= 0 && ::setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        ::bind(fd_, generic, size) == 0 && ::listen(fd_, 1) == 0 && ::getsockname(fd_, generic, &size) == 0) {
      port_ = ntohs(address.sin_port);
    }
  }
  ~Held() {
    if (fd_ >= 0) ::close(fd_);
  }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;
  [[nodiscard]] std::uint16_t port() const { return port_; }  // 0: not held

 private:
  int fd_;
  std::uint16_t port_ = 0;
};

// The first port that the kernel gives out by itself.
std::uint32_t first_ephemeral_port() {
  std::uint32_t first = 32'768;
  std::ifstream("/proc/sys/net/ipv4/ip_local_port_range") >> first;
  return first;
}

}  // namespace

bool is_free_port(std::uint16_t port) { return Held(port).port() != 0; }

Result<std::vector<std::uint16_t>> find_free_ports(std::size_t count) {
  const std::uint32_t end = first_ephemeral_port();
  const bool ours = end >= kLowestPort + kRangeMin;
  std::vector<std::unique_ptr<Held>> held;  // all at once, so that they differ
  std::vector<std::uint16_t> ports;
  for (std::size_t tries = 0; ports.size() < count && tries < count * kTriesPerPort; ++tries) {
    const std::uint32_t wish = ours ? kLowestPort + randombytes_uniform(end - kLowestPort) : 0;
    auto place = std::make_unique<Held>(static_cast<std::uint16_t>(wish));
    if (place->port() == 0) continue;
    ports.push_back(place->port());
    held.push_back(std::move(place));
  }
  if (ports.size() < count) return Error{"no free ports on 127.0.0.1"};
  return ports;
}

}  // namespace zz::apps
