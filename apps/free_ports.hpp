#pragma once

// Ports for clusters on one machine. Any thread.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.hpp"

namespace zz::apps {

// Distinct TCP ports on 127.0.0.1 that nobody uses now. They lie below the range from which the kernel serves
// port 0 and outgoing connections: a cluster keeps its ports, and a port of that range can be somebody's end
// of a connection when the cluster is started again (a dialler can even meet itself there).
Result<std::vector<std::uint16_t>> find_free_ports(std::size_t count);

// Whether 127.0.0.1:port can be listened on now.
bool is_free_port(std::uint16_t port);

}  // namespace zz::apps
