// Acceptance cases CG-01 to CG-04: what clients can do to the cluster, and to one another. The witness checks that
// every request is its client's, in its window and executed once (I3 to I5), also of hostile clients.

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <set>

#include "agreement/messages.hpp"
#include "tests/sim/acceptance_slots.hpp"

namespace zz::sim {

namespace {

using namespace agreement;

constexpr std::int64_t kEnd = 20 * kSecond;
constexpr Micros kFrom{4 * kSecond};  // when the attack begins

// A client that says what the case wants, under the name of the simulator's own hostile one.
class Attacker {
 public:
  using Voice = std::shared_ptr<bool>;  // it speaks now
  Attacker(World& world, Voice voice)
      : world_(world), party_(static_cast<Party>(world.parties().count() - 1)), voice_(std::move(voice)) {}
  // What the simulator's hostile clients would say is lost.
  static void hush_others(World& world, const Voice& voice) {
    const std::uint32_t correct = world.drawn().clients;
    interfere(
        world,
        [voice, correct](const Parcel& parcel) {
          const bool hostile = parcel.from.role == crypto::Role::kClient && parcel.from.index >= correct;
          return hostile && !*voice ? kLost : Micros{};
        },
        Micros{kEnd + kSecond});
  }

  void send(Party node, SessionId session, std::uint64_t number, std::string_view op) {
    Requests requests{session, {}};
    requests.items.push_back({RequestNumber{number}, 0, SharedBytes::copy(op)});
    send(node, std::make_shared<const Message>(Message{ServiceId{0}, std::move(requests)}));
  }
  void send(Party node, const MessagePtr& message) {
    *voice_ = true;
    world_.network().send(party_, node, message);
    *voice_ = false;
  }
  void send_all(SessionId session, std::uint64_t number, std::string_view op) {
    Requests requests{session, {}};
    requests.items.push_back({RequestNumber{number}, 0, SharedBytes::copy(op)});
    const auto message = std::make_shared<const Message>(Message{ServiceId{0}, std::move(requests)});
    for (Party node = 0; node < world_.nodes(); ++node) send(node, message);
  }

 private:
  World& world_;
  Party party_;
  Voice voice_;
};

// 100 requests a second of four clients, and a hostile one more. Without it, when `attacks` is empty.
Plan attacked(std::uint64_t seed, const std::function<void(World&, const Attacker::Voice&)>& attacks) {
  Plan plan = busy(seed, kEnd, 100);
  if (attacks) plan.faults = {Fault::kHostileClient};
  plan.setup = [attacks](World& world) {
    fast_network(world);
    if (!attacks) return;
    const auto voice = std::make_shared<bool>(false);
    Attacker::hush_others(world, voice);
    attacks(world, voice);
  };
  return plan;
}

// What the others are left with, in per cent of what they have without the attack.
std::int64_t rate_percent(const Record& under_attack, const Record& free) {
  const auto base = static_cast<std::int64_t>(free.accepted(kFrom, Micros{kEnd}));
  return static_cast<std::int64_t>(under_attack.accepted(kFrom, Micros{kEnd})) * 100 / std::max<std::int64_t>(base, 1);
}

void expect_nobody_woken(Outcome& out, const Record& record) {
  out.at_most("wake_ups", static_cast<std::int64_t>(record.woken.size()), 0);
  out.at_most("evicted", static_cast<std::int64_t>(record.evicted.size()), 0);
}

void expect_unmoved(Outcome& out, const Record& record) {
  out.at_most("view_changes", static_cast<std::int64_t>(record.left.size()), 0);
  expect_nobody_woken(out, record);
}

// Which of an attacker's requests f+1 nodes have answered.
class Answers {
 public:
  void see(const Parcel& parcel) {
    const auto* acks = body_of<Acks>(parcel);
    if (acks == nullptr || parcel.to.role != crypto::Role::kClient) return;
    ++messages[parcel.to.client()];
    for (const auto& item : acks->items) by_[{acks->session, item.number}].insert(parcel.from.node());
  }
  [[nodiscard]] bool answered(SessionId session, std::uint64_t number, std::uint32_t f) const {
    const auto found = by_.find({session, RequestNumber{number}});
    return found != by_.end() && found->second.size() > f;
  }
  std::map<ClientId, std::uint64_t> messages;

