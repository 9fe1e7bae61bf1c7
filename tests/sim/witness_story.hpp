#pragma once

// Story: the witness is told of a run, message by message, record by record. For its tests.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/sim/witness.hpp"
#include "tests/support/local_kv.hpp"
#include "tests/support/test_cluster.hpp"

namespace zz::sim {

using namespace agreement;

inline constexpr ServiceId kService{0};
inline constexpr ClientId kClient{1};
inline constexpr ClientId kHostileId{2};
inline constexpr SessionId kSession{7};
inline constexpr std::uint32_t kWindow = 16;

inline crypto::Peer node_peer(NodeId id) { return {crypto::Role::kNode, id.value, {}, {}, {}}; }
inline crypto::Peer host_peer(HostId id) { return {crypto::Role::kHost, id.value, {}, {}, {}}; }
inline crypto::Peer client_peer(ClientId id) { return {crypto::Role::kClient, id.value, {}, {}, {}}; }
inline crypto::Peer slot_peer(SlotId slot) { return {crypto::Role::kExecutor, 0, kService, slot, Incarnation{1}}; }
inline Progress progress(View view) {
  Progress out;
  out.view = view;
  return out;
}
inline NodeId node(std::uint32_t i) { return NodeId{static_cast<std::uint16_t>(i)}; }

// f = g = 1: four nodes, three slots. The story's own order, histories and replies are kept beside the witness's.
struct Story {
  explicit Story(const std::set<NodeId>& byzantine = {}, const std::set<SlotId>& wrong = {}) {
    cluster.file.limits.window_batches = kWindow;
    cluster.file.limits.client_window = 4;
    witness = make_witness(cluster.file, kService, byzantine, wrong);
  }

  test::TestCluster cluster;
  std::unique_ptr<Witness> witness;
  Micros now{1'000'000};
  std::vector<Digest> histories{Digest{}};  // by n
  std::vector<Digest> results{Digest{}};
  std::vector<Micros> times{Micros{}};
  std::vector<std::vector<RequestPtr>> bodies{{}};
  test::LocalKv service;
  std::vector<std::vector<SharedBytes>> replies{{}};

  [[nodiscard]] std::string violation() const { return witness->violation().value_or("none"); }

  void parcel(const crypto::Peer& from, const crypto::Peer& to, Body body) const {
    witness->sent(now, {from, to, std::make_shared<const Message>(Message{kService, std::move(body)})});
  }
  void send(NodeId from, NodeId to, Body body) const { parcel(node_peer(from), node_peer(to), std::move(body)); }
  void cast(NodeId from, Body body) const {
    const auto shared = std::make_shared<const Message>(Message{kService, std::move(body)});
    for (std::uint16_t i = 0; i < 4; ++i) {
      if (i != from.value) witness->sent(now, {node_peer(from), node_peer(NodeId{i}), shared});
    }
  }
  void disk(NodeId at, const LogRecord& record, bool synced = true) const { witness->persisted(at, record, synced); }

  [[nodiscard]] static RequestPtr request(ClientId client, std::uint64_t number, std::string_view op) {
    auto made = std::make_shared<Request>();
    made->client = client;
    made->session = kSession;
    made->number = RequestNumber{number};
    made->op = SharedBytes::copy(op);
    made->digest = request_digest(kService, client, kSession, made->number, 0, made->op.view());
    return made;
  }
  RequestPtr submit(std::uint64_t number, std::string_view op) const {
    witness->submitted(now, kClient, kSession, RequestNumber{number}, SharedBytes::copy(op));
    return request(kClient, number, op);
  }

