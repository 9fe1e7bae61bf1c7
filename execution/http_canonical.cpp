#include "execution/http_canonical.hpp"

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/rfc7230.hpp>
#include <boost/beast/http/status.hpp>
#include <boost/beast/http/verb.hpp>
#include <charconv>
#include <set>
#include <utility>

#include "execution/http_reply_body.hpp"

namespace zz::execution {

namespace http = boost::beast::http;

namespace {

constexpr std::array<std::string_view, 12> kHopByHop = {
    "connection", "expect",  "http2-settings",    "keep-alive", "proxy-authenticate", "proxy-authorization",
    "te",         "trailer", "transfer-encoding", "upgrade",    "proxy-connection",   "proxy-authentication-info"};

// Kept in every reply: what a correct service gives alike on every replica.
constexpr std::array<std::string_view, 28> kReplyFields = {"accept-ranges",
                                                           "access-control-allow-credentials",
                                                           "access-control-allow-headers",
                                                           "access-control-allow-methods",
                                                           "access-control-allow-origin",
                                                           "access-control-expose-headers",
                                                           "access-control-max-age",
                                                           "allow",
                                                           "cache-control",
                                                           "content-disposition",
                                                           "content-encoding",
                                                           "content-language",
                                                           "content-location",
                                                           "content-range",
                                                           "content-security-policy",
                                                           "content-type",
                                                           "dav",
                                                           "link",
                                                           "location",
                                                           "ms-author-via",
                                                           "pragma",
                                                           "referrer-policy",
                                                           "retry-after",
                                                           "set-cookie",
                                                           "vary",
                                                           "www-authenticate",
                                                           "x-content-type-options",
                                                           "x-frame-options"};

// Never kept, whatever the operator asks for: they differ between replicas, or are computed.
constexpr std::array<std::string_view, 4> kNeverKept = {"age", "content-length", "date", "server"};

constexpr std::string_view kNotAnOperation = "the operation is not one canonical HTTP/1.1 request";
constexpr std::string_view kTooLong = "the service's reply is longer than a reply may be";
constexpr std::string_view kUnusable = "the service's reply cannot be compared between replicas";

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

bool equal(std::string_view a, std::string_view b) { return boost::beast::iequals(a, b); }

bool is_token(std::string_view text) {
  constexpr std::string_view kPunctuation = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           kPunctuation.find(c) != std::string_view::npos;
  });
}

bool is_value(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte == '\t' || (byte >= 0x20 && byte != 0x7f);
  });
}

bool is_target(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) > 0x20 && static_cast<unsigned char>(c) != 0x7f;
  });
}

std::string_view view(boost::beast::string_view text) { return {text.data(), text.size()}; }

std::string_view trim(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

void put_field(std::string& out, std::string_view name, std::string_view value) {
  out.append(name).append(": ").append(value).append("\r\n");
}

// A body of no bytes is announced only where its absence would be odd (RFC 9110 §8.6).
bool announces_length(const HttpRequest& request) {
  const http::verb verb = request.method();
  return !request.body().empty() || verb == http::verb::post || verb == http::verb::put || verb == http::verb::patch;
}

// Header fields that Connection names, in lower case. Host and Content-Length are never meant.
std::set<std::string> named_by_connection(const HttpRequest& request) {
  std::set<std::string> out;
  const auto [begin, end] = request.equal_range(http::field::connection);
  for (auto it = begin; it != end; ++it) {
    for (const auto token : http::token_list(it->value())) out.insert(lower(view(token)));
  }
  out.erase("host");
  return out;
}

Bytes to_bytes(std::string_view text) {
  const ByteView bytes = as_bytes(text);
  return {bytes.begin(), bytes.end()};
}

struct Field {
  std::string name;  // lower case
  std::string value;
};

std::string_view phrase(unsigned status) {
  const http::status known = http::int_to_status(status);
  return known == http::status::unknown ? std::string_view("Unknown") : view(http::obsolete_reason(known));
}

Bytes render_reply(unsigned status, std::vector<Field> fields, std::string_view body) {
  std::stable_sort(fields.begin(), fields.end(), [](const Field& a, const Field& b) { return a.name < b.name; });
  std::string out = "HTTP/1.1 " + std::to_string(status) + " ";
  out.append(phrase(status)).append("\r\n");
  for (const Field& field : fields) put_field(out, field.name, field.value);
  out.append("\r\n").append(body);
  return to_bytes(out);
}

// "http://anything:PORT/path" with the service's own port becomes "/path".
std::string without_own_port(std::string_view value, std::uint16_t port) {
  constexpr std::string_view kScheme = "http://";
  if (!equal(value.substr(0, kScheme.size()), kScheme)) return std::string(value);
  const std::string_view rest = value.substr(kScheme.size());
  const std::size_t end = std::min(rest.find_first_of("/?#"), rest.size());
  if (!rest.substr(0, end).ends_with(":" + std::to_string(port))) return std::string(value);
  std::string path(rest.substr(end));
  if (!path.starts_with('/')) path.insert(path.begin(), '/');
  return path;
}

bool is_number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return !text.empty() && error == std::errc() && end == text.data() + text.size();
}

