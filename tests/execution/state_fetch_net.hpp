#pragma once

// A deterministic world for StateFetcher: 3f+1 nodes with a StateRelay each, 2g other slots with a StateSource each
// over one store, hops that take a few milliseconds, and parties that misbehave in the ways of Vice.

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>

#include "agreement/state_relay.hpp"
#include "base/prng.hpp"
#include "execution/state_fetcher.hpp"
#include "execution/state_source.hpp"
#include "tests/execution/state/store_test_model.hpp"

namespace zz::execution::testing {

using agreement::FetchState;
using agreement::StatePart;
using agreement::StateParts;
using state::ObjectId;
using state::ObjectStore;
using state::Snapshot;
using state::testing::Model;

enum class Vice { kNone, kCorrupts, kSwaps, kBombs, kEmpty, kDrips, kSlow, kCrawls, kSilent, kMoody };
constexpr Vice kVices[] = {Vice::kCorrupts, Vice::kSwaps,  Vice::kBombs,  Vice::kEmpty, Vice::kDrips,
                           Vice::kSlow,     Vice::kCrawls, Vice::kSilent, Vice::kMoody};

// What the other slots hold: equal states, so one store stands for all of them.
struct Origin {
  Origin(std::uint64_t seed, int objects, std::size_t longest) : prng(seed), store(state::testing::in_memory()) {
    for (int i = 0; i < objects; ++i) {
      const std::uint64_t id = prng.below(4) == 0 ? state::testing::random_id(prng) : prng.next() >> 20;
      Bytes bytes = state::testing::random_bytes(prng, longest);
      EXPECT_EQ(store->write(ObjectId{id}, bytes).status, state::Status::kDone);
      model[id] = std::move(bytes);
    }
  }
  // A stable checkpoint; its root.
  Digest publish(Seq n) {
    snapshots[n] = state::testing::take(*store);
    return state::testing::digest_of(*store, snapshots[n]);
  }
  void drop(Seq n) { snapshots.erase(n); }

  Prng prng;
  std::unique_ptr<ObjectStore> store;
  Model model;
  std::map<Seq, Snapshot> snapshots;
};

class Net {
 public:
  static constexpr std::int64_t kPatience = 250'000;
  struct Options {
    std::uint32_t f = 1;
    std::uint32_t g = 1;
    std::uint64_t seed = 1;
    std::uint64_t bytes_per_second = 1u << 20;
  };
  Net(const Options& options, Origin& origin, ObjectStore& store)
      : options_(options),
        origin_(origin),
        store_(store),
        prng_(options.seed),
        node_vices(3 * options.f + 1),
        slot_vices(2 * options.g + 1) {
    for (std::size_t node = 0; node < node_vices.size(); ++node) {
      relays_.emplace_back(agreement::StateRelay::Options{.slots = 2 * options.g + 1});
      for (std::uint16_t slot = 0; slot < slot_vices.size(); ++slot) {
        relays_.back().channel_up(SlotId{slot}, Incarnation{1});
      }
    }
    for (std::uint16_t slot = 0; slot < slot_vices.size(); ++slot) {
      sources_.emplace_back(StateSource::Options{SlotId{slot}, 3 * options.f + 1}, *origin.store);
    }
    restart();
  }

  // f nodes and g slots, any of them.
  void corrupt(Prng& prng) {
    for (std::uint32_t i = 0; i < options_.f; ++i) {
      node_vices[prng.below(node_vices.size())] = kVices[prng.below(std::size(kVices))];
    }
    for (std::uint32_t i = 0; i < options_.g; ++i) {
      slot_vices[1 + prng.below(slot_vices.size() - 1)] = kVices[prng.below(std::size(kVices))];
    }
  }
  // The executor comes back with the same store.
  void restart() {
    ++life_;
    fetcher = std::make_unique<StateFetcher>(StateFetcherConfig{.self = SlotId{0},
                                                                .f = options_.f,
                                                                .g = options_.g,
                                                                .bytes_per_second = options_.bytes_per_second,
                                                                .patience = Micros{kPatience}},
                                             store_);
    fetcher->tick(now);
    for (std::uint16_t node = 0; node < node_vices.size(); ++node) fetcher->node_up(NodeId{node});
  }

  // One thing that happens, or a tick.
  void turn() {
    const std::int64_t tick = now.value + 5'000;
    now = Micros{events_.empty() ? tick : std::min(tick, events_.begin()->first)};
    while (!events_.empty() && events_.begin()->first <= now.value) {
      const auto event = std::move(events_.begin()->second);
      events_.erase(events_.begin());
      event();
    }
    for (agreement::StateRelay& relay : relays_) relay.tick(now);
    for (StateSource& source : sources_) source.sent();
    fetcher->tick(now);
    output();
  }
  void output() {
    StateFetcherOutput out = fetcher->take_output();
    complete = complete || out.complete;
    stale += out.stale ? 1 : 0;
    arrived += out.arrived ? 1 : 0;
    for (auto& [node, wish] : out.ask) {
      ++asked;
      after_hop([this, node, wish = std::move(wish)] {
        std::ignore = relays_[node.value].request(SlotId{0}, Incarnation{1}, wish);
        pass_on(node);
      });
    }
  }
  // True: complete in time.
  bool run(Micros limit) {
    for (const std::int64_t end = now.value + limit.value; !complete && now.value < end;) turn();
    return complete;
  }
  void begin(Seq n, const Digest& root) {
    store_.adopt(root);
    complete = false;
    fetcher->begin(n);
  }
  // Execution touches this object.
  state::ReadOutcome touch(ObjectId id) {
    state::ReadOutcome outcome = store_.read(id);
    if (outcome.status == state::Status::kMissing) fetcher->want(std::span(&outcome.want, 1));
    return outcome;
  }

