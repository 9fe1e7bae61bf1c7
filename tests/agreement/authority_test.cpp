#include "agreement/authority.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <initializer_list>

#include "tests/support/test_cluster.hpp"

namespace zz::agreement {
namespace {

constexpr std::uint32_t kWindow = 8;
constexpr ServiceId kService{0};

Digest digest(std::uint8_t name) {
  Digest d;
  d.bytes[0] = name;
  return d;
}
const Digest kA = digest('a');
const Digest kB = digest('b');
const Digest kNull{};

Claim claim(std::uint64_t n, const Digest& d, std::uint64_t view) { return {Seq{n}, d, View{view}}; }

CheckpointState state_at(std::uint64_t n) { return {Seq{n}, digest('h'), digest('r'), digest('t'), digest('s')}; }

ViewChangePtr share(ViewChange m) { return std::make_shared<ViewChange>(std::move(m)); }

// The authorities of a cluster's nodes, and one more that only judges: it has signed and seen nothing.
struct Court {
  Court() {
    cluster.file.limits.window_batches = kWindow;
    other_cluster = cluster.file;
    other_cluster.id.bytes[15] ^= 1;
    for (std::uint16_t i = 0; i < 4; ++i) nodes.emplace_back(cluster.file, kService, NodeId{i}, cluster.node_keys[i]);
  }

  // Another node's signature over what `node` would sign.
  template <class M>
  void sign_as(M& message, std::uint16_t node, const crypto::SecretKey& key) {
    Authority(cluster.file, kService, NodeId{node}, key).sign(message);
  }

  Checkpoint checkpoint(std::uint16_t node, std::uint64_t n) {
    Checkpoint m;
    m.state = state_at(n);
    nodes[node].sign(m);
    return m;
  }

  StableCertificate certificate(std::uint64_t n, std::initializer_list<std::uint16_t> signers = {0, 1, 2}) {
    StableCertificate c{kService, state_at(n), {}};
    for (const std::uint16_t signer : signers) c.parts.push_back({NodeId{signer}, checkpoint(signer, n).signature});
    return c;
  }
  CertificatePtr certificate_ptr(std::uint64_t n) { return std::make_shared<StableCertificate>(certificate(n)); }

  ViewChange view_change(std::uint16_t node, std::uint64_t view, const CertificatePtr& stable = nullptr,
                         std::vector<Claim> p = {}, std::vector<Claim> q = {}) {
    ViewChange m;
    m.view = View{view};
    m.stable = stable;
    m.prepared = std::move(p);
    m.pre_prepared = std::move(q);
    nodes[node].sign(m);
    return m;
  }
  // What a VIEW-CHANGE shows when these nodes complained of the view.
  std::vector<StableCertificate::Part> complaints(std::uint64_t view, std::initializer_list<std::uint16_t> signers) {
    std::vector<StableCertificate::Part> out;
    for (const std::uint16_t signer : signers) {
      out.push_back({NodeId{signer}, nodes[signer].sign_complaint(View{view})});
    }
    return out;
  }
  // A NEW-VIEW for view 1 of nodes 0, 1 and 3: number 5 was prepared, number 6 not, number 7 was prepared.
  NewView new_view() {
    const CertificatePtr stable = certificate_ptr(4);
    const std::vector<Claim> claims = {claim(5, kA, 0), claim(7, kB, 0)};
    NewView m;
    m.view = View{1};
    m.proof = {share(view_change(0, 1, stable, claims, claims)), share(view_change(1, 1, stable, {}, claims)),
               share(view_change(3, 1))};
    m.start = Seq{4};
    m.chosen = {kA, kNull, kB};
    nodes[1].sign(m);
    return m;
  }

  // What `judge` spends signature checks on while it judges.
  template <class M>
  std::uint64_t cost(const M& message, Refusal expected) {
    const std::uint64_t before = judge.signature_checks();
    EXPECT_EQ(to_string(judge.check(message)), to_string(expected));
    return judge.signature_checks() - before;
  }

