#pragma once

// The HTTP/1.1 rules of the gateway, apart from its sockets: which request heads are let in, what becomes of
// their fields, and what a reply looks like on the wire. RFC 9110 and RFC 9112; where they leave a choice,
// the stricter one: a request that two parsers could cut differently is refused and its connection closed.
//
// Two readers must agree on every head: HeadScanner looks at the raw bytes (what Beast's parser forgives:
// folded lines, control characters, too many lines), then Beast parses, then judge_head looks at the fields.
//
// One thread per object; the functions have no state.

#include <algorithm>
#include <boost/beast/http/fields.hpp>
#include <boost/beast/http/message.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace zz::apps {

inline constexpr std::size_t kHeaderBytesCeiling = 60u << 10;  // whatever the configuration says: Beast's field limit
inline constexpr std::size_t kTargetBytesMax = 8u << 10;       // longer: 414
inline constexpr std::size_t kHeaderLinesMax = 128;            // more: 431
inline constexpr std::size_t kMethodBytesMax = 24;
inline constexpr std::size_t kContentLengthDigitsMax = 18;

// An answer of the gateway's own. After a refusal the connection is closed.
struct HttpRefusal {
  unsigned status = 400;
  std::string reason;  // one line, for people
};

// Finds the end of a request head in a growing buffer and refuses what no head may hold as soon as it is
// seen. Each byte is looked at once.
class HeadScanner {
 public:
  explicit HeadScanner(std::size_t header_bytes_max)
      : header_bytes_max_(std::min(header_bytes_max, kHeaderBytesCeiling)) {}
  enum class State { kMore, kComplete, kRefused };
  // `data`: everything received for this head so far; it only ever grows at its end.
  State scan(std::string_view data);
  // After kComplete: where the request line starts (past one empty line, RFC 9112 §2.2) and where the body starts.
  [[nodiscard]] std::size_t head_begin() const { return begin_; }
  [[nodiscard]] std::size_t head_end() const { return position_; }
  // True once the first byte of a request line was seen.
  [[nodiscard]] bool started() const { return position_ > begin_; }
  // After kRefused.
  [[nodiscard]] const HttpRefusal& refusal() const { return refusal_; }

 private:
  State refuse(unsigned status, std::string reason);
  std::optional<HttpRefusal> check_byte(unsigned char c);

  std::size_t header_bytes_max_;
  std::size_t begin_ = 0;
  std::size_t position_ = 0;
  std::size_t line_begin_ = 0;
  std::size_t lines_ = 0;  // complete ones
  bool after_cr_ = false;
  bool skipped_empty_line_ = false;
  HttpRefusal refusal_;
};

using HeaderList = std::vector<std::pair<std::string, std::string>>;

// A head that was let in.
struct RequestHead {
  std::string method;
  std::string target;  // origin-form, or "*"
  HeaderList headers;  // end-to-end fields in the order sent, Host first; framing, hop-by-hop and zz-* fields
                       // are gone
  std::optional<std::uint64_t> content_length;
  bool chunked = false;
  bool expect_continue = false;
  bool keep_alive = false;
  bool http_1_0 = false;

  [[nodiscard]] bool has_body() const { return chunked || content_length.value_or(0) > 0; }
  [[nodiscard]] bool is_head() const { return method == "HEAD"; }
};

using HeadFields = boost::beast::http::request_header<boost::beast::http::fields>;

// Parses the bytes of one complete head ([head_begin, head_end) of a scanner) and judges it.
std::variant<RequestHead, HttpRefusal> read_request_head(std::string_view raw, std::uint64_t body_bytes_max);

// Decides about a parsed head: framing, Host, target form, method, expectations.
std::variant<RequestHead, HttpRefusal> judge_head(const HeadFields& fields, bool keep_alive,
                                                  std::uint64_t body_bytes_max);

// Case-insensitive, ASCII.
bool equal_names(std::string_view a, std::string_view b);
// A field name / value that may be written to the wire.
bool is_field_name(std::string_view name);
bool is_field_value(std::string_view value);

struct ReplyShape {
  bool head_request = false;
  bool keep_alive = false;
  bool http_1_0 = false;
};
// The head of a reply, with the empty line. Adds Content-Length, Date and, where it is needed, Connection;
// drops hop-by-hop fields of `headers`. Nothing when status or a field cannot be sent (the service misbehaves).
std::optional<std::string> render_reply_head(unsigned status, const HeaderList& headers, std::size_t body_size,
                                             const ReplyShape& shape);
// True when replies of this kind carry no body on the wire.
bool without_body(unsigned status, const ReplyShape& shape);
// A whole reply of the gateway's own: text/plain, one line.
std::string render_own_reply(unsigned status, std::string_view reason, const ReplyShape& shape);

}  // namespace zz::apps
