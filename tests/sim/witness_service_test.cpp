// Every checker of the witness can fail: a short story that breaks it, beside legal ones. Here: what is answered,
// states and activation, from I13 on.

#include "agreement/oversight.hpp"
#include "tests/sim/witness.hpp"
#include "tests/sim/witness_clients.hpp"
#include "tests/sim/witness_story.hpp"

namespace zz::sim {
namespace {

using ::testing::StartsWith;

// ---- I13, I14, I16, I19, I20: what is answered, and states -----------------------------------------------------

TEST(WitnessTest, I13CatchesAReplyThatTheReferenceRunDidNotGive) {
  Story s;
  s.ordered({s.submit(1, "put k a"), s.submit(2, "get k")});
  s.reply(2, SharedBytes::copy("a"));
  EXPECT_EQ(s.violation(), "none");
  s.reply(1, SharedBytes::copy("none"));
  EXPECT_THAT(s.violation(), StartsWith("I13 "));
}

TEST(WitnessTest, I13CatchesRepliesOutOfTurn) {
  Story s;
  s.submit(1, "put k a");
  s.reply(1, SharedBytes::copy("ok"));  // not ordered
  EXPECT_THAT(s.violation(), StartsWith("I13 "));
  Story t;
  t.ordered({t.submit(1, "put k a")});
  t.reply(1, SharedBytes::copy("ok"));
  t.reply(1, SharedBytes::copy("ok"));
  EXPECT_THAT(t.violation(), StartsWith("I13 "));
  Story u;
  u.reply(1, SharedBytes::copy("ok"));  // not asked
  EXPECT_THAT(u.violation(), StartsWith("I13 "));
}

// The places of the order only grow, so an order that breaks real time has broken I3 before: this part is told alone.
TEST(WitnessTest, I14CatchesAHistoryThatIsNotLinearizable) {
  for (const std::int64_t submitted_at : {5, 50}) {
    test::TestCluster cluster;
    Ghost ghost{cluster.file, kService, 1, 1, 4, 0xf, 0, std::nullopt};
    ClientWitness witness(ghost);
    const RequestPtr first = Story::request(kClient, 1, "put k a");
    const RequestPtr second = Story::request(kClient, 2, "put k b");
    witness.submitted(Micros{submitted_at}, kClient, kSession, RequestNumber{1}, first->op);
    witness.submitted(Micros{5}, kClient, kSession, RequestNumber{2}, second->op);
    GhostBatch batch;
    batch.n = Seq{1};
    batch.requests = {first, second};
    witness.ordered(batch);
    witness.accepted(Micros{10}, kClient, kSession, RequestNumber{2}, SharedBytes::copy("ok"));
    witness.final_check();
    EXPECT_THAT(ghost.violation.value_or("none"), StartsWith(submitted_at == 5 ? "none" : "I14 "));
  }
}

TEST(WitnessTest, I16CatchesCheckpointStatesThatDiffer) {
  for (const int what : {0, 1, 2, 3}) {
    Story s;
    s.ordered({s.submit(1, "put k a")});
    s.checkpoint(node(0), s.state(Seq{1}));
    CheckpointState other = s.state(Seq{1});
    if (what == 1) other.history = Digest{{1}};
    if (what == 2) other.results = Digest{{1}};
    if (what == 3) other.table = Digest{{1}};
    s.checkpoint(node(1), other);
    EXPECT_THAT(s.violation(), StartsWith(what == 0 ? "none" : "I16 ")) << what;
  }
}

TEST(WitnessTest, I16HoldsTheFirstStateAgainstTheOrderAndTheReferenceRun) {
  for (const bool history : {true, false}) {
    Story s;
    s.ordered({s.submit(1, "put k a")});
    CheckpointState wrong = s.state(Seq{1});
    (history ? wrong.history : wrong.results) = Digest{{1}};
    s.checkpoint(node(0), wrong);
    EXPECT_THAT(s.violation(), StartsWith("I16 "));
  }
}

TEST(WitnessTest, I19CatchesOtherRepliesAndOtherStates) {
  Story s;
  s.ordered({s.submit(1, "put k a")});
  s.witness->executed(SlotId{0}, Incarnation{1}, Seq{1}, {Digest{{1}}}, {});
  EXPECT_THAT(s.violation(), StartsWith("I19 "));
  Story t({}, {SlotId{2}});
  t.ordered({t.submit(1, "put k a")});
  t.execute(SlotId{0}, Seq{1}, Digest{{1}});
  t.execute(SlotId{2}, Seq{1}, Digest{{2}});  // a faulty one
  EXPECT_EQ(t.violation(), "none");
  t.execute(SlotId{1}, Seq{1}, Digest{{2}});
  EXPECT_THAT(t.violation(), StartsWith("I19 "));
  Story u;
  u.event(EventKind::kNotDeterministic, Seq{1}, node(0));
  EXPECT_THAT(u.violation(), StartsWith("I19 "));
}

TEST(WitnessTest, I6CatchesARootThatNobodyGave) {
  for (const int what : {0, 1, 2, 3, 4}) {
    Story s({node(3)}, {SlotId{2}});
    s.ordered({});
    CheckpointState state = s.state(Seq{1});
    state.root = Digest{{1}};
    const auto cast = [&](NodeId from) { s.cast(from, Checkpoint{kService, from, state, {}}); };
    s.root(SlotId{0}, node(0), Seq{1}, state.root);
    if (what != 1) s.root(SlotId{2}, node(0), Seq{1}, state.root);
    cast(node(0));
    EXPECT_THAT(s.violation(), StartsWith(what == 1 ? "I6 " : "none"));
    if (what >= 2) cast(node(3));  // f other nodes and 0
    if (what == 4) s.root(SlotId{0}, node(1), Seq{1}, state.root);
    if (what == 3) state.root = Digest{{2}};  // 3 has signed another one
    cast(what == 0 ? node(1) : node(2));
    EXPECT_THAT(s.violation(), StartsWith(what == 2 || what == 4 ? "none" : "I6 ")) << what;
  }
}

TEST(WitnessTest, I6CatchesAStateThatWasAdoptedWithoutACertificate) {
  for (const bool good : {true, false}) {
    Story s({node(3)});
    s.ordered({});
    static_cast<void>(s.stable(Seq{1}));
    const auto certificate = Story::certificate(s.state(Seq{1}), good ? std::vector<std::uint32_t>{0, 1, 3}
                                                                      : std::vector<std::uint32_t>{0, 3, 3});
    s.witness->adopted(SlotId{1}, Incarnation{1}, certificate);
    EXPECT_THAT(s.violation(), StartsWith(good ? "none" : "I6 "));
  }
}

TEST(WitnessTest, I16CatchesASlotThatGoesOnWithAnotherState) {
  Story s({}, {SlotId{1}});
  s.witness->goes_on(SlotId{1}, Incarnation{1}, Seq{1});
  EXPECT_THAT(s.violation(), StartsWith("I16 "));
}

TEST(WitnessTest, I19CatchesOtherRootsOfCorrectSlotsAndCorrectSlotsThatEnd) {
  Story s({}, {SlotId{2}});
  s.ordered({});
  s.root(SlotId{0}, node(0), Seq{1}, Digest{{1}});
  s.root(SlotId{2}, node(0), Seq{1}, Digest{{2}});
  s.root(SlotId{1}, node(1), Seq{1}, Digest{{1}});
  EXPECT_EQ(s.violation(), "none");
  s.root(SlotId{1}, node(0), Seq{1}, Digest{{2}});
  EXPECT_THAT(s.violation(), StartsWith("I19 "));
  for (const SlotId slot : {SlotId{1}, SlotId{2}}) {
    Story t({}, {SlotId{2}});
    Event ends{.kind = EventKind::kConflict, .n = Seq{1}, .slot = slot, .incarnation = Incarnation{1}};
    t.witness->observed(t.now, ends);
    EXPECT_THAT(t.violation(), StartsWith(slot == SlotId{1} ? "I19 " : "none"));
  }
}

TEST(WitnessTest, I20CatchesAnAgreedTimeThatDoesNotFollow) {
  Story s;
  s.ordered({});
  const HeaderPtr second = s.batch({}, 5);  // proposed below the last one's 1000
  s.agree({}, second);
  Delivery wrong = s.delivery(second);
  EXPECT_EQ(wrong.time, Micros{1'001});
  s.witness->delivered(node(0), wrong);
  EXPECT_EQ(s.violation(), "none");
  wrong.time = Micros{5};
  s.witness->delivered(node(1), wrong);
  EXPECT_THAT(s.violation(), StartsWith("I20 "));
}

// ---- I21, I24, I26: activation ---------------------------------------------------------------------------------

TEST(WitnessTest, I21CatchesAWakeUpOnTooFewComplaints) {
  for (const int what : {0, 1, 2, 3}) {
    Story s({node(3)});
    const crypto::Peer host = host_peer(HostId{2});
    s.parcel(host_peer(HostId{1}), node_peer(node(0)), SlotDead{SlotId{1}, Incarnation{1}});
    s.event(EventKind::kDiverged, Seq{1}, node(0), SlotId{1}, "gone");
    s.parcel(node_peer(node(0)), host, s.wake(node(0), SlotId{2}));
    if (what == 0) s.parcel(node_peer(node(3)), host, s.wake(node(3), SlotId{2}));
    if (what == 1) s.parcel(node_peer(node(0)), host, s.wake(node(0), SlotId{2}));  // again
    if (what == 2) {
      Wake bad = s.wake(node(3), SlotId{2});
      bad.signature.bytes[0] ^= 1;
      s.parcel(node_peer(node(3)), host, bad);
    }
    if (what == 3) s.parcel(node_peer(node(3)), host_peer(HostId{1}), s.wake(node(3), SlotId{2}));
    s.witness->woken(s.now, SlotId{2}, Incarnation{1});
    EXPECT_THAT(s.violation(), StartsWith(what == 0 ? "none" : "I21 ")) << what;
  }
}

TEST(WitnessTest, I21CatchesARejuvenationBeforeItsTime) {
  for (const int what : {0, 1, 2}) {
    Story s;
    s.cluster.file.services[0].rejuvenate_every_requests = what == 2 ? 0 : 2;
    s.ordered({s.submit(1, "put k a")});
    if (what == 0) s.ordered({s.submit(2, "get k")});
    Wake wake = s.wake(node(0), SlotId{2});
    wake.sign = static_cast<std::uint8_t>(Sign::kRejuvenation);
    s.parcel(node_peer(node(0)), host_peer(HostId{2}), wake);
    EXPECT_THAT(s.violation(), StartsWith(what == 0 ? "none" : "I21 ")) << what;
  }
}

TEST(WitnessTest, I21AcceptsNoticesOfTheOrderFromEnoughNodes) {
  for (const std::uint32_t notices : {1u, 2u}) {
    Story s;
    const EpochNotice notice{kService,
                             Epoch{1},
                             Seq{4},
                             {SlotId{0}, SlotId{2}},
                             {Incarnation{1}, Incarnation{2}, Incarnation{1}},
                             {Incarnation{}, Incarnation{1}, {}}};
    for (std::uint32_t i = 0; i < notices; ++i) s.parcel(node_peer(node(i)), host_peer(HostId{2}), notice);
    s.witness->woken(s.now, SlotId{2}, Incarnation{1});
    EXPECT_THAT(s.violation(), StartsWith(notices == 2 ? "none" : "I21 "));
  }
}

TEST(WitnessTest, I24CatchesALifeThatIsOver) {
  Story s;
  s.ordered({});
  s.witness->executed(SlotId{0}, Incarnation{2}, Seq{1}, {}, {});
  EXPECT_EQ(s.violation(), "none");
  s.witness->executed(SlotId{0}, Incarnation{1}, Seq{1}, {}, {});
  EXPECT_THAT(s.violation(), StartsWith("I24 "));
}

TEST(WitnessTest, I26CatchesTheConvictionOfACorrectSlot) {
  for (const std::string_view why : {"late", "wrong"}) {
    Story s({}, {SlotId{1}});
    s.event(EventKind::kEvicted, Seq{1}, node(0), SlotId{1}, "wrong");
    EXPECT_EQ(s.violation(), "none");
    s.event(EventKind::kEvicted, Seq{1}, node(0), SlotId{0}, why);
    EXPECT_THAT(s.violation(), StartsWith(why == "late" ? "none" : "I26 "));
  }
}

TEST(WitnessTest, I26CatchesSuspicionsThatNobodyHad) {
  for (const int what : {0, 1, 2, 3}) {
    Story s({node(3)});
    const Suspect mine{kService, node(what == 3 ? 0u : 1u), {}, SlotId{1}, Incarnation{1},
                       Seq{1},   Suspicion::kLate,          {}, {{1}}};
    Suspect theirs = mine;
    theirs.signer = node(3);
    if (what == 0 || what == 2) s.cast(node(1), mine);
    std::vector<Suspect> proof{mine};
    if (what != 2) proof.push_back(theirs);
    s.order(s.batch({}, 0, {EpochChange{Epoch{1}, {SlotId{0}, SlotId{2}}, {SlotId{1}}, proof}}));
    EXPECT_THAT(s.violation(), StartsWith(what == 0 || what == 3 ? "none" : "I26 ")) << what;  // 3: the primary's own
  }
}

}  // namespace
}  // namespace zz::sim
