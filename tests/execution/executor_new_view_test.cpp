// What a new view may order: null batches, times that go back, requests once more.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/execution/order.hpp"

namespace zz::execution::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

agreement::Batch null_batch(std::uint64_t n) {
  agreement::Batch batch;
  batch.header = agreement::null_header(kService, Seq{n});
  batch.digest = agreement::batch_digest(*batch.header);
  return batch;
}

agreement::Batch batch_at(std::uint64_t n, Micros time, const std::vector<Op>& ops) {
  agreement::Batch batch = make_batch(n, ops);
  auto header = std::make_shared<agreement::BatchHeader>(*batch.header);
  header->time = time;
  batch.digest = agreement::batch_digest(*header);
  batch.header = std::move(header);
  return batch;
}

TEST(ExecutorNewView, ANullBatchIsExecutedAndVotedForLikeAnyOther) {
  Slot slot;
  slot.all_up();
  slot.deliver(null_batch(1));
  slot.deliver(make_batch(2, {{1, 1, "put a 1"}}));
  slot.deliver(null_batch(3));
  EXPECT_EQ(slot.run(), 1);
  ASSERT_EQ(slot.votes.size(), 3u);
  EXPECT_THAT(slot.votes[0].replies, IsEmpty());
  EXPECT_THAT(slot.votes[2].replies, IsEmpty());
  EXPECT_EQ(slot.core.executed(), Seq{3});
  Digest history = agreement::history_digest(Digest{}, null_batch(1).digest);
  history = agreement::history_digest(history, make_batch(2, {{1, 1, "put a 1"}}).digest);
  EXPECT_EQ(slot.core.history(), agreement::history_digest(history, null_batch(3).digest));
}

TEST(ExecutorNewView, AgreedTimeIncreasesWhateverTheHeadersSay) {
  Slot slot;
  slot.all_up();
  const auto time_of = [&slot](const agreement::Batch& batch) {
    slot.deliver(batch);
    slot.run();
    return slot.last.time;
  };
  EXPECT_EQ(time_of(batch_at(1, Micros{5'000}, {{1, 1, "put a 1"}, {1, 2, "put a 1"}})), Micros{5'000});
  EXPECT_EQ(time_of(batch_at(2, Micros{5'000}, {{1, 3, "put a 1"}})), Micros{5'001}) << "not later than the last";
  EXPECT_EQ(time_of(batch_at(3, Micros{4'000}, {{1, 4, "put a 1"}})), Micros{5'002});
  slot.deliver(null_batch(4));
  EXPECT_EQ(time_of(batch_at(5, Micros{5'003}, {{1, 5, "put a 1"}})), Micros{5'004}) << "a null batch takes one, too";
  EXPECT_EQ(time_of(batch_at(6, Micros{6'000}, {{1, 6, "put a 1"}})), Micros{6'000});
}

TEST(ExecutorNewView, ARequestOrderedTwiceRunsOnceAndIsAnsweredAlike) {
  Slot slot;
  slot.all_up();
  slot.deliver(make_batch(1, {{1, 1, "add k 1"}, {1, 2, "add k 1"}}));
  slot.deliver(make_batch(2, {{1, 2, "add k 1"}, {1, 3, "add k 1"}, {1, 3, "add k 1"}}));
  EXPECT_EQ(slot.run(), 3);
  ASSERT_EQ(slot.votes.size(), 2u);
  EXPECT_THAT(slot.votes[0].replies, ElementsAre(digest_of("1"), digest_of("2")));
  EXPECT_THAT(slot.votes[1].replies, ElementsAre(digest_of("2"), digest_of("3"), digest_of("3")));
  EXPECT_EQ(slot.core.stats().repeats, 2u);
}

}  // namespace
}  // namespace zz::execution::testing
