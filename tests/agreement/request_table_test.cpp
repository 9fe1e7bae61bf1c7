// RequestTable against a plain model, over seeded random calls, with its own invariants recounted on the way.

#include "agreement/request_table.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "base/prng.hpp"
#include "tests/agreement/request_table_test_support.hpp"

namespace zz::agreement::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

struct Key {
  std::uint32_t client;
  std::uint64_t session;
  std::uint64_t number;
  auto operator<=>(const Key&) const = default;
};
Key key_of(const Reference& r) { return {r.client.value, r.session.value, r.number.value}; }

class Model {
 public:
  explicit Model(std::uint64_t seed) : prng_(seed), table_(limits()) {}

  void step() {
    switch (prng_.below(40)) {
      case 0:
        release_all();
        break;
      case 1:
        if (prng_.below(8) == 0) {
          unproven_.insert(static_cast<std::uint32_t>(prng_.below(3)));
          for (const std::uint32_t client : unproven_) table_.mark_unproven(ClientId{client});
        }
        break;
      case 2:
        queries();
        break;
      case 3:
      case 4:
        claim_chosen();
        break;
      default:
        any_of_normal_service();
        break;
    }
    table_.check();
    check();
  }
  [[nodiscard]] std::size_t delivered() const { return delivered_.size(); }
  [[nodiscard]] std::size_t repeats() const { return repeats_; }
  [[nodiscard]] std::size_t relayed() const { return relayed_; }

 private:
  static RequestLimits limits() {
    RequestLimits limits;
    limits.client_window = kWindowOfClient;
    return limits;
  }
  void any_of_normal_service() {
    switch (prng_.below(9)) {
      case 0:
      case 1:
      case 2:
      case 3:
        vouch(any_request());
        break;
      case 4:
        claim();
        break;
      case 5:
        cut();
        break;
      case 6:
        release();
        break;
      case 7:
        vouched_by();
        break;
      default:
        deliver();
        break;
    }
  }

  // ---- what must hold after every step

  bool waits(const Key& key) const { return vouched_.count(key) != 0 && claimed_.count(key) == 0; }
  bool may_go(const Key& key) const {
    if (unproven_.count(key.client) == 0) return true;
    const auto votes = votes_.find({key, vouched_.at(key)});
    return votes != votes_.end() && votes->second.size() >= 2;
  }
  void check() {
    std::size_t free = 0;
    std::set<std::uint32_t> waiting;
    for (const auto& [key, digest] : vouched_) {
      ASSERT_TRUE(table_.vouches({ClientId{key.client}, SessionId{key.session}, RequestNumber{key.number}, digest}));
      if (!waits(key)) continue;
      waiting.insert(key.client);
      if (may_go(key)) ++free;
    }
    ASSERT_EQ(table_.pending(), vouched_.size());
    ASSERT_EQ(table_.queued(), free);
    ASSERT_EQ(table_.position(), delivered_.size());
    std::set<std::uint32_t> heads;
    for (const PrimaryWatch::Head& head : table_.heads()) {
      ASSERT_TRUE(waits({head.client.value, head.session.value, head.number.value}));
      ASSERT_TRUE(heads.insert(head.client.value).second);
    }
    ASSERT_EQ(heads, waiting);
  }

  // ---- calls

