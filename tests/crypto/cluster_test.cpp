#include "crypto/cluster.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace zz::crypto {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

PublicKey fresh_key() { return SecretKey::generate().public_key(); }

template <class Id>
Id id_of(std::size_t i) {
  return Id{static_cast<typename Id::rep>(i)};
}

ClusterFile sample(std::uint32_t f, std::uint32_t g) {
  ClusterFile cluster;
  cluster.id.bytes.fill(0xab);
  cluster.name = "sample";
  cluster.f = f;
  cluster.local = true;
  const std::size_t hosts = std::max(3 * f + 1, 2 * g + 1);
  for (std::size_t i = 0; i < hosts; ++i) cluster.hosts.push_back({id_of<HostId>(i), fresh_key()});
  for (std::size_t i = 0; i < cluster.n(); ++i) {
    cluster.nodes.push_back(
        {id_of<NodeId>(i), id_of<HostId>(i), Address{"127.0.0.1", static_cast<std::uint16_t>(4000 + i)}, fresh_key()});
  }
  cluster.clients.push_back({ClientId{0}, "operator", fresh_key(), true});
  cluster.clients.push_back({ClientId{1}, "gateway", fresh_key(), false});
  ServiceEntry web;
  web.id = ServiceId{0};
  web.name = "web";
  web.g = g;
  web.adapter = "http";
  web.command = {"/usr/sbin/nginx", "-c", "$STATE/nginx \"quoted\".conf", "back\\slash", "tab\there", "ümlaut"};
  web.initial_state = "/srv/tree";
  web.gateway = Address{"::1", 8080};
  for (std::size_t i = 0; i < 2 * g + 1; ++i) web.slots.push_back({id_of<SlotId>(i), id_of<HostId>(i)});
  web.http.reply_headers = {"X-Thing"};
  web.http.drop_body_patterns = {"id=[0-9]+\\.", "<date>.*</date>"};
  web.http.request_timeout_ms = 1234;
  web.http.on_wake = OnWake::kReload;
  web.http.reload = {"/bin/kill", "-HUP", "$PID"};
  web.http.copy_state = true;
  cluster.services.push_back(web);
  ServiceEntry kv;
  kv.id = ServiceId{1};
  kv.name = "kv";
  kv.g = g;
  kv.adapter = "kv";
  kv.slots = web.slots;
  kv.wake = WakePolicy::kOneByOne;
  kv.rejuvenate_every_ms = 3'600'000;
  kv.rejuvenate_every_requests = 1'000'000;
  cluster.services.push_back(kv);
  cluster.durability = Durability::kAsync;
  cluster.limits.client_window = 17;
  cluster.timing.hedge_ms = 33;
  return cluster;
}

class ClusterFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(init().ok());
    cluster_ = sample(1, 1);
    text_ = render_cluster(cluster_);
  }

  // The error for the file with the first `from` replaced by `to`; "" when it is accepted.
  [[nodiscard]] std::string error_with(std::string_view from, std::string_view to) {
    const std::size_t at = text_.find(from);
    EXPECT_NE(at, std::string::npos) << "not in the file: " << from;
    if (at == std::string::npos) return "";
    line_ = 1 + std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(at), '\n');
    std::string changed = text_;
    changed.replace(at, from.size(), to);
    const Result<ClusterFile> parsed = parse_cluster(changed, "cluster.toml");
    return parsed.ok() ? "" : parsed.error();
  }
  // The same, and the error must name the line of the change (or one so many further down) and say `what`.
  void expect_refused(std::string_view from, std::string_view to, std::string_view what, int lines_down = 0) {
    const std::string error = error_with(from, to);
    EXPECT_EQ(error, fmt::format("cluster.toml:{}: {}", line_ + lines_down, what));
  }

  [[nodiscard]] static std::string judged(const ClusterFile& cluster) {
    const Result<void> result = validate(cluster, "cluster.toml");
    return result.ok() ? "" : result.error();
  }

  ClusterFile cluster_;
  std::string text_;
  std::ptrdiff_t line_ = 0;
};

