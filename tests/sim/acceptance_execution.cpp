// Acceptance cases EX-01 to EX-09, EX-11 and EX-12: what faulty slots, nodes and clients can do to execution. The
// witness checks every reply against the reference run (I13, I14) and every wake-up and eviction for its cause (I21 to
// I26).

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>

#include "agreement/messages.hpp"
#include "tests/sim/acceptance_slots.hpp"
#include "tests/sim/draw.hpp"

namespace zz::sim {

namespace {

using namespace agreement;

// A resume takes 40 ms at most, and what is replayed in these runs is less than a second's.
constexpr std::int64_t kCatchUp = kSecond;

void flip(std::vector<Digest>& digests) {
  for (Digest& digest : digests) digest.bytes[0] ^= 1;
}

// The headers of what was ordered, for who changes a message about a batch.
struct OrderedHeaders {
  std::map<Seq, HeaderPtr> by_n;
  void watch(Record& record) {
    record.on_delivered = [this](NodeId, const Delivery& delivery) {
      by_n.emplace(delivery.header->n, delivery.header);
    };
  }
  [[nodiscard]] bool is_of(Seq n, std::size_t index, ClientId client) const {
    const auto found = by_n.find(n);
    return found != by_n.end() && index < found->second->references.size() &&
           found->second->references[index].client == client;
  }
};

std::int64_t first_wake(const Record& record, Micros since) {
  const auto found =
      std::find_if(record.woken.begin(), record.woken.end(), [since](const auto& one) { return one.at >= since; });
  return found == record.woken.end() ? -1 : found->at.value - since.value;
}

void expect_woken_for(Outcome& out, const Record& record, std::int64_t bound, Micros ill_at = kIllAt) {
  const std::int64_t took = first_wake(record, ill_at);
  out.at_least("wake_us", took, 0);
  out.at_most("wake_us", took, bound);
  out.at_most("episodes", static_cast<std::int64_t>(record.episodes()), 1);
}

void healthy_at_the_end(World& world) { world.at(kCalmAt, expect_healthy); }

}  // namespace

TEST(Acceptance, EX01_WrongBody) {
  const Sweep sweep(50, [](std::uint64_t seed) {
    const auto slot = static_cast<std::uint16_t>(seed % 2);
    Plan plan = slots_plan(seed, 1, {slot});
    plan.setup = [slot](World& world) {
      world.at(kIllAt, [slot](World& now) { fall_ill(now, SlotId{slot}, Ill::kWrong); });
      healthy_at_the_end(world);
    };
    Record record;
    Outcome out(run(plan, record));
    expect_woken_for(out, record, 2 * kExecutionTimeout);
    out.at_most("stall_us", record.stall(kIllAt, *plan.gst), kExecutionTimeout + kCatchUp);
    return out;
  });
  sweep.happened({"acceptance.ill.wrong", "byzantine-slot.wrong-reply", "sign.mismatch", "event.evicted"});
}

// There is no complaint of a client's: nodes compare the reply digests of every request. So what one client alone is
// told shows in the vote, or it is a body that the vote does not name, and nobody takes it.
TEST(Acceptance, EX02_WrongToOneClientOnly) {
  const Sweep sweep(50, [](std::uint64_t seed) {
    const auto slot = static_cast<std::uint16_t>(seed % 2);
    const bool votes = seed / 2 % 2 == 0;
    const ClientId victim{static_cast<std::uint32_t>(seed / 4 % 2)};
    Plan plan = slots_plan(seed, 1, {slot});
    OrderedHeaders headers;
    Record record;
    headers.watch(record);
    plan.setup = [&, slot, votes, victim](World& world) {
      Counters* counters = &world.counters();
      world.at(kIllAt, [=, &headers](World& now) {
        now.host_at(HostId{slot}).set_tamper([=, &headers](NodeId, Body& body) {
          if (auto* vote = std::get_if<Vote>(&body); vote != nullptr && votes) {
            for (std::size_t i = 0; i < vote->replies.size(); ++i) {
              if (!headers.is_of(vote->n, i, victim)) continue;
              vote->replies[i].bytes[3] ^= 1;
              count(*counters, "acceptance.wrong-vote-for-one");
            }
          } else if (auto* bodies = std::get_if<Replies>(&body); bodies != nullptr && !votes) {
            for (Replies::Item& item : bodies->items) {
              if (!headers.is_of(bodies->n, item.index, victim)) continue;
              item.body = SharedBytes::copy("another reply");
              count(*counters, "acceptance.wrong-body-for-one");
            }
          }
          return true;
        });
      });
      if (votes) {
        world.at(Micros{kIllAt.value + 8 * kSecond}, [slot](World& now) { now.host_at(HostId{slot}).set_tamper({}); });
      }
      healthy_at_the_end(world);
    };
    Outcome out(run(plan, record));
    if (votes) {
      expect_woken_for(out, record, 8 * kSecond);  // from its next request on
    } else {
      out.at_most("wakes_for_a_body", static_cast<std::int64_t>(record.woken.size()), 0);
    }
    out.at_most("stall_us", record.stall(kIllAt, *plan.gst), kExecutionTimeout + kCatchUp);
    return out;
  });
  sweep.happened({"acceptance.wrong-vote-for-one", "acceptance.wrong-body-for-one", "sign.mismatch"});
}

// Everything that a user sees is in what the digest is of (tests/execution/http_canonical_test.cpp), so that a header
// or a status is nothing special here: the body is right, and the digest that is voted for is not.
TEST(Acceptance, EX03_OtherDigestThanBody) {
  const Sweep sweep(50, [](std::uint64_t seed) {
    const auto slot = static_cast<std::uint16_t>(seed % 2);
    Plan plan = slots_plan(seed, 1, {slot});
    auto first = std::make_shared<Incarnation>();
    plan.setup = [slot, first](World& world) {
      world.at(kIllAt, [slot, first](World& now) {
        *first = now.host_at(HostId{slot}).incarnation();
        Counters* counters = &now.counters();
        now.host_at(HostId{slot}).set_tamper([=](NodeId, Body& body) {
          auto* vote = std::get_if<Vote>(&body);
          if (vote == nullptr || vote->incarnation != *first) return true;
          flip(vote->replies);
          count(*counters, "acceptance.other-digest", vote->replies.size());
          return true;
        });
      });
      healthy_at_the_end(world);
    };
    Record record;
    Outcome out(run(plan, record));
    expect_woken_for(out, record, 2 * kExecutionTimeout);
    out.at_most("stall_us", record.stall(kIllAt, *plan.gst), kExecutionTimeout + kCatchUp);
    return out;
  });
  sweep.happened({"acceptance.other-digest", "sign.mismatch", "event.evicted"});
}

// With every third seed in its first second, before it is known what is usual.
TEST(Acceptance, EX04_FrozenReplica) {
  const Sweep sweep(50, [](std::uint64_t seed) {
    const auto slot = static_cast<std::uint16_t>(seed % 2);
    const Micros ill_at = seed % 3 == 0 ? Micros{kSecond} : kIllAt;
    Plan plan = slots_plan(seed, 1, {slot});
    auto frozen = std::make_shared<Incarnation>();
    plan.setup = [slot, frozen, ill_at](World& world) {
      world.at(ill_at, [slot, frozen](World& now) {
        *frozen = now.host_at(HostId{slot}).incarnation();
        Counters* counters = &now.counters();
        const SimHost* host = &now.host_at(HostId{slot});
        now.host_at(HostId{slot}).set_tamper([=](NodeId, Body&) {
          if (host->incarnation() != *frozen) return true;
          count(*counters, "acceptance.frozen");
          return false;
        });
      });
      healthy_at_the_end(world);
    };
    Record record;
    Outcome out(run(plan, record));
    expect_woken_for(out, record, 2 * kExecutionTimeout, ill_at);
    return out;
  });
  sweep.happened({"acceptance.frozen", "sign.overdue", "event.evicted"});
}

// Every pair of faults of the two that may be faulty, at once, or one after the other has been seen to; the second one
// of another active slot, or of a slot that was woken for the first.
TEST(Acceptance, EX05_TwoFaultsOfEveryKind) {
  constexpr std::uint64_t kPairs = kIlls.size() * kIlls.size();
  const Sweep sweep(3 * kPairs, 3 * kPairs, [](std::uint64_t point) {
    const Ill one = kIlls[point % kIlls.size()];
    const Ill other = kIlls[point / kIlls.size() % kIlls.size()];
    const std::uint64_t way = point / kPairs;  // 0: at once, 1: after it, 2: after it, who was woken
    const std::uint16_t second = way == 2 ? 3 : 1;
    Plan plan = slots_plan(point + 1, 2, {0, second});
    plan.setup = [=](World& world) {
      world.at(kIllAt, [one](World& now) { fall_ill(now, SlotId{0}, one); });
      const std::int64_t pause = way == 0 ? static_cast<std::int64_t>(point % 4) * 50 * kMs : 6 * kSecond;
      world.at(Micros{kIllAt.value + pause}, [=](World& now) {
        const std::vector<SlotId> active = active_slots(now);
        const bool there = std::find(active.begin(), active.end(), SlotId{second}) != active.end();
        if (way == 2) now.kernel().count(there ? "acceptance.second-was-woken" : "acceptance.first-again");
        fall_ill(now, there ? SlotId{second} : SlotId{0}, other);
      });
      healthy_at_the_end(world);
    };
    Record record;
    Outcome out(run(plan, record));
    out.at_most("episodes", static_cast<std::int64_t>(record.episodes()), way == 0 ? 2 : 3);
    // A byte may be written again before anybody reads it.
    const bool shows = one != Ill::kDiverged || other != Ill::kDiverged;
    if (way == 0 && shows) out.at_least("woken", static_cast<std::int64_t>(record.woken.size()), 1);
    return out;
  });
  sweep.happened({"acceptance.ill.wrong", "acceptance.ill.silent", "acceptance.ill.crashed", "acceptance.ill.diverged",
                  "acceptance.ill.slow", "acceptance.second-was-woken", "sign.mismatch", "sign.overdue", "sign.gone",
                  "event.evicted"});
}

// Found at the next checkpoint, and gone before two more are ordered.
TEST(Acceptance, EX06_DivergedState) {
  constexpr std::uint32_t kInterval = 16;
  const Sweep sweep(40, [](std::uint64_t seed) {
    const auto slot = static_cast<std::uint16_t>(seed % 2);
    const bool unread = seed / 2 % 2 == 0;  // no reply ever shows it
    Plan plan = slots_plan(seed, 1, {slot});
    plan.requests = 200;
    plan.configure = [](crypto::ClusterFile& cluster) {
      cluster.limits.checkpoint_batches = kInterval;
      cluster.limits.checkpoint_requests = 10'000;
    };
    auto at = std::make_shared<Seq>();
    auto evicted_at = std::make_shared<Seq>();
    Record record;
    plan.setup = [=, &record](World& world) {
      world.at(kIllAt, [=](World& now) {
        SimHost& host = now.host_at(HostId{slot});
        *at = host.executor().executed();
        if (diverge(host, unread)) now.kernel().count(unread ? "acceptance.unread-byte" : "acceptance.byte");
      });
      every(world, Micros{10 * kMs}, kIllAt, kCalmAt, [=, &record](World& now) {
        if (evicted_at->value == 0 && !record.evicted.empty()) *evicted_at = now.status(NodeId{0}).delivered;
      });
      healthy_at_the_end(world);
    };
    Outcome out(run(plan, record));
    const std::uint64_t next = (at->value / kInterval + 1) * kInterval;
    const auto sign = std::find_if(record.signs.begin(), record.signs.end(),
                                   [](const Record::Sign& one) { return one.at >= kIllAt; });
    if (sign == record.signs.end()) {
      // Written again before anybody read it, or it was digested: then nothing is left of it.
      unread ? out.fail("nobody found it") : out.count("acceptance.overwritten");
      return out;
    }
    out.at_most("found_after_batches", static_cast<std::int64_t>(sign->n.value - at->value),
                static_cast<std::int64_t>(next - at->value));
    out.at_least("evicted", static_cast<std::int64_t>(record.evicted.size()), 1);
    // A reply may have shown it before the checkpoint.
    const std::uint64_t healed = std::max(evicted_at->value, next);
    out.at_most("checkpoints_until_healed", static_cast<std::int64_t>((healed - next) / kInterval), 2);
    out.at_most("episodes", static_cast<std::int64_t>(record.episodes()), 1);
    return out;
  });
  sweep.happened({"acceptance.unread-byte", "acceptance.byte", "sign.checkpoint", "event.evicted", "evidence.object"});
}

namespace {

// What f faulty nodes may have of WAKEs and SUSPECTs: all that ever were on the wire, and what they sign themselves.
class Thieves {
 public:
  explicit Thieves(std::vector<NodeId> nodes) : nodes_(std::move(nodes)) {}

