#pragma once

// What the cluster file means for the parts of one slot. Pure functions.

#include "crypto/cluster.hpp"
#include "execution/agent.hpp"
#include "execution/executor.hpp"
#include "execution/http_adapter.hpp"
#include "execution/slot_store.hpp"

namespace zz::execution {

// `cluster` must outlive what is made with it: certificates are checked against its keys.
ExecutorConfig executor_config(const crypto::ClusterFile& cluster, const AgentOptions& options);
// Without a store.
HttpAdapterConfig http_config(const crypto::ClusterFile& cluster, const AgentOptions& options);
SlotStore::Options store_options(const crypto::ClusterFile& cluster, const AgentOptions& options);

}  // namespace zz::execution
