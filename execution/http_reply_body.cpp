#include "execution/http_reply_body.hpp"

#include <algorithm>
#include <boost/algorithm/string/predicate.hpp>
#include <cctype>
#include <pugixml.hpp>
#include <stdexcept>
#include <utility>

namespace zz::execution {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// "207:rest" becomes 207 and "rest".
std::pair<unsigned, std::string> split_status(const std::string& text) {
  if (text.size() < 4 || !is_digit(text[0]) || !is_digit(text[1]) || !is_digit(text[2]) || text[3] != ':')
    return {0, text};
  return {static_cast<unsigned>(std::stoul(text.substr(0, 3))), text.substr(4)};
}

std::string_view local_name(const char* qualified) {
  const std::string_view name(qualified);
  const std::size_t colon = name.find(':');
  return colon == std::string_view::npos ? name : name.substr(colon + 1);
}

std::string_view trim_end(std::string_view text) {
  const std::size_t last = text.find_last_not_of(" \t\r\n");
  return last == std::string_view::npos ? std::string_view() : text.substr(0, last + 1);
}

std::string href_of(const pugi::xml_node& response) {
  for (const pugi::xml_node& child : response.children()) {
    if (child.type() == pugi::node_element && local_name(child.name()) == "href") return child.text().get();
  }
  return {};
}

struct Piece {
  std::size_t begin = 0;
  std::string href;
  std::string_view text;
};

// Where each response begins, and where the last one ends; nothing if there are none or something stands between.
std::optional<std::pair<std::vector<Piece>, std::size_t>> find_responses(const pugi::xml_node& root,
                                                                         std::string_view body) {
  std::vector<Piece> pieces;
  std::size_t end = body.rfind("</");
  bool ended = false;
  for (const pugi::xml_node& child : root.children()) {
    if (child.type() != pugi::node_element) continue;
    const std::ptrdiff_t name_at = child.offset_debug();
    if (name_at <= 0 || static_cast<std::size_t>(name_at) > body.size()) return std::nullopt;
    const auto begin = static_cast<std::size_t>(name_at) - 1;
    if (local_name(child.name()) == "response") {
      if (ended) return std::nullopt;
      pieces.push_back({begin, href_of(child), {}});
    } else if (!pieces.empty() && !ended) {
      ended = true;
      end = begin;
    }
  }
  if (pieces.size() < 2 || end == std::string_view::npos || end <= pieces.back().begin) return std::nullopt;
  return std::pair{std::move(pieces), end};
}

}  // namespace

Result<DropPatterns> DropPatterns::make(const std::vector<std::string>& patterns) {
  DropPatterns out;
  for (const std::string& text : patterns) {
    auto [status, expression] = split_status(text);
    try {
      out.patterns_.push_back({status, boost::regex(expression, boost::regex::ECMAScript)});
    } catch (const std::exception& bad) {
      return Error{"drop_body_patterns: \"" + text + "\" is no regular expression: " + bad.what()};
    }
  }
  return out;
}

bool DropPatterns::any_for(unsigned status) const {
  return std::any_of(patterns_.begin(), patterns_.end(),
                     [status](const Pattern& pattern) { return pattern.status == 0 || pattern.status == status; });
}

std::optional<std::string> DropPatterns::apply(std::string body, unsigned status) const {
  for (const Pattern& pattern : patterns_) {
    if (pattern.status != 0 && pattern.status != status) continue;
    try {
      // Boost's matcher keeps its own bounded stack and gives up by exception; std::regex recurses once per character.
      body = boost::regex_replace(body, pattern.expression, "", boost::match_default | boost::match_not_dot_newline);
    } catch (const std::runtime_error&) {
      return std::nullopt;
    }
  }
  return body;
}

bool is_textual(std::string_view content_type) {
  const std::string_view type = trim_end(content_type.substr(0, content_type.find(';')));
  if (boost::algorithm::istarts_with(type, "text/")) return true;
  for (const std::string_view kind : {"xml", "json"}) {
    if (!boost::algorithm::iends_with(type, kind) || type.size() == kind.size()) continue;
    const char before = type[type.size() - kind.size() - 1];
    if (before == '/' || before == '+') return true;
  }
  return false;
}

std::string order_multistatus(std::string body) {
  pugi::xml_document document;
  const auto parsed = document.load_buffer(body.data(), body.size(), pugi::parse_default, pugi::encoding_utf8);
  if (!parsed || local_name(document.document_element().name()) != "multistatus") return body;
  auto found = find_responses(document.document_element(), body);
  if (!found) return body;
  auto& [pieces, end] = *found;
  const std::string_view whole(body);
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const std::size_t stop = i + 1 < pieces.size() ? pieces[i + 1].begin : end;
    pieces[i].text = trim_end(whole.substr(pieces[i].begin, stop - pieces[i].begin));
  }
  const std::string_view head = whole.substr(0, pieces.front().begin);
  const std::string_view tail = whole.substr(end);
  std::sort(pieces.begin(), pieces.end(),
            [](const Piece& a, const Piece& b) { return std::tie(a.href, a.text) < std::tie(b.href, b.text); });
  std::string out;
  out.reserve(body.size() + pieces.size());
  out += head;
  for (const Piece& piece : pieces) {
    out += piece.text;
    out += '\n';
  }
  out += tail;
  return out;
}

}  // namespace zz::execution
