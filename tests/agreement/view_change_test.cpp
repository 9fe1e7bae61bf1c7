#include "agreement/view_change.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <functional>
#include <map>
#include <set>
#include <tuple>

#include "base/prng.hpp"

namespace zz::agreement {
namespace {

constexpr std::uint32_t kWindow = 8;

Digest digest(std::uint8_t name) {
  Digest d;
  d.bytes[0] = name;
  return d;
}
const Digest kA = digest('a');
const Digest kB = digest('b');
const Digest kNull{};

Claim claim(std::uint64_t n, const Digest& d, std::uint64_t view) { return {Seq{n}, d, View{view}}; }

CertificatePtr stable(std::uint64_t n) {
  if (n == 0) return nullptr;
  auto certificate = std::make_shared<StableCertificate>();
  certificate->state.n = Seq{n};
  return certificate;
}

struct Said {
  std::uint64_t h = 0;
  std::vector<Claim> p;
  std::vector<Claim> q;
};

ViewChangePtr message(std::size_t signer, Said said) {
  auto m = std::make_shared<ViewChange>();
  m->signer.value = static_cast<std::uint16_t>(signer);
  m->view.value = 9;
  m->stable = stable(said.h);
  std::sort(said.p.begin(), said.p.end());
  std::sort(said.q.begin(), said.q.end());
  m->prepared = std::move(said.p);
  m->pre_prepared = std::move(said.q);
  return m;
}

std::vector<ViewChangePtr> messages(const std::vector<Said>& said) {
  std::vector<ViewChangePtr> out;
  for (const Said& one : said) out.push_back(message(out.size(), one));
  return out;
}

// A message of a node that prepared these (so it pre-prepared them too).
Said prepared(std::vector<Claim> claims, std::uint64_t h = 0) { return {h, claims, claims}; }

std::optional<std::vector<Digest>> chosen(const std::vector<Said>& said, std::uint32_t f = 1) {
  const auto choice = choose(f, kWindow, messages(said));
  return choice ? std::optional(choice->chosen) : std::nullopt;
}
using Chosen = std::vector<Digest>;

// ---- the rules, one by one ----

TEST(Choose, NothingWasPreparedSoNothingIsChosen) { EXPECT_EQ(chosen({{}, {}, {}}), Chosen{}); }

TEST(Choose, WaitsForTwoThirdsOfTheNodes) {
  EXPECT_EQ(choose(1, kWindow, {}), std::nullopt);
  EXPECT_EQ(chosen({{}, {}}), std::nullopt);
  EXPECT_EQ(chosen({{}, {}, {}, {}}, 2), std::nullopt);
}

TEST(Choose, OnePreparedEntrySufficesWhenAnotherNodePrePreparedIt) {
  EXPECT_EQ(chosen({prepared({claim(1, kA, 0)}), {0, {}, {claim(1, kA, 0)}}, {}}), Chosen{kA});
}

TEST(Choose, WaitsWhileNoCorrectNodeIsKnownToHavePrePreparedIt) {
  EXPECT_EQ(chosen({prepared({claim(1, kA, 0)}), {}, {}}), std::nullopt);
  // Pre-prepared in an earlier view than it is said to be prepared in: does not count.
  EXPECT_EQ(chosen({prepared({claim(1, kA, 2)}), {0, {}, {claim(1, kA, 1)}}, {}}), std::nullopt);
  EXPECT_EQ(chosen({prepared({claim(1, kA, 2)}), {0, {}, {claim(1, kB, 2)}}, {}}), std::nullopt);
  EXPECT_EQ(chosen({prepared({claim(1, kA, 2)}), {0, {}, {claim(2, kA, 2)}}, {}}), std::nullopt);
}

TEST(Choose, PrePreparedInALaterViewCounts) {
  EXPECT_EQ(chosen({prepared({claim(1, kA, 2)}), {0, {}, {claim(1, kA, 3)}}, {}}), Chosen{kA});
}

TEST(Choose, AnUnsupportedEntryGivesWayToNullOnceTwoThirdsSaidNothing) {
  EXPECT_EQ(chosen({prepared({claim(2, kA, 0)}), {}, {}, {}}), Chosen{});
}

TEST(Choose, TheNewerViewWins) {
  EXPECT_EQ(
      chosen({prepared({claim(1, kA, 0)}), prepared({claim(1, kB, 1)}), {0, {}, {claim(1, kA, 0), claim(1, kB, 1)}}}),
      Chosen{kB});
}

TEST(Choose, AnOlderEntryWaitsForTwoThirdsWithoutANewerOne) {
  const Said newer{0, {claim(1, kB, 5)}, {}};  // nobody else pre-prepared it
  EXPECT_EQ(chosen({prepared({claim(1, kA, 0)}), prepared({claim(1, kA, 0)}), newer}), std::nullopt);
  EXPECT_EQ(chosen({prepared({claim(1, kA, 0)}), prepared({claim(1, kA, 0)}), newer, {}}), Chosen{kA});
}

TEST(Choose, TwoDigestsInOneViewWaitForAThirdWord) {
  const Said other{0, {claim(1, kB, 0)}, {claim(1, kB, 0)}};
  EXPECT_EQ(chosen({prepared({claim(1, kA, 0)}), {0, {}, {claim(1, kA, 0)}}, other}), std::nullopt);
  EXPECT_EQ(chosen({prepared({claim(1, kA, 0)}), {0, {}, {claim(1, kA, 0)}}, other, {}}), Chosen{kA});
}

TEST(Choose, OfSeveralPossibleDigestsTheNewestViewThenTheSmallest) {
  const Said both{0, {}, {claim(1, kA, 3), claim(1, kB, 3)}};
  const Said a = {0, {claim(1, kA, 3)}, {}};
  const Said b = {0, {claim(1, kB, 3)}, {}};
  EXPECT_EQ(chosen({a, b, both, both}), Chosen{kA});
  EXPECT_EQ(chosen({b, a, both, both}), Chosen{kA});
  const Said old_a = {0, {claim(1, kA, 2)}, {}};
  EXPECT_EQ(chosen({old_a, b, both, both}), Chosen{kB});
}

TEST(Choose, HolesBecomeNullAndTrailingNullsAreLeftOut) {
  const Said p = prepared({claim(3, kA, 0)});
  const Said lie = {0, {claim(7, kB, 0)}, {}};
  EXPECT_EQ(chosen({p, p, {}, lie}), (Chosen{kNull, kNull, kA}));
}

TEST(Choose, OneUndecidedNumberHoldsUpTheChoice) {
  EXPECT_EQ(chosen({prepared({claim(1, kA, 0), claim(2, kA, 0)}), prepared({claim(2, kA, 0)}), {}}), std::nullopt);
}

TEST(Choose, StartsAtTheHighestStableCheckpoint) {
  const auto choice = choose(
      1, kWindow, messages({prepared({claim(3, kA, 0), claim(5, kB, 0)}), {4, {}, {claim(5, kB, 0)}}, {2, {}, {}}}));
  ASSERT_TRUE(choice);
  EXPECT_EQ(stable_n(choice->stable), Seq{4});
  EXPECT_EQ(choice->chosen, Chosen{kB});
}

TEST(Choose, EntriesBeyondTheWindowCountAsNotSaid) {
  EXPECT_EQ(chosen({prepared({claim(kWindow, kA, 0)}), {}, {}}), std::nullopt);
  EXPECT_EQ(chosen({prepared({claim(kWindow + 1, kA, 0)}), {}, {}}), Chosen{});
  EXPECT_EQ(chosen({prepared({claim(~std::uint64_t{0}, kA, 0)}), {}, {}}), Chosen{});
}

TEST(Choose, TheLongestListsOfTheLargestClusterAreJudgedAtOnce) {
  constexpr std::uint64_t kNumbers = kClaimsMax;
  std::vector<Said> said(16);
  for (std::size_t i = 0; i < said.size(); ++i) {
    for (std::uint64_t n = 1; n <= kNumbers; ++n) {
      // Five liars claim newer views and digests of their own, as many as fit.
      const bool lies = i < 5;
      const Claim c = claim(n, digest(static_cast<std::uint8_t>(lies ? i + 1 : 9)), lies ? 8 : 3);
      said[i].p.push_back(c);
      said[i].q.push_back(c);
    }
  }
  const auto choice = choose(5, kNumbers, messages(said));
  ASSERT_TRUE(choice);
  EXPECT_EQ(choice->chosen, Chosen(kNumbers, digest(9)));
}

// ---- against the rule read literally ----

// The text of docs/protocol.md §7 with its quantifiers as they stand: "2f+1 messages" is a search over all subsets.
struct Literal {
  std::uint32_t f;
  std::uint32_t window;
  const std::vector<ViewChangePtr>& set;

