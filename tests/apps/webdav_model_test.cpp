#include "apps/webdav_model.hpp"

#include <gtest/gtest.h>

#include "apps/demo_workload.hpp"
#include "tests/apps/webdav_server.hpp"

namespace zz::apps {
namespace {

using Body = DavExpectation::Body;

class WebdavModelTest : public testing::Test {
 protected:
  DavExpectation apply(const DavRequest& request) {
    EXPECT_TRUE(model_.covers(request)) << to_string(request.method) << " " << request.path;
    return model_.apply(request);
  }
  unsigned put(const std::string& path, const std::string& body) {
    return apply({.method = DavMethod::kPut, .path = path, .body = body}).status;
  }
  unsigned status(DavMethod method, const std::string& path) { return apply({.method = method, .path = path}).status; }
  unsigned transfer(DavMethod method, const std::string& path, const std::string& destination, bool overwrite = true) {
    return apply({.method = method, .path = path, .destination = destination, .overwrite = overwrite}).status;
  }
  WebdavModel model_;
};

TEST_F(WebdavModelTest, GivesBackWhatWasPutLast) {
  EXPECT_EQ(status(DavMethod::kGet, "/a"), 404U);
  EXPECT_EQ(put("/a", "one"), 201U);
  EXPECT_EQ(put("/a", "two"), 204U);
  const DavExpectation got = apply({.method = DavMethod::kGet, .path = "/a"});
  EXPECT_EQ(got.status, 200U);
  EXPECT_EQ(got.body, Body::kExact);
  EXPECT_EQ(got.exact, "two");
  const DavExpectation head = apply({.method = DavMethod::kHead, .path = "/a"});
  EXPECT_EQ(head.body, Body::kNone);
  EXPECT_EQ(head.content_length, 3U);
  EXPECT_EQ(status(DavMethod::kDelete, "/a"), 204U);
  EXPECT_EQ(status(DavMethod::kGet, "/a"), 404U);
  EXPECT_EQ(status(DavMethod::kDelete, "/a"), 404U);
}

TEST_F(WebdavModelTest, TellsCollectionsFromFiles) {
  EXPECT_EQ(status(DavMethod::kMkcol, "/d/"), 201U);
  EXPECT_EQ(status(DavMethod::kMkcol, "/d/"), 405U);
  EXPECT_EQ(status(DavMethod::kMkcol, "/e"), 409U);
  EXPECT_EQ(status(DavMethod::kMkcol, "/x/y/"), 409U);
  EXPECT_EQ(put("/d/f", "1"), 201U);
  EXPECT_EQ(put("/d", "2"), 409U);
  EXPECT_EQ(put("/d/", "2"), 409U);
  EXPECT_EQ(status(DavMethod::kGet, "/d"), 301U);
  EXPECT_EQ(status(DavMethod::kGet, "/d/"), 403U);
  EXPECT_EQ(status(DavMethod::kGet, "/d/f/"), 404U);
  EXPECT_EQ(status(DavMethod::kDelete, "/d"), 409U);
  EXPECT_EQ(status(DavMethod::kDelete, "/d/f/"), 409U);
  EXPECT_EQ(status(DavMethod::kDelete, "/d/"), 204U);
  EXPECT_EQ(status(DavMethod::kGet, "/d/f"), 404U);
  EXPECT_EQ(model_.size(), 0U);
}

TEST_F(WebdavModelTest, MakesTheCollectionsThatAPutNeeds) {
  EXPECT_EQ(put("/a/b/c", "1"), 201U);
  EXPECT_TRUE(model_.is_collection("/a"));
  EXPECT_TRUE(model_.is_collection("/a/b/"));
  EXPECT_TRUE(model_.is_file("/a/b/c"));
  EXPECT_FALSE(model_.covers({.method = DavMethod::kPut, .path = "/a/b/c/d"}));
}

TEST_F(WebdavModelTest, ListsACollectionAndItsMembersOnly) {
  put("/d/f", "12345");
  put("/d/e/g", "1");
  put("/dd", "1");
  EXPECT_EQ(apply({.method = DavMethod::kPropfind, .path = "/d/", .depth = 1}).listing,
            (DavListing{{"/d/", true, 0}, {"/d/e/", true, 0}, {"/d/f", false, 5}}));
  EXPECT_EQ(apply({.method = DavMethod::kPropfind, .path = "/d", .depth = 0}).listing, (DavListing{{"/d", true, 0}}));
  EXPECT_EQ(apply({.method = DavMethod::kPropfind, .path = "/d/f", .depth = 1}).listing,
            (DavListing{{"/d/f", false, 5}}));
  EXPECT_EQ(status(DavMethod::kPropfind, "/nothing"), 404U);
}

TEST_F(WebdavModelTest, CopiesAndMovesFilesAndCollections) {
  put("/d/f", "1");
  put("/d/e/g", "2");
  EXPECT_EQ(transfer(DavMethod::kCopy, "/d/f", "/d/h"), 204U);
  EXPECT_EQ(transfer(DavMethod::kCopy, "/d/e/g", "/d/h", false), 412U);
  EXPECT_EQ(apply({.method = DavMethod::kGet, .path = "/d/h"}).exact, "1");
  EXPECT_EQ(transfer(DavMethod::kMove, "/d/e/g", "/d/h"), 204U);
  EXPECT_EQ(apply({.method = DavMethod::kGet, .path = "/d/h"}).exact, "2");
  EXPECT_EQ(transfer(DavMethod::kMove, "/d/e/g", "/d/h"), 404U);
  EXPECT_EQ(transfer(DavMethod::kMove, "/d/e/g", "/d/h", false), 412U);
  EXPECT_EQ(transfer(DavMethod::kCopy, "/d/", "/n/"), 201U);
  EXPECT_EQ(apply({.method = DavMethod::kGet, .path = "/n/f"}).exact, "1");
  EXPECT_EQ(transfer(DavMethod::kMove, "/d/", "/m/"), 201U);
  EXPECT_FALSE(model_.is_collection("/d"));
  EXPECT_TRUE(model_.is_collection("/m/e"));
}

TEST_F(WebdavModelTest, DoesNotPretendToKnowWhatItDoesNot) {
  put("/d/f", "1");
  const auto covers = [&](DavMethod method, const std::string& path, const std::string& to) {
    return model_.covers({.method = method, .path = path, .destination = to});
  };
  EXPECT_FALSE(covers(DavMethod::kMove, "/d/f", "/none/f"));
  EXPECT_FALSE(covers(DavMethod::kCopy, "/d/f", "/d/f"));
  EXPECT_FALSE(covers(DavMethod::kCopy, "/d/f", "/d"));
  EXPECT_FALSE(covers(DavMethod::kCopy, "/d/", "/d/e/"));
  EXPECT_FALSE(covers(DavMethod::kCopy, "/d", "/e"));
  EXPECT_FALSE(model_.covers({.method = DavMethod::kDelete, .path = "/"}));
  EXPECT_FALSE(model_.covers({.method = DavMethod::kPropfind, .path = "/", .depth = 2}));
  EXPECT_FALSE(model_.covers({.method = DavMethod::kPropfind, .path = "/d/f/", .depth = 1}));
  EXPECT_FALSE(model_.covers({.method = DavMethod::kGet, .path = "//d"}));
}

constexpr std::string_view kListing =
    "<?xml version=\"1.0\" encoding=\"utf-8\" ?>\n<D:multistatus xmlns:D=\"DAV:\">\n"
    "<D:response>\n<D:href>/d/</D:href>\n<D:propstat>\n<D:prop>\n<D:displayname>d</D:displayname>\n"
    "<D:resourcetype><D:collection/></D:resourcetype>\n<D:lockdiscovery/>\n</D:prop>\n"
    "<D:status>HTTP/1.1 200 OK</D:status>\n</D:propstat>\n</D:response>\n"
    "<D:response>\n<D:href>/d/f</D:href>\n<D:propstat>\n<D:prop>\n<D:getcontentlength>5</D:getcontentlength>\n"
    "<D:resourcetype></D:resourcetype>\n</D:prop>\n<D:status>HTTP/1.1 200 OK</D:status>\n</D:propstat>\n"
    "</D:response>\n</D:multistatus>\n";

std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string out(text);
  const std::size_t at = out.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return out.replace(at, from.size(), to);
}

TEST(Multistatus, IsReadWhateverThePrefix) {
  const DavListing expected = {{"/d/", true, 0}, {"/d/f", false, 5}};
  const auto listing = parse_multistatus(kListing);
  ASSERT_TRUE(listing.ok()) << listing.error();
  EXPECT_EQ(*listing, expected);
  std::string plain(kListing);
  for (std::size_t at = plain.find("D:"); at != std::string::npos; at = plain.find("D:", at)) plain.erase(at, 2);
  const auto other = parse_multistatus(plain);
  ASSERT_TRUE(other.ok()) << other.error();
  EXPECT_EQ(*other, expected);
}

TEST(Multistatus, IsRefusedWhenSomethingIsWrongWithIt) {
  EXPECT_FALSE(parse_multistatus("").ok());
  EXPECT_FALSE(parse_multistatus("<D:multistatus>").ok());
  EXPECT_FALSE(parse_multistatus("<html></html>").ok());
  EXPECT_FALSE(parse_multistatus(kListing.substr(0, kListing.size() / 2)).ok());
  EXPECT_FALSE(parse_multistatus(replaced(kListing, "/d/f", "/d/")).ok());  // twice
  EXPECT_FALSE(parse_multistatus(replaced(kListing, "<D:href>/d/f</D:href>", "")).ok());
  EXPECT_FALSE(parse_multistatus(replaced(kListing, ">5<", ">5x<")).ok());
  EXPECT_FALSE(parse_multistatus(replaced(kListing, ">5<", "><")).ok());
  EXPECT_FALSE(parse_multistatus(replaced(kListing, "200 OK", "404 Not Found")).ok());
}

TEST(Mismatch, NamesWhatDiffers) {
  const DavExpectation file = {.status = 200, .body = Body::kExact, .exact = "abc", .content_length = 3};
  EXPECT_FALSE(mismatch(file, {.status = 200, .body = "abc", .content_length = 3}).has_value());
  EXPECT_TRUE(mismatch(file, {.status = 200, .body = "abd", .content_length = 3}).has_value());
  EXPECT_TRUE(mismatch(file, {.status = 204, .body = "", .content_length = {}}).has_value());
  EXPECT_TRUE(mismatch(file, {.status = 200, .body = "abc", .content_length = 4}).has_value());
  const DavExpectation nothing = {.status = 204};
  EXPECT_FALSE(mismatch(nothing, {.status = 204, .body = "", .content_length = {}}).has_value());
  EXPECT_TRUE(mismatch(nothing, {.status = 204, .body = "x", .content_length = {}}).has_value());
  const DavExpectation page = {.status = 404, .body = Body::kErrorPage};
  EXPECT_FALSE(mismatch(page, {.status = 404, .body = "<h1>404 Not Found</h1>", .content_length = {}}).has_value());
  EXPECT_TRUE(mismatch(page, {.status = 404, .body = "wrong", .content_length = {}}).has_value());
  const DavExpectation listing = {
      .status = 207, .body = Body::kListing, .listing = {{"/d/", true, 0}, {"/d/f", false, 5}}};
  EXPECT_FALSE(mismatch(listing, {.status = 207, .body = std::string(kListing), .content_length = {}}).has_value());
  EXPECT_TRUE(
      mismatch(listing, {.status = 207, .body = replaced(kListing, ">5<", ">6<"), .content_length = {}}).has_value());
}

TEST(WebdavModelAgainstNginx, KnowsEveryAnswerOfARealServer) {
  WebdavServer server;
  ASSERT_NO_FATAL_FAILURE(server.start());
  WebdavClient client(server.url());
  WebdavModel model;
  const std::vector<DavRequest> requests = {
      {.method = DavMethod::kGet, .path = "/none"},
      {.method = DavMethod::kGet, .path = "/none/"},
      {.method = DavMethod::kHead, .path = "/none"},
      {.method = DavMethod::kPut, .path = "/a/b/c.dat", .body = "1"},
      {.method = DavMethod::kPut, .path = "/a/b/c.dat", .body = ""},
      {.method = DavMethod::kGet, .path = "/a/b/c.dat"},
      {.method = DavMethod::kPut, .path = "/a/t.txt", .body = std::string(100'000, 'x'), .chunked = true},
      {.method = DavMethod::kGet, .path = "/a/t.txt"},
      {.method = DavMethod::kHead, .path = "/a/t.txt"},
      {.method = DavMethod::kGet, .path = "/a"},
      {.method = DavMethod::kHead, .path = "/a"},
      {.method = DavMethod::kGet, .path = "/a/"},
      {.method = DavMethod::kHead, .path = "/a/"},
      {.method = DavMethod::kGet, .path = "/a/t.txt/"},
      {.method = DavMethod::kGet, .path = "/a/t.txt/below"},
      {.method = DavMethod::kPut, .path = "/a", .body = "x"},
      {.method = DavMethod::kPut, .path = "/a/", .body = "x"},
      {.method = DavMethod::kPut, .path = "/new/", .body = "x"},
      {.method = DavMethod::kMkcol, .path = "/a/"},
      {.method = DavMethod::kMkcol, .path = "/a/t.txt/"},
      {.method = DavMethod::kMkcol, .path = "/a/t.txt/below/"},
      {.method = DavMethod::kMkcol, .path = "/new"},
      {.method = DavMethod::kMkcol, .path = "/x/y/"},
      {.method = DavMethod::kMkcol, .path = "/new/"},
      {.method = DavMethod::kPropfind, .path = "/", .depth = 1},
      {.method = DavMethod::kPropfind, .path = "/a", .depth = 1},
      {.method = DavMethod::kPropfind, .path = "/a/", .depth = 0},
      {.method = DavMethod::kPropfind, .path = "/a/t.txt", .depth = 1},
      {.method = DavMethod::kPropfind, .path = "/none/", .depth = 1},
      {.method = DavMethod::kCopy, .path = "/a/t.txt", .destination = "/new/t.txt"},
      {.method = DavMethod::kCopy, .path = "/a/b/c.dat", .destination = "/new/t.txt", .overwrite = false},
      {.method = DavMethod::kGet, .path = "/new/t.txt"},
      {.method = DavMethod::kMove, .path = "/a/b/c.dat", .destination = "/new/t.txt"},
      {.method = DavMethod::kGet, .path = "/new/t.txt"},
      {.method = DavMethod::kMove, .path = "/a/b/c.dat", .destination = "/new/u.txt"},
      {.method = DavMethod::kMove, .path = "/a/b/c.dat", .destination = "/new/u.txt", .overwrite = false},
      {.method = DavMethod::kMove, .path = "/a/b/c.dat", .destination = "/new/t.txt", .overwrite = false},
      {.method = DavMethod::kCopy, .path = "/a/", .destination = "/copy/"},
      {.method = DavMethod::kMove, .path = "/copy/", .destination = "/moved/"},
      {.method = DavMethod::kPropfind, .path = "/moved/", .depth = 1},
      {.method = DavMethod::kGet, .path = "/copy/t.txt"},
      {.method = DavMethod::kDelete, .path = "/moved"},
      {.method = DavMethod::kDelete, .path = "/moved/t.txt/"},
      {.method = DavMethod::kDelete, .path = "/moved/t.txt/below"},
      {.method = DavMethod::kDelete, .path = "/moved/"},
      {.method = DavMethod::kDelete, .path = "/moved/"},
      {.method = DavMethod::kDelete, .path = "/none"},
      {.method = DavMethod::kPropfind, .path = "/", .depth = 1},
  };
  for (const DavRequest& request : requests) {
    SCOPED_TRACE(std::string(to_string(request.method)) + " " + request.path + " " + request.destination);
    ASSERT_TRUE(model.covers(request));
    const DavExpectation expected = model.apply(request);
    const auto reply = client.perform(request);
    ASSERT_TRUE(reply.ok()) << reply.error();
    EXPECT_EQ(mismatch(expected, *reply), std::nullopt);
  }
}

TEST(WebdavModelAgainstNginx, KnowsEveryAnswerToTheDemosUsers) {
  WebdavServer server;
  ASSERT_NO_FATAL_FAILURE(server.start());
  DavUsers users(server.url(), 3, 20261121);
  const auto finish = [&] {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!users.idle()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      std::this_thread::yield();
    }
  };
  users.grant(3'000);
  ASSERT_NO_FATAL_FAILURE(finish());
  EXPECT_EQ(users.counts().requests, 3'000U);
  users.grant_read_back();
  ASSERT_NO_FATAL_FAILURE(finish());
  const DavCounts counts = users.counts();
  EXPECT_GT(counts.requests, 3'000U + 3 * 10);
  EXPECT_EQ(counts.accepted, counts.requests);
  EXPECT_EQ(users.connections(), 3);
  for (const std::string& complaint : users.complaints()) ADD_FAILURE() << complaint;
}

}  // namespace
}  // namespace zz::apps
