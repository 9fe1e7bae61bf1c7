// Acceptance cases NW-01, NW-02, NW-04, NW-06 (networks) and CK-01 to CK-03 (clocks). NW-03 stands beside AL-06,
// which it is a wider form of; NW-05 is tests/faults (real sockets).

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>

#include "tests/sim/acceptance_parts.hpp"

namespace zz::sim {

namespace {

using namespace agreement;

std::int64_t worst_timeout(World& world) {
  std::int64_t out = kViewTimeout;
  for (std::uint16_t i = 0; i < world.nodes(); ++i) out = std::max(out, world.status(NodeId{i}).view_timeout.value);
  return out;
}

// As bytes on a channel, with what frames, TLS and TCP add; roughly.
std::int64_t bytes_of(const Message& message) {
  const auto references = [](const HeaderPtr& header) {
    return std::int64_t{60} * (header ? header->references.size() : 0);
  };
  const auto requests = [](const std::vector<RequestPtr>& all) {
    std::int64_t out = 0;
    for (const RequestPtr& request : all)
      out += 80 + static_cast<std::int64_t>(request ? request->op.view().size() : 0);
    return out;
  };
  std::int64_t out = 120;
  if (const auto* m = std::get_if<PrePrepare>(&message.body)) out += references(m->header);
  if (const auto* m = std::get_if<Batch>(&message.body)) out += references(m->header) + requests(m->requests);
  if (const auto* m = std::get_if<Bodies>(&message.body)) out += requests(m->requests);
  if (const auto* m = std::get_if<OrderProof>(&message.body))
    out += 400 + 32 * static_cast<std::int64_t>(m->digests.size());
  if (const auto* m = std::get_if<ViewChangePtr>(&message.body)) {
    out += 400 + 48 * static_cast<std::int64_t>((*m)->prepared.size() + (*m)->pre_prepared.size());
  }
  if (std::holds_alternative<NewViewPtr>(message.body)) out += 4'000;
  return out;
}

}  // namespace

// Against the same network that loses, repeats and reorders nothing: what a distance costs is not what is measured.
TEST(Acceptance, NW01_LossDuplicatesReorderDelay) {
  const Sweep sweep(9, [](std::uint64_t seed) {
    constexpr std::int64_t kEnd = 40 * kSecond;
    static constexpr std::uint32_t kLosses[] = {1, 10, 30};
    static constexpr std::int64_t kBounds[] = {50, 20, 5};
    const std::size_t what = seed % 3;
    Outcome out;
    std::uint64_t replies[2] = {};
    for (const bool bad : {false, true}) {
      Plan plan = busy(seed, kEnd, 25);
      plan.setup = [=](World& world) {
        Weather weather = world.network().weather();
        weather.delay_min = 20 * kMs;
        weather.delay_max = 180 * kMs;
        if (bad) {
          weather.loss_percent = kLosses[what];
          weather.duplicate_percent = 20;
          weather.reorder = true;
        }
        world.network().set_weather(weather);
      };
      Record record;
      out.add(run(plan, record));
      replies[bad ? 1 : 0] = record.accepted(Micros{2 * kSecond}, Micros{kEnd});
    }
    out.at_least("rate_percent_at_" + std::to_string(kLosses[what]) + "_percent_loss",
                 static_cast<std::int64_t>(replies[1] * 100 / std::max<std::uint64_t>(replies[0], 1)), kBounds[what]);
    return out;
  });
  sweep.happened({"fault.loss", "fault.duplicate"});
}

TEST(Acceptance, NW02_Partitions) {
  const Sweep sweep(64, [](std::uint64_t seed) {
    static constexpr std::int64_t kLengths[] = {1, 5, 30, 300};
    constexpr std::int64_t kCut = 2 * kSecond;
    const std::int64_t heal_at = kCut + kLengths[seed % 4] * kSecond;
    const auto a = static_cast<std::uint16_t>(seed / 16 % 4);
    const auto node = [a](unsigned i) { return NodeId{static_cast<std::uint16_t>((a + i) % 4)}; };
    std::vector<std::set<NodeId>> groups;
    switch (seed / 4 % 4) {
      case 0:
        groups = {{node(0)}, {node(1), node(2), node(3)}};
        break;  // minority and majority
      case 1:
        break;  // everybody alone
      case 2:
        groups = {{node(0), node(1), node(2)}, {node(0), node(3)}};
        break;  // a bridge
      default:
        groups = {{node(0), node(1)}, {node(1), node(2)}, {node(2), node(3)}, {node(3), node(0)}};
        break;  // a ring
    }
    Plan plan = calm(seed);
    plan.clients = 4;
    plan.requests = 400;  // or thinking takes longer than answering may
    plan.gst = Micros{heal_at + 15 * kSecond};
    plan.end_at_least = Micros{heal_at + 20 * kSecond};
    auto timeout = std::make_shared<std::int64_t>();
    plan.setup = [=](World& world) {
      world.at(Micros{kCut}, [=](World& now) {
        now.kernel().count("acceptance.partition." + std::to_string(seed / 4 % 4));
        const World::Hook heal = now.partition(groups);
        now.at(Micros{heal_at}, heal);
      });
      world.at(Micros{heal_at}, [timeout](World& now) { *timeout = worst_timeout(now); });
    };
    Record record;
    const RunResult result = run(plan, record);
    Outcome out(result);
    out.at_most("stall_after_heal_us", record.stall(Micros{heal_at}, result.virtual_time),
                std::max(5 * kSecond, 2 * *timeout));
    return out;
  });
  sweep.happened({"acceptance.partition.0", "acceptance.partition.1", "acceptance.partition.2",
                  "acceptance.partition.3", "event.view-entered"});
}

TEST(Acceptance, NW04_SwizzleClog) {
  const Sweep sweep(70, [](std::uint64_t seed) {
    Plan plan = calm(seed);
    plan.f = 1 + seed % 2;
    plan.faults = {Fault::kSwizzle, Fault::kClog};
    plan.gst = Micros{15 * kSecond};
    plan.end_at_least = Micros{18 * kSecond};
    return outcome_of(plan);
  });
  sweep.happened({"fault.swizzle", "fault.clog", "event.view-entered"});
}

// A node was away, and catches up behind a link of one megabit a second, which it shares with everything else it says.
TEST(Acceptance, NW06_NarrowLinkDuringCatchUp) {
  const Sweep sweep(8, [](std::uint64_t seed) {
    constexpr std::int64_t kEnd = 20 * kSecond;
    constexpr std::int64_t kBack = 8 * kSecond;
    static constexpr NodeId kNarrow{3};
    Outcome out;
    std::int64_t p99[2] = {};
    auto behind = std::make_shared<std::int64_t>();
    for (const bool narrow : {false, true}) {
      Plan plan = busy(seed, kEnd, 25);
      plan.configure = short_hedge;
      auto free_at = std::make_shared<std::map<bool, std::int64_t>>();  // by direction
      plan.setup = [=](World& world) {
        Weather weather = world.network().weather();
        weather.delay_min = 2 * kMs;
        weather.delay_max = 6 * kMs;
        world.network().set_weather(weather);
        if (!narrow) return;
        world.at(Micros{2 * kSecond}, [](World& now) {
          const World::Hook heal = now.isolate(kNarrow);
          now.at(Micros{kBack}, heal);
        });
        const Kernel* kernel = &world.kernel();
        Counters* counters = &world.counters();
        const Rule link = [=](const Parcel& parcel) {
          if (body_of<OrderProof>(parcel) != nullptr) count(*counters, "acceptance.proof-through-the-narrow-link");
          const bool in = to_node(parcel, kNarrow);
          if (!in && !from_node(parcel, kNarrow)) return Micros{};
          std::int64_t& free = (*free_at)[in];
          free = std::max(free, kernel->now.value) + bytes_of(*parcel.message) * 8;  // one bit a microsecond
          return Micros{free - kernel->now.value};
        };
        world.at(Micros{kBack}, [link](World& now) { interfere(now, link, Micros{kEnd}); });
        world.at(Micros{kEnd - 1}, [=](World& now) {
          *behind = static_cast<std::int64_t>(now.status(NodeId{1}).delivered.value) -
                    static_cast<std::int64_t>(now.status(kNarrow).delivered.value);
        });
      };
      Record record;
      out.add(run(plan, record));
      p99[narrow ? 1 : 0] = percentile(record.latencies(Micros{kBack}, Micros{kEnd - kSecond}), 99);
    }
    out.at_most("p99_percent", p99[1] * 100 / std::max<std::int64_t>(p99[0], 1), 300);
    out.at_most("batches_behind_in_the_end", *behind, 32);
    return out;
  });
  sweep.happened({"acceptance.proof-through-the-narrow-link"});
}

// ---- clocks ----------------------------------------------------------------------------------------------------

TEST(Acceptance, CK01_WallClocksFarOff) {
  const Sweep sweep(40, [](std::uint64_t seed) {
    constexpr std::int64_t kHour = 3'600 * kSecond;
    constexpr std::int64_t kYear = 365 * 24 * kHour;
    static constexpr std::int64_t kOffsets[] = {kHour, -kHour, 50 * kYear, -50 * kYear};
    const NodeId node = node_of(seed / 4 % 4);  // 0 is the primary
    Plan plan = calm(seed);
    plan.f = 1 + seed / 16 % 2;
    plan.setup = [=](World& world) {
      world.at(Micros{2 * kSecond}, [=](World& now) {
        now.kernel().count(node == now.primary() ? "acceptance.jump.primary" : "acceptance.jump.backup");
        now.jump_clock(node, Micros{kOffsets[seed % 4]});
        if (now.nodes() > 4) now.jump_clock(NodeId{5}, Micros{kOffsets[(seed + 1) % 4]});
      });
    };
    Record record;
    const RunResult result = run(plan, record);
    Outcome out(result);
    out.at_most("stall_us", record.stall(Micros{2 * kSecond}, result.virtual_time), 3 * kViewTimeout);
    return out;
  });
  sweep.happened({"acceptance.jump.primary", "acceptance.jump.backup", "event.view-entered"});
}

TEST(Acceptance, CK02_Drift) {
  const Sweep sweep(4, [](std::uint64_t seed) {
    constexpr std::int64_t kEnd = 600 * kSecond;
    const bool all = seed % 2 == 0;
    Plan plan = calm(seed);
    plan.requests = 900;
    plan.gst = Micros{kEnd};
    plan.liveness = false;
    plan.setup = [=](World& world) {
      world.at(Micros{kSecond}, [=](World& now) {
        now.kernel().count(all ? "acceptance.drift.all" : "acceptance.drift.f");
        for (std::uint16_t i = 0; i < now.nodes(); ++i) {
          const std::int64_t sign = (i + seed / 2) % 2 == 0 ? 1 : -1;
          if (all) now.set_drift(NodeId{i}, sign * 20'000);
        }
        if (!all) now.set_drift(node_of(seed / 2 % 4), seed % 4 == 1 ? 100'000 : -100'000);
      });
    };
    Record record;
    const RunResult result = run(plan, record);
    Outcome out(result);
    out.at_most("view_changes_in_10_min", static_cast<std::int64_t>(record.most_changes(Micros{}, Micros{kEnd})), 1);
    out.at_least("answered_percent", static_cast<std::int64_t>(result.answered * 100 / result.submitted), 99);
    return out;
  });
  sweep.happened({"acceptance.drift.all", "acceptance.drift.f"});
}

// A clock goes back by five minutes, or a node stands still for a minute; then a primary dies. No timer takes twice
// its time.
TEST(Acceptance, CK03_JumpBackAndFreeze) {
  const Sweep sweep(32, [](std::uint64_t seed) {
    const bool freeze = seed % 2 == 0;
    const NodeId node = node_of(seed / 2 % 4);
    const std::int64_t after = freeze ? 70 * kSecond : 6 * kSecond;
    Plan plan = calm(seed);
    plan.requests = 300;
    plan.gst = Micros{after + 10 * kSecond};
    plan.end_at_least = Micros{after + 12 * kSecond};
    plan.setup = [=](World& world) {
      world.at(Micros{2 * kSecond}, [=](World& now) {
        now.kernel().count(freeze ? "acceptance.freeze" : "acceptance.jump-back");
        if (freeze) {
          now.pause(node, Micros{60 * kSecond});
        } else {
          now.jump_clock(node, Micros{-300 * kSecond});
        }
      });
      world.at(Micros{after}, [](World& now) {
        const NodeId primary = now.primary();
        now.crash(primary);
        now.after(Micros{5 * kSecond}, [primary](World& later) { later.restart(primary); });
      });
    };
    Record record;
    const RunResult result = run(plan, record);
    Outcome out(result);
    out.at_most("stall_by_the_clock_us", record.stall(Micros{2 * kSecond}, Micros{after}), 3 * kViewTimeout);
    // One view change, or one more when the next primary is the one whose clock is wrong.
    out.at_most("stall_by_the_crash_us", record.stall(Micros{after}, result.virtual_time), 2 * 3 * kViewTimeout);
    return out;
  });
  sweep.happened({"acceptance.freeze", "acceptance.jump-back", "event.view-entered"});
}

}  // namespace zz::sim
