#include "apps/status_client.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/post.hpp>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <future>
#include <thread>

#include "agreement/node.hpp"
#include "apps/local_cluster.hpp"

namespace zz::apps {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (fs::temp_directory_path() / "zz-status-XXXXXX").string();
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A host daemon's socket that does with one connection what `serve` says.
class FakeHost {
 public:
  FakeHost(std::string path, std::function<void(int fd)> serve)
      : path_(std::move(path)), listener_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.data(), path_.size());
    EXPECT_EQ(::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(::listen(listener_, 4), 0);
    thread_ = std::jthread([this, serve = std::move(serve)] {
      const int fd = ::accept(listener_, nullptr, nullptr);
      serve(fd);
      ::close(fd);
    });
  }
  ~FakeHost() {
    thread_.join();
    ::close(listener_);
  }

 private:
  std::string path_;
  int listener_;
  std::jthread thread_;
};

std::string read_line(int fd) {
  std::string line;
  char c = 0;
  while (::read(fd, &c, 1) == 1 && c != '\n') line += c;
  return line;
}

void write_all(int fd, const std::string& text) {
  EXPECT_EQ(::send(fd, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
}

TEST(HostSocket, AnswersOneLineWithOneLine) {
  const TemporaryDirectory dir;
  const std::string path = dir.path() + "/host.sock";
  std::string heard;
  Result<json> answer = Error{"not asked"};
  {
    FakeHost host(path, [&](int fd) {
      heard = read_line(fd);
      write_all(fd, "{\"ok\":");
      write_all(fd, "false,\"error\":\"no\"}\nand more");
    });
    answer = query_host_socket(path, {{"cmd", "fault"}, {"slot", 1}});
  }
  ASSERT_TRUE(answer.ok()) << answer.error();
  EXPECT_EQ((*answer)["error"], "no");
  EXPECT_EQ(json::parse(heard), (json{{"cmd", "fault"}, {"slot", 1}}));
}

TEST(HostSocket, NamesThePathWhateverGoesWrong) {
  const TemporaryDirectory dir;
  const std::string path = dir.path() + "/host.sock";
  const auto expect_error = [&](const Result<json>& answer) {
    ASSERT_FALSE(answer.ok());
    EXPECT_NE(answer.error().find(path), std::string::npos) << answer.error();
    EXPECT_EQ(answer.error().find('\n'), std::string::npos);
  };
  expect_error(query_host_socket(path, {{"cmd", "status"}}));
  EXPECT_FALSE(query_host_socket(std::string(200, 'x'), {{"cmd", "status"}}).ok());
  const std::vector<std::string> bad = {"", "no json\n", "[1]\n", std::string(100, '[') + "\n"};
  for (const std::string& words : bad) {
    SCOPED_TRACE(words);
    {
      FakeHost host(path, [&](int fd) {
        read_line(fd);
        if (!words.empty()) write_all(fd, words);
      });
      expect_error(query_host_socket(path, {{"cmd", "status"}}));
    }
    fs::remove(path);
  }
  std::promise<void> over;
  FakeHost silent(path, [&](int) { over.get_future().wait(); });
  expect_error(query_host_socket(path, {{"cmd", "status"}}, 50));
  over.set_value();
}

Result<crypto::ClusterFile> make_cluster(const std::string& dir) {
  LocalClusterOptions options;
  options.dir = dir;
  options.durability = crypto::Durability::kNone;
  return make_local_cluster(options);
}

// Some agreement nodes of a fresh cluster, on a thread of their own.
class RunningNodes {
 public:
  RunningNodes(const std::string& dir, std::size_t count) {
    auto made = make_cluster(dir);
    EXPECT_TRUE(made.ok()) << made.error();
    if (!made) return;
    cluster_ = std::move(made).value();
    for (std::size_t i = 0; i < count; ++i) {
      auto key = crypto::load_secret_key(dir + "/keys/node-" + std::to_string(i) + ".key");
      EXPECT_TRUE(key.ok());
      keys_.push_back(std::make_unique<crypto::SecretKey>(std::move(key).value()));
      nodes_.push_back(
          std::make_unique<agreement::Node>(loop_, cluster_, NodeId{static_cast<std::uint16_t>(i)}, *keys_.back()));
      const auto started = nodes_.back()->start();
      EXPECT_TRUE(started.ok()) << started.error();
    }
    thread_ = std::jthread([this] { loop_.run(); });
  }
  ~RunningNodes() {
    loop_.stop();
    if (thread_.joinable()) thread_.join();
  }

 private:
  crypto::ClusterFile cluster_;
  std::vector<std::unique_ptr<crypto::SecretKey>> keys_;
  boost::asio::io_context loop_{1};
  std::vector<std::unique_ptr<agreement::Node>> nodes_;
  std::jthread thread_;
};

TEST(QueryStatus, HearsEveryNodeOnce) {
  const TemporaryDirectory dir;
  const RunningNodes nodes(dir.path() + "/cluster", 4);
  const auto answers = query_status(dir.path() + "/cluster", 20'000);
  ASSERT_TRUE(answers.ok()) << answers.error();
  ASSERT_EQ(answers->size(), 4U);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ((*answers)[i]["node"], i);
    EXPECT_EQ((*answers)[i]["services"][0]["service"], "kv");
  }
}

TEST(QueryStatus, DoesNotWaitForeverForASilentNode) {
  const TemporaryDirectory dir;
  const RunningNodes nodes(dir.path() + "/cluster", 3);
  boost::asio::io_context loop(1);
  auto client = StatusClient::open(loop, dir.path() + "/cluster");
  ASSERT_TRUE(client.ok()) << client.error();
  // The first question may come before the channels are up; later ones use the same channels.
  StatusClient::Answers got;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (got.size() < 3 && std::chrono::steady_clock::now() < deadline) {
    bool answered = false;
    (*client)->ask(200, [&](StatusClient::Answers answers) {
      got = std::move(answers);
      answered = true;
    });
    while (!answered) loop.run_one();
  }
  ASSERT_EQ(got.size(), 3U);
  EXPECT_EQ(got[2]["node"], 2);
}

TEST(QueryStatus, NamesTheDirectoryWhenNobodyAnswers) {
  const TemporaryDirectory dir;
  EXPECT_FALSE(query_status(dir.path() + "/none", 50).ok());
  ASSERT_TRUE(make_cluster(dir.path() + "/cluster").ok());
  const auto answers = query_status(dir.path() + "/cluster", 50);
  ASSERT_FALSE(answers.ok());
  EXPECT_NE(answers.error().find(dir.path()), std::string::npos);
}

}  // namespace
}  // namespace zz::apps
