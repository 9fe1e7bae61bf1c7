// How a node that is behind the stable checkpoint gets what it missed, whoever lies to it (docs/protocol.md §6).

#include "agreement/catch_up.hpp"

#include <gtest/gtest.h>

#include "agreement/checkpoint_book.hpp"
#include "agreement/order_log.hpp"
#include "oversight_test_support.hpp"

namespace zz::agreement {
namespace {

constexpr std::uint64_t kInterval = 10;
constexpr std::int64_t kPatience = 500 * kMs;

// Node 0 is behind; node 1 holds the order and its certificates, and the test answers in its name or another's.
class CatchUpTest : public testing::Test {
 protected:
  CatchUpTest()
      : parties_(1, 1),
        authority_(parties_.cluster, ServiceId{0}, NodeId{0}, parties_.node_keys[0]),
        log_(1u << 30),
        book_({.batches = kInterval, .requests = 1'000'000, .bytes = 1u << 30}, ServiceId{0}, NodeId{1}, 1, authority_,
              memory_),
        core_(NodeId{0}, 4, Micros{kPatience}, authority_) {}

  static RequestPtr request(std::uint64_t number, const SharedBytes& op) {
    auto out = std::make_shared<Request>();
    out->client = ClientId{7};
    out->session = SessionId{5};
    out->number = RequestNumber{number};
    out->op = op;
    out->digest = request_digest(ServiceId{0}, out->client, out->session, out->number, 0, op.view());
    return out;
  }
  // The order goes on up to n; every kInterval-th batch is a stable checkpoint.
  void order_to(std::uint64_t n, const SharedBytes& op = SharedBytes::copy("op")) {
    while (log_.last().value < n) {
      const Seq next = log_.last().next();
      auto header = std::make_shared<BatchHeader>();
      header->n = next;
      header->time = Micros{static_cast<std::int64_t>(next.value)};
      Delivery batch;
      batch.requests.push_back(request(next.value, op));
      header->references.push_back(reference_of(*batch.requests[0]));
      batch.digest = batch_digest(*header);
      batch.header = header;
      history_ = history_digest(history_, batch.digest);
      batch.history = history_;
      log_.append(batch);
      histories_.push_back(history_);
      book_.delivered(next, 1, 1, history_, Digest{});
      if (next.value % kInterval != 0) continue;
      ASSERT_EQ(book_.step(certificate(next, history_)), Refusal::kNone);
    }
  }
  CertificatePtr certificate(Seq n, const Digest& history) {
    auto out = std::make_shared<StableCertificate>();
    out->state.n = n;
    out->state.history = history;
    for (std::uint16_t i = 0; i < 3; ++i) {
      const Bytes fields = checkpoint_fields(parties_.cluster.id, ServiceId{0}, NodeId{i}, out->state);
      out->parts.push_back({NodeId{i}, parties_.node_keys[i].sign(fields)});
    }
    return out;
  }
  [[nodiscard]] Digest history_at(std::uint64_t n) const { return n == 0 ? Digest{} : histories_[n - 1]; }
  [[nodiscard]] OrderProof proof(std::uint64_t from, std::uint64_t to) {
    OrderProof out{certificate(Seq{to}, history_at(to)), Seq{from}, {}};
    for (std::uint64_t n = from; n <= to; ++n) out.digests.push_back(log_.at(Seq{n}).digest);
    return out;
  }
  [[nodiscard]] Batch batch(std::uint64_t n) const {
    const Delivery& one = log_.at(Seq{n});
    return {one.header, one.digest, one.requests};
  }