  using Says = std::function<bool(const ViewChange&)>;

  [[nodiscard]] bool so_many_say(std::uint32_t count, const Says& says) const {
    std::uint32_t sayers = 0;
    for (std::size_t i = 0; i < set.size(); ++i) sayers |= says(*set[i]) ? 1u << i : 0u;
    for (std::uint32_t subset = 0; subset < 1u << set.size(); ++subset) {
      if (static_cast<std::uint32_t>(std::popcount(subset)) == count && (subset & ~sayers) == 0) return true;
    }
    return false;
  }

  [[nodiscard]] bool acceptable(Seq n, const Digest& d, View v) const {
    const bool a1 = so_many_say(2 * f + 1, [&](const ViewChange& m) {
      if (stable_n(m.stable) >= n) return false;
      for (const Claim& c : m.prepared) {
        if (c.n == n && c.view > v) return false;
        if (c.n == n && c.view == v && c.digest != d) return false;
      }
      return true;
    });
    const bool a2 = so_many_say(f + 1, [&](const ViewChange& m) {
      for (const Claim& c : m.pre_prepared) {
        if (c.n == n && c.digest == d && c.view >= v) return true;
      }
      return false;
    });
    return a1 && a2;
  }

  [[nodiscard]] bool null_acceptable(Seq n) const {
    return so_many_say(2 * f + 1, [&](const ViewChange& m) {
      for (const Claim& c : m.prepared) {
        if (c.n == n) return false;
      }
      return stable_n(m.stable) < n;
    });
  }