TEST_F(ClusterFiles, AreReadBackAsTheyWereWritten) {
  for (const auto& [f, g] : {std::pair{1u, 1u}, {2u, 2u}, {1u, 5u}, {5u, 1u}}) {
    const ClusterFile cluster = sample(f, g);
    const Result<ClusterFile> parsed = parse_cluster(render_cluster(cluster), "cluster.toml");
    ASSERT_TRUE(parsed.ok()) << parsed.error();
    EXPECT_TRUE(*parsed == cluster) << "f = " << f << ", g = " << g;
    EXPECT_EQ(judged(cluster), "");
  }
}

TEST_F(ClusterFiles, SayLoudlyWhenHostsAreOnlyProcesses) {
  EXPECT_THAT(text_, HasSubstr("LOCAL: every \"host\" below is only a process"));
  cluster_.local = false;
  EXPECT_THAT(render_cluster(cluster_), Not(HasSubstr("LOCAL")));
}

TEST_F(ClusterFiles, HaveDefaultsForLimitsAndTiming) {
  const std::string without = text_.substr(0, text_.find("[limits]"));
  const Result<ClusterFile> parsed = parse_cluster(without, "cluster.toml");
  ASSERT_TRUE(parsed.ok()) << parsed.error();
  EXPECT_TRUE(parsed->limits == Limits{});
  EXPECT_TRUE(parsed->timing == Timing{});
}

TEST_F(ClusterFiles, AnUnknownKeyIsRefusedWhereverItStands) {
  EXPECT_EQ(error_with("name =", "nmae ="), "cluster.toml:7: [cluster] lacks \"name\"");
  expect_refused("local = true", "lokal = true", "unknown key \"lokal\" in [cluster]");
  expect_refused("tick_ms = 5", "tick_s = 5", "unknown key \"tick_s\" in [timing]");
  expect_refused("frame_bytes_max", "frame_max", "unknown key \"frame_max\" in [limits]");
  expect_refused("operator = true", "admin = true", "unknown key \"admin\" in [[client]]");
  expect_refused("initial_state =", "state =", "unknown key \"state\" in [[service]]");
  expect_refused("reply_headers =", "headers =", "unknown key \"headers\" in [service.http]");
  expect_refused("[timing]", "[timeing]", "unknown key \"timeing\" in the file");
  expect_refused("[[host]]\nid = 0\n", "[[host]]\nweight = 1\nid = 0\n", "unknown key \"weight\" in [[host]]", 1);
  expect_refused("[[node]]\nid = 0\n", "[[node]]\nid = 0\nzone = 2\n", "unknown key \"zone\" in [[node]]", 2);
  expect_refused("[[service.slot]]\n", "[[service.slot]]\nweight = 2\n", "unknown key \"weight\" in [[service.slot]]",
                 1);
}

TEST_F(ClusterFiles, FAndGOutOfRangeAreRefused) {
  expect_refused("f = 1", "f = 0", "[cluster] f = 0 is out of range (1 to 5)");
  expect_refused("f = 1", "f = 6", "[cluster] f = 6 is out of range (1 to 5)");
  expect_refused("f = 1", "f = -1", "[cluster] f = -1 is out of range (1 to 5)");
  expect_refused("g = 1", "g = 0", "[[service]] g = 0 is out of range (1 to 5)");
  expect_refused("g = 1", "g = 99999999999", "[[service]] g = 99999999999 is out of range (1 to 5)");
  cluster_.f = 0;
  EXPECT_EQ(judged(cluster_), "cluster.toml: [cluster] f = 0 is out of range (1 to 5)");
  cluster_.f = 1;
  cluster_.services[0].g = 6;
  EXPECT_EQ(judged(cluster_), "cluster.toml: [[service]] g = 6 is out of range (1 to 5)");
}

TEST_F(ClusterFiles, TheNumbersOfNodesAndSlotsFollowFromFAndG) {
  EXPECT_THAT(error_with("f = 1", "f = 2"), EndsWith("f = 2 needs 7 [[node]] entries (3f+1), the file has 4"));
  EXPECT_THAT(error_with("g = 1", "g = 2"), EndsWith("service \"web\": g = 2 needs 5 slots (2g+1), the file has 3"));
}

