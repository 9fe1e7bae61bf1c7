#pragma once

// Where the parts of a cluster file stand in the text, so that a check of the whole can name the line. Inside
// crypto/ only.

#include <cstdint>
#include <string>
#include <vector>

#include "crypto/cluster.hpp"

namespace zz::crypto {

// Lines from 1, 0 = unknown; every vector is as long as the list it belongs to, or empty.
struct ClusterLines {
  std::uint32_t cluster = 0;
  std::uint32_t limits = 0;
  std::uint32_t timing = 0;
  std::vector<std::uint32_t> nodes;
  std::vector<std::uint32_t> hosts;
  std::vector<std::uint32_t> clients;
  std::vector<std::uint32_t> services;
  std::vector<std::vector<std::uint32_t>> slots;  // per service
};

Result<void> check_cluster(const ClusterFile& cluster, const std::string& path, const ClusterLines& lines);

}  // namespace zz::crypto
