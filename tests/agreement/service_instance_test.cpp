// ServiceInstance with one executor that asks too much, and what it tells executors of state. What else it joins
// together is run by the simulator.

#include "agreement/service_instance.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "oversight_test_support.hpp"

namespace zz::agreement {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// Keeps where each ORDERS to an executor begins.
class Told final : public Outlet {
 public:
  void to_all_nodes(const Message&) override {}
  void to_node(NodeId, const Message&) override {}
  void to_host(HostId, const Message&) override {}
  void to_all_hosts(const Message&) override {}
  void to_client(ClientId, const Message& message) override {
    if (const auto* some = std::get_if<Acks>(&message.body)) acks.push_back(*some);
  }
  bool to_executor(ServiceId, SlotId slot, Incarnation, const Message& message) override {
    all.emplace_back(slot, message);
    if (const auto* orders = std::get_if<Orders>(&message.body)) from.push_back(orders->first_n);
    return true;
  }
  [[nodiscard]] std::size_t queued_bytes(ServiceId, SlotId, Incarnation) const override { return 0; }
  void drop_stale_executors(ServiceId) override {}
  void persist(ServiceId, const LogRecord&) override {}
  void sync(ServiceId) override {}

  std::vector<Seq> from;
  std::vector<Acks> acks;
  std::vector<std::pair<SlotId, Message>> all;
};

// Slots 0 and 1 have joined with batch 1; twelve more batches are ordered, the last one with a request.
class Subscriptions : public ::testing::Test {
 protected:
  Subscriptions() {
    auto made = std::make_shared<Request>();
    made->session = SessionId{1};
    made->number = RequestNumber{1};
    made->digest = request_digest(ServiceId{0}, made->client, made->session, made->number, 0, {});
    const RequestPtr request = made;
    Recovered recovered;
    for (std::uint64_t n = 1; n <= 13; ++n) {
      std::vector<SystemOp> system;
      if (n == 1) system = {parties.join(SlotId{0}, Incarnation{1}), parties.join(SlotId{1}, Incarnation{1})};
      const Delivery batch = make_delivery(Seq{n}, 0, std::move(system));
      auto header = std::make_shared<BatchHeader>(*batch.header);
      if (n == 13) header->references.push_back(reference_of(*request));
      recovered.ordered.push_back({Seq{n}, batch_digest(*header), header, {}});
      if (n == 13) recovered.ordered.back().requests.push_back(request);
    }
    instance.restore(recovered);
    instance.tick(Micros{}, Micros{});
    connect();
  }
  void connect() {
    instance.peer_up(executor);
    instance.run();
  }
  void subscribe(std::uint64_t from) {
    Message message{ServiceId{0}, Subscribe{Seq{from}, false}};
    EXPECT_EQ(instance.step(executor, message), Refusal::kNone);
    instance.run();
  }
  void body_timeouts(std::int64_t percent) {
    now += parties.cluster.timing.body_timeout_ms * kMs * percent / 100;
    instance.tick(Micros{now}, Micros{now});
    instance.run();
  }