  // Time passes; what comes out is delivered.
  void pass(std::int64_t ms) {
    for (std::int64_t gone = 0; gone < ms; gone += 5) {
      now_.value += 5 * kMs;
      core_.tick(now_);
      collect();
    }
  }
  void collect() {
    CatchUpOutput out = core_.take_output();
    for (const auto& question : out.ask) asked_.push_back(question);
    for (const Batch& one : out.batches) {
      ASSERT_EQ(one.header->n.value, delivered_ + 1);
      ASSERT_EQ(one.digest, log_.at(one.header->n).digest);
      ASSERT_EQ(one.requests, log_.at(one.header->n).requests);
      ++delivered_;
    }
    core_.at(Seq{delivered_}, history_at(delivered_), Seq{stable_});
  }
  void stable_at(std::uint64_t n) {
    stable_ = n;
    collect();
  }
  Refusal answer(std::uint16_t from, const OrderProof& message) {
    const Refusal why = core_.step(NodeId{from}, message);
    collect();
    return why;
  }
  Refusal answer(std::uint16_t from, const Batch& message) {
    const Refusal why = core_.step(NodeId{from}, message);
    collect();
    return why;
  }
  // As a correct node does.
  void answer_well(std::uint16_t from, const FetchOrder& wish) {
    for (const Body& body : answer_fetch_order(log_, book_, wish, kAnswerBytesMax)) {
      const auto* proof_of_it = std::get_if<OrderProof>(&body);
      EXPECT_EQ(proof_of_it ? answer(from, *proof_of_it) : answer(from, std::get<Batch>(body)), Refusal::kNone);
    }
  }
  [[nodiscard]] std::vector<std::uint16_t> asked_nodes() const {
    std::vector<std::uint16_t> out;
    for (const auto& [node, wish] : asked_) out.push_back(node.value);
    return out;
  }

