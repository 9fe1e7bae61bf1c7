#pragma once

// Agent: the driver of one execution slot, running inside its guest (docs/protocol.md §8, §10). It starts the
// service, waits for an identity on the control link (agreement/agent_link.hpp), then dials every agreement node and
// runs the Executor core.
//
// Everything runs on the io_context's single thread; loop and cluster must outlive the agent. Until it has an
// identity the agent holds no timer and no channel, so that a sleeping guest has nothing to do.
//
// One place carries the core's output out, once per turn of the loop: input gathers in between.

#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <string>

#include "base/ids.hpp"
#include "crypto/cluster.hpp"

namespace zz::execution {

// Requests run in one turn of the loop before its output leaves; a batch's votes wait for no more than the batch.
inline constexpr int kInvocationsPerTurn = 1'024;
// A slot that is this many batches behind sends the votes of so many turns at once, one tick later at the latest: when
// it replays, nobody waits for the single vote, and every message costs each node a wake-up.
inline constexpr std::uint64_t kBehindBatches = 16;
inline constexpr int kTurnsTogether = 16;
// Without a channel to any node for this long the agent gives up.
inline constexpr int kNodesGoneMs = 60'000;
// What a slot under the fault "slow" holds every vote back for.
inline constexpr int kSlowVoteMs = 3'000;

struct AgentOptions {
  ServiceId service;
  SlotId slot;
  Incarnation incarnation;
  int control_fd = -1;    // connected stream socket to the host daemon; owned by the agent from then on
  std::string work_dir;   // absolute, empty, this incarnation's alone
  std::string store_dir;  // absolute, the slot's: what earlier incarnations left; made when missing
};

class Agent {
 public:
  // `done` is called once, from the loop, when the agent is finished: empty text when the host closed the control
  // link, else why it failed. Nothing of the agent runs after that.
  using Done = std::function<void(const std::string& failure)>;

  Agent(boost::asio::io_context& loop, const crypto::ClusterFile& cluster, AgentOptions options, Done done);
  ~Agent();  // ends the service and every channel
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;

  void start();

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace zz::execution
