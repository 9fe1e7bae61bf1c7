#include "agreement/node.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "agreement/codec.hpp"
#include "net/channel.hpp"
#include "tests/support/test_cluster.hpp"

namespace zz::agreement {
namespace {

constexpr std::chrono::seconds kDeadline{20};

// One party of the test with channels to every node: records what it is sent.
class Party final : public net::Handler {
 public:
  Party(boost::asio::io_context& loop, const crypto::ClusterFile& cluster, const crypto::SecretKey& key)
      : cluster_(cluster) {
    auto lookup = [this](const crypto::PublicKey& candidate) -> std::optional<crypto::Peer> {
      for (const auto& node : cluster_.nodes) {
        if (node.key == candidate) return crypto::Peer{crypto::Role::kNode, node.id.value, {}, {}, {}};
      }
      return std::nullopt;
    };
    auto tls = crypto::TlsContext::make(key, lookup);
    ZZ_ASSERT(tls.ok());
    network_ = std::make_unique<net::Network>(loop, std::move(*tls), net::NetLimits{}, *this);
    for (const auto& node : cluster_.nodes) network_->dial(node.address, node.key);
  }
  void on_up(net::Channel& channel) override {
    up[channel.peer().node()] = &channel;
    if (greet) greet(channel.peer().node());
  }
  void on_message(net::Channel& channel, const SharedBytes& bytes) override {
    Decoded decoded = decode(bytes, CodecLimits{});
    ASSERT_EQ(decoded.refusal, Refusal::kNone);
    if (react) react(channel.peer().node(), decoded.message);
    received.emplace_back(channel.peer().node(), std::move(decoded.message));
  }
  void on_down(net::Channel& channel, std::string_view) override { up.erase(channel.peer().node()); }
  void on_refused(Refusal, std::string_view, std::string_view) override {}

  void send(NodeId node, Body body) {
    if (up.contains(node)) up[node]->send(encode(Message{ServiceId{}, std::move(body)}));
  }
  void send_all(const Body& body) {
    for (const auto& node : cluster_.nodes) send(node.id, body);
  }
  void send_raw(NodeId node, const SharedBytes& bytes) { up.at(node)->send(bytes); }
  template <class M>
  std::vector<std::pair<NodeId, M>> all() const {
    std::vector<std::pair<NodeId, M>> out;
    for (const auto& [node, message] : received) {
      if (const M* body = std::get_if<M>(&message.body)) out.emplace_back(node, *body);
    }
    return out;
  }

  std::map<NodeId, net::Channel*> up;
  std::vector<std::pair<NodeId, Message>> received;
  std::function<void(NodeId)> greet;
  std::function<void(NodeId, const Message&)> react;

 private:
  const crypto::ClusterFile& cluster_;
  std::unique_ptr<net::Network> network_;
};

// Four nodes, the hosts' JOINs and hand-made executors, over real channels in one loop.
class NodeTest : public testing::Test {
 protected:
  NodeTest() {
    std::string name = "/tmp/zz-node-XXXXXX";
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    data = name;
    nodes.resize(cluster.file.nodes.size());
    for (std::size_t i = 0; i < nodes.size(); ++i) start(i);
  }
  ~NodeTest() override {
    nodes.clear();
    std::error_code ignored;
    std::filesystem::remove_all(data, ignored);
  }

  void start(std::size_t i) {
    NodeOptions options;
    options.data = data + "/node-" + std::to_string(i);
    options.on_failure = [this, i](const std::string& why) { failures[i] = why; };
    nodes[i] =
        std::make_unique<Node>(loop, cluster.file, cluster.file.nodes[i].id, cluster.node_keys[i], std::move(options));
    const auto started = nodes[i]->start();
    EXPECT_TRUE(started.ok()) << started.error();
  }
  void stop(std::size_t i) {
    nodes[i].reset();
    loop.poll();
  }
  // Puts a device that is always full in the place of a node's write-ahead log.
  void fill_disk(std::size_t i) {
    const std::string log = std::filesystem::canonical(data + "/node-" + std::to_string(i) + "/log").string();
    bool found = false;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code error;
      const auto path = std::filesystem::read_symlink(entry.path(), error);
      if (path.parent_path() != log || path.extension() != ".log") continue;
      const int full = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
      ASSERT_GE(::dup2(full, std::stoi(entry.path().filename().string())), 0);
      ::close(full);
      found = true;
    }
    ASSERT_TRUE(found) << "the fault could not be injected";
  }

