#include "apps/gateway_http.hpp"

#include <gtest/gtest.h>

#include "apps/gateway_body.hpp"
#include "tests/apps/smuggling_cases.hpp"

namespace zz::apps {
namespace {

constexpr std::size_t kHeaderMax = 32u << 10;
constexpr std::uint64_t kBodyMax = 1u << 20;

struct Read {
  std::optional<RequestHead> head;
  std::string body;
  std::size_t used = 0;  // bytes of the input that belong to the request
  std::optional<HttpRefusal> refusal;
};

// Reads one request from `bytes` that arrive `step` at a time, as a connection does.
Read read_request(const std::string& bytes, std::size_t step) {
  Read read;
  HeadScanner scanner(kHeaderMax);
  std::size_t arrived = 0;
  auto state = HeadScanner::State::kMore;
  while (state == HeadScanner::State::kMore && arrived < bytes.size()) {
    arrived = std::min(bytes.size(), arrived + step);
    state = scanner.scan(std::string_view(bytes).substr(0, arrived));
  }
  if (state == HeadScanner::State::kRefused) read.refusal = scanner.refusal();
  if (state != HeadScanner::State::kComplete) return read;
  const std::string_view raw =
      std::string_view(bytes).substr(scanner.head_begin(), scanner.head_end() - scanner.head_begin());
  auto judged = read_request_head(raw, kBodyMax);
  if (auto* bad = std::get_if<HttpRefusal>(&judged)) {
    read.refusal = *bad;
    return read;
  }
  const RequestHead head = std::get<RequestHead>(judged);
  BodyReader body(head, kBodyMax);
  read.used = scanner.head_end();
  while (!body.done() && !body.refused() && read.used < bytes.size()) {
    read.used += body.feed(std::string_view(bytes).substr(read.used, step));
  }
  if (body.refused()) read.refusal = body.refusal();
  if (!body.done()) return read;
  read.head = head;
  read.body = body.take_body();
  return read;
}

class EverySplit : public testing::TestWithParam<std::size_t> {};
INSTANTIATE_TEST_SUITE_P(Steps, EverySplit, testing::Values(1, 2, 3, 7, 64, 100'000));

TEST_P(EverySplit, RefusesWhatTwoParsersCouldCutDifferently) {
  const auto cases = smuggling_cases();
  EXPECT_GE(cases.size(), 60U);
  for (const SmugglingCase& c : cases) {
    SCOPED_TRACE(c.name);
    const Read read = read_request(c.bytes, GetParam());
    EXPECT_FALSE(read.head.has_value());
    ASSERT_TRUE(read.refusal.has_value());
    EXPECT_EQ(read.refusal->status, c.status) << read.refusal->reason;
    EXPECT_FALSE(read.refusal->reason.empty());
  }
}

TEST_P(EverySplit, TakesExactlyTheBytesOfOneRequest) {
  const std::string next = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
  const std::string fixed = "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
  const std::string chunked =
      "\r\nPUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
      "3;name=\"a b\"\r\nhel\r\n02\r\nlo\r\n000\r\nX-Sum: 1\r\n\r\n";
  for (const std::string& one : {fixed, chunked}) {
    const Read read = read_request(one + next, GetParam());
    ASSERT_TRUE(read.head.has_value()) << (read.refusal ? read.refusal->reason : "incomplete");
    EXPECT_EQ(read.body, "hello");
    EXPECT_EQ(read.used, one.size());
    EXPECT_EQ(read.head->method, "PUT");
    EXPECT_EQ(read.head->target, "/x");
    EXPECT_EQ(read.head->headers, (HeaderList{{"Host", "a"}}));
  }
}

RequestHead accepted(const std::string& head) {
  const Read read = read_request(head, head.size());
  EXPECT_TRUE(read.head.has_value()) << (read.refusal ? read.refusal->reason : "incomplete");
  return read.head.value_or(RequestHead{});
}

TEST(GatewayHead, TurnsAbsoluteTargetsOfItsHostIntoPaths) {
  EXPECT_EQ(accepted("GET http://a:80/x?y HTTP/1.1\r\nHost: A:80\r\n\r\n").target, "/x?y");
  EXPECT_EQ(accepted("GET HTTP://a HTTP/1.1\r\nHost: a\r\n\r\n").target, "/");
  EXPECT_EQ(accepted("GET http://a?q HTTP/1.1\r\nHost: a\r\n\r\n").target, "/?q");
  EXPECT_EQ(accepted("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n").target, "*");
  EXPECT_EQ(accepted("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").target, "*");
  EXPECT_EQ(accepted("GET //b/%2e%2E/%00 HTTP/1.1\r\nHost: a\r\n\r\n").target, "//b/%2e%2E/%00");
}

TEST(GatewayHead, StripsConnectionAndTrustFields) {
  const RequestHead head = accepted(
      "POST / HTTP/1.1\r\nHost: a\r\nConnection: X-Private, close\r\nX-Private: 1\r\nKeep-Alive: 5\r\nTE: "
      "trailers\r\n"
      "zz-Certificate: forged\r\nZZ_Certificate: forged\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=b\r\n"
      "X-Real-IP: 1.2.3.4\r\nProxy-Authorization: x\r\nProxy-Connection: y\r\nTrailer: z\r\nContent-Length: "
      "0\r\n"
      "Accept: text/plain\r\nX-Kept: \t caf\xc3\xa9 \t\r\nx-kept: 2\r\n\r\n");
  EXPECT_EQ(head.headers,
            (HeaderList{{"Host", "a"}, {"Accept", "text/plain"}, {"X-Kept", "caf\xc3\xa9"}, {"x-kept", "2"}}));
  EXPECT_FALSE(head.keep_alive);
}

TEST(GatewayHead, DropsFieldsThatACgiServiceWouldTakeForOthers) {
  const RequestHead head = accepted(
      "GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 1.2.3.4\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\n"
      "X_Any: 1\r\n_: 2\r\nPROXY: http://evil/\r\nX-Proxy: kept\r\n\r\n");
  EXPECT_EQ(head.headers, (HeaderList{{"Host", "a"}, {"X-Proxy", "kept"}}));
}

TEST(GatewayHead, KeepsHttp10ConnectionsOpenOnlyWhenAsked) {
  EXPECT_TRUE(accepted("GET / HTTP/1.1\r\nHost: a\r\n\r\n").keep_alive);
  EXPECT_FALSE(accepted("GET / HTTP/1.0\r\nHost: a\r\n\r\n").keep_alive);
  EXPECT_TRUE(accepted("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").keep_alive);
}

TEST(GatewayHead, HearsExpectationsOnlyWhereABodyFollowsInHttp11) {
  const std::string rest = "Host: a\r\nExpect: 100-Continue\r\nContent-Length: ";
  EXPECT_FALSE(accepted("POST / HTTP/1.1\r\n" + rest + "0\r\n\r\n").expect_continue);
  EXPECT_TRUE(accepted("POST / HTTP/1.1\r\n" + rest + "1\r\n\r\nx").expect_continue);
  EXPECT_FALSE(accepted("POST / HTTP/1.0\r\n" + rest + "1\r\n\r\nx").expect_continue);
}

TEST(GatewayBody, HoldsUpToItsLimitAndNoByteMore) {
  RequestHead chunked;
  chunked.chunked = true;
  BodyReader fits(chunked, 8);
  const std::string eight = "4\r\nabcd\r\n4\r\nefgh\r\n0\r\n\r\n";
  EXPECT_EQ(fits.feed(eight), eight.size());
  EXPECT_TRUE(fits.done());
  EXPECT_EQ(fits.body(), "abcdefgh");
  BodyReader over(chunked, 8);
  over.feed("4\r\nabcd\r\n5\r\nefghi\r\n0\r\n\r\n");
  ASSERT_TRUE(over.refused());
  EXPECT_EQ(over.refusal().status, 413U);
}

TEST(GatewayBody, TakesABodyOfOneByteChunks) {
  RequestHead chunked;
  chunked.chunked = true;
  BodyReader reader(chunked, 1u << 20);
  const std::string bytes = repeated("1\r\nx\r\n", 100'000) + "0\r\n\r\n";
  EXPECT_EQ(reader.feed(bytes), bytes.size());
  EXPECT_TRUE(reader.done());
  EXPECT_EQ(reader.body().size(), 100'000U);
}

TEST(GatewayReply, CarriesLengthAndNoConnectionFields) {
  const HeaderList headers = {{"Content-Type", "text/plain"},
                              {"Connection", "close"},
                              {"Transfer-Encoding", "chunked"},
                              {"Content-Length", "999"},
                              {"Date", "now"}};
  EXPECT_EQ(render_reply_head(200, headers, 3, {.keep_alive = true}),
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: now\r\nContent-Length: 3\r\n\r\n");
  EXPECT_EQ(render_reply_head(204, {{"Date", "now"}}, 0, {.keep_alive = true}),
            "HTTP/1.1 204 No Content\r\nDate: now\r\n\r\n");
  EXPECT_EQ(render_reply_head(200, headers, 0, {.head_request = true, .keep_alive = false}),
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: now\r\nContent-Length: 999\r\nConnection: "
            "close\r\n\r\n");
  EXPECT_EQ(render_reply_head(404, {{"Date", "now"}}, 2, {.keep_alive = true, .http_1_0 = true}),
            "HTTP/1.1 404 Not Found\r\nDate: now\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n");
}

TEST(GatewayReply, IsRefusedWhenAServicePutsLinesIntoFields) {
  EXPECT_FALSE(render_reply_head(200, {{"X", "a\r\nSet-Cookie: b"}}, 0, {}).has_value());
  EXPECT_FALSE(render_reply_head(200, {{"X: y\r\nZ", "a"}}, 0, {}).has_value());
  EXPECT_FALSE(render_reply_head(200, {{"", "a"}}, 0, {}).has_value());
  EXPECT_FALSE(render_reply_head(101, {}, 0, {}).has_value());
  EXPECT_FALSE(render_reply_head(600, {}, 0, {}).has_value());
  const auto head = render_reply_head(200, {{"Content-Length", "5\r\nX: y"}}, 0, {.head_request = true});
  EXPECT_FALSE(head.has_value());
}

}  // namespace
}  // namespace zz::apps
