#pragma once

// Narrator: tells people what happens in a running cluster, from one look at its nodes to the next. Believes only what
// f+1 nodes say (demo_status.hpp). One thread, no IO.

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "apps/demo_status.hpp"
#include "crypto/cluster.hpp"

namespace zz::apps {

class Narrator {
 public:
  // `cluster` must outlive it.
  explicit Narrator(const crypto::ClusterFile& cluster) : cluster_(cluster) {}
  // What is new since the last call, a line each. `answers` as StatusClient gives them. The first call only remembers,
  // but names nodes that are silent.
  std::vector<std::string> look(const std::vector<nlohmann::json>& answers);

 private:
  void tell_nodes(const std::vector<nlohmann::json>& answers, std::vector<std::string>& lines);
  void tell_service(const crypto::ServiceEntry& service, const ClusterStatus& now, std::vector<std::string>& lines);

  const crypto::ClusterFile& cluster_;
  std::set<std::uint32_t> silent_;  // nodes that did not answer last time
  std::map<ServiceId, ClusterStatus> before_;
};

}  // namespace zz::apps