  void run_until(const std::function<bool()>& condition, const char* what) {
    const auto end = std::chrono::steady_clock::now() + kDeadline;
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), end) << "never came: " << what;
      loop.run_one_for(std::chrono::milliseconds(100));
    }
  }

  // Orders the JOIN of every slot, then connects an executor for the active ones. `answer` gives a slot's reply.
  void start_executors(std::function<std::string(SlotId, const Request&)> answer) {
    for (const auto& slot : cluster.file.services[0].slots) {
      hosts.push_back(std::make_unique<Party>(loop, cluster.file, cluster.host_keys[slot.host.value]));
      executor_keys.push_back(crypto::SecretKey::generate());
      Join join{ServiceId{}, slot.id, Incarnation{1}, executor_keys.back().public_key(), {}};
      join.signature = cluster.host_keys[slot.host.value].sign(join_fields(cluster.file.id, join));
      Party* host = hosts.back().get();
      host->greet = [host, join](NodeId node) { host->send(node, join); };
    }
    run_until([&] { return joined() == 3; }, "the JOINs in every node's table");
    for (const std::uint16_t slot : {std::uint16_t{0}, std::uint16_t{1}}) connect_executor(SlotId{slot}, answer);
    run_until([&] { return executors[0]->up.size() == 4 && executors[1]->up.size() == 4; }, "executors' channels");
  }

  void connect_executor(SlotId slot, std::function<std::string(SlotId, const Request&)> answer) {
    executors.push_back(std::make_unique<Party>(loop, cluster.file, executor_keys[slot.value]));
    Party* executor = executors.back().get();
    executor->greet = [executor](NodeId node) { executor->send(node, Subscribe{Seq{1}, node == NodeId{0}}); };
    executor->react = [executor, slot, answer](NodeId, const Message& message) {
      const Batch* batch = std::get_if<Batch>(&message.body);
      if (batch == nullptr) return;
      Vote vote{Epoch{0}, batch->header->n, slot, Incarnation{1}, {}};
      Replies replies{batch->header->n, {}};
      for (std::uint32_t i = 0; i < batch->requests.size(); ++i) {
        const std::string reply = answer(slot, *batch->requests[i]);
        vote.replies.push_back(reply_digest(as_bytes(reply)));
        replies.items.push_back({i, SharedBytes::copy(reply)});
      }
      if (!replies.items.empty()) executor->send_all(replies);
      executor->send_all(vote);
    };
  }

  // Slots that every node shows as joined.
  std::size_t joined() const {
    std::size_t least = 99;
    for (const auto& node : nodes) {
      const auto status = nlohmann::json::parse(node->status_json());
      std::size_t count = 0;
      for (const auto& slot : status["services"][0]["slots"]) count += slot["incarnation"] > 0 ? 1 : 0;
      least = std::min(least, count);
    }
    return least;
  }

  nlohmann::json service_status(std::size_t node) const {
    return nlohmann::json::parse(nodes[node]->status_json())["services"][0];
  }
  std::uint64_t refusals(std::size_t node, const std::string& peer, const std::string& reason) const {
    const auto status = nlohmann::json::parse(nodes[node]->status_json());
    return status["refusals"].value(peer, nlohmann::json::object()).value(reason, std::uint64_t{0});
  }

  test::TestCluster cluster;
  std::string data;  // directory of the nodes' logs
  boost::asio::io_context loop{1};
  std::vector<std::unique_ptr<Node>> nodes;
  std::map<std::size_t, std::string> failures;  // of nodes that have stopped by themselves
  std::vector<crypto::SecretKey> executor_keys;
  std::vector<std::unique_ptr<Party>> hosts;
  std::vector<std::unique_ptr<Party>> executors;
};

TEST_F(NodeTest, AReplyIsAcknowledgedByFPlusOneNodesWithItsBody) {
  start_executors([](SlotId, const Request& request) { return "echo " + std::string(request.op.text()); });
  Party client(loop, cluster.file, cluster.client_keys[1]);
  run_until([&] { return client.up.size() == 4; }, "the client's channels");
  client.send_all(Requests{SessionId{8}, {{RequestNumber{1}, 0, SharedBytes::copy("hello")}}});
  const Digest right = reply_digest(as_bytes(std::string_view("echo hello")));
  std::map<NodeId, bool> acks;
  run_until(
      [&] {
        for (const auto& [node, ack] : client.all<Acks>()) {
          for (const auto& item : ack.items) {
            EXPECT_EQ(item.reply_digest, right);
            if (item.has_body) {
              EXPECT_EQ(item.body.text(), "echo hello");
            }
            acks[node] = acks[node] || item.has_body;
          }
        }
        return acks.size() >= 2 && acks[NodeId{0}];  // home of session 8 is node 0
      },
      "f+1 acknowledgements, one with the body");
}

