#include "execution/agent.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/verb.hpp>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "agreement/agent_link.hpp"
#include "agreement/codec.hpp"
#include "execution/http_adapter.hpp"
#include "execution/http_canonical.hpp"
#include "net/channel.hpp"
#include "tests/execution/order.hpp"
#include "tests/execution/temp_dir.hpp"

namespace zz::execution::testing {
namespace {

namespace asio = boost::asio;
namespace fs = std::filesystem;
namespace http = boost::beast::http;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kPatience{30};

// The agreement side of one node: takes what executors say, and tells them what the test has ordered.
class NodeEnd final : public net::Handler {
 public:
  NodeEnd(asio::io_context& loop, const crypto::SecretKey& key, const crypto::PublicKey& executor) {
    auto tls = crypto::TlsContext::make(key, [executor](const crypto::PublicKey& peer) -> std::optional<crypto::Peer> {
      if (peer != executor) return std::nullopt;
      return crypto::Peer{crypto::Role::kExecutor, 0, kService, SlotId{0}, Incarnation{1}};
    });
    EXPECT_TRUE(tls.ok());
    network = std::make_unique<net::Network>(loop, std::move(*tls), net::NetLimits{}, *this);
    EXPECT_TRUE(network->listen({"127.0.0.1", 0}).ok());
  }
  void on_up(net::Channel& up) override { channel = &up; }
  void on_down(net::Channel&, std::string_view) override {
    channel = nullptr;
    subscribed.reset();
  }
  void on_refused(Refusal, std::string_view, std::string_view) override { ++refused; }
  void on_message(net::Channel&, const SharedBytes& bytes) override {
    agreement::Decoded decoded = agreement::decode(bytes, {});
    ASSERT_EQ(decoded.refusal, Refusal::kNone);
    ASSERT_EQ(decoded.message.service, kService);
    if (auto* vote = std::get_if<agreement::Vote>(&decoded.message.body)) votes.push_back(*vote);
    if (auto* said = std::get_if<agreement::ExecCheckpoint>(&decoded.message.body)) checkpoints.push_back(*said);
    if (auto* some = std::get_if<agreement::Replies>(&decoded.message.body)) replies.push_back(*some);
    if (auto* wish = std::get_if<agreement::Subscribe>(&decoded.message.body)) subscribed = *wish;
  }
  template <class Body>
  void send(Body body) {
    ASSERT_NE(channel, nullptr);
    channel->send(agreement::encode(agreement::Message{kService, std::move(body)}));
  }
  void order(const agreement::Batch& batch) {
    send(agreement::Orders{batch.header->n, {batch.digest}});
    if (subscribed && subscribed->bearer) send(batch);
  }

  net::Channel* channel = nullptr;
  std::optional<agreement::Subscribe> subscribed;
  std::vector<agreement::Vote> votes;
  std::vector<agreement::Replies> replies;
  std::vector<agreement::ExecCheckpoint> checkpoints;
  int refused = 0;
  std::unique_ptr<net::Network> network;
};

// Four nodes, a host's end of the control link, and one agent, all on one loop.
class World {
 public:
  explicit World(crypto::ServiceEntry service = {}, bool allow_faults = true, std::uint32_t checkpoint_batches = 128)
      : slot_key(crypto::SecretKey::from_seed(std::span<const std::uint8_t, 32>(seed))), host(loop) {
    cluster.f = 1;
    cluster.allow_faults = allow_faults;
    cluster.limits.checkpoint_batches = checkpoint_batches;
    for (std::uint16_t i = 0; i < 4; ++i) {
      keys.push_back(crypto::SecretKey::generate());
      nodes.push_back(std::make_unique<NodeEnd>(loop, keys.back(), slot_key.public_key()));
      crypto::NodeEntry entry;
      entry.id = NodeId{i};
      entry.address = {"127.0.0.1", nodes.back()->network->listening_port()};
      entry.key = keys.back().public_key();
      cluster.nodes.push_back(entry);
    }
    cluster.services.resize(kService.value + std::size_t{1});
    service.id = kService;
    if (service.adapter.empty()) service.adapter = "kv";
    service.name = "web";
    cluster.services[kService.value] = service;

    fs::create_directory(dir.path / "work");
    std::array<int, 2> ends{};
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    host.assign(asio::local::stream_protocol(), ends[0]);
    read_lines();
    AgentOptions options{kService, SlotId{0}, Incarnation{1}, ends[1], dir.path / "work", dir.path / "slot"};
    agent = std::make_unique<Agent>(loop, cluster, options, [this](const std::string& why) { ended = why; });
    agent->start();
  }
  ~World() { agent.reset(); }