  void watch(Record& record) {
    record.on_sent = [this](Micros, const Parcel& parcel) {
      const bool wake = body_of<Wake>(parcel) != nullptr;
      if (!wake && body_of<Suspect>(parcel) == nullptr) return;
      if (std::find(nodes_.begin(), nodes_.end(), parcel.from.node()) != nodes_.end()) return;
      if (stolen_.size() < 256) stolen_.push_back(parcel.message);
    };
  }
  // Each says to all hosts and nodes what it stole, and asks to wake every slot in several encodings.
  void say(World& world) {
    const EpochNotice notice = world.node_at(NodeId{0}).instance().oversight().notice();
    for (const NodeId thief : nodes_) {
      for (std::size_t i = 0; i < 4 && !stolen_.empty(); ++i) {
        const MessagePtr& message = stolen_[said_++ % stolen_.size()];
        world.kernel().count("acceptance.stolen");
        tell(world, thief, message);
      }
      for (const auto& slot : world.drawn().cluster.services.front().slots) ask(world, thief, slot.id, notice);
    }
  }

 private:
  void ask(World& world, NodeId thief, SlotId slot, const EpochNotice& notice) {
    Wake wake;
    wake.service = ServiceId{0};
    wake.signer = thief;
    wake.epoch = notice.epoch;
    wake.slot = slot;
    wake.incarnation = notice.incarnations[slot.value];
    wake.n = world.status(NodeId{0}).delivered;
    const auto utter = [&](Wake changed) {
      changed.signature = node_key(thief).sign(wake_fields(world.drawn().cluster.id, changed));
      tell(world, thief, std::make_shared<const Message>(Message{ServiceId{0}, changed}));
      world.kernel().count("acceptance.wake-asked");
      // As if another node had said it.
      changed.signer = node_of((thief.value + 1) % world.nodes());
      tell(world, thief, std::make_shared<const Message>(Message{ServiceId{0}, changed}));
    };
    for (std::uint8_t sign = 0; sign < 4; ++sign) {
      wake.sign = sign;
      wake.n = wake.n.next();
      utter(wake);
    }
    Wake other = wake;
    other.service = ServiceId{1};
    utter(other);
    other = wake;
    other.epoch = Epoch{wake.epoch.value + 1};
    utter(other);
    if (wake.epoch.value == 0) return;
    other.epoch = Epoch{wake.epoch.value - 1};
    utter(other);
  }
  static void tell(World& world, NodeId from, const MessagePtr& message) {
    for (std::uint16_t i = 0; i < world.parties().hosts; ++i) {
      world.network().send(from.value, world.parties().host(i), message);
    }
    for (Party node = 0; node < world.nodes(); ++node) {
      if (node != from.value) world.network().send(from.value, node, message);
    }
  }

