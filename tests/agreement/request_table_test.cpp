// RequestTable against a plain model, over seeded random calls, with its own invariants recounted on the way.

#include "agreement/request_table.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "tests/agreement/replica_cluster.hpp"

namespace zz::agreement::testing {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr std::uint64_t kWindowOfClient = 8;

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
    switch (prng_.below(8)) {
      case 0:
      case 1:
      case 2:
      case 3:
        vouch();
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
      default:
        deliver();
        break;
    }
    table_.check();
    ASSERT_EQ(table_.pending(), vouched_.size());
    ASSERT_EQ(table_.queued(), std::count_if(vouched_.begin(), vouched_.end(),
                                             [&](const auto& item) { return claimed_.count(item.first) == 0; }));
  }
  [[nodiscard]] std::size_t delivered() const { return delivered_.size(); }

 private:
  static RequestLimits limits() {
    RequestLimits limits;
    limits.client_window = kWindowOfClient;
    return limits;
  }
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

  void vouch() {
    const RequestPtr request = any_request();
    const Key key = key_of(reference_of(*request));
    const std::uint64_t base = low(key.client, key.session);
    const RequestTable::Vouched got = table_.vouch(request);
    Refusal expected = Refusal::kNone;
    if (key.number == 0)
      expected = Refusal::kMalformed;
    else if (delivered_.count(key) != 0)
      expected = Refusal::kDuplicate;
    else if (key.number > base + 2 * kWindowOfClient) {
      // A session with nothing vouched and nothing delivered is not known.
      expected = known(key) ? Refusal::kOutOfWindow : Refusal::kSessionExpired;
    } else if (vouched_.count(key) != 0) {
      expected = vouched_[key] == request->digest ? Refusal::kDuplicate : Refusal::kConflict;
    }
    ASSERT_EQ(got.refusal, expected);
    if (expected != Refusal::kNone) return;
    vouched_[key] = request->digest;
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
    took(references, bodies);
  }

  void cut() {
    const RequestTable::Cut cut = table_.cut(Seq{next_}, static_cast<std::uint32_t>(1 + prng_.below(5)), 1'000);
    for (const Reference& r : cut.references) {
      ASSERT_EQ(claimed_.count(key_of(r)), 0u);
      ASSERT_EQ(vouched_.at(key_of(r)), r.digest);
    }
    if (!cut.references.empty()) took(cut.references, cut.bodies);
  }
  void took(const std::vector<Reference>& references, const std::vector<RequestPtr>& bodies) {
    for (std::uint32_t i = 0; i < references.size(); ++i) {
      claimed_[key_of(references[i])] = {next_, i};
      if (bodies[i]) {
        ASSERT_EQ(reference_of(*bodies[i]), references[i]);
      }
    }
    batches_.emplace_back(next_++, references);
  }
  void release() {  // of the newest batch, as when its proposal is taken back
    if (batches_.empty()) return;
    const auto [n, references] = batches_.back();
    batches_.pop_back();
    table_.release(Seq{n}, references);
    for (const Reference& r : references) claimed_.erase(key_of(r));
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
      for (const Reference& r : references) claimed_.erase(key_of(r));
      return;
    }
    for (const Reference& r : references) {
      const RequestTable::Place place = table_.claimed(r.client, r.session, r.number);
      ASSERT_EQ(place.n, Seq{n});
    }
    table_.deliver(Seq{n}, references);
    for (const Reference& r : references) {
      claimed_.erase(key_of(r));
      vouched_.erase(key_of(r));
      delivered_.insert(key_of(r));
      ASSERT_EQ(table_.find(r), nullptr);
    }
  }

  Prng prng_;
  RequestTable table_;
  std::map<Key, Digest> vouched_;  // and not delivered
  std::map<Key, std::pair<std::uint64_t, std::uint32_t>> claimed_;
  std::set<Key> delivered_;
  std::vector<std::pair<std::uint64_t, std::vector<Reference>>> batches_;  // in flight
  std::uint64_t next_ = 1;
};

TEST(RequestTable, AgreesWithAPlainModelUnderAnyCalls) {
  std::size_t delivered = 0;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Model model(seed);
    for (int i = 0; i < 600; ++i) {
      model.step();
      if (::testing::Test::HasFatalFailure()) return;
    }
    delivered += model.delivered();
  }
  EXPECT_GT(delivered, 3'000u);
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

// Nodes judge batch n while some have delivered more than others: between n - kWindow and n - 1.
TEST(RequestTable, WhatCountsAgainstABatchIsTheSameHoweverFarANodeHasDelivered) {
  RequestLimits limits;
  limits.client_sessions_max = 1;
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
  const std::uint64_t forgotten = 2 + kWindow;
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

}  // namespace
}  // namespace zz::agreement::testing
