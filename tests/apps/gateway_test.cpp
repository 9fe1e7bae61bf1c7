#include "apps/gateway.hpp"

#include <gtest/gtest.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>
#include <thread>

#include "execution/http_canonical.hpp"
#include "tests/apps/http_user.hpp"
#include "tests/apps/smuggling_cases.hpp"

namespace zz::apps {
namespace {

using namespace std::chrono_literals;

// Stands for the cluster: takes operations on the gateway's thread and answers at once, or when told to.
class GatewayTest : public testing::Test {
 protected:
  using Answerer = std::function<client::Answer(const std::string& op)>;

  ~GatewayTest() override {
    if (!thread_.joinable()) return;
    on_loop([&] { gateway_.reset(); });
    work_.reset();
  }

  void start() {
    service_.name = "test";
    service_.adapter = "http";
    gateway_ = std::make_unique<Gateway>(
        loop_, cluster_, service_,
        [this](SharedBytes op, client::Client::Done done) { return take(std::move(op), std::move(done)); }, options_);
    const auto listening = gateway_->listen();
    ASSERT_TRUE(listening.ok()) << listening.error();
    port_ = gateway_->port();
    thread_ = std::jthread([this] { loop_.run(); });
  }

  // Runs on the gateway's thread and waits for it.
  template <class Do>
  void on_loop(Do action) {
    std::promise<void> done;
    boost::asio::post(loop_, [&] {
      action();
      done.set_value();
    });
    done.get_future().wait();
  }

  GatewayStats stats() {
    GatewayStats copy;
    on_loop([&] { copy = gateway_->stats(); });
    return copy;
  }

  // Waits for `state` of the statistics; every look is a turn of the gateway's loop.
  template <class State>
  bool eventually(State state) {
    const auto deadline = std::chrono::steady_clock::now() + 20s;
    while (!state(stats())) {
      if (std::chrono::steady_clock::now() > deadline) return false;
    }
    return true;
  }

  bool wait_for_operations(std::size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 20s, [&] { return operations_.size() >= count; });
  }
  std::vector<std::string> operations() {
    const std::lock_guard lock(mutex_);
    return operations_;
  }

  // Answers the oldest operation that is held.
  void release(client::Answer answer) {
    on_loop([&] {
      ASSERT_FALSE(held_.empty());
      auto done = std::move(held_.front());
      held_.pop_front();
      --in_flight_;
      done(answer);
    });
  }

  static client::Answer reply(unsigned status, const std::string& text) {
    return {client::Outcome::kReply, SharedBytes(execution::http_error_reply(status, text)), Refusal::kNone};
  }
  static client::Answer raw_reply(const std::string& bytes) {
    return {client::Outcome::kReply, SharedBytes::copy(bytes), Refusal::kNone};
  }

  HttpUser connect() { return HttpUser(port_); }
  // One request on a connection of its own: when it is answered, whatever others sent earlier was looked at.
  void pass_by() {
    HttpUser other = connect();
    ASSERT_TRUE(other.send("GET /pass-by HTTP/1.1\r\nHost: a\r\n\r\n"));
    ASSERT_EQ(other.receive().status, 200U);
  }

  crypto::ClusterFile cluster_;
  crypto::ServiceEntry service_;
  GatewayOptions options_;
  bool hold_ = false;  // answers wait for release()
  Answerer answer_ = [](const std::string& op) { return reply(200, op.substr(0, op.find('\r'))); };
  std::size_t max_in_flight_ = 0;
  Refusal refusal_ = Refusal::kNone;

 private:
  Refusal take(SharedBytes op, client::Client::Done done) {
    if (refusal_ != Refusal::kNone) return refusal_;
    const std::string text(op.text());
    {
      const std::lock_guard lock(mutex_);
      operations_.push_back(text);
    }
    max_in_flight_ = std::max(max_in_flight_, ++in_flight_);
    if (hold_) {
      held_.push_back(std::move(done));
    } else {
      --in_flight_;
      done(answer_(text));
    }
    changed_.notify_all();
    return Refusal::kNone;
  }

  boost::asio::io_context loop_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{loop_.get_executor()};
  std::deque<client::Client::Done> held_;
  std::size_t in_flight_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> operations_;