  test::TestCluster cluster;
  crypto::ClusterFile other_cluster;
  std::deque<Authority> nodes;
  crypto::SecretKey own_key = crypto::SecretKey::generate();
  Authority judge{cluster.file, kService, NodeId{2}, own_key};
};

// ---- what is valid ----

TEST(AuthorityTest, WhatANodeSignsIsValid) {
  Court t;
  EXPECT_EQ(t.cost(t.checkpoint(3, 8), Refusal::kNone), 1u);
  EXPECT_EQ(t.cost(t.view_change(3, 7), Refusal::kNone), 1u);
  EXPECT_EQ(t.cost(t.view_change(0, 7, t.certificate_ptr(4), {claim(5, kA, 6), claim(12, kA, 0)},
                                 {claim(5, kA, 6), claim(5, kB, 6), claim(12, kA, 0)}),
                   Refusal::kNone),
            4u);
}

TEST(AuthorityTest, WhoeverLeavesShowsComplaintsOfTheViewBefore) {
  Court t;
  ViewChange m = t.view_change(3, 7);
  m.complaints = t.complaints(6, {0, 1, 3});
  EXPECT_EQ(t.cost(m, Refusal::kNone), 4u);
  EXPECT_EQ(t.cost(m, Refusal::kNone), 0u) << "remembered";
  m.complaints = t.complaints(6, {0, 1, 2, 3});
  EXPECT_EQ(t.cost(m, Refusal::kNone), 1u);
  struct Case {
    const char* what;
    std::vector<StableCertificate::Part> complaints;
    Refusal refusal;
  };
  const Case cases[] = {
      {"too few", t.complaints(6, {0, 1}), Refusal::kMalformed},
      {"one twice", t.complaints(6, {0, 1, 1}), Refusal::kMalformed},
      {"not ascending", t.complaints(6, {0, 3, 1}), Refusal::kMalformed},
      {"of an earlier view", t.complaints(5, {0, 1, 3}), Refusal::kBadSignature},
      {"of the view wanted", t.complaints(7, {0, 1, 3}), Refusal::kBadSignature},
  };
  for (const Case& c : cases) {
    m.complaints = c.complaints;
    EXPECT_EQ(to_string(t.judge.check(m)), to_string(c.refusal)) << c.what;
  }
  m.complaints = t.complaints(6, {0, 1, 3});
  m.complaints[2].signer = NodeId{4};
  EXPECT_EQ(to_string(t.judge.check(m)), to_string(Refusal::kUnknownPeer));
  m.complaints = t.complaints(6, {0, 1, 3});
  m.complaints[1].signer = NodeId{2};
  EXPECT_EQ(to_string(t.judge.check(m)), to_string(Refusal::kBadSignature)) << "in another's name";
}

TEST(AuthorityTest, AComplaintIsOfOneViewByOneNode) {
  Court t;
  const crypto::Signature good = t.nodes[1].sign_complaint(View{6});
  EXPECT_EQ(t.judge.check_complaint(NodeId{1}, View{6}, good), Refusal::kNone);
  EXPECT_EQ(t.judge.check_complaint(NodeId{1}, View{7}, good), Refusal::kBadSignature);
  EXPECT_EQ(t.judge.check_complaint(NodeId{0}, View{6}, good), Refusal::kBadSignature);
  EXPECT_EQ(t.judge.check_complaint(NodeId{4}, View{6}, good), Refusal::kUnknownPeer);
  EXPECT_EQ(t.judge.check_complaint(NodeId{1}, View{6}, {}), Refusal::kBadSignature);
}

TEST(AuthorityTest, ACertificateHasTheSignaturesOfTwoThirdsOrMore) {
  Court t;
  EXPECT_EQ(t.cost(t.certificate(8, {0, 1, 3}), Refusal::kNone), 3u);
  EXPECT_EQ(t.cost(t.certificate(8, {0, 1, 2, 3}), Refusal::kNone), 1u);
  EXPECT_EQ(t.cost(t.certificate(8, {0, 1}), Refusal::kMalformed), 0u);
  EXPECT_EQ(t.cost(t.certificate(8, {}), Refusal::kMalformed), 0u);
}

TEST(AuthorityTest, ANewViewIsValidWhenItsChoiceFollowsFromItsProof) {
  Court t;
  // Itself, three VIEW-CHANGEs, three parts of one t.certificate.
  EXPECT_EQ(t.cost(t.new_view(), Refusal::kNone), 7u);
}

TEST(AuthorityTest, ANewViewThatChoosesNothingIsValid) {
  Court t;
  NewView m;
  m.view = View{5};
  m.proof = {share(t.view_change(0, 5)), share(t.view_change(2, 5)), share(t.view_change(3, 5))};
  t.nodes[1].sign(m);
  EXPECT_EQ(t.cost(m, Refusal::kNone), 4u);
}

TEST(AuthorityTest, WhatComesAgainAloneOrInsideAnotherCostsNoSignatureCheck) {
  Court t;
  const NewView m = t.new_view();
  for (const ViewChangePtr& part : m.proof) EXPECT_EQ(t.judge.check(*part), Refusal::kNone);
  EXPECT_EQ(t.cost(m, Refusal::kNone), 1u);
  EXPECT_EQ(t.cost(m, Refusal::kNone), 0u);
  EXPECT_EQ(t.cost(*m.proof[0], Refusal::kNone), 0u);
  EXPECT_EQ(t.cost(t.checkpoint(0, 4), Refusal::kNone), 0u);
  EXPECT_EQ(t.cost(t.certificate(4), Refusal::kNone), 0u);
}

TEST(AuthorityTest, WhatANodeSignedItselfCostsItNoSignatureCheck) {
  Court t;
  const NewView m = t.new_view();
  EXPECT_EQ(t.nodes[1].check(*m.proof[1]->stable), Refusal::kNone);
  EXPECT_EQ(t.nodes[1].signature_checks(), 2u);  // parts of t.nodes 0 and 2
  EXPECT_EQ(t.nodes[1].check(*m.proof[1]), Refusal::kNone);
  EXPECT_EQ(t.nodes[1].signature_checks(), 2u);
}

TEST(AuthorityTest, ABadSignatureIsNotRemembered) {
  Court t;
  Checkpoint m = t.checkpoint(3, 8);
  m.signature.bytes[0] ^= 1;
  EXPECT_EQ(t.cost(m, Refusal::kBadSignature), 1u);
  EXPECT_EQ(t.cost(m, Refusal::kBadSignature), 1u);
}

TEST(AuthorityTest, RemembersABoundedNumberAndForgetsTheOldestFirst) {
  Court t;
  const Checkpoint first = t.checkpoint(3, 1);
  const Checkpoint second = t.checkpoint(3, 2);
  EXPECT_EQ(t.cost(first, Refusal::kNone), 1u);
  EXPECT_EQ(t.cost(second, Refusal::kNone), 1u);
  for (std::uint64_t i = 0; i + 2 < Authority::kRememberedMax; ++i) {
    ASSERT_EQ(t.judge.check(t.checkpoint(3, 3 + i)), Refusal::kNone);
  }
  EXPECT_EQ(t.cost(first, Refusal::kNone), 0u);
  EXPECT_EQ(t.cost(t.checkpoint(3, ~std::uint64_t{0}), Refusal::kNone), 1u);  // one too many
  EXPECT_EQ(t.cost(second, Refusal::kNone), 0u);
  EXPECT_EQ(t.cost(first, Refusal::kNone), 1u);
}

TEST(AuthorityTest, ThePrimaryOfAViewGoesRoundFromTheServicesNumber) {
  Court t;
  EXPECT_EQ(t.judge.primary_of(View{0}), NodeId{0});
  EXPECT_EQ(t.judge.primary_of(View{5}), NodeId{1});
  const Authority third(t.cluster.file, ServiceId{3}, NodeId{0}, t.own_key);
  EXPECT_EQ(third.primary_of(View{0}), NodeId{3});
  EXPECT_EQ(third.primary_of(View{2}), NodeId{1});
  const test::TestCluster seven(2);
  const Authority of_seven(seven.file, ServiceId{3}, NodeId{0}, t.own_key);
  EXPECT_EQ(of_seven.primary_of(View{~std::uint64_t{0}}), NodeId{4});  // (3 + 2^64 - 1) mod 7, without a wrap
}

// ---- AS-06: bogus VIEW-CHANGEs ----

TEST(Acceptance, AS06_AViewChangeOfBadFormIsRefusedWithoutASignatureCheck) {
  Court t;
  struct Case {
    const char* what;
    std::function<void(ViewChange&)> change;
    Refusal refusal;
  };
  const auto both = [](ViewChange& m, const Claim& c) { m.prepared = m.pre_prepared = {c}; };
  const std::vector<Claim> too_many(kClaimsMax + 1, claim(5, kA, 0));
  const std::vector<Case> cases = {
      {"view 0",
       [](ViewChange& m) {
         m.view = View{0};
         m.prepared = m.pre_prepared = {};
       },
       Refusal::kMalformed},
      {"number of the stable t.checkpoint", [&](ViewChange& m) { both(m, claim(4, kA, 0)); }, Refusal::kOutOfWindow},
      {"number 0", [&](ViewChange& m) { both(m, claim(0, kA, 0)); }, Refusal::kOutOfWindow},
      {"number above the window", [&](ViewChange& m) { both(m, claim(13, kA, 0)); }, Refusal::kOutOfWindow},
      {"the highest number", [&](ViewChange& m) { both(m, claim(~0ull, kA, 0)); }, Refusal::kOutOfWindow},
      {"pre-prepared above the window", [](ViewChange& m) { m.pre_prepared = {claim(13, kA, 0)}; },
       Refusal::kOutOfWindow},
      {"prepared in its own view", [](ViewChange& m) { m.prepared = {claim(5, kA, 7)}; }, Refusal::kMalformed},
      {"prepared in a later view", [](ViewChange& m) { m.prepared = {claim(5, kA, ~0ull)}; }, Refusal::kMalformed},
      {"pre-prepared in its own view", [](ViewChange& m) { m.pre_prepared = {claim(5, kA, 7)}; }, Refusal::kMalformed},
      {"a digest that reads as null", [&](ViewChange& m) { both(m, claim(5, kNull, 0)); }, Refusal::kMalformed},
      {"two prepared for a number",
       [](ViewChange& m) {
         m.prepared = {claim(5, kA, 0), claim(5, kB, 0)};
       },
       Refusal::kMalformed},
      {"prepared out of order",
       [](ViewChange& m) {
         m.prepared = {claim(6, kA, 0), claim(5, kA, 0)};
       },
       Refusal::kMalformed},
      {"pre-prepared out of order",
       [](ViewChange& m) {
         m.pre_prepared = {claim(5, kB, 0), claim(5, kA, 1)};
       },
       Refusal::kMalformed},
      {"one batch pre-prepared twice",
       [](ViewChange& m) {
         m.pre_prepared = {claim(5, kA, 0), claim(5, kA, 1)};
       },
       Refusal::kMalformed},
      {"too many prepared", [&](ViewChange& m) { m.prepared = too_many; }, Refusal::kOversize},
      {"too many pre-prepared", [&](ViewChange& m) { m.pre_prepared = too_many; }, Refusal::kOversize},
  };
  const CertificatePtr stable = t.certificate_ptr(4);
  ASSERT_EQ(t.judge.check(*stable), Refusal::kNone);
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    ViewChange m = t.view_change(3, 7, stable, {claim(5, kA, 0)}, {claim(5, kA, 0)});
    c.change(m);
    t.nodes[3].sign(m);
    EXPECT_EQ(t.cost(m, c.refusal), 0u);
  }
  // Without a stable t.checkpoint the window starts at 1.
  EXPECT_EQ(t.cost(t.view_change(3, 7, nullptr, {claim(9, kA, 0)}), Refusal::kOutOfWindow), 0u);
  EXPECT_EQ(t.cost(t.view_change(3, 7, nullptr, {claim(8, kA, 0)}), Refusal::kNone), 1u);
}

TEST(Acceptance, AS06_AViewChangeWithABadCertificateIsRefused) {
  Court t;
  struct Case {
    const char* what;
    std::function<void(StableCertificate&)> change;
    Refusal refusal;
    std::uint64_t cost;  // the VIEW-CHANGE's own signature is good and comes first
  };
  const std::vector<Case> cases = {
      {"of another service", [](auto& c) { c.service = ServiceId{1}; }, Refusal::kUnknownService, 0},
      {"of nothing", [](auto& c) { c.state.n = Seq{0}; }, Refusal::kMalformed, 0},
      {"2f parts", [](auto& c) { c.parts.pop_back(); }, Refusal::kMalformed, 0},
      {"no part", [](auto& c) { c.parts.clear(); }, Refusal::kMalformed, 0},
      {"one signer twice", [](auto& c) { c.parts[2] = c.parts[1]; }, Refusal::kMalformed, 0},
      {"out of order", [](auto& c) { std::swap(c.parts[0], c.parts[1]); }, Refusal::kMalformed, 0},
      {"a signer too many",
       [](auto& c) {
         c.parts.resize(5, {NodeId{3}, {}});
       },
       Refusal::kMalformed, 0},
      {"a stranger", [](auto& c) { c.parts[2].signer = NodeId{4}; }, Refusal::kUnknownPeer, 0},
      {"a forged part", [](auto& c) { c.parts[0].signature.bytes[9] ^= 1; }, Refusal::kBadSignature, 2},
      {"a part of another signer", [](auto& c) { c.parts[2].signer = NodeId{3}; }, Refusal::kBadSignature, 2},
      {"another number", [](auto& c) { c.state.n = Seq{3}; }, Refusal::kBadSignature, 2},
      {"another history", [](auto& c) { c.state.history = kA; }, Refusal::kBadSignature, 2},
      {"other results", [](auto& c) { c.state.results = kA; }, Refusal::kBadSignature, 2},
      {"another slot table", [](auto& c) { c.state.table = kA; }, Refusal::kBadSignature, 2},
      {"another root", [](auto& c) { c.state.root = kA; }, Refusal::kBadSignature, 2},
  };
  ASSERT_EQ(t.judge.check(t.certificate(4)), Refusal::kNone);
  std::uint64_t view = 0;
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    StableCertificate bad = t.certificate(4);
    c.change(bad);
    EXPECT_EQ(t.cost(t.view_change(3, ++view, std::make_shared<StableCertificate>(bad)), c.refusal), c.cost);
    EXPECT_EQ(t.cost(bad, c.refusal), c.cost / 2);
  }
}

