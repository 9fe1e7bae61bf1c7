#include <gtest/gtest.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <cstdio>
#include <map>
#include <thread>

#include "apps/demo_status.hpp"
#include "apps/demo_teller.hpp"
#include "apps/demo_tour.hpp"
#include "apps/demo_workload.hpp"
#include "apps/gateway.hpp"
#include "execution/http_canonical.hpp"

namespace zz::apps {
namespace {

using nlohmann::json;

json slot(std::uint32_t id, std::uint64_t incarnation, bool active) {
  return {{"slot", id}, {"incarnation", incarnation}, {"active", active}, {"connected", active}, {"last_vote", 7}};
}

json answer(std::uint32_t node, std::uint64_t epoch, std::uint64_t evictions) {
  return {{"node", node},
          {"services",
           {{{"service", "other"}, {"epoch", 99}, {"evictions", 99}},
            {{"service", "web"},
             {"ordered", 100 + node},
             {"closed", 90},
             {"epoch", epoch},
             {"slots", {slot(0, 1, true), slot(1, 1 + evictions, false), slot(2, 1, true)}},
             {"divergences", evictions},
             {"wakes", evictions},
             {"evictions", evictions},
             {"not_deterministic", 0},
             {"first_correct_reply_us", {1000 + node, 2000}}}}}};
}

TEST(ClusterStatusTest, BelievesOnlyWhatFPlusOneNodesSay) {
  json liar = answer(3, 1'000'000, 1'000'000);
  const ClusterStatus status = combine({answer(0, 2, 2), answer(1, 2, 2), answer(2, 1, 1), liar}, "web", 1);
  EXPECT_EQ(status.answered, 4U);
  EXPECT_EQ(status.epoch, 2U);
  EXPECT_EQ(status.evictions, 2U);
  EXPECT_EQ(status.divergences, 2U);
  EXPECT_EQ(status.ordered, 102U);
  EXPECT_EQ(status.settled, 2U);
  EXPECT_EQ(status.first_correct_us, 2'000U);
  ASSERT_EQ(status.slots.size(), 3U);
  EXPECT_EQ(status.active(), 2U);
  ASSERT_NE(status.find(1), nullptr);
  EXPECT_EQ(status.find(1)->incarnation, 3U);
  EXPECT_FALSE(status.find(1)->active);
  EXPECT_EQ(status.find(9), nullptr);
}

TEST(ClusterStatusTest, ClaimsNothingOfOneNodeAlone) {
  const ClusterStatus status = combine({answer(0, 2, 2)}, "web", 1);
  EXPECT_EQ(status.evictions, 0U);
  EXPECT_TRUE(status.slots.empty());
}

TEST(ClusterStatusTest, SurvivesAnyJsonThatANodeInvents) {
  const std::vector<json> inventions = {
      json::object(),
      {{"services", 5}},
      {{"services", {1, "x", nullptr, json::array()}}},
      {{"services", {{{"service", 7}}}}},
      {{"services",
        {{{"service", "web"},
          {"ordered", "many"},
          {"epoch", -1},
          {"slots", {{{"slot", -4}, {"active", "yes"}}, 3}},
          {"first_correct_reply_us", {"soon", -5, 1.5, nullptr}}}}}},
      {{"services", {{{"service", "web"}, {"slots", json::object()}, {"first_correct_reply_us", 9}}}}},
  };
  for (const json& invention : inventions) {
    const ClusterStatus status = combine({invention, answer(1, 2, 2), answer(2, 2, 2)}, "web", 1);
    EXPECT_EQ(status.epoch, 2U) << invention.dump();
    EXPECT_EQ(status.active(), 2U) << invention.dump();
    EXPECT_TRUE(read_host(invention, 0).empty());
  }
}

TEST(ClusterStatusTest, FindsTheLongestWaitAmongWhatIsNew) {
  std::vector<json> before = {answer(0, 1, 1), answer(1, 1, 1)};
  std::vector<json> after = before;
  EXPECT_EQ(longest_since(before, after, "web"), 0U);
  after[1]["services"][1]["first_correct_reply_us"].push_back(700);
  EXPECT_EQ(longest_since(before, after, "web"), 700U);
}

TEST(HostAnswer, IsReadForOneService) {
  const json told = {{"host", 1},
                     {"slots",
                      {{{"service", 0}, {"slot", 1}, {"incarnation", 2}, {"state", "asleep"}},
                       {{"service", 1}, {"slot", 1}, {"incarnation", 5}, {"state", "awake"}}}}};
  const auto slots = read_host(told, 0);
  ASSERT_EQ(slots.size(), 1U);
  EXPECT_EQ(slots[0].incarnation, 2U);
  EXPECT_EQ(slots[0].state, "asleep");
}

TEST(DavScriptTest, MakesOnlyRequestsWhoseAnswersItKnowsAndEveryKindOfThem) {
  DavScript script("user", 7);
  std::map<DavMethod, int> seen;
  std::map<unsigned, int> statuses;
  for (int i = 0; i < 20'000; ++i) {
    const DavRequest request = script.next();
    ASSERT_TRUE(request.path.starts_with("/user-0/")) << request.path;
    ++seen[request.method];
    ++statuses[script.expect(request).status];  // asserts that the model covers it
  }
  EXPECT_EQ(seen.size(), 8U);
  for (const unsigned status : {200U, 201U, 204U, 207U, 403U, 404U, 405U, 412U})
    EXPECT_GT(statuses[status], 0) << status;
  EXPECT_GT(statuses[200] + statuses[201] + statuses[204] + statuses[207], 12'000);
}

TEST(DavScriptTest, GoesOnInANewSubtreeWhenTheOldOneIsInDoubt) {
  DavScript script("user", 7);
  for (int i = 0; i < 100; ++i) script.expect(script.next());
  script.start_over();
  EXPECT_TRUE(script.read_back().empty());
  const DavRequest first = script.next();
  EXPECT_EQ(first.method, DavMethod::kMkcol);
  EXPECT_EQ(first.path, "/user-1/");
  EXPECT_EQ(script.expect(first).status, 201U);
  EXPECT_FALSE(script.read_back().empty());
}

// Users of a gateway whose "cluster" answers as `answer_to` says.
DavCounts counts_against(const std::function<client::Answer()>& answer_to, std::uint64_t requests) {
  boost::asio::io_context loop(1);
  const auto work = boost::asio::make_work_guard(loop);
  crypto::ClusterFile cluster;
  crypto::ServiceEntry service;
  service.name = "lies";
  service.adapter = "http";
  auto gateway = std::make_unique<Gateway>(loop, cluster, service, [&](SharedBytes, client::Client::Done done) {
    done(answer_to());
    return Refusal::kNone;
  });
  EXPECT_TRUE(gateway->listen().ok());
  const std::string url = "http://127.0.0.1:" + std::to_string(gateway->port());
  std::jthread server([&] { loop.run(); });
  DavCounts counts;
  {
    DavUsers users(url, 2, 1);
    users.grant(requests);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!users.idle() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    counts = users.counts();
    EXPECT_EQ(users.complaints().size(), DavUsers::kComplaintsMax);
  }
  boost::asio::post(loop, [&] {
    gateway.reset();
    loop.stop();
  });
  return counts;
}

TEST(DavUsersTest, CallWrongWhatTheirModelDoesNotExpect) {
  const SharedBytes lie(execution::http_error_reply(200, "a lie"));
  const DavCounts counts = counts_against(
      [&] {
        return client::Answer{client::Outcome::kReply, lie, Refusal::kNone};
      },
      200);
  EXPECT_EQ(counts.requests, 200U);
  EXPECT_EQ(counts.wrong, 200U);
  EXPECT_EQ(counts.accepted, 0U);
}

TEST(DavUsersTest, TellAMissingReplyFromAWrongOne) {
  const DavCounts counts = counts_against([] { return client::Answer{}; }, 50);
  EXPECT_EQ(counts.unanswered, 50U);
  EXPECT_EQ(counts.wrong, 0U);
}

std::string told(bool terminal) {
  char* text = nullptr;
  std::size_t size = 0;
  std::FILE* out = ::open_memstream(&text, &size);
  {
    DemoTeller teller(out, terminal);
    teller.headline("One");
    teller.progress("working");
    teller.step("first");
    teller.detail("more");
    teller.step("second");
    teller.table({{"a", "1"}, {"long name", "22"}});
  }
  std::fclose(out);
  std::string result(text, size);
  std::free(text);
  return result;
}

TEST(DemoTellerTest, NumbersItsStepsAndRewritesLinesOnlyOnTerminals) {
  const std::string plain = told(false);
  EXPECT_EQ(plain.find('\r'), std::string::npos);
  EXPECT_EQ(plain.find('\033'), std::string::npos);
  EXPECT_NE(plain.find("  1. "), std::string::npos);
  EXPECT_NE(plain.find("  2. "), std::string::npos);
  EXPECT_NE(plain.find("… working\n"), std::string::npos);
  EXPECT_TRUE(plain.ends_with("  a           1\n  long name  22\n")) << plain;
  const std::string terminal = told(true);
  EXPECT_NE(terminal.find("\r\033[K"), std::string::npos);
}

TEST(DemoSummaryTest, IsOneLineOfJsonWithEveryKey) {
  DemoSummary summary;
  summary.service = "webdav";
  summary.users = {.requests = 10, .accepted = 9, .wrong = 1, .unanswered = 0};
  summary.first_correct_us = 43'210;
  const std::string text = render_json(summary);
  EXPECT_EQ(text.find('\n'), std::string::npos);
  const json parsed = json::parse(text);
  EXPECT_EQ(parsed["service"], "webdav");
  EXPECT_EQ(parsed["accepted_replies"], 9);
  EXPECT_EQ(parsed["wrong_replies"], 1);
  EXPECT_DOUBLE_EQ(parsed["first_correct_reply_ms"].get<double>(), 43.21);
  for (const char* key : {"requests", "divergences", "wakes", "evictions", "active_after", "asleep_after"}) {
    EXPECT_TRUE(parsed[key].is_number()) << key;
  }
}

}  // namespace
}  // namespace zz::apps