  std::uint64_t low(std::uint32_t client, std::uint64_t session) const {
    std::uint64_t low = 0;
    while (delivered_.count({client, session, low + 1}) != 0) ++low;
    return low;
  }
  RequestPtr any_request() {
    const auto client = static_cast<std::uint32_t>(prng_.below(3));
    const std::uint64_t session = prng_.below(2);
    const std::uint64_t base = low(client, session);
    const std::uint64_t number = base + prng_.below(2 * kWindowOfClient + 3);
    return make_request(client, session, number, prng_.below(5) == 0 ? "other" : "op");
  }
  Refusal expected_of(const RequestPtr& request) const {
    const Key key = key_of(reference_of(*request));
    if (key.number == 0) return Refusal::kMalformed;
    if (delivered_.count(key) != 0) return Refusal::kDuplicate;
    if (key.number > low(key.client, key.session) + 2 * kWindowOfClient) {
      // A session with nothing vouched and nothing delivered is not known.
      return known(key) ? Refusal::kOutOfWindow : Refusal::kSessionExpired;
    }
    const auto mine = vouched_.find(key);
    if (mine == vouched_.end()) return Refusal::kNone;
    return mine->second == request->digest ? Refusal::kDuplicate : Refusal::kConflict;
  }
  void vouch(const RequestPtr& request) { took(request, table_.vouch(request)); }
  void took(const RequestPtr& request, const RequestTable::Vouched& got) {
    const Key key = key_of(reference_of(*request));
    ASSERT_EQ(got.refusal, expected_of(request));
    if (got.refusal != Refusal::kNone) return;
    vouched_[key] = request->digest;
    std::erase_if(votes_, [&](const auto& v) { return v.first.first == key && v.first.second != request->digest; });
    const auto claimed = claimed_.find(key);
    ASSERT_EQ(got.claimed_by.value, claimed == claimed_.end() ? 0 : claimed->second.first);
    if (claimed != claimed_.end()) {
      ASSERT_EQ(got.index, claimed->second.second);
    }
  }
  bool known(const Key& key) const {
    const auto of = [&](const auto& keyed) { return keyed.client == key.client && keyed.session == key.session; };
    return std::any_of(delivered_.begin(), delivered_.end(), of) ||
           std::any_of(vouched_.begin(), vouched_.end(), [&](const auto& item) { return of(item.first); });
  }

  void vouched_by() {
    const RequestPtr request = any_request();
    const Reference reference = reference_of(*request);
    const Key key = key_of(reference);
    const NodeId from{static_cast<std::uint16_t>(1 + prng_.below(3))};
    const bool takeable = key.number != 0 && delivered_.count(key) == 0 &&
                          key.number <= low(key.client, key.session) + 2 * kWindowOfClient;
    const auto mine = vouched_.find(key);
    bool expected = false;
    if (takeable) {
      const bool news = votes_[{key, reference.digest}].insert(from.value).second;
      expected = mine == vouched_.end() && news && votes_[{key, reference.digest}].size() == 2;
    }
    ASSERT_EQ(table_.vouched_by(from, reference), expected);
    if (prng_.below(2) == 0) return;
    const RequestTable::Vouched got = table_.take_relayed(request);
    if (vouched_.count(key) != 0 && vouched_[key] == reference.digest) {
      ASSERT_EQ(got.refusal, Refusal::kDuplicate);
    } else if (const auto votes = votes_.find({key, reference.digest});
               votes == votes_.end() || votes->second.size() < 2 || vouched_.count(key) != 0) {
      const bool conflicts = vouched_.count(key) != 0 && got.refusal == Refusal::kConflict;
      ASSERT_TRUE(conflicts || got.refusal == Refusal::kNotReady);
    } else {
      took(request, got);
      ++relayed_;
    }
  }
  void queries() {
    if (prng_.below(3) == 0) {
      table_.ask_again();
      std::erase_if(asked_, [&](const Key& key) { return waits(key) && !may_go(key); });
    }
    std::set<Key> due;
    for (const auto& [key, digest] : vouched_) {
      if (waits(key) && unproven_.count(key.client) != 0 && asked_.count(key) == 0) due.insert(key);
    }
    const std::size_t max = prng_.below(2) == 0 ? 1'000 : prng_.below(4);
    const std::vector<Reference> got = table_.take_queries(max);
    ASSERT_EQ(got.size(), std::min(due.size(), max));
    for (const Reference& r : got) {
      ASSERT_EQ(due.count(key_of(r)), 1u);
      ASSERT_EQ(vouched_.at(key_of(r)), r.digest);
      ASSERT_TRUE(asked_.insert(key_of(r)).second);
    }
  }

