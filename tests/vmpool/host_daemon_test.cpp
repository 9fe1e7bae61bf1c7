#include "vmpool/host_daemon.hpp"

#include "agreement/codec.hpp"
#include "tests/support/party.hpp"
#include "tests/support/test_cluster.hpp"
#include "tests/vmpool/control_client.hpp"
#include "tests/vmpool/process_fixture.hpp"
#include "vmpool/host_files.hpp"

namespace zz::vmpool {
namespace {

using agreement::EpochNotice;
using agreement::Join;
using agreement::Message;
using agreement::SlotDead;
using agreement::Wake;
using Json = nlohmann::json;

// A host daemon with real guests; the four agreement nodes are played by the test, over real channels.
class HostDaemonTest : public ::testing::Test {
 protected:
  void begin(std::uint16_t host_index, bool allow_faults = true) {
    host = HostId{host_index};
    cluster.file.allow_faults = allow_faults;
    ASSERT_EQ(world.open(), "");
    crypto::SecretKey key = crypto::SecretKey::from_seed(cluster.host_keys[host.value].seed());
    const test::Party face(world.loop, {.role = crypto::Role::kHost, .index = host.value}, std::move(key), {});
    for (std::uint32_t i = 0; i < cluster.file.n(); ++i) {
      nodes.push_back(std::make_unique<test::Party>(
          world.loop, test::node(i), crypto::SecretKey::from_seed(cluster.node_keys[i].seed()), net::NetLimits{}));
      nodes.back()->knows(face);
      cluster.file.nodes[i].address = nodes.back()->listen();
    }
    std::filesystem::create_directories(world.dir.path() + "/run");
    start();
  }
  void start() {
    daemon = std::make_unique<HostDaemon>(world.loop, cluster.file, HostOptions{host, world.dir.path()},
                                          cluster.host_keys[host.value], *world.backend);
    const auto started = daemon->start();
    ASSERT_TRUE(started) << started.error();
  }

  // ---- what the nodes hear and say -----------------------------------------------------------------------------

  // All messages of one kind that a node has got.
  template <class Body>
  [[nodiscard]] std::vector<Body> heard(std::size_t node) const {
    std::vector<Body> out;
    for (const auto& message : nodes[node]->messages) {
      const auto decoded = agreement::decode(message.bytes, {});
      if (decoded.refusal != Refusal::kNone) continue;
      if (const auto* body = std::get_if<Body>(&decoded.message.body)) out.push_back(*body);
    }
    return out;
  }
  [[nodiscard]] bool all_heard_join(Incarnation incarnation) const {
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      bool found = false;
      for (const Join& join : heard<Join>(i)) found = found || join.incarnation == incarnation;
      if (!found) return false;
    }
    return true;
  }
  void say(std::size_t node, const Message& message) {
    ASSERT_EQ(nodes[node]->ups.size(), 1u);
    nodes[node]->ups[0].channel->send(agreement::encode(message));
  }
  void say_wake(std::size_t node, SlotId slot, Incarnation incarnation) {
    Wake wake{ServiceId{0}, NodeId{static_cast<std::uint16_t>(node)}, Epoch{0}, slot, incarnation, Seq{3}, 0, {}};
    wake.signature = cluster.node_keys[node].sign(wake_fields(cluster.file.id, wake));
    say(node, {ServiceId{0}, wake});
  }

  // ---- what the owner hears and says ---------------------------------------------------------------------------

  Json ask(const Json& command) {
    ControlClient client(world.loop, host_socket_path(world.dir.path(), host));
    EXPECT_TRUE(client.connected());
    return client.ask(command.dump()).value_or(Json::object());
  }
  Json slot_status() { return ask({{"cmd", "status"}}).at("slots").at(0); }
  [[nodiscard]] bool until_state(const std::string& state) {
    return world.until([&] { return slot_status().at("state") == state; });
  }
  Json fault(const std::string& kind, int slot) {
    return ask({{"cmd", "fault"}, {"service", 0}, {"slot", slot}, {"kind", kind}});
  }
  void stop() {
    bool stopped = false;
    daemon->stop([&] { stopped = true; });
    EXPECT_TRUE(world.until([&] { return stopped; }));
  }

