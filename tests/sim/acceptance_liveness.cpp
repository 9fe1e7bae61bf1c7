// Acceptance cases AL-02 to AL-14: liveness and performance under attack. AL-01 is tests/faults (real processes).
// AL-10 has nothing to test: there is no path for reads beside the order. Rates are compared with the same plan
// without the fault: what an attack costs in messages and waiting, not in processor time.

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>

#include "tests/sim/acceptance_parts.hpp"

namespace zz::sim {

namespace {

using namespace agreement;

// The same plan with and without a fault: replies in [from, end], as per cent of those without it.
std::int64_t rate_percent(const Record& faulty, const Record& good, Micros from, Micros to) {
  const auto base = static_cast<std::int64_t>(good.accepted(from, to));
  return base == 0 ? 0 : static_cast<std::int64_t>(faulty.accepted(from, to)) * 100 / base;
}

bool kind_is_view_change(const Parcel& parcel) {
  return body_of<ViewChangePtr>(parcel) != nullptr || body_of<NewViewPtr>(parcel) != nullptr;
}

// Clients look at their timers every 5 ms, as real ones do (tick_ms), instead of every 20: a client whose home node is
// faulty pays one hedge delay per request, and not a tick of the simulator on top of it.
void quick_clients(World& world) {
  for (const std::int64_t offset : {5 * kMs, 10 * kMs, 15 * kMs}) {
    world.kernel().after(offset, {Happening::Kind::kClientTick, 0, 0, 0, nullptr});
  }
}

}  // namespace

TEST(Acceptance, AL02_NextPrimariesDeadToo) {
  const Sweep sweep(24, [](std::uint64_t seed) {
    const auto k = static_cast<std::uint32_t>(1 + seed % 3);
    Plan plan = calm(seed);
    plan.f = k;
    plan.gst = Micros{60 * kSecond};
    plan.end_at_least = Micros{62 * kSecond};
    plan.requests = 300;
    plan.core.emplace();
    for (std::uint16_t i = 0; i < 2 * k + 1; ++i) plan.core->insert(node_of(k + i));
    plan.configure = [](crypto::ClusterFile& cluster) { cluster.timing.view_timeout_max_ms = 60'000; };
    plan.setup = [k](World& world) {
      for (std::uint16_t i = 0; i < k; ++i) {
        world.at(Micros{3 * kSecond}, [i](World& now) { now.crash(NodeId{i}); });
      }
    };
    Record record;
    Outcome out(run(plan, record));
    out.at_most("outage_of_" + std::to_string(k) + "_us", record.stall(Micros{3 * kSecond}, *plan.gst),
                (std::int64_t{1} << (k + 2)) * kViewTimeout);
    return out;
  });
  sweep.happened({"event.view-left", "event.view-entered"});
}

// Nodes fall behind one by one, so that their checkpoints differ; VIEW-CHANGEs come late and out of order.
TEST(Acceptance, AL03_HostileOrderOfViewChanges) {
  const Sweep sweep(40, [](std::uint64_t seed) {
    Plan plan = calm(seed);
    plan.f = 1 + seed % 2;
    plan.requests = 250;
    plan.faults = {Fault::kReorder, Fault::kDuplicate, Fault::kOneWayCut, Fault::kPartition};
    plan.configure = [](crypto::ClusterFile& cluster) { cluster.limits.checkpoint_batches = 4; };
    auto timeout = std::make_shared<std::int64_t>();
    auto differing = std::make_shared<std::uint64_t>();
    Record record;
    record.on_sent = [differing](Micros, const Parcel& parcel) {
      const auto* view = body_of<NewViewPtr>(parcel);
      if (view == nullptr) return;
      std::set<Seq> stable;
      for (const auto& change : (*view)->proof) stable.insert(stable_n(change->stable));
      if (stable.size() > 1) ++*differing;
    };
    plan.setup = [seed, timeout](World& world) {
      auto prng = std::make_shared<Prng>(seed);
      const Rule late = [prng](const Parcel& parcel) {
        const bool concerns = kind_is_view_change(parcel) || body_of<Checkpoint>(parcel) != nullptr;
        return concerns && chance(*prng, 60) ? Micros{between(*prng, 1, 400 * kMs)} : Micros{};
      };
      interfere(world, late, Micros{8 * kSecond});
      for (const std::int64_t time : {2, 4, 6}) {
        const NodeId behind = node_of((seed + static_cast<std::uint64_t>(time)) % world.nodes());
        world.at(Micros{time * kSecond}, [behind](World& now) {
          const World::Hook heal = now.isolate(behind, true, false);
          now.after(Micros{900 * kMs}, heal);
        });
      }
      for (const std::int64_t time : {2'800, 4'800, 7'500}) {
        world.at(Micros{time * kMs}, [](World& now) {
          const NodeId primary = now.primary();
          now.crash(primary);
          now.after(Micros{700 * kMs}, [primary](World& later) { later.restart(primary); });
        });
      }
      world.at(Micros{8 * kSecond}, [timeout](World& now) {
        for (const NodeId node : now.drawn().core) {
          *timeout = std::max({*timeout, now.status(node).view_timeout.value, kViewTimeout});
        }
      });
    };
    const RunResult result = run(plan, record);
    Outcome out(result);
    // f faulty primaries in a row cost 2^(f+1) - 1 timeouts; two more, as the catalogue has it for f = 1.
    const std::int64_t timeouts = (std::int64_t{2} << plan.f) - 1 + 2;
    out.at_most("stall_after_gst_percent_of_timeout", record.stall(*plan.gst, result.virtual_time) * 100 / *timeout,
                100 * timeouts);
    out.count("acceptance.differing-checkpoints", *differing);
    return out;
  });
  sweep.happened({"message.VIEW-CHANGE", "message.NEW-VIEW", "event.view-entered", "acceptance.differing-checkpoints"});
}

TEST(Acceptance, AL04_ReplayedViewChanges) {
  const Sweep sweep(8, [](std::uint64_t seed) {
    constexpr std::int64_t kEnd = 20 * kSecond;
    constexpr std::int64_t kFrom = 6 * kSecond;
    const auto measured = [seed](bool replays, Record& record, Outcome& out) {
      Plan plan = busy(seed, kEnd, 100);
      plan.byzantine_nodes = {{NodeId{3}, "unfair"}};  // unless it is the primary, correct code
      struct Shared {
        std::vector<MessagePtr> heard;
        std::uint64_t answers = 0;
        std::uint64_t said = 0;
      };
      auto shared = std::make_shared<Shared>();
      record.on_sent = [shared](Micros now, const Parcel& parcel) {
        if (!kind_is_view_change(parcel)) return;
        if (to_node(parcel, NodeId{3}) && now.value > kFrom) ++shared->answers;
        const bool known = std::find(shared->heard.begin(), shared->heard.end(), parcel.message) != shared->heard.end();
        if (!known && shared->heard.size() < 64) shared->heard.push_back(parcel.message);
      };
      plan.setup = [=](World& world) {
        fast_network(world);
        world.at(Micros{2 * kSecond}, [](World& now) { now.crash(NodeId{0}); });
        world.at(Micros{3 * kSecond}, [](World& now) { now.restart(NodeId{0}); });
        if (!replays) return;
        every(world, Micros{10 * kMs}, Micros{kFrom}, Micros{kEnd}, [shared](World& now) {
          const std::vector<MessagePtr> heard = shared->heard;
          if (heard.empty()) return;
          for (int i = 0; i < 10; ++i) {
            const MessagePtr& message = heard[shared->said++ % heard.size()];
            for (Party to = 0; to < 3; ++to) now.network().send(3, to, message);
            now.kernel().count("acceptance.replayed");
          }
        });
      };
      out.add(run(plan, record));
      return static_cast<std::int64_t>(shared->answers);
    };
    Outcome out;
    Record good;
    Record bad;
    const std::int64_t before = measured(false, good, out);
    const std::int64_t answers = measured(true, bad, out);
    out.at_least("rate_percent", rate_percent(bad, good, Micros{kFrom}, Micros{kEnd}), 80);
    // Each node says each of what it has said at most once a second.
    const std::int64_t seconds = (kEnd - kFrom) / kSecond;
    out.at_most("answers_per_second", (answers - before) / seconds, 3 * 2);
    return out;
  });
  sweep.happened({"acceptance.replayed", "event.view-entered", "refused.stale-view"});
}

// CHECKPOINTs and what repairs them come late, to each node another time, in a window of two intervals; but no later
// than primaries are waited for.
TEST(Acceptance, AL05_UnevenCheckpointsAtTheWindowEdge) {
  const Sweep sweep(60, [](std::uint64_t seed) {
    Plan plan = calm(seed);
    plan.requests = 300;
    plan.configure = [](crypto::ClusterFile& cluster) {
      cluster.limits.window_batches = 8;
      cluster.limits.checkpoint_batches = 4;
      cluster.limits.batch_requests_max = 2;
    };
    auto full = std::make_shared<std::uint64_t>();
    plan.setup = [=](World& world) {
      auto prng = std::make_shared<Prng>(seed);
      const Rule late = [prng](const Parcel& parcel) {
        const bool concerns = body_of<Checkpoint>(parcel) != nullptr || body_of<Stable>(parcel) != nullptr;
        return concerns ? Micros{between(*prng, 1, 300 * kMs)} : Micros{};
      };
      interfere(world, late, Micros{8 * kSecond});
      every(world, Micros{20 * kMs}, Micros{kSecond}, Micros{8 * kSecond}, [full](World& now) {
        for (const NodeId node : now.drawn().core) {
          const NodeStatus status = now.status(node);
          if (status.delivered.value == status.stable.value + 8) ++*full;
        }
      });
    };
    Record record;
    const RunResult result = run(plan, record);
    Outcome out(result);
    out.at_most("view_changes", static_cast<std::int64_t>(record.most_changes(Micros{}, result.virtual_time)), 0);
    out.count("acceptance.window-full", *full);
    return out;
  });
  sweep.happened({"event.checkpoint", "acceptance.window-full"});
}

namespace {

// One node is cut off for ever, in one direction or both; every node, every way.
Outcome cut_for_ever(std::uint64_t seed, NodeId node, bool incoming, bool outgoing) {
  constexpr std::int64_t kCut = 3 * kSecond;
  constexpr std::int64_t kGst = 40 * kSecond;
  Plan plan = calm(seed);
  plan.requests = 300;
  plan.gst = Micros{kGst};
  plan.end_at_least = Micros{kGst + 10 * kSecond};
  plan.core.emplace();
  for (std::uint16_t i = 0; i < 4; ++i) {
    if (NodeId{i} != node) plan.core->insert(NodeId{i});
  }
  plan.setup = [=](World& world) {
    world.at(Micros{kCut}, [=](World& now) {
      now.kernel().count(incoming && outgoing ? "acceptance.cut-both"
                         : incoming           ? "acceptance.cut-in"
                                              : "acceptance.cut-out");
      static_cast<void>(now.isolate(node, incoming, outgoing));
    });
  };
  Record record;
  const RunResult result = run(plan, record);
  Outcome out(result);
  std::uint64_t most = 0;
  std::uint64_t late = 0;
  for (const NodeId other : *plan.core) {
    most = std::max(most, record.changes(other, Micros{kCut}, result.virtual_time));
    late = std::max(late, record.changes(other, Micros{kCut + 20 * kSecond}, result.virtual_time));
  }
  out.at_most("stall_us", record.stall(Micros{kCut}, result.virtual_time), 5 * kSecond);
  out.at_most("view_changes", static_cast<std::int64_t>(most), 3);
  out.at_most("late_view_changes", static_cast<std::int64_t>(late), 0);
  return out;
}

}  // namespace

TEST(Acceptance, AL06_AsymmetricCutForEver) {
  const Sweep sweep(36, [](std::uint64_t seed) {
    const bool in = seed % 2 == 0;
    return cut_for_ever(seed, NodeId{static_cast<std::uint16_t>(seed / 2 % 3 == 0 ? 0 : 2)}, in, !in);
  });
  sweep.happened({"acceptance.cut-in", "acceptance.cut-out", "event.view-entered"});
}

TEST(Acceptance, NW03_EachNodeIsolated) {
  const Sweep sweep(48, [](std::uint64_t seed) {
    const std::uint64_t way = seed % 3;
    return cut_for_ever(seed, node_of(seed / 3 % 4), way != 1, way != 2);
  });
  sweep.happened({"acceptance.cut-both", "acceptance.cut-in", "acceptance.cut-out", "event.view-entered"});
}

TEST(Acceptance, AL07_TenMinutesOfMutations) {
  const Sweep sweep(4, [](std::uint64_t seed) {
    constexpr std::int64_t kMinute = 60 * kSecond;
    Plan plan = calm(seed);
    plan.byzantine_nodes = {{node_of(seed % 4), "mutate"}};
    plan.requests = 900;
    plan.gst = Micros{10 * kMinute};
    plan.liveness = false;
    Record record;
    const RunResult result = run(plan, record);
    Outcome out(result);
    std::uint64_t most = 0;
    for (std::int64_t at = 0; at < 10 * kMinute; at += kMinute) {
      most = std::max(most, record.most_changes(Micros{at}, Micros{at + kMinute - 1}));
    }
    out.at_most("view_changes_per_minute", static_cast<std::int64_t>(most), 2);
    out.at_most("view_changes_in_the_last_minute",
                static_cast<std::int64_t>(record.most_changes(Micros{9 * kMinute}, result.virtual_time)), 0);
    out.at_least("answered_percent", static_cast<std::int64_t>(result.answered * 100 / result.submitted), 99);
    return out;
  });
  sweep.happened({"byzantine.mutate.changed"});
}

TEST(Acceptance, AL08_SlowPrimary) {
  const Sweep sweep(6, [](std::uint64_t seed) {
    constexpr std::int64_t kEnd = 60 * kSecond;
    Outcome out;
    Record good;
    Record bad;
    for (const bool slow : {false, true}) {
      Plan plan = busy(seed, kEnd, 50);
      plan.setup = [=](World& world) {
        fast_network(world);
        const Rule held = [](const Parcel& parcel) {
          return from_node(parcel, NodeId{0}) && body_of<PrePrepare>(parcel) != nullptr ? Micros{kViewTimeout * 9 / 10}
                                                                                        : Micros{};
        };
        if (!slow) return;
        world.at(Micros{10 * kSecond}, [held](World& now) {
          now.kernel().count("acceptance.slow");
          interfere(now, held, Micros{kEnd});
        });
      };
      out.add(run(plan, slow ? bad : good));
    }
    out.at_least("rate_percent_after_30_s", rate_percent(bad, good, Micros{40 * kSecond}, Micros{kEnd}), 50);
    std::int64_t worst = 100;
    for (std::int64_t at = 10 * kSecond; at + 15 * kSecond <= kEnd; at += kSecond) {
      worst = std::min(worst, rate_percent(bad, good, Micros{at}, Micros{at + 15 * kSecond}));
    }
    out.at_least("rate_percent_of_any_15_s", worst, 10);
    return out;
  });
  sweep.happened({"acceptance.slow", "event.view-entered"});
}

TEST(Acceptance, AL09_UnfairPrimary) {
  const Sweep sweep(16, [](std::uint64_t seed) {
    constexpr std::int64_t kEnd = 40 * kSecond;
    Plan plan = busy(seed, kEnd, 40);
    plan.byzantine_nodes = {{NodeId{0}, "unfair"}};
    plan.configure = short_hedge;
    Record record;
    Outcome out(run(plan, record));
    // From the second view change on; when there was none, or one, from the beginning, or from that one.
    std::map<View, Micros> views;
    for (const auto& event : record.left) views.try_emplace(event.view, event.at);
    std::int64_t from = 2 * kSecond;
    std::size_t counted = 0;
    for (const auto& [view, at] : views) {
      if (++counted <= 2) from = std::max(from, at.value + 2 * kSecond);
    }
    std::int64_t victim = 0;
    std::vector<std::int64_t> medians;
    for (const ClientId client : record.clients()) {
      const auto latencies = record.latencies(Micros{from}, Micros{kEnd}, client);
      victim = std::max(victim, percentile(latencies, 99));
      medians.push_back(percentile(latencies, 50));
    }
    std::sort(medians.begin(), medians.end());
    const std::int64_t median = std::max<std::int64_t>(percentile(medians, 50), 1);
    out.at_most("worst_p99_percent_of_median", victim * 100 / median, 500);
    return out;
  });
  sweep.happened({"byzantine.unfair.not-heard", "byzantine.unfair.left-out", "event.view-entered"});
}

// f backups say nothing, or f backups are slow by 200 ms; of two, one of each.
TEST(Acceptance, AL11_SilentAndSlowBackups) {
  const Sweep sweep(9, [](std::uint64_t seed) {
    constexpr std::int64_t kEnd = 20 * kSecond;
    const std::uint64_t what = seed % 3;
    Outcome out;
    Record good;
    Record bad;
    for (const bool faulty : {false, true}) {
      Plan plan = busy(seed, kEnd, 60);
      plan.f = what == 2 ? 2 : 1;
      plan.configure = short_hedge;
      plan.setup = [=](World& world) {
        fast_network(world);
        quick_clients(world);
        const Rule rule = [what](const Parcel& parcel) {
          if (what != 1 && from_node(parcel, NodeId{3})) return kLost;
          return what != 0 && from_node(parcel, NodeId{2}) ? Micros{200 * kMs} : Micros{};
        };
        if (!faulty) return;
        world.kernel().count(what == 0   ? "acceptance.silent"
                             : what == 1 ? "acceptance.slow"
                                         : "acceptance.silent-and-slow");
        interfere(world, rule, Micros{kEnd});
      };
      out.add(run(plan, faulty ? bad : good));
    }
    out.at_least("rate_percent", rate_percent(bad, good, Micros{2 * kSecond}, Micros{kEnd}), 80);
    return out;
  });
  sweep.happened({"acceptance.silent", "acceptance.slow", "acceptance.silent-and-slow"});
}

TEST(Acceptance, AL12_BackupFloods) {
  const Sweep sweep(6, [](std::uint64_t seed) {
    constexpr std::int64_t kEnd = 12 * kSecond;
    Outcome out;
    Record good;
    Record bad;
    for (const bool floods : {false, true}) {
      Plan plan = busy(seed, kEnd, 60);
      plan.byzantine_nodes = {{NodeId{3}, "unfair"}};  // as long as it is no primary, correct code
      auto prng = std::make_shared<Prng>(seed);
      const auto flood = [prng](World& now) {
        const ServiceId service{0};
        const View view = now.view();
        const Seq delivered = now.status(NodeId{1}).delivered;
        for (int i = 0; i < 50; ++i) {
          const Seq n{delivered.value + prng->below(40)};
          Digest digest;
          digest.bytes[0] = static_cast<std::uint8_t>(prng->next());
          Reference reference{ClientId{static_cast<std::uint32_t>(prng->below(4))}, SessionId{prng->next() >> 1},
                              RequestNumber{1 + prng->below(16)}, digest};
          Body body;
          switch (prng->below(8)) {
            case 0:
              body = Prepare{view, n, digest};
              break;
            case 1:
              body = Commit{view, n, digest};
              break;
            case 2:
              body = FetchBodies{{reference}};
              break;
            case 3:
              body = FetchHeaders{{digest}};
              break;
            case 4:
              body = FetchOrder{Seq{1 + prng->below(n.value + 1)}};
              break;
            case 5:
              body = Vouched{{reference}};
              break;
            case 6: {
              Progress progress;
              progress.view = View{prng->below(3)};
              progress.changing = prng->below(2) == 0;
              progress.delivered = Seq{prng->below(n.value + 1)};
              body = progress;
              break;
            }
            default:
              body = VouchQuery{{reference}};
              break;
          }
          const auto message = std::make_shared<const Message>(Message{service, std::move(body)});
          now.network().send(3, static_cast<Party>(prng->below(3)), message);
          now.kernel().count("acceptance.flood");
        }
      };
      plan.setup = [=](World& world) {
        fast_network(world);
        if (floods) every(world, Micros{10 * kMs}, Micros{kSecond}, Micros{kEnd}, flood);
      };
      out.add(run(plan, floods ? bad : good));
    }
    out.at_least("rate_percent", rate_percent(bad, good, Micros{2 * kSecond}, Micros{kEnd}), 50);
    return out;
  });
  sweep.happened({"acceptance.flood", "refused."});
}

// One client beside others that fill every batch, against the same client alone. (How long a request runs is the
// service's; the ordering bounds what goes into one batch.)
TEST(Acceptance, AL13_FullBatches) {
  const Sweep sweep(6, [](std::uint64_t seed) {
    constexpr std::int64_t kEnd = 10 * kSecond;
    std::int64_t p99[2] = {};
    Outcome out;
    for (const bool full : {false, true}) {
      Plan plan = busy(seed, kEnd, full ? 300 : 20);
      plan.clients = full ? 12 : 1;
      plan.configure = [](crypto::ClusterFile& cluster) { cluster.limits.batch_requests_max = 4; };
      Record record;
      auto batches = std::make_shared<std::uint64_t>();
      record.on_delivered = [batches](NodeId node, const Delivery& delivery) {
        if (node == NodeId{1} && delivery.header->references.size() == 4) ++*batches;
      };
      out.add(run(plan, record));
      if (full) out.count("acceptance.full-batch", *batches);
      p99[full ? 1 : 0] = percentile(record.latencies(Micros{kSecond}, Micros{kEnd - kSecond}, ClientId{0}), 99);
    }
    out.at_most("p99_percent", p99[1] * 100 / std::max<std::int64_t>(p99[0], 1), 500);
    return out;
  });
  sweep.happened({"acceptance.full-batch"});
}

TEST(Acceptance, AL14_Thrash) {
  const Sweep sweep(6, [](std::uint64_t seed) {
    constexpr std::int64_t kEnd = 120 * kSecond;
    Plan plan = calm(seed);
    plan.requests = 1'000;
    plan.gst = Micros{kEnd + 62 * kSecond};
    plan.end_at_least = *plan.gst;
    plan.configure = [](crypto::ClusterFile& cluster) { cluster.timing.view_timeout_max_ms = 60'000; };
    auto timeouts = std::make_shared<std::pair<std::int64_t, std::int64_t>>();  // worst at all, and in the end
    const auto worst = [](World& now) {
      std::int64_t out = 0;
      for (std::uint16_t i = 0; i < now.nodes(); ++i) out = std::max(out, now.status(NodeId{i}).view_timeout.value);
      return out;
    };
    plan.setup = [=](World& world) {
      // Three good seconds, three in which whoever is the primary is cut off.
      auto healing = std::make_shared<std::pair<World::Hook, NodeId>>();
      every(world, Micros{100 * kMs}, Micros{3 * kSecond}, Micros{kEnd}, [=](World& now) {
        const bool cut = now.now().value / (3 * kSecond) % 2 == 1;
        if (healing->first && (!cut || now.primary() != healing->second)) {
          healing->first(now);
          healing->first = nullptr;
        }
        if (!cut || healing->first) return;
        now.kernel().count("acceptance.primary-cut");
        *healing = {now.isolate(now.primary()), now.primary()};
      });
      every(world, Micros{100 * kMs}, Micros{}, Micros{kEnd},
            [=](World& now) { timeouts->first = std::max(timeouts->first, worst(now)); });
      world.at(Micros{kEnd + 60 * kSecond}, [=](World& now) { timeouts->second = worst(now); });
    };
    Record record;
    Outcome out(run(plan, record));
    out.figures["worst_timeout_us"] = timeouts->first;
    out.at_most("timeout_60_s_later_us", timeouts->second, kViewTimeout);
    if (timeouts->first > kViewTimeout) out.count("acceptance.timeout-rose");
    return out;
  });
  sweep.happened({"acceptance.primary-cut", "acceptance.timeout-rose", "event.view-entered"});
}

}  // namespace zz::sim