 protected:
  std::unique_ptr<Gateway> gateway_;
  std::uint16_t port_ = 0;

 private:
  std::jthread thread_;
};

TEST_F(GatewayTest, OrdersWhatWasAskedAndForwardsTheVotedReply) {
  start();
  HttpUser user = connect();
  ASSERT_TRUE(
      user.send("PUT /a?b=%20c HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nzz-node: forged\r\nContent-Length: 5\r\n\r\nhello"));
  const RawReply got = user.receive();
  EXPECT_EQ(got.status, 200U);
  EXPECT_EQ(got.body, "PUT /a?b=%20c HTTP/1.1\n");
  EXPECT_TRUE(got.has("content-type: text/plain; charset=utf-8"));
  EXPECT_TRUE(got.names("date"));
  EXPECT_FALSE(got.names("connection"));
  ASSERT_EQ(operations().size(), 1U);
  EXPECT_EQ(operations()[0], "PUT /a?b=%20c HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nContent-Length: 5\r\n\r\nhello");
}

TEST_F(GatewayTest, ServesManyRequestsOnOneConnection) {
  start();
  HttpUser user = connect();
  for (int i = 0; i < 50; ++i) {
    const std::string path = "/" + std::to_string(i);
    ASSERT_TRUE(user.send("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n"));
    ASSERT_EQ(user.receive().body, "GET " + path + " HTTP/1.1\n");
  }
  EXPECT_EQ(stats().connections, 1U);
  EXPECT_EQ(stats().replies, 50U);
}

TEST_F(GatewayTest, OrdersAPipelinedRequestOnlyAfterItsPredecessorWasAnswered) {
  hold_ = true;
  start();
  HttpUser user = connect();
  std::string all;
  for (int i = 0; i < 5; ++i) all += "GET /" + std::to_string(i) + " HTTP/1.1\r\nHost: a\r\n\r\n";
  ASSERT_TRUE(user.send(all));
  for (std::size_t i = 0; i < 5; ++i) {
    ASSERT_TRUE(wait_for_operations(i + 1));
    release(reply(200, std::to_string(i)));
    EXPECT_EQ(user.receive().body, std::to_string(i) + "\n");
  }
  EXPECT_EQ(max_in_flight_, 1U);
}

TEST_F(GatewayTest, AnswersAThousandPipelinedRequestsInTheirOrder) {
  start();
  HttpUser user = connect();
  std::jthread sender([&] {
    for (int i = 0; i < 1000; ++i) {
      const std::string body = std::to_string(i);
      user.send(i % 3 == 0 ? "POST /" + body +
                                 " HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
                           : "POST /" + body + " HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    }
  });
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(user.receive().body, "POST /" + std::to_string(i) + " HTTP/1.1\n");
  EXPECT_EQ(max_in_flight_, 1U);
}

TEST_F(GatewayTest, OrdersNothingBeforeTheWholeBodyIsHere) {
  start();
  HttpUser user = connect();
  ASSERT_TRUE(user.send("PUT /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello"));
  pass_by();
  EXPECT_EQ(operations().size(), 1U);
  ASSERT_TRUE(user.send("world"));
  EXPECT_EQ(user.receive().status, 200U);
  EXPECT_TRUE(operations().back().ends_with("\r\n\r\nhelloworld"));
}

TEST_F(GatewayTest, OrdersChunkedBodiesAsOnePieceWithoutTrailers) {
  start();
  HttpUser user = connect();
  const std::string bytes =
      "PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
      "5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 9\r\n\r\n";
  for (const char c : bytes) ASSERT_TRUE(user.send(std::string(1, c)));
  EXPECT_EQ(user.receive().status, 200U);
  EXPECT_EQ(operations().back(), "PUT /c HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world");
}

TEST_F(GatewayTest, InvitesTheBodyOnceTheHeadIsAccepted) {
  start();
  HttpUser user = connect();
  ASSERT_TRUE(user.send("PUT /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"));
  EXPECT_EQ(user.receive().status, 100U);
  EXPECT_TRUE(operations().empty());
  ASSERT_TRUE(user.send("hello"));
  EXPECT_EQ(user.receive().status, 200U);
  // The body is there already: no invitation.
  ASSERT_TRUE(user.send("PUT /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"));
  EXPECT_EQ(user.receive().status, 200U);
}

TEST_F(GatewayTest, InvitesNoBodyThatItWouldRefuse) {
  start();
  HttpUser user = connect();
  ASSERT_TRUE(user.send("PUT /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9999999\r\n\r\n"));
  EXPECT_EQ(user.receive().status, 413U);
  EXPECT_TRUE(user.ended());
}

TEST_F(GatewayTest, LetsNothingThroughThatTwoParsersCouldCutDifferently) {
  start();
  const auto cases = smuggling_cases();
  ASSERT_GE(cases.size(), 60U);
  for (const SmugglingCase& c : cases) {
    SCOPED_TRACE(c.name);
    HttpUser user = connect();
    user.send(c.bytes);
    const RawReply got = user.receive(c.bytes.starts_with("HEAD"));
    EXPECT_EQ(got.status, c.status) << got.body;
    EXPECT_TRUE(got.has("connection: close"));
    EXPECT_TRUE(got.body.starts_with("zz gateway: ")) << got.body;
    user.finish_sending();
    EXPECT_TRUE(user.ended()) << user.received();
  }
  EXPECT_TRUE(operations().empty());
  EXPECT_EQ(stats().refused, cases.size());
}

TEST_F(GatewayTest, AnswersHeadWithoutBodyButWithItsLength) {
  answer_ = [](const std::string&) { return raw_reply("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"); };
  start();
  HttpUser user = connect();
  ASSERT_TRUE(user.send("HEAD /h HTTP/1.1\r\nHost: a\r\n\r\n"));
  const RawReply got = user.receive(true);
  EXPECT_EQ(got.status, 200U);
  EXPECT_TRUE(got.has("content-length: 5"));
  // No body follows: the next thing on the connection is the next reply.
  ASSERT_TRUE(user.send("HEAD /h HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
  EXPECT_EQ(user.receive(true).status, 200U);
  EXPECT_TRUE(user.ended());
}

TEST_F(GatewayTest, SendsNoBodyAndNoLengthWithStatus204) {
  answer_ = [](const std::string&) { return raw_reply("HTTP/1.1 204 No Content\r\n\r\n"); };
  start();
  HttpUser user = connect();
  ASSERT_TRUE(user.send("DELETE /d HTTP/1.1\r\nHost: a\r\n\r\n"));
  const RawReply got = user.receive();
  EXPECT_EQ(got.status, 204U);
  EXPECT_FALSE(got.names("content-length"));
}

TEST_F(GatewayTest, ClosesAfterTheReplyWhereTheUserWantsIt) {
  start();
  HttpUser closing = connect();
  ASSERT_TRUE(
      closing.send("GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"));
  EXPECT_TRUE(closing.receive().has("connection: close"));
  closing.finish_sending();
  EXPECT_TRUE(closing.ended());
  HttpUser old = connect();
  ASSERT_TRUE(old.send("GET /3 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"));
  EXPECT_TRUE(old.receive().has("connection: keep-alive"));
  ASSERT_TRUE(old.send("GET /4 HTTP/1.0\r\nHost: a\r\n\r\n"));
  EXPECT_TRUE(old.receive().has("connection: close"));
  old.finish_sending();
  EXPECT_TRUE(old.ended());
  EXPECT_EQ(operations().size(), 3U);
}

TEST_F(GatewayTest, AnswersAUserWhoFinishedSending) {
  hold_ = true;
  start();
  HttpUser user = connect();
  ASSERT_TRUE(user.send("GET /half HTTP/1.1\r\nHost: a\r\n\r\n"));
  user.finish_sending();
  ASSERT_TRUE(wait_for_operations(1));
  release(reply(200, "late"));
  EXPECT_EQ(user.receive().body, "late\n");
  EXPECT_TRUE(user.ended());
}

TEST_F(GatewayTest, ForgetsAUserWhoLeftBeforeTheAnswer) {
  hold_ = true;
  start();
  {
    HttpUser user = connect();
    ASSERT_TRUE(user.send("GET /gone HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n"));
    ASSERT_TRUE(wait_for_operations(1));
  }
  HttpUser half = connect();
  ASSERT_TRUE(half.send("PUT /half HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe"));
  half.close();
  release(reply(200, "unheard"));
  // Whether the second one is ordered depends on when the closing is seen; it must end either way.
  EXPECT_TRUE(eventually([&](const GatewayStats& s) {
    if (s.requests == 2 && s.open > 0) {
      hold_ = false;
      return s.replies > 0;
    }
    return s.open == 0;
  }));
  for (const std::string& op : operations()) EXPECT_EQ(op.find("/half"), std::string::npos);
}

TEST_F(GatewayTest, TurnsAwayConnectionsBeyondTheLimitUntilOneEnds) {
  cluster_.limits.gateway_connections_max = 2;
  start();
  HttpUser first = connect();
  HttpUser second = connect();
  ASSERT_TRUE(eventually([](const GatewayStats& s) { return s.open == 2; }));
  HttpUser third = connect();
  const RawReply got = third.receive();
  EXPECT_EQ(got.status, 503U);
  EXPECT_TRUE(got.has("connection: close"));
  third.close();
  first.close();
  ASSERT_TRUE(eventually([](const GatewayStats& s) { return s.open == 1; }));
  pass_by();
  EXPECT_EQ(stats().turned_away, 1U);
}

TEST_F(GatewayTest, ClosesIdleConnections) {
  cluster_.limits.gateway_idle_ms = 50;
  start();
  HttpUser never = connect();
  EXPECT_TRUE(never.ended());
  HttpUser once = connect();
  ASSERT_TRUE(once.send("GET /once HTTP/1.1\r\nHost: a\r\n\r\n"));
  EXPECT_EQ(once.receive().status, 200U);
  EXPECT_TRUE(once.ended());
  EXPECT_EQ(stats().timeouts, 2U);
}

TEST_F(GatewayTest, GivesAHeadItsTimeAndNoMore) {
  options_.head_timeout_ms = 50;
  start();
  HttpUser user = connect();
  ASSERT_TRUE(user.send("GET /slow HTTP/1.1\r\nHost: a\r\nX-"));
  EXPECT_EQ(user.receive().status, 408U);
  user.finish_sending();
  EXPECT_TRUE(user.ended());
}

TEST_F(GatewayTest, GivesABodyThatStopsItsIdleTimeAndNoMore) {
  cluster_.limits.gateway_idle_ms = 50;
  start();
  HttpUser user = connect();
  ASSERT_TRUE(user.send("PUT /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello"));
  EXPECT_EQ(user.receive().status, 408U);
  user.finish_sending();
  EXPECT_TRUE(user.ended());
  EXPECT_TRUE(operations().empty());
}

TEST_F(GatewayTest, EndsAConnectionWhoseUserDoesNotRead) {
  cluster_.limits.gateway_idle_ms = 50;
  const std::string much(8u << 20, 'x');
  answer_ = [&](const std::string&) { return reply(200, much); };
  start();
  HttpUser user = connect();
  ASSERT_TRUE(user.send("GET /much HTTP/1.1\r\nHost: a\r\n\r\n"));
  // 8 MiB at the minimal rate of 500 B/s would be allowed hours; nothing at all is not.
  EXPECT_TRUE(eventually([](const GatewayStats& s) { return s.replies == 1 && s.open == 0; }));
  EXPECT_EQ(stats().timeouts, 1U);
}

TEST_F(GatewayTest, SaysSoWhenNoAnswerComesInTime) {
  hold_ = true;
  options_.answer_timeout_ms = 50;
  start();
  HttpUser user = connect();
  ASSERT_TRUE(user.send("GET /lost HTTP/1.1\r\nHost: a\r\n\r\n"));
  const RawReply got = user.receive();
  EXPECT_EQ(got.status, 504U);
  EXPECT_NE(got.body.find("may still be carried out"), std::string::npos);
  release(reply(200, "too late"));
  user.finish_sending();
  EXPECT_TRUE(user.ended());
  EXPECT_EQ(stats().unanswered, 1U);
  EXPECT_EQ(stats().replies, 0U);
}

TEST_F(GatewayTest, SaysWhyARequestWasNotTaken) {
  start();
  on_loop([&] { refusal_ = Refusal::kQueueFull; });
  HttpUser full = connect();
  ASSERT_TRUE(full.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
  EXPECT_EQ(full.receive().status, 503U);
  on_loop([&] {
    refusal_ = Refusal::kNone;
    answer_ = [](const std::string&) { return client::Answer{client::Outcome::kRejected, {}, Refusal::kQuota}; };
  });
  HttpUser rejected = connect();
  ASSERT_TRUE(rejected.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
  const RawReply got = rejected.receive();
  EXPECT_EQ(got.status, 503U);
  EXPECT_NE(got.body.find(to_string(Refusal::kQuota)), std::string::npos);
  on_loop([&] { answer_ = [](const std::string&) { return client::Answer{}; }; });
  HttpUser timed_out = connect();
  ASSERT_TRUE(timed_out.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"));
  EXPECT_EQ(timed_out.receive(true).status, 504U);
  timed_out.finish_sending();
  EXPECT_TRUE(timed_out.ended());
  EXPECT_EQ(stats().unanswered, 3U);
}

TEST_F(GatewayTest, ForwardsNoVotedReplyThatIsNoHttpReply) {
  start();
  for (const char* bytes :
       {"", "nonsense", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\x01"
        "b\r\n\r\n"}) {
    SCOPED_TRACE(bytes);
    on_loop([&] { answer_ = [bytes](const std::string&) { return raw_reply(bytes); }; });
    HttpUser user = connect();
    ASSERT_TRUE(user.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    EXPECT_EQ(user.receive().status, 502U);
    user.finish_sending();
    EXPECT_TRUE(user.ended());
  }
}

TEST_F(GatewayTest, HoldsBodiesUpToTheLimitAndRefusesLongerOnes) {
  cluster_.limits.gateway_body_bytes_max = 1000;
  start();
  HttpUser fits = connect();
  ASSERT_TRUE(fits.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + repeated("x", 1000)));
  EXPECT_EQ(fits.receive().status, 200U);
  ASSERT_TRUE(fits.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" +
                        repeated("64\r\n" + repeated("x", 100) + "\r\n", 10) + "1\r\n"));
  EXPECT_EQ(fits.receive().status, 413U);
  HttpUser announced = connect();
  ASSERT_TRUE(announced.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n"));
  EXPECT_EQ(announced.receive().status, 413U);
  EXPECT_EQ(operations().size(), 1U);
}

TEST_F(GatewayTest, RefusesWhatDoesNotFitIntoOneOperation) {
  cluster_.limits.op_bytes_max = 500;
  start();
  HttpUser user = connect();
  ASSERT_TRUE(user.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 600\r\n\r\n" + repeated("x", 600)));
  EXPECT_EQ(user.receive().status, 413U);
  EXPECT_TRUE(operations().empty());
}

TEST_F(GatewayTest, EndsEveryConnectionWhenItStops) {
  hold_ = true;
  start();
  HttpUser idle = connect();
  HttpUser waiting = connect();
  ASSERT_TRUE(waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
  ASSERT_TRUE(wait_for_operations(1));
  on_loop([&] { gateway_->stop(); });
  EXPECT_TRUE(idle.ended());
  EXPECT_TRUE(waiting.ended());
  EXPECT_TRUE(eventually([](const GatewayStats& s) { return s.open == 0; }));
  release(reply(200, "nobody hears it"));
}

TEST_F(GatewayTest, NamesThePortThatIsInUse) {
  start();
  crypto::ServiceEntry same = service_;
  same.gateway.port = port_;
  boost::asio::io_context loop;
  Gateway second(loop, cluster_, same, [](SharedBytes, client::Client::Done) { return Refusal::kNone; });
  const auto listening = second.listen();
  ASSERT_FALSE(listening.ok());
  EXPECT_NE(listening.error().find("port in use"), std::string::npos);
  EXPECT_NE(listening.error().find(std::to_string(port_)), std::string::npos);
  EXPECT_EQ(listening.error().find('\n'), std::string::npos);
}

}  // namespace
}  // namespace zz::apps