  void claim() {
    std::vector<Reference> references;
    for (std::uint64_t i = 0; i <= prng_.below(4); ++i) references.push_back(reference_of(*any_request()));
    Refusal expected = Refusal::kNone;
    std::set<Key> own;
    std::uint32_t missing = 0;
    for (const Reference& r : references) {
      const Key key = key_of(r);
      if (key.number == 0)
        expected = Refusal::kMalformed;
      else if (delivered_.count(key) != 0 || claimed_.count(key) != 0 || !own.insert(key).second)
        expected = Refusal::kDuplicate;
      if (expected != Refusal::kNone) break;
      const auto mine = vouched_.find(key);
      if (mine == vouched_.end() || mine->second != r.digest) ++missing;
    }
    std::vector<RequestPtr> bodies;
    std::uint32_t unvouched = 0;
    const Refusal got = table_.claim(Seq{next_}, references, bodies, unvouched);
    ASSERT_EQ(got == Refusal::kNone, expected == Refusal::kNone);
    if (got != Refusal::kNone) return;
    ASSERT_EQ(unvouched, missing);
    in_flight(references, bodies);
  }
  // Anything a hostile proof may choose: repeats of its own, of other batches in flight and of what is delivered.
  void claim_chosen() {
    std::vector<Reference> references;
    for (std::uint64_t i = 0; i <= prng_.below(4); ++i) {
      if (!batches_.empty() && prng_.below(3) == 0) {
        const auto& other = batches_[prng_.below(batches_.size())].second;
        references.push_back(other[prng_.below(other.size())]);
      } else if (!delivered_.empty() && prng_.below(4) == 0) {
        const Key& key = *delivered_.begin();
        references.push_back(reference_of(*make_request(key.client, key.session, key.number)));
      } else {
        references.push_back(reference_of(*any_request()));
      }
    }
    std::vector<RequestPtr> bodies;
    std::uint32_t unvouched = 0;
    table_.claim_chosen(Seq{next_}, references, bodies, unvouched);
    std::uint32_t missing = 0;
    for (std::size_t i = 0; i < references.size(); ++i) {
      const auto mine = vouched_.find(key_of(references[i]));
      const bool here = mine != vouched_.end() && mine->second == references[i].digest;
      ASSERT_EQ(bodies[i] != nullptr, here);
      missing += here ? 0u : 1u;
    }
    ASSERT_EQ(unvouched, missing);
    in_flight(references, bodies);
  }