template <class Parser>
bool parse_whole(Parser& parser, ByteView bytes) {
  boost::beast::error_code error;
  parser.eager(true);
  parser.header_limit(static_cast<std::uint32_t>(kHttpHeaderBytesMax));
  parser.body_limit(bytes.size());
  const std::size_t used = parser.put(boost::asio::const_buffer(bytes.data(), bytes.size()), error);
  return !error && parser.is_done() && used == bytes.size();
}

}  // namespace

bool is_hop_by_hop_field(std::string_view name) {
  return std::any_of(kHopByHop.begin(), kHopByHop.end(), [name](std::string_view h) { return equal(h, name); });
}

Result<Bytes> make_http_operation(const HttpRequest& request, std::size_t op_bytes_max) {
  const std::string_view method = view(request.method_string());
  const std::string_view target = view(request.target());
  if (!is_token(method)) return Error{"the request's method is not a token"};
  if (!is_target(target)) return Error{"the request's target is empty or holds a character that it may not"};
  if (request.count(http::field::host) > 1) return Error{"the request has more than one Host"};
  std::string out;
  out.reserve(256 + request.body().size());
  out.append(method).append(" ").append(target).append(" HTTP/1.1\r\n");
  if (request.count(http::field::host) == 0) put_field(out, "Host", "localhost");
  const std::set<std::string> named = named_by_connection(request);
  for (const auto& field : request) {
    const std::string_view name = view(field.name_string());
    if (is_hop_by_hop_field(name) || equal(name, "content-length")) continue;
    if (!named.empty() && named.contains(lower(name))) continue;
    const std::string_view value = trim(view(field.value()));
    if (!is_token(name) || !is_value(value)) return Error{"the request has a header field that cannot be passed on"};
    put_field(out, name, value);
  }
  if (announces_length(request)) put_field(out, "Content-Length", std::to_string(request.body().size()));
  out.append("\r\n");
  if (out.size() > kHttpHeaderBytesMax) return Error{"the request's header is too long"};
  out.append(request.body());
  if (out.size() > op_bytes_max) return Error{"the request is longer than an operation may be"};
  return to_bytes(out);
}

Result<HttpRequest> read_http_operation(ByteView op) {
  http::request_parser<http::string_body> parser;
  if (!parse_whole(parser, op)) return Error{std::string(kNotAnOperation)};
  HttpRequest request = parser.release();
  const auto again = make_http_operation(request, op.size());
  if (!again || as_text(*again) != as_text(op)) return Error{std::string(kNotAnOperation)};
  return request;
}

Result<HttpResponse> read_http_reply(ByteView reply) {
  http::response_parser<http::string_body> parser;
  // A reply ends with its bytes. With nothing behind the header there is no body, whatever length is announced: HEAD.
  const std::string_view text = as_text(reply);
  const std::size_t header_end = text.find("\r\n\r\n");
  if (header_end == std::string_view::npos) return Error{"the reply is not an HTTP/1.1 response"};
  parser.skip(header_end + 4 == text.size());
  if (!parse_whole(parser, reply)) return Error{"the reply is not one whole HTTP/1.1 response"};
  return parser.release();
}

Bytes http_error_reply(unsigned status, std::string_view text) {
  std::string body(text);
  body += '\n';
  return render_reply(
      status, {{"content-length", std::to_string(body.size())}, {"content-type", "text/plain; charset=utf-8"}}, body);
}

// ---- rules -----------------------------------------------------------------------------------------------------

struct HttpRules::State {
  std::set<std::string, std::less<>> kept;
  DropPatterns patterns;
  std::size_t reply_bytes_max = 0;

  [[nodiscard]] std::vector<Field> kept_fields(const HttpResponse& response, std::uint16_t port) const;
  [[nodiscard]] Bytes bounded(unsigned status, std::vector<Field> fields, std::string_view body) const;
  [[nodiscard]] bool rewrites(unsigned status, std::string_view type, std::string_view encoding) const {
    return patterns.any_for(status) && encoding.empty() && is_textual(type);
  }
};

