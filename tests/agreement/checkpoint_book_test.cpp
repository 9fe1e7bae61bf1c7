// Checkpoints and stable certificates (docs/protocol.md §6).

#include "agreement/checkpoint_book.hpp"

#include <gtest/gtest.h>

#include <string>

#include "oversight_test_support.hpp"

namespace zz::agreement {
namespace {

constexpr std::uint64_t kInterval = 4;

Digest digest_named(const std::string& name, std::uint64_t n) {
  return reply_digest(as_bytes(name + " " + std::to_string(n)));
}

// The book of node 0, and the same order everywhere.
class CheckpointBookTest : public testing::Test {
 protected:
  explicit CheckpointBookTest(std::uint32_t f = 1) : parties_(f, 1) {
    for (std::uint16_t i = 0; i < parties_.cluster.n(); ++i) {
      authorities_.push_back(
          std::make_unique<Authority>(parties_.cluster, ServiceId{0}, NodeId{i}, parties_.node_keys[i]));
    }
    start({.batches = kInterval, .requests = 1'000'000, .bytes = 1u << 30});
  }

  void start(const CheckpointRules& rules) {
    delivered_ = closed_ = 0;
    due_.clear();
    book_ =
        std::make_unique<CheckpointBook>(rules, ServiceId{0}, NodeId{0}, parties_.cluster.f, *authorities_[0], memory_);
  }
  // What a correct node says about n.
  static CheckpointState state_at(std::uint64_t n) {
    CheckpointState state;
    state.n = Seq{n};
    state.table = digest_named("table", n);
    state.root = digest_named("root", n);
    for (std::uint64_t i = 1; i <= n; ++i) {
      state.history = history_digest(state.history, digest_named("batch", i));
      state.results = results_digest(state.results, digest_named("vote", i));
    }
    return state;
  }
  void deliver_to(std::uint64_t n, std::size_t requests = 1, std::uint64_t bytes = 1) {
    while (delivered_ < n) {
      const CheckpointState state = state_at(++delivered_);
      if (book_->delivered(state.n, requests, bytes, state.history, state.table)) due_.push_back(state.n);
    }
  }
  // With what executors say of the state.
  void close_to(std::uint64_t n) {
    for (const Seq due : due_) {
      if (due.value <= n) book_->settled(due, digest_named("root", due.value));
    }
    close_without_roots_to(n);
  }
  void close_without_roots_to(std::uint64_t n) {
    for (closed_ = book_->results_through().value; closed_ < n;) {
      ++closed_;
      book_->closed(Seq{closed_}, digest_named("vote", closed_));
    }
  }
  Checkpoint said(std::uint16_t node, const CheckpointState& state) {
    Checkpoint message;
    message.state = state;
    authorities_[node]->sign(message);
    return message;
  }
  Refusal hear(std::uint16_t node, const CheckpointState& state) {
    return book_->step(NodeId{node}, said(node, state));
  }
  CertificatePtr certificate(const CheckpointState& state) {
    auto out = std::make_shared<StableCertificate>();
    out->state = state;
    for (std::uint16_t i = 0; i < 2 * parties_.cluster.f + 1; ++i) {
      out->parts.push_back({NodeId{i}, said(i, state).signature});
    }
    return out;
  }
  // The n's that this node signed since it was last asked.
  std::vector<std::uint64_t> signed_now() {
    std::vector<std::uint64_t> out;
    for (const Checkpoint& message : book_->take_output().send) out.push_back(message.state.n.value);
    return out;
  }

