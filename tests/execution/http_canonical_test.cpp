#include "execution/http_canonical.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/beast/http/verb.hpp>

#include "execution/http_reply_body.hpp"

namespace zz::execution {
namespace {

namespace http = boost::beast::http;
using ::testing::HasSubstr;
using ::testing::Not;

HttpRequest request(http::verb verb, const std::string& target, const std::string& body = {}) {
  HttpRequest out(verb, target, 11);
  out.set(http::field::host, "example.org");
  out.body() = body;
  return out;
}

std::string operation(const HttpRequest& req) {
  const auto made = make_http_operation(req);
  EXPECT_TRUE(made.ok());
  return made.ok() ? std::string(as_text(*made)) : std::string();
}

HttpResponse response(unsigned status, const std::string& type, const std::string& body) {
  HttpResponse out;
  out.version(11);
  out.result(status);
  out.set(http::field::content_type, type);
  out.body() = body;
  out.prepare_payload();
  return out;
}

HttpRules rules(const crypto::HttpOptions& options = {}, std::size_t bytes_max = 1u << 20) {
  auto made = HttpRules::make(options, bytes_max);
  EXPECT_TRUE(made.ok());
  return std::move(made).value();
}

std::string canonical(const HttpResponse& res, const HttpRules& by, bool head = false, std::uint16_t port = 0) {
  return std::string(as_text(by.reply(res, {head, port})));
}

// ---- operations ------------------------------------------------------------------------------------------------

TEST(HttpOperation, IsOneRequestWithAnExactContentLength) {
  HttpRequest req = request(http::verb::put, "/a%20b?c=d", "hello");
  req.set("X-Custom-Name", "v");
  req.set(http::field::content_length, "17");
  EXPECT_EQ(operation(req),
            "PUT /a%20b?c=d HTTP/1.1\r\nHost: example.org\r\nX-Custom-Name: v\r\nContent-Length: 5\r\n\r\nhello");
}

TEST(HttpOperation, AnEmptyBodyIsAnnouncedOnlyWhereABodyIsExpected) {
  EXPECT_EQ(operation(request(http::verb::get, "/")), "GET / HTTP/1.1\r\nHost: example.org\r\n\r\n");
  EXPECT_EQ(operation(request(http::verb::post, "/")),
            "POST / HTTP/1.1\r\nHost: example.org\r\nContent-Length: 0\r\n\r\n");
}

TEST(HttpOperation, LosesHopByHopFieldsAndThoseThatConnectionNames) {
  HttpRequest req = request(http::verb::get, "/");
  for (const char* name : {"Keep-Alive", "TE", "Trailer", "Upgrade", "Proxy-Connection", "Proxy-Authorization",
                           "Expect", "Transfer-Encoding", "HTTP2-Settings"})
    req.set(name, "x");
  req.insert("Connection", "close, X-Secret");
  req.insert("Connection", "x-other, Host, Content-Length");
  req.set("X-Secret", "1");
  req.set("X-Other", "2");
  req.set("X-Kept", "3");
  EXPECT_EQ(operation(req), "GET / HTTP/1.1\r\nHost: example.org\r\nX-Kept: 3\r\n\r\n");
}

TEST(HttpOperation, GetsAHostWhereAnOldClientSentNone) {
  HttpRequest req(http::verb::get, "/", 10);
  EXPECT_EQ(operation(req), "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
}

TEST(HttpOperation, KeepsRepeatedFieldsAndUnknownMethods) {
  HttpRequest req = request(http::verb::get, "/");
  req.method_string("BREW");
  req.insert("Cookie", "a=1");
  req.insert("Cookie", "b=2");
  EXPECT_EQ(operation(req), "BREW / HTTP/1.1\r\nHost: example.org\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n");
}

TEST(HttpOperation, RefusesWhatCannotBeWrittenOnTheWire) {
  HttpRequest req = request(http::verb::get, "/");
  req.set("X-A", "b\r\nX-Injected: 1");
  EXPECT_FALSE(make_http_operation(req).ok());
  EXPECT_FALSE(make_http_operation(request(http::verb::get, "/a b")).ok());
  EXPECT_FALSE(make_http_operation(request(http::verb::get, "")).ok());
  req = request(http::verb::get, "/");
  req.insert("Host", "other.org");
  EXPECT_FALSE(make_http_operation(req).ok());
}

TEST(HttpOperation, RefusesWhatIsLongerThanAnOperationMayBe) {
  EXPECT_FALSE(make_http_operation(request(http::verb::put, "/", std::string(1'000, 'a')), 1'000).ok());
  EXPECT_TRUE(make_http_operation(request(http::verb::put, "/", std::string(1'000, 'a')), 1'100).ok());
  EXPECT_FALSE(make_http_operation(request(http::verb::get, "/" + std::string(kHttpHeaderBytesMax, 'a'))).ok());
}

TEST(HttpOperation, ComesBackAsTheSameRequest) {
  HttpRequest req = request(http::verb::put, "/x", std::string("\0\r\n\r\nbinary", 12));
  req.set("X-A", " padded ");
  const std::string op = operation(req);
  const auto read = read_http_operation(as_bytes(op));
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->body(), req.body());
  EXPECT_EQ(read->method(), http::verb::put);
  EXPECT_EQ(operation(*read), op);
}

TEST(HttpOperation, HasOneSpellingAndEveryOtherIsRefused) {
  const std::string good = "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
  ASSERT_TRUE(read_http_operation(as_bytes(good)).ok());
  const std::vector<std::string> bad = {
      "",
      "x",
      good.substr(0, good.size() - 1),
      good + "x",
      good + good,
      "PUT /x HTTP/1.0\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
      "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 02\r\n\r\nhi",
      "PUT /x HTTP/1.1\r\nHost:  a\r\nContent-Length: 2\r\n\r\nhi",
      "PUT /x HTTP/1.1\r\nContent-Length: 2\r\nHost: a\r\n\r\nhi",
      "PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
      "PUT /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
      "PUT /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
      "PUT /x HTTP/1.1\r\nHost: a\r\nX: b\r\n  folded\r\nContent-Length: 2\r\n\r\nhi",
      "PUT /x HTTP/1.1\nHost: a\nContent-Length: 2\n\nhi",
      "GET /x HTTP/1.1\r\nContent-Length: 0\r\nHost: a\r\n\r\n",
      "GET /x HTTP/1.1\r\n\r\n",
  };
  for (const std::string& op : bad) {
    EXPECT_FALSE(read_http_operation(as_bytes(op)).ok()) << op;
    const auto admitted = rules().admit(as_bytes(op));
    ASSERT_TRUE(std::holds_alternative<Bytes>(admitted)) << op;
    EXPECT_THAT(std::string(as_text(std::get<Bytes>(admitted))), HasSubstr("400 Bad Request"));
  }
}

// ---- what the service gets ---------------------------------------------------------------------------------------

HttpRequest admitted(const HttpRules& by, const HttpRequest& req) {
  const std::string op = operation(req);
  auto out = by.admit(as_bytes(op));
  EXPECT_TRUE(std::holds_alternative<HttpRequest>(out));
  return std::holds_alternative<HttpRequest>(out) ? std::get<HttpRequest>(out) : HttpRequest();
}

TEST(HttpRules, PreconditionsThatReplicasWouldJudgeDifferentlyAreLeftOut) {
  HttpRequest req = request(http::verb::get, "/");
  req.set("If-None-Match", "\"abc\"");
  req.set("If-Modified-Since", "Sat, 29 Oct 1994 19:43:31 GMT");
  req.set("If-Range", "\"abc\"");
  req.set("Range", "bytes=0-3");
  const HttpRequest out = admitted(rules(), req);
  EXPECT_EQ(out.count("If-None-Match") + out.count("If-Modified-Since") + out.count("If-Range"), 0u);
  EXPECT_EQ(out["Range"], "bytes=0-3");
  crypto::HttpOptions options;
  options.reply_headers = {"ETag", "Last-Modified"};
  const HttpRequest kept = admitted(rules(options), req);
  EXPECT_EQ(kept.count("If-None-Match") + kept.count("If-Modified-Since") + kept.count("If-Range"), 3u);
}

TEST(HttpRules, APreconditionThatMayNotBeLeftOutFails) {
  HttpRequest req = request(http::verb::put, "/", "x");
  req.set("If-Match", "\"abc\"");
  const std::string op = operation(req);
  const auto out = rules().admit(as_bytes(op));
  ASSERT_TRUE(std::holds_alternative<Bytes>(out));
  EXPECT_THAT(std::string(as_text(std::get<Bytes>(out))), HasSubstr("412 Precondition Failed"));
  req.set("If-Match", "*");
  EXPECT_EQ(admitted(rules(), req)["If-Match"], "*");
}

TEST(HttpRules, AskForOnePartAndForPlainTextWherePatternsApply) {
  HttpRequest req = request(http::verb::get, "/");
  req.set("Range", "bytes=0-3,5-9");
  req.set("Accept-Encoding", "gzip");
  EXPECT_EQ(admitted(rules(), req).count("Range"), 0u);
  EXPECT_EQ(admitted(rules(), req).count("Accept-Encoding"), 1u);
  crypto::HttpOptions options;
  options.drop_body_patterns = {"x"};
  EXPECT_EQ(admitted(rules(options), req).count("Accept-Encoding"), 0u);
}

// ---- replies -----------------------------------------------------------------------------------------------------

TEST(HttpReply, KeepsChosenFieldsSortedAndNothingThatDiffersBetweenReplicas) {
  HttpResponse res = response(200, "text/plain", "hello");
  res.reason("Fine By Me");
  res.set("Date", "Sat, 21 Nov 2026 22:17:56 GMT");
  res.set("Server", "nginx");
  res.set("ETag", "\"1\"");
  res.set("Last-Modified", "Sat, 21 Nov 2026 22:17:56 GMT");
  res.set("Connection", "keep-alive");
  res.set("Keep-Alive", "timeout=5");
  res.set("X-Request-Id", "17");
  res.set("Vary", "Accept");
  res.insert("Set-Cookie", "z=1");
  res.insert("Set-Cookie", "a=2");
  EXPECT_EQ(canonical(res, rules()),
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-type: text/plain\r\nset-cookie: z=1\r\n"
            "set-cookie: a=2\r\nvary: Accept\r\n\r\nhello");
}

TEST(HttpReply, KeepsFieldsThatTheOperatorNames) {
  crypto::HttpOptions options;
  options.reply_headers = {"ETag", "X-Request-Id"};
  HttpResponse res = response(200, "text/plain", "a");
  res.set("Etag", "\"1\"");
  res.set("x-request-id", "17");
  EXPECT_THAT(canonical(res, rules(options)), HasSubstr("etag: \"1\"\r\nx-request-id: 17\r\n"));
}

TEST(HttpReply, DateServerAndHopByHopFieldsCannotBeChosen) {
  for (const char* name : {"Date", "server", "Connection", "Transfer-Encoding", "Content-Length", "Age", "a b", ""}) {
    crypto::HttpOptions options;
    options.reply_headers = {name};
    const auto made = HttpRules::make(options, 1'000);
    ASSERT_FALSE(made.ok()) << name;
    EXPECT_THAT(made.error(), HasSubstr("reply_headers"));
  }
}

TEST(HttpReply, ToHeadCarriesTheLengthAndNoBody) {
  HttpResponse res;
  res.result(200);
  res.set(http::field::content_type, "application/octet-stream");
  res.set(http::field::content_length, "1234");
  const std::string bytes = canonical(res, rules(), true);
  EXPECT_EQ(bytes, "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\ncontent-type: application/octet-stream\r\n\r\n");
  const auto read = read_http_reply(as_bytes(bytes));
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->body(), "");
  EXPECT_EQ((*read)[http::field::content_length], "1234");
}

TEST(HttpReply, ToHeadHasNoLengthWhereTheBodyWouldBeRewritten) {
  crypto::HttpOptions options;
  options.drop_body_patterns = {"time=[0-9]+"};
  HttpResponse res;
  res.result(200);
  res.set(http::field::content_type, "text/html");
  res.set(http::field::content_length, "1234");
  EXPECT_EQ(canonical(res, rules(options), true), "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n");
  options.drop_body_patterns = {"207:time=[0-9]+"};
  EXPECT_THAT(canonical(res, rules(options), true), HasSubstr("content-length: 1234\r\n"));
}

TEST(HttpReply, WithStatus204Or304HasNeitherBodyNorLength) {
  HttpResponse res;
  res.result(204);
  res.set(http::field::content_length, "7");
  EXPECT_EQ(canonical(res, rules()), "HTTP/1.1 204 No Content\r\n\r\n");
  res.result(304);
  EXPECT_EQ(canonical(res, rules()), "HTTP/1.1 304 Not Modified\r\n\r\n");
  EXPECT_TRUE(read_http_reply(as_bytes("HTTP/1.1 204 No Content\r\n\r\n")).ok());
}

TEST(HttpReply, AStatusWithoutAStandardPhraseIsStillOneReply) {
  const std::string bytes = canonical(response(299, "text/plain", "a"), rules());
  EXPECT_THAT(bytes, ::testing::StartsWith("HTTP/1.1 299 Unknown\r\n"));
  ASSERT_TRUE(read_http_reply(as_bytes(bytes)).ok());
  EXPECT_EQ(read_http_reply(as_bytes(bytes))->result_int(), 299u);
  EXPECT_THAT(canonical(response(799, "text/plain", "a"), rules()), ::testing::StartsWith("HTTP/1.1 502 "));
}

TEST(HttpReply, LosesTheReplicasOwnPortFromLocations) {
  HttpResponse res = response(301, "text/html", "");
  res.set("Location", "http://127.0.0.1:4711/d/");
  EXPECT_THAT(canonical(res, rules(), false, 4711), HasSubstr("location: /d/\r\n"));
  res.set("Location", "http://example.org:4711?q");
  EXPECT_THAT(canonical(res, rules(), false, 4711), HasSubstr("location: /?q\r\n"));
  res.set("Location", "http://example.org:4712/d/");
  EXPECT_THAT(canonical(res, rules(), false, 4711), HasSubstr("location: http://example.org:4712/d/\r\n"));
  res.set("Location", "/d/");
  EXPECT_THAT(canonical(res, rules(), false, 4711), HasSubstr("location: /d/\r\n"));
}

TEST(HttpReply, LongerThanAReplyMayBeIsA502) {
  const HttpRules by = rules({}, 1'000);
  EXPECT_THAT(canonical(response(200, "text/plain", std::string(1'000, 'a')), by), HasSubstr("502 Bad Gateway"));
  EXPECT_THAT(canonical(response(200, "text/plain", std::string(800, 'a')), by), HasSubstr("200 OK"));
}

TEST(HttpReply, DropPatternsApplyToTextualBodiesOnly) {
  crypto::HttpOptions options;
  options.drop_body_patterns = {"at [0-9:]+", "207:<t>[^<]*</t>"};
  const HttpRules by = rules(options);
  for (const char* type : {"text/plain", "Text/HTML; charset=utf-8", "application/xml", "application/json",
                           "application/problem+json", "image/svg+xml"})
    EXPECT_THAT(canonical(response(200, type, "made at 10:30."), by), HasSubstr("\r\n\r\nmade .")) << type;
  for (const char* type : {"application/octet-stream", "application/xmlish", "image/png"})
    EXPECT_THAT(canonical(response(200, type, "made at 10:30."), by), HasSubstr("made at 10:30.")) << type;
  HttpResponse packed = response(200, "text/plain", "made at 10:30.");
  packed.set("Content-Encoding", "gzip");
  EXPECT_THAT(canonical(packed, by), HasSubstr("made at 10:30."));
  EXPECT_THAT(canonical(response(200, "text/xml", "<t>x</t>"), by), HasSubstr("<t>x</t>"));
  EXPECT_THAT(canonical(response(207, "text/xml", "<t>x</t>"), by), Not(HasSubstr("<t>")));
}

TEST(HttpReply, AnExpressionThatCannotBeUsedIsNamed) {
  crypto::HttpOptions options;
  options.drop_body_patterns = {"207:(unclosed"};
  const auto made = HttpRules::make(options, 1'000);
  ASSERT_FALSE(made.ok());
  EXPECT_THAT(made.error(), HasSubstr("207:(unclosed"));
}

TEST(HttpReply, AHugeMatchNeitherOverflowsTheStackNorHangs) {
  crypto::HttpOptions options;
  options.drop_body_patterns = {"<t>[^<]*</t>", "(a*)*b"};
  const HttpRules by = rules(options, 8u << 20);
  const std::string huge = "<t>" + std::string(4u << 20, 'x');
  // Unmatched to the end, or given up: a definite reply either way.
  EXPECT_THAT(canonical(response(200, "text/plain", huge), by).substr(0, 12),
              ::testing::AnyOf("HTTP/1.1 200", "HTTP/1.1 502"));
  EXPECT_EQ(canonical(response(200, "text/plain", std::string(64, 'a')), by),
            canonical(response(200, "text/plain", std::string(64, 'a')), by));
}

TEST(HttpReply, ErrorRepliesAreRepliesAndEqualForEqualCauses) {
  const Bytes made = http_error_reply(504, "too slow");
  EXPECT_EQ(as_text(made),
            "HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 9\r\ncontent-type: text/plain; charset=utf-8\r\n\r\n"
            "too slow\n");
  const auto read = read_http_reply(made);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->result_int(), 504u);
  EXPECT_EQ(read->body(), "too slow\n");
}

TEST(HttpReply, OneThatIsCutOrPaddedIsRefused) {
  const std::string good = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
  ASSERT_TRUE(read_http_reply(as_bytes(good)).ok());
  for (const std::string& bad : {std::string(), std::string("hi"), good.substr(0, good.size() - 1), good + "x",
                                 std::string("HTTP/1.1 200 OK\r\n")})
    EXPECT_FALSE(read_http_reply(as_bytes(bad)).ok()) << bad;
}

// ---- listings ----------------------------------------------------------------------------------------------------

std::string multistatus(const std::vector<std::string>& hrefs, const std::string& tail = "") {
  std::string out = "<?xml version=\"1.0\"?>\n<D:multistatus xmlns:D=\"DAV:\">\n";
  for (const std::string& href : hrefs)
    out += "<D:response>\n<D:href>" + href + "</D:href>\n<D:status>HTTP/1.1 200 OK</D:status>\n</D:response>\n";
  return out + tail + "</D:multistatus>";
}

TEST(Multistatus, OrderOfTheListingDoesNotMatter) {
  const std::string a = order_multistatus(multistatus({"/d/", "/d/b", "/d/a", "/d/c"}));
  EXPECT_EQ(a, order_multistatus(multistatus({"/d/c", "/d/a", "/d/", "/d/b"})));
  EXPECT_EQ(a, multistatus({"/d/", "/d/a", "/d/b", "/d/c"}));
  const std::string tail = "<D:responsedescription>x</D:responsedescription>\n";
  EXPECT_EQ(order_multistatus(multistatus({"/b", "/a"}, tail)), multistatus({"/a", "/b"}, tail));
}

TEST(Multistatus, WorksWithoutLineBreaksAndWithADefaultNamespace) {
  const std::string text =
      "<multistatus "
      "xmlns=\"DAV:\"><response><href>/b</href></response><response><href>/a</href></response></multistatus>";
  const std::string swapped =
      "<multistatus "
      "xmlns=\"DAV:\"><response><href>/a</href></response><response><href>/b</href></response></multistatus>";
  EXPECT_EQ(order_multistatus(text), order_multistatus(swapped));
}

TEST(Multistatus, AnythingElseStaysAsItIs) {
  for (const std::string text :
       {"", "plain", "<a><response/><response/></a>", "<D:multistatus><D:response>",
        "<multistatus><response/></multistatus>", "<multistatus><response/><x/><response/></multistatus>"})
    EXPECT_EQ(order_multistatus(text), text);
}

}  // namespace
}  // namespace zz::execution
