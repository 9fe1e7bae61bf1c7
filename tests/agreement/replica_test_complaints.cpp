// Complaints and what becomes of who leaves on them: nobody leaves its view alone (docs/protocol.md §7,
// docs/decisions/0014). One replica, spoken to by hand.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/agreement/replica_cluster.hpp"

namespace zz::agreement::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr std::int64_t kMs = 1'000;

Authority authority_of(std::uint16_t node) {
  return {Keys::of(1).file, ServiceId{}, NodeId{node}, Keys::of(1).keys[node]};
}

Progress in_view(std::uint64_t view) {
  Progress message{};
  message.view = View{view};
  return message;
}

Progress complaint(std::uint16_t by, std::uint64_t view) {
  Progress message = in_view(view);
  message.complains = true;
  message.complaint = authority_of(by).sign_complaint(message.view);
  return message;
}

ViewChangePtr change(std::uint16_t by, std::uint64_t view, std::initializer_list<std::uint16_t> complainers) {
  auto made = std::make_shared<ViewChange>();
  made->view = View{view};
  for (const std::uint16_t node : complainers) {
    made->complaints.push_back({NodeId{node}, authority_of(node).sign_complaint(View{view - 1})});
  }
  authority_of(by).sign(*made);
  return made;
}

std::vector<std::uint16_t> signers(const std::vector<StableCertificate::Part>& parts) {
  std::vector<std::uint16_t> out;
  for (const StableCertificate::Part& part : parts) out.push_back(part.signer.value);
  return out;
}

struct Node : LoneReplica {
  using LoneReplica::LoneReplica;
  void wait(std::int64_t ms) { tick(Micros{kNoon.value + (now += ms * kMs)}); }
  Refusal hear(std::uint16_t from, const Progress& message) { return (*this)->step(NodeId{from}, message); }
  Refusal hear(const ViewChangePtr& message) { return (*this)->step(message->signer, message); }
  [[nodiscard]] std::vector<ViewChangePtr> left() { return said<ViewChangePtr>(); }
  std::int64_t now = 0;
};

TEST(Complaints, WhoLeavesShowsTheOthersWhy) {
  Node node(2);
  EXPECT_EQ(node.hear(3, complaint(3, 0)), Refusal::kNone);
  node.wait(10);
  EXPECT_THAT(node.left(), IsEmpty()) << "of one other";
  EXPECT_EQ(node.hear(1, complaint(1, 0)), Refusal::kNone);
  EXPECT_THAT(node.left(), IsEmpty()) << "it may be about to take it back";
  node.wait(10);
  ASSERT_THAT(node.left(), SizeIs(1));
  const ViewChange& left = *node.left().front();
  EXPECT_EQ(left.view, View{1});
  EXPECT_THAT(signers(left.complaints), ElementsAre(1, 2, 3));
  EXPECT_EQ(authority_of(0).check(left), Refusal::kNone);
  const auto* record = std::get_if<ViewRecord>(&node.logged.back());
  ASSERT_NE(record, nullptr);
  EXPECT_THAT(record->sent->complaints, SizeIs(3)) << "after a restart it has to show them still";
}

TEST(Complaints, OneThatIsNotSignedCountsForNothing) {
  Node node(2);
  Progress unsigned_one = in_view(0);
  unsigned_one.complains = true;
  EXPECT_EQ(node.hear(1, unsigned_one), Refusal::kBadSignature);
  EXPECT_EQ(node.hear(1, complaint(3, 0)), Refusal::kBadSignature);
  Progress of_another_view = complaint(1, 1);
  of_another_view.view = View{0};
  EXPECT_EQ(node.hear(1, of_another_view), Refusal::kBadSignature);
  EXPECT_EQ(node.hear(3, complaint(3, 0)), Refusal::kNone);
  node.wait(10);
  EXPECT_THAT(node.left(), IsEmpty());
}

