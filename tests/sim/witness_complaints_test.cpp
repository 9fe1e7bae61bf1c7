// That complaints need a cause (I22) and an end (L4), that as many slots are active as may be (I25), and that a run is
// not stuck without a right to be (L7): each can fail.

#include "tests/sim/witness_complaints.hpp"

#include "tests/sim/plan.hpp"
#include "tests/sim/witness_story.hpp"
#include "tests/sim/world.hpp"

namespace zz::sim {
namespace {

using ::testing::StartsWith;

// All is delivered, and nobody has voted yet.
struct Complaint : Story {
  explicit Complaint(const std::set<SlotId>& wrong = {}) : Story({}, wrong) { ordered({submit(1, "put k a")}); }

  void pass(std::int64_t ms) { now.value += ms * 1'000; }
  void vote(SlotId slot, NodeId to, std::uint8_t what) const {
    parcel(slot_peer(slot), node_peer(to), Vote{Epoch{}, Seq{1}, slot, Incarnation{1}, {Digest{{what}}}});
  }
  void diverged(std::string_view why, NodeId at = node(0)) const {
    event(EventKind::kDiverged, Seq{1}, at, SlotId{1}, why);
  }
  void channel(bool up) const { witness->channel(now, node(0), SlotId{1}, Incarnation{1}, up); }
  void complains(NodeId from, View view, bool really = true) const {
    Progress message = progress(view);
    message.complains = really;
    cast(from, message);
  }
  [[nodiscard]] std::string open(std::int64_t since_ms) const {
    const Micros before{now.value - since_ms * 1'000};
    return witness->open_complaint({node(0), node(1), node(2)}, before).value_or("none");
  }
  [[nodiscard]] std::string needless(Micros since) const {
    return witness->needless_change({node(0), node(1), node(2)}, since).value_or("none");
  }
};

// ---- I22: the cause --------------------------------------------------------------------------------------------

TEST(ComplaintWitnessTest, I22CatchesAMismatchOfEqualVotes) {
  for (const bool differ : {true, false}) {
    Complaint s;
    s.vote(SlotId{0}, node(0), 1);
    s.vote(SlotId{1}, node(0), differ ? 2 : 1);
    s.vote(SlotId{2}, node(1), 3);  // to another node
    s.diverged("mismatch");
    EXPECT_THAT(s.violation(), StartsWith(differ ? "none" : "I22 "));
  }
}

TEST(ComplaintWitnessTest, I22CatchesAnOverdueThatIsNot) {
  for (const int what : {0, 1, 2, 3}) {
    Complaint s;
    s.pass(what == 0 ? 4'500 : 100);
    if (what == 1 || what == 3) s.vote(SlotId{0}, node(0), 1);  // somebody has voted: the other is due soon
    if (what == 3) s.witness->node_restarted(node(0), false);   // and has delivered nothing yet
    s.diverged("overdue");
    EXPECT_THAT(s.violation(), StartsWith(what <= 1 ? "none" : "I22 ")) << what;
  }
  Complaint closed;
  closed.execute(SlotId{0}, Seq{1});
  closed.execute(SlotId{1}, Seq{1});
  closed.event(EventKind::kClosed, Seq{1}, node(0));
  closed.pass(10'000);
  closed.diverged("overdue");
  EXPECT_THAT(closed.violation(), StartsWith("I22 "));
}

TEST(ComplaintWitnessTest, I22CatchesAnExecutorThatIsNotGone) {
  for (const int what : {0, 1, 2, 3, 4, 5}) {
    Complaint s;
    if (what != 4 && what != 5) s.channel(true);
    s.pass(1'000);
    if (what != 1 && what != 4 && what != 5) s.channel(false);
    s.pass(what == 2 ? 100 : 300);
    if (what == 3) s.channel(true);
    if (what == 5) s.parcel(host_peer(HostId{1}), node_peer(node(0)), SlotDead{SlotId{1}, Incarnation{1}});
    s.diverged("gone");
    EXPECT_THAT(s.violation(), StartsWith(what == 0 || what == 5 ? "none" : "I22 ")) << what;
  }
}

TEST(ComplaintWitnessTest, I22CatchesACheckpointThatIsNeitherDisputedNorOverdue) {
  for (const int what : {0, 1, 2, 3, 4}) {
    Complaint s({SlotId{0}});
    s.pass(what == 2 ? 5'000 : 100);
    const auto root = [&](SlotId slot, NodeId to, std::uint8_t word) {
      s.parcel(slot_peer(slot), node_peer(to), ExecCheckpoint{{}, slot, Incarnation{1}, Seq{1}, Digest{{word}}, {}});
    };
    if (what != 2) root(SlotId{0}, node(what == 4 ? 1 : 0), 1);
    if (what == 0) root(SlotId{1}, node(0), 2);
    if (what == 1 || what == 4) root(SlotId{0}, node(1), 2);  // told another node another root
    if (what == 3) root(SlotId{1}, node(0), 1);
    s.diverged("checkpoint");
    EXPECT_THAT(s.violation(), StartsWith(what <= 2 ? "none" : "I22 ")) << what;
  }
}

TEST(ComplaintWitnessTest, I22CatchesAWakeWithoutASign) {
  for (const bool trouble : {true, false}) {
    Complaint s;
    s.pass(10'000);
    s.diverged("overdue", node(trouble ? 0 : 1));
    s.parcel(node_peer(node(0)), host_peer(HostId{2}), s.wake(node(0), SlotId{2}));
    EXPECT_THAT(s.violation(), StartsWith(trouble ? "none" : "I22 "));
  }
}

TEST(ComplaintWitnessTest, I22CatchesAShownComplaintThatNobodyMade) {
  for (const bool made : {true, false}) {
    Story s;
    s.now.value += 10'000'000;
    for (const std::uint32_t i : {0u, 1u, made ? 2u : 3u}) {
      s.event(EventKind::kComplained, Seq{}, node(i), {}, "silent");
    }
    auto change = std::make_shared<ViewChange>(*Story::change(node(3), View{1}));
    for (const std::uint32_t i : {0u, 1u, 2u}) change->complaints.push_back({node(i), {}});
    s.leave(change);
    EXPECT_THAT(s.violation(), StartsWith(made ? "none" : "I22 "));
  }
}

TEST(ComplaintWitnessTest, I22CatchesAComplaintOfAPrimaryThatHadNoTime) {
  struct Case {
    std::string_view why;
    std::int64_t enough_ms;
  };
  for (const Case& c :
       {Case{"silent", 450}, Case{"held", 450}, Case{"no new view", 225}, Case{"slow", 1'575}, Case{"unfair", 1'575}}) {
    for (const bool enough : {true, false}) {
      Complaint s;
      s.pass(10'000);
      s.event(EventKind::kViewEntered, Seq{2}, node(0));
      s.pass(enough ? c.enough_ms : c.enough_ms - 1);
      s.event(EventKind::kComplained, Seq{1}, node(0), {}, c.why);
      EXPECT_THAT(s.violation(), StartsWith(enough ? "none" : "I22 ")) << c.why;
    }
  }
}

TEST(ComplaintWitnessTest, I22CatchesAComplaintThatFollowsTooFew) {
  for (const bool enough : {true, false}) {
    Complaint s;
    s.complains(node(1), View{});
    s.complains(node(2), View{}, enough);
    s.event(EventKind::kComplained, Seq{1}, node(0), {}, "others");
    EXPECT_THAT(s.violation(), StartsWith(enough ? "none" : "I22 "));
  }
}

// ---- L2: views settle ------------------------------------------------------------------------------------------

// Node 3 is not of the core; node 0 is the primary of view 0.
TEST(ComplaintWitnessTest, L2CatchesAViewThatIsLeftWithoutNeed) {
  for (const std::uint32_t complained : {0u, 1u, 2u}) {
    Complaint s;
    s.pass(10'000);
    for (std::uint32_t i = 1; i <= complained; ++i) s.event(EventKind::kComplained, Seq{}, node(i), {}, "silent");
    s.pass(1'000);
    const Micros since = s.now;
    EXPECT_EQ(s.needless(since), "none");
    s.event(EventKind::kComplained, Seq{}, node(2), {}, "silent");  // after it: does not count
    s.event(EventKind::kViewLeft, Seq{}, node(3), {}, "complaints");
    EXPECT_EQ(s.needless(since), "none");
    s.event(EventKind::kViewLeft, Seq{}, node(1), {}, "shown");
    EXPECT_THAT(s.needless(since), StartsWith(complained < 2 ? "node 1 left view 0" : "none")) << complained;
    EXPECT_EQ(s.needless(Micros{since.value + 1}), "none");
  }
}

// ---- L4: the end -----------------------------------------------------------------------------------------------

TEST(ComplaintWitnessTest, L4CatchesAPrimaryThatEnoughComplainOf) {
  Complaint s;
  s.complains(node(0), View{});
  s.complains(node(3), View{});  // not of the core
  s.pass(2'000);
  EXPECT_EQ(s.open(1'000), "none");
  s.complains(node(1), View{});
  EXPECT_EQ(s.open(1'000), "none");
  s.pass(2'000);
  s.complains(node(1), View{});  // still
  EXPECT_THAT(s.open(1'000), StartsWith("f+1 nodes complain"));
  EXPECT_EQ(s.open(3'000), "none");
  s.event(EventKind::kViewEntered, Seq{2}, node(1));
  EXPECT_EQ(s.open(1'000), "none");
}

TEST(ComplaintWitnessTest, L4CatchesAComplaintThatOutlivesItsReason) {
  for (const bool ends : {true, false}) {
    Complaint s;
    s.complains(node(0), View{});
    s.pass(5'000);
    EXPECT_EQ(s.open(1'000), "none");  // alone, and nothing happens
    s.ordered({s.submit(2, "get k")});
    if (ends) s.complains(node(0), View{}, false);
    s.pass(2'000);
    EXPECT_THAT(s.open(1'000), StartsWith(ends ? "none" : "node 0 complains"));
  }
}

TEST(ComplaintWitnessTest, L4CatchesTroubleThatIsNeverSettled) {
  for (const int what : {0, 1, 2}) {
    Complaint s;
    s.pass(10'000);
    s.diverged("overdue", node(0));
    if (what != 1) s.diverged("overdue", node(1));
    s.pass(500);
    if (what == 2) s.event(EventKind::kSettled, Seq{1}, node(1));
    s.pass(2'000);
    EXPECT_THAT(s.open(1'000), StartsWith(what == 0 ? "f+1 nodes complain" : "none")) << what;
  }
}

// ---- I25: how many are active ----------------------------------------------------------------------------------

TEST(ComplaintWitnessTest, I25CatchesATableWithTooFewOrUnknownSlots) {
  const std::vector<std::vector<SlotId>> tables{
      {SlotId{0}, SlotId{2}}, {SlotId{0}}, {SlotId{1}, SlotId{1}}, {SlotId{0}, SlotId{3}}};
  for (std::size_t what = 0; what < tables.size(); ++what) {
    Story s;
    EpochNotice notice{kService, Epoch{1}, Seq{4}, tables[what], {}, {}};
    notice.incarnations = notice.evicted_through = std::vector<Incarnation>(3);
    s.parcel(node_peer(node(0)), host_peer(HostId{0}), notice);
    EXPECT_THAT(s.violation(), StartsWith(what == 0 ? "none" : "I25 ")) << what;
  }
}

// ---- whole runs: the world asks ---------------------------------------------------------------------------------

// No faults but those of `setup`.
std::string outcome(Micros gst, const std::function<void(World&)>& setup) {
  Plan plan;
  plan.faults.emplace();
  plan.gst = gst;
  plan.setup = setup;
  return run(plan).violation.value_or("none");
}

template <class... Bodies>
std::function<void(World&)> drop() {
  return [](World& world) {
    world.network().set_filter(
        [](const Parcel& parcel) { return (std::holds_alternative<Bodies>(parcel.message->body) || ...); });
  };
}

TEST(WorldLivenessTest, L4CatchesAViewThatIsNeverLeftForAnother) {
  const auto setup = [](World& world) { world.at(Micros{5'000'000}, drop<PrePrepare, ViewChangePtr>()); };
  EXPECT_THAT(outcome(Micros{5'000'000}, setup), StartsWith("L4 "));
}

TEST(WorldLivenessTest, L7CatchesARunThatIsStuckWithoutARight) {
  for (const bool right : {true, false}) {
    const auto setup = [right](World& world) {
      world.at(Micros{5'000'000}, [right](World& later) {
        drop<Commit>()(later);
        if (right) static_cast<void>(later.partition({{NodeId{0}, NodeId{3}}, {NodeId{1}, NodeId{2}}}));
      });
      world.after(Micros{29'000'000}, [](World& later) { later.network().set_filter(nullptr); });
    };
    EXPECT_THAT(outcome(Micros{30'000'000}, setup), StartsWith(right ? "none" : "L7 "));
  }
}

TEST(WorldLivenessTest, I25CatchesASlotThatIsNeverSentBackToSleep) {
  for (const bool back : {true, false}) {
    const auto setup = [back](World& world) {
      if (!back) drop<Suspect>()(world);
      world.at(Micros{3'000'000}, [](World& later) {
        const Party slot = later.parties().slot(0);
        for (Party node = 0; node < later.nodes(); ++node) later.network().clog(slot, node, Micros{4'000'000});
      });
    };
    EXPECT_THAT(outcome(Micros{5'000'000}, setup), StartsWith(back ? "none" : "I25 "));
  }
}

}  // namespace
}  // namespace zz::sim
