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
                                    vote_digest(Seq{1}, {})};
  EXPECT_EQ(digests.size(), 10u);
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

}  // namespace
}  // namespace zz::agreement