  // The next batch of the story; nothing of it has happened yet.
  HeaderPtr batch(std::vector<RequestPtr> requests, std::int64_t time = 0, std::vector<SystemOp> system = {}) {
    auto header = std::make_shared<BatchHeader>();
    header->service = kService;
    header->n = Seq{histories.size()};
    header->time = Micros{time != 0 ? time : static_cast<std::int64_t>(1'000 * header->n.value)};
    for (const RequestPtr& r : requests) header->references.push_back(reference_of(*r));
    header->system = std::move(system);
    append(header, std::move(requests));
    return header;
  }
  void append(const HeaderPtr& header, std::vector<RequestPtr> requests) {
    histories.push_back(history_digest(histories.back(), batch_digest(*header)));
    times.push_back(agreed_time(times.back(), *header));
    std::vector<Digest> digests;
    replies.emplace_back();
    for (const RequestPtr& r : requests) {
      const SharedBytes reply = service.execute({header->n, times.back(), histories.back(), r->client, r->op});
      digests.push_back(reply_digest(reply.view()));
      replies.back().push_back(reply);
    }
    results.push_back(results_digest(results.back(), vote_digest(header->n, digests)));
    bodies.push_back(std::move(requests));
  }

  void accept(NodeId at, View view, const HeaderPtr& header) const {
    const Digest digest = batch_digest(*header);
    disk(at, AcceptedRecord{view, header->n, digest, header, {}});
    if (node(static_cast<std::uint32_t>(view.value % 4)) == at) {
      cast(at, PrePrepare{view, header, digest});
    } else {
      cast(at, Prepare{view, header->n, digest});
    }
  }
  void commit(NodeId at, View view, const HeaderPtr& header) const {
    disk(at, PreparedRecord{view, header->n, batch_digest(*header)});
    cast(at, Commit{view, header->n, batch_digest(*header)});
  }
  void agree(View view, const HeaderPtr& header) const {
    const auto first = static_cast<std::uint32_t>(view.value % 4);
    for (std::uint32_t i = 0; i < 4; ++i) accept(node((first + i) % 4), view, header);
    for (std::uint32_t i = 0; i < 4; ++i) commit(node(i), view, header);
  }
  [[nodiscard]] Delivery delivery(const HeaderPtr& header) const {
    const std::size_t n = header->n.value;
    return {header, batch_digest(*header), histories[n], times[n], bodies[n]};
  }
  void deliver(NodeId at, const HeaderPtr& header, bool synced = true) const {
    witness->delivered(at, delivery(header));
    disk(at, OrderedRecord{header->n, batch_digest(*header), header, bodies[header->n.value]}, synced);
  }
  // From proposal to delivery at all nodes.
  void order(const HeaderPtr& header, View view = {}) const {
    agree(view, header);
    for (std::uint32_t i = 0; i < 4; ++i) deliver(node(i), header);
  }
  HeaderPtr ordered(std::vector<RequestPtr> requests) {
    const HeaderPtr header = batch(std::move(requests));
    order(header);
    return header;
  }

  [[nodiscard]] std::vector<Digest> digests(Seq n) const {
    std::vector<Digest> out;
    for (const SharedBytes& reply : replies[n.value]) out.push_back(reply_digest(reply.view()));
    return out;
  }
  void execute(SlotId slot, Seq n, Digest state = {}) const {
    witness->executed(slot, Incarnation{1}, n, digests(n), state);
    for (std::uint32_t i = 0; i < 4; ++i) {
      parcel(slot_peer(slot), node_peer(node(i)), Vote{Epoch{}, n, slot, Incarnation{1}, digests(n)});
    }
  }
  void reply(std::uint64_t number, const SharedBytes& text) const {
    witness->accepted(now, kClient, kSession, RequestNumber{number}, text);
  }

  [[nodiscard]] CheckpointState state(Seq n) const {
    return {n, histories[n.value], results[n.value], Digest{}, Digest{}};
  }
  void root(SlotId slot, NodeId at, Seq n, const Digest& digest) const {
    parcel(slot_peer(slot), node_peer(at), ExecCheckpoint{kService, slot, Incarnation{1}, n, digest, {}});
  }
  // All slots gave the root that state() has.
  void checkpoint(NodeId at, const CheckpointState& s) const {
    for (std::uint16_t i = 0; i < 3; ++i) root(SlotId{i}, at, s.n, {});
    cast(at, Checkpoint{kService, at, s, {}});
  }
  [[nodiscard]] static CertificatePtr certificate(const CheckpointState& s, const std::vector<std::uint32_t>& signers) {
    auto made = std::make_shared<StableCertificate>();
    made->service = kService;
    made->state = s;
    for (const std::uint32_t i : signers) made->parts.push_back({node(i), {}});
    return made;
  }
  CertificatePtr stable(Seq n) const {
    for (std::uint32_t i = 0; i < 3; ++i) checkpoint(node(i), state(n));
    return certificate(state(n), {0, 1, 2});
  }

  [[nodiscard]] static ViewChangePtr change(NodeId at, View view, std::vector<Claim> prepared = {},
                                            std::vector<Claim> pre_prepared = {}, CertificatePtr from = nullptr) {
    auto made = std::make_shared<ViewChange>();
    made->service = kService;
    made->signer = at;
    made->view = view;
    made->stable = std::move(from);
    made->prepared = std::move(prepared);
    made->pre_prepared = std::move(pre_prepared);
    return made;
  }
  void leave(const ViewChangePtr& message) const {
    disk(message->signer, ViewRecord{message->view, true, message, nullptr});
    cast(message->signer, message);
  }
  [[nodiscard]] static NewViewPtr new_view(View view, std::vector<ViewChangePtr> proof, std::vector<Digest> chosen,
                                           Seq start = {}) {
    auto made = std::make_shared<NewView>();
    made->service = kService;
    made->signer = node(static_cast<std::uint32_t>(view.value % 4));
    made->view = view;
    made->proof = std::move(proof);
    made->start = start;
    made->chosen = std::move(chosen);
    return made;
  }
  void enter(NodeId at, const NewViewPtr& message) const {
    disk(at, ViewRecord{message->view, false, nullptr, message});
    if (message->signer == at) cast(at, message);
  }
  void event(EventKind kind, Seq n, NodeId at, SlotId slot = {}, std::string_view why = {}) const {
    Event e;
    e.kind = kind;
    e.n = n;
    e.node = at;
    e.slot = slot;
    if (kind != EventKind::kConflict) e.incarnation = Incarnation{1};  // a node's own word
    e.why = why;
    witness->observed(now, e);
  }
  [[nodiscard]] Wake wake(NodeId at, SlotId slot) const {
    Wake made{kService, at, Epoch{}, slot, Incarnation{1}, Seq{1}, 0, {}};
    made.signature = cluster.node_keys[at.value].sign(wake_fields(cluster.file.id, made));
    return made;
  }
};

}  // namespace zz::sim