TEST_F(NodeTest, AResentRequestIsAnsweredByEveryNode) {
  start_executors([](SlotId, const Request&) { return std::string("yes"); });
  Party client(loop, cluster.file, cluster.client_keys[1]);
  run_until([&] { return client.up.size() == 4; }, "the client's channels");
  const Requests requests{SessionId{8}, {{RequestNumber{1}, 0, SharedBytes::copy("hello")}}};
  client.send_all(requests);
  run_until([&] { return client.all<Acks>().size() >= 2; }, "the first acknowledgements");
  client.send_all(requests);
  std::map<NodeId, bool> bodies;
  executors[0]->react = [&, plain = executors[0]->react](NodeId node, const Message& message) {
    plain(node, message);
    if (const auto* fetch = std::get_if<FetchReplies>(&message.body)) {
      executors[0]->send(node, Replies{fetch->n, {{fetch->items[0].index, SharedBytes::copy("yes")}}});
    }
  };
  executors[1]->react = [&, plain = executors[1]->react](NodeId node, const Message& message) {
    plain(node, message);
    if (const auto* fetch = std::get_if<FetchReplies>(&message.body)) {
      executors[1]->send(node, Replies{fetch->n, {{fetch->items[0].index, SharedBytes::copy("yes")}}});
    }
  };
  run_until(
      [&] {
        for (const auto& [node, ack] : client.all<Acks>()) {
          for (const auto& item : ack.items) bodies[node] = bodies[node] || item.has_body;
        }
        return bodies.size() == 4 && std::all_of(bodies.begin(), bodies.end(), [](const auto& b) { return b.second; });
      },
      "a body from every node");
  EXPECT_EQ(service_status(1)["waiting_requests"], 0);
}

TEST_F(NodeTest, DifferingVotesAreNeverAcknowledgedAndAskTheHostToWakeTheSleeper) {
  start_executors([](SlotId slot, const Request&) { return std::string(slot == SlotId{0} ? "yes" : "no"); });
  Party client(loop, cluster.file, cluster.client_keys[1]);
  run_until([&] { return client.up.size() == 4; }, "the client's channels");
  client.send_all(Requests{SessionId{8}, {{RequestNumber{1}, 0, SharedBytes::copy("hello")}}});
  run_until(
      [&] {
        std::map<NodeId, int> signers;
        for (const auto& [node, wake] : hosts[2]->all<Wake>()) {
          EXPECT_EQ(wake.slot, SlotId{2});
          EXPECT_TRUE(
              crypto::verify(cluster.file.nodes[node.value].key, wake_fields(cluster.file.id, wake), wake.signature));
          signers[node] = 1;
        }
        return signers.size() == 4;
      },
      "a WAKE from every node at the sleeper's host");
  EXPECT_TRUE(client.all<Acks>().empty());

  // The sleeper wakes, replays and settles it; the liar is evicted by an ordered epoch change.
  connect_executor(SlotId{2}, [](SlotId, const Request&) { return std::string("yes"); });
  const Digest right = reply_digest(as_bytes(std::string_view("yes")));
  run_until([&] { return client.all<Acks>().size() >= 2; }, "acknowledgements after the third vote");
  for (const auto& [node, ack] : client.all<Acks>()) EXPECT_EQ(ack.items.at(0).reply_digest, right);
  run_until([&] { return service_status(0)["evictions"] == 1 && service_status(3)["evictions"] == 1; }, "the eviction");
  EXPECT_EQ(service_status(0)["active"], nlohmann::json::parse("[0, 2]"));
  run_until([&] { return !executors[1]->up.contains(NodeId{0}); }, "the liar's channel closed");
}

