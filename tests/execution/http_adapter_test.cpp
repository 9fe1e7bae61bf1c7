#include "execution/http_adapter.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>

#include "execution/service_process.hpp"
#include "tests/execution/driven_adapter.hpp"

namespace zz::execution::testing {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// ---- nginx -------------------------------------------------------------------------------------------------------

TEST(HttpAdapter, DrivesNginxWebdavThroughPutGetPropfindMoveAndDelete) {
  TempDir dir;
  Driven nginx(webdav(dir));
  ASSERT_EQ(nginx.start(), "");
  EXPECT_EQ(nginx.get("/a.txt"), nginx.get("/a.txt"));
  EXPECT_THAT(nginx.get("/a.txt"), StartsWith("HTTP/1.1 404 Not Found\r\n"));
  EXPECT_EQ(nginx.call(http::verb::put, "/a.txt", "hello"),
            "HTTP/1.1 201 Created\r\ncontent-length: 0\r\nlocation: /a.txt\r\n\r\n");
  EXPECT_EQ(nginx.get("/a.txt"),
            "HTTP/1.1 200 OK\r\naccept-ranges: bytes\r\ncontent-length: 5\r\ncontent-type: text/plain\r\n\r\nhello");
  EXPECT_EQ(nginx.call(http::verb::head, "/a.txt"),
            "HTTP/1.1 200 OK\r\naccept-ranges: bytes\r\ncontent-length: 5\r\ncontent-type: text/plain\r\n\r\n");
  EXPECT_EQ(nginx.call(http::verb::get, "/a.txt", "", {{"Range", "bytes=1-2"}}),
            "HTTP/1.1 206 Partial Content\r\ncontent-length: 2\r\ncontent-range: bytes 1-2/5\r\n"
            "content-type: text/plain\r\n\r\nel");
  EXPECT_THAT(nginx.call(http::verb::mkcol, "/d/"), StartsWith("HTTP/1.1 201 Created\r\n"));
  EXPECT_EQ(nginx.call(http::verb::put, "/a.txt", "again"), "HTTP/1.1 204 No Content\r\n\r\n");
  EXPECT_EQ(nginx.call(http::verb::move, "/a.txt", "", {{"Destination", "http://example.org/d/b"}}),
            "HTTP/1.1 204 No Content\r\n\r\n");
  const std::string listing = nginx.call(http::verb::propfind, "/d/", "", {{"Depth", "1"}});
  EXPECT_THAT(listing, StartsWith("HTTP/1.1 207 Multi-Status\r\n"));
  EXPECT_THAT(listing, HasSubstr("<D:href>/d/b</D:href>"));
  EXPECT_THAT(listing, HasSubstr("<D:getcontentlength>5</D:getcontentlength>"));
  EXPECT_THAT(listing, Not(HasSubstr("getlastmodified")));
  EXPECT_EQ(nginx.call(http::verb::delete_, "/d/"), "HTTP/1.1 204 No Content\r\n\r\n");
  EXPECT_THAT(nginx.get("/d/b"), StartsWith("HTTP/1.1 404 Not Found\r\n"));
  EXPECT_EQ(nginx.died, "");
}

TEST(HttpAdapter, LargeBodiesGoThroughUnchanged) {
  TempDir dir;
  Driven nginx(webdav(dir));
  ASSERT_EQ(nginx.start(), "");
  std::string body(3u << 20, '\0');
  for (std::size_t i = 0; i < body.size(); ++i) body[i] = static_cast<char>(i * 31 >> 3);
  EXPECT_THAT(nginx.call(http::verb::put, "/big", body), StartsWith("HTTP/1.1 201"));
  EXPECT_THAT(nginx.get("/big"), EndsWith("\r\n\r\n" + body));
}

TEST(HttpAdapter, TwoCopiesOfNginxGiveEqualRepliesToEqualRequests) {
  TempDir dir;
  const HttpAdapterConfig config = webdav(dir);
  Driven a(config);
  Driven b(config);
  ASSERT_EQ(a.start(), "");
  ASSERT_EQ(b.start(), "");
  EXPECT_NE(a.adapter->port(), b.adapter->port());
  std::vector<SharedBytes> script;
  const std::vector<Header> all = {{"Depth", "1"}, {"Content-Type", "application/xml"}};
  const std::string allprop = "<?xml version=\"1.0\"?><D:propfind xmlns:D=\"DAV:\"><D:allprop/></D:propfind>";
  script.push_back(operation(http::verb::mkcol, "/dir/"));
  for (int i = 0; i < 40; ++i) {
    const std::string name = "/dir/file-" + std::to_string(i * 7919 % 101) + ".txt";
    script.push_back(operation(http::verb::put, name, std::string(static_cast<std::size_t>(i * 37), 'v')));
    if (i % 5 == 0) script.push_back(operation(http::verb::propfind, "/dir/", allprop, all));
    if (i % 7 == 0) script.push_back(operation(http::verb::delete_, name));
    script.push_back(operation(http::verb::get, name));
    script.push_back(operation(http::verb::head, name));
  }
  script.push_back(operation(http::verb::get, "/dir"));  // a redirect
  script.push_back(operation(http::verb::get, "/dir/"));
  script.push_back(operation(http::verb::options, "/"));
  script.push_back(operation(http::verb::propfind, "/dir/", allprop, all));
  for (const SharedBytes& op : script) {
    const std::string first = a.call(op);
    EXPECT_THAT(first, Not(HasSubstr("no answer")));
    a.age_files();  // as if the first had run at another time: what depends on the clock differs
    EXPECT_EQ(first, b.call(op)) << op.text();
  }
  const std::string listing = a.call(script.back());
  EXPECT_THAT(listing, HasSubstr("<D:href>/dir/file-41.txt</D:href>"));
  EXPECT_EQ(listing, b.call(script.back()));
}

TEST(HttpAdapter, WithoutDropPatternsAListingHoldsTimes) {
  // The patterns are what makes the test above pass: nginx does put times into listings.
  TempDir dir;
  HttpAdapterConfig config = webdav(dir);
  config.http.drop_body_patterns.clear();
  Driven nginx(config);
  ASSERT_EQ(nginx.start(), "");
  nginx.call(http::verb::put, "/f", "x");
  EXPECT_THAT(nginx.call(http::verb::propfind, "/f", "", {{"Depth", "0"}}), HasSubstr("getlastmodified"));
}

TEST(HttpAdapter, EveryStartIsOnAFreshCopyOfTheInitialState) {
  TempDir dir;
  const HttpAdapterConfig config = webdav(dir);
  fs::create_directory(dir.path / "initial/files/given");
  std::ofstream(dir.path / "initial/files/given/f") << "from the start";
  {
    Driven first(config);
    ASSERT_EQ(first.start(), "");
    EXPECT_THAT(first.get("/given/f"), EndsWith("from the start"));
    first.call(http::verb::put, "/given/f", "changed");
  }
  Driven second(config);
  ASSERT_EQ(second.start(), "");
  EXPECT_THAT(second.get("/given/f"), EndsWith("from the start"));
}

TEST(HttpAdapter, AKilledNginxAnswers502AndIsReported) {
  TempDir dir;
  Driven nginx(webdav(dir));
  ASSERT_EQ(nginx.start(), "");
  const pid_t pid = nginx.adapter->service_pid();
  ASSERT_GT(pid, 0);
  ASSERT_EQ(kill(pid, SIGKILL), 0);
  nginx.until([&] { return !nginx.died.empty(); });
  EXPECT_THAT(nginx.died, HasSubstr("service \"web\" was killed by signal 9"));
  EXPECT_EQ(nginx.get("/"), as_text(http_error_reply(502, "the service did not answer this request")));
  EXPECT_EQ(nginx.adapter->service_pid(), -1);
}

TEST(HttpAdapter, TheEndOfTheAdapterIsTheEndOfTheService) {
  TempDir dir;
  pid_t pid = -1;
  {
    Driven nginx(webdav(dir));
    ASSERT_EQ(nginx.start(), "");
    pid = nginx.adapter->service_pid();
    ASSERT_EQ(kill(pid, 0), 0);
  }
  EXPECT_NE(kill(pid, 0), 0);
}

// ---- services that do not start ----------------------------------------------------------------------------------

TEST(HttpAdapter, ACommandThatDoesNotExistIsNamed) {
  HttpAdapterConfig config;
  config.command = {"/no/such/program", "$PORT"};
  EXPECT_EQ(Driven(config).start(), "service \"web\": cannot run \"/no/such/program\": No such file or directory");
  config.command = {};
  EXPECT_EQ(Driven(config).start(), "service \"web\": the service has no command");
}

TEST(HttpAdapter, AServiceThatEndsAtOnceIsNamedWithItsLastWord) {
  const std::string error = Driven(odd_service({"--exit"})).start();
  EXPECT_THAT(error, HasSubstr("odd_service\" exited with status 3 before it listened on $PORT"));
  EXPECT_THAT(error, EndsWith("its log ends: configuration is wrong at line 7"));
}

TEST(HttpAdapter, AServiceThatNeverListensIsGivenUpAfterItsTime) {
  HttpAdapterConfig config = odd_service({"--never"});
  config.http.start_timeout_ms = 300;
  const std::string error = Driven(config).start();
  EXPECT_THAT(error, HasSubstr("did not listen on $PORT (127.0.0.1:"));
  EXPECT_THAT(error, HasSubstr("within 300 ms; its log ends: thinking"));
}

TEST(HttpAdapter, AServiceWithABrokenConfigurationOfNginxIsNamedWithNginxOwnWords) {
  TempDir dir;
  const HttpAdapterConfig config = webdav(dir);
  std::ofstream(dir.path / "initial/nginx.conf") << "nonsense;\n";
  const std::string error = Driven(config).start();
  EXPECT_THAT(error, HasSubstr("exited with status 1"));
  EXPECT_THAT(error, HasSubstr("unknown directive \"nonsense\""));
}

TEST(HttpAdapter, AServiceThatWantsThePortForItselfStartsToo) {
  Driven service(odd_service({"--no-reuse"}));
  EXPECT_EQ(service.start(), "");
  EXPECT_THAT(service.get("/count"), EndsWith("\r\n\r\n1"));
}

TEST(HttpAdapter, ABadPatternOrStateIsNamedBeforeAnythingRuns) {
  HttpAdapterConfig config = odd_service();
  config.http.drop_body_patterns = {"("};
  EXPECT_THAT(Driven(config).start(), HasSubstr("drop_body_patterns"));
  config = odd_service();
  config.initial_state = "/no/such/directory";
  EXPECT_THAT(Driven(config).start(), HasSubstr("/no/such/directory is not a directory"));
}

// ---- services that misbehave ---------------------------------------------------------------------------------------

TEST(HttpAdapter, GivesTheServiceTheRequestAsItWasOrdered) {
  Driven service(odd_service());
  ASSERT_EQ(service.start(), "");
  EXPECT_THAT(
      service.call(http::verb::post, "/echo?x=1", "body", {{"X-A", "b"}}),
      EndsWith("\r\n\r\nPOST /echo?x=1 HTTP/1.1\r\nHost: example.org\r\nX-A: b\r\nContent-Length: 4\r\n\r\nbody"));
}

TEST(HttpAdapter, AHangingServiceGives504AndTheNextRequestIsServed) {
  HttpAdapterConfig config = odd_service();
  config.http.request_timeout_ms = 200;
  Driven service(config);
  ASSERT_EQ(service.start(), "");
  EXPECT_EQ(service.get("/hang"), as_text(http_error_reply(504, "the service did not answer this request in time")));
  EXPECT_THAT(service.get("/count"), EndsWith("\r\n\r\n2"));
}

TEST(HttpAdapter, ACrashGives502AndIsReported) {
  Driven service(odd_service());
  ASSERT_EQ(service.start(), "");
  EXPECT_EQ(service.get("/crash"), as_text(http_error_reply(502, "the service did not answer this request")));
  service.until([&] { return !service.died.empty(); });
  EXPECT_THAT(service.died, HasSubstr("was killed by signal 6"));
  EXPECT_THAT(service.get("/count"), StartsWith("HTTP/1.1 502 Bad Gateway"));
}

TEST(HttpAdapter, ARequestIsGivenToTheServiceAtMostOnce) {
  Driven service(odd_service());
  ASSERT_EQ(service.start(), "");
  EXPECT_THAT(service.get("/count"), EndsWith("\r\n\r\n1"));
  // On a connection that was used before, closing without an answer must not bring the request a second time.
  EXPECT_THAT(service.get("/close"), StartsWith("HTTP/1.1 502"));
  EXPECT_THAT(service.get("/garbage"), StartsWith("HTTP/1.1 502"));
  EXPECT_THAT(service.get("/half"), StartsWith("HTTP/1.1 502"));
  EXPECT_THAT(service.get("/count"), EndsWith("\r\n\r\n5"));
}

TEST(HttpAdapter, AConnectionThatTheServiceClosedWhileIdleIsReplaced) {
  Driven service(odd_service());
  ASSERT_EQ(service.start(), "");
  for (int i = 1; i < 20; ++i) {
    EXPECT_THAT(service.get("/close-after"), EndsWith("\r\n\r\nbye"));
    // Wait until the close has arrived, as it has by the time of a next request in a quiet service.
    const auto settled = std::chrono::steady_clock::now() + std::chrono::milliseconds(5);
    service.until([&] { return std::chrono::steady_clock::now() > settled; });
  }
  EXPECT_THAT(service.get("/count"), EndsWith("\r\n\r\n20"));
}

TEST(HttpAdapter, EveryFramingOfABodyGivesTheSameReply) {
  Driven service(odd_service());
  ASSERT_EQ(service.start(), "");
  EXPECT_EQ(service.get("/chunked"), "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcde");
  EXPECT_EQ(service.get("/until-close"), "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nthe end");
  EXPECT_EQ(service.get("/interim"), "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-type: text/plain\r\n\r\nlate");
}

TEST(HttpAdapter, AnAnswerBeforeTheWholeBodyWasReadCounts) {
  Driven service(odd_service());
  ASSERT_EQ(service.start(), "");
  EXPECT_THAT(service.call(http::verb::post, "/early", std::string(3u << 20, 'a')), StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(service.get("/count"), EndsWith("\r\n\r\n2"));
}

TEST(HttpAdapter, AReplyLongerThanTheBoundIsA502) {
  HttpAdapterConfig config = odd_service();
  config.reply_bytes_max = 2'000;
  Driven service(config);
  ASSERT_EQ(service.start(), "");
  EXPECT_EQ(service.call(http::verb::post, "/echo", std::string(3'000, 'a')),
            as_text(http_error_reply(502, "the service's reply is longer than a reply may be")));
  EXPECT_THAT(service.get("/count"), EndsWith("\r\n\r\n2"));
}

TEST(HttpAdapter, WhatIsNoRequestNeverReachesTheService) {
  Driven service(odd_service());
  ASSERT_EQ(service.start(), "");
  const SharedBytes two = SharedBytes::copy("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(service.call(two), StartsWith("HTTP/1.1 400 Bad Request"));
  EXPECT_THAT(service.get("/count"), EndsWith("\r\n\r\n1"));
}

TEST(HttpAdapter, AnEndInTheMiddleOfARequestCallsNobodyBack) {
  std::optional<SharedBytes> reply;
  Driven service(odd_service());
  ASSERT_EQ(service.start(), "");
  const int before = static_cast<int>(service.adapter->service_pid());
  service.adapter->execute({Seq{1}, Micros{1}, Digest{}, ClientId{0}, operation(http::verb::get, "/hang")},
                           [&](SharedBytes body) { reply = std::move(body); });
  service.loop.run_for(std::chrono::milliseconds(50));
  service.adapter.reset();
  service.loop.restart();
  service.loop.run();
  EXPECT_FALSE(reply.has_value());
  EXPECT_NE(kill(before, 0), 0);
}

}  // namespace
}  // namespace zz::execution::testing