 private:
  std::map<std::pair<SessionId, RequestNumber>, std::set<NodeId>> by_;
};

}  // namespace

// Channels authenticate, so there are no requests that are signed well for some only; there are other bodies under one
// number, and requests that some nodes do not get.
TEST(Acceptance, CG01_RequestsForSomeReplicasOnly) {
  const Sweep sweep(12, [](std::uint64_t seed) {
    Outcome out;
    Record free;
    out.add(run(attacked(seed, nullptr), free));
    Record record;
    auto next = std::make_shared<std::uint64_t>(1);
    out.add(run(attacked(seed,
                         [=](World& world, const Attacker::Voice& voice) {
                           every(world, Micros{20 * kMs}, kFrom, Micros{kEnd}, [=](World& now) {
                             Attacker attacker(now, voice);
                             const std::uint64_t way = seed % 3;
                             const SessionId session{1'000 + *next / 8};
                             const std::uint64_t number = 1 + *next % 8;
                             for (Party node = 0; node < now.nodes(); ++node) {
                               if (way == 0 && node % 2 == 0) continue;          // to some
                               if (way == 1 && node != *next / 3 % 4) continue;  // to one
                               const std::string op = "put x " + std::to_string(way == 2 ? node : 0);
                               attacker.send(node, session, number, op);
                             }
                             now.kernel().count("acceptance.way." + std::to_string(way));
                             ++*next;
                           });
                         }),
                record));
    expect_nobody_woken(out, record);
    // By then everybody knows that the client is unproven, or the primary hears it (docs/decisions/0013).
    out.at_most("view_changes_of_way_" + std::to_string(seed % 3),
                static_cast<std::int64_t>(record.most_changes(Micros{}, Micros{kEnd})), 1);
    out.at_least("rate_percent", rate_percent(record, free), 80);
    return out;
  });
  sweep.happened({"acceptance.way.0", "acceptance.way.1", "acceptance.way.2"});
}

TEST(Acceptance, CG02_RequestNumbers) {
  const Sweep sweep(20, [](std::uint64_t seed) {
    Outcome out;
    Answers answers;
    Record record;
    record.on_sent = [&](Micros, const Parcel& parcel) { answers.see(parcel); };
    constexpr SessionId kOne{7'001};
    constexpr SessionId kOther{7'002};  // of the same key
    auto sent = std::make_shared<std::uint64_t>(0);
    Plan plan = attacked(seed, [=](World& world, const Attacker::Voice& voice) {
      auto prng = std::make_shared<Prng>(seed);
      every(world, Micros{25 * kMs}, kFrom, Micros{kEnd - 2 * kSecond}, [=](World& now) {
        Attacker attacker(now, voice);
        const std::uint64_t next = ++*sent;
        attacker.send_all(kOne, next, "add mine 1");
        attacker.send_all(kOther, next, "add mine 1");
        const auto odd = [&](std::string_view what, std::uint64_t number) {
          now.kernel().count("acceptance.number." + std::string(what));
          attacker.send_all(chance(*prng, 50) ? kOne : kOther, number, "add odd 1");
        };
        switch (prng->below(6)) {
          case 0:
            odd("zero", 0);
            break;
          case 1:
            odd("last", std::numeric_limits<std::uint64_t>::max());
            break;
          case 2:
            odd("again", 1 + prng->below(next));  // with another operation
            break;
          case 3:
            odd("gap", next + 17 + prng->below(30));  // beyond the window
            break;
          case 4:
            odd("far", next + (std::uint64_t{1} << (8 + prng->below(50))));
            break;
          default:
            odd("old", std::max<std::uint64_t>(next, 60) - 59);
            break;
        }
      });
    });
    out.add(run(std::move(plan), record));
    std::int64_t usable = 0;
    for (std::uint64_t number = 1; number <= *sent; ++number) {
      usable += answers.answered(kOne, number, 1) ? 1 : 0;
      usable += answers.answered(kOther, number, 1) ? 1 : 0;
    }
    out.at_least("usable_percent", usable * 100 / static_cast<std::int64_t>(2 * *sent), 100);
    expect_unmoved(out, record);
    return out;
  });
  sweep.happened({"acceptance.number.zero", "acceptance.number.last", "acceptance.number.again",
                  "acceptance.number.gap", "acceptance.number.far", "acceptance.number.old"});
}

// Ten thousand a second to every node, of requests that are answered and of one that is not there yet.
TEST(Acceptance, CG03_StormOfRetransmissions) {
  const Sweep sweep(4, [](std::uint64_t seed) {
    Outcome out;
    Record free;
    out.add(run(attacked(seed, nullptr), free));
    Answers answers;
    Record record;
    record.on_sent = [&](Micros, const Parcel& parcel) { answers.see(parcel); };
    auto storm = std::make_shared<std::int64_t>(0);
    auto attacker_is = std::make_shared<ClientId>();
    out.add(run(attacked(seed,
                         [=](World& world, const Attacker::Voice& voice) {
                           *attacker_is = ClientId{static_cast<std::uint32_t>(world.parties().clients - 1)};
                           every(world, Micros{kMs}, kFrom, Micros{kEnd - kSecond}, [=](World& now) {
                             Attacker attacker(now, voice);
                             for (int i = 0; i < 10; ++i) {
                               attacker.send_all(SessionId{7'001}, 1 + static_cast<std::uint64_t>(i % 3), "add s 1");
                               ++*storm;
                             }
                           });
                         }),
                record));
    expect_unmoved(out, record);
    out.at_least("rate_percent", rate_percent(record, free), 50);
    out.count("acceptance.storm", static_cast<std::uint64_t>(*storm));
    // One word per request, node and turn at most, so never more than there were questions.
    out.at_most("answers_per_question_percent",
                static_cast<std::int64_t>(answers.messages[*attacker_is]) * 100 / (4 * *storm), 100);
    return out;
  });
  sweep.happened({"acceptance.storm"});
}

// Ten thousand clients, each with a key of its own, ask once and stay.
TEST(Acceptance, CG04_TenThousandIdleClients) {
  const Sweep sweep(1, [](std::uint64_t seed) {
    constexpr std::uint32_t kClients = 20'500;  // one half begins within the time
    Plan plan = calm(seed);
    plan.clients = kClients;
    plan.requests = kClients;
    plan.gst = Micros{60 * kSecond};
    plan.liveness = false;
    plan.setup = [](World& world) {
      fast_network(world);
      world.at(Micros{60 * kSecond - 1}, [](World& now) {
        std::set<std::size_t> sizes;
        std::set<std::uint64_t> executed;
        for (const SlotId slot : active_slots(now)) {
          const SimHost& host = now.host_at(HostId{slot.value});
          sizes.insert(host.executor().sessions().sessions());
          executed.insert(host.executor().executed().value);
        }
        if (sizes.size() != 1 || *sizes.begin() > now.drawn().cluster.limits.sessions_max) {
          now.fail("the session tables are of other sizes");
        }
        if (executed.size() == 1) now.kernel().count("acceptance.same-place");
      });
    };
    Record record;
    const RunResult result = run(plan, record);
    Outcome out(result);
    out.at_least("clients_that_asked", static_cast<std::int64_t>(result.submitted), 10'000);
    out.at_least("answered_percent", static_cast<std::int64_t>(result.answered * 100 / result.submitted), 99);
    expect_unmoved(out, record);
    // That the same ones were evicted everywhere is in the roots (I19), and against the reference run (I13).
    out.at_least("checkpoints", static_cast<std::int64_t>(result.counters.at("event.checkpoint")), 10);
    return out;
  });
  sweep.happened({"acceptance.same-place"});
}

}  // namespace zz::sim