  Parties parties_;
  Memory memory_;
  std::vector<std::unique_ptr<Authority>> authorities_;
  std::unique_ptr<CheckpointBook> book_;
  std::uint64_t delivered_ = 0;
  std::uint64_t closed_ = 0;
  std::vector<Seq> due_;
};

class CheckpointBookOfTwoTest : public CheckpointBookTest {
 protected:
  CheckpointBookOfTwoTest() : CheckpointBookTest(2) {}
};

using Numbers = std::vector<std::uint64_t>;

TEST_F(CheckpointBookTest, EveryKthBatchIsSignedOnceAllUpToItAreClosed) {
  deliver_to(9);
  EXPECT_EQ(signed_now(), Numbers{}) << "delivered, but not closed";
  close_to(3);
  EXPECT_EQ(signed_now(), Numbers{});
  close_to(9);
  const CheckpointOutput out = book_->take_output();
  ASSERT_EQ(out.send.size(), 2u);
  EXPECT_EQ(out.send[0].state, state_at(4));
  EXPECT_EQ(out.send[1].state, state_at(8));
  EXPECT_EQ(authorities_[1]->check(out.send[0]), Refusal::kNone);
  EXPECT_EQ(out.stable, nullptr);
  EXPECT_EQ(book_->own().size(), 2u);
}

TEST_F(CheckpointBookTest, ManyRequestsOrBytesMakeACheckpointEarlier) {
  start({.batches = 4, .requests = 10, .bytes = 100});
  deliver_to(1, 9, 1);
  deliver_to(2, 1, 1);  // 10 requests
  deliver_to(3, 1, 99);
  deliver_to(4, 1, 1);  // 100 bytes
  deliver_to(8, 0, 0);  // 4 batches
  deliver_to(9, 10, 0);
  close_to(9);
  EXPECT_EQ(signed_now(), (Numbers{2, 4, 8, 9}));
}

TEST_F(CheckpointBookTest, TwoFPlusOneEqualOnesAreStable) {
  deliver_to(4);
  close_to(4);
  EXPECT_EQ(hear(1, state_at(4)), Refusal::kNone);
  EXPECT_EQ(book_->stable(), nullptr);
  EXPECT_EQ(hear(3, state_at(4)), Refusal::kNone);
  const CheckpointOutput out = book_->take_output();
  ASSERT_NE(out.stable, nullptr);
  EXPECT_EQ(out.stable->state, state_at(4));
  EXPECT_EQ(out.stable->parts.size(), 3u);
  EXPECT_EQ(authorities_[2]->check(*out.stable), Refusal::kNone);
  EXPECT_EQ(book_->stable(), out.stable);
  EXPECT_TRUE(book_->own().empty()) << "no longer above the stable one";
  EXPECT_EQ(memory_.count(EventKind::kCheckpoint, Seq{4}), 1u);
  EXPECT_EQ(hear(2, state_at(4)), Refusal::kDuplicate);
}

TEST_F(CheckpointBookOfTwoTest, FourOfSevenAreNotEnough) {
  deliver_to(4);
  close_to(4);
  for (const std::uint16_t i : std::vector<std::uint16_t>{6, 2, 4}) EXPECT_EQ(hear(i, state_at(4)), Refusal::kNone);
  EXPECT_EQ(book_->stable(), nullptr);
  EXPECT_EQ(hear(2, state_at(4)), Refusal::kDuplicate);
  EXPECT_EQ(book_->stable(), nullptr) << "one signer counted twice";
  EXPECT_EQ(hear(1, state_at(4)), Refusal::kNone);
  ASSERT_NE(book_->stable(), nullptr);
  EXPECT_EQ(authorities_[3]->check(*book_->stable()), Refusal::kNone) << "signers ascend";
}

TEST_F(CheckpointBookTest, OthersAloneMakeItStableWhereThisNodeLags) {
  for (const std::uint16_t i : std::vector<std::uint16_t>{1, 2, 3}) EXPECT_EQ(hear(i, state_at(8)), Refusal::kNone);
  ASSERT_NE(book_->stable(), nullptr);
  EXPECT_EQ(book_->results_through(), Seq{8});
  deliver_to(12);
  close_to(12);
  EXPECT_EQ(signed_now(), Numbers{12}) << "4 and 8 are covered";
  EXPECT_EQ(book_->own()[0].state, state_at(12)) << "R goes on from the certificate's";
}

TEST_F(CheckpointBookTest, OnlyEqualStatesCountTogether) {
  CheckpointState other = state_at(4);
  other.table.bytes[0] ^= 1;
  EXPECT_EQ(hear(1, state_at(4)), Refusal::kNone);
  EXPECT_EQ(hear(2, state_at(4)), Refusal::kNone);
  EXPECT_EQ(hear(3, other), Refusal::kNone);
  EXPECT_EQ(book_->stable(), nullptr);
  EXPECT_EQ(hear(3, state_at(4)), Refusal::kConflict) << "the first word counts";
  EXPECT_EQ(book_->stable(), nullptr);
  deliver_to(4);
  close_to(4);
  ASSERT_NE(book_->stable(), nullptr);
  EXPECT_EQ(book_->stable()->parts.size(), 3u);
}

TEST_F(CheckpointBookTest, OnlyTheSendersOwnIsTaken) {
  EXPECT_EQ(book_->step(NodeId{2}, said(1, state_at(4))), Refusal::kNotAllowed);
  EXPECT_EQ(book_->step(NodeId{0}, said(0, state_at(4))), Refusal::kNotAllowed) << "this node is nobody's peer";
  EXPECT_EQ(book_->step(NodeId{4}, said(1, state_at(4))), Refusal::kUnknownPeer);
  Checkpoint forged = said(1, state_at(4));
  forged.state.n = Seq{8};
  EXPECT_EQ(book_->step(NodeId{1}, forged), Refusal::kBadSignature);
  Checkpoint stranger = said(1, state_at(4));
  stranger.service = ServiceId{1};
  EXPECT_EQ(book_->step(NodeId{1}, stranger), Refusal::kUnknownService);
  EXPECT_EQ(hear(1, state_at(4)), Refusal::kNone) << "a refused one is not counted";
}

TEST_F(CheckpointBookTest, WhatLiesTooFarAheadCostsNoSignatureCheck) {
  const std::uint64_t checks = authorities_[0]->signature_checks();
  CheckpointState far = state_at(4);
  far.n = Seq{CheckpointBook::kPendingMax * kInterval + 1};
  EXPECT_EQ(hear(1, far), Refusal::kOutOfWindow);
  far.n = Seq{~std::uint64_t{0}};
  EXPECT_EQ(hear(1, far), Refusal::kOutOfWindow);
  EXPECT_EQ(authorities_[0]->signature_checks(), checks);
  far.n = Seq{CheckpointBook::kPendingMax * kInterval};
  EXPECT_EQ(hear(1, far), Refusal::kNone);
}

TEST_F(CheckpointBookTest, OneNodesInventionsAreBoundedAndLeaveRoomForOthers) {
  CheckpointState invented = state_at(4);
  invented.table.bytes[0] ^= 1;
  for (std::uint64_t n = 1; n <= CheckpointBook::kPendingMax; ++n) {
    invented.n = Seq{n};
    ASSERT_EQ(hear(3, invented), Refusal::kNone) << n;
  }
  const std::uint64_t checks = authorities_[0]->signature_checks();
  invented.n = Seq{CheckpointBook::kPendingMax + 1};
  EXPECT_EQ(hear(3, invented), Refusal::kOutOfWindow);
  EXPECT_EQ(authorities_[0]->signature_checks(), checks);
  EXPECT_EQ(hear(1, state_at(4)), Refusal::kNone);
  EXPECT_EQ(hear(2, state_at(4)), Refusal::kNone);
  deliver_to(4);
  close_to(4);
  ASSERT_NE(book_->stable(), nullptr);
  EXPECT_EQ(hear(3, invented), Refusal::kNone) << "what the stable one has passed no longer counts against it";
}

TEST_F(CheckpointBookTest, ACertificateRaisesTheStableCheckpointAndNeverLowersIt) {
  EXPECT_EQ(book_->step(CertificatePtr{}), Refusal::kMalformed);
  EXPECT_EQ(book_->step(certificate(state_at(8))), Refusal::kNone);
  EXPECT_EQ(stable_n(book_->take_output().stable), Seq{8});
  const std::uint64_t checks = authorities_[0]->signature_checks();
  EXPECT_EQ(book_->step(certificate(state_at(8))), Refusal::kDuplicate);
  EXPECT_EQ(book_->step(certificate(state_at(4))), Refusal::kDuplicate);
  EXPECT_EQ(authorities_[0]->signature_checks(), checks);
  EXPECT_EQ(book_->take_output().stable, nullptr);
  EXPECT_EQ(stable_n(book_->stable()), Seq{8});
}

TEST_F(CheckpointBookTest, ACertificateWithTooFewOrBadPartsIsRefused) {
  auto few = std::make_shared<StableCertificate>(*certificate(state_at(4)));
  few->parts.pop_back();
  EXPECT_EQ(book_->step(few), Refusal::kMalformed);
  auto twice = std::make_shared<StableCertificate>(*certificate(state_at(4)));
  twice->parts[2] = twice->parts[1];
  EXPECT_EQ(book_->step(twice), Refusal::kMalformed);
  auto forged = std::make_shared<StableCertificate>(*certificate(state_at(4)));
  forged->state = state_at(8);
  EXPECT_EQ(book_->step(forged), Refusal::kBadSignature);
  EXPECT_EQ(book_->stable(), nullptr);
  EXPECT_EQ(book_->take_output().stable, nullptr);
}

TEST_F(CheckpointBookTest, KeptCertificatesLeadALaggardAlong) {
  EXPECT_EQ(book_->covering(Seq{1}), nullptr);
  for (const std::uint64_t n : {4u, 8u, 16u}) ASSERT_EQ(book_->step(certificate(state_at(n))), Refusal::kNone);
  EXPECT_EQ(stable_n(book_->covering(Seq{1})), Seq{4});
  EXPECT_EQ(stable_n(book_->covering(Seq{4})), Seq{4});
  EXPECT_EQ(stable_n(book_->covering(Seq{5})), Seq{8});
  EXPECT_EQ(stable_n(book_->covering(Seq{16})), Seq{16});
  EXPECT_EQ(book_->covering(Seq{17}), nullptr);
}

TEST_F(CheckpointBookTest, ACertificateThatCatchingUpBroughtIsKeptBelowTheStableOne) {
  ASSERT_EQ(book_->step(certificate(state_at(16))), Refusal::kNone);
  static_cast<void>(book_->take_output());
  book_->keep(certificate(state_at(8)));
  EXPECT_EQ(stable_n(book_->covering(Seq{1})), Seq{8});
  EXPECT_EQ(stable_n(book_->stable()), Seq{16});
  EXPECT_EQ(book_->take_output().stable, nullptr);
  auto forged = std::make_shared<StableCertificate>(*certificate(state_at(4)));
  forged->parts[0].signature.bytes[0] ^= 1;
  book_->keep(forged);
  EXPECT_EQ(stable_n(book_->covering(Seq{1})), Seq{8});
  book_->keep(certificate(state_at(20)));
  EXPECT_EQ(stable_n(book_->stable()), Seq{20});
}

TEST_F(CheckpointBookTest, ACertificateAgainstWhatWasDeliveredHereIsRefusedAndReported) {
  deliver_to(5);
  close_to(5);
  CheckpointState other = state_at(4);
  other.history.bytes[0] ^= 1;
  EXPECT_EQ(book_->step(certificate(other)), Refusal::kConflict);
  other = state_at(4);
  other.results.bytes[0] ^= 1;
  EXPECT_EQ(book_->step(certificate(other)), Refusal::kConflict);
  EXPECT_EQ(book_->step(certificate(state_at(5))), Refusal::kConflict) << "5 is no checkpoint";
  EXPECT_EQ(memory_.count(EventKind::kConflict), 3u);
  EXPECT_EQ(book_->stable(), nullptr);
  EXPECT_EQ(book_->step(certificate(state_at(4))), Refusal::kNone);
}

TEST_F(CheckpointBookTest, AnOrderThatTurnsOutOtherThanItsCertificateIsReported) {
  CheckpointState other = state_at(4);
  other.table.bytes[0] ^= 1;
  ASSERT_EQ(book_->step(certificate(other)), Refusal::kNone);
  deliver_to(4);
  EXPECT_EQ(memory_.count(EventKind::kConflict, Seq{4}), 1u);
}

TEST_F(CheckpointBookTest, ALearnerSignsNothingUntilItIsNoneAnyMore) {
  book_->set_silent(true);
  deliver_to(8);
  close_to(8);
  EXPECT_EQ(signed_now(), Numbers{});
  EXPECT_EQ(hear(1, state_at(4)), Refusal::kNone);
  EXPECT_EQ(hear(2, state_at(4)), Refusal::kNone);
  EXPECT_EQ(book_->stable(), nullptr) << "its own opinion was counted";
  book_->set_silent(false);
  EXPECT_EQ(signed_now(), (Numbers{4, 8}));
  EXPECT_EQ(stable_n(book_->stable()), Seq{4});
}

// ---- what executors say of the state (docs/protocol.md §6)

TEST_F(CheckpointBookTest, NoneIsSignedBeforeItsRootIsKnown) {
  deliver_to(8);
  close_without_roots_to(8);
  EXPECT_EQ(signed_now(), Numbers{});
  book_->settled(Seq{8}, digest_named("root", 8));
  EXPECT_EQ(signed_now(), Numbers{8}) << "whatever becomes of 4";
  book_->settled(Seq{4}, digest_named("root", 4));
  ASSERT_EQ(signed_now(), Numbers{4});
  EXPECT_EQ(book_->own()[0].state, state_at(4));
  book_->settled(Seq{4}, digest_named("root", 4));
  EXPECT_EQ(signed_now(), Numbers{});
}

TEST_F(CheckpointBookTest, ARootMayBeKnownBeforeAllIsClosed) {
  deliver_to(4);
  book_->settled(Seq{4}, digest_named("root", 4));
  EXPECT_EQ(signed_now(), Numbers{});
  close_without_roots_to(4);
  EXPECT_EQ(signed_now(), Numbers{4});
}

TEST_F(CheckpointBookTest, TheRootThatFPlusOneOthersSignedIsTakenOver) {
  deliver_to(4);
  close_without_roots_to(4);
  EXPECT_EQ(hear(3, state_at(4)), Refusal::kNone);
  EXPECT_EQ(signed_now(), Numbers{}) << "on the word of f";
  EXPECT_EQ(hear(1, state_at(4)), Refusal::kNone);
  const CheckpointOutput out = book_->take_output();
  ASSERT_EQ(out.taken_over.size(), 1u);
  EXPECT_EQ(out.taken_over[0].n, Seq{4});
  EXPECT_EQ(out.taken_over[0].root, digest_named("root", 4));
  ASSERT_EQ(out.send.size(), 1u);
  EXPECT_EQ(out.send[0].state, state_at(4));
  EXPECT_EQ(stable_n(out.stable), Seq{4});
}

TEST_F(CheckpointBookTest, ARootIsTakenOverOnceAllIsClosedHereAsThere) {
  deliver_to(4);
  EXPECT_EQ(hear(3, state_at(4)), Refusal::kNone);
  EXPECT_EQ(hear(1, state_at(4)), Refusal::kNone);
  EXPECT_EQ(signed_now(), Numbers{});
  close_without_roots_to(4);
  EXPECT_EQ(signed_now(), Numbers{4});
}

TEST_F(CheckpointBookTest, ARootIsNotTakenOverFromThoseWhoSayElseAnotherThing) {
  deliver_to(4);
  close_without_roots_to(4);
  CheckpointState other = state_at(4);
  other.results.bytes[0] ^= 1;
  EXPECT_EQ(hear(1, other), Refusal::kNone);
  other = state_at(4);
  other.root.bytes[0] ^= 1;
  EXPECT_EQ(hear(2, other), Refusal::kNone);
  EXPECT_EQ(hear(3, state_at(4)), Refusal::kNone);
  const CheckpointOutput out = book_->take_output();
  EXPECT_TRUE(out.taken_over.empty());
  EXPECT_TRUE(out.send.empty());
}

TEST_F(CheckpointBookTest, ACertificateOfAnotherRootThanTheSlotsGaveHereIsRefusedAndReported) {
  deliver_to(4);
  close_to(4);
  CheckpointState other = state_at(4);
  other.root.bytes[0] ^= 1;
  EXPECT_EQ(book_->step(certificate(other)), Refusal::kConflict);
  EXPECT_EQ(memory_.count(EventKind::kConflict, Seq{4}), 1u);
  EXPECT_EQ(book_->stable(), nullptr);
}

TEST_F(CheckpointBookTest, SlotsThatContradictTheStableCheckpointAreReported) {
  ASSERT_EQ(book_->step(certificate(state_at(4))), Refusal::kNone);
  deliver_to(4);
  book_->settled(Seq{4}, digest_named("root", 4));
  EXPECT_EQ(memory_.count(EventKind::kConflict), 0u);
  book_->settled(Seq{4}, digest_named("another root", 4));
  EXPECT_EQ(memory_.count(EventKind::kConflict, Seq{4}), 1u);
}

TEST_F(CheckpointBookTest, FPlusOneNodesWithAnotherRootAreReported) {
  deliver_to(4);
  CheckpointState other = state_at(4);
  other.root.bytes[0] ^= 1;
  EXPECT_EQ(hear(1, other), Refusal::kNone);
  EXPECT_EQ(hear(2, other), Refusal::kNone);
  EXPECT_EQ(memory_.count(EventKind::kConflict), 0u) << "this node cannot tell yet";
  close_to(4);
  EXPECT_EQ(memory_.count(EventKind::kConflict, Seq{4}), 1u);
}

TEST_F(CheckpointBookTest, WhatACertificateHasPassedIsNotSignedAnyMoreAndHoldsNothingUp) {
  deliver_to(5);
  ASSERT_EQ(book_->step(certificate(state_at(8))), Refusal::kNone);
  deliver_to(12);
  close_to(12);
  EXPECT_EQ(signed_now(), Numbers{12});
}

TEST_F(CheckpointBookTest, ARestartedNodeSignsTheSameAgainAboveItsCertificate) {
  deliver_to(8);
  close_to(8);
  const Checkpoint before = book_->own().back();
  start({.batches = kInterval, .requests = 1'000'000, .bytes = 1u << 30});
  ASSERT_EQ(book_->step(certificate(state_at(4))), Refusal::kNone);
  deliver_to(8);
  EXPECT_EQ(book_->results_through(), Seq{4});
  close_to(8);
  ASSERT_EQ(book_->own().size(), 1u);
  EXPECT_EQ(book_->own()[0].state, before.state);
  EXPECT_EQ(book_->own()[0].signature, before.signature);
}

}  // namespace
}  // namespace zz::agreement