TEST_F(ClusterFiles, TwoNodesOnOneHostAreRefusedEvenLocally) {
  expect_refused("[[node]]\nid = 2\nhost = 2", "[[node]]\nid = 2\nhost = 1",
                 "nodes 1 and 2 are on one host (1); each node needs its own");
}

TEST_F(ClusterFiles, TwoSlotsOfAServiceOnOneHostAreRefusedEvenLocally) {
  expect_refused("[[service.slot]]\nid = 2\nhost = 2", "[[service.slot]]\nid = 2\nhost = 0",
                 "service \"web\": slots 0 and 2 are on one host (0); each slot needs its own");
}

TEST_F(ClusterFiles, IdsOutOfOrderAreRefused) {
  expect_refused("[[node]]\nid = 1\n", "[[node]]\nid = 2\n", "[[node]] id = 2 is out of order, expected 1");
  expect_refused("[[host]]\nid = 1\n", "[[host]]\nid = 3\n", "[[host]] id = 3 is out of order, expected 1");
  expect_refused("[[client]]\nid = 1\n", "[[client]]\nid = 0\n", "[[client]] id = 0 is out of order, expected 1");
  expect_refused("[[service]]\nid = 1\n", "[[service]]\nid = 2\n", "[[service]] id = 2 is out of order, expected 1");
  expect_refused("[[service.slot]]\nid = 1\n", "[[service.slot]]\nid = 2\n",
                 "service \"web\": slot id = 2 is out of order, expected 1");
}

TEST_F(ClusterFiles, AHostThatDoesNotExistIsRefused) {
  expect_refused("[[node]]\nid = 3\nhost = 3", "[[node]]\nid = 3\nhost = 4",
                 "node 3 is on host 4, which has no [[host]] entry");
  expect_refused("[[service.slot]]\nid = 2\nhost = 2", "[[service.slot]]\nid = 2\nhost = 9",
                 "service \"web\": slot 2 is on host 9, which has no [[host]] entry");
}

TEST_F(ClusterFiles, DuplicateKeysAddressesAndNamesAreRefused) {
  const std::string stolen = to_hex(cluster_.nodes[0].key.bytes);
  EXPECT_THAT(error_with(to_hex(cluster_.clients[0].key.bytes), stolen),
              EndsWith("client 0 has the same key as node 0; every party needs its own"));
  EXPECT_THAT(error_with(to_hex(cluster_.hosts[1].key.bytes), stolen),
              EndsWith("host 1 has the same key as node 0; every party needs its own"));
  EXPECT_THAT(error_with("127.0.0.1:4002", "127.0.0.1:4001"),
              EndsWith("node 2 has the same address as node 1: 127.0.0.1:4001"));
  EXPECT_THAT(error_with("[::1]:8080", "127.0.0.1:4001"),
              EndsWith("the gateway of service \"web\" has the same address as node 1: 127.0.0.1:4001"));
  EXPECT_THAT(error_with("name = \"gateway\"", "name = \"operator\""),
              EndsWith("clients 0 and 1 have one name: operator"));
  EXPECT_THAT(error_with("name = \"kv\"", "name = \"web\""), EndsWith("services 0 and 1 have one name: web"));
}

TEST_F(ClusterFiles, KeysAndIdsMustBeOfTheRightLengthAndKind) {
  expect_refused(to_hex(cluster_.nodes[1].key.bytes), "12ab", "[[node]] key must be 64 hexadecimal digits");
  expect_refused(to_hex(cluster_.id.bytes), "xyz", "[cluster] id must be 32 hexadecimal digits");
  EXPECT_THAT(error_with(to_hex(cluster_.nodes[1].key.bytes), std::string(64, '0')),
              EndsWith("node 1: key is not an Ed25519 public key"));
}

