#include "client/client.hpp"

#include <gtest/gtest.h>

#include <set>

#include "agreement/codec.hpp"
#include "tests/support/party.hpp"
#include "tests/support/run_until.hpp"

namespace zz::client {
namespace {

using agreement::Acks;
using agreement::Message;
using agreement::Rejected;
using agreement::Requests;
using test::Party;
using test::run_until;

enum class Manner { kHonest, kSilent, kLying, kBusyOnce, kRefusing };

// Agreement nodes over real channels, each with its manners. An honest one answers "re: OP" as a node would: the home
// with the body, the f after it with the digest, all with the body when they are asked again.
class Nodes {
 public:
  explicit Nodes(boost::asio::io_context& loop, std::uint32_t f = 1)
      : client_(loop, test::client(2)), manners_(3 * f + 1, Manner::kHonest), messages_(3 * f + 1, 0) {
    cluster_.f = f;
    for (std::uint32_t i = 0; i < 3 * f + 1; ++i) {
      Party& party = *parties_.emplace_back(std::make_unique<Party>(loop, test::node(i)));
      test::introduce(party, client_);
      party.keeps_messages = false;
      party.when_message = [this, i](net::Channel& channel, const SharedBytes& bytes) { answer(i, channel, bytes); };
      const auto id = static_cast<std::uint16_t>(i);
      cluster_.nodes.push_back({NodeId{id}, HostId{id}, party.listen(), party.key()});
    }
    cluster_.services.resize(2);
    cluster_.services[1].id.value = 1;
    cluster_.limits.client_window = 8;
    cluster_.timing.hedge_ms = 5;
    cluster_.timing.retransmit_ms = 50;
    client_.stop();
  }

  std::unique_ptr<Client> open(boost::asio::io_context& loop, const ClientOptions& options = {}) {
    key_.emplace(client_.key_copy());
    auto opened = Client::open(loop, cluster_, *key_, options);
    EXPECT_TRUE(opened.ok());
    return std::move(opened).value();
  }

  Party& party(std::size_t node) { return *parties_[node]; }
  void all(Manner manner) { manners_.assign(manners_.size(), manner); }
  void one(std::size_t node, Manner manner) { manners_[node] = manner; }
  // Requests messages that node has got.
  [[nodiscard]] std::size_t messages(std::size_t node) const { return messages_[node]; }
  [[nodiscard]] const std::set<SessionId>& sessions() const { return sessions_; }
  crypto::ClusterFile& cluster() { return cluster_; }
  [[nodiscard]] NodeId home(SessionId session) const { return agreement::home_of(session, cluster_.n()); }

 private:
  void answer(std::uint32_t node, net::Channel& channel, const SharedBytes& bytes) {
    const agreement::Decoded decoded = agreement::decode(bytes, {});
    ASSERT_EQ(decoded.refusal, Refusal::kNone);
    const auto& requests = std::get<Requests>(decoded.message.body);
    ++messages_[node];
    sessions_.insert(requests.session);
    for (const Requests::Item& item : requests.items) {
      const bool asked = !seen_.insert({node, requests.session, item.number}).second;
      const ServiceId service = decoded.message.service;
      switch (manners_[node]) {
        case Manner::kSilent:
          break;
        case Manner::kHonest:
          acknowledge(node, channel, service, requests.session, item, "re: ", asked);
          break;
        case Manner::kLying:
          acknowledge(node, channel, service, requests.session, item, "lie: ", true);
          break;
        case Manner::kBusyOnce:
          if (!asked) {
            reject(channel, service, requests.session, item.number, Refusal::kQueueFull);
          } else {
            acknowledge(node, channel, service, requests.session, item, "re: ", true);
          }
          break;
        case Manner::kRefusing:
          reject(channel, service, requests.session, item.number, Refusal::kNotAllowed);
          break;
      }
    }
  }

