#include "apps/gateway_http.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/field.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/rfc7230.hpp>
#include <boost/beast/http/status.hpp>
#include <charconv>
#include <chrono>

#include "execution/http_canonical.hpp"

namespace zz::apps {

namespace http = boost::beast::http;

// ---- the raw head ---------------------------------------------------------------------------------------

HeadScanner::State HeadScanner::refuse(unsigned status, std::string reason) {
  refusal_ = {status, std::move(reason)};
  return State::kRefused;
}

// `c` is no line ending.
std::optional<HttpRefusal> HeadScanner::check_byte(unsigned char c) {
  if (after_cr_) return HttpRefusal{400, "a carriage return stands without its line feed"};
  const bool request_line = lines_ == 0;
  const bool tab = c == '\t';
  if ((c < 0x20 && !tab) || c == 0x7f) return HttpRefusal{400, "a control character stands in the request head"};
  if (request_line && (tab || c > 0x7e)) return HttpRefusal{400, "the request line holds more than visible ASCII"};
  if (position_ == line_begin_ && (c == ' ' || tab)) {
    return HttpRefusal{400,
                       request_line ? "the request line starts with white space" : "folded header lines are refused"};
  }
  if (request_line && position_ - line_begin_ > kTargetBytesMax + kMethodBytesMax + sizeof(" HTTP/1.1")) {
    return HttpRefusal{414, fmt::format("the request target is longer than {} bytes", kTargetBytesMax)};
  }
  return std::nullopt;
}

HeadScanner::State HeadScanner::scan(std::string_view data) {
  for (; position_ < data.size(); ++position_) {
    const auto c = static_cast<unsigned char>(data[position_]);
    if (position_ - begin_ >= header_bytes_max_) {
      return lines_ == 0 ? refuse(414, "the request line does not fit into the header limit")
                         : refuse(431, fmt::format("the request head is longer than {} bytes", header_bytes_max_));
    }
    if (c == '\r' && !after_cr_) {
      after_cr_ = true;
      continue;
    }
    if (c != '\n') {
      if (auto bad = check_byte(c)) return refuse(bad->status, std::move(bad->reason));
      continue;
    }
    if (!after_cr_) return refuse(400, "a line ends without a carriage return");
    after_cr_ = false;
    const bool empty_line = position_ - line_begin_ == 1;
    line_begin_ = position_ + 1;
    if (!empty_line) {
      if (++lines_ > kHeaderLinesMax + 1) return refuse(431, fmt::format("more than {} header lines", kHeaderLinesMax));
    } else if (lines_ > 0) {
      ++position_;
      return State::kComplete;
    } else if (skipped_empty_line_) {
      return refuse(400, "empty lines stand where a request should be");
    } else {
      skipped_empty_line_ = true;
      begin_ = line_begin_;
    }
  }
  return State::kMore;
}

// ---- fields ---------------------------------------------------------------------------------------------

namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_token_char(char c) {
  if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c)) return true;
  return std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

std::string_view view_of(boost::beast::string_view text) { return {text.data(), text.size()}; }

// zz-* fields are this system's own word to users; from outside they mean nothing. Who speaks for the client (RFC 7239
// and its ancestors) cannot be believed either. CGI-like services see '-' and '_' as one, so a name with '_' could
// stand for any field dropped or set here: all such names go. They see Proxy as HTTP_PROXY, the proxy for their own
// requests.
bool is_trust_field(std::string_view name) {
  if (name.find('_') != std::string_view::npos) return true;
  if (name.size() >= 3 && equal_names(name.substr(0, 3), "zz-")) return true;
  constexpr std::string_view kForwarded = "x-forwarded-";
  if (name.size() >= kForwarded.size() && equal_names(name.substr(0, kForwarded.size()), kForwarded)) return true;
  return equal_names(name, "forwarded") || equal_names(name, "x-real-ip") || equal_names(name, "proxy");
}

bool is_valid_host(std::string_view host) {
  if (host.empty() || host.size() > 255 + 6) return false;
  return std::all_of(host.begin(), host.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) ||
           std::string_view("-._~:[]%").find(c) != std::string_view::npos;
  });
}

