#pragma once

// What one seed draws: the shape of the cluster and everything that will go wrong with it. A pure function of the plan.

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "crypto/cluster.hpp"
#include "tests/sim/network.hpp"
#include "tests/sim/plan.hpp"
#include "tests/sim/sim_host.hpp"
#include "tests/sim/sim_node.hpp"

namespace zz::sim {

struct Draw {
  std::set<Fault> faults;
  std::vector<std::string> node_kinds;              // by node; empty: correct
  std::vector<std::optional<SlotVice>> slot_vices;  // by slot
  std::set<NodeId> fragile;                         // whose promises may be lost; with the Byzantine ones at most f
  std::set<NodeId> core;                            // 2f+1 nodes that are healed for good
  std::set<SlotId> core_slots;                      // g+1, with their hosts
  std::uint32_t clients = 3;
  std::uint32_t hostile_clients = 0;
  std::vector<std::uint32_t> workers;  // by correct client
  Micros gst;
  Weather weather;
  DiskSpeed disk;
  HypervisorSpeed hypervisor;
  crypto::ClusterFile cluster;
  Parties parties;

  [[nodiscard]] bool has(Fault fault) const { return faults.contains(fault); }
};

Draw draw(const Plan& plan);

// The same in every run: what a key is does not matter, only that signatures are real.
const crypto::SecretKey& node_key(NodeId id);
const crypto::SecretKey& host_key(HostId id);

}  // namespace zz::sim
