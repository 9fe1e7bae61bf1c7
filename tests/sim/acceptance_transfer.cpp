// Acceptance cases CT-01, CT-02, CT-05, CT-06, CT-08 (in a cluster) and CT-09: checkpoints, and state that travels
// between the slots of a cluster. What one fetcher makes of its sources is acceptance_sources.cpp.

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

// All that a slot is told of state comes so much later: a transfer takes seconds.
Rule slow_state(World& world, std::int64_t least, std::int64_t most) {
  auto prng = std::make_shared<Prng>(world.drawn().gst.value);
  return [prng, least, most](const Parcel& parcel) {
    const bool parts = body_of<StateParts>(parcel) != nullptr && parcel.to.role == crypto::Role::kExecutor;
    return parts ? Micros{between(*prng, least, most)} : Micros{};
  };
}

// Clients reach nobody, so that nothing new is asked for.
void silence_clients(World& world, bool silent) {
  for (std::size_t client = 0; client < world.parties().clients; ++client) {
    for (Party node = 0; node < world.nodes(); ++node) {
      const Party party = world.parties().client(client);
      silent ? world.network().cut(party, node) : world.network().heal(party, node);
    }
  }
}

// The first slot that fetches state now.
std::optional<SlotId> fetching(World& world) {
  for (std::uint16_t i = 0; i < world.parties().slots; ++i) {
    SimHost& host = world.host_at(HostId{i});
    if (host.on_duty() && host.executor().stats().adopted > 0 && !host.all_here()) return SlotId{i};
  }
  return std::nullopt;
}

// No incarnation votes for what its first state covers.
class NoVoteBelow {
 public:
  explicit NoVoteBelow(const Record& record) : record_(record) {}
  void see(const Parcel& parcel) {
    const auto* vote = body_of<Vote>(parcel);
    if (vote == nullptr) return;
    for (const Record::Adopted& one : record_.adopted) {
      const bool its = one.slot == vote->slot && one.incarnation == vote->incarnation;
      if (its && !votes_of_.contains({one.slot, one.incarnation}) && vote->n <= one.n) ++below;
    }
    votes_of_.insert({vote->slot, vote->incarnation});
  }
  std::uint64_t below = 0;

 private:
  const Record& record_;
  std::set<std::pair<SlotId, Incarnation>> votes_of_;
};

}  // namespace

// f nodes sign other digests, and g slots sign other roots. Neither keeps checkpoints from becoming stable.
TEST(Acceptance, CT01_CorruptAndSignedAgain) {
  const Sweep sweep(40, [](std::uint64_t seed) {
    constexpr std::uint64_t kInterval = 8;
    const bool slots = seed % 2 == 0;
    Plan plan = slots_plan(seed, 1 + seed / 2 % 2, {0});
    if (plan.g == 2) plan.byzantine_slots->emplace_back(SlotId{1}, SlotVice::kScripted);
    plan.f = 1 + seed / 4 % 2;
    plan.byzantine_nodes = {{NodeId{3}, "lie-checkpoint"}};
    if (plan.f == 2) plan.byzantine_nodes->emplace_back(NodeId{5}, "lie-checkpoint");
    plan.configure = [](crypto::ClusterFile& cluster) {
      cluster.limits.checkpoint_batches = kInterval;
      cluster.limits.checkpoint_requests = 10'000;
    };
    auto most = std::make_shared<std::uint64_t>();
    plan.setup = [=, g = slots ? plan.g : 0, until = *plan.gst](World& world) {
      Counters* counters = &world.counters();
      for (std::uint16_t slot = 0; slot < g; ++slot) {
        world.at(kIllAt, [=](World& now) {
          SimHost* host = &now.host_at(HostId{slot});
          host->set_tamper([=, first = host->incarnation()](NodeId, Body& body) {
            auto* said = std::get_if<ExecCheckpoint>(&body);
            if (said == nullptr || said->incarnation != first) return true;
            said->root.bytes[7] ^= 1;
            host->sign(*said);
            count(*counters, "acceptance.root-signed-again");
            return true;
          });
        });
      }
      // From when the slot is to be gone, while requests still come.
      every(world, Micros{50 * kMs}, Micros{10 * kSecond}, until, [=](World& now) {
        for (const NodeId node : now.drawn().core) {
          const NodeStatus status = now.status(node);
          *most = std::max(*most, status.delivered.value - status.stable.value);
        }
      });
      world.at(kCalmAt, expect_healthy);
    };
    Record record;
    Outcome out(run(plan, record));
    out.at_most("batches_above_stable", static_cast<std::int64_t>(*most), 2 * kInterval);
    if (slots) out.at_least("evicted", static_cast<std::int64_t>(record.evicted.size()), 1);
    return out;
  });
  sweep.happened({"acceptance.root-signed-again", "byzantine.lie-checkpoint.", "sign.checkpoint", "event.evicted",
                  "event.checkpoint"});
}