  Parties parties_;
  Memory memory_;
  Authority authority_;
  OrderLog log_;
  CheckpointBook book_;
  CatchUp core_;
  Micros now_{1'000'000};
  Digest history_;
  std::vector<Digest> histories_;
  std::vector<std::pair<NodeId, FetchOrder>> asked_;
  std::uint64_t delivered_ = 0;
  std::uint64_t stable_ = 0;
};

using Nodes = std::vector<std::uint16_t>;

TEST_F(CatchUpTest, NobodyIsAskedWhileNotBehind) {
  order_to(10);
  pass(2'000);
  EXPECT_TRUE(asked_.empty());
  delivered_ = 10;
  stable_at(10);
  pass(2'000);
  EXPECT_TRUE(asked_.empty());
  EXPECT_FALSE(core_.active());
}

TEST_F(CatchUpTest, TheNormalPathIsGivenAFifthOfThePatience) {
  order_to(10);
  stable_at(10);
  pass(90);
  EXPECT_TRUE(asked_.empty());
  delivered_ = 5;  // something came
  pass(95);
  EXPECT_TRUE(asked_.empty());
  pass(30);
  ASSERT_EQ(asked_.size(), 1u);
  EXPECT_EQ(asked_[0].second.from, Seq{6});
  EXPECT_NE(asked_[0].first, NodeId{0});
  EXPECT_TRUE(core_.active());
}

TEST_F(CatchUpTest, WhoIsFarBehindAsksAtOnce) {
  order_to(70);
  stable_at(70);
  pass(5);
  EXPECT_EQ(asked_.size(), 1u);
}

TEST_F(CatchUpTest, BatchesProvenByACertificateComeOutInOrder) {
  order_to(70);
  stable_at(70);
  pass(5);
  ASSERT_EQ(asked_.size(), 1u);
  std::size_t done = 0;
  for (int i = 0; i < 20 && delivered_ < 70; ++i) {
    while (done < asked_.size()) {
      const auto [node, wish] = asked_[done++];
      EXPECT_EQ(node, NodeId{1}) << "a good source stays";
      answer_well(node.value, wish);
    }
    pass(5);
  }
  EXPECT_EQ(delivered_, 70u);
  EXPECT_EQ(asked_.size(), 1u) << "one answer proves as far as it can";
  EXPECT_FALSE(core_.active());
  EXPECT_EQ(answer(1, batch(70)), Refusal::kNotReady);
}

TEST_F(CatchUpTest, AnAnswerThatIsFullIsFollowedByTheNextQuestion) {
  order_to(10, SharedBytes(Bytes(kAnswerBytesMax / 4)));
  stable_at(10);
  pass(110);
  ASSERT_EQ(asked_.size(), 1u);
  answer_well(1, asked_[0].second);
  EXPECT_EQ(delivered_, 4u) << "bodies of one answer";
  pass(5);
  ASSERT_EQ(asked_.size(), 2u);
  EXPECT_EQ(asked_[1].first, NodeId{1});
  EXPECT_EQ(asked_[1].second.from, Seq{5});
  answer_well(1, asked_[1].second);
  EXPECT_EQ(delivered_, 8u);
}

TEST_F(CatchUpTest, WrongDigestsAreRefusedAndAnotherNodeIsAskedAtOnce) {
  order_to(10);
  stable_at(10);
  pass(110);
  OrderProof lie = proof(1, 10);
  lie.digests[3].bytes[0] ^= 1;
  const std::uint64_t checks = authority_.signature_checks();
  EXPECT_EQ(answer(1, lie), Refusal::kConflict);
  EXPECT_EQ(authority_.signature_checks(), checks) << "hashes are cheaper";
  EXPECT_EQ(answer(1, batch(1)), Refusal::kNotReady) << "nothing is proven";
  pass(5);
  EXPECT_EQ(asked_nodes(), (Nodes{1, 2}));
  EXPECT_EQ(delivered_, 0u);
  answer_well(2, asked_[1].second);
  EXPECT_EQ(delivered_, 10u);
}

TEST_F(CatchUpTest, ACertificateThatIsNoneIsRefusedAndAnotherNodeIsAsked) {
  order_to(10);
  stable_at(10);
  pass(110);
  OrderProof lie = proof(1, 10);
  auto forged = std::make_shared<StableCertificate>(*lie.certificate);
  forged->parts[1].signature.bytes[5] ^= 1;
  lie.certificate = forged;
  EXPECT_EQ(answer(1, lie), Refusal::kBadSignature);
  pass(5);
  auto few = std::make_shared<StableCertificate>(*certificate(Seq{10}, history_at(10)));
  few->parts.pop_back();
  lie.certificate = few;
  EXPECT_EQ(answer(2, lie), Refusal::kMalformed);
  pass(5);
  EXPECT_EQ(asked_nodes(), (Nodes{1, 2, 3}));
  EXPECT_EQ(answer(3, batch(1)), Refusal::kNotReady);
  EXPECT_EQ(delivered_, 0u);
}

TEST_F(CatchUpTest, AProofThatDoesNotReachFromTheQuestionToItsCertificateIsMalformed) {
  order_to(20);
  stable_at(20);
  pass(110);
  OrderProof none;
  none.from = Seq{1};
  EXPECT_EQ(answer(1, none), Refusal::kMalformed);
  pass(5);
  OrderProof gap = proof(1, 10);
  gap.digests.pop_back();
  EXPECT_EQ(answer(2, gap), Refusal::kMalformed);
  pass(5);
  OrderProof huge = proof(1, 20);
  huge.digests.resize(kProofDigestsMax + 1);
  EXPECT_EQ(answer(3, huge), Refusal::kMalformed);
  pass(5);
  OrderProof empty = proof(1, 20);
  empty.digests.clear();
  EXPECT_EQ(answer(1, empty), Refusal::kMalformed);
  EXPECT_EQ(asked_nodes(), (Nodes{1, 2, 3, 1}));
  EXPECT_EQ(authority_.signature_checks(), 6u) << "only those of the two certificates that order_to() made";
}

TEST_F(CatchUpTest, OnlyWhoWasAskedAndOnlyOnceIsListenedTo) {
  order_to(10);
  EXPECT_EQ(answer(1, proof(1, 10)), Refusal::kNotReady) << "nobody was asked";
  stable_at(10);
  pass(110);
  EXPECT_EQ(answer(2, proof(1, 10)), Refusal::kNotReady);
  EXPECT_EQ(answer(0, proof(1, 10)), Refusal::kNotReady);
  EXPECT_EQ(answer(4, proof(1, 10)), Refusal::kUnknownPeer);
  EXPECT_EQ(answer(1, proof(2, 10)), Refusal::kNotReady) << "another question's answer";
  EXPECT_EQ(answer(1, proof(1, 10)), Refusal::kNone);
  EXPECT_EQ(answer(1, proof(1, 10)), Refusal::kNotReady);
}

TEST_F(CatchUpTest, ABatchThatIsNotWhatWasProvenIsRefusedAndAnotherNodeIsAsked) {
  order_to(10);
  stable_at(10);
  pass(110);
  ASSERT_EQ(answer(1, proof(1, 10)), Refusal::kNone);
  Batch other = batch(1);
  other.requests[0] = request(1, SharedBytes::copy("another"));
  EXPECT_EQ(answer(1, other), Refusal::kConflict);
  other = batch(1);
  other.requests.clear();
  EXPECT_EQ(answer(1, other), Refusal::kConflict);
  other.requests = {nullptr};
  EXPECT_EQ(answer(1, other), Refusal::kConflict);
  other = batch(1);
  other.digest = batch(2).digest;
  EXPECT_EQ(answer(1, other), Refusal::kConflict);
  EXPECT_EQ(answer(1, Batch{}), Refusal::kMalformed);
  EXPECT_EQ(delivered_, 0u);
  pass(5);
  EXPECT_EQ(asked_nodes(), (Nodes{1, 2}));
  answer_well(2, asked_[1].second);
  EXPECT_EQ(delivered_, 10u);
}

TEST_F(CatchUpTest, BatchesOutOfTurnOrBeyondTheProofAreNotKept) {
  order_to(20);
  stable_at(20);
  pass(110);
  ASSERT_EQ(answer(1, proof(1, 10)), Refusal::kNone);
  EXPECT_EQ(answer(1, batch(2)), Refusal::kOutOfWindow);
  EXPECT_EQ(answer(1, batch(1)), Refusal::kNone);
  EXPECT_EQ(answer(1, batch(1)), Refusal::kDuplicate);
  for (std::uint64_t n = 2; n <= 10; ++n) EXPECT_EQ(answer(1, batch(n)), Refusal::kNone);
  EXPECT_EQ(answer(1, batch(11)), Refusal::kNotReady);
  EXPECT_EQ(delivered_, 10u);
}

TEST_F(CatchUpTest, ASilentNodeIsLeftAfterThePatience) {
  order_to(10);
  stable_at(10);
  pass(105);
  ASSERT_EQ(asked_nodes(), Nodes{1});
  pass(495);
  EXPECT_EQ(asked_nodes(), Nodes{1});
  pass(5);
  EXPECT_EQ(asked_nodes(), (Nodes{1, 2}));
  ASSERT_EQ(answer(2, proof(1, 10)), Refusal::kNone) << "and then says no more";
  pass(505);
  EXPECT_EQ(asked_nodes(), (Nodes{1, 2, 3}));
  pass(500);
  EXPECT_EQ(asked_nodes(), (Nodes{1, 2, 3, 1})) << "never itself";
}

TEST_F(CatchUpTest, ALateAnswerToTheSameQuestionIsAsGood) {
  order_to(10);
  stable_at(10);
  pass(105 + 1'200);
  ASSERT_EQ(asked_nodes(), (Nodes{1, 2, 3}));
  answer_well(1, asked_[0].second);
  EXPECT_EQ(delivered_, 10u);
}

TEST_F(CatchUpTest, ANodeThatDripsIsLeftInTheEnd) {
  order_to(60);
  stable_at(60);
  pass(105);
  ASSERT_EQ(answer(1, proof(1, 60)), Refusal::kNone);
  for (std::uint64_t n = 1; n <= 20 && asked_.size() == 1; ++n) {
    pass(300);
    ASSERT_EQ(answer(1, batch(n)), Refusal::kNone);
  }
  EXPECT_EQ(asked_nodes(), (Nodes{1, 2}));
  EXPECT_LE(delivered_, 7u);
}

TEST_F(CatchUpTest, AfterASlowAnswerAnotherNodeIsAskedForTheNext) {
  order_to(20);
  stable_at(20);
  pass(105);
  ASSERT_EQ(answer(1, proof(1, 10)), Refusal::kNone);
  for (std::uint64_t n = 1; n <= 10; ++n) {
    pass(60);
    ASSERT_EQ(answer(1, batch(n)), Refusal::kNone);
  }
  pass(5);
  EXPECT_EQ(asked_nodes(), (Nodes{1, 2}));
}

TEST_F(CatchUpTest, WhatTheNormalPathBringsMeanwhileIsNotAskedForAgain) {
  order_to(20);
  stable_at(20);
  pass(105);
  delivered_ = 3;
  collect();
  ASSERT_EQ(answer(1, proof(1, 10)), Refusal::kNone);
  EXPECT_EQ(answer(1, batch(3)), Refusal::kDuplicate);
  EXPECT_EQ(answer(1, batch(4)), Refusal::kNone);
  delivered_ = 12;
  collect();
  EXPECT_EQ(answer(1, batch(5)), Refusal::kNotReady) << "the proof is used up";
  pass(505);
  ASSERT_EQ(asked_.size(), 2u);
  EXPECT_EQ(asked_[1].second.from, Seq{13});
}

TEST_F(CatchUpTest, FLiarsOnlyCostTime) {
  order_to(200);
  stable_at(200);
  std::size_t done = 0;
  // Node 1 lies in a new way every time it is asked.
  for (int turn = 0; turn < 2'000 && delivered_ < 200; ++turn) {
    pass(5);
    while (done < asked_.size()) {
      const auto [node, wish] = asked_[done++];
      if (node != NodeId{1}) {
        answer_well(node.value, wish);
        continue;
      }
      OrderProof lie = proof(wish.from.value, (wish.from.value + kInterval) / kInterval * kInterval);
      if (done % 3 == 0) continue;  // nothing
      if (done % 3 == 1) lie.digests.back().bytes[1] ^= 1;
      static_cast<void>(answer(1, lie));
      static_cast<void>(answer(1, batch(200)));
    }
  }
  EXPECT_EQ(delivered_, 200u);
}

TEST_F(CatchUpTest, AnAnswerIsTheProofAndThenBatchesUpToTheBudget) {
  order_to(25);
  std::vector<Body> out = answer_fetch_order(log_, book_, {Seq{5}}, kAnswerBytesMax);
  ASSERT_EQ(out.size(), 17u);
  EXPECT_EQ(std::get<OrderProof>(out[0]).certificate->state.n, Seq{20});
  EXPECT_EQ(std::get<OrderProof>(out[0]).digests.size(), 16u);
  EXPECT_EQ(std::get<Batch>(out[1]).header->n, Seq{5});
  EXPECT_EQ(std::get<Batch>(out[16]).header->n, Seq{20});
  out = answer_fetch_order(log_, book_, {Seq{5}}, 1);
  EXPECT_EQ(out.size(), 2u) << "one batch at least";
  const std::uint64_t one = answer_cost(*log_.at(Seq{5}).header, log_.at(Seq{5}).requests);
  EXPECT_EQ(answer_fetch_order(log_, book_, {Seq{5}}, 2 * one + 1).size(), 4u);
}

TEST_F(CatchUpTest, WhatCannotBeProvenIsNotAnswered) {
  order_to(25);
  EXPECT_TRUE(answer_fetch_order(log_, book_, {Seq{0}}, 1).empty());
  EXPECT_TRUE(answer_fetch_order(log_, book_, {Seq{21}}, 1).empty()) << "above the stable checkpoint";
  EXPECT_TRUE(answer_fetch_order(log_, book_, {Seq{~std::uint64_t{0}}}, 1).empty());
  const OrderLog behind(1u << 30);
  EXPECT_TRUE(answer_fetch_order(behind, book_, {Seq{1}}, 1).empty()) << "certified, but not delivered here";
}

TEST_F(CatchUpTest, AnAnswerNeverHoldsMoreDigestsThanAProofMay) {
  order_to(kProofDigestsMax / kInterval * kInterval + 3 * kInterval);
  CheckpointBook restarted({.batches = kInterval}, ServiceId{0}, NodeId{1}, 1, authority_, memory_);
  const Seq last{log_.last()};
  ASSERT_EQ(restarted.step(certificate(last, history_)), Refusal::kNone);
  const std::uint64_t first = last.value - kProofDigestsMax + 1;
  EXPECT_TRUE(answer_fetch_order(log_, restarted, {Seq{first - 1}}, 1).empty());
  const std::vector<Body> out = answer_fetch_order(log_, restarted, {Seq{first}}, 1);
  ASSERT_EQ(out.size(), 2u);
  EXPECT_EQ(std::get<OrderProof>(out[0]).digests.size(), kProofDigestsMax);
}

}  // namespace
}  // namespace zz::agreement