std::optional<HttpRefusal> judge_method(std::string_view method) {
  if (method == "CONNECT" || method == "TRACE") {
    return HttpRefusal{501, fmt::format("{} makes no sense for a replicated service", method)};
  }
  const bool plain =
      std::all_of(method.begin(), method.end(), [](char c) { return (c >= 'A' && c <= 'Z') || c == '-'; });
  if (!plain || method.size() > kMethodBytesMax) return HttpRefusal{501, "the method is unknown"};
  return std::nullopt;
}

// Content-Length and Transfer-Encoding: exactly one way to see where the body ends (RFC 9112 §6).
std::optional<HttpRefusal> judge_framing(const HeadFields& fields, RequestHead& head, std::uint64_t body_bytes_max) {
  const std::size_t lengths = fields.count(http::field::content_length);
  const std::size_t codings = fields.count(http::field::transfer_encoding);
  if (lengths > 1) return HttpRefusal{400, "Content-Length is given more than once"};
  if (codings > 1) return HttpRefusal{400, "Transfer-Encoding is given more than once"};
  if (lengths + codings > 1) return HttpRefusal{400, "Content-Length and Transfer-Encoding are given together"};
  if (codings == 1) {
    if (head.http_1_0) return HttpRefusal{400, "HTTP/1.0 knows no Transfer-Encoding"};
    if (!equal_names(view_of(fields[http::field::transfer_encoding]), "chunked")) {
      return HttpRefusal{400, "the only Transfer-Encoding taken is chunked"};
    }
    head.chunked = true;
  }
  if (lengths == 1) {
    const std::string_view digits = view_of(fields[http::field::content_length]);
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    const bool all_digits = std::all_of(digits.begin(), digits.end(), is_digit);
    if (digits.empty() || !all_digits || digits.size() > kContentLengthDigitsMax || error != std::errc{}) {
      return HttpRefusal{400, "Content-Length is not one decimal number"};
    }
    if (value > body_bytes_max) {
      return HttpRefusal{413, fmt::format("the request body is longer than {} bytes", body_bytes_max)};
    }
    head.content_length = value;
  }
  return std::nullopt;
}

// Origin-form; absolute-form becomes origin-form when its authority is the Host; "*" for OPTIONS only (RFC 9112 §3.2).
std::optional<HttpRefusal> judge_target(std::string_view target, std::string_view host, RequestHead& head) {
  if (target.size() > kTargetBytesMax) {
    return HttpRefusal{414, fmt::format("the request target is longer than {} bytes", kTargetBytesMax)};
  }
  if (target.find('#') != std::string_view::npos) return HttpRefusal{400, "the request target holds a fragment"};
  if (target.starts_with('/')) {
    head.target = target;
    return std::nullopt;
  }
  if (target == "*") {
    if (head.method != "OPTIONS") return HttpRefusal{400, "the target * is for OPTIONS only"};
    head.target = target;
    return std::nullopt;
  }
  constexpr std::array<std::string_view, 2> kSchemes = {"http://", "https://"};
  const auto* scheme = std::find_if(kSchemes.begin(), kSchemes.end(), [&](std::string_view s) {
    return target.size() >= s.size() && equal_names(target.substr(0, s.size()), s);
  });
  if (scheme == kSchemes.end()) return HttpRefusal{400, "the request target is neither a path nor an http address"};
  const std::string_view rest = target.substr(scheme->size());
  const std::size_t end = std::min(rest.find_first_of("/?"), rest.size());
  if (!equal_names(rest.substr(0, end), host)) {
    return HttpRefusal{400, "the authority of the request target is not the Host"};
  }
  const std::string_view path = rest.substr(end);
  if (path.empty()) {
    head.target = head.method == "OPTIONS" ? "*" : "/";
  } else {
    head.target = path.front() == '/' ? std::string(path) : "/" + std::string(path);
  }
  return std::nullopt;
}

std::optional<HttpRefusal> judge_expectation(const HeadFields& fields, RequestHead& head) {
  const std::size_t expectations = fields.count(http::field::expect);
  if (expectations == 0 || head.http_1_0) return std::nullopt;  // HTTP/1.0 cannot expect (RFC 9110 §10.1.1)
  if (expectations > 1 || !equal_names(view_of(fields[http::field::expect]), "100-continue")) {
    return HttpRefusal{417, "the only expectation met is 100-continue"};
  }
  head.expect_continue = head.has_body();
  return std::nullopt;
}

