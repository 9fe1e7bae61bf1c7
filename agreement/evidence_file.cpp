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

// The first byte at which any two of the bodies that are there differ; a body that ends differs from one that goes on.
std::optional<std::size_t> first_difference(const Evidence& evidence) {
  const SharedBytes* one = nullptr;
  std::optional<std::size_t> first;
  for (const Evidence::Side& side : evidence.sides) {
    if (!side.body) continue;
    if (one == nullptr) {
      one = &*side.body;
      continue;
    }
    const ByteView a = one->view();
    const ByteView b = side.body->view();
    const auto at = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
    first = std::min(first.value_or(SIZE_MAX), static_cast<std::size_t>(at));
  }
  return first;
}

json as_json(std::string_view service, const Evidence& evidence) {
  const std::optional<std::size_t> first = first_difference(evidence);
  const std::size_t from = std::max(first.value_or(0), EvidenceFiles::kBytesBefore) - EvidenceFiles::kBytesBefore;
  json replies = json::array();
  for (const Evidence::Side& side : evidence.sides) {
    json reply{{"digest", to_hex(side.digest.bytes)}, {"agrees", side.agrees}};
    for (const auto& [slot, incarnation] : side.slots) {
      reply["slots"].push_back(slot.value);
      reply["incarnations"].push_back(incarnation.value);
    }
    if (side.body) {
      reply["bytes"] = side.body->size();
      reply["excerpt_from"] = from;
      reply["excerpt"] = hex_of(side.body->view(), from, EvidenceFiles::kExcerptBytes);
    }
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

}  // namespace

Result<std::string> EvidenceFiles::write(std::string_view service, const Evidence& evidence) {
  std::error_code failed;
  fs::create_directories(directory_, failed);
  if (failed) return Error{fmt::format("{}: cannot make it: {}", directory_, failed.message())};
  make_room();
  const std::string path = fmt::format("{}/{}-{:012}.json", directory_, service, evidence.n.value);
  const std::string fresh = path + ".new";
  {
    std::ofstream file(fresh, std::ios::trunc);
    file << as_json(service, evidence).dump(1) << '\n';
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
