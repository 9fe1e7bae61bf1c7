#include "agreement/order_log.hpp"

#include <gtest/gtest.h>

namespace zz::agreement {
namespace {

Delivery batch(std::uint64_t n) {
  auto header = std::make_shared<BatchHeader>();
  header->n = Seq{n};
  Delivery out;
  out.header = header;
  out.digest.bytes[0] = static_cast<std::uint8_t>(n);
  return out;
}

OrderLog log_of(std::uint64_t batches) {
  OrderLog log(1u << 30);
  for (std::uint64_t n = 1; n <= batches; ++n) log.append(batch(n));
  return log;
}

TEST(OrderStream, TellsNothingBeforeASubscription) {
  const OrderLog log = log_of(3);
  OrderStream stream;
  EXPECT_FALSE(stream.next(log, 0));
}

TEST(OrderStream, OnlyTheBearerSendsBodies) {
  const OrderLog log = log_of(3);
  OrderStream plain;
  plain.subscribe({Seq{2}, false});
  const auto orders = plain.next(log, 0);
  ASSERT_TRUE(orders);
  EXPECT_EQ(std::get<Orders>(*orders).first_n, Seq{2});
  EXPECT_EQ(std::get<Orders>(*orders).digests.size(), 2u);
  EXPECT_FALSE(plain.next(log, 0));

  OrderStream bearer;
  bearer.subscribe({Seq{2}, true});
  ASSERT_TRUE(bearer.next(log, 0));
  EXPECT_EQ(std::get<Batch>(*bearer.next(log, 0)).header->n, Seq{2});
  EXPECT_EQ(std::get<Batch>(*bearer.next(log, 0)).header->n, Seq{3});
  EXPECT_FALSE(bearer.next(log, 0));
}

TEST(OrderStream, BodiesWaitForVotesAndForTheQueueToDrain) {
  const OrderLog log = log_of(OrderStream::kBatchesAhead + 10);
  OrderStream stream;
  stream.subscribe({Seq{1}, true});
  std::uint64_t batches = 0;
  while (const auto body = stream.next(log, 0)) batches += std::holds_alternative<Batch>(*body) ? 1 : 0;
  EXPECT_EQ(batches, OrderStream::kBatchesAhead);
  stream.voted(Seq{5});
  EXPECT_FALSE(stream.next(log, OrderStream::kQueuedBytesMax));
  while (stream.next(log, 0)) ++batches;
  EXPECT_EQ(batches, OrderStream::kBatchesAhead + 5);
}

TEST(OrderStream, ANewSubscriptionReplacesTheOld) {
  const OrderLog log = log_of(5);
  OrderStream stream;
  stream.subscribe({Seq{1}, false});
  ASSERT_TRUE(stream.next(log, 0));
  stream.subscribe({Seq{4}, true});
  EXPECT_EQ(std::get<Orders>(*stream.next(log, 0)).first_n, Seq{4});
  EXPECT_EQ(std::get<Batch>(*stream.next(log, 0)).header->n, Seq{4});
}

TEST(OrderStream, AHostileSubscriptionFarAheadSendsNothing) {
  const OrderLog log = log_of(5);
  OrderStream stream;
  stream.subscribe({Seq{~std::uint64_t{0}}, true});
  EXPECT_FALSE(stream.next(log, 0));
}

TEST(OrderLog, SaysWhenItIsFull) {
  OrderLog log(1);
  EXPECT_FALSE(log.full());
  log.append(batch(1));
  EXPECT_TRUE(log.full());
  EXPECT_EQ(log.last(), Seq{1});
}

}  // namespace
}  // namespace zz::agreement