  [[nodiscard]] bool until(const std::function<bool()>& done) {
    const auto deadline = Clock::now() + kPatience;
    while (!done() && Clock::now() < deadline) {
      loop.restart();
      loop.run_one_for(std::chrono::milliseconds(5));
    }
    return done();
  }
  void tell(const agreement::ToAgent& message) { asio::write(host, asio::buffer(agreement::encode(message) + "\n")); }
  void give_identity(std::uint64_t incarnation = 1) {
    agreement::ToAgent message;
    message.identity = agreement::AgentIdentity{kService, SlotId{0}, Incarnation{incarnation}, Epoch{0}, seed, {}};
    tell(message);
  }
  [[nodiscard]] bool ready() {
    return until([&] { return !events.empty() && events[0].kind == agreement::FromAgent::Kind::kReady; });
  }
  [[nodiscard]] bool on_duty() {
    if (!ready()) return false;
    give_identity();
    return until([&] {
      return std::all_of(nodes.begin(), nodes.end(), [](const auto& node) { return node->subscribed.has_value(); });
    });
  }
  [[nodiscard]] bool faulted(const std::string& kind) {
    tell({std::nullopt, kind});
    return until([&] {
      return std::ranges::any_of(
          events, [](const agreement::FromAgent& event) { return event.kind == agreement::FromAgent::Kind::kFaulted; });
    });
  }
  void order(const agreement::Batch& batch) {
    for (const auto& node : nodes) node->order(batch);
  }
  [[nodiscard]] bool all_voted(std::size_t count) {
    return until([&] {
      return std::all_of(nodes.begin(), nodes.end(), [&](const auto& node) { return node->votes.size() >= count; });
    });
  }

  static constexpr std::array<std::uint8_t, 32> seed{1, 2, 3, 4};
  TempDir dir;
  asio::io_context loop;
  crypto::ClusterFile cluster;
  crypto::SecretKey slot_key;
  std::vector<crypto::SecretKey> keys;
  std::vector<std::unique_ptr<NodeEnd>> nodes;
  asio::local::stream_protocol::socket host;
  std::vector<agreement::FromAgent> events;
  std::optional<std::string> ended;
  std::unique_ptr<Agent> agent;

