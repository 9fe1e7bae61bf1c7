#pragma once

// The options that `zz init` and `zz up` share.

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "apps/local_cluster.hpp"
#include "base/result.hpp"

namespace zz::apps {

struct ClusterFlags {
  std::uint32_t f = 1;
  std::uint32_t g = 1;
  std::uint32_t clients = 1;
  std::string service;  // empty: "web" with a command, "kv" without
  std::string initial_state;
  std::string listen;  // empty: no wish
  bool allow_faults = false;
  std::string durability = "sync";
};

void add_cluster_flags(CLI::App& command, ClusterFlags& flags);
// With words, a cluster around the web service they start; without, the sample key-value service.
Result<LocalClusterOptions> to_options(const std::string& dir, const ClusterFlags& flags,
                                       const std::vector<std::string>& words);

}  // namespace zz::apps
