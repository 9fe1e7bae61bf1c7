// Each kind of adversary does what it says, to sample messages.

#include "tests/sim/adversary.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "agreement/authority.hpp"
#include "agreement/view_change.hpp"
#include "tests/support/test_cluster.hpp"

namespace zz::sim {
namespace {

using namespace agreement;

constexpr ServiceId kService{0};

crypto::Peer node_peer(std::uint32_t i) { return {crypto::Role::kNode, i, {}, {}, {}}; }
Progress progress(View view, Seq delivered, Seq stable) {
  Progress out;
  out.view = view;
  out.delivered = delivered;
  out.stable = stable;
  return out;
}
NodeId node(std::uint32_t i) { return NodeId{static_cast<std::uint16_t>(i)}; }

// Node 0 is faulty, of four; with `more`, of seven, and node 1 too.
struct Stage {
  explicit Stage(std::string_view kind, std::uint64_t seed = 1, bool more = false)
      : cluster(more ? 2 : 1), prng(seed), adversary(make_adversary(kind, prng)) {
    keys[node(0)] = &cluster.node_keys[0];
    if (more) keys[node(1)] = &cluster.node_keys[1];
  }

  test::TestCluster cluster;
  Prng prng;
  Counters counters;
  std::map<NodeId, const crypto::SecretKey*> keys;
  std::unique_ptr<Adversary> adversary;

  AdversaryWorld world() { return {cluster.file, node(0), keys, prng, counters, Micros{1'000'000}}; }
  static MessagePtr message(Body body) { return std::make_shared<const Message>(Message{kService, std::move(body)}); }

  std::vector<Adversary::Leaving> say(const MessagePtr& m, std::uint32_t to) {
    std::vector<Adversary::Leaving> out;
    AdversaryWorld w = world();
    adversary->outgoing(w, {node_peer(0), node_peer(to), m}, out);
    return out;
  }
  std::vector<Adversary::Leaving> say(Body body, std::uint32_t to) { return say(message(std::move(body)), to); }
  // What each of the others gets of one message.
  std::map<std::uint32_t, std::vector<Adversary::Leaving>> cast(Body body) {
    const MessagePtr m = message(std::move(body));
    std::map<std::uint32_t, std::vector<Adversary::Leaving>> out;
    for (std::uint32_t i = 1; i < cluster.file.n(); ++i) out[i] = say(m, i);
    return out;
  }
  bool hear(const crypto::Peer& from, Body body) {
    AdversaryWorld w = world();
    return adversary->incoming(w, {from, node_peer(0), message(std::move(body))});
  }
  std::vector<Adversary::Leaving> act(int times) {
    std::vector<Adversary::Leaving> out;
    for (int i = 0; i < times; ++i) {
      AdversaryWorld w = world();
      adversary->act(w, out);
    }
    return out;
  }
  std::uint64_t counted(std::string_view prefix) const {
    std::uint64_t sum = 0;
    for (const auto& [name, count] : counters) {
      if (name.starts_with(prefix)) sum += count;
    }
    return sum;
  }

  static HeaderPtr header(std::uint64_t n, std::size_t requests, std::int64_t time = 5'000'000) {
    auto made = std::make_shared<BatchHeader>();
    made->service = kService;
    made->n = Seq{n};
    made->time = Micros{time};
    for (std::size_t i = 0; i < requests; ++i) {
      const auto k = static_cast<std::uint8_t>(i);
      made->references.push_back({ClientId{1 + k % 2u}, SessionId{7}, RequestNumber{1 + i}, Digest{{k, 1}}});
    }
    return made;
  }
  static PrePrepare proposal(const HeaderPtr& header, View view = {}) { return {view, header, batch_digest(*header)}; }