TEST(Acceptance, AS06_AGoodViewChangeComesBackWithAnotherCertificateAndIsRefused) {
  Court t;
  ViewChange m = t.view_change(3, 7, t.certificate_ptr(4));
  ASSERT_EQ(t.judge.check(m), Refusal::kNone);
  StableCertificate forged = t.certificate(4);
  forged.parts[1].signature.bytes[0] ^= 1;
  m.stable = std::make_shared<StableCertificate>(forged);  // the VIEW-CHANGE's signature t.covers what it proves only
  EXPECT_EQ(t.cost(m, Refusal::kBadSignature), 1u);
  m.stable = nullptr;
  EXPECT_EQ(t.cost(m, Refusal::kBadSignature), 1u);
  m.stable = std::make_shared<StableCertificate>(t.certificate(4, {0, 1, 3}));  // as good a proof
  EXPECT_EQ(t.cost(m, Refusal::kNone), 1u);
}

TEST(Acceptance, AS06_TheOthersValidEntriesAreChosenDespiteABogusOne) {
  Court t;
  const std::vector<Claim> a = {claim(1, kA, 0)};
  for (const Claim& lie : {claim(1, kB, 0), claim(1, kB, 1), claim(2, kB, 1), claim(8, kB, 0), claim(1, kA, 1)}) {
    NewView m;
    m.view = View{2};
    m.proof = {share(t.view_change(0, 2, nullptr, {lie}, {lie})), share(t.view_change(1, 2, nullptr, a, a)),
               share(t.view_change(2, 2, nullptr, a, a)), share(t.view_change(3, 2, nullptr, {}, a))};
    m.chosen = {kA};
    t.nodes[2].sign(m);
    EXPECT_EQ(t.judge.check(m), Refusal::kNone);
    m.chosen = {kB};
    t.nodes[2].sign(m);
    EXPECT_EQ(t.judge.check(m), Refusal::kConflict);
  }
}

