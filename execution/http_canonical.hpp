#pragma once

// Canonical HTTP: the bytes that are ordered and voted on for a web service (docs/protocol.md §8; RFC 9110, RFC 9112).
//
// An operation is one HTTP/1.1 request: request line, the end-to-end header fields with their names as they came, an
// exact Content-Length where there is a body, the body. Gone are hop-by-hop fields (RFC 9110 §7.6.1, with those that
// Connection names), Expect and Transfer-Encoding. There is one spelling of each operation: HttpRules refuses any
// other.
//
// A reply is one HTTP/1.1 response: status with its standard phrase, only fields that are equal on equal replicas,
// names in lower case and sorted, an exact Content-Length, the body. Dates, Server, ETag and Last-Modified depend on
// the replica; the last two are kept if the operator names them in HttpOptions.reply_headers.
//
// A drop pattern is an ECMAScript regular expression; what it matches is removed from textual bodies (text/*, XML,
// JSON). With three digits and a colon in front ("207:…") it counts for replies of that status only, so that a file
// that happens to hold such text comes back unchanged.
//
// Plain functions and const objects, any thread; linear in the size of the message.

#include <boost/beast/http/message.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/bytes.hpp"
#include "base/result.hpp"
#include "crypto/cluster.hpp"

namespace zz::execution {

using HttpRequest = boost::beast::http::request<boost::beast::http::string_body>;
using HttpResponse = boost::beast::http::response<boost::beast::http::string_body>;

inline constexpr std::size_t kHttpHeaderBytesMax = 64u << 10;    // of one operation or reply, start line included
inline constexpr std::size_t kHttpOperationBytesMax = 4u << 20;  // default of Limits.op_bytes_max

// The operation for this request. An error says why it cannot be one (a field that cannot be written, too long): the
// requester's fault.
Result<Bytes> make_http_operation(const HttpRequest& request, std::size_t op_bytes_max = kHttpOperationBytesMax);

// What make_http_operation made. Refuses everything else, in one line for people.
Result<HttpRequest> read_http_operation(ByteView op);

// What HttpRules::reply or http_error_reply made. Its Content-Length stays as it is; a reply to HEAD has an empty
// body and perhaps the length of the body that GET would give.
Result<HttpResponse> read_http_reply(ByteView reply);

// A definite reply of zz's own: text/plain, `text` and a newline. Equal arguments give equal bytes.
Bytes http_error_reply(unsigned status, std::string_view text);

// Case-insensitive, ASCII: fields that never leave a hop, with or without Connection naming them.
[[nodiscard]] bool is_hop_by_hop_field(std::string_view name);

class HttpRules {
 public:
  // An error names the pattern or header name that cannot be used.
  static Result<HttpRules> make(const crypto::HttpOptions& options, std::size_t reply_bytes_max);
  HttpRules(HttpRules&&) noexcept;
  HttpRules& operator=(HttpRules&&) noexcept;
  ~HttpRules();

  // The request that the service gets for an operation, or the reply that it gets at once (it is not an operation).
  // Preconditions on times and entity tags that are not part of replies cannot be judged alike everywhere: If-Match and
  // If-Unmodified-Since fail with 412, the others are left out, which is always allowed (RFC 9110 §13.1, §14.2).
  [[nodiscard]] std::variant<HttpRequest, Bytes> admit(ByteView op) const;

  struct Asked {
    bool head = false;
    std::uint16_t service_port = 0;  // differs between replicas: cut from Location
  };
  // The canonical form of what the service answered; 502 if it cannot have one.
  [[nodiscard]] Bytes reply(const HttpResponse& response, const Asked& asked) const;

 private:
  struct State;
  explicit HttpRules(std::unique_ptr<const State> state);
  std::unique_ptr<const State> state_;
};

}  // namespace zz::execution
