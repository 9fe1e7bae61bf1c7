#pragma once

// Node: the driver of one agreement node. It owns the channels and, per service, the ordering core, the
// oversight core, the order kept for replay and the reply book, and carries out what they put out.
//
// Everything runs on the io_context's single thread. Input gathers during a loop turn; then one pass takes
// the outputs, so that a turn's messages to one peer leave in one write. The io_context, cluster and key must
// outlive it.

#include <boost/asio/io_context.hpp>
#include <memory>
#include <string>

#include "base/result.hpp"
#include "crypto/cluster.hpp"
#include "crypto/sign.hpp"

namespace zz::agreement {

class Node {
 public:
  Node(boost::asio::io_context& loop, const crypto::ClusterFile& cluster, NodeId self, const crypto::SecretKey& key);
  ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  // Listens, dials the nodes with lower ids and starts ticking.
  Result<void> start();
  // The status report, one JSON object (docs/operations.md lists its keys).
  [[nodiscard]] std::string status_json() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace zz::agreement