// ---- AS-07: NEW-VIEWs that do not follow from their proof ----

TEST(Acceptance, AS07_ANewViewThatChoosesOtherwiseIsRefused) {
  Court t;
  struct Case {
    const char* what;
    std::function<void(NewView&)> change;
  };
  const std::vector<Case> cases = {
      {"omits the last value", [](NewView& m) { m.chosen.pop_back(); }},
      {"omits everything", [](NewView& m) { m.chosen.clear(); }},
      {"a prepared value becomes null", [](NewView& m) { m.chosen[0] = kNull; }},
      {"the last value becomes null", [](NewView& m) { m.chosen[2] = kNull; }},
      {"a null becomes a value", [](NewView& m) { m.chosen[1] = kA; }},
      {"adds a value", [](NewView& m) { m.chosen.push_back(kA); }},
      {"adds a null", [](NewView& m) { m.chosen.push_back(kNull); }},
      {"replaces a value", [](NewView& m) { m.chosen[0] = kB; }},
      {"exchanges two values", [](NewView& m) { std::swap(m.chosen[0], m.chosen[2]); }},
      {"starts earlier", [](NewView& m) { m.start = Seq{3}; }},
      {"starts later",
       [](NewView& m) {
         m.start = Seq{5};
         m.chosen.erase(m.chosen.begin());
       }},
      {"starts at the beginning", [](NewView& m) { m.start = Seq{0}; }},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    NewView m = t.new_view();
    c.change(m);
    t.nodes[1].sign(m);
    EXPECT_EQ(t.cost(m, Refusal::kConflict), 1u);  // its own signature; nothing is spent on the proof
  }
  EXPECT_EQ(t.judge.check(t.new_view()), Refusal::kNone);
}