  void acknowledge(std::uint32_t node, net::Channel& channel, ServiceId service, SessionId session,
                   const Requests::Item& item, std::string_view prefix, bool asked) {
    const std::uint32_t distance = (node + cluster_.n() - home(session).value) % cluster_.n();
    if (distance > cluster_.f && !asked) return;
    const SharedBytes reply = SharedBytes::copy(std::string(prefix) + std::string(item.op.text()));
    Acks::Item ack{item.number, agreement::reply_digest(reply.view()), distance == 0 || asked, {}};
    if (ack.has_body) ack.body = reply;
    channel.send(encode(Message{service, Acks{session, {ack}}}));
  }
  static void reject(net::Channel& channel, ServiceId service, SessionId session, RequestNumber number,
                     Refusal reason) {
    channel.send(encode(Message{service, Rejected{session, number, static_cast<std::uint8_t>(reason)}}));
  }

  crypto::ClusterFile cluster_;
  Party client_;  // for its key and peer only
  std::optional<crypto::SecretKey> key_;
  std::vector<std::unique_ptr<Party>> parties_;
  std::vector<Manner> manners_;
  std::vector<std::size_t> messages_;
  std::set<std::tuple<std::uint32_t, SessionId, RequestNumber>> seen_;
  std::set<SessionId> sessions_;
};

struct Fixture : ::testing::Test {
  // Submits one operation and waits for its answer.
  Answer ask(Client& client, std::string_view op, ServiceId service = {}) {
    std::optional<Answer> answer;
    EXPECT_EQ(client.submit(service, SharedBytes::copy(op), [&](const Answer& given) { answer = given; }),
              Refusal::kNone);
    EXPECT_FALSE(answer.has_value());  // never from inside submit
    EXPECT_TRUE(run_until(loop, [&] { return answer.has_value(); }));
    return answer.value_or(Answer{});
  }
  void connect(Client& client) {
    ASSERT_TRUE(run_until(loop, [&] { return client.connected_nodes() == nodes.cluster().n(); }));
  }