  struct Outcome {
    bool waits = false;
    Seq start;
    std::vector<Digest> chosen;
    int ties = 0;  // numbers with more than one acceptable digest
  };

  [[nodiscard]] Outcome outcome() const {
    Outcome out;
    for (const auto& m : set) out.start = std::max(out.start, stable_n(m->stable));
    std::vector<Digest> all;
    std::size_t needed = 0;  // numbers that must be decided
    std::size_t decided = 0;
    for (std::uint32_t i = 1; i <= window; ++i) {
      const Seq n{out.start.value + i};
      std::map<std::pair<std::uint64_t, Digest>, bool> candidates;  // newest view first, then smallest digest
      for (const auto& m : set) {
        for (const Claim& c : m->prepared) {
          if (c.n == n) candidates[{~c.view.value, c.digest}] = acceptable(n, c.digest, c.view);
        }
      }
      if (!candidates.empty()) needed = i;
      std::vector<Digest> winners;
      for (const auto& [key, good] : candidates) {
        if (good && std::find(winners.begin(), winners.end(), key.second) == winners.end())
          winners.push_back(key.second);
      }
      if (winners.size() > 1) ++out.ties;
      if (!winners.empty()) {
        all.push_back(winners.front());
      } else if (null_acceptable(n)) {
        all.push_back(kNull);
      } else {
        all.push_back(kNull);
        continue;
      }
      if (decided == i - 1) decided = i;
    }
    out.waits = set.size() < 2 * f + 1 || decided < needed;
    for (std::size_t i = 0; i < needed; ++i) out.chosen.push_back(all[i]);
    while (!out.chosen.empty() && out.chosen.back() == kNull) out.chosen.pop_back();
    return out;
  }
};

class RandomSets {
 public:
  RandomSets(std::uint32_t f, std::uint64_t seed) : f_(f), prng_(seed) {}

