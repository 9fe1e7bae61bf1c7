#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "agreement/certificates.hpp"
#include "base/prng.hpp"
#include "execution/executor.hpp"
#include "tests/execution/order.hpp"
#include "tests/support/test_cluster.hpp"

namespace zz::execution::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr std::uint32_t kInterval = 16;  // batches between checkpoints

class Checkpoints : public ::testing::Test {
 protected:
  ExecutorConfig config(std::uint16_t slot = 0) const {
    ExecutorConfig out = make_config(slot);
    out.sessions.sessions_max = 5;
    out.sessions.client_window = 40;
    out.sessions.client_sessions_max = 5;
    out.sessions.reply_bytes_max = 200'000;
    out.checkpoints.batches = kInterval;
    out.genuine = [this](const agreement::StableCertificate& c) { return agreement::genuine(cluster.file, c); };
    return out;
  }
  agreement::CertificatePtr certify(const agreement::CheckpointState& state, std::uint16_t signers = 3) const {
    auto out = std::make_shared<agreement::StableCertificate>();
    out->service = kService;
    out->state = state;
    for (std::uint16_t i = 0; i < signers; ++i) {
      const Bytes fields = agreement::checkpoint_fields(cluster.file.id, kService, NodeId{i}, state);
      out->parts.push_back({NodeId{i}, cluster.node_keys[i].sign(fields)});
    }
    return out;
  }
  static agreement::CheckpointState state_at(std::uint64_t n, const Digest& history, const Digest& root) {
    agreement::CheckpointState out;
    out.n = Seq{n};
    out.history = history;
    out.root = root;
    return out;
  }
  // What slot said last of its own accord.
  static agreement::CheckpointState last_of(const Slot& slot) {
    const agreement::ExecCheckpoint& said = slot.checkpoints.back().checkpoint;
    return state_at(said.n.value, slot.core.history(), said.root);
  }
  static Refusal give(Slot& slot, const agreement::CertificatePtr& certificate, std::uint16_t from = 0) {
    const Refusal out = slot.core.step(NodeId{from}, agreement::Stable{certificate});
    slot.drain();
    return out;
  }
  // Fetches what is wanted, and what that leads to. False: the source lacks something.
  static bool fetch(Slot& slot, Slot& source, const state::Snapshot& snapshot) {
    while (!slot.missing.empty()) {
      for (const state::Want& want : std::exchange(slot.missing, {})) {
        const auto part = source.store->part(snapshot, want);
        if (!part) return false;
        static_cast<void>(slot.store->supply(*part));
      }
      slot.core.supplied();
      slot.drain();
      slot.service.supplied();
      slot.run();
    }
    return true;
  }
  static agreement::FetchReplies ask_for(std::uint64_t session, std::uint64_t number) {
    return {Seq{1}, {{0, ClientId{7}, SessionId{session}, RequestNumber{number}}}};
  }
  // Nothing: there is no body.
  static std::optional<std::string> body_of(Slot& slot, Slot& source, const state::Snapshot& snapshot,
                                            std::uint64_t session, std::uint64_t number) {
    slot.replies.clear();
    static_cast<void>(slot.core.step(NodeId{0}, ask_for(session, number)));
    slot.drain();
    if (!slot.missing.empty()) {
      EXPECT_TRUE(fetch(slot, source, snapshot));
      static_cast<void>(slot.core.step(NodeId{0}, ask_for(session, number)));
      slot.drain();
    }
    if (slot.replies.empty()) return std::nullopt;
    return std::string(slot.replies.front().replies.items.front().body.text());
  }

  test::TestCluster cluster;
};

