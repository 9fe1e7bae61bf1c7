#include "agreement/evidence_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <vector>

namespace zz::agreement {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string hex_of(ByteView bytes, std::size_t from, std::size_t count) {
  const std::size_t begin = std::min(from, bytes.size());
  return to_hex(bytes.subspan(begin, std::min(count, bytes.size() - begin)));
}

using Bodies = std::vector<const SharedBytes*>;  // by side; null: not had

// The first byte at which any two of the bodies that are there differ; a body that ends differs from one that goes on.
std::optional<std::size_t> first_difference(const Bodies& bodies) {
  const SharedBytes* one = nullptr;
  std::optional<std::size_t> first;
  for (const SharedBytes* body : bodies) {
    if (body == nullptr) continue;
    if (one == nullptr) {
      one = body;
      continue;
    }
    const ByteView a = one->view();
    const ByteView b = body->view();
    const auto at = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
    first = std::min(first.value_or(SIZE_MAX), static_cast<std::size_t>(at));
  }
  return first;
}

// Who it is, and its bytes around the first difference.
template <class Side>
void describe(const Side& side, const SharedBytes* body, std::optional<std::size_t> first, json& out) {
  out["agrees"] = side.agrees;
  for (const auto& [slot, incarnation] : side.slots) {
    out["slots"].push_back(slot.value);
    out["incarnations"].push_back(incarnation.value);
  }
  if (body == nullptr) return;
  const std::size_t from = std::max(first.value_or(0), EvidenceFiles::kBytesBefore) - EvidenceFiles::kBytesBefore;
  out["bytes"] = body->size();
  out["excerpt_from"] = from;
  out["excerpt"] = hex_of(body->view(), from, EvidenceFiles::kExcerptBytes);
}

json as_json(std::string_view service, const Evidence& evidence) {
  Bodies bodies;
  for (const Evidence::Side& side : evidence.sides) bodies.push_back(side.body ? &*side.body : nullptr);
  const std::optional<std::size_t> first = first_difference(bodies);
  json replies = json::array();
  for (std::size_t i = 0; i < bodies.size(); ++i) {
    json reply{{"digest", to_hex(evidence.sides[i].digest.bytes)}};
    describe(evidence.sides[i], bodies[i], first, reply);
    replies.push_back(std::move(reply));
  }
  const Reference& r = evidence.reference;
  json request{{"client", r.client.value},
               {"session", fmt::format("{:016x}", r.session.value)},
               {"number", r.number.value},
               {"digest", to_hex(r.digest.bytes)}};
  if (evidence.request) {
    request["bytes"] = evidence.request->op.size();
    request["op"] = hex_of(evidence.request->op.view(), 0, EvidenceFiles::kOpBytesMax);
  }
  json out{{"service", service},
           {"batch", evidence.n.value},
           {"epoch", evidence.epoch.value},
           {"agreed_time_us", evidence.time.value},
           {"not_deterministic", evidence.hung},
           {"requests", evidence.requests},
           {"differing", evidence.differing},
           {"request", std::move(request)},
           {"replies", std::move(replies)}};
  if (first) out["first_difference"] = *first;
  return out;
}

json as_json(std::string_view service, std::string_view adapter, const StateDifference& difference) {
  Bodies bodies;
  for (const StateDifference::Side& side : difference.sides) bodies.push_back(side.object ? &*side.object : nullptr);
  const std::optional<std::size_t> first = first_difference(bodies);
  json roots = json::array();
  for (std::size_t i = 0; i < bodies.size(); ++i) {
    json root{{"root", to_hex(difference.sides[i].root.bytes)}, {"absent", difference.sides[i].absent}};
    describe(difference.sides[i], bodies[i], first, root);
    roots.push_back(std::move(root));
  }
  json path = json::array();
  for (const execution::state::Place& place : difference.path) {
    path.push_back(fmt::format("{:016x}", place.prefix).substr(0, place.depth));
  }
  json out{{"service", service},
           {"adapter", adapter},
           {"checkpoint", difference.n.value},
           {"epoch", difference.epoch.value},
           {"not_deterministic", difference.hung},
           {"path", std::move(path)},
           {"roots", std::move(roots)}};
  if (difference.first) out["object"] = difference.first->value;
  if (first) out["first_difference"] = *first;
  return out;
}

}  // namespace

Result<std::string> EvidenceFiles::write(std::string_view service, const Evidence& evidence) {
  return write(fmt::format("{}-{:012}", service, evidence.n.value), as_json(service, evidence).dump(1));
}

Result<std::string> EvidenceFiles::write(std::string_view service, std::string_view adapter,
                                         const StateDifference& difference) {
  return write(fmt::format("{}-{:012}-state", service, difference.n.value),
               as_json(service, adapter, difference).dump(1));
}

Result<std::string> EvidenceFiles::write(const std::string& name, const std::string& text) {
  std::error_code failed;
  fs::create_directories(directory_, failed);
  if (failed) return Error{fmt::format("{}: cannot make it: {}", directory_, failed.message())};
  make_room();
  const std::string path = fmt::format("{}/{}.json", directory_, name);
  const std::string fresh = path + ".new";
  {
    std::ofstream file(fresh, std::ios::trunc);
    file << text << '\n';
    file.flush();
    if (!file) return Error{fmt::format("{}: cannot write: {}", fresh, std::strerror(errno))};
  }
  fs::rename(fresh, path, failed);
  if (failed) return Error{fmt::format("{}: cannot rename: {}", fresh, failed.message())};
  return path;
}

void EvidenceFiles::make_room() const {
  std::error_code failed;
  std::vector<std::pair<fs::file_time_type, fs::path>> files;
  for (fs::directory_iterator at(directory_, failed), end; !failed && at != end; at.increment(failed)) {
    std::error_code gone;
    const fs::file_time_type written = at->last_write_time(gone);
    if (!gone) files.emplace_back(written, at->path());
  }
  std::sort(files.begin(), files.end());
  for (std::size_t i = 0; files.size() - i >= kFilesMax; ++i) fs::remove(files[i].second, failed);
}

}  // namespace zz::agreement