TEST(Complaints, OneThatIsTakenBackInTimeCountsForNothing) {
  Node node(2);
  node.hear(1, complaint(1, 0));
  node.hear(3, complaint(3, 0));
  node.hear(1, in_view(0));
  node.wait(10);
  EXPECT_THAT(node.left(), IsEmpty());
}

TEST(Complaints, OnesThatAreMadeUpAreCheckedOnABudget) {
  Node node(2);
  Progress forged = complaint(1, 0);
  for (std::uint32_t i = 0; i < 20; ++i) {
    forged.complaint.bytes[0] = static_cast<std::uint8_t>(forged.complaint.bytes[0] + 1);
    EXPECT_EQ(node.hear(1, forged), i < 4 ? Refusal::kBadSignature : Refusal::kQuota) << i;
  }
  EXPECT_EQ(node.hear(3, complaint(3, 0)), Refusal::kNone) << "of another";
  for (int i = 0; i < 20; ++i) EXPECT_EQ(node.hear(3, complaint(3, 0)), Refusal::kNone) << "heard before";
  node.wait(200);
  EXPECT_EQ(node.hear(1, complaint(1, 0)), Refusal::kNone);
}

// Seed 3018: of those who complained one went on, after another had left on its word.
TEST(Complaints, WhoLeftAloneIsFollowedByAllWhoSeeWhy) {
  Node node(3);
  EXPECT_EQ(node.hear(change(2, 1, {0, 1, 2})), Refusal::kNone);
  ASSERT_THAT(node.left(), SizeIs(1));
  EXPECT_EQ(node.left().front()->view, View{1});
  EXPECT_THAT(signers(node.left().front()->complaints), ElementsAre(0, 1, 2)) << "and is followed in turn";
}

TEST(Complaints, WhoShowsNothingIsNotFollowed) {
  Node node(3);
  EXPECT_EQ(node.hear(change(2, 1, {})), Refusal::kNone);
  EXPECT_EQ(node.hear(change(1, 1, {1, 2})), Refusal::kMalformed);
  auto forged = std::make_shared<ViewChange>(*change(1, 1, {0, 1, 2}));
  forged->complaints[0].signature.bytes[5] ^= 1;
  EXPECT_EQ(node.hear(forged), Refusal::kBadSignature);
  node.wait(10);
  EXPECT_THAT(node.left(), IsEmpty());
  EXPECT_EQ(node.hear(change(1, 1, {})), Refusal::kNone) << "f+1 of them";
  EXPECT_THAT(node.left(), SizeIs(1));
}

TEST(Complaints, TheHighestViewThatIsShownIsWanted) {
  Node node(3);
  node.hear(change(2, 1, {}));
  node.hear(change(1, 9, {0, 1, 2}));
  ASSERT_THAT(node.left(), SizeIs(1));
  EXPECT_EQ(node.left().front()->view, View{9});
  EXPECT_THAT(node.left().front()->complaints, SizeIs(3));
}

TEST(Complaints, ALearnerFollowsOnceItHasAVoice) {
  Node node(3);
  node->set_learner(true);
  node.hear(change(2, 1, {0, 1, 2}));
  node.wait(10);
  EXPECT_THAT(node.left(), IsEmpty());
  node->set_learner(false);
  node.wait(10);
  EXPECT_THAT(node.left(), SizeIs(1));
}

// They are never stuck: without this they would not hear of it before they are.
TEST(Complaints, WhoGoesOnInAViewThatThisNodeLeftIsToldWhy) {
  Node node(3);
  node.hear(change(2, 1, {0, 1, 2}));
  ASSERT_THAT(node.left(), SizeIs(1));
  for (std::uint64_t n = 1; n <= 10; ++n) {
    node.wait(50);
    Progress message = in_view(0);
    message.delivered = message.settled = Seq{n};
    EXPECT_EQ(node.hear(1, message), Refusal::kNone);
  }
  EXPECT_THAT(node.left(), SizeIs(1 + 5)) << "at most once per half progress interval";
}

}  // namespace
}  // namespace zz::agreement::testing