// Batches of all kinds: repeats, many sessions that evict each other, long values, epochs.
std::vector<agreement::Batch> an_order(std::uint64_t seed, std::uint64_t batches) {
  Prng prng(seed);
  std::vector<std::uint64_t> next(7, 1);
  std::vector<agreement::Batch> out;
  for (std::uint64_t n = 1; n <= batches; ++n) {
    std::vector<Op> ops;
    for (std::uint64_t i = prng.below(6); i > 0; --i) {
      const std::uint64_t session = prng.below(20) == 0 ? prng.below(next.size()) : prng.below(4);
      const bool repeat = prng.below(4) == 0 && next[session] > 1;
      const std::uint64_t number = repeat ? 1 + prng.below(next[session] - 1) : next[session]++;
      const std::string key = "k" + std::to_string(prng.below(40));
      std::string text = "add " + key + " 1";
      if (prng.below(3) == 0) text = "get " + key;
      if (prng.below(8) == 0) text = "put " + key + " " + std::string(prng.below(20'000), 'v');
      if (prng.below(40) == 0) text = "put " + key + " " + std::string(70'000 + prng.below(90'000), 'w');
      if (prng.below(10) == 0) text = "del " + key;
      ops.push_back({session + 100, number, text});
    }
    std::vector<agreement::SystemOp> system;
    if (n == 1) system = {join(0, 1), join(1, 1), join(2, 1)};
    if (n == batches / 2) system = {epoch_change(1, {0, 2}, {{1, 1}})};
    out.push_back(make_batch(n, ops, system));
  }
  return out;
}

TEST_F(Checkpoints, AnExecutorThatAdoptedAStateGoesOnLikeOneThatRanTheWholeOrder) {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    Prng prng(seed);
    const auto order = an_order(seed, 12 * kInterval);
    const std::uint64_t adopted_at = kInterval * (1 + prng.below(8));
    Slot a(config(0));
    Slot b(config(2));
    a.all_up();
    b.all_up();
    state::Snapshot snapshot;
    for (const auto& batch : order) {
      const std::uint64_t n = batch.header->n.value;
      for (Slot* slot : {&a, &b}) slot->core.tick(Micros{static_cast<std::int64_t>(n)});
      a.deliver(batch);
      a.run();
      if (n % kInterval != 0) {
        if (n > adopted_at) b.deliver(batch);
        if (n > adopted_at && prng.below(2) == 0) b.run();
        const bool fetches = n > adopted_at && prng.below(2) == 0;
        EXPECT_TRUE(!fetches || fetch(b, a, snapshot));
        continue;
      }
      ASSERT_EQ(a.checkpoints.back().checkpoint.n.value, n);
      const auto certificate = certify(last_of(a));
      EXPECT_EQ(give(a, certificate), Refusal::kNone);
      ASSERT_TRUE(a.stable && a.stable->certificate->state.n.value == n);
      if (n < adopted_at) continue;
      if (n == adopted_at) {
        snapshot = a.core.snapshot_of(Seq{n});
        EXPECT_EQ(give(b, certificate), Refusal::kNone);
        EXPECT_TRUE(b.adopted);
        EXPECT_FALSE(b.core.running());
        EXPECT_TRUE(fetch(b, a, snapshot));
        EXPECT_TRUE(b.core.running()) << b.ended;
        continue;
      }
      b.deliver(batch);
      b.run();
      EXPECT_TRUE(fetch(b, a, snapshot));
      ASSERT_EQ(b.core.executed().value, n);
      ASSERT_THAT(b.checkpoints, Not(IsEmpty()));
      ASSERT_EQ(b.checkpoints.back().checkpoint.root, a.checkpoints.back().checkpoint.root) << seed << " at " << n;
      EXPECT_EQ(give(b, certificate), Refusal::kNone);
      ASSERT_EQ(b.ended, "");
    }
    ASSERT_EQ(b.votes.size(), order.size() - adopted_at);
    for (std::size_t i = 0; i < b.votes.size(); ++i) {
      const agreement::Vote& others = a.votes[adopted_at + i];
      EXPECT_EQ(b.votes[i].n, others.n);
      EXPECT_EQ(b.votes[i].epoch, others.epoch);
      EXPECT_EQ(b.votes[i].replies, others.replies);
    }
    EXPECT_EQ(a.core.slots().digest(), b.core.slots().digest());
    int bodies = 0;
    for (std::uint64_t session = 100; session < 107; ++session) {
      for (std::uint64_t number = 1; number < 300; ++number) {
        const auto one = body_of(a, a, snapshot, session, number);
        EXPECT_EQ(one, body_of(b, a, snapshot, session, number)) << session << " " << number;
        if (one) ++bodies;
      }
    }
    EXPECT_GT(bodies, 20);
    EXPECT_LE(a.store->totals().objects, 41 * 3 + SlotState::reserve(config().sessions).objects);
  }
}

