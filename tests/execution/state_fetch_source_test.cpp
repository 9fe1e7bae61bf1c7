#include "execution/state_messages.hpp"
#include "tests/execution/state_fetch_net.hpp"

namespace zz::execution::testing {
namespace {

using agreement::kStateBytesMax;

struct StateSourceTest : ::testing::Test {
  FetchState wish(std::vector<agreement::StateWant> wants, std::vector<agreement::StatePath> paths = {}) {
    return {7, SlotId{1}, Seq{128}, std::move(wants), std::move(paths)};
  }
  agreement::StateWant object(std::uint64_t id) {
    const Bytes& bytes = origin.model.at(id);
    return {2, id, 16, bytes.size(), state::object_digest(ObjectId{id}, bytes)};
  }
  Origin origin{1, 200, 300};
  StateSource source{{SlotId{1}}, *origin.store};
  Digest root = origin.publish(Seq{128});
  Snapshot snapshot = origin.snapshots[Seq{128}];
};

TEST_F(StateSourceTest, GivesWhatIsAskedForInThatOrderWithoutWhatItHasNot) {
  const std::uint64_t a = origin.model.begin()->first;
  const std::uint64_t b = origin.model.rbegin()->first;
  agreement::StateWant other = object(a);
  other.digest.bytes[0] ^= 1;
  const auto answer = source.answer(NodeId{0}, wish({object(b), other, object(a)}), snapshot);
  EXPECT_EQ(answer.refusal, Refusal::kNone);
  EXPECT_EQ(answer.parts.ticket, 7u);
  ASSERT_EQ(answer.parts.parts.size(), 2u);
  EXPECT_EQ(answer.parts.parts[0].bytes, SharedBytes::copy(origin.model.at(b)));
  EXPECT_EQ(answer.parts.parts[1].bytes, SharedBytes::copy(origin.model.at(a)));
}

TEST_F(StateSourceTest, HasNothingOfASnapshotThatItDoesNotKeep) {
  const auto answer = source.answer(NodeId{0}, wish({object(origin.model.begin()->first)}), nullptr);
  EXPECT_EQ(answer.refusal, Refusal::kNone);
  EXPECT_TRUE(answer.parts.parts.empty());
  EXPECT_EQ(source.stats().empty, 1u);
}

TEST_F(StateSourceTest, PathsShareWhatIsAbove) {
  const std::uint64_t a = origin.model.begin()->first;
  const std::uint64_t b = origin.model.rbegin()->first;
  const auto one = source.answer(NodeId{0}, wish({}, {{a, 0, true}}), snapshot).parts.parts;
  const auto two = source.answer(NodeId{0}, wish({}, {{a, 0, true}, {b, 0, true}}), snapshot).parts.parts;
  const auto roots = std::ranges::count_if(two, [](const StatePart& part) { return part.kind == 0; });
  EXPECT_EQ(roots, 1);
  EXPECT_GT(two.size(), one.size());
  EXPECT_EQ(two.back().bytes, SharedBytes::copy(origin.model.at(b)));
}

TEST_F(StateSourceTest, RefusesWhatCannotBe) {
  const agreement::StateWant want = object(origin.model.begin()->first);
  const auto refused = [&](const FetchState& what) {
    const auto answer = source.answer(NodeId{0}, what, snapshot);
    EXPECT_TRUE(answer.parts.parts.empty());
    source.sent();
    return answer.refusal;
  };
  agreement::StateWant bad = want;
  bad.kind = 3;
  EXPECT_EQ(refused(wish({want, bad})), Refusal::kMalformed);
  bad = want;
  bad.depth = 17;
  EXPECT_EQ(refused(wish({bad})), Refusal::kMalformed);
  EXPECT_EQ(refused(wish({{1, 1, 3, 900, {}}})), Refusal::kMalformed) << "bits below the depth";
  EXPECT_EQ(refused(wish({{0, 0, 1, 900, {}}})), Refusal::kMalformed);
  EXPECT_EQ(refused(wish({}, {{1, 17, false}})), Refusal::kMalformed);
  EXPECT_EQ(refused(wish(std::vector<agreement::StateWant>(agreement::kStateWantsMax + 1, want))), Refusal::kMalformed);
  FetchState another = wish({want});
  another.source = SlotId{2};
  EXPECT_EQ(refused(another), Refusal::kUnknownSlot);
  EXPECT_EQ(source.answer(NodeId{4}, wish({want}), snapshot).refusal, Refusal::kUnknownPeer);
  EXPECT_EQ(source.stats().refused.of(Refusal::kMalformed), 6u);
}

TEST(StateSource, AnswersAreBounded) {
  Origin origin(2, 0, 0);
  const SharedBytes large(Bytes(state::kObjectBytesMax, 5));
  FetchState wish{1, SlotId{1}, Seq{128}, {}, {}};
  for (std::uint64_t id = 0; id < 100; ++id) {
    ASSERT_EQ(origin.store->write(ObjectId{id}, large.view()).status, state::Status::kDone);
    wish.wants.push_back({2, id, 16, large.size(), state::object_digest(ObjectId{id}, large.view())});
    wish.paths.push_back({id, 0, true});
  }
  static_cast<void>(origin.publish(Seq{128}));
  StateSource source({SlotId{1}}, *origin.store);
  for (const NodeId node : {NodeId{0}, NodeId{1}}) {
    std::uint64_t got = 0;
    for (int i = 0; i < 10; ++i) {
      const auto answer = source.answer(node, wish, origin.snapshots[Seq{128}]);
      std::uint64_t bytes = 0;
      for (const StatePart& part : answer.parts.parts) bytes += part.bytes.size();
      EXPECT_LE(bytes, kStateBytesMax);
      EXPECT_EQ(answer.refusal, bytes == 0 ? Refusal::kQuota : Refusal::kNone);
      got += bytes;
    }
    EXPECT_GT(got, kStateBytesMax) << "one node's share says nothing about another's";
    EXPECT_LE(got, kStateBytesWaiting + kStateBytesMax);
  }
  source.sent();
  EXPECT_EQ(source.answer(NodeId{0}, wish, origin.snapshots[Seq{128}]).refusal, Refusal::kNone);
}

}  // namespace
}  // namespace zz::execution::testing