// The names that Connection declares as this connection's own, in lower case; a refusal when it names what
// frames or routes a request.
std::variant<std::vector<std::string>, HttpRefusal> connection_options(const HeadFields& fields) {
  std::vector<std::string> names;
  const auto [first, last] = fields.equal_range(http::field::connection);
  for (auto field = first; field != last; ++field) {
    for (const auto& token : http::token_list(field->value())) {
      std::string name(token.data(), token.size());
      std::transform(name.begin(), name.end(), name.begin(), lower);
      if (name == "host" || name == "content-length" || name == "transfer-encoding") {
        return HttpRefusal{400, "Connection names a field that frames the request"};
      }
      names.push_back(std::move(name));
    }
  }
  return names;
}

void keep_end_to_end(const HeadFields& fields, const std::vector<std::string>& connection, RequestHead& head) {
  for (const auto& field : fields) {
    const std::string_view name = view_of(field.name_string());
    if (equal_names(name, "host") || equal_names(name, "content-length") || equal_names(name, "expect")) continue;
    if (execution::is_hop_by_hop_field(name) || is_trust_field(name)) continue;
    const bool nominated =
        std::any_of(connection.begin(), connection.end(), [&](const std::string& n) { return equal_names(n, name); });
    if (!nominated) head.headers.emplace_back(name, view_of(field.value()));
  }
}

}  // namespace

bool equal_names(std::string_view a, std::string_view b) { return boost::beast::iequals(a, b); }

bool is_field_name(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), is_token_char);
}

bool is_field_value(std::string_view value) {
  return std::none_of(value.begin(), value.end(), [](char c) {
    const auto u = static_cast<unsigned char>(c);
    return (u < 0x20 && u != '\t') || u == 0x7f;
  });
}

std::variant<RequestHead, HttpRefusal> judge_head(const HeadFields& fields, bool keep_alive,
                                                  std::uint64_t body_bytes_max) {
  RequestHead head;
  head.http_1_0 = fields.version() == 10;
  head.keep_alive = keep_alive;
  head.method = view_of(fields.method_string());
  if (auto bad = judge_framing(fields, head, body_bytes_max)) return *bad;
  if (auto bad = judge_method(head.method)) return *bad;
  const std::size_t hosts = fields.count(http::field::host);
  if (hosts > 1) return HttpRefusal{400, "Host is given more than once"};
  if (hosts == 0) return HttpRefusal{400, "Host is missing"};
  const std::string_view host = view_of(fields[http::field::host]);
  if (!is_valid_host(host)) return HttpRefusal{400, "Host is not a host name"};
  if (auto bad = judge_target(view_of(fields.target()), host, head)) return *bad;
  if (fields.count(http::field::upgrade) > 0) {
    return HttpRefusal{501, "no other protocol is spoken on this connection (Upgrade)"};
  }
  if (auto bad = judge_expectation(fields, head)) return *bad;
  auto options = connection_options(fields);
  if (auto* bad = std::get_if<HttpRefusal>(&options)) return std::move(*bad);
  head.headers.emplace_back("Host", host);
  keep_end_to_end(fields, std::get<std::vector<std::string>>(options), head);
  return head;
}