TEST_F(Checkpoints, AnExecutorThatAdoptedAStateGivesItToOthers) {
  Slot first(config(0));
  Slot second(config(1));
  Slot third(config(2));
  for (Slot* slot : {&first, &second, &third}) slot->all_up();
  for (const auto& batch : an_order(9, kInterval)) first.deliver(batch);
  first.run();
  const auto certificate = certify(last_of(first));
  for (Slot* slot : {&first, &second, &third}) EXPECT_EQ(give(*slot, certificate), Refusal::kNone);
  EXPECT_TRUE(fetch(second, first, first.core.snapshot_of(Seq{kInterval})));
  EXPECT_TRUE(fetch(third, second, second.core.snapshot_of(Seq{kInterval})));
  EXPECT_TRUE(third.core.running()) << third.ended;
}

TEST_F(Checkpoints, WhatIsWantedToLoadAStateIsNamedAgainAsLongAsItIsMissing) {
  Slot source(config(0));
  Slot slot(config(1));
  for (Slot* one : {&source, &slot}) one->all_up();
  for (const auto& batch : an_order(9, kInterval)) source.deliver(batch);
  source.run();
  const auto certificate = certify(last_of(source));
  give(source, certificate);
  give(slot, certificate);
  int rounds = 0;
  for (; !slot.core.running() && rounds < 1'000; ++rounds) {
    slot.missing.clear();  // forgotten
    slot.core.supplied();
    slot.drain();
    ASSERT_FALSE(slot.missing.empty());
    slot.missing.resize(1);
    const auto part = source.store->part(source.core.snapshot_of(Seq{kInterval}), slot.missing.front());
    ASSERT_TRUE(part);
    EXPECT_EQ(slot.store->supply(*part), Refusal::kNone);
    slot.core.supplied();
    slot.drain();
  }
  EXPECT_TRUE(slot.core.running()) << slot.ended;
  EXPECT_GT(rounds, 3);
}

TEST_F(Checkpoints, ACertificateWithoutAQuorumOfGoodSignaturesIsRefused) {
  Slot slot(config());
  slot.all_up();
  const auto state = state_at(kInterval, Digest{{1}}, Digest{{2}});
  EXPECT_EQ(give(slot, nullptr), Refusal::kMalformed);
  EXPECT_EQ(give(slot, certify(state, 2)), Refusal::kMalformed);
  agreement::StableCertificate wrong = *certify(state);
  wrong.parts[2] = wrong.parts[1];
  EXPECT_EQ(give(slot, std::make_shared<agreement::StableCertificate>(wrong)), Refusal::kMalformed);
  wrong = *certify(state);
  wrong.parts[2].signer = NodeId{4};
  EXPECT_EQ(give(slot, std::make_shared<agreement::StableCertificate>(wrong)), Refusal::kUnknownPeer);
  wrong = *certify(state);
  wrong.service = ServiceId{4};
  EXPECT_EQ(give(slot, std::make_shared<agreement::StableCertificate>(wrong)), Refusal::kUnknownService);
  wrong = *certify(state);
  wrong.state.root.bytes[0] ^= 1;  // signed is another root
  const auto forged = std::make_shared<agreement::StableCertificate>(wrong);
  EXPECT_EQ(give(slot, forged), Refusal::kBadSignature);
  EXPECT_EQ(give(slot, forged), Refusal::kBadSignature);
  EXPECT_EQ(give(slot, forged), Refusal::kQuota);
  EXPECT_EQ(give(slot, certify(state)), Refusal::kQuota);
  EXPECT_EQ(slot.core.stats().forged, 2u);
  EXPECT_FALSE(slot.adopted);
  EXPECT_EQ(give(slot, certify(state), 1), Refusal::kNone) << "another node is not to suffer";
  EXPECT_TRUE(slot.adopted);
  EXPECT_EQ(give(slot, certify(state), 1), Refusal::kDuplicate);
  slot.core.tick(Micros{1});
  EXPECT_EQ(give(slot, forged), Refusal::kDuplicate) << "it says nothing new, whatever its signatures";
}