TEST_F(ClusterFiles, ValuesOfTheWrongTypeAreRefused) {
  expect_refused("f = 1", "f = \"1\"", "[cluster] f must be a whole number");
  expect_refused("f = 1", "f = 1.0", "[cluster] f must be a whole number");
  expect_refused("local = true", "local = 1", "[cluster] local must be true or false");
  expect_refused("name = \"sample\"", "name = 3", "[cluster] name must be a string");
  expect_refused("reply_headers = [\"X-Thing\"]", "reply_headers = [1]",
                 "[service.http] reply_headers must be a list of strings");
  expect_refused("reply_headers = [\"X-Thing\"]", "reply_headers = \"X-Thing\"",
                 "[service.http] reply_headers must be a list of strings");
  EXPECT_EQ(parse_cluster("node = 1\n", "x.toml").error(), "x.toml:1: the file lacks \"cluster\"");
  EXPECT_EQ(parse_cluster("cluster = 1\n", "x.toml").error(), "x.toml:1: the file cluster must be a table");
}

TEST_F(ClusterFiles, AddressesNeedAHostAndAPort) {
  for (const char* bad : {"127.0.0.1", "4000", ":4000", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "::1:4000",
                          "[::1]", "a b:4000", "127.0.0.1:40x0", ""}) {
    expect_refused("127.0.0.1:4003", bad, fmt::format("[[node]] address = \"{}\" is not ADDRESS:PORT", bad));
  }
  EXPECT_THAT(error_with("127.0.0.1:4003", "127.0.0.1:0"), EndsWith("node 3: address needs a port"));
  EXPECT_EQ(to_string(Address{"::1", 80}), "[::1]:80");
  EXPECT_EQ(parse_address("[::1]:80"), (Address{"::1", 80}));
  EXPECT_EQ(parse_address("example.org:443"), (Address{"example.org", 443}));
}

TEST_F(ClusterFiles, NamesAreShortAndPlain) {
  for (const char* bad : {"", "a b", "../up", ".hidden", "-flag", "a/b"}) {
    EXPECT_THAT(error_with("name = \"web\"", fmt::format("name = \"{}\"", bad)), HasSubstr("must be 1 to 64 of"))
        << bad;
  }
  cluster_.name = "two\nlines";
  EXPECT_THAT(judged(cluster_), HasSubstr("\"two?lines\""));
}

TEST_F(ClusterFiles, AnAdapterGetsOnlyWhatItUses) {
  EXPECT_THAT(error_with("adapter = \"http\"", "adapter = \"soap\""),
              EndsWith("service \"web\": adapter = \"soap\" is not known (kv, http)"));
  EXPECT_THAT(error_with("adapter = \"http\"", "adapter = \"kv\""),
              EndsWith("service \"web\": the kv adapter takes no command"));
  EXPECT_THAT(error_with("adapter = \"kv\"", "adapter = \"http\""),
              EndsWith("service \"kv\": the http adapter needs a command"));
  EXPECT_THAT(error_with("adapter = \"kv\"", "adapter = \"kv\"\ninitial_state = \"x\""),
              EndsWith("service \"kv\": the kv adapter takes no initial_state"));
  EXPECT_THAT(error_with("adapter = \"kv\"", "adapter = \"kv\"\ngateway = \"127.0.0.1:1\""),
              EndsWith("service \"kv\": only the http adapter can have a gateway"));
  EXPECT_THAT(error_with("\"id=[0-9]+\\\\.\"", "\"id=[0-9\""),
              HasSubstr("drop_body_patterns: \"id=[0-9\" is not a regular expression"));
  EXPECT_THAT(error_with("on_wake = \"reload\"", "on_wake = \"reboot\""),
              HasSubstr("[service.http] on_wake must be none, reload or restart"));
  EXPECT_THAT(error_with("reload = [\"/bin/kill\", \"-HUP\", \"$PID\"]", "reload = []"),
              EndsWith("service \"web\": on_wake = \"reload\" needs a reload command"));
  EXPECT_THAT(error_with("on_wake = \"reload\"", "on_wake = \"restart\""),
              EndsWith("service \"web\": a reload command is for on_wake = \"reload\" only"));
  EXPECT_THAT(error_with("X-Thing", "X Thing"), EndsWith("reply_headers: \"X Thing\" is not a header name"));
}

