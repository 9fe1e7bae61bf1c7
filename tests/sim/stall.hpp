#pragma once

// Stall: progress before the healing (L7). Faults come and go, but while they leave a timely set of 2f+1 correct nodes,
// with g+1 correct slots and a client that waits, some request of somebody must be answered now and then; else the run
// is stuck without a right to be. Loss, delays and slow disks of the weather are no excuse: messages are repeated.
// One thread, virtual time.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "crypto/cluster.hpp"

namespace zz::sim {

class World;

// How long a request may wait once the network behaves: f faulty primaries in a row, each with a doubled timeout, and
// then a wake-up (L1 of the catalogue).
Micros answer_bound(const crypto::ClusterFile& cluster);

class Stall {
 public:
  explicit Stall(const World& world);

  // Every few virtual milliseconds until the healing. Text when the run is stuck.
  [[nodiscard]] std::optional<std::string> look(Micros now);
  [[nodiscard]] Micros longest() const { return longest_; }

 private:
  // 2f+1 correct nodes, and since when they have been timely together with each client.
  struct Group {
    std::vector<NodeId> nodes;
    std::vector<Micros> since;  // by client
  };
  void find_groups(std::size_t size, std::uint16_t from, std::vector<NodeId>& chosen);
  [[nodiscard]] bool timely(const Group& group) const;
  [[nodiscard]] bool timely(const Group& group, std::size_t client) const;
  [[nodiscard]] bool timely(NodeId node) const;

  const World& world_;
  Micros bound_;
  std::vector<Group> groups_;
  std::uint64_t answered_ = 0;
  Micros answered_at_;
  Micros longest_;
};

}  // namespace zz::sim