TEST(Acceptance, AS07_ANewViewThatLeavesOutTheMessageWithTheValueMustStillWait) {
  Court t;
  // Without node 1, which pre-prepared it, nobody vouches for node 0's entries: more messages are needed.
  NewView m = t.new_view();
  m.proof[1] = share(t.view_change(2, 1));
  t.nodes[1].sign(m);
  EXPECT_EQ(t.judge.check(m), Refusal::kConflict);
  m.chosen.clear();
  t.nodes[1].sign(m);
  EXPECT_EQ(t.judge.check(m), Refusal::kConflict);
}

TEST(Acceptance, AS07_ANewViewOfBadFormIsRefusedWithoutASignatureCheck) {
  Court t;
  struct Case {
    const char* what;
    std::function<void(NewView&)> change;
    Refusal refusal;
  };
  const auto for_view = [&](std::uint64_t view) { return share(t.view_change(3, view)); };
  const std::vector<Case> cases = {
      {"2f messages", [](NewView& m) { m.proof.pop_back(); }, Refusal::kMalformed},
      {"no message", [](NewView& m) { m.proof.clear(); }, Refusal::kMalformed},
      {"more than there are t.nodes", [](NewView& m) { m.proof.resize(5, m.proof[0]); }, Refusal::kMalformed},
      {"one signer twice", [](NewView& m) { m.proof[1] = m.proof[0]; }, Refusal::kMalformed},
      {"out of order", [](NewView& m) { std::swap(m.proof[0], m.proof[1]); }, Refusal::kMalformed},
      {"an earlier view's message",
       [&](NewView& m) {
         m.view = View{5};
         m.proof[2] = for_view(5);
       },
       Refusal::kMalformed},
      {"a later view's message", [&](NewView& m) { m.proof[2] = for_view(2); }, Refusal::kMalformed},
      {"a bad message",
       [](NewView& m) {
         ViewChange bad = *m.proof[2];
         bad.prepared = {claim(1, kNull, 0)};
         m.proof[2] = share(bad);
       },
       Refusal::kMalformed},
      {"view 0", [](NewView& m) { m.view = View{0}; }, Refusal::kMalformed},
      {"longer than the window", [](NewView& m) { m.chosen.resize(kWindow + 1); }, Refusal::kOversize},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    NewView m = t.new_view();
    c.change(m);
    t.nodes[1].sign(m);
    EXPECT_EQ(t.cost(m, c.refusal), 0u);
  }
  NewView absent = t.new_view();
  absent.proof[0] = nullptr;
  EXPECT_EQ(t.cost(absent, Refusal::kMalformed), 0u);
}