TEST_F(ClusterFiles, LimitsThatContradictEachOtherAreRefused) {
  EXPECT_THAT(error_with("op_bytes_max = 4194304", "op_bytes_max = 8388608"),
              HasSubstr("does not fit a frame of frame_bytes_max = 8388608"));
  EXPECT_THAT(error_with("batch_requests_max = 1024", "batch_requests_max = 65535"), HasSubstr("does not fit a frame"));
  EXPECT_THAT(error_with("send_queue_bytes_max = 67108864", "send_queue_bytes_max = 1048576"),
              HasSubstr("is less than frame_bytes_max"));
  EXPECT_THAT(error_with("history_bytes_max = 1073741824", "history_bytes_max = 1048576"),
              HasSubstr("is less than frame_bytes_max"));
  EXPECT_THAT(error_with("gateway_body_bytes_max = 1048576", "gateway_body_bytes_max = 4194304"),
              HasSubstr("does not fit a request of op_bytes_max"));
  EXPECT_THAT(error_with("overdue_floor_ms = 100", "overdue_floor_ms = 3000"),
              HasSubstr("is more than overdue_ceiling_ms"));
  expect_refused("client_window = 17", "client_window = 0", "[limits] client_window = 0 is out of range (1 to 65535)");
  cluster_.limits.client_window = 0;
  EXPECT_EQ(judged(cluster_), "cluster.toml: [limits] client_window = 0 is out of range (1 to 65535)");
}

TEST_F(ClusterFiles, EveryClientsSessionsMustFitTheSessionTable) {
  cluster_.limits.sessions_max = 32;  // 2 clients, 16 sessions each
  EXPECT_EQ(judged(cluster_), "");
  cluster_.limits.sessions_max = 31;
  EXPECT_EQ(judged(cluster_),
            "cluster.toml: [limits] sessions_max = 31 is less than 2 clients with client_sessions_max = 16 each; raise "
            "sessions_max to at least 32, or lower client_sessions_max");
}

TEST_F(ClusterFiles, TextThatIsNotTomlIsRefusedWithItsLine) {
  EXPECT_THAT(parse_cluster("[cluster]\nname = \n", "x.toml").error(), HasSubstr("x.toml:2: "));
  EXPECT_THAT(parse_cluster("\xff\xfe\n", "x.toml").error(), HasSubstr("x.toml:"));
  EXPECT_THAT(parse_cluster(std::string(100'000, '['), "x.toml").error(), HasSubstr("x.toml:"));
  EXPECT_EQ(parse_cluster("", "x.toml").error().substr(0, 7), "x.toml:");
  EXPECT_THAT(error_with("f = 1", "f = 1\nf = 1"), HasSubstr("cluster.toml:"));
}

TEST_F(ClusterFiles, EveryErrorIsOneLine) {
  EXPECT_THAT(parse_cluster("[cluster]\n\"a\\nb\" = 1\n", "x.toml").error(), Not(HasSubstr("\n")));
}

TEST_F(ClusterFiles, AreLoadedFromDisk) {
  std::string pattern = (std::filesystem::temp_directory_path() / "zz-cluster-XXXXXX").string();
  ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
  const std::string path = pattern + "/cluster.toml";
  EXPECT_EQ(load_cluster(path).error(), path + ": cannot open: No such file or directory");
  std::ofstream(path) << text_;
  const Result<ClusterFile> loaded = load_cluster(path);
  ASSERT_TRUE(loaded.ok()) << loaded.error();
  EXPECT_TRUE(*loaded == cluster_);
  std::ofstream(path) << std::string(kClusterFileBytesMax + 1, '#');
  EXPECT_THAT(load_cluster(path).error(), HasSubstr("not a cluster file"));
  EXPECT_FALSE(load_cluster(pattern).ok());
  std::filesystem::remove_all(pattern);
}

}  // namespace
}  // namespace zz::crypto