  // Valid VIEW-CHANGEs of all nodes, who have prepared batch 1.
  std::vector<ViewChangePtr> changes(View view) {
    std::vector<ViewChangePtr> out;
    const Claim claim{Seq{1}, batch_digest(*header(1, 1)), View{view.value - 1}};
    for (std::uint32_t i = 0; i < cluster.file.n(); ++i) {
      Authority authority(cluster.file, kService, node(i), cluster.node_keys[i]);
      ViewChange made;
      made.view = view;
      made.prepared = made.pre_prepared = {claim};
      authority.sign(made);
      out.push_back(std::make_shared<const ViewChange>(std::move(made)));
    }
    return out;
  }
};

template <class T>
const T* only(const std::vector<Adversary::Leaving>& leaving) {
  return leaving.size() == 1 ? std::get_if<T>(&leaving[0].parcel.message->body) : nullptr;
}
bool all_of_self(const std::vector<Adversary::Leaving>& leaving) {
  return std::all_of(leaving.begin(), leaving.end(), [](const auto& l) {
    return l.parcel.from == node_peer(0) && l.parcel.to != node_peer(0) && l.parcel.message != nullptr;
  });
}

TEST(AdversaryTest, EveryKindCanBeMadeAndSaysItsName) {
  for (const std::string& kind : adversary_kinds()) {
    Prng prng(3);
    EXPECT_EQ(make_adversary(kind, prng)->name(), kind);
  }
}

// Anything a correct node may say or hear goes through every kind, in its own name, and twice the same with one seed.
TEST(AdversaryTest, EveryKindBearsEveryMessageAndIsAFunctionOfItsSeed) {
  for (const std::string& kind : adversary_kinds()) {
    std::vector<std::size_t> lives[2];
    for (std::vector<std::size_t>& life : lives) {
      Stage s(kind, 11, true);
      const auto changes = s.changes(View{1});
      auto view = std::make_shared<NewView>();
      view->signer = node(0);
      view->view = View{7};
      view->proof = s.changes(View{7});
      view->chosen = {batch_digest(*Stage::header(1, 1))};
      auto certificate = std::make_shared<StableCertificate>();
      certificate->state.n = Seq{4};
      certificate->parts.resize(5);
      auto request = std::make_shared<Request>();
      request->op = SharedBytes::copy("put k a");
      const std::vector<Body> all = {Stage::proposal(Stage::header(1, 4)),
                                     Prepare{{}, Seq{1}, {}},
                                     Commit{{}, Seq{1}, {}},
                                     FetchBodies{},
                                     FetchBodies{{{}}},
                                     Bodies{{request}},
                                     Acks{},
                                     Acks{SessionId{1}, {{RequestNumber{1}, {}, true, {}}}},
                                     Rejected{},
                                     Orders{Seq{1}, {{}}},
                                     Orders{},
                                     Batch{Stage::header(1, 1), {}, {request}},
                                     FetchReplies{},
                                     ReplyDigests{},
                                     Wake{},
                                     Suspect{},
                                     EpochNotice{},
                                     EpochNotice{kService, {}, {}, {}, {Incarnation{1}}, {}},
                                     StatusReport{},
                                     FetchHeaders{},
                                     Headers{{Stage::header(1, 1)}},
                                     Checkpoint{kService, node(0), {Seq{4}, {}, {}, {}, {}}, {}},
                                     Stable{certificate},
                                     FetchOrder{},
                                     OrderProof{certificate, Seq{1}, {{}}},
                                     OrderProof{certificate, Seq{1}, {}},
                                     changes[0],
                                     NewViewPtr(view),
                                     Progress{},
                                     VouchQuery{},
                                     Vouched{{{}}},
                                     Propose{Join{}},
                                     Propose{EpochChange{}},
                                     Requests{},
                                     Vote{},
                                     FetchState{},
                                     FetchState{1, SlotId{1}, Seq{4}, {StateWant{}}, {}},
                                     StateParts{},
                                     StateParts{1, {{2, 0, 16, {}}, {1, 0, 3, SharedBytes::copy("node")}}},
                                     Join{}};
      for (int round = 0; round < 40; ++round) {
        for (const Body& body : all) {
          for (const auto& [to, leaving] : s.cast(body)) {
            EXPECT_TRUE(all_of_self(leaving)) << kind;
            life.push_back(leaving.size());
            for (const auto& l : leaving) life.push_back(l.parcel.message->body.index() + 1'000 * to);
          }
          life.push_back(s.hear(node_peer(1), body) ? 1 : 0);
        }
        for (const auto& l : s.act(5)) life.push_back(l.parcel.message->body.index());
      }
    }
    EXPECT_EQ(lives[0], lives[1]) << kind;
  }
}

TEST(AdversaryTest, SilentDropsEverythingOrSomeKindsOrSomeReceivers) {
  std::set<std::string> modes;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Stage s("silent", seed);
    for (std::uint64_t i = 0; i < 4; ++i) {
      s.cast(Stage::proposal(Stage::header(1 + i, 1)));
      s.cast(Prepare{{}, Seq{1 + i}, {}});
      s.cast(Commit{{}, Seq{1 + i}, {}});
      s.cast(Progress{});
    }
    for (const auto& [name, count] : s.counters) modes.insert(name);
  }
  EXPECT_EQ(modes, (std::set<std::string>{"byzantine.silent.all", "byzantine.silent.kinds", "byzantine.silent.nodes"}));
}

TEST(AdversaryTest, SlowHoldsProposalsJustBelowTheTimeout) {
  Stage s("slow");
  const std::int64_t timeout = std::int64_t{s.cluster.file.timing.view_timeout_ms} * 1'000;
  const auto out = s.say(Stage::proposal(Stage::header(1, 1)), 1);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].delay.value, timeout * 9 / 10);
  bool held = false;
  for (int i = 0; i < 100; ++i) {
    const Micros delay = s.say(Prepare{}, 1).at(0).delay;
    held = held || delay.value > 0;
    EXPECT_TRUE(delay.value == 0 || (delay.value >= timeout / 2 && delay.value <= 3 * timeout));
  }
  EXPECT_TRUE(held);
}

