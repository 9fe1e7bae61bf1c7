// Every checker of the witness can fail: for each invariant a short story that breaks it, beside legal ones. Here: the
// order, up to I12.

#include "tests/sim/witness.hpp"

#include "tests/sim/witness_agreement.hpp"
#include "tests/sim/witness_story.hpp"

namespace zz::sim {
namespace {

using ::testing::StartsWith;

Claim claim(const HeaderPtr& header, View view = {}) { return {header->n, batch_digest(*header), view}; }

// One batch that all have prepared in view 0, and the VIEW-CHANGEs that say so.
struct ChangedView : Story {
  explicit ChangedView(const std::set<NodeId>& byzantine = {}) : Story(byzantine) {
    header = batch({submit(1, "put k a")});
    agree({}, header);
    for (std::uint32_t i = 0; i < 4; ++i) changes.push_back(change(node(i), View{1}, {claim(header)}, {claim(header)}));
  }
  HeaderPtr header;
  std::vector<ViewChangePtr> changes;
};

// ---- legal stories ---------------------------------------------------------------------------------------------

TEST(WitnessTest, BelievesARunInWhichAllGoesWell) {
  Story s;
  const RequestPtr one = s.submit(1, "put k a");
  const RequestPtr two = s.submit(2, "get k");
  const HeaderPtr first = s.ordered({one});
  for (const SlotId slot : {SlotId{0}, SlotId{1}}) s.execute(slot, Seq{1});
  for (std::uint32_t i = 0; i < 4; ++i) s.event(EventKind::kClosed, Seq{1}, node(i));
  s.reply(1, s.replies[1][0]);
  const HeaderPtr second = s.ordered({two, one});  // ordered twice, executed once
  s.replies[2] = {s.replies[2][0], s.replies[1][0]};
  for (const SlotId slot : {SlotId{0}, SlotId{1}}) s.execute(slot, Seq{2});
  s.reply(2, s.replies[2][0]);
  const CertificatePtr certificate = s.stable(Seq{1});
  for (std::uint32_t i = 0; i < 4; ++i) s.disk(node(i), StableRecord{certificate});
  s.cast(node(1), Stable{certificate});
  EXPECT_EQ(s.violation(), "none");
  EXPECT_EQ(s.witness->final_violation(), std::nullopt);
}

TEST(WitnessTest, BelievesAViewChangeThatKeepsWhatWasPrepared) {
  ChangedView s;
  for (const ViewChangePtr& change : s.changes) s.leave(change);
  const NewViewPtr view =
      Story::new_view(View{1}, {s.changes[0], s.changes[1], s.changes[3]}, {batch_digest(*s.header)});
  for (const std::uint32_t i : {1u, 0u, 2u, 3u}) s.enter(node(i), view);
  s.order(s.header, View{1});
  s.order(s.batch({}), View{1});
  EXPECT_EQ(s.violation(), "none");
}

TEST(WitnessTest, BelievesANullBatchWhereNothingWasPrepared) {
  Story s;
  const HeaderPtr null = null_header(kService, Seq{1});
  s.append(null, {});
  const HeaderPtr second = s.batch({});
  s.agree({}, second);
  std::vector<ViewChangePtr> proof;
  for (std::uint32_t i = 0; i < 4; ++i)
    proof.push_back(Story::change(node(i), View{1}, {claim(second)}, {claim(second)}));
  for (const ViewChangePtr& change : proof) s.leave(change);
  const NewViewPtr view = Story::new_view(View{1}, proof, {Digest{}, batch_digest(*second)});
  for (const std::uint32_t i : {1u, 0u, 2u, 3u}) s.enter(node(i), view);
  for (const HeaderPtr& header : {null, second}) s.order(header, View{1});
  EXPECT_EQ(s.times[1], Micros{1});
  EXPECT_EQ(s.violation(), "none");
}

TEST(WitnessTest, BelievesARestartThatSaysTheSameAgainAndGoesOn) {
  Story s;
  const HeaderPtr first = s.ordered({s.submit(1, "put k a")});
  s.witness->node_restarted(node(2), false);
  s.cast(node(2), Prepare{{}, Seq{1}, batch_digest(*first)});
  s.cast(node(2), Commit{{}, Seq{1}, batch_digest(*first)});
  s.deliver(node(2), first);
  s.ordered({s.submit(2, "get k")});
  EXPECT_EQ(s.violation(), "none");
}

TEST(WitnessTest, BelievesANodeThatWasLedToACheckpointByACertificate) {
  Story s;
  const HeaderPtr header = s.batch({s.submit(1, "put k a")});
  const Digest digest = batch_digest(*header);
  for (std::uint32_t i = 0; i < 3; ++i) s.accept(node(i), {}, header);
  for (std::uint32_t i = 0; i < 3; ++i) s.commit(node(i), {}, header);
  for (std::uint32_t i = 0; i < 3; ++i) s.deliver(node(i), header);
  s.send(node(0), node(3), OrderProof{s.stable(Seq{1}), Seq{1}, {digest}});
  s.witness->node_restarted(node(3), false);
  s.deliver(node(3), header);
  EXPECT_EQ(s.violation(), "none");
}

TEST(WitnessTest, LetsFaultyAndForgetfulNodesSayAnything) {
  Story s({node(3)});
  s.cast(node(3), Prepare{{}, Seq{1}, Digest{{1}}});
  s.cast(node(3), Prepare{{}, Seq{1}, Digest{{2}}});
  s.cast(node(3), Commit{View{9}, Seq{1'000'000'000'000}, Digest{{2}}});
  s.cast(node(3), Stable{Story::certificate({Seq{4}, {}, {}, {}, {}}, {3, 3, 3})});
  s.witness->node_restarted(node(2), true);
  s.cast(node(2), Commit{{}, Seq{1}, Digest{{2}}});
  s.event(EventKind::kEvicted, Seq{1}, node(3), SlotId{0}, "wrong");
  EXPECT_EQ(s.violation(), "none");
}

// ---- I1, I2: one order -----------------------------------------------------------------------------------------

TEST(WitnessTest, I1CatchesTwoDigestsForOneNumber) {
  Story s;
  const HeaderPtr header = s.batch({}, 10);
  auto other = std::make_shared<BatchHeader>(*header);
  other->time = Micros{11};
  s.order(header);
  s.witness->node_restarted(node(1), false);
  s.witness->delivered(node(1),
                       {other, batch_digest(*other), history_digest({}, batch_digest(*other)), Micros{11}, {}});
  EXPECT_THAT(s.violation(), StartsWith("I1 "));
}

TEST(WitnessTest, I1CatchesAnExecutorThatIsToldAnotherDigest) {
  Story s;
  s.ordered({});
  s.parcel(node_peer(node(1)), slot_peer(SlotId{0}), Orders{Seq{1}, {Digest{{9}}}});
  EXPECT_THAT(s.violation(), StartsWith("I1 "));
}

TEST(WitnessTest, I1CatchesANodeThatReportsAContradiction) {
  Story s;
  s.event(EventKind::kConflict, Seq{1}, node(0));
  EXPECT_THAT(s.violation(), StartsWith("I1 "));
}

TEST(WitnessTest, I2CatchesAHole) {
  Story s;
  s.agree({}, s.batch({}));
  const HeaderPtr second = s.batch({});
  s.agree({}, second);
  s.deliver(node(0), second);
  EXPECT_THAT(s.violation(), StartsWith("I2 "));
}

TEST(WitnessTest, I2CatchesAHistoryThatDoesNotChain) {
  Story s;
  const HeaderPtr header = s.batch({});
  s.agree({}, header);
  Delivery wrong = s.delivery(header);
  wrong.history.bytes[0] ^= 1;
  s.witness->delivered(node(0), wrong);
  EXPECT_THAT(s.violation(), StartsWith("I2 "));
}

TEST(WitnessTest, I2CatchesABodyThatTheReferenceDoesNotName) {
  Story s;
  const HeaderPtr header = s.batch({s.submit(1, "put k a")});
  s.agree({}, header);
  Delivery wrong = s.delivery(header);
  auto swapped = std::make_shared<Request>(*wrong.requests[0]);
  swapped->op = SharedBytes::copy("put k b");
  wrong.requests[0] = swapped;
  s.witness->delivered(node(0), wrong);
  EXPECT_THAT(s.violation(), StartsWith("I2 "));
}

// ---- I3, I4, I5: requests --------------------------------------------------------------------------------------

TEST(WitnessTest, I3CatchesARequestThatItsClientNeverSubmitted) {
  Story s;
  s.submit(1, "put k a");
  s.ordered({Story::request(kClient, 1, "put k forged")});
  EXPECT_THAT(s.violation(), StartsWith("I3 "));
}

TEST(WitnessTest, I3KnowsWhatHostileClientsSent) {
  for (const bool sent : {true, false}) {
    Story s;
    const SharedBytes op = SharedBytes::copy(sent ? "put k a" : "put k b");
    s.parcel(client_peer(kHostileId), node_peer(node(2)), Requests{kSession, {{RequestNumber{1}, 0, op}}});
    s.ordered({Story::request(kHostileId, 1, "put k a")});
    EXPECT_THAT(s.violation(), StartsWith(sent ? "none" : "I3 "));
  }
}

TEST(WitnessTest, I3CatchesAJoinThatItsHostNeverSent) {
  for (const bool sent : {true, false}) {
    Story s;
    const Join join{kService, SlotId{1}, Incarnation{4}, {}, {}};
    if (sent) s.parcel(host_peer(HostId{1}), node_peer(node(0)), join);
    s.order(s.batch({}, 0, {join}));
    EXPECT_THAT(s.violation(), StartsWith(sent ? "none" : "I3 "));
  }
}

TEST(WitnessTest, I4CatchesASecondExecution) {
  Story s;
  const RequestPtr add = s.submit(1, "add c 1");
  s.ordered({add});
  s.ordered({add});  // the story's own service runs it again and says 2
  s.execute(SlotId{0}, Seq{1});
  EXPECT_EQ(s.violation(), "none");
  s.execute(SlotId{0}, Seq{2});
  EXPECT_THAT(s.violation(), StartsWith("I19 "));
}

TEST(WitnessTest, I5CatchesANumberOutsideTheWindow) {
  Story s;
  s.ordered({s.submit(8, "get k")});
  EXPECT_EQ(s.violation(), "none");
  s.ordered({s.submit(9, "get k")});  // twice the window of 4 is 8, and 1 is not ordered yet
  EXPECT_THAT(s.violation(), StartsWith("I5 "));
}

TEST(WitnessTest, I5CatchesANumberUsedTwice) {
  Story s;
  s.submit(1, "get k");
  s.submit(1, "get l");
  EXPECT_THAT(s.violation(), StartsWith("I5 "));
}

// ---- I6: quorums -----------------------------------------------------------------------------------------------

TEST(WitnessTest, I6CatchesAPrepareWithoutAProposal) {
  Story s;
  s.accept(node(1), {}, s.batch({}));
  EXPECT_THAT(s.violation(), StartsWith("I6 "));
}

// f of them may all be liars, and the primary's own word is its proposal.
TEST(WitnessTest, I6TakesAProposalFromFPlusOnePreparesOfOthersButNotFromF) {
  for (const std::uint32_t second : {0u, 2u, 3u}) {
    Story s({node(0)});
    const HeaderPtr header = s.batch({});
    const Digest digest = batch_digest(*header);
    for (const std::uint32_t i : {1u, 2u}) s.send(node(0), node(i), PrePrepare{{}, header, digest});
    s.accept(node(1), {}, header);
    if (second == 2) s.accept(node(2), {}, header);
    if (second == 0) s.send(node(0), node(3), Prepare{{}, Seq{1}, digest});
    ASSERT_EQ(s.violation(), "none");
    s.accept(node(3), {}, header);  // which the primary passed over
    EXPECT_THAT(s.violation(), StartsWith(second == 2 ? "none" : "I6 ")) << second;
  }
}

TEST(WitnessTest, I6CatchesACommitWithTooFewPrepares) {
  Story s;
  const HeaderPtr header = s.batch({});
  s.accept(node(0), {}, header);
  s.accept(node(1), {}, header);
  s.commit(node(1), {}, header);
  EXPECT_THAT(s.violation(), StartsWith("I6 "));
}

TEST(WitnessTest, I6CountsSendersAndNotMessages) {
  Story s({node(3)});
  const HeaderPtr header = s.batch({});
  s.accept(node(0), {}, header);
  s.accept(node(1), {}, header);
  s.accept(node(1), {}, header);
  s.cast(node(0), Prepare{{}, Seq{2}, Digest{}});
  EXPECT_THAT(s.violation(), StartsWith("I7 "));  // the primary has no PREPARE
  Story t({node(3)});
  const HeaderPtr again = t.batch({});
  t.accept(node(0), {}, again);
  t.accept(node(1), {}, again);
  for (int i = 0; i < 3; ++i) t.cast(node(3), Prepare{View{4}, Seq{1}, batch_digest(*again)});
  t.commit(node(0), {}, again);
  EXPECT_THAT(t.violation(), StartsWith("I6 "));
}

TEST(WitnessTest, I6CatchesADeliveryWithTooFewCommits) {
  Story s;
  const HeaderPtr header = s.batch({});
  for (std::uint32_t i = 0; i < 4; ++i) s.accept(node(i), {}, header);
  s.commit(node(0), {}, header);
  s.commit(node(1), {}, header);
  s.deliver(node(0), header);
  EXPECT_THAT(s.violation(), StartsWith("I6 "));
}

TEST(WitnessTest, I6CatchesACheckpointOfWhatWasNotDelivered) {
  Story s;
  const HeaderPtr header = s.batch({});
  s.agree({}, header);
  s.deliver(node(1), header);
  s.checkpoint(node(0), s.state(Seq{1}));
  EXPECT_THAT(s.violation(), StartsWith("I6 "));
}

TEST(WitnessTest, I6CatchesACertificateOfTooFewOrOfRepeatedSigners) {
  for (const std::vector<std::uint32_t>& signers : {std::vector<std::uint32_t>{0, 1}, {0, 1, 1}, {0, 1, 3}}) {
    Story s;
    s.ordered({});
    s.stable(Seq{1});  // 3 has not signed
    s.cast(node(1), Stable{Story::certificate(s.state(Seq{1}), signers)});
    EXPECT_THAT(s.violation(), StartsWith("I6 "));
  }
}

TEST(WitnessTest, I6CatchesABatchClosedWithoutEqualVotes) {
  Story s({}, {SlotId{1}});
  s.ordered({s.submit(1, "put k a")});
  s.execute(SlotId{0}, Seq{1});
  s.parcel(slot_peer(SlotId{1}), node_peer(node(0)), Vote{{}, Seq{1}, SlotId{1}, Incarnation{1}, {Digest{{1}}}});
  s.event(EventKind::kClosed, Seq{1}, node(0));
  EXPECT_THAT(s.violation(), StartsWith("I6 "));
}

TEST(WitnessTest, I6CatchesABatchClosedOnOneVoteAndTooFewWords) {
  for (const std::uint32_t words : {1u, 2u}) {
    Story s;
    s.ordered({s.submit(1, "put k a")});
    const std::vector<Digest> digests{reply_digest(s.replies[1][0].view())};
    s.parcel(slot_peer(SlotId{0}), node_peer(node(3)), Vote{{}, Seq{1}, SlotId{0}, Incarnation{1}, digests});
    const Closings closings{Seq{1}, {vote_digest(Seq{1}, digests)}};
    for (std::uint32_t i = 0; i < words; ++i) s.send(node(i), node(3), closings);
    s.event(EventKind::kClosed, Seq{1}, node(3));
    EXPECT_THAT(s.violation(), StartsWith(words == 1 ? "I6 " : "none"));
  }
}

TEST(WitnessTest, I6CatchesAWordForAClosingThatIsNotTheReferenceRuns) {
  Story s;
  s.ordered({s.submit(1, "put k a")});
  s.send(node(0), node(3), Closings{Seq{1}, {Digest{{1}}}});
  EXPECT_THAT(s.violation(), StartsWith("I6 "));
}

TEST(WitnessTest, I6CatchesANewViewOfTooFewOrOfInventedViewChanges) {
  for (const std::uint32_t third : {1u, 2u}) {
    ChangedView s;
    for (std::uint32_t i = 0; i < 2; ++i) s.leave(s.changes[i]);  // 2 has not left
    s.enter(node(1),
            Story::new_view(View{1}, {s.changes[0], s.changes[1], s.changes[third]}, {batch_digest(*s.header)}));
    EXPECT_THAT(s.violation(), StartsWith("I6 "));
  }
}

// ---- I7: votes -------------------------------------------------------------------------------------------------

TEST(WitnessTest, I7CatchesTwoDigestsForOneViewAndNumberAlsoAcrossARestart) {
  for (const bool restart : {true, false}) {
    Story s({node(0)});
    const HeaderPtr header = s.batch({}, 10);
    auto other = std::make_shared<BatchHeader>(*header);
    other->time = Micros{11};
    s.cast(node(0), PrePrepare{{}, header, batch_digest(*header)});
    s.cast(node(0), PrePrepare{{}, other, batch_digest(*other)});
    s.accept(node(1), {}, header);
    if (restart) s.witness->node_restarted(node(1), false);
    EXPECT_EQ(s.violation(), "none");
    s.accept(node(1), {}, other);
    EXPECT_THAT(s.violation(), StartsWith("I7 "));
  }
}

TEST(WitnessTest, I7CatchesAVoteInALeftView) {
  Story s;
  const HeaderPtr header = s.batch({});
  s.accept(node(0), {}, header);
  s.leave(Story::change(node(1), View{1}));
  EXPECT_EQ(s.violation(), "none");
  s.accept(node(1), {}, header);
  EXPECT_THAT(s.violation(), StartsWith("I7 "));
}

TEST(WitnessTest, I7CatchesAViewChangeThatHidesOrInvents) {
  const HeaderPtr foreign = null_header(kService, Seq{3});
  for (const int what : {0, 1, 2, 3, 4}) {
    ChangedView s;
    const Claim real = claim(s.header);
    std::vector<Claim> p{real};
    std::vector<Claim> q{real};
    if (what == 1) p.clear();
    if (what == 2) q.clear();
    if (what == 3) p.push_back(claim(foreign));
    if (what == 4) q.push_back(claim(foreign));
    s.leave(Story::change(node(2), View{1}, p, q));
    EXPECT_THAT(s.violation(), StartsWith(what == 0 ? "none" : "I7 ")) << what;
  }
}

TEST(WitnessTest, I7CatchesTwoViewChangesForOneView) {
  ChangedView s;
  s.leave(s.changes[2]);
  s.cast(node(2), s.changes[2]);  // the same again is no matter
  EXPECT_EQ(s.violation(), "none");
  s.cast(node(2), Story::change(node(2), View{1}));
  EXPECT_THAT(s.violation(), StartsWith("I7 "));
}

TEST(WitnessTest, I7CatchesAViewThatGoesDown) {
  Story s;
  s.cast(node(2), progress(View{3}));
  s.witness->node_restarted(node(2), false);
  s.cast(node(2), progress(View{2}));
  EXPECT_THAT(s.violation(), StartsWith("I7 "));
}

// ---- I8, I9: new views -----------------------------------------------------------------------------------------

TEST(WitnessTest, I8CatchesAnotherChoiceThanTheProofs) {
  const HeaderPtr foreign = null_header(kService, Seq{2});
  for (const int what : {0, 1, 2, 3, 4}) {
    ChangedView s;
    for (const ViewChangePtr& change : s.changes) s.leave(change);
    std::vector<Digest> chosen{batch_digest(*s.header)};
    Seq start;
    if (what == 1) chosen.clear();
    if (what == 2) chosen[0] = batch_digest(*foreign);
    if (what == 3) chosen.emplace_back();
    if (what == 4) start = Seq{1};
    s.enter(node(1), Story::new_view(View{1}, {s.changes[0], s.changes[1], s.changes[2]}, chosen, start));
    EXPECT_THAT(s.violation(), StartsWith(what == 0 ? "none" : "I8 ")) << what;
  }
}

TEST(WitnessTest, I8HoldsChoicesAgainstTheConditionsOfThePaper) {
  // P of one node says X in view 2. While nobody else has it in Q, neither X nor null may be taken.
  for (const bool seen : {true, false}) {
    Story s({node(3), node(2)});
    const HeaderPtr header = s.batch({});
    const Claim lie = claim(header, View{2});
    const ViewChangePtr honest = Story::change(node(0), View{3});
    s.leave(honest);
    const ViewChangePtr other = Story::change(node(1), View{3});
    s.leave(other);
    const ViewChangePtr liar = Story::change(node(3), View{3}, {lie}, {lie});
    const ViewChangePtr accomplice = Story::change(node(2), View{3}, {}, {lie});
    std::vector<ViewChangePtr> proof{honest, liar};
    proof.insert(proof.begin() + 1, seen ? accomplice : other);
    s.disk(node(0), ViewRecord{View{3}, false, nullptr, Story::new_view(View{3}, proof, {batch_digest(*header)})});
    EXPECT_THAT(s.violation(), StartsWith(seen ? "none" : "I8 "));
  }
}

TEST(WitnessTest, I8CatchesANewViewThatItsCorrectPrimaryNeverSent) {
  ChangedView s;
  for (const ViewChangePtr& change : s.changes) s.leave(change);
  s.disk(node(2),
         ViewRecord{View{1}, false, nullptr,
                    Story::new_view(View{1}, {s.changes[0], s.changes[1], s.changes[2]}, {batch_digest(*s.header)})});
  EXPECT_THAT(s.violation(), StartsWith("I8 "));
}

TEST(WitnessTest, I8CatchesAVoteAgainstTheChoice) {
  ChangedView s;
  for (const ViewChangePtr& change : s.changes) s.leave(change);
  s.enter(node(1), Story::new_view(View{1}, {s.changes[0], s.changes[1], s.changes[2]}, {batch_digest(*s.header)}));
  auto other = std::make_shared<BatchHeader>(*s.header);
  other->time.value += 1;
  s.accept(node(1), View{1}, other);
  EXPECT_THAT(s.violation(), StartsWith("I8 "));
}

// No story breaks I9 that has not broken I7 or I8 before: these are forgiven here.
TEST(WitnessTest, I9CatchesANewViewThatLeavesOutWhatIsCommitted) {
  test::TestCluster cluster;
  Ghost ghost{cluster.file, kService, 1, 1, 4, 0xf, 0, std::nullopt};
  AgreementWitness witness(ghost);
  auto header = std::make_shared<BatchHeader>();
  header->n = Seq{1};
  header->time = Micros{10};
  const Digest digest = batch_digest(*header);
  const auto cast = [&](std::uint32_t from, const Body& body) {
    const auto shared = std::make_shared<const Message>(Message{kService, body});
    for (std::uint32_t i = 0; i < 4; ++i) {
      if (i != from) witness.sent({node_peer(node(from)), node_peer(node(i)), shared});
    }
  };
  const auto commit = [&](std::uint32_t at) {
    witness.persisted(node(at), PreparedRecord{{}, Seq{1}, digest});
    cast(at, Commit{{}, Seq{1}, digest});
  };
  for (std::uint32_t i = 0; i < 4; ++i) {
    witness.persisted(node(i), AcceptedRecord{{}, Seq{1}, digest, header, {}});
    cast(i, i == 0 ? Body(PrePrepare{{}, header, digest}) : Body(Prepare{{}, Seq{1}, digest}));
  }
  commit(0);
  std::vector<ViewChangePtr> proof;
  for (std::uint32_t i = 1; i < 4; ++i) {
    proof.push_back(Story::change(node(i), View{1}));
    witness.persisted(node(i), ViewRecord{View{1}, true, proof.back(), nullptr});
  }
  const NewViewPtr view = Story::new_view(View{1}, proof, {});
  witness.persisted(node(1), ViewRecord{View{1}, false, nullptr, view});
  EXPECT_EQ(ghost.violation, std::nullopt);  // one correct node has prepared it: not committed yet
  commit(2);
  EXPECT_THAT(ghost.violation.value_or("none"), StartsWith("I9 "));
  ghost.violation.reset();
  auto other = std::make_shared<BatchHeader>(*header);
  other->time = Micros{11};
  witness.persisted(node(1), AcceptedRecord{View{1}, Seq{1}, batch_digest(*other), other, {}});
  cast(1, PrePrepare{View{1}, other, batch_digest(*other)});
  EXPECT_THAT(ghost.violation.value_or("none"), StartsWith("I9 "));
  ghost.violation.reset();
  witness.restarted(node(2), true);  // so it may be lost
  cast(1, PrePrepare{View{1}, other, batch_digest(*other)});
  EXPECT_EQ(ghost.violation, std::nullopt);
}

// ---- I10, I11, I12: window, execution, durability --------------------------------------------------------------

TEST(WitnessTest, I10CatchesAVoteAboveTheWindow) {
  for (const std::uint64_t n : {std::uint64_t{kWindow}, std::uint64_t{kWindow} + 1}) {
    Story s;
    auto header = std::make_shared<BatchHeader>();
    header->n = Seq{n};
    s.accept(node(0), {}, header);
    EXPECT_THAT(s.violation(), StartsWith(n == kWindow ? "none" : "I10 "));
  }
}

TEST(WitnessTest, I10CatchesALowWatermarkThatMovesWithoutProofOrDown) {
  Story s;
  s.ordered({});
  s.ordered({});
  const CertificatePtr first = s.stable(Seq{1});
  const CertificatePtr second = s.stable(Seq{2});
  s.disk(node(0), StableRecord{second});
  EXPECT_EQ(s.violation(), "none");
  s.disk(node(0), StableRecord{first});
  EXPECT_THAT(s.violation(), StartsWith("I10 "));
  Story t;
  t.ordered({});
  t.checkpoint(node(0), t.state(Seq{1}));
  t.disk(node(0), StableRecord{Story::certificate(t.state(Seq{1}), {0, 1, 2})});
  EXPECT_THAT(t.violation(), StartsWith("I10 "));
}

TEST(WitnessTest, AnOwnSignatureCountsBeforeItsCheckpointLeft) {
  Story s;
  s.ordered({});
  s.checkpoint(node(1), s.state(Seq{1}));
  s.checkpoint(node(2), s.state(Seq{1}));
  s.disk(node(0), StableRecord{Story::certificate(s.state(Seq{1}), {0, 1, 2})});
  EXPECT_EQ(s.violation(), "none");
}

TEST(WitnessTest, I11CatchesAnExecutorThatLeavesABatchOut) {
  Story s;
  s.ordered({});
  s.ordered({});
  s.execute(SlotId{0}, Seq{2});
  EXPECT_THAT(s.violation(), StartsWith("I11 "));
}

TEST(WitnessTest, I12CatchesAVoteBeforeItsRecord) {
  for (const int what : {0, 1, 2, 3}) {
    Story s;
    const HeaderPtr header = s.batch({});
    const Digest digest = batch_digest(*header);
    if (what == 0) s.cast(node(0), PrePrepare{{}, header, digest});
    s.accept(node(0), {}, header);
    if (what == 1) s.cast(node(1), Prepare{{}, Seq{1}, digest});
    if (what == 2) {
      s.disk(node(1), AcceptedRecord{{}, Seq{1}, digest, header, {}}, false);  // written, not synced
      s.cast(node(1), Prepare{{}, Seq{1}, digest});
    }
    for (std::uint32_t i = 1; i < 4; ++i) s.accept(node(i), {}, header);
    if (what == 3) s.cast(node(1), Commit{{}, Seq{1}, digest});
    EXPECT_THAT(s.violation(), StartsWith("I12 ")) << what;
  }
}

TEST(WitnessTest, I12CatchesACheckpointBeforeTheOrder) {
  for (const bool synced : {true, false}) {
    Story s;
    const HeaderPtr header = s.batch({s.submit(1, "put k a")});
    s.agree({}, header);
    s.deliver(node(1), header, synced);
    s.checkpoint(node(1), s.state(Seq{1}));
    EXPECT_THAT(s.violation(), StartsWith(synced ? "none" : "I12 "));
  }
}

TEST(WitnessTest, I12CatchesViewMessagesBeforeTheirRecord) {
  ChangedView s;
  s.cast(node(2), s.changes[2]);
  EXPECT_THAT(s.violation(), StartsWith("I12 "));
  ChangedView t;
  for (const ViewChangePtr& change : t.changes) t.leave(change);
  t.cast(node(1), Story::new_view(View{1}, {t.changes[0], t.changes[1], t.changes[2]}, {batch_digest(*t.header)}));
  EXPECT_THAT(t.violation(), StartsWith("I12 "));
  ChangedView u;
  for (const ViewChangePtr& change : u.changes) u.leave(change);
  u.accept(node(1), View{1}, u.header);  // not in that view yet
  EXPECT_THAT(u.violation(), StartsWith("I12 "));
}

}  // namespace
}  // namespace zz::sim
