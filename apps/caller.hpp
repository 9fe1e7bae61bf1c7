#pragma once

// What `zz call` and `zz bench` need before they can talk to a cluster: its file, a client identity and a service.

#include <optional>
#include <string>

#include "base/result.hpp"
#include "crypto/cluster.hpp"
#include "crypto/sign.hpp"

namespace zz::apps {

struct Caller {
  crypto::ClusterFile cluster;
  crypto::SecretKey key;
  ClientId client;
  crypto::ServiceEntry service;
};

// Loads DIR/cluster.toml and DIR/keys/client-<id>.key. Without `client`: 2, the first that is neither the operator nor
// the gateway. Without `service`: the first one.
Result<Caller> load_caller(const std::string& dir, std::optional<std::uint32_t> client, const std::string& service);

}  // namespace zz::apps