TEST(AdversaryTest, EquivocateProposesOtherBatchesToDisjointGroupsWithVotesThatMatch) {
  Stage s("equivocate");
  for (std::uint64_t n = 1; n <= 12; ++n) {
    const PrePrepare real = Stage::proposal(Stage::header(n, 3));
    std::map<std::uint32_t, Digest> told;
    for (const auto& [to, leaving] : s.cast(real)) {
      const auto& m = std::get<PrePrepare>(leaving.at(0).parcel.message->body);
      EXPECT_EQ(m.digest, batch_digest(*m.header));
      EXPECT_EQ(m.header->n, Seq{n});
      told[to] = m.digest;
      if (m.digest == real.digest) continue;
      ASSERT_EQ(leaving.size(), 2u);  // its own code will not vote for it
      EXPECT_EQ(std::get<Commit>(leaving[1].parcel.message->body).digest, m.digest);
    }
    std::set<Digest> different;
    for (const auto& [to, digest] : told) different.insert(digest);
    EXPECT_GE(different.size(), 2u) << n;
    for (const auto& [to, leaving] : s.cast(Commit{{}, Seq{n}, real.digest})) {
      ASSERT_NE(only<Commit>(leaving), nullptr);
      EXPECT_EQ(only<Commit>(leaving)->digest, told[to]);
    }
  }
}

TEST(AdversaryTest, EquivocatingAccomplicesVoteForTheBatchThatEachReceiverWasTold) {
  Stage primary("equivocate", 1, true);
  Stage backup("equivocate", 2, true);
  const PrePrepare real = Stage::proposal(Stage::header(3, 3), View{1});
  std::map<std::uint32_t, Digest> told;
  for (const auto& [to, leaving] : primary.cast(real)) {
    told[to] = std::get<PrePrepare>(leaving.at(0).parcel.message->body).digest;
  }
  EXPECT_EQ(told[1], real.digest);  // the accomplice is told the truth
  backup.hear(node_peer(1), real);  // (the stage's self is node 0; node 1 is its accomplice)
  std::size_t votes = 0;
  for (const auto& leaving : backup.act(1)) {
    const auto* prepare = std::get_if<Prepare>(&leaving.parcel.message->body);
    if (prepare == nullptr) continue;
    ++votes;
    EXPECT_EQ(prepare->digest, told[leaving.parcel.to.index]);
  }
  EXPECT_EQ(votes, 5u);
}