 private:
  Options options_;
  Origin& origin_;
  ObjectStore& store_;
  Prng prng_;

 public:
  std::vector<Vice> node_vices;  // all honest at first
  std::vector<Vice> slot_vices;  // 0 is the asker
  std::unique_ptr<StateFetcher> fetcher;
  // Instead of a vice: what the first correct answer becomes.
  std::function<void(StateParts&)> lie_once;
  Micros now{1'000'000};
  bool complete = false;
  int stale = 0;
  int arrived = 0;
  std::uint64_t asked = 0;

 private:
  void after(std::int64_t micros, std::function<void()> event) {
    events_.emplace(now.value + micros, std::move(event));
  }
  void after_hop(std::function<void()> event) {
    after(500 + static_cast<std::int64_t>(prng_.below(2'500)), std::move(event));
  }
  void pass_on(NodeId node) {
    for (auto& item : relays_[node.value].take_output().to_executor) {
      if (auto* wish = std::get_if<FetchState>(&item.message)) {
        after_hop([this, node, slot = item.to, wish = std::move(*wish)] { answer(node, slot, wish); });
        continue;
      }
      auto& parts = std::get<StateParts>(item.message);
      if (lie_once && !parts.parts.empty()) std::exchange(lie_once, nullptr)(parts);
      misbehave(node_vices[node.value], std::move(parts), [this, node](const StateParts& changed) {
        after_hop([this, node, changed, life = life_] {
          if (life == life_) std::ignore = fetcher->step(node, changed);  // channels are new with a new life
        });
      });
    }
  }
  void answer(NodeId node, SlotId slot, const FetchState& wish) {
    const auto snapshot = origin_.snapshots.find(wish.n);
    StateSource::Answer answer =
        sources_[slot.value].answer(node, wish, snapshot == origin_.snapshots.end() ? nullptr : snapshot->second);
    misbehave(slot_vices[slot.value], std::move(answer.parts), [this, node, slot](const StateParts& changed) {
      after_hop([this, node, slot, changed] {
        std::ignore = relays_[node.value].answer(slot, Incarnation{1}, changed);
        pass_on(node);
      });
    });
  }
  void misbehave(Vice vice, StateParts parts, std::function<void(const StateParts&)> send) {
    if (vice == Vice::kMoody) vice = prng_.below(2) == 0 ? Vice::kNone : kVices[prng_.below(std::size(kVices) - 1)];
    std::int64_t delay = 0;
    switch (vice) {
      case Vice::kNone:
      case Vice::kMoody:
        break;
      case Vice::kCorrupts:
        if (!parts.parts.empty()) flip(parts.parts[prng_.below(parts.parts.size())]);
        break;
      case Vice::kSwaps:
        if (parts.parts.size() > 1) {
          std::swap(parts.parts.front().bytes, parts.parts.back().bytes);
        } else if (!parts.parts.empty()) {
          parts.parts.front().prefix ^= std::uint64_t{1} << 63;
        }
        break;
      case Vice::kBombs: {
        const SharedBytes chunk(Bytes(agreement::kStatePartBytesMax, 7));
        for (int i = 0; i < 1'000; ++i) parts.parts.push_back({2, prng_.next(), 16, chunk});
        break;
      }
      case Vice::kEmpty:
        parts.parts.clear();
        break;
      case Vice::kDrips:
        if (parts.parts.size() > 1) parts.parts.resize(1);
        break;
      case Vice::kSlow:
        delay = kPatience * 9 / 10;
        break;
      case Vice::kCrawls:  // a byte a second
        for (const StatePart& part : parts.parts) delay += 1'000'000 * static_cast<std::int64_t>(part.bytes.size());
        break;
      case Vice::kSilent:
        return;
    }
    if (delay == 0) return send(parts);
    after(delay, [send = std::move(send), parts = std::move(parts)] { send(parts); });
  }
  void flip(StatePart& part) {
    if (part.bytes.empty()) {
      part.bytes = SharedBytes::copy("x");
      return;
    }
    Bytes bytes(part.bytes.view().begin(), part.bytes.view().end());
    bytes[prng_.below(bytes.size())] ^= static_cast<std::uint8_t>(1 + prng_.below(255));
    part.bytes = SharedBytes(std::move(bytes));
  }

  std::vector<agreement::StateRelay> relays_;
  std::vector<StateSource> sources_;
  std::multimap<std::int64_t, std::function<void()>> events_;
  int life_ = 0;
};

}  // namespace zz::execution::testing