  std::vector<ViewChangePtr> draw() {
    const std::uint64_t style = prng_.below(3);
    const std::uint64_t size = 2 * f_ + prng_.below(f_ + 2);  // sometimes one too few
    std::vector<ViewChangePtr> set;
    for (std::uint64_t i = 0; i < size; ++i) {
      const bool lies = style == 0 || (style == 1 && i < f_);
      set.push_back(message(i, lies ? anything() : plausible()));
    }
    return set;
  }

 private:
  // Small enough a world that claims meet.
  Said anything() {
    Said said;
    said.h = prng_.below(3);
    for (std::uint64_t n = 1; n <= 6; ++n) {
      if (prng_.below(2) == 0) said.p.push_back(claim(n, name(), prng_.below(4)));
      for (std::uint8_t d = 'a'; d <= 'c'; ++d) {
        if (prng_.below(2) == 0) said.q.push_back(claim(n, digest(d), prng_.below(4)));
      }
    }
    return said;
  }

  // Batch n of view v is the same for all, as it is for correct nodes; each has a part of it.
  Said plausible() {
    Said said;
    said.h = prng_.below(8) == 0 ? 1 : 0;
    for (std::uint64_t n = said.h + 1; n <= 4; ++n) {
      std::map<Digest, std::uint64_t> newest;
      for (std::uint64_t v = 0; v < 3; ++v) {
        if (prng_.below(4) != 0) newest[of_view(n, v)] = v;
      }
      for (const auto& [d, v] : newest) said.q.push_back(claim(n, d, v));
      if (newest.empty() || prng_.below(2) == 0) continue;
      const auto last = std::max_element(newest.begin(), newest.end(),
                                         [](const auto& a, const auto& b) { return a.second < b.second; });
      said.p.push_back(claim(n, last->first, last->second));
    }
    return said;
  }

  Digest name() { return digest(static_cast<std::uint8_t>('a' + prng_.below(3))); }
  static Digest of_view(std::uint64_t n, std::uint64_t v) {
    return digest(static_cast<std::uint8_t>('a' + (n * v) % 3));
  }