TEST(AdversaryTest, MutateSpoilsStateThatItRelays) {
  Stage s("mutate");
  const StateParts real{7, {{2, 5, 16, SharedBytes::copy("object")}}};
  std::set<std::string> texts;
  bool fewer = false;
  bool elsewhere = false;
  for (int i = 0; i < 400; ++i) {
    for (const auto& leaving : s.say(real, 1)) {
      const auto& m = std::get<StateParts>(leaving.parcel.message->body);
      fewer = fewer || m.parts.empty();
      if (m.parts.empty()) continue;
      elsewhere = elsewhere || m.parts[0].prefix != 5;
      texts.insert(std::string(m.parts[0].bytes.text()));
    }
  }
  EXPECT_TRUE(fewer && elsewhere);
  EXPECT_GT(texts.size(), 3u);
}

TEST(AdversaryTest, MutateChangesLittleAndKeepsDigestsTrue) {
  Stage s("mutate");
  const PrePrepare real = Stage::proposal(Stage::header(5, 3));
  std::set<Digest> seen;
  for (int i = 0; i < 200; ++i) {
    for (const auto& leaving : s.say(real, 1)) {
      const auto& m = std::get<PrePrepare>(leaving.parcel.message->body);
      EXPECT_EQ(m.digest, batch_digest(*m.header));
      seen.insert(m.digest);
    }
  }
  EXPECT_GT(seen.size(), 5u);
  EXPECT_GT(s.counted("byzantine.mutate.changed"), 0u);
  bool view = false;
  bool n = false;
  bool digest = false;
  for (int i = 0; i < 400; ++i) {
    const auto out = s.say(Prepare{View{3}, Seq{8}, {}}, 1);
    const auto& m = std::get<Prepare>(out.at(0).parcel.message->body);
    view = view || m.view == View{4} || m.view == View{2};
    n = n || m.n == Seq{7} || m.n == Seq{9};
    digest = digest || !m.digest.is_zero();
  }
  EXPECT_TRUE(view && n && digest);
}