  Parties parties{1, 1};
  Told told;
  Memory observer;
  ServiceInstance instance{parties.cluster, ServiceId{0}, NodeId{0}, parties.node_keys[0], observer, told};
  crypto::Peer executor{crypto::Role::kExecutor, 0, ServiceId{0}, SlotId{0}, Incarnation{1}};
  crypto::Peer other{crypto::Role::kExecutor, 0, ServiceId{0}, SlotId{1}, Incarnation{1}};
  std::int64_t now = 0;
};

class State : public Subscriptions {
 protected:
  void become_stable(std::uint64_t n) {
    auto certificate = std::make_shared<StableCertificate>();
    certificate->state.n = Seq{n};
    for (std::uint16_t i = 1; i <= 3; ++i) {
      const Bytes fields = checkpoint_fields(parties.cluster.id, ServiceId{0}, NodeId{i}, certificate->state);
      certificate->parts.push_back({NodeId{i}, parties.node_keys[i].sign(fields)});
    }
    Message message{ServiceId{0}, Stable{certificate}};
    EXPECT_EQ(instance.step({crypto::Role::kNode, 1}, message), Refusal::kNone);
    instance.run();
  }
  Refusal say(const crypto::Peer& from, Body body) {
    Message message{ServiceId{0}, std::move(body)};
    const Refusal refusal = instance.step(from, message);
    instance.run();
    return refusal;
  }
  // What was told since this was last asked.
  template <class M>
  std::vector<std::pair<SlotId, M>> told_of() {
    std::vector<std::pair<SlotId, M>> out;
    for (const auto& [slot, message] : std::exchange(told.all, {})) {
      if (const M* body = std::get_if<M>(&message.body)) out.emplace_back(slot, *body);
    }
    return out;
  }
};

TEST_F(State, ThatIsStableIsShownToExecutorsWhenTheyComeUpAndWhenItRises) {
  told.all.clear();
  become_stable(128);
  auto shown = told_of<Stable>();
  ASSERT_THAT(shown, SizeIs(1));
  EXPECT_EQ(shown[0].first, SlotId{0});
  EXPECT_EQ(shown[0].second.certificate->state.n, Seq{128});
  instance.peer_up(other);
  instance.run();
  ASSERT_FALSE(told.all.empty());
  EXPECT_TRUE(std::holds_alternative<Stable>(told.all.front().second.body)) << "before anything else";
  told.all.clear();
  become_stable(256);
  shown = told_of<Stable>();
  ASSERT_THAT(shown, SizeIs(2));
  EXPECT_EQ(shown[1].second.certificate->state.n, Seq{256});
}

TEST_F(State, IsRelayedBetweenExecutors) {
  const FetchState wish{77, SlotId{1}, Seq{128}, {{2, 5, 16, 100, {}}}, {}};
  told.all.clear();
  EXPECT_EQ(say(executor, wish), Refusal::kNotReady) << "slot 1 is not connected";
  auto answers = told_of<StateParts>();
  ASSERT_THAT(answers, SizeIs(1));
  EXPECT_EQ(answers[0].second.ticket, 77u);
  instance.peer_up(other);
  EXPECT_EQ(say(executor, wish), Refusal::kNone);
  const auto questions = told_of<FetchState>();
  ASSERT_THAT(questions, SizeIs(1));
  EXPECT_EQ(questions[0].first, SlotId{1});
  EXPECT_EQ(questions[0].second.wants, wish.wants);
  const StateParts parts{questions[0].second.ticket, {{2, 5, 16, SharedBytes::copy(std::string_view("object"))}}};
  EXPECT_EQ(say(executor, parts), Refusal::kNotWanted) << "another slot's to answer";
  EXPECT_EQ(say(other, parts), Refusal::kNone);
  answers = told_of<StateParts>();
  ASSERT_THAT(answers, SizeIs(1));
  EXPECT_EQ(answers[0].first, SlotId{0});
  EXPECT_EQ(answers[0].second.ticket, 77u);
  ASSERT_THAT(answers[0].second.parts, SizeIs(1));
  EXPECT_EQ(answers[0].second.parts[0].bytes.text(), "object");
  instance.peer_down(other);
  EXPECT_EQ(say(executor, wish), Refusal::kNotReady);
}

// A node that was restarted has no votes for what a checkpoint covers; the slots that are awake have them neither.
TEST_F(State, SaysHowRequestsBelowAStableCheckpointWereAnswered) {
  const auto ask_for_it = [&] {
    EXPECT_EQ(say({crypto::Role::kClient, 0}, Requests{SessionId{1}, {{RequestNumber{1}, 0, {}}}}), Refusal::kNone);
  };
  told.all.clear();
  ask_for_it();
  EXPECT_THAT(told_of<FetchReplies>(), IsEmpty()) << "its votes may come";
  become_stable(128);
  told.all.clear();
  instance.peer_up(other);
  ask_for_it();
  const auto questions = told_of<FetchReplies>();
  ASSERT_THAT(questions, SizeIs(2)) << "of all that are connected";
  EXPECT_TRUE(questions[0].second.digests);
  EXPECT_EQ(questions[0].second.n, Seq{13});
  told.acks.clear();
  const Digest digest = reply_digest(as_bytes("yes"));
  EXPECT_EQ(say(executor, ReplyDigests{Seq{14}, {{0, digest}}}), Refusal::kNotWanted);
  EXPECT_EQ(say(executor, ReplyDigests{Seq{13}, {{1, digest}}}), Refusal::kMalformed);
  EXPECT_EQ(say(executor, ReplyDigests{Seq{13}, {{0, digest}}}), Refusal::kNone);
  EXPECT_EQ(say(executor, ReplyDigests{Seq{13}, {{0, digest}}}), Refusal::kDuplicate);
  EXPECT_THAT(told.acks, IsEmpty());
  EXPECT_EQ(say(other, ReplyDigests{Seq{13}, {{0, digest}}}), Refusal::kNone);
  ASSERT_THAT(told.acks, SizeIs(1));
  EXPECT_EQ(told.acks[0].items[0].reply_digest, digest);
  const auto bodies = told_of<FetchReplies>();
  ASSERT_THAT(bodies, SizeIs(1)) << "and whoever is asked for the body";
  EXPECT_FALSE(bodies[0].second.digests);
}

TEST_F(Subscriptions, OfASlotAreAnsweredEightTimesPerBodyTimeoutAndTheNewestWaits) {
  for (int i = 0; i < 8; ++i) subscribe(1);
  ASSERT_THAT(told.from, SizeIs(8));
  told.from.clear();
  for (const std::uint64_t from : {2u, 3u, 4u}) subscribe(from);
  EXPECT_THAT(told.from, IsEmpty());
  body_timeouts(90);
  EXPECT_THAT(told.from, IsEmpty());
  body_timeouts(10);
  EXPECT_THAT(told.from, ElementsAre(Seq{4}));
  body_timeouts(100);
  EXPECT_THAT(told.from, SizeIs(1)) << "what another one replaced is forgotten";
  for (int i = 0; i < 9; ++i) subscribe(1);
  EXPECT_THAT(told.from, SizeIs(1 + 8));
}

TEST_F(Subscriptions, AreNotRenewedByAnotherChannel) {
  for (int i = 0; i < 9; ++i) subscribe(1);
  instance.peer_down(executor);
  told.from.clear();
  connect();
  body_timeouts(50);
  subscribe(2);
  EXPECT_THAT(told.from, IsEmpty());
  body_timeouts(50);
  EXPECT_THAT(told.from, ElementsAre(Seq{2}));
}

TEST_F(Subscriptions, OfAChannelThatIsGoneAreForgotten) {
  for (int i = 0; i < 9; ++i) subscribe(1);
  instance.peer_down(executor);
  told.from.clear();
  connect();
  body_timeouts(100);
  EXPECT_THAT(told.from, IsEmpty());
}

// Batch 1 joins all slots; batch 2 has one request.
class DifferingReplies : public ::testing::Test {
 protected:
  DifferingReplies() {
    Recovered recovered;
    std::vector<SystemOp> joins;
    for (std::uint16_t i = 0; i < 3; ++i) joins.emplace_back(parties.join(SlotId{i}, Incarnation{1}));
    const Delivery first = make_delivery(Seq{1}, 0, std::move(joins));
    auto second = std::make_shared<BatchHeader>();
    second->n = Seq{2};
    Request request{ClientId{0}, SessionId{6}, RequestNumber{1}, 0, SharedBytes::copy(std::string_view("get a")), {}};
    request.digest =
        request_digest(ServiceId{0}, request.client, request.session, request.number, 0, request.op.view());
    second->references.push_back(reference_of(request));
    recovered.ordered.push_back({Seq{1}, batch_digest(*first.header), first.header, {}});
    recovered.ordered.push_back(
        {Seq{2}, batch_digest(*second), second, {std::make_shared<const Request>(std::move(request))}});
    instance.restore(recovered);
    instance.tick(Micros{}, Micros{});
    for (std::uint16_t i = 0; i < 3; ++i) instance.peer_up(peer(i));
    instance.run();
    for (std::uint16_t i = 0; i < 3; ++i)
      EXPECT_EQ(say(i, Vote{Epoch{}, Seq{1}, SlotId{i}, Incarnation{1}, {}}), Refusal::kNone);
  }
  static crypto::Peer peer(std::uint16_t slot) {
    return {crypto::Role::kExecutor, 0, ServiceId{0}, SlotId{slot}, Incarnation{1}};
  }
  Refusal say(std::uint16_t slot, Body body) {
    Message message{ServiceId{0}, std::move(body)};
    const Refusal refusal = instance.step(peer(slot), message);
    instance.run();
    return refusal;
  }
  Refusal vote(std::uint16_t slot, const std::string& reply) {
    return say(slot, Vote{Epoch{}, Seq{2}, SlotId{slot}, Incarnation{1}, {reply_digest(as_bytes(reply))}});
  }
  // Who was asked for a reply to the request, since this was last asked.
  std::vector<SlotId> asked() {
    std::vector<SlotId> out;
    for (const auto& [slot, message] : std::exchange(told.all, {})) {
      const auto* wanted = std::get_if<FetchReplies>(&message.body);
      if (wanted != nullptr && wanted->n == Seq{2} && wanted->items.at(0).session == SessionId{6}) out.push_back(slot);
    }
    return out;
  }

