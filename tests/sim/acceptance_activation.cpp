// Acceptance cases EX-10 and EX-13 to EX-17: who is awake, when, and for how long.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>

#include "agreement/messages.hpp"
#include "tests/sim/acceptance_slots.hpp"

namespace zz::sim {

namespace {

using namespace agreement;

constexpr std::int64_t kHour = 3'600 * kSecond;

// What an executor says of a batch leaves it later, in order.
class LateVotes {
 public:
  using Delay = std::function<std::int64_t(Seq n, SlotId slot)>;
  LateVotes(World& world, Delay delay) : kernel_(world.kernel()), delay_(std::move(delay)) {}

  Micros operator()(const Parcel& parcel) {
    const auto* vote = body_of<Vote>(parcel);
    if (vote == nullptr) return {};
    std::int64_t& last = last_[{parcel.from.slot, parcel.to.node()}];
    last = std::max(last + 1, kernel_.now.value + delay_(vote->n, vote->slot));
    kernel_.count("acceptance.late-vote");
    return Micros{last - kernel_.now.value};
  }

 private:
  Kernel& kernel_;
  Delay delay_;
  std::map<std::pair<SlotId, NodeId>, std::int64_t> last_;
};

// Of a batch, the same wherever it is executed: the 95th percentile is nine tenths of the time-out, and none exceeds it
// with what the network adds.
std::int64_t service_time(Seq n) {
  Prng prng(n.value * 0x9e3779b97f4a7c15ULL);
  return prng.below(100) < 95 ? between(prng, 200 * kMs, kExecutionTimeout * 9 / 10)
                              : between(prng, kExecutionTimeout * 9 / 10, kExecutionTimeout * 95 / 100);
}

}  // namespace

// A virtual hour; a request every five seconds. Either the service is slow, on all replicas alike, or one replica is,
// which costs two wake-ups at most, and then its place: it is late (docs/decisions/0021).
TEST(Acceptance, EX10_ServiceAtTheEdgeOfTheTimeout) {
  const Sweep sweep(6, [](std::uint64_t seed) {
    const bool one = seed % 2 == 0;
    const auto slow = static_cast<std::uint16_t>(seed / 2 % 2);
    Plan plan = calm(seed);
    plan.clients = 2;
    plan.requests = 720;
    plan.gst = Micros{kHour};
    plan.liveness = false;
    plan.setup = [=](World& world) {
      fast_network(world);
      world.at(Micros{kSecond}, [=](World& now) {
        now.kernel().count(one ? "acceptance.slow-replica" : "acceptance.slow-service");
        interfere(now,
                  LateVotes(now,
                            [=](Seq n, SlotId slot) {
                              return one && slot != SlotId{slow} ? std::int64_t{0} : service_time(n);
                            }),
                  Micros{kHour});
      });
    };
    Record record;
    Outcome out(run(plan, record));
    out.at_most(one ? "false_wake_ups_an_hour_of_one" : "false_wake_ups_an_hour_of_all",
                static_cast<std::int64_t>(record.episodes()), one ? 2 : 1);
    out.at_most("false_evictions", static_cast<std::int64_t>(record.evicted.size()), 1);
    return out;
  });
  sweep.happened({"acceptance.slow-replica", "acceptance.slow-service", "acceptance.late-vote"});
}

// 24 virtual hours without a fault, a request every ten seconds. With even seeds clocks drift and channels break.
TEST(Acceptance, EX10_DayWithoutFaults) {
  const Sweep sweep(1, [](std::uint64_t seed) {
    Plan plan = calm(seed);
    plan.faults = {Fault::kDrift, Fault::kReset};
    if (seed % 2 == 1) plan.faults->clear();
    plan.clients = 2;
    plan.requests = 8'640;
    plan.gst = Micros{24 * kHour};
    plan.liveness = false;
    plan.setup = [](World& world) {
      world.at(Micros{24 * kHour - kSecond}, [](World& now) {
        expect_healthy(now);
        now.kernel().count("acceptance.day");
      });
    };
    Record record;
    const RunResult result = run(plan, record);
    Outcome out(result);
    out.at_most("wake_ups", static_cast<std::int64_t>(record.woken.size()), 0);
    out.at_most("evictions", static_cast<std::int64_t>(record.evicted.size()), 0);
    out.at_most("signs", static_cast<std::int64_t>(record.signs.size()), 0);
    out.at_least("answered", static_cast<std::int64_t>(result.answered), 8'000);
    return out;
  });
  sweep.happened({"acceptance.day"});
}

// The service answers with its clock, a random number or an address (each replica another thing, always), by the order
// of a map (every second request), or by the time of its threads (one request in five). Where replicas that agree by
// chance convict others, what stops the loop is quarantine (docs/decisions/0021).
TEST(Acceptance, EX13_ServiceThatIsNotDeterministic) {
  const Sweep sweep(40, [](std::uint64_t seed) {
    static constexpr std::uint64_t kPercent[] = {100, 50, 20};
    const std::uint64_t percent = kPercent[seed % 3];
    const std::uint32_t g = 1 + seed / 3 % 2;
    Plan plan = calm(seed);
    plan.g = g;
    plan.requests = 200;
    plan.gst = Micros{25 * kSecond};
    plan.configure = usual_quarantine;
    plan.liveness = false;
    plan.beyond_bound = true;  // no replica is right
    plan.byzantine_slots.emplace();
    for (std::uint16_t slot = 0; slot < 2 * g + 1; ++slot) {
      plan.byzantine_slots->emplace_back(SlotId{slot}, SlotVice::kScripted);
    }
    plan.setup = [=](World& world) {
      Counters* counters = &world.counters();
      for (std::uint16_t slot = 0; slot < 2 * g + 1; ++slot) {
        world.host_at(HostId{slot}).set_tamper([=](NodeId, Body& body) {
          auto* vote = std::get_if<Vote>(&body);
          if (vote == nullptr) return true;
          for (std::size_t i = 0; i < vote->replies.size(); ++i) {
            // A life says the same of a batch whenever it is asked.
            Prng prng(seed ^ vote->n.value << 20 ^ vote->incarnation.value << 10 ^ i << 5 ^ slot);
            prng.next();
            if (!chance(prng, percent)) continue;
            vote->replies[i].bytes[0] = static_cast<std::uint8_t>(prng.next());
            vote->replies[i].bytes[1] = static_cast<std::uint8_t>(prng.next());
            count(*counters, "acceptance.other-reply");
          }
          return true;
        });
      }
    };
    Record record;
    Outcome out(run(plan, record));
    const std::string name = "_of_" + std::to_string(percent);
    out.at_most("wake_ups" + name, static_cast<std::int64_t>(record.episodes()), percent == 100 ? 3 : 2 * g + 1);
    out.at_least("alarms" + name, static_cast<std::int64_t>(record.alarms.size()), plan.f + 1);
    return out;
  });
  sweep.happened({"acceptance.other-reply", "event.not-deterministic"});
}

// A fault, a second one, checkpoints every few batches and a view change, within the same half second.
TEST(Acceptance, EX14_WakeUpAmongOtherChanges) {
  const Sweep sweep(60, [](std::uint64_t seed) {
    const std::uint32_t g = 1 + seed % 2;
    Plan plan = slots_plan(seed, g, {0});
    if (g == 2) plan.byzantine_slots->emplace_back(SlotId{1}, SlotVice::kScripted);
    plan.configure = [](crypto::ClusterFile& cluster) { cluster.limits.checkpoint_batches = 2; };
    std::map<Epoch, std::set<std::vector<SlotId>>> tables;  // of correct nodes: all
    Record record;
    record.on_sent = [&](Micros, const Parcel& parcel) {
      if (const auto* notice = body_of<EpochNotice>(parcel)) tables[notice->epoch].insert(notice->active);
    };
    plan.setup = [=](World& world) {
      Prng prng(seed);
      const auto soon = [&prng] { return Micros{kIllAt.value + between(prng, 0, 500 * kMs)}; };
      const Ill one = kIlls[prng.below(kIlls.size())];
      const Ill other = kIlls[prng.below(kIlls.size())];
      world.at(soon(), [one](World& now) { fall_ill(now, SlotId{0}, one); });
      world.at(soon(), [=](World& now) { fall_ill(now, SlotId{static_cast<std::uint16_t>(g - 1)}, other); });
      world.at(soon(), [](World& now) {
        const NodeId primary = now.primary();
        now.crash(primary);
        now.after(Micros{3 * kSecond}, [primary](World& later) { later.restart(primary); });
      });
      world.at(kCalmAt, expect_healthy);
    };
    Outcome out(run(plan, record));
    for (const auto& [epoch, sets] : tables) {
      if (sets.size() > 1) out.fail("epoch " + std::to_string(epoch.value) + " has two sets of active slots");
    }
    // A host has one guest, and it is thawed once.
    std::set<std::pair<SlotId, Incarnation>> thawed;
    for (const Record::Woken& one : record.woken) {
      if (!thawed.insert({one.slot, one.incarnation}).second) out.fail("a guest was thawed twice");
    }
    out.count("acceptance.epochs", tables.size());
    const bool meanwhile = std::any_of(record.entered.begin(), record.entered.end(), [&](const Record::ViewEvent& one) {
      return !record.woken.empty() && one.at > kIllAt && one.at < Micros{kIllAt.value + 2 * kSecond};
    });
    if (meanwhile) out.count("acceptance.view-change-meanwhile");
    return out;
  });
  sweep.happened({"acceptance.view-change-meanwhile", "event.evicted", "event.checkpoint", "event.view-entered"});
}

// A slot's votes come 300 ms late for a while: somebody is woken for it, and sent back to sleep while requests are
// under way.
TEST(Acceptance, EX15_BackToSleepUnderLoad) {
  const Sweep sweep(8, [](std::uint64_t seed) {
    constexpr std::int64_t kEnd = 16 * kSecond;
    constexpr Micros kBack{kIllAt.value + 600 * kMs};
    const auto slot = static_cast<std::uint16_t>(seed % 2);
    std::int64_t p99[2] = {};
    Outcome out;
    for (const bool breaks : {false, true}) {
      Plan plan = busy(seed, kEnd, 100);
      plan.liveness = true;
      plan.end_at_least = Micros{kEnd + 4 * kSecond};
      plan.setup = [=](World& world) {
        fast_network(world);
        world.at(Micros{kEnd + 3 * kSecond}, expect_healthy);
        if (!breaks) return;
        world.at(kIllAt, [slot](World& now) {
          interfere(now,
                    LateVotes(now, [slot](Seq, SlotId of) { return of == SlotId{slot} ? 300 * kMs : std::int64_t{0}; }),
                    kBack);
        });
      };
      Record record;
      const RunResult result = run(plan, record);
      out.add(result);
      if (result.answered != result.submitted) out.fail("a request was not answered");
      p99[breaks ? 1 : 0] = percentile(record.latencies(Micros{kBack.value + 600 * kMs}, Micros{kEnd}), 99);
      if (!breaks) continue;
      out.at_least("woken", static_cast<std::int64_t>(record.woken.size()), 1);
      out.at_most("evicted", static_cast<std::int64_t>(record.evicted.size()), 0);
    }
    out.at_most("p99_percent", p99[1] * 100 / std::max<std::int64_t>(p99[0], 1), 500);
    return out;
  });
  sweep.happened({"acceptance.late-vote", "sign.overdue", "event.epoch-changed"});
}

// It votes as it should, and says nothing of the state.
TEST(Acceptance, EX16_CheckpointsStop) {
  const Sweep sweep(30, [](std::uint64_t seed) {
    constexpr std::uint64_t kWindow = 32;
    constexpr std::uint64_t kInterval = 8;
    const auto slot = static_cast<std::uint16_t>(seed % 2);
    Plan plan = slots_plan(seed, 1, {slot});
    plan.requests = 500;
    plan.configure = [](crypto::ClusterFile& cluster) {
      cluster.limits.checkpoint_batches = kInterval;
      cluster.limits.checkpoint_requests = 10'000;
    };
    auto silent = std::make_shared<Incarnation>();
    auto from = std::make_shared<Seq>();
    auto longest = std::make_shared<std::uint64_t>();
    auto woken_at = std::make_shared<Seq>();
    Record record;
    plan.setup = [=, &record](World& world) {
      world.at(kIllAt, [=](World& now) {
        SimHost& host = now.host_at(HostId{slot});
        *silent = host.incarnation();
        *from = now.status(NodeId{0}).delivered;
        Counters* counters = &now.counters();
        host.set_tamper([=](NodeId, Body& body) {
          const auto* said = std::get_if<ExecCheckpoint>(&body);
          if (said == nullptr || said->incarnation != *silent) return true;
          count(*counters, "acceptance.unsaid-checkpoint");
          return false;
        });
      });
      every(world, Micros{10 * kMs}, kIllAt, kCalmAt, [=, &record](World& now) {
        const NodeStatus status = now.status(NodeId{0});
        *longest = std::max(*longest, status.delivered.value - status.stable.value);
        if (woken_at->value == 0 && !record.woken.empty()) *woken_at = status.delivered;
      });
      world.at(kCalmAt, expect_healthy);
    };
    Outcome out(run(plan, record));
    out.at_most("batches_above_stable", static_cast<std::int64_t>(*longest), 2 * kWindow);
    out.at_least("woken", static_cast<std::int64_t>(record.woken.size()), 1);
    out.at_most("checkpoints_until_woken", static_cast<std::int64_t>((woken_at->value - from->value) / kInterval),
                kWindow / kInterval + 1);
    return out;
  });
  sweep.happened({"acceptance.unsaid-checkpoint", "sign.checkpoint", "event.evicted"});
}

// A hundred requests and more come at once, and one slot is wrong about each.
TEST(Acceptance, EX17_HundredMismatchesAtOnce) {
  const Sweep sweep(20, [](std::uint64_t seed) {
    const auto slot = static_cast<std::uint16_t>(seed % 2);
    Plan plan = slots_plan(seed, 1, {slot});
    plan.clients = 120;
    plan.requests = 2'400;
    std::set<std::pair<Seq, std::size_t>> wrong;
    auto first = std::make_shared<Incarnation>();
    plan.setup = [&, slot, first](World& world) {
      const auto all_clients = [](World& now, bool cut) {
        for (std::size_t client = 0; client < now.parties().clients; ++client) {
          for (Party node = 0; node < now.nodes(); ++node) {
            const Party party = now.parties().client(client);
            cut ? now.network().cut(party, node) : now.network().heal(party, node);
          }
        }
      };
      world.at(Micros{kSecond}, [=](World& now) { all_clients(now, true); });
      world.at(kIllAt, [&, all_clients, slot, first](World& now) {
        all_clients(now, false);
        *first = now.host_at(HostId{slot}).incarnation();
        const Kernel* kernel = &now.kernel();
        now.host_at(HostId{slot}).set_tamper([&wrong, first, kernel](NodeId, Body& body) {
          auto* vote = std::get_if<Vote>(&body);
          if (vote == nullptr || vote->incarnation != *first) return true;
          for (std::size_t i = 0; i < vote->replies.size(); ++i) {
            vote->replies[i].bytes[0] ^= 1;
            if (kernel->now.value < kIllAt.value + kSecond) wrong.insert({vote->n, i});
          }
          return true;
        });
      });
      world.at(kCalmAt, expect_healthy);
    };
    Record record;
    Outcome out(run(plan, record));
    out.at_least("mismatches", static_cast<std::int64_t>(wrong.size()), 100);
    out.at_least("woken", static_cast<std::int64_t>(record.woken.size()), 1);
    out.at_most("episodes", static_cast<std::int64_t>(record.episodes()), 1);
    out.at_most("evicted", static_cast<std::int64_t>(record.evicted.size()), 1);
    return out;
  });
  sweep.happened({"sign.mismatch", "event.evicted"});
}

}  // namespace zz::sim