TEST_F(NodeTest, MalformedMessagesAndWrongRolesAreCountedPerPeer) {
  Party client(loop, cluster.file, cluster.client_keys[1]);
  run_until([&] { return client.up.size() == 4; }, "the client's channels");
  client.send_raw(NodeId{0}, SharedBytes(Bytes(64, 0xff)));
  client.send(NodeId{0}, Prepare{View{0}, Seq{1}, Digest{}});
  client.send(NodeId{0}, StatusQuery{});
  run_until([&] { return refusals(0, "client 1", "malformed") == 1 && refusals(0, "client 1", "wrong-role") == 2; },
            "the counted refusals");
  EXPECT_TRUE(client.up.contains(NodeId{0})) << "a refused message does not end the channel";
}

TEST_F(NodeTest, TheOperatorIsToldTheStatus) {
  Party operator_party(loop, cluster.file, cluster.client_keys[0]);
  run_until([&] { return operator_party.up.size() == 4; }, "the operator's channels");
  operator_party.send_all(StatusQuery{});
  run_until([&] { return operator_party.all<StatusReport>().size() == 4; }, "four reports");
  for (const auto& [node, report] : operator_party.all<StatusReport>()) {
    const auto status = nlohmann::json::parse(report.json);
    EXPECT_EQ(status["node"], node.value);
    EXPECT_EQ(status["services"][0]["service"], "kv");
  }
}

TEST_F(NodeTest, ANodeThatIsStartedAgainHasWhatItOrderedAndPromised) {
  start_executors([](SlotId, const Request&) { return std::string("yes"); });
  Party client(loop, cluster.file, cluster.client_keys[1]);
  run_until([&] { return client.up.size() == 4; }, "the client's channels");
  client.send_all(Requests{SessionId{8}, {{RequestNumber{1}, 0, SharedBytes::copy("hello")}}});
  run_until([&] { return client.all<Acks>().size() >= 2; }, "the acknowledgements");
  const auto ordered = [&](std::size_t i) { return service_status(i)["ordered"].get<std::uint64_t>(); };
  run_until([&] { return ordered(1) >= 4 && ordered(1) == ordered(0); }, "the batch at node 1");
  const auto before = ordered(1);
  // Alone, it knows nothing but what its log tells.
  for (const std::size_t i : {0u, 1u, 2u, 3u}) stop(i);
  start(1);
  EXPECT_EQ(service_status(1)["ordered"], before);
  EXPECT_EQ(service_status(1)["learner"], false);
}

TEST_F(NodeTest, ANodeThatCannotWriteItsPromiseStopsAndDoesNotMakeIt) {
  for (const std::size_t i : {1u, 2u, 3u}) stop(i);
  Party backup(loop, cluster.file, cluster.node_keys[3]);
  Party client(loop, cluster.file, cluster.client_keys[1]);
  run_until([&] { return backup.up.contains(NodeId{0}) && client.up.contains(NodeId{0}); }, "the channels");
  const auto request = [&](std::uint64_t number) {
    client.send(NodeId{0}, Requests{SessionId{8}, {{RequestNumber{number}, 0, SharedBytes::copy("hello")}}});
  };
  request(1);
  run_until([&] { return backup.all<PrePrepare>().size() == 1; }, "the proposal of a primary that can write");
  fill_disk(0);
  request(2);
  run_until([&] { return failures.contains(0); }, "the end of the node");
  EXPECT_THAT(failures[0], testing::HasSubstr("free some space, then start the node again"));
  run_until([&] { return backup.up.empty() && client.up.empty(); }, "the end of its channels");
  EXPECT_EQ(backup.all<PrePrepare>().size(), 1u);
  // With space again it goes on from what it had promised.
  stop(0);
  start(0);
  EXPECT_EQ(service_status(0)["learner"], false);
}

TEST_F(NodeTest, ANodeWhoseLogIsGoneIsALearner) {
  stop(2);
  std::filesystem::remove_all(data + "/node-2/log");
  start(2);
  EXPECT_EQ(service_status(2)["learner"], true);
}

TEST_F(NodeTest, WithoutDurabilityNothingIsWritten) {
  for (const std::size_t i : {0u, 1u, 2u, 3u}) stop(i);
  std::filesystem::remove_all(data);
  cluster.file.durability = crypto::Durability::kNone;
  start(0);
  EXPECT_FALSE(std::filesystem::exists(data));
}

TEST_F(NodeTest, AStrangersKeyIsRefusedAndCounted) {
  const crypto::SecretKey stranger = crypto::SecretKey::generate();
  Party party(loop, cluster.file, stranger);
  run_until([&] { return refusals(0, "unauthenticated", "unknown-peer") > 0; }, "the counted refusal");
}

}  // namespace
}  // namespace zz::agreement