// Executors are told nothing until nodes may order no more: requests fill three quarters of the window above the stable
// checkpoint (protocol §5), and a checkpoint's interval of it may be executed.
TEST(Acceptance, CT02_ExecutorsAWindowBehind) {
  const Sweep sweep(30, [](std::uint64_t seed) {
    constexpr std::uint64_t kWindow = 16;
    constexpr std::uint64_t kInterval = 4;
    Plan plan = slots_plan(seed, 1, {});
    plan.clients = 12;
    plan.requests = 1'500;
    plan.configure = [](crypto::ClusterFile& cluster) {
      cluster.limits.window_batches = kWindow;
      cluster.limits.checkpoint_batches = kInterval;
      cluster.limits.batch_requests_max = 1;
    };
    auto longest = std::make_shared<std::uint64_t>();
    plan.setup = [=](World& world) {
      for (const std::int64_t time : {3, 7, 11}) {
        world.at(Micros{time * kSecond}, [=](World& now) {
          const Micros release{now.now().value + 1'200 * kMs};
          const Kernel* kernel = &now.kernel();
          interfere(
              now,
              [=](const Parcel& parcel) {
                if (parcel.to.role != crypto::Role::kExecutor) return Micros{};
                if (body_of<Orders>(parcel) == nullptr && body_of<Batch>(parcel) == nullptr) return Micros{};
                if (seed % 2 == 0 && parcel.to.slot.value == 0) return Micros{};  // the other one only
                return Micros{release.value - kernel->now.value};
              },
              release);
        });
      }
      every(world, Micros{20 * kMs}, Micros{kSecond}, Micros{14 * kSecond}, [=](World& now) {
        for (const SlotId slot : active_slots(now)) {
          const SimHost& host = now.host_at(HostId{slot.value});
          if (!host.on_duty()) continue;
          const std::uint64_t executed = host.executor().executed().value;
          const std::uint64_t ordered = now.status(NodeId{0}).delivered.value;
          *longest = std::max(*longest, ordered - std::min(ordered, executed));
        }
      });
      world.at(kCalmAt, expect_healthy);
    };
    Record record;
    Outcome out(run(plan, record));
    out.at_least("batches_behind", static_cast<std::int64_t>(*longest), kWindow * 3 / 4 - kInterval);
    const auto disputes = std::count_if(record.signs.begin(), record.signs.end(),
                                        [](const Record::Sign& sign) { return sign.why == "checkpoint"; });
    out.at_most("disputed_roots", disputes, 0);
    return out;
  });
  sweep.happened({"event.checkpoint", "message.EXEC-CHECKPOINT"});
}

// Slots come back again and again, while f nodes tell them of other orders, certificates and states, and g slots give
// other parts. What each begins with is what 2f+1 nodes signed, and what it runs is what f+1 say (I2, I6, I16).
TEST(Acceptance, CT05_SourcesThatDisagree) {
  const Sweep sweep(40, [](std::uint64_t seed) {
    Plan plan = slots_plan(seed, 2, {1});
    plan.f = 1 + seed % 2;
    plan.byzantine_slots = {{SlotId{1}, SlotVice::kTwoFaced}};
    static constexpr std::array<std::string_view, 4> kKinds = {"lie-checkpoint", "mutate", "forge", "mixed"};
    plan.byzantine_nodes = {{NodeId{2}, std::string(kKinds[seed / 2 % 4])}};
    if (plan.f == 2) plan.byzantine_nodes->emplace_back(NodeId{5}, std::string(kKinds[seed / 8 % 4]));
    Record record;
    NoVoteBelow votes(record);
    record.on_sent = [&](Micros, const Parcel& parcel) { votes.see(parcel); };
    plan.setup = [](World& world) {
      for (const std::int64_t time : {3, 5, 7, 9, 11, 13, 15}) {
        world.at(Micros{time * kSecond}, [](World& now) {
          for (const SlotId slot : active_slots(now)) {
            if (!now.may_lose(slot)) continue;
            now.kernel().count("acceptance.guest-lost");
            return now.kill_guest(slot);
          }
        });
      }
    };
    Outcome out(run(plan, record));
    out.at_most("votes_below_the_base", static_cast<std::int64_t>(votes.below), 0);
    return out;
  });
  sweep.happened({"acceptance.guest-lost", "slot.adopted", "byzantine.lie-checkpoint.", "byzantine.mutate.",
                  "byzantine.forge.", "byzantine-slot.wrong-state"});
}

// A node tells every slot that begins of an old certificate first, and of no other; the others are late.
TEST(Acceptance, CT06_OldCertificateFirst) {
  const Sweep sweep(40, [](std::uint64_t seed) {
    Plan plan = slots_plan(seed, 1, {0});
    plan.configure = [](crypto::ClusterFile& cluster) { cluster.limits.checkpoint_batches = 4; };
    plan.byzantine_nodes = {{NodeId{3}, "unfair"}};  // unless it is the primary, correct code
    CertificatePtr old;
    Record record;
    NoVoteBelow votes(record);
    record.on_sent = [&](Micros, const Parcel& parcel) {
      votes.see(parcel);
      const auto* stable = body_of<Stable>(parcel);
      if (stable != nullptr && !old && parcel.from.role == crypto::Role::kNode) old = stable->certificate;
    };
    plan.setup = [&](World& world) {
      interfere(
          world,
          [&](const Parcel& parcel) {
            const auto* stable = body_of<Stable>(parcel);
            if (stable == nullptr || parcel.to.role != crypto::Role::kExecutor) return Micros{};
            if (parcel.from.node() != NodeId{3}) return Micros{400 * kMs};
            return stable->certificate == old ? Micros{} : kLost;
          },
          *plan.gst);
      world.at(Micros{6 * kSecond}, [](World& now) { fall_ill(now, SlotId{0}, Ill::kCrashed); });
      every(world, Micros{20 * kMs}, Micros{6 * kSecond}, Micros{10 * kSecond}, [&](World& now) {
        if (!old) return;
        const auto message = std::make_shared<const Message>(Message{ServiceId{0}, Stable{old}});
        for (std::uint16_t i = 0; i < now.parties().slots; ++i) {
          now.network().send(3, now.parties().slot(i), message);
        }
      });
      world.at(kCalmAt, expect_healthy);
    };
    Outcome out(run(plan, record));
    out.at_most("votes_below_the_base", static_cast<std::int64_t>(votes.below), 0);
    const bool began = old && std::any_of(record.adopted.begin(), record.adopted.end(),
                                          [&](const Record::Adopted& one) { return one.n == old->state.n; });
    if (began) out.count("acceptance.began-with-the-old-one");
    const bool went_on = old && std::any_of(record.adopted.begin(), record.adopted.end(),
                                            [&](const Record::Adopted& one) { return one.n > old->state.n; });
    if (began && went_on) out.count("acceptance.went-on-with-a-newer-one");
    return out;
  });
  sweep.happened({"acceptance.began-with-the-old-one", "acceptance.went-on-with-a-newer-one", "slot.adopted"});
}

// While state is under way: checkpoints become stable, the primary dies, the guest dies.
TEST(Acceptance, CT08_ChangesDuringATransfer) {
  const Sweep sweep(60, [](std::uint64_t seed) {
    Plan plan = slots_plan(seed, 1, {0});
    plan.requests = 400;
    plan.configure = [](crypto::ClusterFile& cluster) { cluster.limits.checkpoint_batches = 4; };
    Record record;
    auto begun_at = std::make_shared<Seq>();
    plan.setup = [=](World& world) {
      interfere(world, slow_state(world, 50 * kMs, 700 * kMs), Micros{14 * kSecond});
      world.at(kIllAt, [](World& now) { fall_ill(now, SlotId{0}, Ill::kCrashed); });
      auto done = std::make_shared<bool>();
      every(world, Micros{10 * kMs}, kIllAt, Micros{14 * kSecond}, [=](World& now) {
        const std::optional<SlotId> slot = fetching(now);
        if (!slot) return;
        if (begun_at->value == 0) *begun_at = now.status(NodeId{1}).stable;
        if (begun_at->value < now.status(NodeId{1}).stable.value) {
          now.kernel().count("acceptance.newer-checkpoint-during-a-transfer");
        }
        Prng prng(seed + static_cast<std::uint64_t>(now.now().value));
        if (*done || prng.below(30) != 0) return;
        *done = true;
        if (seed % 2 == 0) {
          const NodeId primary = now.primary();
          now.kernel().count("acceptance.primary-died-during-a-transfer");
          now.crash(primary);
          now.after(Micros{4 * kSecond}, [primary](World& later) { later.restart(primary); });
        } else if (slot == SlotId{0}) {
          now.kernel().count("acceptance.fetcher-died");
          now.kill_guest(SlotId{0});
        }
      });
      world.at(kCalmAt, expect_healthy);
    };
    return Outcome(run(plan, record));
  });
  sweep.happened({"acceptance.newer-checkpoint-during-a-transfer", "acceptance.primary-died-during-a-transfer",
                  "slot.state-whole"});
}

// Nothing is asked for, and the primary dies while state is under way.
TEST(Acceptance, CT09_TransferWithoutAPrimary) {
  const Sweep sweep(40, [](std::uint64_t seed) {
    constexpr Micros kQuietFrom{2'500 * kMs};
    constexpr Micros kEnd{17 * kSecond};
    Plan plan = slots_plan(seed, 1, {0});
    plan.configure = [](crypto::ClusterFile& cluster) { cluster.limits.checkpoint_batches = 4; };
    auto dead = std::make_shared<std::optional<NodeId>>();
    plan.setup = [=](World& world) {
      interfere(world, slow_state(world, 100 * kMs, 500 * kMs), kEnd);
      world.at(kQuietFrom, [](World& now) { silence_clients(now, true); });
      world.at(kIllAt, [](World& now) { fall_ill(now, SlotId{0}, Ill::kCrashed); });
      every(world, Micros{10 * kMs}, kIllAt, Micros{10 * kSecond}, [=](World& now) {
        if (*dead || !fetching(now)) return;
        *dead = now.primary();
        now.kernel().count("acceptance.primary-died-during-a-transfer");
        now.crash(**dead);
      });
      world.at(kEnd, [=](World& now) {
        if (!*dead) return;
        Seq stable;
        for (std::uint16_t i = 0; i < now.nodes(); ++i) {
          if (NodeId{i} != **dead) stable = std::max(stable, now.status(NodeId{i}).stable);
        }
        for (std::uint16_t i = 0; i < now.parties().slots; ++i) {
          const SimHost& host = now.host_at(HostId{i});
          if (!host.on_duty()) continue;
          if (!host.all_here() || host.executor().executed() < stable) {
            now.fail("slot " + std::to_string(i) + " has not the last stable checkpoint's state");
          }
        }
        now.restart(**dead);
        silence_clients(now, false);
      });
      world.at(kCalmAt, expect_healthy);
    };
    return outcome_of(plan);
  });
  sweep.happened({"acceptance.primary-died-during-a-transfer", "slot.state-whole"});
}

}  // namespace zz::sim
