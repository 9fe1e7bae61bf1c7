#pragma once

// A cluster value with fresh keys and free loopback ports, for tests that run parts of a cluster in one process.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vector>

#include "crypto/cluster.hpp"
#include "crypto/sign.hpp"

namespace zz::test {

// A loopback port that was free a moment ago.
inline std::uint16_t free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ZZ_ASSERT(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  socklen_t length = sizeof address;
  ZZ_ASSERT(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  ::close(fd);
  return ntohs(address.sin_port);
}

struct TestCluster {
  crypto::ClusterFile file;
  std::vector<crypto::SecretKey> node_keys;
  std::vector<crypto::SecretKey> host_keys;
  std::vector<crypto::SecretKey> client_keys;  // client 0 is the operator

  explicit TestCluster(std::uint32_t f = 1, std::uint32_t g = 1) {
    ZZ_ASSERT(crypto::init().ok());
    file.name = "test";
    file.id.bytes[0] = 42;
    file.f = f;
    file.local = true;
    const std::uint32_t slots = 2 * g + 1;
    for (std::uint32_t i = 0; i < file.n(); ++i) {
      node_keys.push_back(crypto::SecretKey::generate());
      const auto id = static_cast<std::uint16_t>(i);
      file.nodes.push_back({NodeId{id}, HostId{id}, {"127.0.0.1", free_port()}, node_keys.back().public_key()});
    }
    for (std::uint32_t i = 0; i < std::max(file.n(), slots); ++i) {
      host_keys.push_back(crypto::SecretKey::generate());
      file.hosts.push_back({HostId{static_cast<std::uint16_t>(i)}, host_keys.back().public_key()});
    }
    for (std::uint32_t i = 0; i < 3; ++i) {
      client_keys.push_back(crypto::SecretKey::generate());
      file.clients.push_back({ClientId{i}, "client-" + std::to_string(i), client_keys.back().public_key(), i == 0});
    }
    crypto::ServiceEntry service;
    service.name = "kv";
    service.g = g;
    service.adapter = "kv";
    for (std::uint32_t i = 0; i < slots; ++i) {
      const auto id = static_cast<std::uint16_t>(i);
      service.slots.push_back({SlotId{id}, HostId{id}});
    }
    file.services.push_back(service);
  }
};

}  // namespace zz::test