  boost::asio::io_context loop{1};
  Nodes nodes{loop};
};

class ClientTest : public Fixture {};

TEST_F(ClientTest, AnswersARequestSubmittedBeforeAnyChannelIsUp) {
  const auto client = nodes.open(loop);
  EXPECT_EQ(client->connected_nodes(), 0u);
  EXPECT_EQ(ask(*client, "early").reply.text(), "re: early");
}

TEST_F(ClientTest, EveryCallbackGetsTheReplyOfItsOwnRequestWhileWindowsSlide) {
  const auto client = nodes.open(loop, {.sessions = 2, .timeout = Micros{30'000'000}});
  std::size_t done = 0;
  std::size_t submitted = 0;
  std::set<std::size_t> answered;
  std::function<void()> submit = [&] {  // a closed loop with both windows full
    while (submitted < 2'000) {
      const std::size_t mine = submitted;
      const Refusal refusal =
          client->submit(ServiceId{}, SharedBytes::copy(std::to_string(mine)), [&, mine](const Answer& answer) {
            EXPECT_EQ(answer.reply.text(), "re: " + std::to_string(mine));
            EXPECT_TRUE(answered.insert(mine).second);
            ++done;
            submit();
          });
      if (refusal == Refusal::kQueueFull) return;
      ASSERT_EQ(refusal, Refusal::kNone);
      ++submitted;
    }
  };
  submit();
  EXPECT_EQ(client->outstanding(), 16u);
  ASSERT_TRUE(run_until(loop, [&] { return done == 2'000; }));
  EXPECT_EQ(client->outstanding(), 0u);
  EXPECT_EQ(client->stats().replies, 2'000u);
}

TEST_F(ClientTest, AllSubmissionsOfATurnLeaveInOneMessage) {
  const auto client = nodes.open(loop);
  connect(*client);
  std::size_t done = 0;
  for (int i = 0; i < 8; ++i) {
    client->submit(ServiceId{}, SharedBytes::copy(std::string_view("op")), [&](const Answer&) { ++done; });
  }
  ASSERT_TRUE(run_until(loop, [&] { return done == 8; }));
  const auto home = nodes.home(*nodes.sessions().begin()).value;
  EXPECT_EQ(nodes.messages(home), 1u + client->stats().hedges);
}

TEST_F(ClientTest, SpreadsSessionsOverTheirHomes) {
  const auto client = nodes.open(loop, {.sessions = 4, .timeout = Micros{30'000'000}});
  std::size_t done = 0;
  for (int i = 0; i < 4; ++i) {
    client->submit(ServiceId{}, SharedBytes::copy(std::string_view("op")), [&](const Answer&) { ++done; });
  }
  ASSERT_TRUE(run_until(loop, [&] { return done == 4; }));
  std::set<NodeId> homes;
  for (const SessionId session : nodes.sessions()) homes.insert(nodes.home(session));
  EXPECT_EQ(homes.size(), 4u);
}

TEST_F(ClientTest, ServesSeveralServicesOverTheSameChannels) {
  const auto client = nodes.open(loop);
  EXPECT_EQ(ask(*client, "a", ServiceId{0}).reply.text(), "re: a");
  EXPECT_EQ(ask(*client, "b", ServiceId{1}).reply.text(), "re: b");
  EXPECT_EQ(nodes.sessions().size(), 2u);
  EXPECT_EQ(client->submit(ServiceId{2}, {}, [](const Answer&) {}), Refusal::kUnknownService);
}

TEST_F(ClientTest, AFaultyNodeNeverChangesAReply) {
  for (std::size_t faulty = 0; faulty < 4; ++faulty) {
    for (const Manner manner : {Manner::kLying, Manner::kSilent, Manner::kBusyOnce, Manner::kRefusing}) {
      nodes.all(Manner::kHonest);
      nodes.one(faulty, manner);
      const auto client = nodes.open(loop);
      for (int i = 0; i < 3; ++i) EXPECT_EQ(ask(*client, "x").reply.text(), "re: x");
    }
  }
}

TEST_F(ClientTest, BusyNodesAreTriedAgain) {
  nodes.all(Manner::kBusyOnce);
  const auto client = nodes.open(loop);
  EXPECT_EQ(ask(*client, "x").reply.text(), "re: x");
  EXPECT_GE(client->stats().busy, 2u);
}

TEST_F(ClientTest, SaysWhyARequestWasRefusedAndGoesOnInANewSession) {
  nodes.all(Manner::kRefusing);
  const auto client = nodes.open(loop);
  const Answer answer = ask(*client, "x");
  EXPECT_EQ(answer.outcome, Outcome::kRejected);
  EXPECT_EQ(answer.reason, Refusal::kNotAllowed);
  nodes.all(Manner::kHonest);
  EXPECT_EQ(ask(*client, "y").reply.text(), "re: y");
  EXPECT_EQ(nodes.sessions().size(), 2u);
  EXPECT_EQ(client->stats().rejected, 1u);  // the ended session still counts
}

TEST_F(ClientTest, TimesOutWhenNobodyAnswersAndGoesOnInANewSession) {
  nodes.all(Manner::kSilent);
  const auto client = nodes.open(loop, {.sessions = 1, .timeout = Micros{100'000}});
  EXPECT_EQ(ask(*client, "x").outcome, Outcome::kTimedOut);
  nodes.all(Manner::kHonest);
  Answer answer = ask(*client, "y");
  while (answer.outcome == Outcome::kTimedOut) answer = ask(*client, "y");  // a slow machine
  EXPECT_EQ(answer.reply.text(), "re: y");
  EXPECT_GE(nodes.sessions().size(), 2u);
}

TEST_F(ClientTest, ASubmissionThatFindsItsSessionTimedOutGoesToANewOneOrIsToldBusy) {
  nodes.all(Manner::kSilent);
  const auto client = nodes.open(loop, {.sessions = 1, .timeout = Micros{0}});  // out of time at the next look
  std::size_t taken = 0;
  std::size_t done = 0;
  for (int i = 0; i < 20; ++i) {
    const Refusal refusal = client->submit(ServiceId{}, {}, [&](const Answer& answer) {
      EXPECT_EQ(answer.outcome, Outcome::kTimedOut);
      ++done;
    });
    if (refusal == Refusal::kNone) {
      ++taken;
    } else {
      EXPECT_EQ(refusal, Refusal::kQueueFull);
    }
  }
  EXPECT_GT(taken, 1u);   // a new session took what the ended one could not
  EXPECT_LT(taken, 20u);  // ended sessions are bounded
  EXPECT_TRUE(run_until(loop, [&] { return done == taken; }));
}

TEST_F(ClientTest, SaysBusyWhenEveryWindowIsFull) {
  nodes.all(Manner::kSilent);
  const auto client = nodes.open(loop, {.sessions = 2, .timeout = Micros{30'000'000}});
  for (int i = 0; i < 16; ++i) {
    ASSERT_EQ(client->submit(ServiceId{}, {}, [](const Answer&) {}), Refusal::kNone);
  }
  EXPECT_EQ(client->submit(ServiceId{}, {}, [](const Answer&) { FAIL(); }), Refusal::kQueueFull);
}

TEST_F(ClientTest, RefusesWhatNoNodeWouldTake) {
  nodes.cluster().limits.op_bytes_max = 14;
  const auto client = nodes.open(loop);
  const SharedBytes fifteen(Bytes(15));
  EXPECT_EQ(client->submit(ServiceId{}, fifteen, [](const Answer&) { FAIL(); }), Refusal::kOversize);
  EXPECT_EQ(ask(*client, "1234567890").reply.text(), "re: 1234567890");  // its reply is 14 bytes long
}

TEST_F(ClientTest, SendsWhatIsOutstandingToNodesThatComeBack) {
  const auto client = nodes.open(loop);
  connect(*client);
  for (std::size_t i = 0; i < 4; ++i) nodes.party(i).stop();
  ASSERT_TRUE(run_until(loop, [&] { return client->connected_nodes() == 0; }));
  std::optional<Answer> answer;
  client->submit(ServiceId{}, SharedBytes::copy(std::string_view("x")), [&](const Answer& given) { answer = given; });
  for (std::size_t i = 0; i < 4; ++i) {
    nodes.party(i).restart();
    static_cast<void>(nodes.party(i).listen());
  }
  ASSERT_TRUE(run_until(loop, [&] { return answer.has_value(); }));
  EXPECT_EQ(answer->reply.text(), "re: x");
}

TEST_F(ClientTest, CountsAndIgnoresWhatIsNotForAClient) {
  const auto client = nodes.open(loop);
  connect(*client);
  net::Channel* channel = nodes.party(0).network().find(test::client(2));
  ASSERT_NE(channel, nullptr);
  channel->send(test::numbered_message(0xffffffff, 3));
  channel->send(encode(Message{ServiceId{}, agreement::Prepare{}}));
  channel->send(encode(Message{ServiceId{}, Acks{SessionId{1}, {}}}));
  ASSERT_TRUE(run_until(loop, [&] { return client->refusals().of(Refusal::kSessionExpired) == 1; }));
  EXPECT_EQ(client->refusals().of(Refusal::kMalformed), 1u);
  EXPECT_EQ(client->refusals().of(Refusal::kWrongRole), 1u);
  EXPECT_EQ(ask(*client, "x").reply.text(), "re: x");
}

TEST_F(ClientTest, CallsNobodyOnceItIsGone) {
  nodes.all(Manner::kSilent);
  auto client = nodes.open(loop);
  client->submit(ServiceId{}, {}, [](const Answer&) { FAIL(); });
  connect(*client);
  client->submit(ServiceId{}, {}, [](const Answer&) { FAIL(); });
  client.reset();
  loop.restart();
  loop.poll();
}

TEST_F(ClientTest, RefusesMoreSessionsThanNodesWouldKeep) {
  const crypto::SecretKey key = crypto::SecretKey::generate();
  const auto opened = Client::open(loop, nodes.cluster(), key, {.sessions = 17, .timeout = Micros{1}});
  ASSERT_FALSE(opened.ok());
  EXPECT_NE(opened.error().find("client_sessions_max"), std::string::npos);
  EXPECT_FALSE(Client::open(loop, nodes.cluster(), key, {.sessions = 0, .timeout = Micros{1}}).ok());
}

}  // namespace
}  // namespace zz::client