TEST_F(Checkpoints, ASlotWhoseStateIsNotTheCertifiedOneSaysNothingAnyMore) {
  Slot slot(config());
  slot.all_up();
  const auto order = an_order(3, 3 * kInterval);
  for (std::size_t i = 0; i < kInterval + 1; ++i) slot.deliver(order[i]);
  slot.run();
  agreement::CheckpointState state = last_of(slot);
  state.history = Digest{};
  for (std::size_t i = 0; i < kInterval; ++i) state.history = agreement::history_digest(state.history, order[i].digest);
  state.root.bytes[0] ^= 1;
  EXPECT_EQ(give(slot, certify(state)), Refusal::kNone);
  EXPECT_THAT(slot.ended, HasSubstr("not the certified one after batch 16"));
  slot.votes.clear();
  slot.deliver(order[kInterval + 1]);
  EXPECT_EQ(slot.run(), 0);
  slot.core.node_down(NodeId{1});
  slot.core.node_up(NodeId{1});
  slot.votes_again.clear();
  slot.drain();
  EXPECT_THAT(slot.votes, IsEmpty());
  EXPECT_THAT(slot.votes_again, IsEmpty());
}

TEST_F(Checkpoints, ACheckpointWaitsForAPlaceInTheStoreAndIsThenTheSame) {
  const auto order = an_order(4, 2 * kInterval);
  Slot free(config());
  Slot crowded(config());
  free.all_up();
  crowded.all_up();
  std::vector<state::Snapshot> others;
  while (auto snapshot = crowded.store->snapshot()) others.push_back(*snapshot);
  for (const auto& batch : order) {
    free.deliver(batch);
    crowded.deliver(batch);
  }
  free.run();
  crowded.run();
  EXPECT_EQ(crowded.core.executed(), Seq{kInterval});
  EXPECT_TRUE(crowded.core.waits_for_place());
  EXPECT_EQ(crowded.core.stats().no_place, 1u);
  EXPECT_THAT(crowded.votes, SizeIs(kInterval)) << "the vote does not wait";
  others.clear();
  test::reclaim(*crowded.store);
  crowded.run();
  ASSERT_THAT(crowded.checkpoints, SizeIs(2));
  ASSERT_THAT(free.checkpoints, SizeIs(2));
  for (std::size_t i : {0, 1}) EXPECT_EQ(crowded.checkpoints[i].checkpoint.root, free.checkpoints[i].checkpoint.root);
}

TEST_F(Checkpoints, OneThatSavesFirstWaitsForTheServicesStateAndIsThenTheSame) {
  const auto order = an_order(4, 2 * kInterval);
  Slot free(config());
  ExecutorConfig late = config();
  late.saves_first = true;
  Slot saving(late);
  free.all_up();
  saving.all_up();
  for (const auto& batch : order) {
    free.deliver(batch);
    saving.deliver(batch);
  }
  free.run();
  for (std::uint64_t i = 1; i <= 2; ++i) {
    saving.run();
    EXPECT_EQ(saving.core.executed(), Seq{i * kInterval});
    EXPECT_THAT(saving.votes, SizeIs(i * kInterval)) << "the vote does not wait";
    EXPECT_THAT(saving.checkpoints, SizeIs(i - 1));
    ASSERT_EQ(saving.core.to_save(), order[i * kInterval - 1].header->time) << "of the batch's agreed time";
    saving.core.saved();
    EXPECT_FALSE(saving.core.to_save());
  }
  saving.run();
  EXPECT_EQ(saving.core.stats().no_place, 0u);
  ASSERT_THAT(saving.checkpoints, SizeIs(2));
  ASSERT_THAT(free.checkpoints, SizeIs(2));
  for (std::size_t i : {0, 1}) EXPECT_EQ(saving.checkpoints[i].checkpoint.root, free.checkpoints[i].checkpoint.root);
}

