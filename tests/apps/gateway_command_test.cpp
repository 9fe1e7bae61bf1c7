// `zz gateway` as a process: what it says when it cannot start, and how it ends.

#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <chrono>

#include "apps/local_cluster.hpp"
#include "tests/apps/http_user.hpp"
#include "tests/apps/zz_process.hpp"

namespace zz::apps {
namespace {

using boost::asio::ip::tcp;

class GatewayCommand : public testing::Test {
 protected:
  void make(const std::string& adapter) {
    LocalClusterOptions options;
    options.dir = dir_;
    options.service_name = "web";
    options.adapter = adapter;
    if (adapter == "http") options.command = {"/bin/true"};
    auto made = make_local_cluster(options);
    ASSERT_TRUE(made.ok()) << made.error();
    cluster_ = std::move(made).value();
  }
  // Runs it to its end, which must be a failure with one line.
  std::string failure(std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"gateway", "--dir", dir_});
    test::ZzProcess gateway(std::move(more));
    EXPECT_EQ(gateway.wait(), 1);
    const std::string words = gateway.err();
    EXPECT_EQ(std::count(words.begin(), words.end(), '\n'), 1) << words;
    EXPECT_TRUE(words.starts_with("zz gateway: ")) << words;
    return words;
  }

  static bool await_ready(const test::ZzProcess& gateway) {
    const auto deadline = std::chrono::steady_clock::now() + test::kProcessDeadline;
    while (gateway.err().find("ready") == std::string::npos) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      ::poll(nullptr, 0, 10);
    }
    return true;
  }

  test::TemporaryDirectory root_;
  std::string dir_ = root_ / "cluster";
  crypto::ClusterFile cluster_;
};

TEST_F(GatewayCommand, NamesThePortThatIsInUse) {
  ASSERT_NO_FATAL_FAILURE(make("http"));
  boost::asio::io_context loop;
  const std::uint16_t port = cluster_.services[0].gateway.port;
  tcp::acceptor other(loop, tcp::endpoint(boost::asio::ip::make_address("127.0.0.1"), port));
  const std::string words = failure();
  EXPECT_NE(words.find("127.0.0.1:" + std::to_string(port)), std::string::npos) << words;
  EXPECT_NE(words.find("port in use"), std::string::npos) << words;
}

TEST_F(GatewayCommand, NamesWhatIsMissing) {
  EXPECT_NE(failure().find("cluster.toml"), std::string::npos);
  ASSERT_NO_FATAL_FAILURE(make("http"));
  EXPECT_NE(failure({"--service", "nonesuch"}).find("\"nonesuch\""), std::string::npos);
  EXPECT_NE(failure({"--client", "99"}).find("client-99.key"), std::string::npos);
}

TEST_F(GatewayCommand, NeedsAServiceWithAGateway) {
  ASSERT_NO_FATAL_FAILURE(make("kv"));
  EXPECT_NE(failure().find("no service has a gateway"), std::string::npos);
  EXPECT_NE(failure({"--service", "web"}).find("has no gateway address"), std::string::npos);
}

TEST_F(GatewayCommand, ServesUntilItIsToldToStop) {
  ASSERT_NO_FATAL_FAILURE(make("http"));
  test::ZzProcess gateway({"gateway", "--dir", dir_});
  ASSERT_TRUE(await_ready(gateway)) << gateway.err();
  HttpUser user(cluster_.services[0].gateway.port);
  ASSERT_TRUE(user.send("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"));
  EXPECT_EQ(user.receive().status, 501U);
  gateway.send_signal(SIGTERM);
  EXPECT_EQ(gateway.wait(), 0);
  EXPECT_NE(gateway.err().find("stopped"), std::string::npos);
}

}  // namespace
}  // namespace zz::apps