TEST(Acceptance, AS07_ANewViewOfANodeThatIsNotThePrimaryIsRefused) {
  Court t;
  NewView m = t.new_view();
  t.nodes[0].sign(m);
  EXPECT_EQ(t.cost(m, Refusal::kNotPrimary), 0u);
}

TEST(Acceptance, AS07_ANewViewWithAForgedMessageInsideIsRefused) {
  Court t;
  NewView m = t.new_view();
  ASSERT_EQ(t.judge.check(m), Refusal::kNone);
  ViewChange forged = *m.proof[2];
  forged.signature.bytes[3] ^= 1;
  m.proof[2] = share(forged);
  t.nodes[1].sign(m);
  EXPECT_EQ(t.cost(m, Refusal::kBadSignature), 2u);  // its own, and the forged one

  // The same message with other entries under its old signature: the NEW-VIEW's signature does not cover them.
  m = t.new_view();
  ViewChange changed = *m.proof[2];
  changed.pre_prepared = {claim(1, kA, 0)};
  m.proof[2] = share(changed);
  EXPECT_EQ(t.cost(m, Refusal::kBadSignature), 1u);

  // A t.certificate inside that is not good.
  m = t.new_view();
  StableCertificate bad = *m.proof[0]->stable;
  bad.parts[0].signature.bytes[3] ^= 1;
  changed = *m.proof[0];
  changed.stable = std::make_shared<StableCertificate>(bad);
  m.proof[0] = share(changed);
  EXPECT_EQ(t.cost(m, Refusal::kBadSignature), 1u);
}