TEST_F(Checkpoints, ASlotFarBehindAdoptsWhatIsCertified) {
  Slot slot(config());
  slot.all_up();
  slot.deliver(make_batch(1, {{1, 1, "add k 1"}}));
  slot.run();
  EXPECT_EQ(give(slot, certify(state_at(1 + kOrderWindow, Digest{{1}}, Digest{{2}}))), Refusal::kNone);
  EXPECT_FALSE(slot.adopted);
  slot.subscribes.clear();
  EXPECT_EQ(give(slot, certify(state_at(2 + kOrderWindow, Digest{{1}}, Digest{{2}}))), Refusal::kNone);
  EXPECT_TRUE(slot.adopted);
  ASSERT_THAT(slot.subscribes, SizeIs(4));
  EXPECT_EQ(slot.subscribes[0].subscribe.from, Seq{3 + kOrderWindow});
  EXPECT_FALSE(slot.missing.empty());
  for (const state::Want& want : slot.missing) EXPECT_EQ(want.kind, state::PartKind::kRoot);
  EXPECT_EQ(slot.core.step(NodeId{0}, ask_for(1, 1)), Refusal::kNotReady);
}

TEST_F(Checkpoints, ASlotThatLacksTheOrderOfACertificateAdoptsItsState) {
  Slot slot(config());
  slot.all_up();
  slot.deliver(make_batch(1, {{1, 1, "add k 1"}}));
  slot.run();
  slot.core.tick(Micros{1});
  EXPECT_EQ(give(slot, certify(state_at(kInterval, Digest{{1}}, Digest{{2}}))), Refusal::kNone);
  const std::int64_t patience = kOrderLostTimeouts * config().body_timeout.value;
  slot.core.tick(Micros{2});
  slot.core.tick(Micros{1 + patience});
  slot.drain();
  EXPECT_FALSE(slot.adopted);
  slot.core.tick(Micros{2 + patience});
  slot.drain();
  EXPECT_TRUE(slot.adopted);
}

TEST_F(Checkpoints, ANewerCertificateInterruptsLoadingOnlyOnceTheLoadedStateIsGoneElsewhere) {
  Slot slot(config());
  slot.all_up();
  const auto at = [&](std::uint64_t i) { return certify(state_at(i * kInterval, Digest{{1}}, Digest{{2}})); };
  give(slot, at(1));
  give(slot, at(2), 1);
  EXPECT_EQ(slot.adopted->state.n, Seq{kInterval});
  give(slot, at(3), 2);
  EXPECT_EQ(slot.adopted->state.n, Seq{3 * kInterval});
  EXPECT_FALSE(slot.core.start_over());
  give(slot, at(4), 3);
  EXPECT_TRUE(slot.core.start_over());
  slot.drain();
  EXPECT_EQ(slot.adopted->state.n, Seq{4 * kInterval});
}

