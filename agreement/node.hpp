#pragma once

// Node: the driver of one agreement node. It owns the channels, the durable log and, per service, the ordering core,
// the oversight core, the order kept for replay and the reply book, and carries out what they put out.
//
// Everything runs on the io_context's single thread. Input gathers during a loop turn; then one pass takes the outputs,
// the turn's log records are written and synced as one group, and only then do the turn's messages leave, in one write
// per peer. While a group is being synced, input gathers: that is the batching. The io_context, cluster and key must
// outlive it.
//
// A log that cannot be written stops the node: nothing of that turn leaves, all channels close, and on_failure is
// called.

#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <string>

#include "base/result.hpp"
#include "crypto/cluster.hpp"
#include "crypto/sign.hpp"

namespace zz::agreement {

struct NodeOptions {
  std::string data;  // directory of the durable log; not used with durability none, else required
  // Called once when the node has stopped by itself, with why and what to do; never from inside start().
  std::function<void(const std::string&)> on_failure;
};

class Node {
 public:
  Node(boost::asio::io_context& loop, const crypto::ClusterFile& cluster, NodeId self, const crypto::SecretKey& key,
       NodeOptions options = {});
  ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  // Reads the log, listens, dials the nodes with lower ids and starts ticking.
  Result<void> start();
  // The status report, one JSON object (docs/operations.md lists its keys).
  [[nodiscard]] std::string status_json() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace zz::agreement