  std::uint32_t f_;
  Prng prng_;
};

void compare_with_the_text(std::uint32_t f, int sets) {
  RandomSets random(f, f);
  std::map<std::string, int> seen;
  for (int i = 0; i < sets; ++i) {
    const std::vector<ViewChangePtr> set = random.draw();
    // Half of the sets with a window that cuts some numbers off.
    const std::uint32_t window = i % 2 == 0 ? kWindow : 3;
    const Literal::Outcome expected = Literal{f, window, set}.outcome();
    const auto choice = choose(f, window, set);
    ASSERT_EQ(!choice, expected.waits) << "set " << i;
    ++seen[expected.waits ? "waits" : "chooses"];
    if (!choice) continue;
    ASSERT_EQ(stable_n(choice->stable), expected.start) << "set " << i;
    ASSERT_EQ(choice->chosen, expected.chosen) << "set " << i;
    if (expected.ties > 0) ++seen["ties"];
    if (expected.start > Seq{}) ++seen["stable"];
    if (!expected.chosen.empty()) ++seen["values"];
    if (std::count(expected.chosen.begin(), expected.chosen.end(), kNull) > 0) ++seen["nulls"];
  }
  for (const char* what : {"waits", "chooses", "ties", "stable", "values", "nulls"}) {
    EXPECT_GT(seen[what], sets / 500) << what;
  }
}

TEST(Choose, AgreesWithTheTextOnRandomSetsOfFourNodes) { compare_with_the_text(1, 100'000); }
TEST(Choose, AgreesWithTheTextOnRandomSetsOfSevenNodes) { compare_with_the_text(2, 40'000); }

TEST(Choose, DependsOnTheSetAndNotOnItsOrder) {
  RandomSets random(1, 99);
  for (int i = 0; i < 2'000; ++i) {
    std::vector<ViewChangePtr> set = random.draw();
    const auto first = choose(1, kWindow, set);
    std::reverse(set.begin(), set.end());
    const auto second = choose(1, kWindow, set);
    ASSERT_EQ(first.has_value(), second.has_value());
    if (!first) continue;
    ASSERT_EQ(first->chosen, second->chosen);
  }
}

// ---- AS-05: what may have been committed survives ----
//
// A model of batch number 1 at 2f+1 correct nodes in views 0, 1, 2. In each view every correct node pre-prepares
// nothing or something it may; what f+1 correct nodes pre-prepared may be prepared at any of them (the liars
// help), and what f+1 correct nodes prepared may be committed. Then all send VIEW-CHANGEs, the liars say whatever
// they like, and any 2f+1 or more messages may be the next view's proof. A liar as primary may show different
// proofs to different nodes.

enum Value : std::uint8_t { kValueA, kValueB, kValueNull, kValues };  // kValueNull: the null batch
using Views = std::array<int, kValues>;                               // the newest view per value, or -1

Digest digest_of(int value) { return digest(static_cast<std::uint8_t>('a' + value)); }

struct NodeState {
  int value = -1;  // P: prepared this ...
  int view = -1;   // ... in this view
  Views q{-1, -1, -1};
  auto operator<=>(const NodeState&) const = default;
};
using NodeStates = std::vector<NodeState>;  // a sorted set: the nodes' names do not matter

ViewChangePtr message_of(std::size_t signer, const NodeState& state) {
  Said said;
  if (state.value >= 0) said.p.push_back(claim(1, digest_of(state.value), static_cast<std::uint64_t>(state.view)));
  for (int d = 0; d < kValues; ++d) {
    const int view = state.q[static_cast<std::size_t>(d)];
    if (view >= 0) said.q.push_back(claim(1, digest_of(d), static_cast<std::uint64_t>(view)));
  }
  return message(signer, said);
}

// What a set of messages lets a new view do, as bits: a value each, and these.
constexpr std::uint32_t kFree = 1u << kValues;         // number 1 is open: the primary proposes what it likes
constexpr std::uint32_t kWait = 1u << (kValues + 1u);  // more messages needed

std::uint32_t outcome_of(std::uint32_t f, const std::vector<ViewChangePtr>& set) {
  const auto choice = choose(f, kWindow, set);
  if (!choice) return kWait;
  if (choice->chosen.empty()) return kFree;
  EXPECT_EQ(choice->chosen.size(), 1u);
  if (choice->chosen[0] == kNull) return 1u << kValueNull;
  return 1u << (choice->chosen[0].bytes[0] - 'a');
}

// Everything that a liar may say in a VIEW-CHANGE for `view`.
std::vector<NodeState> lies_for(int view) {
  std::vector<NodeState> lies;
  for (int a = -1; a < view; ++a) {
    for (int b = -1; b < view; ++b) {
      for (int null = -1; null < view; ++null) {
        lies.push_back({-1, -1, {a, b, null}});
        for (int d = 0; d < kValues; ++d) {
          for (int v = 0; v < view; ++v) lies.push_back({d, v, {a, b, null}});
        }
      }
    }
  }
  return lies;
}

std::uint32_t allowed_by(std::uint32_t outcomes) {
  const std::uint32_t values = outcomes & ((1u << kValues) - 1);
  return (outcomes & kFree) != 0 ? values | 1u << kValueA | 1u << kValueB : values;
}

class ExhaustiveModel {
 public:
  void run() {
    std::set<State> states{{NodeStates(3), 0}};
    for (int view = 0; view < 3 && !::testing::Test::HasFailure(); ++view) {
      std::set<State> next;
      for (const State& state : states) {
        const std::uint32_t allowed =
            view == 0 ? 1u << kValueA | 1u << kValueB : allowed_by(outcomes(state.nodes, view));
        act(state, view, allowed, next);
      }
      states = std::move(next);
      known_.clear();
      for (const State& state : states) {
        judge(state, view + 1);
        if (::testing::Test::HasFailure()) return;
      }
      known_states_ += states.size();
    }
  }
  [[nodiscard]] std::size_t known_states() const { return known_states_; }
  [[nodiscard]] std::size_t committed_states() const { return committed_states_; }
  [[nodiscard]] std::size_t choices() const { return choices_; }

 private:
  struct State {
    NodeStates nodes;
    std::uint32_t committed = 0;  // values that may have been committed at some correct node
    auto operator<=>(const State&) const = default;
  };

  void act(const State& state, int view, std::uint32_t allowed, std::set<State>& next) {
    std::array<int, 3> did{};
    for (did[0] = -1; did[0] < kValues; ++did[0]) {
      for (did[1] = -1; did[1] < kValues; ++did[1]) {
        for (did[2] = -1; did[2] < kValues; ++did[2]) {
          const bool may = std::all_of(did.begin(), did.end(), [&](int d) { return d < 0 || (allowed >> d & 1) != 0; });
          if (may) prepare(state, view, did, next);
        }
      }
    }
  }

  void prepare(const State& state, int view, const std::array<int, 3>& did, std::set<State>& next) {
    for (std::uint32_t prepares = 0; prepares < 8; ++prepares) {  // subsets of the nodes
      State after = state;
      std::array<int, kValues> prepared_by{};
      bool possible = true;
      for (std::size_t i = 0; i < 3; ++i) {
        if (did[i] >= 0) after.nodes[i].q[static_cast<std::size_t>(did[i])] = view;
        if ((prepares >> i & 1) == 0) continue;
        possible = possible && did[i] >= 0 && std::count(did.begin(), did.end(), did[i]) >= 2;
        if (!possible) break;
        after.nodes[i].value = did[i];
        after.nodes[i].view = view;
        ++prepared_by[static_cast<std::size_t>(did[i])];
      }
      if (!possible) continue;
      for (int d = 0; d < kValues; ++d) {
        if (prepared_by[static_cast<std::size_t>(d)] >= 2) after.committed |= 1u << d;
      }
      std::sort(after.nodes.begin(), after.nodes.end());
      next.insert(std::move(after));
    }
  }

  void judge(const State& state, int view) {
    const std::uint32_t possible = outcomes(state.nodes, view);
    if (state.committed != 0) {
      ++committed_states_;
      ASSERT_EQ(std::popcount(state.committed), 1) << "two values committed";
      ASSERT_EQ(possible & ~kWait & ~state.committed, 0u) << "a committed value was replaced in view " << view;
    }
    // All correct nodes' messages suffice, with the liar's or without.
    ASSERT_EQ(outcomes_of_set(state.nodes, view, false) & kWait, 0u) << "waits for ever in view " << view;
    ASSERT_EQ(outcomes_of_set(state.nodes, view, true) & kWait, 0u) << "waits for ever in view " << view;
  }

  // Over all sets of 2f+1 messages and more, and all lies.
  std::uint32_t outcomes(const NodeStates& nodes, int view) {
    std::uint32_t all = outcomes_of_set(nodes, view, false) | outcomes_of_set(nodes, view, true);
    for (std::size_t left_out = 0; left_out < 3; ++left_out) {
      NodeStates two = nodes;
      two.erase(two.begin() + static_cast<std::ptrdiff_t>(left_out));
      all |= outcomes_of_set(two, view, true);
    }
    return all;
  }

  std::uint32_t outcomes_of_set(const NodeStates& nodes, int view, bool with_liar) {
    const auto key = std::pair{nodes, with_liar};
    if (const auto at = known_.find(key); at != known_.end()) return at->second;
    std::vector<ViewChangePtr> set;
    for (const NodeState& node : nodes) set.push_back(message_of(set.size(), node));
    std::uint32_t all = 0;
    if (!with_liar) {
      all = outcome_of(1, set);
      ++choices_;
    } else {
      set.emplace_back();
      for (const ViewChangePtr& lie : lies(view)) {
        set.back() = lie;
        all |= outcome_of(1, set);
        ++choices_;
      }
    }
    known_[key] = all;
    return all;
  }

  const std::vector<ViewChangePtr>& lies(int view) {
    auto& out = lies_[view];
    if (out.empty()) {
      for (const NodeState& lie : lies_for(view)) out.push_back(message_of(3, lie));
    }
    return out;
  }

  std::map<std::pair<NodeStates, bool>, std::uint32_t> known_;  // outcomes in the view at hand
  std::map<int, std::vector<ViewChangePtr>> lies_;
  std::size_t known_states_ = 0;
  std::size_t committed_states_ = 0;
  std::size_t choices_ = 0;
};

TEST(Acceptance, AS05_WhatMayBeCommittedSurvivesEverySetOfMessagesAmongFourNodes) {
  ExhaustiveModel model;
  model.run();
  RecordProperty("states", static_cast<int>(model.known_states()));
  RecordProperty("choices", static_cast<int>(model.choices()));
  EXPECT_GT(model.known_states(), 1'000u);
  EXPECT_GT(model.committed_states(), 100u);
}

// The same model with f = 2, walked at random: five correct nodes, two liars.
class RandomModel {
 public:
  explicit RandomModel(std::uint64_t seed) : prng_(seed) {}

  void walk() {
    std::vector<NodeState> nodes(5);
    std::uint32_t committed = 0;
    for (int view = 0; view < 3; ++view) {
      // What nodes may pre-prepare: the proofs that one or two sets make.
      std::uint32_t allowed = 1u << kValueA | 1u << kValueB;
      if (view > 0) allowed = allowed_by(outcome_of(2, some_set(nodes, view)) | outcome_of(2, some_set(nodes, view)));
      act(nodes, view, allowed, committed);
      ASSERT_LE(std::popcount(committed), 1) << "two values committed";
      judge(nodes, view + 1, committed);
      if (::testing::Test::HasFailure()) return;
    }
    if (committed != 0) ++committed_walks;
  }
  int committed_walks = 0;

 private:
  void act(std::vector<NodeState>& nodes, int view, std::uint32_t allowed, std::uint32_t& committed) {
    const int favourite = static_cast<int>(prng_.below(kValues));
    std::array<int, kValues> pre_prepared_by{};
    std::vector<int> did;
    for (NodeState& node : nodes) {
      const int d = prng_.below(4) == 0 ? static_cast<int>(prng_.below(kValues)) : favourite;
      did.push_back((allowed >> d & 1) != 0 && prng_.below(6) != 0 ? d : -1);
      if (did.back() < 0) continue;
      node.q[static_cast<std::size_t>(d)] = view;
      ++pre_prepared_by[static_cast<std::size_t>(d)];
    }
    std::array<int, kValues> prepared_by{};
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      if (did[i] < 0 || pre_prepared_by[static_cast<std::size_t>(did[i])] < 3 || prng_.below(3) == 0) continue;
      nodes[i].value = did[i];
      nodes[i].view = view;
      ++prepared_by[static_cast<std::size_t>(did[i])];
    }
    for (int d = 0; d < kValues; ++d) {
      if (prepared_by[static_cast<std::size_t>(d)] >= 3) committed |= 1u << d;
    }
  }

  void judge(const std::vector<NodeState>& nodes, int view, std::uint32_t committed) {
    for (int round = 0; round < 3; ++round) {
      const std::vector<ViewChangePtr> everybody = everybodys(nodes, view);
      for (std::uint32_t subset = 0; subset < 1u << 7; ++subset) {
        if (std::popcount(subset) < 5) continue;
        const std::uint32_t outcome = outcome_of(2, pick(everybody, subset));
        ASSERT_TRUE(committed == 0 || (outcome & ~kWait & ~committed) == 0) << "a committed value was replaced";
        ASSERT_FALSE((subset & 31) == 31 && outcome == kWait) << "waits for ever";
      }
    }
  }

  std::vector<ViewChangePtr> everybodys(const std::vector<NodeState>& nodes, int view) {
    std::vector<ViewChangePtr> out;
    for (const NodeState& node : nodes) out.push_back(message_of(out.size(), node));
    const NodeState first = a_lie(view);
    out.push_back(message_of(5, first));
    out.push_back(message_of(6, prng_.below(2) == 0 ? first : a_lie(view)));  // often with one voice
    return out;
  }

  NodeState a_lie(int view) {
    const auto some_view = [&] { return static_cast<int>(prng_.below(static_cast<std::uint64_t>(view) + 1)) - 1; };
    NodeState lie{static_cast<int>(prng_.below(kValues)), some_view(), {some_view(), some_view(), some_view()}};
    if (lie.view < 0) lie.value = -1;
    return lie;
  }

  static std::vector<ViewChangePtr> pick(const std::vector<ViewChangePtr>& from, std::uint32_t subset) {
    std::vector<ViewChangePtr> out;
    for (std::size_t i = 0; i < from.size(); ++i) {
      if ((subset >> i & 1) != 0) out.push_back(from[i]);
    }
    return out;
  }

  std::vector<ViewChangePtr> some_set(const std::vector<NodeState>& nodes, int view) {
    std::uint32_t subset = 0;
    while (std::popcount(subset) < 5) subset = static_cast<std::uint32_t>(prng_.below(1u << 7));
    return pick(everybodys(nodes, view), subset);
  }

  Prng prng_;
};

TEST(Acceptance, AS05_WhatMayBeCommittedSurvivesAmongSevenNodes) {
  RandomModel model(5);
  for (int i = 0; i < 3'000 && !::testing::Test::HasFailure(); ++i) model.walk();
  EXPECT_GT(model.committed_walks, 300);
}

// ---- AS-06: bogus entries of f nodes do not hide what the others prepared ----

TEST(Acceptance, AS06_NoLieHidesWhatTheOthersPrepared) {
  // Nodes 0 and 1 prepared a in view 1, node 2 pre-prepared it; b was pre-prepared at node 2 in view 0. Node 3 lies.
  const std::vector<Said> correct = {
      prepared({claim(1, kA, 1)}), prepared({claim(1, kA, 1)}), {0, {}, {claim(1, kA, 1), claim(1, kB, 0)}}};
  int lies = 0;
  for (std::uint64_t n = 1; n <= kWindow; ++n) {
    for (const Digest& d : {kA, kB, digest('x')}) {
      for (std::uint64_t view = 0; view < 9; ++view) {
        for (const bool says_pre_prepared : {false, true}) {
          Said lie{0, {claim(n, d, view)}, {}};
          if (says_pre_prepared) lie.q = lie.p;
          std::vector<Said> all = correct;
          all.push_back(lie);
          ASSERT_EQ(chosen(all), Chosen{kA}) << "n " << n << ", view " << view;
          ++lies;
        }
      }
    }
  }
  EXPECT_EQ(lies, 8 * 3 * 9 * 2);
}

TEST(Acceptance, AS06_ALiarsOlderCheckpointAndItsEntriesBelowTheStableOneChangeNothing) {
  const Said correct = prepared({claim(5, kA, 0)}, 4);
  const Said lie = {0, {claim(1, kB, 8), claim(4, kB, 8), claim(5, kB, 8)}, {claim(5, kB, 8)}};
  const auto choice = choose(1, kWindow, messages({correct, correct, correct, lie}));
  ASSERT_TRUE(choice);
  EXPECT_EQ(stable_n(choice->stable), Seq{4});
  EXPECT_EQ(choice->chosen, Chosen{kA});
}

}  // namespace
}  // namespace zz::agreement
