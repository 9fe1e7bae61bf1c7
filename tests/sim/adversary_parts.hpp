#pragma once

// What the adversaries have in common. Included by adversary*.cpp only.

#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/sim/adversary.hpp"

namespace zz::sim {

using Leaving = Adversary::Leaving;

inline bool odds(Prng& prng, std::uint64_t percent) { return prng.below(100) < percent; }
inline Digest random_digest(Prng& prng) {
  Digest out;
  for (std::size_t i = 0; i < out.bytes.size(); i += 8) {
    const std::uint64_t word = prng.next();
    for (std::size_t b = 0; b < 8; ++b) out.bytes[i + b] = static_cast<std::uint8_t>(word >> (8 * b));
  }
  return out;
}
// Accomplices lie alike without a word: what they invent follows from the numbers.
inline Digest invented(View view, Seq n) {
  Digest out;
  for (std::size_t i = 0; i < 8; ++i) {
    out.bytes[i] = static_cast<std::uint8_t>(view.value >> (8 * i));
    out.bytes[8 + i] = static_cast<std::uint8_t>(n.value >> (8 * i));
  }
  out.bytes[31] = 0xfa;
  return out;
}
inline void flip_bit(Prng& prng, Digest& digest) {
  const std::uint64_t bit = prng.below(256);
  digest.bytes[bit / 8] = static_cast<std::uint8_t>(digest.bytes[bit / 8] ^ (1u << (bit % 8)));
}
inline crypto::Peer peer_of(NodeId node) { return {crypto::Role::kNode, node.value, {}, {}, {}}; }
inline crypto::Peer peer_of(HostId host) { return {crypto::Role::kHost, host.value, {}, {}, {}}; }

inline NodeId primary_of(const crypto::ClusterFile& cluster, ServiceId service, View view) {
  return NodeId{static_cast<std::uint16_t>((service.value + view.value) % cluster.n())};
}
// Any node but itself.
NodeId other_node(const AdversaryWorld& world);
void send(const AdversaryWorld& world, const crypto::Peer& to, ServiceId service, agreement::Body body,
          std::vector<Leaving>& out, Micros delay = {});
// With the signer's key when it is a faulty node's, else with a signature that is none.
crypto::Signature sign_as(const AdversaryWorld& world, NodeId signer, const Bytes& fields);

// Passes everything on; the kinds change what they change.
class Faulty : public Adversary {
 public:
  explicit Faulty(std::string_view name) : name_(name) {}
  [[nodiscard]] std::string_view name() const override { return name_; }
  void outgoing(AdversaryWorld&, const Parcel& parcel, std::vector<Leaving>& out) override { pass(parcel, out); }
  bool incoming(AdversaryWorld&, const Parcel&) override { return true; }
  void act(AdversaryWorld&, std::vector<Leaving>&) override {}

 protected:
  static void pass(const Parcel& parcel, std::vector<Leaving>& out, Micros delay = {}) {
    out.push_back({parcel, delay});
  }
  static void replace(const Parcel& parcel, agreement::Body body, std::vector<Leaving>& out);

 private:
  std::string name_;
};

// What a node can know of where its service is, from what its own correct code says.
struct Bearings {
  ServiceId service;
  View view;
  Seq n;  // the highest number voted on
  Seq stable;
  Epoch epoch;
  std::vector<Incarnation> incarnations;  // by slot
  agreement::CertificatePtr certificate;  // the newest it stood on
  void heed(const Parcel& outgoing);
};

// Proposals that all receivers see changed alike, and this node's votes changed to match.
class ChangedProposals {
 public:
  // The changed message, or null: there is nothing to change. `change` gives the new header, or null.
  template <class Change>
  MessagePtr proposal(const MessagePtr& original, Change change) {
    if (original == original_) return changed_;
    original_ = original;
    changed_ = nullptr;
    const auto& m = std::get<agreement::PrePrepare>(original->body);
    agreement::HeaderPtr header = change(*m.header);
    if (header) changed_ = keep(*original, std::move(header));
    return changed_;
  }
  // This node's vote with the digest of what it proposed instead, or null.
  [[nodiscard]] MessagePtr vote(const agreement::Message& message) const;

 private:
  static constexpr std::size_t kMax = 128;
  MessagePtr keep(const agreement::Message& original, agreement::HeaderPtr header);

  MessagePtr original_;
  MessagePtr changed_;
  std::map<std::pair<View, Seq>, std::pair<Digest, Digest>> digests_;  // real, and instead of it
};

// A small change, or nothing where there is nothing to change (adversary.cpp).
std::optional<agreement::Message> mutated(AdversaryWorld& world, const agreement::Message& message);

std::unique_ptr<Adversary> make_equivocate();
std::unique_ptr<Adversary> make_forge();
std::unique_ptr<Adversary> make_lie_view_change();
std::unique_ptr<Adversary> make_lie_checkpoint();
std::unique_ptr<Adversary> make_complain();

}  // namespace zz::sim