  test::TestCluster cluster;
  ProcessWorld world{FreezerKind::kSignals};
  HostId host;
  std::vector<std::unique_ptr<test::Party>> nodes;
  std::unique_ptr<HostDaemon> daemon;
};

TEST_F(HostDaemonTest, AnnouncesItsSleeperToEveryNode) {
  begin(2);
  ASSERT_TRUE(world.until([&] { return all_heard_join(Incarnation{1}); }));
  const Join join = heard<Join>(0).at(0);
  EXPECT_EQ(join.slot, SlotId{2});
  EXPECT_TRUE(crypto::verify(cluster.file.hosts[2].key, join_fields(cluster.file.id, join), join.signature));
  const Json status = slot_status();
  EXPECT_EQ(status.at("state"), "asleep");
  EXPECT_EQ(status.at("incarnation"), 1);
  EXPECT_EQ(status.at("slot"), 2);
  EXPECT_EQ(status.at("pids").size(), 1u);
  stop();
}

TEST_F(HostDaemonTest, WakesItsSleeperOnFPlusOneWakesWithTheKeyItAnnounced) {
  begin(2);
  ASSERT_TRUE(world.until([&] { return all_heard_join(Incarnation{1}); }));
  say_wake(3, SlotId{2}, Incarnation{1});
  say_wake(3, SlotId{2}, Incarnation{1});
  // The second one is refused: by then the first one counts.
  ASSERT_TRUE(world.until([&] { return ask({{"cmd", "status"}}).at("refused").contains("duplicate"); }));
  EXPECT_EQ(slot_status().at("state"), "asleep");
  EXPECT_TRUE(slot_status().at("waking").contains("asked_us"));
  EXPECT_FALSE(slot_status().at("waking").contains("handed_us"));
  say_wake(1, SlotId{2}, Incarnation{1});
  const GuestId guest{ServiceId{0}, SlotId{2}, Incarnation{1}};
  ASSERT_TRUE(world.until([&] { return world.has_file(guest, "identity"); }));
  EXPECT_TRUE(until_state("awake"));
  std::istringstream identity(read_file(world.work(guest) + "/identity"));
  std::string service, slot, incarnation, epoch, seed_text, entropy;
  identity >> service >> slot >> incarnation >> epoch >> seed_text >> entropy;
  std::array<std::uint8_t, 32> seed{};
  ASSERT_TRUE(from_hex(seed_text, seed));
  EXPECT_EQ(crypto::SecretKey::from_seed(seed).public_key(), heard<Join>(0).at(0).key);
  EXPECT_NE(entropy, seed_text);
  ASSERT_TRUE(world.until([&] { return slot_status().at("waking").value("touched_bytes", 0) == 7; }));
  const Json waking = slot_status().at("waking");
  EXPECT_LE(waking.at("asked_us").get<std::int64_t>(), waking.at("handed_us").get<std::int64_t>());
  EXPECT_EQ(waking.at("voted_us").get<std::int64_t>(), waking.at("handed_us").get<std::int64_t>() + 5);
  EXPECT_FALSE(waking.contains("whole_us"));
  stop();
}

TEST_F(HostDaemonTest, ReplacesAnEvictedGuestAndAnnouncesANewKey) {
  begin(0);
  ASSERT_TRUE(until_state("awake"));
  ASSERT_TRUE(world.until([&] { return all_heard_join(Incarnation{1}); }));
  EpochNotice notice;
  notice.n = Seq{4};
  notice.epoch = Epoch{1};
  notice.active = {SlotId{1}, SlotId{2}};
  notice.incarnations = {Incarnation{1}, Incarnation{1}, Incarnation{1}};
  notice.evicted_through = {Incarnation{1}, Incarnation{0}, Incarnation{0}};
  say(0, {ServiceId{0}, notice});
  say(2, {ServiceId{0}, notice});
  ASSERT_TRUE(world.until([&] { return all_heard_join(Incarnation{2}); }));
  EXPECT_TRUE(until_state("asleep"));
  EXPECT_NE(heard<Join>(1).front().key, heard<Join>(1).back().key);
  EXPECT_FALSE(std::filesystem::exists(world.work(guest_id(1))));
  stop();
}

TEST_F(HostDaemonTest, GoesOnWithLaterIncarnationsAfterARestart) {
  begin(0);
  ASSERT_TRUE(until_state("awake"));
  stop();
  daemon.reset();
  start();
  ASSERT_TRUE(world.until([&] { return all_heard_join(Incarnation{2}); }));
  stop();
  EXPECT_EQ(*load_incarnation(host_incarnation_path(world.dir.path(), host)), Incarnation{2});
}

TEST_F(HostDaemonTest, RefusesToStartWithADamagedCount) {
  std::filesystem::create_directories(world.dir.path() + "/run");
  std::ofstream(host_incarnation_path(world.dir.path(), HostId{0})) << "many\n";
  ASSERT_EQ(world.open(), "");
  HostDaemon damaged(world.loop, cluster.file, {HostId{0}, world.dir.path()}, cluster.host_keys[0], *world.backend);
  const auto started = damaged.start();
  ASSERT_FALSE(started);
  EXPECT_NE(started.error().find("host-0.incarnation"), std::string::npos);
}

TEST_F(HostDaemonTest, InjectsFaultsAndTellsTheNodesOfACrash) {
  begin(0);
  ASSERT_TRUE(until_state("awake"));
  EXPECT_EQ(fault("wrong-reply", 0), Json({{"ok", true}}));
  EXPECT_EQ(read_file(world.work(guest_id(1)) + "/fault"), "wrong-reply");
  EXPECT_EQ(fault("silent", 0), Json({{"ok", true}}));
  EXPECT_EQ(slot_status().at("state"), "awake") << "the pool must not know";
  EXPECT_EQ(fault("crash", 0), Json({{"ok", true}}));
  ASSERT_TRUE(world.until([&] { return !heard<SlotDead>(3).empty(); }));
  EXPECT_EQ(heard<SlotDead>(3)[0].incarnation, Incarnation{1});
  ASSERT_TRUE(world.until([&] { return slot_status().at("incarnation") == 2; }));
  EXPECT_TRUE(slot_status().contains("error"));
  stop();
}

TEST_F(HostDaemonTest, RefusesFaultsThatMakeNoSense) {
  begin(0);
  ASSERT_TRUE(until_state("awake"));
  EXPECT_EQ(fault("laughter", 0).value("ok", true), false);
  EXPECT_EQ(fault("crash", 1).value("ok", true), false);
  for (const auto* bad :
       {R"({"cmd":"fault"})", R"({"cmd":"fault","service":-1,"slot":0,"kind":"crash"})",
        R"({"cmd":"fault","service":0,"slot":65536,"kind":"crash"})",
        R"({"cmd":"fault","service":0,"slot":0,"kind":7})", R"({"cmd":7})", R"({"cmd":"dance"})", "{}"}) {
    const Json answer = ask(Json::parse(bad));
    EXPECT_EQ(answer.value("ok", true), false) << bad;
    EXPECT_FALSE(answer.value("error", "").empty()) << bad;
  }
  EXPECT_EQ(slot_status().at("incarnation"), 1);
  stop();
}

TEST_F(HostDaemonTest, RefusesFaultsInAClusterNotMadeForThem) {
  begin(0, /*allow_faults=*/false);
  ASSERT_TRUE(until_state("awake"));
  const Json answer = fault("crash", 0);
  EXPECT_EQ(answer.value("ok", true), false);
  EXPECT_NE(answer.value("error", "").find("--allow-faults"), std::string::npos);
  EXPECT_EQ(slot_status().at("state"), "awake");
  stop();
}

TEST_F(HostDaemonTest, RepeatsItsJoinToANodeThatComesBack) {
  begin(2);
  ASSERT_TRUE(world.until([&] { return all_heard_join(Incarnation{1}); }));
  nodes[1]->messages.clear();
  nodes[1]->restart();
  nodes[1]->ups.clear();
  (void)nodes[1]->listen();
  EXPECT_TRUE(world.until([&] { return !nodes[1]->ups.empty() && !heard<Join>(1).empty(); }));
  stop();
}

TEST_F(HostDaemonTest, ClosesTheChannelOfANodeThatSendsNonsense) {
  begin(2);
  ASSERT_TRUE(world.until([&] { return all_heard_join(Incarnation{1}); }));
  nodes[3]->ups[0].channel->send(SharedBytes(Bytes(64, 0xff)));
  EXPECT_TRUE(world.until([&] { return !nodes[3]->downs.empty(); }));
  EXPECT_EQ(slot_status().at("state"), "asleep");
  stop();
}

TEST_F(HostDaemonTest, ShowsWhyASlotDoesNotStart) {
  world.behaviour = "fail";
  begin(0);
  ASSERT_TRUE(world.until([&] { return slot_status().value("failures", 0) > 1; }));
  EXPECT_NE(slot_status().at("error").get<std::string>().find("the service is out of order"), std::string::npos);
  stop();
}

TEST_F(HostDaemonTest, LeavesNoGuestWhenItStops) {
  begin(0);
  ASSERT_TRUE(until_state("awake"));
  const auto processes = noted_processes(world.work(guest_id(1)));
  ASSERT_FALSE(processes.empty());
  stop();
  EXPECT_TRUE(all_gone(processes));
  EXPECT_TRUE(std::filesystem::is_empty(world.dir.path() + "/work"));
}

}  // namespace
}  // namespace zz::vmpool