// The slot's disk holds an earlier certified state, and nodes keep the order.
TEST_F(Checkpoints, AStateThatNobodyHasIsMadeAgainFromTheOneOnDisk) {
  const auto order = an_order(9, 3 * kInterval);
  Slot source(config());
  Slot earlier(config());
  for (Slot* const slot : {&source, &earlier}) slot->all_up();
  for (std::size_t i = 0; i < order.size(); ++i) {
    source.deliver(order[i]);
    if (i < kInterval) earlier.deliver(order[i]);
  }
  source.run();
  earlier.run();
  const agreement::CertificatePtr lost = certify(last_of(source));
  const agreement::CertificatePtr kept = certify(last_of(earlier));
  const auto disk = *earlier.store->snapshot();
  static_cast<void>(test::digest_of(*earlier.store, disk));
  earlier.store->clear();
  Slot slot(config(), std::move(earlier.store));
  slot.all_up();
  give(slot, lost);
  EXPECT_FALSE(slot.core.start_over(kept));
  EXPECT_FALSE(slot.core.start_over(kept)) << "not at the first time that nobody has it";
  ASSERT_TRUE(slot.core.start_over(kept));
  slot.drain();
  EXPECT_EQ(slot.adopted->state.n, kept->state.n);
  EXPECT_TRUE(slot.core.running()) << "all of it is here";
  // The order takes its time. The lost state is not waited for again.
  const std::int64_t patience = kOrderLostTimeouts * config().body_timeout.value;
  slot.core.tick(Micros{1});
  slot.core.tick(Micros{1 + 2 * patience});
  slot.drain();
  EXPECT_EQ(slot.adopted->state.n, kept->state.n);
  for (std::size_t i = kInterval; i < order.size(); ++i) slot.deliver(order[i]);
  slot.run();
  EXPECT_EQ(last_of(slot).root, lost->state.root);
  EXPECT_EQ(slot.core.stats().stable, 1u) << "it is the certified one again";
  EXPECT_EQ(slot.core.stats().replayed, 0u);
}

// What the disk says is not believed, nor tried twice.
TEST_F(Checkpoints, AStateOnDiskThatIsNotCertifiedOrNotWholeIsNotBegunWith) {
  const agreement::CertificatePtr lost = certify(state_at(3 * kInterval, Digest{{1}}, Digest{{2}}));
  const agreement::CheckpointState state = state_at(kInterval, Digest{{3}}, Digest{{4}});
  const auto fewer = certify(state, 2);
  auto forged = *certify(state);
  forged.state.root = Digest{{5}};
  const auto newer = certify(state_at(4 * kInterval, Digest{{1}}, Digest{{2}}));
  for (const auto& kept : {fewer, std::make_shared<const agreement::StableCertificate>(forged), newer}) {
    Slot slot(config());
    slot.all_up();
    give(slot, lost);
    for (std::uint32_t i = 1; i < kStaleMax; ++i) EXPECT_FALSE(slot.core.start_over(kept));
    EXPECT_TRUE(slot.core.start_over(kept));
    EXPECT_EQ(slot.core.stats().replayed, 1u);
  }
  Slot slot(config());
  slot.all_up();
  give(slot, lost);
  const auto damaged = certify(state);
  for (std::uint32_t i = 1; i < kStaleMax; ++i) EXPECT_FALSE(slot.core.start_over(damaged));
  EXPECT_TRUE(slot.core.start_over(damaged));
  EXPECT_EQ(slot.core.stats().replayed, 0u);
  for (std::uint32_t i = 1; i < kStaleMax; ++i) EXPECT_FALSE(slot.core.start_over(damaged));
  EXPECT_TRUE(slot.core.start_over(damaged));
  EXPECT_EQ(slot.core.stats().replayed, 1u);
}

TEST_F(Checkpoints, ANodeWhoseChannelIsNewIsToldTheLastCheckpointsAgain) {
  Slot slot(config());
  slot.all_up();
  for (const auto& batch : an_order(5, 2 * kInterval)) slot.deliver(batch);
  slot.run();
  const auto told = std::exchange(slot.checkpoints, {});
  ASSERT_THAT(told, SizeIs(2));
  EXPECT_FALSE(told[0].to);
  slot.core.node_down(NodeId{2});
  slot.core.node_up(NodeId{2});
  slot.drain();
  ASSERT_THAT(slot.checkpoints, SizeIs(2));
  for (std::size_t i : {0, 1}) {
    EXPECT_EQ(slot.checkpoints[i].to, NodeId{2});
    EXPECT_EQ(slot.checkpoints[i].checkpoint.root, told[i].checkpoint.root);
  }
}

