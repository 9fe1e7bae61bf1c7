// Acceptance cases ST-01, ST-03, ST-07, ST-08 and UP-03, as far as they are about what a node says after it has lost
// something. What a log does with torn, flipped and missing bytes is tests/agreement/durable_log_test.cpp.

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>

#include "tests/sim/acceptance_parts.hpp"

namespace zz::sim {

namespace {

using namespace agreement;

constexpr std::uint64_t kPoints = 220;  // records that a node of these runs writes, at least

// Node `node` writes its `number`th record: then, or while the next group of records is under way, these nodes end.
void crash_at_record(Plan& plan, Record& record, NodeId node, std::uint64_t number, std::vector<NodeId> crash,
                     std::int64_t away) {
  struct Shared {
    World* world = nullptr;
    std::uint64_t written = 0;
  };
  auto shared = std::make_shared<Shared>();
  const CrashKind kind = plan.seed % 2 == 0 ? CrashKind::kTorn : CrashKind::kClean;
  // At the record itself, or up to one sync later: both sides of every boundary.
  const Micros later{plan.seed % 3 == 0 ? 0 : static_cast<std::int64_t>(plan.seed * 7919 % 3'000)};
  plan.setup = [shared](World& world) { shared->world = &world; };
  record.on_persisted = [=](NodeId writer, const LogRecord&, bool) {
    if (writer != node || ++shared->written != number) return;
    shared->world->after(later, [=](World& now) {
      for (const NodeId victim : crash) {
        now.kernel().count("acceptance.crash");
        now.crash(victim, kind);
        now.after(Micros{away + 40 * kMs * victim.value}, [victim](World& back) { back.restart(victim); });
      }
    });
  };
}

Plan small(std::uint64_t seed) {
  Plan plan = calm(seed);
  plan.requests = 90;
  plan.gst = Micros{6 * kSecond};
  plan.end_at_least = Micros{};
  plan.configure = [](crypto::ClusterFile& cluster) { cluster.limits.checkpoint_batches = 4; };
  return plan;
}

}  // namespace

TEST(Acceptance, ST01_CrashAtEveryRecord) {
  const Sweep sweep(4 * kPoints, 160, [](std::uint64_t point) {
    Plan plan = small(point + 1);
    if (point % 5 == 0) plan.faults = {Fault::kOneWayCut, Fault::kPartition};
    Record record;
    const NodeId node = node_of(point % 4);
    crash_at_record(plan, record, node, 1 + point / 4, {node}, 300 * kMs);
    return Outcome(run(plan, record));
  });
  sweep.happened(
      {"acceptance.crash", "recovery.restart", "recovery.replayed-order", "recovery.restart-with-stable-checkpoint"});
}

// Power goes everywhere, between any two records of one node: of ordered batches, promises and checkpoints alike.
TEST(Acceptance, UP03_PowerCutBetweenAnyTwoRecords) {
  const Sweep sweep(4 * kPoints, 120, [](std::uint64_t point) {
    Plan plan = small(point + 1);
    Record record;
    crash_at_record(plan, record, node_of(point % 4), 1 + point / 4, {NodeId{0}, NodeId{1}, NodeId{2}, NodeId{3}},
                    300 * kMs);
    return Outcome(run(plan, record));
  });
  sweep.happened(
      {"acceptance.crash", "recovery.restart", "recovery.replayed-order", "recovery.restart-with-stable-checkpoint"});
}

// f disks forget what they said was written, all at once.
TEST(Acceptance, ST03_LostSyncsOnFNodes) {
  const Sweep sweep(50, [](std::uint64_t seed) {
    Plan plan = calm(seed);
    plan.f = 1 + seed % 2;
    plan.core.emplace();
    for (std::uint16_t i = 0; i < 2 * plan.f + 1; ++i) plan.core->insert(node_of(plan.f + i));
    plan.setup = [f = plan.f, seed](World& world) {
      for (std::uint16_t i = 0; i < f; ++i) {
        const std::int64_t at = 2 * kSecond + static_cast<std::int64_t>(seed * 997 % 3'000) * kMs;
        world.at(Micros{at}, [i](World& now) {
          now.kernel().count("acceptance.rolled-back");
          now.crash(NodeId{i}, CrashKind::kRollback);
          now.after(Micros{200 * kMs}, [i](World& later) { later.restart(NodeId{i}); });
        });
      }
    };
    return outcome_of(plan);
  });
  sweep.happened({"acceptance.rolled-back", "recovery.restart", "recovery.replayed-order"});
}

// The log is older than the boot record, or damaged, and the node knows: it votes no more until it is safe, and then
// again.
TEST(Acceptance, ST07_LearnerVotesAgain) {
  const Sweep sweep(40, [](std::uint64_t seed) {
    constexpr std::int64_t kBack = 2'500 * kMs;
    Plan plan = calm(seed);
    plan.requests = 300;
    plan.f = 1 + seed % 2;
    plan.gst = Micros{12 * kSecond};
    plan.end_at_least = Micros{};
    const NodeId damaged = node_of(seed / 2 % 3);
    plan.core.emplace();
    for (std::uint16_t i = 0; plan.core->size() < 2 * plan.f + 1; ++i) {
      if (NodeId{i} != damaged) plan.core->insert(NodeId{i});
    }
    struct Shared {
      Seq stable;               // of the others, when it came back
      std::uint64_t early = 0;  // votes before a later checkpoint was stable
      std::uint64_t votes = 0;
      World* world = nullptr;
    };
    auto shared = std::make_shared<Shared>();
    plan.setup = [=](World& world) {
      shared->world = &world;
      world.at(Micros{2 * kSecond}, [=](World& now) {
        now.kernel().count("acceptance.damaged");
        now.crash(damaged, CrashKind::kDamaged);
      });
      world.at(Micros{kBack}, [=](World& now) {
        now.restart(damaged);
        shared->stable = now.status(damaged).stable;
      });
    };
    Record record;
    record.on_sent = [=](Micros now, const Parcel& parcel) {
      if (now.value <= kBack || !from_node(parcel, damaged)) return;
      if (body_of<Prepare>(parcel) == nullptr && body_of<Commit>(parcel) == nullptr) return;
      const Seq stable = shared->world->status(damaged).stable;
      ++(stable > shared->stable ? shared->votes : shared->early);
    };
    Outcome out(run(plan, record));
    out.at_most("votes_as_a_learner", static_cast<std::int64_t>(shared->early), 0);
    out.at_least("votes_afterwards", static_cast<std::int64_t>(shared->votes), 1);
    return out;
  });
  sweep.happened({"acceptance.damaged", "recovery.learner"});
}

// A disk is full: the node stops at some record, and comes back when there is room again.
TEST(Acceptance, ST08_DiskFullForAMinute) {
  const Sweep sweep(kPoints, 32, [](std::uint64_t point) {
    constexpr std::int64_t kFull = 60 * kSecond;
    Plan plan = calm(point + 1);
    plan.requests = 500;
    plan.gst = Micros{110 * kSecond};
    plan.end_at_least = Micros{};
    Record record;
    const NodeId node = node_of(point % 4);
    crash_at_record(plan, record, node, 1 + point, {node}, kFull);
    struct Shared {
      std::optional<std::int64_t> stopped;
      std::optional<std::int64_t> back;
      std::optional<std::int64_t> level;
      Seq others;
    };
    auto shared = std::make_shared<Shared>();
    const auto setup = plan.setup;
    plan.setup = [=](World& world) {
      setup(world);
      every(world, Micros{20 * kMs}, Micros{kSecond}, Micros{109 * kSecond}, [=](World& now) {
        const NodeStatus status = now.status(node);
        const std::int64_t time = now.now().value;
        if (!status.alive) {
          if (!shared->stopped) shared->stopped = time;
          return;
        }
        if (!shared->stopped) return;
        if (!shared->back) {
          shared->back = time;
          for (std::uint16_t i = 0; i < 4; ++i) {
            shared->others = std::max(shared->others, now.status(NodeId{i}).delivered);
          }
        }
        if (!shared->level && status.delivered >= shared->others) shared->level = time;
      });
    };
    const RunResult result = run(plan, record);
    Outcome out(result);
    if (!shared->stopped) return out;  // before the first look, or never
    out.count("acceptance.disk-full");
    out.at_most("stall_us", record.stall(Micros{kSecond}, Micros{109 * kSecond}), 3 * kViewTimeout);
    if (!shared->level) out.fail("the node has not caught up");
    if (shared->level) out.at_most("level_after_us", *shared->level - *shared->back, 30 * kSecond);
    return out;
  });
  sweep.happened({"acceptance.crash", "acceptance.disk-full", "recovery.restart"});
}

}  // namespace zz::sim