  Parties parties{1, 1};
  Told told;
  Memory observer;
  ServiceInstance instance{parties.cluster, ServiceId{0}, NodeId{0}, parties.node_keys[0], observer, told};
};

TEST_F(DifferingReplies, ThatDifferBecomeEvidence) {
  EXPECT_EQ(vote(0, "green"), Refusal::kNone);
  EXPECT_EQ(vote(1, "greed"), Refusal::kNone);
  EXPECT_THAT(asked(), IsEmpty()) << "a liar's reply must not come before the right one is known";
  EXPECT_EQ(vote(2, "green"), Refusal::kNone);
  EXPECT_THAT(asked(), ElementsAre(SlotId{0}, SlotId{2}, SlotId{1}));
  EXPECT_EQ(say(0, Replies{Seq{2}, {{0, SharedBytes::copy(std::string_view("green"))}}}), Refusal::kNone);
  EXPECT_EQ(say(1, Replies{Seq{2}, {{0, SharedBytes::copy(std::string_view("greed"))}}}), Refusal::kNone)
      << "it was asked for its lie";
  const auto evidence = instance.take_evidence();
  ASSERT_THAT(evidence, SizeIs(1));
  EXPECT_EQ(evidence[0].request->op.text(), "get a");
  ASSERT_THAT(evidence[0].sides, SizeIs(2));
  EXPECT_EQ(evidence[0].sides[0].body->text(), "green");
  EXPECT_EQ(evidence[0].sides[1].body->text(), "greed");
  EXPECT_EQ(say(1, Replies{Seq{2}, {{0, SharedBytes::copy(std::string_view("greed"))}}}), Refusal::kConflict);
}

TEST_F(DifferingReplies, ThatDifferFromWhatWasClosedBeforeBecomeEvidenceToo) {
  EXPECT_EQ(vote(0, "green"), Refusal::kNone);
  EXPECT_EQ(vote(1, "green"), Refusal::kNone);
  EXPECT_EQ(vote(2, "greed"), Refusal::kNone);
  EXPECT_THAT(asked(), ElementsAre(SlotId{2}, SlotId{0}, SlotId{1}));
  static_cast<void>(say(1, Replies{Seq{2}, {{0, SharedBytes::copy(std::string_view("green"))}}}));
  static_cast<void>(say(2, Replies{Seq{2}, {{0, SharedBytes::copy(std::string_view("greed"))}}}));
  const auto evidence = instance.take_evidence();
  ASSERT_THAT(evidence, SizeIs(1));
  EXPECT_FALSE(evidence[0].sides[0].agrees);
  EXPECT_TRUE(evidence[0].sides[1].agrees);
  EXPECT_EQ(evidence[0].sides[1].body->text(), "green");
}

}  // namespace
}  // namespace zz::agreement