// ---- AS-09: signatures that are not the signer's over this ----

struct Forgeries : Court {
  // Applies every forgery to `good` and expects a refusal after at most one signature check.
  template <class M>
  void refuse_all(const M& good, const std::function<Bytes(const crypto::ClusterId&, const M&)>& fields_of) {
    const std::uint16_t signer = good.signer.value;
    const crypto::SecretKey& key = cluster.node_keys[signer];
    const Bytes fields = fields_of(cluster.file.id, good);
    Checkpoint other_kind;
    other_kind.state = state_at(8);
    nodes[signer].sign(other_kind);
    crypto::SignedFields as_wake(cluster.file.id, "WAKE");
    as_wake.id(good.signer).id(good.service);
    crypto::Signature flipped = good.signature;
    flipped.bytes[63] ^= 0x80;
    Bytes shorter = fields;
    shorter.pop_back();

    const std::vector<std::pair<const char*, crypto::Signature>> forgeries = {
        {"unsigned", {}},
        {"a client's key", cluster.client_keys[1].sign(fields)},
        {"the operator's key", cluster.client_keys[0].sign(fields)},
        {"its own host's key", cluster.host_keys[signer].sign(fields)},
        {"another node's key", cluster.node_keys[(signer + 1) % 4].sign(fields)},
        {"a key that nobody has", own_key.sign(fields)},
        {"another cluster", key.sign(fields_of(other_cluster.id, good))},
        {"another kind", other_kind.signature},
        {"another kind's domain", key.sign(as_wake.view())},
        {"a part of the fields", key.sign(shorter)},
        {"a bit changed", flipped},
    };
    for (const auto& [what, signature] : forgeries) {
      SCOPED_TRACE(what);
      M forged = good;
      forged.signature = signature;
      EXPECT_EQ(cost(forged, Refusal::kBadSignature), 1u);
    }

    M stranger = good;
    sign_as(stranger, 4, own_key);
    EXPECT_EQ(cost(stranger, Refusal::kUnknownPeer), 0u);
    M far = good;
    far.signer = NodeId{65'535};
    EXPECT_EQ(cost(far, Refusal::kUnknownPeer), 0u);
    M foreign = good;
    Authority(cluster.file, ServiceId{1}, good.signer, key).sign(foreign);
    EXPECT_EQ(cost(foreign, Refusal::kUnknownService), 0u);
    foreign.service = kService;  // a signature for another service is none for this one
    EXPECT_EQ(cost(foreign, Refusal::kBadSignature), 1u);
    EXPECT_EQ(judge.check(good), Refusal::kNone);
  }

  // The signature covers every field that `changes` change.
  template <class M>
  void covers(const M& good, const std::vector<std::function<void(M&)>>& changes) {
    for (std::size_t i = 0; i < changes.size(); ++i) {
      M changed = good;
      changes[i](changed);
      EXPECT_EQ(to_string(judge.check(changed)), to_string(Refusal::kBadSignature)) << "change " << i;
    }
  }
};

TEST(Acceptance, AS09_OfACheckpoint) {
  Forgeries t;
  t.refuse_all<Checkpoint>(t.checkpoint(3, 4), [](const crypto::ClusterId& id, const Checkpoint& m) {
    return checkpoint_fields(id, m.service, m.signer, m.state);
  });
  t.covers<Checkpoint>(t.checkpoint(3, 4), {
                                               [](Checkpoint& m) { m.signer = NodeId{2}; },
                                               [](Checkpoint& m) { m.state.n = Seq{5}; },
                                               [](Checkpoint& m) { m.state.history = kA; },
                                               [](Checkpoint& m) { m.state.results = kA; },
                                               [](Checkpoint& m) { m.state.table = kA; },
                                               [](Checkpoint& m) { m.state.root = kA; },
                                           });
  Checkpoint of_nothing = t.checkpoint(3, 0);
  EXPECT_EQ(t.cost(of_nothing, Refusal::kMalformed), 0u);
}

TEST(Acceptance, AS09_OfAViewChange) {
  Forgeries t;
  const CertificatePtr stable = t.certificate_ptr(4);
  ASSERT_EQ(t.judge.check(*stable), Refusal::kNone);
  const ViewChange good = t.view_change(3, 7, stable, {claim(6, kA, 3)}, {claim(6, kA, 3), claim(6, kB, 2)});
  t.refuse_all<ViewChange>(good,
                           [](const crypto::ClusterId& id, const ViewChange& m) { return view_change_fields(id, m); });
  t.covers<ViewChange>(good, {
                                 [](ViewChange& m) { m.signer = NodeId{2}; },
                                 [](ViewChange& m) { m.view = View{8}; },
                                 [](ViewChange& m) { m.prepared[0].n = Seq{7}; },
                                 [](ViewChange& m) { m.prepared[0].digest = kB; },
                                 [](ViewChange& m) { m.prepared[0].view = View{2}; },
                                 [](ViewChange& m) { m.prepared.clear(); },
                                 [](ViewChange& m) { m.prepared.push_back(claim(7, kA, 0)); },
                                 [](ViewChange& m) { m.pre_prepared[1].view = View{3}; },
                                 [](ViewChange& m) { m.pre_prepared.pop_back(); },
                                 [](ViewChange& m) { m.prepared.clear(), m.pre_prepared.clear(); },
                                 [](ViewChange& m) { std::swap(m.prepared, m.pre_prepared), m.prepared.pop_back(); },
                                 [&](ViewChange& m) { m.stable = t.certificate_ptr(5); },
                             });
}

TEST(Acceptance, AS09_OfANewView) {
  Forgeries t;
  const NewView good = t.new_view();
  for (const ViewChangePtr& part : good.proof) ASSERT_EQ(t.judge.check(*part), Refusal::kNone);
  t.refuse_all<NewView>(good, [](const crypto::ClusterId& id, const NewView& m) { return new_view_fields(id, m); });
  t.covers<NewView>(good, {
                              [](NewView& m) { m.start = Seq{3}; },
                              [](NewView& m) { m.chosen.pop_back(); },
                              [](NewView& m) { m.chosen[1] = kA; },
                              [&](NewView& m) { m.proof.pop_back(), m.proof.push_back(share(t.view_change(2, 1))); },
                              [&](NewView& m) { m.proof.insert(m.proof.begin() + 2, share(t.view_change(2, 1))); },
                          });
}

TEST(Acceptance, AS09_InsideACertificate) {
  Forgeries t;
  const StableCertificate good = t.certificate(4);
  const Bytes fields = checkpoint_fields(t.cluster.file.id, kService, NodeId{0}, good.state);
  const std::vector<std::pair<const char*, crypto::Signature>> forgeries = {
      {"unsigned", {}},
      {"a client's key", t.cluster.client_keys[1].sign(fields)},
      {"a host's key", t.cluster.host_keys[0].sign(fields)},
      {"another node's key", t.cluster.node_keys[1].sign(fields)},
      {"another node's part", good.parts[1].signature},
      {"another t.cluster",
       t.cluster.node_keys[0].sign(checkpoint_fields(t.other_cluster.id, kService, NodeId{0}, good.state))},
      {"another service",
       t.cluster.node_keys[0].sign(checkpoint_fields(t.cluster.file.id, ServiceId{1}, NodeId{0}, good.state))},
      {"another t.checkpoint", t.checkpoint(0, 5).signature},
      {"another kind", t.view_change(0, 4).signature},
  };
  for (const auto& [what, signature] : forgeries) {
    SCOPED_TRACE(what);
    StableCertificate forged = good;
    forged.parts[0].signature = signature;
    EXPECT_EQ(t.cost(forged, Refusal::kBadSignature), 1u);
  }
  EXPECT_EQ(t.judge.check(good), Refusal::kNone);
}

}  // namespace
}  // namespace zz::agreement