TEST(AdversaryTest, ReplaySaysAgainWhatItHeardAndSaid) {
  Stage s("replay");
  for (std::uint64_t i = 1; i <= 2'000; ++i) {
    EXPECT_EQ(s.say(Prepare{{}, Seq{i}, {}}, 1).size(), 1u);
    EXPECT_TRUE(s.hear(node_peer(2), Commit{{}, Seq{i}, {}}));
  }
  std::uint64_t oldest = 10'000;
  std::uint64_t newest = 0;
  std::size_t heard = 0;
  const auto all = s.act(2'000);
  for (const auto& leaving : all) {
    const Body& body = leaving.parcel.message->body;
    if (const auto* m = std::get_if<Prepare>(&body)) {
      oldest = std::min(oldest, m->n.value);
      newest = std::max(newest, m->n.value);
    } else {
      ++heard;
    }
  }
  EXPECT_LT(oldest, 200u);
  EXPECT_GT(newest, 1'800u);
  EXPECT_GT(heard, 0u);
  EXPECT_GT(all.size(), 1'000u);
  EXPECT_LT(all.size(), 20'000u);  // 40 s at less than 500 a second
}

TEST(AdversaryTest, ForgeSignsWithWhatKeysItHasOnly) {
  Stage s("forge");
  for (const ViewChangePtr& change : s.changes(View{1})) s.hear(node_peer(change->signer.value), change);
  s.say(progress(View{1}, Seq{9}, Seq{4}), 1);
  Authority judge(s.cluster.file, kService, node(3), s.cluster.node_keys[3]);
  std::size_t bad = 0;
  for (const auto& leaving : s.act(5'000)) {
    const Body& body = leaving.parcel.message->body;
    if (const auto* m = std::get_if<ViewChangePtr>(&body)) {
      const Refusal refusal = judge.check(**m);
      EXPECT_EQ(refusal == Refusal::kNone, (*m)->signer == node(0)) << to_string(refusal);
      bad += refusal == Refusal::kBadSignature;
    }
    if (const auto* m = std::get_if<NewViewPtr>(&body)) {
      EXPECT_NE(judge.check(**m), Refusal::kNone);
    }
    if (const auto* m = std::get_if<Checkpoint>(&body)) {
      EXPECT_EQ(judge.check(*m) == Refusal::kNone, m->signer == node(0));
    }
  }
  EXPECT_GT(bad, 0u);
  for (const char* what : {"view-change", "checkpoint", "new-view", "unasked"}) {
    EXPECT_GT(s.counted(std::string("byzantine.forge.") + what), 0u) << what;
  }
}

TEST(AdversaryTest, ForgeInventsRequestsInProposalsAndGarbageInAnswers) {
  Stage s("forge");
  bool invented = false;
  for (std::uint64_t n = 1; n <= 100 && !invented; ++n) {
    const PrePrepare real = Stage::proposal(Stage::header(n, 2));
    std::set<Digest> told;
    for (const auto& [to, leaving] : s.cast(real)) {
      ASSERT_NE(only<PrePrepare>(leaving), nullptr);
      const PrePrepare& m = *only<PrePrepare>(leaving);
      EXPECT_EQ(m.digest, batch_digest(*m.header));
      told.insert(m.digest);
      invented = m.header->references.size() == 3;
    }
    EXPECT_EQ(told.size(), 1u);  // alike to all: this is no equivocation
    if (!invented) continue;
    EXPECT_EQ(only<Commit>(s.say(Commit{{}, Seq{n}, real.digest}, 1))->digest, *told.begin());
  }
  EXPECT_TRUE(invented);
  auto request = std::make_shared<Request>();
  request->op = SharedBytes::copy("put k a");
  bool garbage = false;
  for (int i = 0; i < 50; ++i) {
    const auto out = s.say(Bodies{{request}}, 1);
    garbage = garbage || !(only<Bodies>(out)->requests[0]->op == request->op);
  }
  EXPECT_TRUE(garbage);
}

TEST(AdversaryTest, LiesInViewChangesAreWellSignedAndDifferPerReceiver) {
  std::set<std::size_t> kinds;
  bool passes = false;
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    Stage s("lie-view-change", seed);
    Authority judge(s.cluster.file, kService, node(3), s.cluster.node_keys[3]);
    const ViewChangePtr real = s.changes(View{1})[0];
    std::set<crypto::Signature> told;
    for (const auto& [to, leaving] : s.cast(real)) {
      ASSERT_NE(only<ViewChangePtr>(leaving), nullptr);
      const ViewChangePtr& m = *only<ViewChangePtr>(leaving);
      EXPECT_NE(judge.check(*m), Refusal::kBadSignature);
      passes = passes || judge.check(*m) == Refusal::kNone;
      told.insert(m->signature);
    }
    kinds.insert(told.size());
  }
  EXPECT_TRUE(kinds.contains(2) || kinds.contains(3));
  EXPECT_TRUE(passes);
}

TEST(AdversaryTest, LiesInNewViewsAreRefusedUnlessTheyAreAnotherValidProof) {
  std::uint64_t valid_others = 0;
  std::uint64_t refused = 0;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    Stage s("lie-view-change", seed);
    Authority judge(s.cluster.file, kService, node(3), s.cluster.node_keys[3]);
    const auto changes = s.changes(View{4});
    for (std::uint32_t i = 1; i < 4; ++i) s.hear(node_peer(i), changes[i]);
    s.say(changes[0], 1);
    NewView real;
    real.view = View{4};
    real.proof = {changes[0], changes[1], changes[2]};
    real.chosen = choose(1, s.cluster.file.limits.window_batches, real.proof)->chosen;
    Authority(s.cluster.file, kService, node(0), s.cluster.node_keys[0]).sign(real);
    ASSERT_EQ(judge.check(real), Refusal::kNone);
    const NewViewPtr told = *only<NewViewPtr>(s.say(std::make_shared<const NewView>(real), 1));
    const Refusal refusal = judge.check(*told);
    EXPECT_NE(refusal, Refusal::kBadSignature);
    refused += refusal != Refusal::kNone;
    valid_others += refusal == Refusal::kNone && told->signature != real.signature;
  }
  EXPECT_GT(refused, 0u);
  EXPECT_GT(valid_others, 0u);
}

TEST(AdversaryTest, LiesInCheckpointsAreWellSignedAndCertificatesAreNot) {
  Stage s("lie-checkpoint");
  s.say(progress(View{}, Seq{9}, Seq{4}), 1);
  Authority judge(s.cluster.file, kService, node(3), s.cluster.node_keys[3]);
  std::set<CheckpointState> states;
  for (int i = 0; i < 20; ++i) {
    for (const auto& [to, leaving] : s.cast(Checkpoint{kService, node(0), {Seq{8}, {}, {}, {}, {}}, {}})) {
      const Checkpoint& m = *only<Checkpoint>(leaving);
      if (m.state != CheckpointState{Seq{8}, {}, {}, {}, {}}) {
        EXPECT_EQ(judge.check(m), Refusal::kNone);
      }
      states.insert(m.state);
    }
  }
  EXPECT_GT(states.size(), 4u);
  std::size_t certificates = 0;
  for (const auto& leaving : s.act(2'000)) {
    const Body& body = leaving.parcel.message->body;
    if (const auto* m = std::get_if<Checkpoint>(&body)) {
      EXPECT_EQ(judge.check(*m), Refusal::kNone);
    } else {
      ++certificates;
      EXPECT_NE(judge.check(*std::get<Stable>(body).certificate), Refusal::kNone);
    }
  }
  EXPECT_GT(certificates, 0u);
  auto certificate = std::make_shared<StableCertificate>();
  certificate->state.n = Seq{2};
  const OrderProof proof{certificate, Seq{1}, {Digest{{1}}, Digest{{2}}}};
  for (int i = 0; i < 50; ++i) s.say(proof, 1);
  EXPECT_GT(s.counted("byzantine.lie-checkpoint.order-proof"), 0u);
  EXPECT_GT(s.counted("byzantine.lie-checkpoint.forged-batch"), 0u);
  bool forged = false;
  for (const std::uint64_t n : {1u, 2u}) {
    const HeaderPtr real = Stage::header(n, 2);
    const Batch& batch = *only<Batch>(s.say(Batch{real, batch_digest(*real), {}}, 1));
    EXPECT_EQ(batch.header->n, Seq{n});
    EXPECT_EQ(batch.digest, batch_digest(*batch.header));
    forged = forged || batch.header->references.empty();
  }
  EXPECT_TRUE(forged);
}

TEST(AdversaryTest, ComplainAsksForEverythingWithGoodSignatures) {
  Stage s("complain");
  s.say(progress(View{2}, Seq{9}, Seq{}), 1);
  std::size_t kinds[3] = {};
  const crypto::PublicKey& key = s.cluster.file.nodes[0].key;
  for (const auto& leaving : s.act(1'000)) {
    const Body& body = leaving.parcel.message->body;
    if (const auto* m = std::get_if<ViewChangePtr>(&body)) {
      ++kinds[0];
      EXPECT_TRUE(crypto::verify(key, view_change_fields(s.cluster.file.id, **m), (*m)->signature));
      EXPECT_GT((*m)->view, View{2});
    }
    if (const auto* m = std::get_if<Suspect>(&body)) {
      ++kinds[1];
      EXPECT_TRUE(crypto::verify(key, suspect_fields(s.cluster.file.id, *m), m->signature));
    }
    if (const auto* m = std::get_if<Wake>(&body)) {
      ++kinds[2];
      EXPECT_EQ(leaving.parcel.to.role, crypto::Role::kHost);
      EXPECT_TRUE(crypto::verify(key, wake_fields(s.cluster.file.id, *m), m->signature));
    }
  }
  EXPECT_GT(kinds[0], 0u);
  EXPECT_GT(kinds[1], 0u);
  EXPECT_GT(kinds[2], 0u);
}

TEST(AdversaryTest, ComplainShowsWhatOthersComplainedOfAndMakesUpMore) {
  Stage s("complain");
  s.say(progress(View{2}, Seq{9}, Seq{}), 1);
  for (const std::uint32_t i : {1u, 2u}) {
    Progress message = progress(View{2}, Seq{9}, Seq{});
    message.complains = true;
    message.complaint = s.cluster.node_keys[i].sign(complaint_fields(s.cluster.file.id, kService, node(i), View{2}));
    s.hear(node_peer(i), message);
  }
  Authority judge(s.cluster.file, kService, node(3), s.cluster.node_keys[3]);
  for (const auto& leaving : s.act(1'000)) {
    const auto* m = std::get_if<ViewChangePtr>(&leaving.parcel.message->body);
    if (m != nullptr) {
      const bool forged = !(*m)->complaints.empty() && (*m)->view != View{3};
      EXPECT_EQ(judge.check(**m), forged ? Refusal::kBadSignature : Refusal::kNone);
    }
  }
  EXPECT_GT(s.counted("byzantine.complain.shown"), 0u);
  EXPECT_GT(s.counted("byzantine.complain.forged"), 0u);
}

TEST(AdversaryTest, UnfairStarvesOneClient) {
  bool deaf = false;
  bool strips = false;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Stage s("unfair", seed);
    std::map<std::uint32_t, int> heard;
    for (int i = 0; i < 60; ++i) {
      for (const std::uint32_t client : {1u, 2u}) {
        heard[client] += s.hear({crypto::Role::kClient, client, {}, {}, {}}, Requests{});
      }
    }
    deaf = deaf || (std::min(heard[1], heard[2]) < 20 && std::max(heard[1], heard[2]) == 60);
    const PrePrepare real = Stage::proposal(Stage::header(1, 6));  // of clients 1 and 2
    std::set<Digest> told;
    for (const auto& [to, leaving] : s.cast(real)) {
      const PrePrepare& m = *only<PrePrepare>(leaving);
      EXPECT_EQ(m.digest, batch_digest(*m.header));
      told.insert(m.digest);
      if (m.header->references.size() != 3) continue;
      strips = true;
      EXPECT_EQ(m.header->references[0].client, m.header->references[2].client);
      EXPECT_EQ(only<Commit>(s.say(Commit{{}, Seq{1}, real.digest}, 1))->digest, m.digest);
    }
    EXPECT_EQ(told.size(), 1u);
  }
  EXPECT_TRUE(deaf);
  EXPECT_TRUE(strips);
}

TEST(AdversaryTest, BadTimeProposesOtherTimesAlikeToAll) {
  Stage s("bad-time");
  std::set<std::int64_t> shifts;
  for (std::uint64_t n = 1; n <= 200; ++n) {
    const PrePrepare real = Stage::proposal(Stage::header(n, 1, static_cast<std::int64_t>(10'000'000 * n)));
    std::set<Digest> told;
    for (const auto& [to, leaving] : s.cast(real)) {
      const PrePrepare& m = *only<PrePrepare>(leaving);
      EXPECT_EQ(m.digest, batch_digest(*m.header));
      told.insert(m.digest);
      const std::int64_t shift = m.header->time.value / 2 - real.header->time.value / 2;  // extremes do not overflow
      shifts.insert(shift);
    }
    EXPECT_EQ(told.size(), 1u);
  }
  EXPECT_TRUE(shifts.contains(0));
  EXPECT_TRUE(shifts.contains(-500'000));
  EXPECT_TRUE(shifts.contains(1'800'000'000));
  EXPECT_TRUE(shifts.contains(-5'000'000));  // the last one's again
}

TEST(AdversaryTest, MixedTakesTurns) {
  Stage s("mixed", 5);
  for (std::uint64_t n = 1; n <= 3'000; ++n) {
    s.cast(Stage::proposal(Stage::header(n, 3)));
    s.cast(Checkpoint{kService, node(0), {Seq{8}, {}, {}, {}, {}}, {}});
    s.hear({crypto::Role::kClient, 1, {}, {}, {}}, Requests{});
    s.act(1);
  }
  std::set<std::string> kinds;
  for (const auto& [name, count] : s.counters) kinds.insert(name.substr(10, name.find('.', 10) - 10));
  EXPECT_GE(kinds.size(), 6u) << "of " << adversary_kinds().size();
}

}  // namespace
}  // namespace zz::sim