namespace {

// "HTTP/2.0" and the like are well formed but not spoken here.
HttpRefusal version_refusal(std::string_view raw) {
  const std::string_view line = raw.substr(0, raw.find('\r'));
  const std::string_view version = line.substr(std::min(line.rfind(' ') + 1, line.size()));
  const bool well_formed = version.size() == 8 && version.starts_with("HTTP/") && is_digit(version[5]) &&
                           version[6] == '.' && is_digit(version[7]);
  const bool spoken = version == "HTTP/1.1" || version == "HTTP/1.0";
  if (well_formed && !spoken) return {505, "only HTTP/1.1 and HTTP/1.0 are spoken here"};
  return {400, "the request line is not method, target and HTTP version"};
}

HttpRefusal parse_refusal(const boost::system::error_code& error, std::string_view raw) {
  if (error == http::error::bad_version) return version_refusal(raw);
  if (error == http::error::bad_method) return {400, "the request line does not start with a method"};
  if (error == http::error::bad_target) return {400, "the request target is malformed"};
  if (error == http::error::bad_field) return {400, "a header name is malformed"};
  if (error == http::error::bad_value) return {400, "a header value is malformed"};
  if (error == http::error::bad_content_length) return {400, "Content-Length is not one decimal number"};
  if (error == http::error::multiple_content_length) return {400, "Content-Length is given more than once"};
  if (error == http::error::bad_transfer_encoding) {
    return {400, "Content-Length and Transfer-Encoding are given together, or one of them twice"};
  }
  return {400, "the request head is malformed"};
}

}  // namespace

std::variant<RequestHead, HttpRefusal> read_request_head(std::string_view raw, std::uint64_t body_bytes_max) {
  http::request_parser<http::empty_body> parser;
  parser.eager(false);
  parser.header_limit(static_cast<std::uint32_t>(raw.size()));
  parser.body_limit(boost::none);  // judge_framing knows the limit
  boost::system::error_code error;
  const std::size_t used = parser.put(boost::asio::buffer(raw.data(), raw.size()), error);
  if (error) return parse_refusal(error, raw);
  if (!parser.is_header_done() || used != raw.size()) return HttpRefusal{400, "the request head is malformed"};
  return judge_head(parser.get(), parser.keep_alive(), body_bytes_max);
}

// ---- replies --------------------------------------------------------------------------------------------

namespace {

// IMF-fixdate of now (RFC 9110 §5.6.7).
std::string date_now() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  return fmt::format("{:%a, %d %b %Y %H:%M:%S} GMT", fmt::gmtime(now));
}

std::string_view reason_of(unsigned status) { return view_of(http::obsolete_reason(http::int_to_status(status))); }

std::string status_line(unsigned status) { return fmt::format("HTTP/1.1 {} {}\r\n", status, reason_of(status)); }

void append_connection(std::string& out, const ReplyShape& shape) {
  if (!shape.keep_alive) {
    out += "Connection: close\r\n";
  } else if (shape.http_1_0) {
    out += "Connection: keep-alive\r\n";
  }
}

}  // namespace

bool without_body(unsigned status, const ReplyShape& shape) {
  return shape.head_request || status == 204 || status == 304;
}

std::optional<std::string> render_reply_head(unsigned status, const HeaderList& headers, std::size_t body_size,
                                             const ReplyShape& shape) {
  if (status < 200 || status > 599) return std::nullopt;
  std::string out = status_line(status);
  bool has_date = false;
  std::string declared_length;
  for (const auto& [name, value] : headers) {
    if (!is_field_name(name) || !is_field_value(value)) return std::nullopt;
    if (equal_names(name, "content-length")) {
      if (!value.empty() && std::all_of(value.begin(), value.end(), is_digit)) declared_length = value;
      continue;
    }
    if (execution::is_hop_by_hop_field(name)) continue;
    has_date = has_date || equal_names(name, "date");
    out.append(name).append(": ").append(value).append("\r\n");
  }
  if (!has_date) out.append("Date: ").append(date_now()).append("\r\n");
  // For HEAD (and 304) the length is the one the service declares, since its body is not here to be counted.
  if (!without_body(status, shape)) {
    out += fmt::format("Content-Length: {}\r\n", body_size);
  } else if (status != 204 && !declared_length.empty()) {
    out.append("Content-Length: ").append(declared_length).append("\r\n");
  }
  append_connection(out, shape);
  out += "\r\n";
  return out;
}

std::string render_own_reply(unsigned status, std::string_view reason, const ReplyShape& shape) {
  const std::string body = fmt::format("zz gateway: {}\n", reason);
  std::string out = status_line(status);
  out += fmt::format("Content-Type: text/plain; charset=utf-8\r\nDate: {}\r\nContent-Length: {}\r\n", date_now(),
                     body.size());
  append_connection(out, shape);
  out += "\r\n";
  if (!shape.head_request) out += body;
  return out;
}

}  // namespace zz::apps