HttpRules::HttpRules(std::unique_ptr<const State> state) : state_(std::move(state)) {}
HttpRules::HttpRules(HttpRules&&) noexcept = default;
HttpRules& HttpRules::operator=(HttpRules&&) noexcept = default;
HttpRules::~HttpRules() = default;

Result<HttpRules> HttpRules::make(const crypto::HttpOptions& options, std::size_t reply_bytes_max) {
  auto state = std::make_unique<State>();
  state->kept.insert(kReplyFields.begin(), kReplyFields.end());
  state->reply_bytes_max = reply_bytes_max;
  for (const std::string& name : options.reply_headers) {
    const std::string low = lower(name);
    const bool never = std::find(kNeverKept.begin(), kNeverKept.end(), low) != kNeverKept.end();
    if (!is_token(low) || never || is_hop_by_hop_field(low))
      return Error{"reply_headers: \"" + name + "\" cannot be part of a reply that replicas agree on"};
    state->kept.insert(low);
  }
  auto patterns = DropPatterns::make(options.drop_body_patterns);
  if (!patterns) return Error{patterns.error()};
  state->patterns = std::move(*patterns);
  return HttpRules(std::move(state));
}

std::variant<HttpRequest, Bytes> HttpRules::admit(ByteView op) const {
  auto read = read_http_operation(op);
  if (!read) return http_error_reply(400, read.error());
  HttpRequest request = std::move(*read);
  if (request.method() == http::verb::connect) return http_error_reply(501, "CONNECT is not served");
  const bool tags = state_->kept.contains("etag");
  const bool times = state_->kept.contains("last-modified");
  const auto judged_alike = [&](http::field name, bool kept) {
    return kept || request.count(name) == 0 || view(request[name]) == "*";
  };
  if (!judged_alike(http::field::if_match, tags) || !judged_alike(http::field::if_unmodified_since, times))
    return http_error_reply(412, "this precondition cannot be judged: replies carry no such validator");
  if (!judged_alike(http::field::if_none_match, tags)) request.erase(http::field::if_none_match);
  if (!times) request.erase(http::field::if_modified_since);
  if (!tags || !times) request.erase(http::field::if_range);
  // Several ranges come back as parts between boundaries of the service's invention.
  if (view(request[http::field::range]).find(',') != std::string_view::npos) request.erase(http::field::range);
  if (!state_->patterns.empty()) request.erase(http::field::accept_encoding);
  return request;
}

std::vector<Field> HttpRules::State::kept_fields(const HttpResponse& response, std::uint16_t port) const {
  std::vector<Field> out;
  for (const auto& field : response) {
    std::string name = lower(view(field.name_string()));
    if (!kept.contains(name)) continue;
    std::string value(view(field.value()));
    if (name == "location" || name == "content-location") value = without_own_port(value, port);
    out.push_back({std::move(name), std::move(value)});
  }
  return out;
}

Bytes HttpRules::State::bounded(unsigned status, std::vector<Field> fields, std::string_view body) const {
  Bytes out = render_reply(status, std::move(fields), body);
  if (out.size() > reply_bytes_max || out.size() - body.size() > kHttpHeaderBytesMax)
    return http_error_reply(502, kTooLong);
  return out;
}

Bytes HttpRules::reply(const HttpResponse& response, const Asked& asked) const {
  const unsigned status = response.result_int();
  if (status < 200 || status > 599) return http_error_reply(502, kUnusable);
  std::vector<Field> fields = state_->kept_fields(response, asked.service_port);
  const std::string_view type = view(response[http::field::content_type]);
  const bool rewrites = state_->rewrites(status, type, view(response[http::field::content_encoding]));
  if (status == 204 || status == 304) return state_->bounded(status, std::move(fields), {});
  if (asked.head) {
    const std::string_view length = view(response[http::field::content_length]);
    if (!rewrites && is_number(length)) fields.push_back({"content-length", std::string(length)});
    return state_->bounded(status, std::move(fields), {});
  }
  std::string body = response.body();
  if (rewrites) {
    auto rewritten = state_->patterns.apply(std::move(body), status);
    if (!rewritten) return http_error_reply(502, kUnusable);
    body = std::move(*rewritten);
  }
  if (status == 207 && is_textual(type)) body = order_multistatus(std::move(body));
  fields.push_back({"content-length", std::to_string(body.size())});
  return state_->bounded(status, std::move(fields), body);
}

}  // namespace zz::execution