  void cut() {
    const auto most = static_cast<std::uint32_t>(prng_.below(3) == 0 ? 1'000 : 1 + prng_.below(5));
    const RequestTable::Cut cut = table_.cut(Seq{next_}, most, 100'000);
    for (const Reference& r : cut.references) {
      ASSERT_TRUE(waits(key_of(r)));
      ASSERT_TRUE(may_go(key_of(r)));
      ASSERT_EQ(vouched_.at(key_of(r)), r.digest);
    }
    if (cut.references.size() < most) {
      ASSERT_EQ(table_.queued(), 0u);
    }
    if (!cut.references.empty()) in_flight(cut.references, cut.bodies);
  }
  void in_flight(const std::vector<Reference>& references, const std::vector<RequestPtr>& bodies) {
    for (std::uint32_t i = 0; i < references.size(); ++i) {
      const Key key = key_of(references[i]);
      if (key.number != 0 && delivered_.count(key) == 0) claimed_.try_emplace(key, next_, i);
      if (bodies[i]) {
        ASSERT_EQ(reference_of(*bodies[i]), references[i]);
      }
    }
    batches_.emplace_back(next_++, references);
  }
  void let_go(std::uint64_t n) {
    std::erase_if(claimed_, [n](const auto& item) { return item.second.first == n; });
  }
  void release() {  // of the newest batch, as when its proposal is taken back
    if (batches_.empty()) return;
    const auto [n, references] = batches_.back();
    batches_.pop_back();
    table_.release(Seq{n}, references);
    let_go(n);
  }
  void release_all() {
    table_.release_all();
    batches_.clear();
    claimed_.clear();
    asked_.clear();
    // A session's requests go in ascending order.
    std::map<std::pair<std::uint32_t, std::uint64_t>, std::uint64_t> last;
    const RequestTable::Cut cut = table_.cut(Seq{next_}, 1'000, 100'000);
    for (const Reference& r : cut.references) {
      if (unproven_.count(r.client.value) != 0) continue;
      ASSERT_LT(std::exchange(last[{r.client.value, r.session.value}], r.number.value), r.number.value);
    }
    if (!cut.references.empty()) in_flight(cut.references, cut.bodies);
  }
  void deliver() {
    if (batches_.empty()) return;
    const auto n = batches_.front().first;
    const auto references = batches_.front().second;
    batches_.erase(batches_.begin());
    // Some correct node vouches for whatever commits, so it lies in the window by then.
    const bool possible = std::all_of(references.begin(), references.end(), [&](const Reference& r) {
      return r.number.value <= low(r.client.value, r.session.value) + 2 * kWindowOfClient;
    });
    if (!possible) {
      table_.release(Seq{n}, references);
      let_go(n);
      return;
    }
    for (const Reference& r : references) {
      const auto claim = claimed_.find(key_of(r));
      if (claim == claimed_.end()) continue;
      ASSERT_EQ(table_.claimed(r.client, r.session, r.number).n, Seq{claim->second.first});
    }
    table_.deliver(Seq{n}, references);
    for (const Reference& r : references) {
      const Key key = key_of(r);
      claimed_.erase(key);
      vouched_.erase(key);
      asked_.erase(key);
      std::erase_if(votes_, [&](const auto& v) { return v.first.first == key; });
      if (key.number != 0 && !delivered_.insert(key).second) ++repeats_;
      ASSERT_EQ(table_.find(r), nullptr);
    }
    // What only a batch without place here named has lost its claim with it.
    let_go(n);
  }

  Prng prng_;
  RequestTable table_;
  std::map<Key, Digest> vouched_;  // and not delivered
  std::map<Key, std::pair<std::uint64_t, std::uint32_t>> claimed_;
  std::set<Key> delivered_;
  std::set<std::uint32_t> unproven_;
  std::set<Key> asked_;
  std::map<std::pair<Key, Digest>, std::set<std::uint16_t>> votes_;        // of other nodes
  std::vector<std::pair<std::uint64_t, std::vector<Reference>>> batches_;  // in flight
  std::uint64_t next_ = 1;
  std::size_t repeats_ = 0;
  std::size_t relayed_ = 0;
};

TEST(RequestTable, AgreesWithAPlainModelUnderAnyCalls) {
  std::size_t delivered = 0;
  std::size_t repeats = 0;
  std::size_t relayed = 0;
  for (std::uint64_t seed = 1; seed <= 120; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Model model(seed);
    for (int i = 0; i < 600; ++i) {
      model.step();
      if (::testing::Test::HasFatalFailure()) return;
    }
    delivered += model.delivered();
    repeats += model.repeats();
    relayed += model.relayed();
  }
  EXPECT_GT(delivered, 3'000u);
  EXPECT_GT(repeats, 100u);
  EXPECT_GT(relayed, 50u);
}

// At a backup others' proposals take the requests; what they leave in the client's queue goes again, behind one request
// that nobody ever proposes.
TEST(RequestTable, TheQueueDoesNotGrowWithRequestsThatOthersOrdered) {
  RequestTable table({});
  ASSERT_EQ(table.vouch(make_request(1, 1, 1)).refusal, Refusal::kNone);
  for (std::uint64_t n = 1; n <= 40'000; ++n) {
    const RequestPtr request = make_request(1, 2, n);
    ASSERT_EQ(table.vouch(request).refusal, Refusal::kNone);
    std::vector<RequestPtr> bodies;
    std::uint32_t unvouched = 0;
    ASSERT_EQ(table.claim(Seq{n}, {reference_of(*request)}, bodies, unvouched), Refusal::kNone);
    table.deliver(Seq{n}, {reference_of(*request)});
    if (n % 1'000 == 0) table.check();  // holds the queue against its bound
  }
  EXPECT_EQ(table.queued(), 1u);
  EXPECT_THAT(table.cut(Seq{40'001}, 10, 1'000).references, SizeIs(1));
}

// Nodes judge batch n while some have delivered more than others: between n - window and n - 1.
TEST(RequestTable, WhatCountsAgainstABatchIsTheSameHoweverFarANodeHasDelivered) {
  RequestLimits limits;
  limits.client_sessions_max = 1;
  limits.window = 64;
  RequestTable table(limits);
  const RequestPtr old = make_request(1, 1, 1);
  const RequestPtr waiting = make_request(1, 1, 2);
  const auto claim = [&](std::uint64_t n, const RequestPtr& request) {
    std::vector<RequestPtr> bodies;
    std::uint32_t unvouched = 0;
    const Refusal refusal = table.claim(Seq{n}, {reference_of(*request)}, bodies, unvouched);
    if (refusal == Refusal::kNone) table.release(Seq{n}, {reference_of(*request)});
    return std::make_pair(refusal, unvouched);
  };
  table.deliver(Seq{1}, {reference_of(*old)});
  ASSERT_EQ(table.vouch(waiting).refusal, Refusal::kNone);
  table.deliver(Seq{2}, {reference_of(*make_request(1, 2, 1))});  // evicts session 1
  const std::uint64_t forgotten = 2 + limits.window;
  EXPECT_EQ(claim(3, old).first, Refusal::kDuplicate);
  EXPECT_EQ(claim(forgotten - 1, old).first, Refusal::kDuplicate);
  EXPECT_EQ(claim(forgotten - 1, waiting), std::make_pair(Refusal::kNone, 0u));
  EXPECT_EQ(claim(forgotten, old), std::make_pair(Refusal::kNone, 1u));
  EXPECT_EQ(claim(forgotten, waiting), std::make_pair(Refusal::kNone, 1u));  // nobody can vouch for it there
  const RequestTable::Cut before = table.cut(Seq{forgotten - 1}, 10, 1'000);
  EXPECT_THAT(before.references, SizeIs(1));
  table.release(Seq{forgotten - 1}, before.references);
  EXPECT_THAT(table.cut(Seq{forgotten}, 10, 1'000).references, IsEmpty());
  EXPECT_EQ(table.pending(), 0u);
  table.check();
}

TEST(RequestTable, ARequestTakenBackIsQueuedOnce) {
  RequestTable table({});
  const RequestPtr request = make_request(1, 1, 1);
  ASSERT_EQ(table.vouch(request).refusal, Refusal::kNone);
  for (std::uint64_t n = 1; n <= 50; ++n) {
    std::vector<RequestPtr> bodies;
    std::uint32_t unvouched = 0;
    ASSERT_EQ(table.claim(Seq{n}, {reference_of(*request)}, bodies, unvouched), Refusal::kNone);
    EXPECT_THAT(table.cut(Seq{n + 1}, 10, 1'000).references, IsEmpty());
    table.release(Seq{n}, {reference_of(*request)});
    table.check();
  }
  EXPECT_THAT(table.cut(Seq{51}, 10, 1'000).references, SizeIs(1));
}

// ---- view changes ----------------------------------------------------------------------------------------------

TEST(RequestTableViews, AViewChangeQueuesAllThatIsNotDeliveredInTheOrderOfItsNumbers) {
  Table t;
  for (const std::uint64_t number : {1, 2, 3, 4, 5}) t.vouch(1, 7, number);
  t.vouch(1, 8, 1);
  ASSERT_EQ(t.claim(1, {make_request(1, 7, 3), make_request(1, 7, 1), make_request(9, 9, 1)}), Refusal::kNone);
  ASSERT_EQ(t.claim(2, {make_request(1, 7, 5), make_request(1, 8, 1)}), Refusal::kNone);
  t.table.release_all();
  t.table.check();
  EXPECT_EQ(t.table.claimed(ClientId{9}, SessionId{9}, RequestNumber{1}).n, Seq{});  // the stray ended, too
  EXPECT_EQ(t.table.queued(), 6u);
  std::vector<std::uint64_t> of_seven;
  for (const Reference& r : t.cut(1)) {
    if (r.session == SessionId{7}) of_seven.push_back(r.number.value);
  }
  EXPECT_THAT(of_seven, ElementsAre(1, 2, 3, 4, 5));
}

TEST(RequestTableViews, ARequestThatTwoChosenBatchesNameIsDeliveredOnce) {
  Table t;
  const RequestPtr twice = make_request(1, 7, 1);
  t.vouch(1, 7, 1);
  EXPECT_THAT(t.chosen(5, {twice}), ElementsAre(::testing::NotNull()));
  EXPECT_THAT(t.chosen(6, {twice, make_request(1, 7, 2)}), ElementsAre(::testing::NotNull(), nullptr));
  EXPECT_EQ(t.unvouched, 1u);
  EXPECT_EQ(t.table.claimed(ClientId{1}, SessionId{7}, RequestNumber{1}).n, Seq{5});
  EXPECT_EQ(t.claim(7, {twice}), Refusal::kDuplicate);
  t.deliver(5, {twice});
  EXPECT_EQ(t.table.position(), 1u);
  t.deliver(6, {twice, make_request(1, 7, 2)});
  EXPECT_EQ(t.table.position(), 2u);
  EXPECT_EQ(t.table.pending(), 0u);
  EXPECT_EQ(t.vouch(1, 7, 2), Refusal::kDuplicate);
}

TEST(RequestTableViews, AChosenBatchTakesWhatIsThereAndNeverRefuses) {
  Table t;
  t.deliver(1, {make_request(1, 7, 1)});
  t.vouch(1, 7, 2, "mine");
  const RequestPtr stranger = make_request(3, 1, 4);
  const auto bodies = t.chosen(2, {make_request(1, 7, 1), make_request(1, 7, 2, "other"), make_request(1, 7, 0),
                                   stranger, stranger, make_request(1, 7, 9'999)});
  EXPECT_THAT(bodies, ::testing::Each(nullptr));
  EXPECT_EQ(t.unvouched, 6u);
  t.table.check();
  // The client's own message for a reference of it goes to that batch.
  const RequestTable::Vouched late = t.table.vouch(stranger);
  EXPECT_EQ(late.claimed_by, Seq{2});
  EXPECT_EQ(late.index, 3u);
  EXPECT_THAT(t.cut(3), IsEmpty());
  t.deliver(2, {make_request(1, 7, 1), make_request(1, 7, 2, "other"), stranger, stranger});
  EXPECT_EQ(t.table.pending(), 0u);
  EXPECT_EQ(t.table.position(), 3u);
}

TEST(RequestTableViews, ABatchThatNobodyClaimedHereIsDeliveredAllTheSame) {  // a node that catches up
  Table t;
  t.vouch(1, 7, 1);
  t.deliver(1, {make_request(1, 7, 1), make_request(2, 3, 1)});
  EXPECT_EQ(t.table.pending(), 0u);
  EXPECT_THAT(t.cut(2), IsEmpty());
  EXPECT_EQ(t.vouch(2, 3, 1), Refusal::kDuplicate);
}

TEST(RequestTableViews, TheHeadOfAClientIsItsOldestRequestThatNoBatchNames) {
  Table t;
  EXPECT_THAT(t.table.heads(), IsEmpty());
  for (const std::uint64_t number : {1, 2, 3}) t.vouch(2, 7, number);
  t.vouch(1, 7, 1);
  const auto head = [](std::uint32_t client, std::uint64_t number) {
    return PrimaryWatch::Head{ClientId{client}, SessionId{7}, RequestNumber{number}};
  };
  EXPECT_THAT(t.table.heads(), ElementsAre(head(1, 1), head(2, 1)));
  ASSERT_EQ(t.claim(1, {make_request(2, 7, 1), make_request(2, 7, 2), make_request(1, 7, 1)}), Refusal::kNone);
  EXPECT_THAT(t.table.heads(), ElementsAre(head(2, 3)));
  t.table.release_all();
  EXPECT_THAT(t.table.heads(), ElementsAre(head(1, 1), head(2, 1)));
  t.table.mark_unproven(ClientId{2});  // it waits for the primary as much as before
  EXPECT_THAT(t.table.heads(), ElementsAre(head(1, 1), head(2, 1)));
}

// A correct primary drops them as soon as it is a window further.
TEST(RequestTableViews, RequestsOfAnEvictedSessionAreNoHeads) {
  RequestLimits limits;
  limits.client_sessions_max = 1;
  Table t(limits);
  t.deliver(1, {make_request(1, 1, 1)});
  t.vouch(1, 1, 2);
  EXPECT_THAT(t.table.heads(), SizeIs(1));
  t.deliver(2, {make_request(1, 2, 1)});
  EXPECT_THAT(t.table.heads(), IsEmpty());
  EXPECT_EQ(t.table.queued(), 1u);
}

}  // namespace
}  // namespace zz::agreement::testing
