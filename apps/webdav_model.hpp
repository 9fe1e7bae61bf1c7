#pragma once

// What a WebDAV server over a plain directory must answer, worked out by its client: a model of the tree,
// kept in step with the requests that one client alone makes in its own subtree. The answers are those of
// nginx 1.22 with http-dav and dav-ext (create_full_put_path off, autoindex off, no index files). Pure
// values, one thread, no IO.
//
// Paths start with '/'; one that ends with '/' names a collection. Names use only characters that need no
// percent-encoding.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace zz::apps {

enum class DavMethod { kGet, kHead, kPut, kDelete, kMkcol, kPropfind, kCopy, kMove };
std::string_view to_string(DavMethod method);

struct DavRequest {
  DavMethod method = DavMethod::kGet;
  std::string path;
  std::string body = {};         // PUT
  bool chunked = false;          // PUT: without Content-Length
  int depth = 0;                 // PROPFIND: 0 or 1
  std::string destination = {};  // COPY, MOVE: a path
  bool overwrite = true;         // COPY, MOVE
};

struct DavReply {
  unsigned status = 0;
  std::string body;
  std::optional<std::uint64_t> content_length;  // the header, where there is one
};

// One response of a multistatus.
struct DavEntry {
  std::string href;
  bool collection = false;
  std::uint64_t length = 0;  // 0 for collections
  auto operator<=>(const DavEntry&) const = default;
};
using DavListing = std::set<DavEntry>;

// Reads a 207 body (RFC 4918 §14.16), whatever prefix it uses for DAV:. Error: not well formed, an entry
// twice, a member that is missing.
Result<DavListing> parse_multistatus(std::string_view xml);

struct DavExpectation {
  enum class Body {
    kNone,       // the reply has none (201, 204, HEAD)
    kExact,      // equals `exact`
    kListing,    // a multistatus that holds `listing` and nothing else
    kErrorPage,  // the server's own page; it names the status
  };
  unsigned status = 0;
  Body body = Body::kNone;
  std::string exact = {};
  DavListing listing = {};
  std::optional<std::uint64_t> content_length = {};  // of a file, if the reply gives one (HEAD need not)
};

// Nothing when `reply` is what was expected, else one line that says what differs.
std::optional<std::string> mismatch(const DavExpectation& expected, const DavReply& reply);

class WebdavModel {
 public:
  // False for requests whose answer this model does not know (a MOVE into a missing collection, for instance).
  [[nodiscard]] bool covers(const DavRequest& request) const;
  // Requires covers(request). Answers it and changes the tree as the server must.
  DavExpectation apply(const DavRequest& request);

  [[nodiscard]] bool is_file(std::string_view path) const;
  [[nodiscard]] bool is_collection(std::string_view path) const;
  // Files and collections below the root.
  [[nodiscard]] std::size_t size() const { return tree_.size(); }

 private:
  struct Node {
    bool collection = false;
    std::string content = {};
  };
  using Tree = std::map<std::string, Node, std::less<>>;

  [[nodiscard]] const Node* find(std::string_view path) const;
  [[nodiscard]] bool below_file(std::string_view path) const;
  [[nodiscard]] bool parent_exists(std::string_view path) const;
  [[nodiscard]] DavExpectation get(const DavRequest& request) const;
  [[nodiscard]] DavExpectation list(const DavRequest& request) const;
  DavExpectation put(const DavRequest& request);  // makes missing collections on the way
  DavExpectation remove(const DavRequest& request);
  DavExpectation make_collection(const DavRequest& request);
  DavExpectation transfer(const DavRequest& request);
  void erase_below(const std::string& path);

  Tree tree_;  // by path without the final '/'; the root is not in it
};

}  // namespace zz::apps