TEST_F(Checkpoints, OnlyTheNewestStableSnapshotsStay) {
  Slot slot(config());
  slot.all_up();
  for (const auto& batch : an_order(6, 12 * kInterval)) {
    slot.core.tick(Micros{static_cast<std::int64_t>(batch.header->n.value)});
    slot.deliver(batch);
    slot.run();
    if (batch.header->n.value % kInterval == 0) give(slot, certify(last_of(slot)));
  }
  EXPECT_EQ(slot.core.stats().stable, 12u);
  EXPECT_EQ(slot.core.stats().no_place, 0u);
  EXPECT_TRUE(slot.core.snapshot_of(Seq{12 * kInterval}));
  EXPECT_TRUE(slot.core.snapshot_of(Seq{11 * kInterval}));
  EXPECT_FALSE(slot.core.snapshot_of(Seq{10 * kInterval}));
}

TEST_F(Checkpoints, AStoreOfAnEarlierLifeWaitsForACertificateAndIsReused) {
  const auto order = an_order(7, 3 * kInterval);
  Slot source(config());
  Slot earlier(config());
  source.all_up();
  earlier.all_up();
  for (std::size_t i = 0; i < order.size(); ++i) {
    source.deliver(order[i]);
    if (i < 2 * kInterval + 5) earlier.deliver(order[i]);
  }
  source.run();
  earlier.run();
  Slot later(config(), std::move(earlier.store));
  later.all_up();
  later.deliver(order[0]);
  EXPECT_EQ(later.run(), 0) << "its store is not the initial state";
  EXPECT_FALSE(later.core.running());
  give(later, certify(last_of(source)));
  EXPECT_TRUE(fetch(later, source, source.core.snapshot_of(Seq{3 * kInterval})));
  EXPECT_TRUE(later.core.running()) << later.ended;
  EXPECT_GT(later.store->counters().reused, 0u);
}

// What is certified is right; a fault of ours that certifies something else must still not be a crash.
TEST_F(Checkpoints, ADamagedStateIsNamedAndNoCrash) {
  const auto order = an_order(8, 3 * kInterval);
  std::map<std::string, int> named;
  for (std::uint64_t seed = 0; seed < 150; ++seed) {
    Prng prng(seed);
    Slot source(config());
    source.all_up();
    for (std::size_t i = 0; i < kInterval; ++i) source.deliver(order[i]);
    source.run();
    const agreement::CheckpointState said = last_of(source);
    std::vector<state::ObjectId> own;
    for (state::ObjectId at{kOwnFirst};;) {
      const auto next = source.store->next(at);
      if (next.status != state::Status::kDone) break;
      own.push_back(next.id);
      at = next.id.next();
    }
    const state::ObjectId victim = own[seed % own.size()];
    const SharedBytes before = source.store->read(victim).bytes;
    Bytes bytes(before.view().begin(), before.view().end());
    switch (prng.below(3)) {
      case 0:
        bytes.resize(prng.below(bytes.size() + 20));
        break;
      case 1:
        for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(prng.next());
        break;
      default:
        if (!bytes.empty()) bytes[prng.below(bytes.size())] ^= static_cast<std::uint8_t>(1 + prng.below(255));
    }
    ASSERT_EQ(source.store->write(victim, bytes).status, state::Status::kDone);
    const auto snapshot = source.store->snapshot();
    const Digest root = test::digest_of(*source.store, *snapshot);
    Slot slot(config());
    slot.all_up();
    give(slot, certify(state_at(kInterval, said.history, root)));
    EXPECT_TRUE(fetch(slot, source, *snapshot));
    EXPECT_NE(slot.core.running(), !slot.ended.empty());
    ++named[slot.ended];
    for (std::size_t i = kInterval; i < order.size(); ++i) slot.deliver(order[i]);
    slot.run();
    static_cast<void>(fetch(slot, source, *snapshot));
    for (std::uint64_t number = 1; number < 20; ++number) {
      static_cast<void>(slot.core.step(NodeId{0}, ask_for(100 + number % 4, number)));
      slot.drain();
      static_cast<void>(fetch(slot, source, *snapshot));
    }
  }
  EXPECT_GE(named.size(), 6u) << "the test damages too little";
}

}  // namespace
}  // namespace zz::execution::testing
