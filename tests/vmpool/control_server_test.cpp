#include "vmpool/control_server.hpp"

#include <sys/stat.h>

#include <functional>

#include "tests/vmpool/control_client.hpp"
#include "tests/vmpool/process_fixture.hpp"

namespace zz::vmpool {
namespace {

using Json = nlohmann::json;

class ControlServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto made = ControlServer::make(loop, path, [this](const Json& command, ControlServer::Answer answer) {
      if (command.contains("later")) {
        postponed = std::move(answer);
      } else {
        answer({{"echo", command}});
      }
    });
    ASSERT_TRUE(made) << made.error();
    server = std::move(*made);
  }
  TempDir dir;
  const std::string path = dir.path() + "/c.sock";
  boost::asio::io_context loop;
  Heartbeat heartbeat{loop};
  std::unique_ptr<ControlServer> server;
  ControlServer::Answer postponed;
};

TEST_F(ControlServerTest, AnswersOneLinePerLineInOrder) {
  ControlClient client(loop, path);
  client.send("{\"a\":1}\n{\"a\":2}\n");
  EXPECT_EQ(client.next(), Json({{"echo", {{"a", 1}}}}));
  EXPECT_EQ(client.next(), Json({{"echo", {{"a", 2}}}}));
}

TEST_F(ControlServerTest, IsForItsOwnerOnly) {
  struct stat info {};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(ControlServerTest, AnswersBadInputWithAnErrorAndGoesOn) {
  ControlClient client(loop, path);
  for (const auto* bad : {"", "nonsense", "[1]", "17", "{\"a\":", "\x01\xff", "{}{}"}) {
    const auto answer = client.ask(bad);
    ASSERT_TRUE(answer) << bad;
    EXPECT_EQ(answer->value("ok", true), false) << bad;
    EXPECT_FALSE(answer->value("error", "").empty()) << bad;
  }
  EXPECT_TRUE(client.ask("{\"a\":1}")->contains("echo"));
}

TEST_F(ControlServerTest, EndsAConnectionThatSendsALineWithoutEnd) {
  ControlClient client(loop, path);
  client.send(std::string(kControlLineMax + 1, 'x'));
  const auto answer = client.next();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->value("ok", true), false);
  EXPECT_FALSE(client.next());
  ControlClient another(loop, path);
  EXPECT_TRUE(another.ask("{\"a\":1}"));
}

TEST_F(ControlServerTest, TurnsAwayMoreConnectionsThanItsLimit) {
  std::vector<std::unique_ptr<ControlClient>> clients;
  for (std::size_t i = 0; i < kControlConnectionsMax; ++i) {
    clients.push_back(std::make_unique<ControlClient>(loop, path));
    ASSERT_TRUE(clients.back()->ask("{}"));
  }
  ControlClient tooMany(loop, path);
  const auto answer = tooMany.next();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->value("ok", true), false);
  EXPECT_FALSE(tooMany.next());
  clients.pop_back();
  // The place is free once the server has noticed.
  EXPECT_TRUE(test::run_until(loop, [&] {
    ControlClient next(loop, path);
    const auto reply = next.ask("{}");
    return reply && reply->contains("echo");
  }));
}

TEST_F(ControlServerTest, AcceptsAnAnswerThatComesAfterTheClientLeft) {
  {
    ControlClient client(loop, path);
    client.send("{\"later\":1}\n");
    ASSERT_TRUE(test::run_until(loop, [&] { return postponed != nullptr; }));
  }
  postponed({{"ok", true}});
  ControlClient client(loop, path);
  EXPECT_TRUE(client.ask("{}"));
  client.send("{\"later\":1}\n");
  postponed = nullptr;
  ASSERT_TRUE(test::run_until(loop, [&] { return postponed != nullptr; }));
  server.reset();
  postponed({{"ok", true}});
}

TEST_F(ControlServerTest, RemovesItsSocketAtTheEndAndReplacesOneThatWasLeft) {
  server.reset();
  EXPECT_FALSE(std::filesystem::exists(path));
  std::ofstream(path) << "left";
  auto made = ControlServer::make(loop, path, [](const Json&, const ControlServer::Answer& answer) { answer({}); });
  EXPECT_TRUE(made);
}

TEST_F(ControlServerTest, SaysWhichPathCannotBeServed) {
  for (const std::string& bad : {std::string("/nowhere/c.sock"), "/tmp/" + std::string(200, 'x')}) {
    auto made = ControlServer::make(loop, bad, [](const Json&, const ControlServer::Answer&) {});
    ASSERT_FALSE(made);
    EXPECT_NE(made.error().find(bad), std::string::npos);
  }
}

}  // namespace
}  // namespace zz::vmpool
