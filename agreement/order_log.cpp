#include "agreement/order_log.hpp"

#include <algorithm>

namespace zz::agreement {

void OrderLog::append(const Delivery& batch) {
  ZZ_ASSERT(batch.header->n == last().next());
  bytes_ += sizeof(Delivery) + sizeof(BatchHeader) +
            batch.header->references.size() * (sizeof(Reference) + sizeof(RequestPtr) + sizeof(Request));
  bytes_ += batch.header->system.size() * kSystemOpBytes;
  for (const RequestPtr& request : batch.requests) bytes_ += request->op.size();
  batches_.push_back(batch);
}

const Delivery& OrderLog::at(Seq n) const {
  ZZ_ASSERT(n.value >= 1 && n <= last());
  return batches_[n.value - 1];
}

void OrderStream::subscribe(const Subscribe& wish) {
  subscribed_ = true;
  bearer_ = wish.bearer;
  const Seq from = std::max(wish.from, Seq{1});
  next_order_ = from;
  next_batch_ = from;
  voted_ = Seq{from.value - 1};
}

std::optional<Body> OrderStream::next(const OrderLog& log, std::size_t queued_bytes) {
  if (!subscribed_) return std::nullopt;
  const Seq orders_end = std::min(log.last(), Seq{voted_.value + kOrdersAhead});
  if (next_order_ <= orders_end) {
    Orders orders{next_order_, {}};
    const std::uint64_t count = std::min(orders_end.value - next_order_.value + 1, kOrdersPerMessage);
    orders.digests.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) orders.digests.push_back(log.at(Seq{next_order_.value + i}).digest);
    next_order_.value += count;
    return orders;
  }
  const Seq batches_end = std::min(log.last(), Seq{voted_.value + kBatchesAhead});
  if (bearer_ && next_batch_ <= batches_end && queued_bytes < kQueuedBytesMax) {
    const Delivery& delivery = log.at(next_batch_);
    next_batch_ = next_batch_.next();
    return Batch{delivery.header, delivery.digest, delivery.requests};
  }
  return std::nullopt;
}

}  // namespace zz::agreement
