#include "apps/local_cluster.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <set>

#include "apps/free_ports.hpp"
#include "crypto/sign.hpp"
#include "tests/apps/zz_process.hpp"

namespace zz::apps {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

class LocalCluster : public ::testing::Test {
 protected:
  LocalCluster() { options_.dir = directory_ / "c"; }
  [[nodiscard]] std::string error() const {
    const Result<crypto::ClusterFile> made = make_local_cluster(options_);
    return made.ok() ? "" : made.error();
  }
  [[nodiscard]] static mode_t mode_of(const std::string& path) {
    struct stat info {};
    EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
    return info.st_mode & 07777;
  }

  test::TemporaryDirectory directory_;
  LocalClusterOptions options_;
};

TEST_F(LocalCluster, HasTheKeysThatItsFileNames) {
  options_.f = 2;
  options_.g = 2;
  options_.clients = 3;
  const Result<crypto::ClusterFile> made = make_local_cluster(options_);
  ASSERT_TRUE(made.ok()) << made.error();
  const Result<crypto::ClusterFile> loaded = crypto::load_cluster(cluster_path(options_.dir));
  ASSERT_TRUE(loaded.ok()) << loaded.error();
  EXPECT_TRUE(*loaded == *made);
  EXPECT_EQ(made->nodes.size(), 7u);
  EXPECT_EQ(made->hosts.size(), 7u);
  EXPECT_EQ(made->clients.size(), 5u);
  EXPECT_EQ(made->services[0].slots.size(), 5u);
  const auto check = [&](const std::string& party, const crypto::PublicKey& key) {
    const std::string path = fmt::format("{}/keys/{}.key", options_.dir, party);
    const Result<crypto::SecretKey> secret = crypto::load_secret_key(path);
    ASSERT_TRUE(secret.ok()) << secret.error();
    EXPECT_EQ(secret->public_key(), key) << party;
    EXPECT_EQ(mode_of(path), 0600u);
  };
  for (const auto& node : made->nodes) check(fmt::format("node-{}", node.id.value), node.key);
  for (const auto& host : made->hosts) check(fmt::format("host-{}", host.id.value), host.key);
  for (const auto& client : made->clients) check(fmt::format("client-{}", client.id.value), client.key);
  for (const char* name : {"keys", "run", "log", "work", "data"})
    EXPECT_EQ(mode_of(options_.dir + "/" + name), 0700u) << name;
}

TEST_F(LocalCluster, GivesOnlyTheOperatorTheRightToAskForStatus) {
  const Result<crypto::ClusterFile> made = make_local_cluster(options_);
  ASSERT_TRUE(made.ok()) << made.error();
  ASSERT_EQ(made->clients.size(), 3u);
  EXPECT_EQ(made->clients[0].name, "operator");
  EXPECT_TRUE(made->clients[0].operator_role);
  EXPECT_EQ(made->clients[1].name, "gateway");
  EXPECT_FALSE(made->clients[1].operator_role);
  EXPECT_EQ(made->clients[2].name, "client-2");
  EXPECT_FALSE(made->clients[2].operator_role);
}

TEST_F(LocalCluster, HasMoreHostsThanNodesWhenSlotsNeedThem) {
  options_.g = 5;
  const Result<crypto::ClusterFile> made = make_local_cluster(options_);
  ASSERT_TRUE(made.ok()) << made.error();
  EXPECT_EQ(made->hosts.size(), 11u);
  EXPECT_EQ(made->nodes.size(), 4u);
}

TEST_F(LocalCluster, HasCertificatesThatOpensslAccepts) {
  ASSERT_EQ(error(), "");
  for (const char* party : {"node-0", "host-3", "client-1"}) {
    const std::string command = fmt::format("openssl verify -CAfile {0}/ca.crt {0}/keys/{1}.crt >{2} 2>&1",
                                            options_.dir, party, directory_ / "openssl");
    EXPECT_EQ(std::system(command.c_str()), 0) << test::read_text(directory_ / "openssl");
  }
}

TEST_F(LocalCluster, IsMadeInAnEmptyDirectoryToo) {
  fs::create_directory(options_.dir);
  EXPECT_EQ(error(), "");
}

TEST_F(LocalCluster, IsNotMadeWhereSomethingIs) {
  fs::create_directory(options_.dir);
  std::ofstream(options_.dir + "/keys") << "mine";
  EXPECT_THAT(error(), HasSubstr("is not empty and holds no cluster"));
  EXPECT_EQ(test::read_text(options_.dir + "/keys"), "mine");
}

TEST_F(LocalCluster, LeavesNothingWhenItCannotBeMade) {
  options_.adapter = "http";  // without a command
  EXPECT_THAT(error(), HasSubstr("the http adapter needs a command"));
  EXPECT_FALSE(fs::exists(options_.dir));
  fs::create_directory(options_.dir);
  EXPECT_THAT(error(), HasSubstr("the http adapter needs a command"));
  EXPECT_TRUE(fs::is_empty(options_.dir));
  options_.command = {"/bin/true"};
  options_.initial_state = directory_ / "missing";
  EXPECT_THAT(error(), HasSubstr("initial state is not a directory"));
  EXPECT_TRUE(fs::is_empty(options_.dir));
}

TEST_F(LocalCluster, IsNotMadeWhereSocketPathsWouldBeTooLong) {
  options_.dir = directory_ / std::string(100, 'd');
  EXPECT_THAT(error(), HasSubstr("path is too long for the sockets in it"));
}

TEST_F(LocalCluster, CarriesWhatTheServiceNeeds) {
  fs::create_directory(directory_ / "tree");
  options_.adapter = "http";
  options_.service_name = "web";
  options_.command = {"/bin/server", "--port", "$PORT", "a \"quoted\" word"};
  options_.initial_state = directory_ / "tree/../tree";
  options_.allow_faults = true;
  options_.durability = crypto::Durability::kAsync;
  options_.limits.client_window = 1000;
  const Result<crypto::ClusterFile> made = make_local_cluster(options_);
  ASSERT_TRUE(made.ok()) << made.error();
  EXPECT_EQ(made->services[0].command, options_.command);
  EXPECT_EQ(made->services[0].initial_state, fs::canonical(directory_ / "tree").string());
  EXPECT_NE(made->services[0].gateway.port, 0);
  EXPECT_TRUE(made->allow_faults);
  EXPECT_EQ(made->durability, crypto::Durability::kAsync);
  EXPECT_EQ(made->limits.client_window, 1000u);
}

TEST_F(LocalCluster, TakesTheAddressesItIsGiven) {
  options_.base_port = 20'000;
  options_.adapter = "http";
  options_.command = {"/bin/server"};
  options_.gateway_address = {"127.0.0.1", 20'100};
  const Result<crypto::ClusterFile> made = make_local_cluster(options_);
  ASSERT_TRUE(made.ok()) << made.error();
  EXPECT_EQ(made->nodes[3].address, (crypto::Address{"127.0.0.1", 20'003}));
  EXPECT_EQ(made->services[0].gateway, (crypto::Address{"127.0.0.1", 20'100}));
}

TEST(FreePorts, AreDistinctAndCanBeListenedOn) {
  const Result<std::vector<std::uint16_t>> ports = find_free_ports(30);
  ASSERT_TRUE(ports.ok()) << ports.error();
  EXPECT_EQ(std::set<std::uint16_t>(ports->begin(), ports->end()).size(), 30u);
  EXPECT_TRUE(is_free_port(ports->front()));
}

TEST(FreePorts, AreNotThoseThatTheKernelGivesToDiallers) {
  std::uint32_t first = 0;
  std::ifstream("/proc/sys/net/ipv4/ip_local_port_range") >> first;
  if (first < 15'000) GTEST_SKIP() << "this machine gives nearly all ports to diallers";
  const Result<std::vector<std::uint16_t>> ports = find_free_ports(30);
  ASSERT_TRUE(ports.ok()) << ports.error();
  for (const std::uint16_t port : *ports) EXPECT_LT(port, first);
}

}  // namespace
}  // namespace zz::apps
