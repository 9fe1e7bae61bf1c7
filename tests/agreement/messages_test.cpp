#include "agreement/messages.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <set>

namespace zz::agreement {
namespace {

Suspect a_suspect() {
  Suspect s;
  s.signer.value = 1;
  s.epoch.value = 2;
  s.slot.value = 1;
  s.incarnation.value = 3;
  s.n.value = 4;
  s.agreeing = {SlotId{0}, SlotId{2}};
  return s;
}

BatchHeader a_header() {
  BatchHeader h;
  h.service.value = 1;
  h.n.value = 7;
  h.time.value = 1'000'000;
  h.references.push_back({ClientId{1}, SessionId{2}, RequestNumber{3}, {}});
  h.references.push_back({ClientId{1}, SessionId{2}, RequestNumber{4}, {}});
  EpochChange change;
  change.epoch.value = 3;
  change.active = {SlotId{0}, SlotId{2}};
  change.evicted = {SlotId{1}};
  change.proof = {a_suspect(), a_suspect()};
  h.system.push_back(change);
  Join join;
  join.slot.value = 1;
  join.incarnation.value = 4;
  h.system.push_back(join);
  return h;
}

EpochChange& change_of(BatchHeader& h) { return std::get<EpochChange>(h.system[0]); }
Join& join_of(BatchHeader& h) { return std::get<Join>(h.system[1]); }
Suspect& suspect_of(BatchHeader& h) { return change_of(h).proof[1]; }

TEST(Messages, TheBatchDigestCoversEveryField) {
  const std::vector<std::function<void(BatchHeader&)>> changes = {
      [](BatchHeader& h) { h.service.value ^= 1; },
      [](BatchHeader& h) { h.n.value ^= 1; },
      [](BatchHeader& h) { h.time.value ^= 1; },
      [](BatchHeader& h) { h.references[1].client.value ^= 1; },
      [](BatchHeader& h) { h.references[1].session.value ^= 1; },
      [](BatchHeader& h) { h.references[1].number.value ^= 1; },
      [](BatchHeader& h) { h.references[1].digest.bytes[31] ^= 1; },
      [](BatchHeader& h) { h.references.pop_back(); },
      [](BatchHeader& h) { std::swap(h.references[0], h.references[1]); },
      [](BatchHeader& h) { h.system.pop_back(); },
      [](BatchHeader& h) { std::swap(h.system[0], h.system[1]); },
      [](BatchHeader& h) { change_of(h).epoch.value ^= 1; },
      [](BatchHeader& h) { change_of(h).active[1].value ^= 1; },
      [](BatchHeader& h) { change_of(h).evicted[0].value ^= 1; },
      [](BatchHeader& h) {  // the same slots, divided otherwise
        change_of(h).active = {SlotId{0}};
        change_of(h).evicted = {SlotId{2}, SlotId{1}};
      },
      [](BatchHeader& h) { change_of(h).proof.pop_back(); },
      [](BatchHeader& h) { suspect_of(h).service.value ^= 1; },
      [](BatchHeader& h) { suspect_of(h).signer.value ^= 1; },
      [](BatchHeader& h) { suspect_of(h).epoch.value ^= 1; },
      [](BatchHeader& h) { suspect_of(h).slot.value ^= 1; },
      [](BatchHeader& h) { suspect_of(h).incarnation.value ^= 1; },
      [](BatchHeader& h) { suspect_of(h).n.value ^= 1; },
      [](BatchHeader& h) { suspect_of(h).why = Suspicion::kLate; },
      [](BatchHeader& h) { suspect_of(h).agreeing[0].value ^= 1; },
      [](BatchHeader& h) { suspect_of(h).agreeing.pop_back(); },
      [](BatchHeader& h) { suspect_of(h).signature.bytes[63] ^= 1; },
      [](BatchHeader& h) { join_of(h).service.value ^= 1; },
      [](BatchHeader& h) { join_of(h).slot.value ^= 1; },
      [](BatchHeader& h) { join_of(h).incarnation.value ^= 1; },
      [](BatchHeader& h) { join_of(h).key.bytes[31] ^= 1; },
      [](BatchHeader& h) { join_of(h).signature.bytes[63] ^= 1; },
  };
  std::set<Digest> digests = {batch_digest(a_header())};
  EXPECT_EQ(batch_digest(a_header()), *digests.begin());
  for (std::size_t i = 0; i < changes.size(); ++i) {
    BatchHeader header = a_header();
    changes[i](header);
    EXPECT_TRUE(digests.insert(batch_digest(header)).second) << "change " << i;
  }
}

TEST(Messages, TheRequestDigestCoversEveryField) {
  const auto digest = [](std::uint16_t service, std::uint32_t client, std::uint64_t session, std::uint64_t number,
                         std::uint32_t flags, std::string_view op) {
    return request_digest(ServiceId{service}, ClientId{client}, SessionId{session}, RequestNumber{number}, flags,
                          as_bytes(op));
  };
  const std::set<Digest> digests = {
      digest(1, 2, 3, 4, 0, "op"), digest(2, 2, 3, 4, 0, "op"),  digest(1, 3, 3, 4, 0, "op"),
      digest(1, 2, 4, 4, 0, "op"), digest(1, 2, 3, 5, 0, "op"),  digest(1, 2, 3, 4, 1, "op"),
      digest(1, 2, 3, 4, 0, "oq"), digest(1, 2, 3, 4, 0, "opp"), digest(1, 2, 3, 4, 0, "")};
  EXPECT_EQ(digests.size(), 9u);
}

// Two kinds of digest over the same bytes never agree, and neither do votes with their replies in another order.
TEST(Messages, DigestsOfDifferentKindsDiffer) {
  const Digest a = reply_digest(as_bytes("a"));
  const Digest b = reply_digest(as_bytes("b"));
  const std::set<Digest> digests = {a,
                                    b,
                                    reply_digest({}),
                                    history_digest(a, b),
                                    history_digest(b, a),
                                    vote_digest(Seq{1}, {a, b}),
                                    vote_digest(Seq{1}, {b, a}),
                                    vote_digest(Seq{2}, {a, b}),
                                    vote_digest(Seq{1}, {a}),
                                    vote_digest(Seq{1}, {}),
                                    results_digest(a, b),
                                    results_digest(b, a)};
  EXPECT_EQ(digests.size(), 12u);
}

TEST(Messages, TheAgreedTimeIncreasesWhateverIsProposed) {
  BatchHeader header;
  header.time.value = 50;
  EXPECT_EQ(agreed_time(Micros{10}, header), Micros{50});
  EXPECT_EQ(agreed_time(Micros{49}, header), Micros{50});
  EXPECT_EQ(agreed_time(Micros{50}, header), Micros{51});
  EXPECT_EQ(agreed_time(Micros{90}, header), Micros{91});
  EXPECT_EQ(agreed_time(Micros{90}, *null_header(ServiceId{}, Seq{1})), Micros{91});
}

TEST(Messages, ANullBatchHasNothingButItsName) {
  const HeaderPtr header = null_header(ServiceId{3}, Seq{9});
  EXPECT_EQ(header->service, ServiceId{3});
  EXPECT_EQ(header->n, Seq{9});
  EXPECT_EQ(header->time, Micros{});
  EXPECT_TRUE(header->references.empty() && header->system.empty());
  const std::set<Digest> digests = {batch_digest(*header), batch_digest(*null_header(ServiceId{3}, Seq{10})),
                                    batch_digest(*null_header(ServiceId{4}, Seq{9}))};
  EXPECT_EQ(digests.size(), 3u);
}

TEST(Messages, SignedFieldsCoverEveryFieldButTheSignature) {
  crypto::ClusterId cluster;
  const Bytes suspect = suspect_fields(cluster, a_suspect());
  const std::vector<std::function<void(Suspect&)>> changes = {
      [](Suspect& s) { s.service.value ^= 1; },        [](Suspect& s) { s.signer.value ^= 1; },
      [](Suspect& s) { s.epoch.value ^= 1; },          [](Suspect& s) { s.slot.value ^= 1; },
      [](Suspect& s) { s.incarnation.value ^= 1; },    [](Suspect& s) { s.n.value ^= 1; },
      [](Suspect& s) { s.why = Suspicion::kSurplus; }, [](Suspect& s) { s.agreeing[1].value = 1; },
      [](Suspect& s) { s.agreeing.clear(); },
  };
  for (std::size_t i = 0; i < changes.size(); ++i) {
    Suspect changed = a_suspect();
    changes[i](changed);
    EXPECT_NE(suspect_fields(cluster, changed), suspect) << "change " << i;
  }
  Suspect resigned = a_suspect();
  resigned.signature.bytes[0] ^= 1;
  EXPECT_EQ(suspect_fields(cluster, resigned), suspect);
  crypto::ClusterId other;
  other.bytes[0] = 1;
  EXPECT_NE(suspect_fields(other, a_suspect()), suspect);

  std::set<Bytes> wakes = {wake_fields(cluster, Wake{})};
  for (int field = 0; field < 7; ++field) {
    Wake w;
    if (field == 0) w.service.value = 1;
    if (field == 1) w.signer.value = 1;
    if (field == 2) w.epoch.value = 1;
    if (field == 3) w.slot.value = 1;
    if (field == 4) w.incarnation.value = 1;
    if (field == 5) w.n.value = 1;
    if (field == 6) w.sign = 1;
    EXPECT_TRUE(wakes.insert(wake_fields(cluster, w)).second) << "field " << field;
  }
  std::set<Bytes> joins = {join_fields(cluster, Join{})};
  for (int field = 0; field < 4; ++field) {
    Join j;
    if (field == 0) j.service.value = 1;
    if (field == 1) j.slot.value = 1;
    if (field == 2) j.incarnation.value = 1;
    if (field == 3) j.key.bytes[0] = 1;
    EXPECT_TRUE(joins.insert(join_fields(cluster, j)).second) << "field " << field;
  }
}

TEST(Messages, ASignedCheckpointCoversItsWholeState) {
  crypto::ClusterId cluster;
  const CheckpointState state{Seq{128}, {}, {}, {}, {}};
  const auto with = [&](const std::function<void(CheckpointState&)>& change) {
    CheckpointState changed = state;
    change(changed);
    return checkpoint_fields(cluster, ServiceId{1}, NodeId{2}, changed);
  };
  crypto::ClusterId other;
  other.bytes[0] = 1;
  const std::set<Bytes> fields = {
      checkpoint_fields(cluster, ServiceId{1}, NodeId{2}, state),
      checkpoint_fields(other, ServiceId{1}, NodeId{2}, state),
      checkpoint_fields(cluster, ServiceId{2}, NodeId{2}, state),
      checkpoint_fields(cluster, ServiceId{1}, NodeId{1}, state),
      with([](CheckpointState& s) { s.n.value ^= 1; }),
      with([](CheckpointState& s) { s.history.bytes[31] ^= 1; }),
      with([](CheckpointState& s) { s.results.bytes[31] ^= 1; }),
      with([](CheckpointState& s) { s.table.bytes[31] ^= 1; }),
      with([](CheckpointState& s) { s.root.bytes[31] ^= 1; }),
  };
  EXPECT_EQ(fields.size(), 9u);
}

TEST(Messages, ASignedExecCheckpointCoversWhoseStateOfWhat) {
  crypto::ClusterId cluster;
  crypto::ClusterId other;
  other.bytes[0] = 1;
  const auto with = [&](const std::function<void(ExecCheckpoint&)>& change) {
    ExecCheckpoint changed;
    change(changed);
    return exec_checkpoint_fields(cluster, changed);
  };
  const std::set<Bytes> fields = {
      exec_checkpoint_fields(cluster, {}),
      exec_checkpoint_fields(other, {}),
      with([](ExecCheckpoint& c) { c.service.value ^= 1; }),
      with([](ExecCheckpoint& c) { c.slot.value ^= 1; }),
      with([](ExecCheckpoint& c) { c.incarnation.value ^= 1; }),
      with([](ExecCheckpoint& c) { c.n.value ^= 1; }),
      with([](ExecCheckpoint& c) { c.root.bytes[31] ^= 1; }),
  };
  EXPECT_EQ(fields.size(), 7u);
}

ViewChange a_view_change() {
  ViewChange v;
  v.service.value = 1;
  v.signer.value = 2;
  v.view.value = 3;
  auto certificate = std::make_shared<StableCertificate>();
  certificate->service.value = 1;
  certificate->state.n.value = 128;
  certificate->parts.resize(3);
  v.stable = std::move(certificate);
  v.prepared = {{Seq{129}, {}, View{1}}, {Seq{130}, {}, View{2}}};
  v.pre_prepared = {{Seq{129}, {}, View{2}}};
  return v;
}

// The same certificate but for one change.
void bend(CertificatePtr& certificate, const std::function<void(StableCertificate&)>& change) {
  auto changed = std::make_shared<StableCertificate>(*certificate);
  change(*changed);
  certificate = std::move(changed);
}

TEST(Messages, ASignedViewChangeCoversItsClaimsAndItsCheckpoint) {
  crypto::ClusterId cluster;
  const std::vector<std::function<void(ViewChange&)>> changes = {
      [](ViewChange& v) { v.service.value ^= 1; },
      [](ViewChange& v) { v.signer.value ^= 1; },
      [](ViewChange& v) { v.view.value ^= 1; },
      [](ViewChange& v) { v.stable = nullptr; },
      [](ViewChange& v) { bend(v.stable, [](StableCertificate& c) { c.state.n.value ^= 1; }); },
      [](ViewChange& v) { bend(v.stable, [](StableCertificate& c) { c.state.history.bytes[0] ^= 1; }); },
      [](ViewChange& v) { v.prepared[1].n.value ^= 1; },
      [](ViewChange& v) { v.prepared[1].digest.bytes[31] ^= 1; },
      [](ViewChange& v) { v.prepared[1].view.value ^= 1; },
      [](ViewChange& v) { v.prepared.pop_back(); },
      [](ViewChange& v) { v.pre_prepared[0].n.value ^= 4; },
      [](ViewChange& v) { v.pre_prepared[0].digest.bytes[31] ^= 1; },
      [](ViewChange& v) { v.pre_prepared[0].view.value ^= 4; },
      [](ViewChange& v) { v.pre_prepared.clear(); },
      [](ViewChange& v) {  // the same claims, divided otherwise
        v.pre_prepared.insert(v.pre_prepared.begin(), v.prepared.back());
        v.prepared.pop_back();
      },
  };
  std::set<Bytes> fields = {view_change_fields(cluster, a_view_change())};
  for (std::size_t i = 0; i < changes.size(); ++i) {
    ViewChange changed = a_view_change();
    changes[i](changed);
    EXPECT_TRUE(fields.insert(view_change_fields(cluster, changed)).second) << "change " << i;
  }
  // Another proof of the same checkpoint is as good, and the signature does not cover itself.
  ViewChange same = a_view_change();
  bend(same.stable, [](StableCertificate& c) { c.parts.pop_back(); });
  same.signature.bytes[0] ^= 1;
  same.complaints.resize(3);
  EXPECT_TRUE(fields.contains(view_change_fields(cluster, same)));
  crypto::ClusterId other;
  other.bytes[0] = 1;
  EXPECT_FALSE(fields.contains(view_change_fields(other, a_view_change())));
}

TEST(Messages, ASignedComplaintCoversWhoComplainsOfWhat) {
  crypto::ClusterId cluster;
  crypto::ClusterId other;
  other.bytes[0] = 1;
  const std::set<Bytes> fields = {
      complaint_fields(cluster, ServiceId{1}, NodeId{2}, View{3}),
      complaint_fields(other, ServiceId{1}, NodeId{2}, View{3}),
      complaint_fields(cluster, ServiceId{2}, NodeId{2}, View{3}),
      complaint_fields(cluster, ServiceId{1}, NodeId{3}, View{3}),
      complaint_fields(cluster, ServiceId{1}, NodeId{2}, View{4}),
  };
  EXPECT_EQ(fields.size(), 5u);
}

NewView a_new_view() {
  NewView v;
  v.service.value = 1;
  v.signer.value = 3;
  v.view.value = 3;
  for (std::uint16_t i = 0; i < 3; ++i) {
    ViewChange part = a_view_change();
    part.signer.value = i;
    part.signature.bytes[5] = static_cast<std::uint8_t>(i);
    v.proof.push_back(std::make_shared<const ViewChange>(part));
  }
  v.start.value = 128;
  v.chosen.resize(2);
  v.chosen[0].bytes[0] = 7;
  return v;
}

TEST(Messages, ASignedNewViewCoversItsProofAndItsChoice) {
  crypto::ClusterId cluster;
  const std::vector<std::function<void(NewView&)>> changes = {
      [](NewView& v) { v.service.value ^= 1; },
      [](NewView& v) { v.signer.value ^= 1; },
      [](NewView& v) { v.view.value ^= 1; },
      [](NewView& v) { v.start.value ^= 1; },
      [](NewView& v) { v.proof.pop_back(); },
      [](NewView& v) { std::swap(v.proof[0], v.proof[1]); },
      [](NewView& v) {  // another message of the same signer
        ViewChange part = *v.proof[0];
        part.signature.bytes[63] ^= 1;
        v.proof[0] = std::make_shared<const ViewChange>(part);
      },
      [](NewView& v) { std::swap(v.chosen[0], v.chosen[1]); },
      [](NewView& v) { v.chosen.pop_back(); },
  };
  std::set<Bytes> fields = {new_view_fields(cluster, a_new_view())};
  for (std::size_t i = 0; i < changes.size(); ++i) {
    NewView changed = a_new_view();
    changes[i](changed);
    EXPECT_TRUE(fields.insert(new_view_fields(cluster, changed)).second) << "change " << i;
  }
  NewView resigned = a_new_view();
  resigned.signature.bytes[0] ^= 1;
  EXPECT_TRUE(fields.contains(new_view_fields(cluster, resigned)));
  crypto::ClusterId other;
  other.bytes[0] = 1;
  EXPECT_FALSE(fields.contains(new_view_fields(other, a_new_view())));
}

}  // namespace
}  // namespace zz::agreement
