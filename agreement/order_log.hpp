#pragma once

// OrderLog: the ordered batches of one service with their bodies, from n = 1, in memory; and OrderStream: how
// far one executor has been told of it. Pure, one thread.
//
// Until executors take checkpoints (docs/decisions/0003), nothing is ever removed: a woken replica replays from the
// start. The log says when it is full; the node then takes no new requests.

#include <optional>
#include <vector>

#include "agreement/delivery.hpp"
#include "agreement/messages.hpp"

namespace zz::agreement {

// What a system operation with its proof is charged with.
inline constexpr std::uint64_t kSystemOpBytes = 4'096;

class OrderLog {
 public:
  explicit OrderLog(std::uint64_t bytes_max) : bytes_max_(bytes_max) {}

  // Requires batch.header->n == last().next().
  void append(const Delivery& batch);
  // Requires 1 <= n <= last().
  [[nodiscard]] const Delivery& at(Seq n) const;
  [[nodiscard]] Seq last() const { return Seq{batches_.size()}; }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }
  [[nodiscard]] bool full() const { return bytes_ >= bytes_max_; }

 private:
  std::vector<Delivery> batches_;  // [n - 1]
  std::uint64_t bytes_ = 0;
  std::uint64_t bytes_max_;
};

// What one executor's channel is to receive next. A window in batches keeps a slow or replaying executor from
// filling the node's send queue; its votes open it again.
class OrderStream {
 public:
  static constexpr std::uint64_t kOrdersAhead = 2'048;  // batches told beyond the executor's last vote
  static constexpr std::uint64_t kBatchesAhead = 256;   // batches with bodies beyond the executor's last vote
  static constexpr std::uint64_t kOrdersPerMessage = 1'024;
  static constexpr std::size_t kQueuedBytesMax = 8u << 20;  // no further bodies while more waits in the channel

  void subscribe(const Subscribe& wish);
  void voted(Seq n) {
    if (n > voted_) voted_ = n;
  }
  [[nodiscard]] bool up_to_date(const OrderLog& log) const {
    return !subscribed_ || (next_order_ > log.last() && (!bearer_ || next_batch_ > log.last()));
  }
  // The next message to send, given what waits in the channel's queue; nothing when up to date or the window is shut.
  [[nodiscard]] std::optional<Body> next(const OrderLog& log, std::size_t queued_bytes);

 private:
  bool subscribed_ = false;
  bool bearer_ = false;
  Seq next_order_{1};
  Seq next_batch_{1};
  Seq voted_;
};

}  // namespace zz::agreement
