#include "apps/webdav_model.hpp"

#include <fmt/format.h>

#include <charconv>
#include <pugixml.hpp>
#include <utility>
#include <vector>

#include "base/assert.hpp"

namespace zz::apps {

namespace {

using Body = DavExpectation::Body;

bool names_collection(std::string_view path) { return path.ends_with('/'); }

std::string_view trimmed(std::string_view path) {
  while (path.ends_with('/')) path.remove_suffix(1);
  return path;
}

std::string_view parent_of(std::string_view path) {
  const std::string_view bare = trimmed(path);
  return bare.substr(0, bare.rfind('/'));
}

DavExpectation error_page(unsigned status) { return {.status = status, .body = Body::kErrorPage}; }

}  // namespace

std::string_view to_string(DavMethod method) {
  switch (method) {
    case DavMethod::kGet:
      return "GET";
    case DavMethod::kHead:
      return "HEAD";
    case DavMethod::kPut:
      return "PUT";
    case DavMethod::kDelete:
      return "DELETE";
    case DavMethod::kMkcol:
      return "MKCOL";
    case DavMethod::kPropfind:
      return "PROPFIND";
    case DavMethod::kCopy:
      return "COPY";
    case DavMethod::kMove:
      return "MOVE";
  }
  return "?";
}

// ---- the tree -------------------------------------------------------------------------------------------

const WebdavModel::Node* WebdavModel::find(std::string_view path) const {
  static const Node kRoot{.collection = true};
  const std::string_view bare = trimmed(path);
  if (bare.empty()) return &kRoot;
  const auto found = tree_.find(bare);
  return found == tree_.end() ? nullptr : &found->second;
}

bool WebdavModel::is_file(std::string_view path) const {
  const Node* node = find(path);
  return node != nullptr && !node->collection;
}

bool WebdavModel::is_collection(std::string_view path) const {
  const Node* node = find(path);
  return node != nullptr && node->collection;
}

bool WebdavModel::parent_exists(std::string_view path) const { return is_collection(parent_of(path)); }

bool WebdavModel::below_file(std::string_view path) const {
  for (std::string_view up = parent_of(path); !up.empty(); up = parent_of(up)) {
    if (is_file(up)) return true;
  }
  return false;
}

void WebdavModel::erase_below(const std::string& path) {
  const std::string prefix = path + "/";
  auto first = tree_.lower_bound(prefix);
  auto last = first;
  while (last != tree_.end() && last->first.starts_with(prefix)) ++last;
  tree_.erase(first, last);
}

// ---- requests -------------------------------------------------------------------------------------------

bool WebdavModel::covers(const DavRequest& request) const {
  if (!request.path.starts_with('/') || request.path.find("//") != std::string::npos) return false;
  if (request.method == DavMethod::kPut && below_file(request.path)) return false;
  if (request.method == DavMethod::kPropfind) {
    return (request.depth == 0 || request.depth == 1) && !(names_collection(request.path) && is_file(request.path));
  }
  if (request.method == DavMethod::kDelete) return !trimmed(request.path).empty();  // never the root
  if (request.method != DavMethod::kCopy && request.method != DavMethod::kMove) return true;
  const std::string_view from = request.path;
  const std::string_view to = request.destination;
  if (!to.starts_with('/') || trimmed(to).empty() || trimmed(from) == trimmed(to)) return false;
  if (names_collection(from)) {  // whole collections: only to a new place outside themselves
    const std::string inside = std::string(trimmed(from)) + "/";
    return is_collection(from) && !trimmed(from).empty() && names_collection(to) && find(to) == nullptr &&
           parent_exists(to) && !to.starts_with(inside);
  }
  return !is_collection(from) && !below_file(from) && !names_collection(to) && parent_exists(to) && !is_collection(to);
}

DavExpectation WebdavModel::apply(const DavRequest& request) {
  ZZ_ASSERT(covers(request));
  switch (request.method) {
    case DavMethod::kGet:
    case DavMethod::kHead:
      return get(request);
    case DavMethod::kPut:
      return put(request);
    case DavMethod::kDelete:
      return remove(request);
    case DavMethod::kMkcol:
      return make_collection(request);
    case DavMethod::kPropfind:
      return list(request);
    case DavMethod::kCopy:
    case DavMethod::kMove:
      return transfer(request);
  }
  return {};
}

DavExpectation WebdavModel::get(const DavRequest& request) const {
  const Node* node = find(request.path);
  const bool slash = names_collection(request.path);
  DavExpectation expected = error_page(404);
  if (node != nullptr && node->collection) {
    expected = error_page(slash ? 403 : 301);
  } else if (node != nullptr && !slash) {
    expected = {.status = 200, .body = Body::kExact, .exact = node->content, .content_length = node->content.size()};
  }
  if (request.method == DavMethod::kHead) {
    expected.body = Body::kNone;
    expected.exact.clear();
  }
  return expected;
}

DavExpectation WebdavModel::put(const DavRequest& request) {
  if (names_collection(request.path) || is_collection(request.path)) return error_page(409);
  for (std::string_view up = parent_of(request.path); !up.empty(); up = parent_of(up)) {
    tree_.try_emplace(std::string(up), Node{.collection = true});
  }
  const bool fresh = find(request.path) == nullptr;
  tree_.insert_or_assign(request.path, Node{.content = request.body});
  return {.status = fresh ? 201U : 204U};
}

DavExpectation WebdavModel::remove(const DavRequest& request) {
  if (below_file(request.path)) return error_page(409);
  const Node* node = find(request.path);
  if (node == nullptr) return error_page(404);
  if (node->collection != names_collection(request.path)) return error_page(409);
  const std::string bare(trimmed(request.path));
  erase_below(bare);
  tree_.erase(bare);
  return {.status = 204};
}

DavExpectation WebdavModel::make_collection(const DavRequest& request) {
  if (!names_collection(request.path)) return error_page(409);
  if (find(request.path) != nullptr) return error_page(405);
  if (!parent_exists(request.path)) return error_page(409);
  tree_.insert_or_assign(std::string(trimmed(request.path)), Node{.collection = true});
  return {.status = 201};
}

DavExpectation WebdavModel::list(const DavRequest& request) const {
  const Node* node = find(request.path);
  if (node == nullptr) return error_page(404);
  DavExpectation expected{.status = 207, .body = Body::kListing};
  expected.listing.insert({.href = request.path, .collection = node->collection, .length = node->content.size()});
  if (!node->collection || request.depth == 0) return expected;
  const std::string prefix = std::string(trimmed(request.path)) + "/";
  for (auto child = tree_.lower_bound(prefix); child != tree_.end() && child->first.starts_with(prefix); ++child) {
    if (child->first.find('/', prefix.size()) != std::string::npos) continue;
    const bool collection = child->second.collection;
    expected.listing.insert({.href = child->first + (collection ? "/" : ""),
                             .collection = collection,
                             .length = child->second.content.size()});
  }
  return expected;
}

DavExpectation WebdavModel::transfer(const DavRequest& request) {
  if (!request.overwrite && find(request.destination) != nullptr) return error_page(412);
  const Node* source = find(request.path);
  if (source == nullptr) return error_page(404);
  const std::string from(trimmed(request.path));
  const std::string to(trimmed(request.destination));
  const bool collection = source->collection;
  std::vector<std::pair<std::string, Node>> copies = {{to, *source}};
  for (auto item = tree_.lower_bound(from + "/"); item != tree_.end() && item->first.starts_with(from + "/"); ++item) {
    copies.emplace_back(to + item->first.substr(from.size()), item->second);
  }
  if (request.method == DavMethod::kMove) {
    erase_below(from);
    tree_.erase(from);
  }
  for (auto& [path, node] : copies) tree_.insert_or_assign(path, std::move(node));
  return {.status = collection ? 201U : 204U};
}

// ---- replies --------------------------------------------------------------------------------------------

namespace {

std::string_view local_name(const pugi::xml_node& node) {
  const std::string_view name = node.name();
  return name.substr(name.find(':') == std::string_view::npos ? 0 : name.find(':') + 1);
}

pugi::xml_node child_of(const pugi::xml_node& parent, std::string_view name) {
  return parent.find_child([&](const pugi::xml_node& node) { return local_name(node) == name; });
}

Result<DavEntry> parse_response(const pugi::xml_node& response) {
  DavEntry entry{.href = child_of(response, "href").child_value()};
  if (entry.href.empty()) return Error{"multistatus: a response without href"};
  const pugi::xml_node propstat = child_of(response, "propstat");
  if (std::string_view(child_of(propstat, "status").child_value()).find(" 200 ") == std::string_view::npos) {
    return Error{"multistatus: the properties of " + entry.href + " are not given with status 200"};
  }
  const pugi::xml_node properties = child_of(propstat, "prop");
  entry.collection = !child_of(child_of(properties, "resourcetype"), "collection").empty();
  const std::string_view length = child_of(properties, "getcontentlength").child_value();
  if (entry.collection) return entry;
  const auto [end, error] = std::from_chars(length.data(), length.data() + length.size(), entry.length);
  if (length.empty() || error != std::errc{} || end != length.data() + length.size()) {
    return Error{"multistatus: " + entry.href + " has no length"};
  }
  return entry;
}

std::string describe(const DavListing& listing) {
  std::string out;
  for (const DavEntry& entry : listing) {
    if (out.size() > 400) return out + " ...";
    out += entry.collection ? fmt::format(" {}", entry.href) : fmt::format(" {} ({} bytes)", entry.href, entry.length);
  }
  return out;
}

}  // namespace

Result<DavListing> parse_multistatus(std::string_view xml) {
  pugi::xml_document document;
  const pugi::xml_parse_result parsed = document.load_buffer(xml.data(), xml.size());
  if (!parsed) return Error{fmt::format("multistatus: not well formed: {}", parsed.description())};
  const pugi::xml_node root = document.document_element();
  if (local_name(root) != "multistatus") return Error{"multistatus: the root element is another"};
  DavListing listing;
  for (const pugi::xml_node& response : root.children()) {
    if (local_name(response) != "response") continue;
    Result<DavEntry> entry = parse_response(response);
    if (!entry) return Error{entry.error()};
    const auto next = listing.lower_bound({.href = entry->href});
    if (next != listing.end() && next->href == entry->href) {
      return Error{"multistatus: " + entry->href + " is listed twice"};
    }
    listing.insert(std::move(entry).value());
  }
  return listing;
}

std::optional<std::string> mismatch(const DavExpectation& expected, const DavReply& reply) {
  if (reply.status != expected.status) {
    return fmt::format("status {} where {} was due", reply.status, expected.status);
  }
  if (expected.content_length && reply.content_length && *reply.content_length != *expected.content_length) {
    return fmt::format("Content-Length {} where {} was due", *reply.content_length, *expected.content_length);
  }
  switch (expected.body) {
    case Body::kNone:
      if (!reply.body.empty()) return fmt::format("a body of {} bytes where none was due", reply.body.size());
      break;
    case Body::kExact:
      if (reply.body != expected.exact) {
        return fmt::format("a body of {} bytes that is not the {} bytes last written", reply.body.size(),
                           expected.exact.size());
      }
      break;
    case Body::kListing: {
      const Result<DavListing> listing = parse_multistatus(reply.body);
      if (!listing) return listing.error();
      if (*listing != expected.listing) {
        return fmt::format("the listing is{} where{} was due", describe(*listing), describe(expected.listing));
      }
      break;
    }
    case Body::kErrorPage:
      if (reply.body.find(std::to_string(expected.status)) == std::string::npos) {
        return fmt::format("an error page that does not name status {}", expected.status);
      }
      break;
  }
  return std::nullopt;
}

}  // namespace zz::apps