  std::vector<NodeId> nodes_;
  std::vector<MessagePtr> stolen_;
  std::size_t said_ = 0;
};

}  // namespace

// f nodes complain of everything, in every encoding; now and then with what was said when there was a reason.
TEST(Acceptance, EX07_WakeUpsAskedForByFNodes) {
  const Sweep sweep(40, [](std::uint64_t seed) {
    const bool reason = seed % 4 == 3;
    Plan plan = slots_plan(seed, 1 + seed / 2 % 2, {0});
    plan.f = 1 + seed % 2;
    plan.requests = 150;
    plan.gst = Micros{14 * kSecond};
    plan.end_at_least = Micros{16 * kSecond};
    std::vector<NodeId> faulty = {NodeId{3}};
    if (plan.f == 2) faulty.push_back(NodeId{5});
    plan.byzantine_nodes.emplace();
    for (const NodeId node : faulty) {
      plan.byzantine_nodes->emplace_back(node, (seed + node.value) / 4 % 2 == 0 ? "complain" : "replay");
    }
    Thieves thieves(faulty);
    Record record;
    thieves.watch(record);
    constexpr Micros kFrom{9 * kSecond};
    plan.setup = [&](World& world) {
      if (reason) world.at(Micros{2 * kSecond}, [](World& now) { fall_ill(now, SlotId{0}, Ill::kCrashed); });
      every(world, Micros{100 * kMs}, Micros{kSecond}, Micros{14 * kSecond}, [&](World& now) { thieves.say(now); });
    };
    Outcome out(run(plan, record));
    const auto needless = std::count_if(record.woken.begin(), record.woken.end(), [&](const Record::Woken& one) {
      return !reason || one.at < Micros{2 * kSecond} || one.at > kFrom;
    });
    out.at_most("wake_ups_without_reason", needless, 0);
    out.at_most("evicted", static_cast<std::int64_t>(record.evicted.size()), reason ? 1 : 0);
    return out;
  });
  sweep.happened({"acceptance.wake-asked", "acceptance.stolen", "acceptance.ill.crashed", "byzantine.complain.wake",
                  "byzantine.complain.suspect", "byzantine.replay.said-again", "refused.bad-signature"});
}

// 2f+1 complaints, f+1 of them by one signer in several encodings, in one moment.
TEST(Acceptance, EX08_ComplaintsOfOneSignerInManyEncodings) {
  const Sweep sweep(40, [](std::uint64_t seed) {
    Plan plan = slots_plan(seed, 1 + seed / 2 % 2, {});
    plan.f = 1 + seed % 2;
    plan.requests = 60;
    plan.gst = Micros{5 * kSecond};
    plan.end_at_least = Micros{6 * kSecond};
    plan.byzantine_nodes = {{NodeId{3}, "unfair"}};  // unless it is the primary, correct code
    std::vector<NodeId> faulty = {NodeId{3}};
    if (plan.f == 2) {
      faulty.push_back(NodeId{5});
      plan.byzantine_nodes->emplace_back(NodeId{5}, "unfair");
    }
    Thieves thieves(faulty);
    Record record;
    plan.setup = [&](World& world) {
      for (const std::int64_t time : {1, 2, 3}) {
        world.at(Micros{time * kSecond}, [&](World& now) { thieves.say(now); });
      }
    };
    Outcome out(run(plan, record));
    out.at_most("wake_ups", static_cast<std::int64_t>(record.woken.size()), 0);
    return out;
  });
  sweep.happened({"acceptance.wake-asked", "refused."});
}

// Whoever was convicted sleeps as a new incarnation, is woken only by another's fault, and then takes nobody's place
// while others can (docs/decisions/0023).
TEST(Acceptance, EX09_FlappingReplica) {
  const Sweep sweep(30, [](std::uint64_t seed) {
    Plan plan = slots_plan(seed, 1 + seed % 2, {});
    plan.requests = 600;
    plan.configure = usual_quarantine;
    plan.gst = Micros{60 * kSecond};
    plan.end_at_least = Micros{70 * kSecond};
    plan.byzantine_slots = {{SlotId{0}, SlotVice::kSometimesWrong}};
    if (plan.g == 2) plan.byzantine_slots->emplace_back(SlotId{1}, SlotVice::kSometimesWrong);
    // Of two, one may be convicted again, and be in quarantine still.
    if (plan.g == 1) plan.setup = [](World& world) { world.at(Micros{68 * kSecond}, expect_healthy); };
    Record record;
    Outcome out(run(plan, record));
    const auto episodes = static_cast<std::int64_t>(record.episodes());
    out.at_most("episodes_of_" + std::to_string(plan.g), episodes, plan.g == 1 ? 1 : 3);
    out.at_most("convictions_less_episodes", static_cast<std::int64_t>(record.evicted.size()) - episodes, plan.g);
    return out;
  });
  sweep.happened({"byzantine-slot.wrong-reply", "event.evicted"});
}

// A client has no message that says so. What it sends of others' is refused, and costs nobody anything.
TEST(Acceptance, EX11_ClientThatClaimsAMismatch) {
  const Sweep sweep(20, [](std::uint64_t seed) {
    Plan plan = slots_plan(seed, 1, {});
    plan.requests = 100;
    plan.gst = Micros{6 * kSecond};
    plan.end_at_least = Micros{7 * kSecond};
    Record record;
    std::vector<MessagePtr> heard;  // of every kind, and what it makes up
    record.on_sent = [&](Micros, const Parcel& parcel) {
      if (parcel.from.role != crypto::Role::kClient && heard.size() < 512) heard.push_back(parcel.message);
    };
    plan.setup = [&](World& world) {
      every(world, Micros{20 * kMs}, Micros{kSecond}, Micros{5 * kSecond}, [&](World& now) {
        const EpochNotice notice = now.node_at(NodeId{0}).instance().oversight().notice();
        Suspect suspect;
        suspect.slot = notice.active.front();
        suspect.incarnation = notice.incarnations[suspect.slot.value];
        suspect.n = now.status(NodeId{0}).delivered;
        suspect.agreeing = {notice.active.back()};
        Wake wake;
        wake.slot = SlotId{2};
        wake.incarnation = notice.incarnations[2];
        std::vector<MessagePtr> claims = {heard[static_cast<std::size_t>(now.now().value / 7) % heard.size()]};
        for (Body body : std::initializer_list<Body>{suspect, wake, SlotDead{suspect.slot, suspect.incarnation}}) {
          claims.push_back(std::make_shared<const Message>(Message{ServiceId{0}, std::move(body)}));
        }
        for (const MessagePtr& claim : claims) {
          now.kernel().count("acceptance.claimed");
          for (Party node = 0; node < now.nodes(); ++node) {
            now.network().send(now.parties().client(0), node, claim);
          }
        }
      });
      world.at(Micros{6 * kSecond}, expect_healthy);
    };
    Outcome out(run(plan, record));
    out.at_most("wake_ups", static_cast<std::int64_t>(record.woken.size()), 0);
    out.at_most("evicted", static_cast<std::int64_t>(record.evicted.size()), 0);
    return out;
  });
  sweep.happened({"acceptance.claimed", "refused.wrong-role"});
}

// One of the woken is faulty too, in every way that a slot can be.
TEST(Acceptance, EX12_WokenReplicaFaultyToo) {
  constexpr auto kVices = static_cast<std::uint64_t>(SlotVice::kCount);
  const Sweep sweep(kIlls.size() * kVices * 2, kIlls.size() * kVices * 2, [](std::uint64_t point) {
    const Ill ill = kIlls[point % kIlls.size()];
    const auto vice = static_cast<SlotVice>(point / kIlls.size() % kVices);
    const auto sleeper = static_cast<std::uint16_t>(3 + point / kIlls.size() / kVices);
    Plan plan = slots_plan(point + 1, 2, {0});
    plan.byzantine_slots->emplace_back(SlotId{sleeper}, vice);
    plan.setup = [=](World& world) {
      world.at(kIllAt, [ill](World& now) { fall_ill(now, SlotId{0}, ill); });
      healthy_at_the_end(world);
    };
    Record record;
    Outcome out(run(plan, record));
    const bool woken = std::any_of(record.woken.begin(), record.woken.end(),
                                   [&](const Record::Woken& one) { return one.slot == SlotId{sleeper}; });
    if (woken) out.count("acceptance.the-faulty-one-was-woken");
    out.at_most("episodes", static_cast<std::int64_t>(record.episodes()), 3);
    return out;
  });
  sweep.happened({"acceptance.the-faulty-one-was-woken", "byzantine-slot.wrong-reply", "byzantine-slot.wrong-root",
                  "byzantine-slot.wrong-state", "byzantine-slot.silent", "byzantine-slot.two-faced",
                  "byzantine-slot.late"});
}

}  // namespace zz::sim
