// Acceptance cases AS-01 to AS-14: agreement safety. The witness checks I1 to I20 after every event of every run; the
// cases bring about what they name, and check their pass numbers. AS-05 to AS-07 and AS-09 have exhaustive unit tests
// as well (tests/agreement/view_change_test.cpp, authority_test.cpp).

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <set>

#include "tests/sim/acceptance_parts.hpp"

namespace zz::sim {

namespace {

using namespace agreement;

// The network is as bad as it may be until the healing.
const std::set<Fault> kBadNetwork = {Fault::kDelay,     Fault::kLoss,      Fault::kDuplicate, Fault::kReorder,
                                     Fault::kOneWayCut, Fault::kPartition, Fault::kClog,      Fault::kReset};

void calm_or_not(Plan& plan) {
  if (plan.seed % 2 == 0) plan.faults = kBadNetwork;
}

void crash_for(Plan& plan, NodeId node, std::initializer_list<std::int64_t> times, std::int64_t rest) {
  plan.setup = [node, times = std::vector<std::int64_t>(times), rest](World& world) {
    for (const std::int64_t time : times) {
      world.at(Micros{time}, [node](World& now) { now.crash(node); });
      world.at(Micros{time + rest}, [node](World& now) { now.restart(node); });
    }
  };
}

}  // namespace

TEST(Acceptance, AS01_EquivocatingPrimary) {
  const Sweep sweep(60, [](std::uint64_t seed) {
    Plan plan = calm(seed);
    calm_or_not(plan);
    plan.f = seed % 5 == 0 ? 2 : 1;
    plan.byzantine_nodes = {{NodeId{0}, "equivocate"}};
    Record record;
    const RunResult result = run(plan, record);
    Outcome out(result);
    // In a good network the healing is the beginning: a primary that nobody follows is left within three timeouts.
    const Micros from = plan.faults->empty() ? Micros{} : plan.gst.value();
    out.at_most(plan.faults->empty() ? "stall_us" : "stall_after_gst_us", record.stall(from, result.virtual_time),
                plan.faults->empty() ? 3 * kViewTimeout : 3 * 4'000 * kMs);
    return out;
  });
  sweep.happened(
      {"byzantine.equivocate.proposal", "byzantine.equivocate.vote", "event.view-left", "event.view-entered"});
}

// Who is doubled (the first primary, or a backup), and for each of four rounds one of the sixteen ways to divide the
// three others and the two copies in two. A copy talks with the nodes on its side only. Which copy a client, an
// executor or a host has a channel to is drawn anew every round. ZZ_ACCEPTANCE_SEEDS=all runs the whole enumeration.
TEST(Acceptance, AS02_TwinsWithPartitions) {
  const Sweep sweep(2 * 16 * 16 * 16 * 16, 192, [](std::uint64_t point) {
    constexpr std::int64_t kRound = 300 * kMs;
    const NodeId twin{static_cast<std::uint16_t>(point % 2)};
    Plan plan = calm(point + 1);
    plan.requests = 12;
    plan.clients = 2;
    plan.gst = Micros{4 * kRound + 300 * kMs};
    plan.end_at_least = Micros{};
    plan.byzantine_nodes = {{twin, std::string(kTwin)}};
    plan.configure = [](crypto::ClusterFile& cluster) { cluster.timing.view_timeout_ms = 200; };
    plan.setup = [point, twin](World& world) {
      for (std::int64_t round = 0; round < 4; ++round) {
        const std::uint64_t way = point >> (1 + 4 * round) & 15;  // bit: not with the first copy
        std::array<std::set<NodeId>, 2> sides;
        std::uint64_t bit = 0;
        for (std::uint16_t node = 0; node < 4; ++node) {
          if (NodeId{node} != twin) sides[way >> bit++ & 1].insert(NodeId{node});
        }
        const std::array<std::set<NodeId>, 2> of_copies = {sides[0], sides[way >> bit & 1]};
        sides[0].insert(twin);
        sides[way >> bit & 1].insert(twin);
        const Micros begin{150 * kMs + round * kRound};
        world.at(begin, [=](World& now) {
          now.node_at(twin).regroup(of_copies);
          const World::Hook heal = now.partition({sides[0], sides[1]});
          now.at(Micros{begin.value + kRound}, heal);
        });
      }
      world.at(Micros{150 * kMs + 4 * kRound}, [twin](World& now) { now.node_at(twin).regroup(); });
    };
    return outcome_of(plan);
  });
  sweep.happened({"byzantine-node.twin", "byzantine.twin.regroup", "event.view-left", "event.view-entered"});
}

TEST(Acceptance, AS03_DuplicateAndWrongVotes) {
  const Sweep sweep(60, [](std::uint64_t seed) {
    Plan plan = calm(seed);
    plan.f = 1 + seed % 2;
    plan.faults = {Fault::kDuplicate, Fault::kReorder};
    plan.byzantine_nodes = {{NodeId{1}, seed % 3 == 0 ? "replay" : "mutate"}};
    if (plan.f == 2) plan.byzantine_nodes->emplace_back(NodeId{4}, "equivocate");
    return outcome_of(plan);
  });
  sweep.happened({"fault.duplicate", "byzantine.mutate.changed", "byzantine.replay.said-again",
                  "byzantine.equivocate.vote", "refused.duplicate", "refused.conflict"});
}

TEST(Acceptance, AS04_VotesOfOtherViewsAndServices) {
  const Sweep sweep(60, [](std::uint64_t seed) {
    Plan plan = calm(seed);
    plan.f = 2;
    plan.byzantine_nodes = {{NodeId{3}, "replay"}, {NodeId{4}, "mutate"}};
    // Views change, so that there are earlier ones; guests die, so that there are earlier epochs.
    crash_for(plan, NodeId{0}, {2 * kSecond, 5 * kSecond}, kSecond);
    if (seed % 2 == 0) plan.faults = {Fault::kGuestCrash};
    return outcome_of(plan);
  });
  sweep.happened({"byzantine.replay.said-again", "byzantine.mutate.changed", "event.view-entered", "refused.stale-view",
                  "refused.unknown-service", "refused.duplicate", "event.epoch-changed"});
}

// One backup alone has prepared, or committed, when the primary dies. Then one node's VIEW-CHANGEs are lost, so that
// each set of 2f+1 is used, and the NEW-VIEWs of up to two views.
TEST(Acceptance, AS05_PreparedAtOneThenPrimaryDies) {
  struct Shared {
    bool dying = false;
    std::map<NodeId, Seq> committed;  // highest n of a COMMIT sent
  };
  const Sweep sweep(2 * 3 * 4 * 3, 2 * 3 * 4 * 3, [](std::uint64_t point) {
    const bool commits = point % 2 == 1;
    const NodeId one{static_cast<std::uint16_t>(1 + point / 2 % 3)};
    const NodeId unheard{static_cast<std::uint16_t>(point / 6 % 4)};
    const std::uint64_t first_view = 1 + point / 24 % 3;
    Plan plan = calm(point + 1);
    plan.gst = Micros{9 * kSecond};
    auto shared = std::make_shared<Shared>();
    Record record;
    record.on_sent = [shared](Micros, const Parcel& parcel) {
      if (const auto* commit = body_of<Commit>(parcel); commit != nullptr && parcel.from.role == crypto::Role::kNode) {
        Seq& highest = shared->committed[parcel.from.node()];
        highest = std::max(highest, commit->n);
      }
    };
    const Rule rule = [=](const Parcel& parcel) {
      if (!shared->dying) {
        const bool vote = commits ? body_of<Commit>(parcel) != nullptr : body_of<Prepare>(parcel) != nullptr;
        return vote && !to_node(parcel, one) ? kLost : Micros{};
      }
      const auto* change = body_of<ViewChangePtr>(parcel);
      const auto* view = body_of<NewViewPtr>(parcel);
      if (change != nullptr && (*change)->signer == unheard && (*change)->view <= View{first_view}) return kLost;
      return view != nullptr && (*view)->view < View{first_view} ? kLost : Micros{};
    };
    const auto alone = [=](World& world) {
      for (std::uint16_t i = 0; i < 4; ++i) {
        const NodeId node{i};
        if (node == one) continue;
        if (commits && world.status(node).delivered >= world.status(one).delivered) return false;
        if (!commits && shared->committed[node] >= shared->committed[one]) return false;
      }
      return true;
    };
    plan.setup = [=](World& world) {
      world.at(Micros{1'500 * kMs}, [=](World& now) { interfere(now, rule, Micros{6 * kSecond}); });
      every(world, Micros{2 * kMs}, Micros{1'500 * kMs}, Micros{1'900 * kMs}, [=](World& now) {
        if (shared->dying || (!alone(now) && now.now() < Micros{1'900 * kMs})) return;
        now.kernel().count(alone(now) ? "acceptance.alone" : "acceptance.not-alone");
        shared->dying = true;
        now.crash(NodeId{0});
        // Without one node's word, the dead one's is needed.
        if (unheard != NodeId{0}) now.after(Micros{300 * kMs}, [](World& later) { later.restart(NodeId{0}); });
      });
    };
    return Outcome(run(plan, record));
  });
  sweep.happened({"acceptance.alone", "event.view-entered"});
  EXPECT_GE(sweep.counted("acceptance.alone"), 9 * sweep.counted("acceptance.not-alone"));
}

TEST(Acceptance, AS06_BogusClaimsInViewChanges) {
  const Sweep sweep(60, [](std::uint64_t seed) {
    Plan plan = calm(seed);
    plan.f = 1 + seed % 2;
    plan.byzantine_nodes = {{NodeId{3}, seed % 4 < 2 ? "lie-view-change" : "forge"}};
    if (plan.f == 2) plan.byzantine_nodes->emplace_back(NodeId{5}, "lie-view-change");
    crash_for(plan, node_of(seed / 4 % 3), {1'200 * kMs, 3 * kSecond, 5 * kSecond}, 900 * kMs);
    return outcome_of(plan);
  });
  sweep.happened({"byzantine.lie-view-change.bogus", "byzantine.lie-view-change.higher-view",
                  "byzantine.lie-view-change.higher-claims", "byzantine.lie-view-change.old-checkpoint",
                  "byzantine.forge.view-change", "event.view-entered", "refused.bad-signature"});
}

TEST(Acceptance, AS07_NewViewsThatContradictTheirProof) {
  const Sweep sweep(60, [](std::uint64_t seed) {
    Plan plan = calm(seed);
    plan.f = 1 + seed % 2;
    plan.byzantine_nodes = {{NodeId{1}, "lie-view-change"}};
    if (plan.f == 2) plan.byzantine_nodes->emplace_back(NodeId{2}, "lie-view-change");
    auto shared = std::make_shared<View>();
    plan.setup = [shared](World& world) {
      world.at(Micros{2 * kSecond}, [](World& now) {
        const World::Hook heal = now.isolate(NodeId{0});
        now.after(Micros{1'200 * kMs}, heal);
      });
      world.at(Micros{7'900 * kMs}, [shared](World& now) { *shared = now.view(); });
    };
    Record record;
    Outcome out(run(plan, record));
    if (shared->value > 1) out.count("acceptance.next-view");
    if (*shared == View{}) out.fail("view 0 was never left");
    return out;
  });
  sweep.happened({"byzantine.lie-view-change.drops-choice", "byzantine.lie-view-change.null-choice",
                  "byzantine.lie-view-change.other-choice", "byzantine.lie-view-change.longer-choice",
                  "byzantine.lie-view-change.thin-proof", "acceptance.next-view"});
}

TEST(Acceptance, AS08_RolledBackReplica) {
  const Sweep sweep(80, [](std::uint64_t seed) {
    Plan plan = calm(seed);
    plan.gst = Micros{20 * kSecond};
    plan.end_at_least = Micros{24 * kSecond};
    plan.f = 1 + seed % 2;
    plan.faults = {Fault::kLostSync, Fault::kOneWayCut, Fault::kPartition, Fault::kDelay};
    return outcome_of(plan);
  });
  sweep.happened({"fault.lost-sync", "recovery.restart", "event.view-entered"});
}

TEST(Acceptance, AS09_ForgedSignatures) {
  const Sweep sweep(60, [](std::uint64_t seed) {
    Plan plan = calm(seed);
    plan.f = 1 + seed % 2;
    plan.byzantine_nodes = {{node_of(seed % 4), "forge"}};
    if (plan.f == 2) plan.byzantine_nodes->emplace_back(NodeId{6}, "forge");
    plan.faults = {Fault::kPartition};
    return outcome_of(plan);
  });
  sweep.happened({"byzantine.forge.view-change", "byzantine.forge.checkpoint", "byzantine.forge.new-view",
                  "byzantine.forge.invented-request", "byzantine.forge.garbage", "refused.bad-signature"});
}

TEST(Acceptance, AS10_CheckpointsMoveDuringViewChanges) {
  const Sweep sweep(60, [](std::uint64_t seed) {
    Plan plan = calm(seed);
    plan.faults = {Fault::kOneWayCut, Fault::kPartition, Fault::kCrash, Fault::kPause, Fault::kReset, Fault::kReorder};
    plan.requests = 300;
    plan.gst = Micros{20 * kSecond};
    plan.end_at_least = Micros{24 * kSecond};
    plan.configure = [](crypto::ClusterFile& cluster) {
      cluster.limits.window_batches = 8;
      cluster.limits.checkpoint_batches = 2;
    };
    return outcome_of(plan);
  });
  sweep.happened({"event.checkpoint", "event.view-left", "event.view-entered", "message.ORDER-PROOF", "message.BATCH",
                  "recovery.restart-in-view-change", "recovery.restart-with-stable-checkpoint"});
}

TEST(Acceptance, AS11_NullFullAndRepeatedBatches) {
  const Sweep sweep(130, [](std::uint64_t seed) {
    Plan plan = calm(seed);
    plan.requests = 600;
    plan.clients = 20;  // more that wait, and so more that are proposed twice
    plan.byzantine_nodes = {{NodeId{0}, seed % 2 == 0 ? "equivocate" : "mixed"}};
    plan.faults = kBadNetwork;
    plan.configure = [](crypto::ClusterFile& cluster) { cluster.limits.batch_requests_max = 4; };
    Seq last;
    std::set<std::tuple<ClientId, SessionId, RequestNumber>> ordered;
    Counters seen;
    Record record;
    record.on_delivered = [&](NodeId, const Delivery& delivery) {
      if (delivery.header->n <= last) return;  // of another node
      last = delivery.header->n;
      const auto& references = delivery.header->references;
      if (references.empty() && delivery.header->system.empty()) count(seen, "acceptance.null-batch");
      if (references.size() == 4) count(seen, "acceptance.full-batch");
      for (const Reference& r : references) {
        if (!ordered.insert({r.client, r.session, r.number}).second) count(seen, "acceptance.ordered-twice");
      }
    };
    Outcome out(run(plan, record));
    for (const auto& [name, value] : seen) out.count(name, value);
    return out;
  });
  sweep.happened({"acceptance.null-batch", "acceptance.full-batch", "acceptance.ordered-twice", "event.view-entered"});
}

TEST(Acceptance, AS12_TwoCollude) {
  const Sweep sweep(36, [](std::uint64_t seed) {
    Plan plan = calm(seed);
    calm_or_not(plan);
    plan.f = 2;
    const bool forges = seed % 4 >= 2;
    plan.byzantine_nodes = {{NodeId{0}, "equivocate"}, {NodeId{1}, forges ? "forge" : "equivocate"}};
    return outcome_of(plan);
  });
  sweep.happened({"byzantine.equivocate.proposal", "byzantine.equivocate.accomplice",
                  "byzantine.forge.invented-request", "event.view-entered"});
}

// Beyond the bound the order may fork. Nobody stops, and those that see both sides say so.
TEST(Acceptance, AS13_MoreThanFEquivocate) {
  const Sweep sweep(40, [](std::uint64_t seed) {
    Plan plan = calm(seed);
    plan.f = 1 + seed % 2;
    plan.beyond_bound = true;
    plan.liveness = false;
    plan.gst = Micros{20 * kSecond};
    plan.requests = 300;
    plan.byzantine_nodes.emplace();
    for (std::uint16_t i = 0; i < plan.f + 1; ++i) plan.byzantine_nodes->emplace_back(NodeId{i}, "equivocate");
    std::string violation;
    plan.setup = [&](World& world) {
      world.at(Micros{20 * kSecond - 1},
               [&](World& now) { violation = now.kernel().witness->violation().value_or(""); });
    };
    Record record;
    Outcome out(run(plan, record));
    if (violation.starts_with("I1 ")) {
      out.count("acceptance.forked");
      const auto found = out.counters.find("event.conflict");
      if (found != out.counters.end() && found->second > 0) out.count("acceptance.forked-with-evidence");
    } else if (!violation.empty()) {
      out.count("acceptance.other-violation");
    }
    return out;
  });
  sweep.happened({"byzantine.equivocate.proposal", "byzantine.equivocate.accomplice", "acceptance.forked"});
  EXPECT_GE(100 * sweep.counted("acceptance.forked-with-evidence"), 99 * sweep.counted("acceptance.forked"));
}

TEST(Acceptance, AS14_TimesOutOfBounds) {
  const Sweep sweep(60, [](std::uint64_t seed) {
    Plan plan = calm(seed);
    plan.f = 1 + seed % 2;
    plan.byzantine_nodes = {{NodeId{0}, "bad-time"}};
    if (plan.f == 2) plan.byzantine_nodes->emplace_back(NodeId{1}, "bad-time");
    return outcome_of(plan);
  });
  sweep.happened({"byzantine.bad-time.past", "byzantine.bad-time.future", "byzantine.bad-time.repeated",
                  "byzantine.bad-time.extreme", "event.view-entered"});
}

}  // namespace zz::sim