 private:
  void read_lines() {
    asio::async_read_until(host, asio::dynamic_buffer(buffer_), '\n',
                           [this](const boost::system::error_code& error, std::size_t length) {
                             if (error) return;
                             auto event = agreement::parse_from_agent(buffer_.substr(0, length - 1));
                             EXPECT_TRUE(event.ok());
                             if (event.ok()) events.push_back(*event);
                             buffer_.erase(0, length);
                             read_lines();
                           });
  }
  std::string buffer_;
};

crypto::ServiceEntry odd_service(const std::vector<std::string>& flags = {}) {
  crypto::ServiceEntry service;
  service.adapter = "http";
  service.command = {ODD_SERVICE};
  service.command.insert(service.command.end(), flags.begin(), flags.end());
  service.command.push_back("$PORT");
  return service;
}

std::string get(const std::string& target) {
  HttpRequest request(http::verb::get, target, 11);
  request.set(http::field::host, "a");
  return std::string(as_text(*make_http_operation(request)));
}

class ExecutionAgent : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { ASSERT_TRUE(crypto::init().ok()); }
};

TEST_F(ExecutionAgent, DialsNobodyBeforeItHasAnIdentity) {
  World world;
  ASSERT_TRUE(world.ready());
  world.loop.run_for(std::chrono::milliseconds(100));
  for (const auto& node : world.nodes) EXPECT_EQ(node->channel, nullptr);
  ASSERT_TRUE(world.on_duty());
}

TEST_F(ExecutionAgent, AnIdentityForAnotherIncarnationIsIgnored) {
  World world;
  ASSERT_TRUE(world.ready());
  world.give_identity(2);
  world.loop.run_for(std::chrono::milliseconds(100));
  for (const auto& node : world.nodes) EXPECT_EQ(node->channel, nullptr);
  ASSERT_TRUE(world.on_duty());
}

TEST_F(ExecutionAgent, SubscribesFromTheBeginningAtEveryNodeWithOneBearer) {
  World world;
  ASSERT_TRUE(world.on_duty());
  const auto bearers = [&] {
    return std::count_if(world.nodes.begin(), world.nodes.end(),
                         [](const auto& node) { return node->subscribed->bearer; });
  };
  EXPECT_TRUE(world.until([&] { return bearers() == 1; }));
  for (const auto& node : world.nodes) EXPECT_EQ(node->subscribed->from, Seq{1});
}

TEST_F(ExecutionAgent, RunsTheOrderAndVotesToEveryNodeWithBodiesToTheHome) {
  World world;
  ASSERT_TRUE(world.on_duty());
  world.order(make_batch(1, {{5, 1, "put a 1"}}));
  world.order(make_batch(2, {{5, 2, "add a 4"}, {6, 1, "get a"}}));
  ASSERT_TRUE(world.all_voted(2));
  for (const auto& node : world.nodes) {
    EXPECT_EQ(node->votes[1].n, Seq{2});
    EXPECT_EQ(node->votes[1].incarnation, Incarnation{1});
    EXPECT_EQ(node->votes[1].replies, (std::vector<Digest>{digest_of("5"), digest_of("5")}));
  }
  // Slot 0 is designated for even n; sessions 5 and 6 live at nodes 1 and 2.
  ASSERT_TRUE(world.until([&] { return !world.nodes[1]->replies.empty() && !world.nodes[2]->replies.empty(); }));
  EXPECT_EQ(world.nodes[1]->replies[0].items[0].body.text(), "5");
  EXPECT_EQ(world.nodes[2]->replies[0].items[0].index, 1u);
  EXPECT_THAT(world.nodes[0]->replies, IsEmpty());
  world.nodes[3]->send(agreement::FetchReplies{Seq{1}, {{0, ClientId{7}, SessionId{5}, RequestNumber{1}}}});
  ASSERT_TRUE(world.until([&] { return !world.nodes[3]->replies.empty(); }));
  EXPECT_EQ(world.nodes[3]->replies[0].items[0].body.text(), "ok");
}

TEST_F(ExecutionAgent, ANodeThatComesBackGetsTheVotesItMissed) {
  World world;
  ASSERT_TRUE(world.on_duty());
  world.order(make_batch(1, {{5, 1, "put a 1"}}));
  ASSERT_TRUE(world.all_voted(1));
  world.nodes[2]->votes.clear();
  world.nodes[2]->channel->close("test");
  ASSERT_TRUE(world.until([&] { return world.nodes[2]->channel == nullptr; }));
  ASSERT_TRUE(world.until([&] { return world.nodes[2]->votes.size() == 1; }));
  EXPECT_EQ(world.nodes[2]->subscribed->from, Seq{2});
}

TEST_F(ExecutionAgent, ALyingReplicaLiesToEverybodyAlike) {
  World world;
  ASSERT_TRUE(world.on_duty());
  ASSERT_TRUE(world.faulted("wrong-reply"));
  world.order(make_batch(1, {}));
  world.order(make_batch(2, {{4, 1, "put a 1"}}));
  ASSERT_TRUE(world.all_voted(2));
  ASSERT_TRUE(world.until([&] { return !world.nodes[0]->replies.empty(); }));
  const std::string body(world.nodes[0]->replies[0].items[0].body.text());
  EXPECT_NE(body, "ok");
  for (const auto& node : world.nodes) EXPECT_EQ(node->votes[1].replies[0], digest_of(body));
}

TEST_F(ExecutionAgent, ASlowReplicaVotesLate) {
  World world;
  ASSERT_TRUE(world.on_duty());
  ASSERT_TRUE(world.faulted("slow"));
  const auto before = Clock::now();
  world.order(make_batch(1, {{4, 1, "put a 1"}}));
  ASSERT_TRUE(world.all_voted(1));
  EXPECT_GE(Clock::now() - before, std::chrono::milliseconds(kSlowVoteMs));
  EXPECT_EQ(world.nodes[0]->votes[0].replies[0], digest_of("ok"));
}

TEST_F(ExecutionAgent, FaultsAreIgnoredUnlessTheClusterAllowsThem) {
  World world({}, false);
  ASSERT_TRUE(world.on_duty());
  world.tell({std::nullopt, "wrong-reply"});
  world.order(make_batch(1, {{4, 1, "put a 1"}}));
  ASSERT_TRUE(world.all_voted(1));
  EXPECT_EQ(world.nodes[0]->votes[0].replies[0], digest_of("ok"));
  for (const agreement::FromAgent& event : world.events) EXPECT_NE(event.kind, agreement::FromAgent::Kind::kFaulted);
}

TEST_F(ExecutionAgent, EndsWithItsHost) {
  World world;
  ASSERT_TRUE(world.on_duty());
  world.host.close();
  ASSERT_TRUE(world.until([&] { return world.ended.has_value(); }));
  EXPECT_EQ(*world.ended, "");
  ASSERT_TRUE(world.until([&] { return world.nodes[0]->channel == nullptr; }));
}

TEST_F(ExecutionAgent, AServiceThatDoesNotStartIsReportedAndEndsTheAgent) {
  World world(odd_service({"--exit"}));
  ASSERT_TRUE(world.until([&] { return world.ended.has_value() && !world.events.empty(); }));
  EXPECT_THAT(*world.ended, HasSubstr("configuration is wrong at line 7"));
  EXPECT_EQ(world.events[0].kind, agreement::FromAgent::Kind::kFailed);
  EXPECT_THAT(world.events[0].error, HasSubstr("service \"web\""));
}

TEST_F(ExecutionAgent, AnAdapterThatDoesNotExistIsReported) {
  crypto::ServiceEntry service;
  service.adapter = "carrier-pigeon";
  World world(service);
  ASSERT_TRUE(world.until([&] { return world.ended.has_value(); }));
  EXPECT_THAT(*world.ended, HasSubstr("carrier-pigeon"));
}

TEST_F(ExecutionAgent, CheckpointsOfAServiceWhoseStateIsCopiedHoldItsFilesAndWaitForThem) {
  crypto::ServiceEntry service = odd_service();
  service.http.copy_state = true;
  std::vector<Digest> roots;
  for (int i = 0; i < 2; ++i) {
    World world(service, true, 2);
    ASSERT_TRUE(world.on_duty());
    for (std::uint64_t n = 1; n <= 5; ++n) world.order(make_batch(n, {{4, n, get("/write")}}));
    ASSERT_TRUE(world.until([&] { return world.nodes[2]->checkpoints.size() == 2 && world.all_voted(5); }));
    EXPECT_EQ(world.nodes[2]->checkpoints[0].n, Seq{2});
    EXPECT_EQ(world.nodes[2]->checkpoints[1].n, Seq{4});
    roots.push_back(world.nodes[2]->checkpoints[1].root);
  }
  EXPECT_EQ(roots[0], roots[1]) << "whatever the machine's times";
}

TEST_F(ExecutionAgent, DrivesAWebService) {
  World world(odd_service());
  ASSERT_TRUE(world.on_duty());
  world.order(make_batch(1, {{4, 1, get("/chunked")}, {4, 2, "no request"}, {4, 3, get("/count")}}));
  ASSERT_TRUE(world.all_voted(1));
  ASSERT_EQ(world.nodes[0]->votes[0].replies.size(), 3u);
  EXPECT_EQ(world.nodes[0]->votes[0].replies[0], digest_of("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcde"));
  EXPECT_EQ(world.nodes[0]->votes[0].replies[2],
            digest_of("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-type: text/plain\r\n\r\n2"));
}

TEST_F(ExecutionAgent, AReplayOfManyBatchesVotesForEachInOrder) {
  World world(odd_service());
  ASSERT_TRUE(world.on_duty());
  for (std::uint64_t n = 1; n <= 200; ++n) world.order(make_batch(n, {{4, n, get("/count")}}));
  ASSERT_TRUE(world.all_voted(200));
  for (const auto& node : world.nodes) {
    for (std::uint64_t n = 1; n <= 200; ++n) {
      const std::string count = std::to_string(n);
      EXPECT_EQ(node->votes[n - 1].n, Seq{n});
      EXPECT_EQ(node->votes[n - 1].replies[0],
                digest_of("HTTP/1.1 200 OK\r\ncontent-length: " + std::to_string(count.size()) +
                          "\r\ncontent-type: text/plain\r\n\r\n" + count));
    }
  }
}

TEST_F(ExecutionAgent, ACrashOfTheServiceCostsItsRequestAlone) {
  World world(odd_service());
  ASSERT_TRUE(world.on_duty());
  world.order(make_batch(1, {{4, 1, get("/count")}, {4, 2, get("/crash")}, {4, 3, get("/count")}}));
  ASSERT_TRUE(world.all_voted(1));
  const Digest lost = agreement::reply_digest(http_error_reply(502, "the service did not answer this request"));
  EXPECT_NE(world.nodes[0]->votes[0].replies[0], lost);
  EXPECT_EQ(world.nodes[0]->votes[0].replies[1], lost);
  EXPECT_NE(world.nodes[0]->votes[0].replies[2], lost);
  EXPECT_FALSE(world.ended.has_value());
}

TEST_F(ExecutionAgent, AnUnderstoodLineAfterAnUnreadableOneStillCounts) {
  World world;
  ASSERT_TRUE(world.ready());
  asio::write(world.host, asio::buffer(std::string("{\"nonsense\": 1}\nnot json\n")));
  ASSERT_TRUE(world.on_duty());
}

TEST_F(ExecutionAgent, AnOverlongLineEndsIt) {
  World world;
  ASSERT_TRUE(world.ready());
  asio::write(world.host, asio::buffer(std::string(agreement::kAgentLineMax + 100, 'x')));
  ASSERT_TRUE(world.until([&] { return world.ended.has_value(); }));
  EXPECT_THAT(*world.ended, HasSubstr("overlong"));
}

}  // namespace
}  // namespace zz::execution::testing
