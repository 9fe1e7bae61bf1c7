#pragma once

// Makes cluster directories for one machine: keys, certificates for people's tools, and a commented
// cluster.toml. Node i is on host i, slot j of the service on host j; every "host" is only a process.
//
//   DIR/cluster.toml  ca.key ca.crt  keys/<party>.key keys/<party>.crt  run/ (sockets)  log/  work/ (slots)
//  data/node-<i>/ (a node's durable log)
//
// with <party> = node-<i>, host-<i>, client-<i>. Client 0 is the operator, client 1 the gateway.

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "crypto/cluster.hpp"

namespace zz::apps {

struct LocalClusterOptions {
  std::string dir;  // made when missing; must be empty otherwise
  std::string name = "local";
  std::uint32_t f = 1;
  std::uint32_t g = 1;
  std::string service_name = "kv";
  std::string adapter = "kv";        // "kv" or "http"
  std::vector<std::string> command;  // http only
  std::string initial_state;         // http only: a directory, or empty
  std::uint32_t clients = 1;         // besides operator and gateway
  bool allow_faults = false;
  crypto::Durability durability = crypto::Durability::kSync;
  bool gateway = true;              // http only
  crypto::Address gateway_address;  // port 0: a free one is taken
  std::uint16_t base_port = 0;      // node i listens on base_port + i; 0: free ports are taken
  crypto::HttpOptions http;
  crypto::Limits limits;
  crypto::Timing timing;
};

// Leaves nothing behind when it fails. Refuses a directory that is not empty, and says whether it holds a cluster.
Result<crypto::ClusterFile> make_local_cluster(const LocalClusterOptions& options);

// DIR/data/node-<id>
std::string node_data_path(const std::string& dir, NodeId node);
// DIR/cluster.toml
std::string cluster_path(const std::string& dir);
// Whether DIR has a cluster.toml.
bool holds_cluster(const std::string& dir);

}  // namespace zz::apps
