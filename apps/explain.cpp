// zz explain: which request was answered differently, by which slots, and at which byte (docs/operations.md). Reads
// what agreement nodes keep on disk; no node has to run.

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "agreement/evidence_file.hpp"
#include "apps/commands.hpp"
#include "apps/local_cluster.hpp"
#include "base/bytes.hpp"
#include "crypto/cluster.hpp"

namespace zz::apps {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::size_t kFileBytesMax = 1u << 20;
constexpr std::size_t kShownBytes = 48;  // of a reply, from a little before the first difference on

struct Flags {
  std::string dir;
  std::string data;
  std::string service;
  std::optional<std::uint64_t> batch;
  bool as_json = false;
};

// What one or more nodes saw of a batch.
struct Incident {
  json evidence;  // of the node that got the most
  std::size_t bodies = 0;
  std::set<std::string> seen_by;
};
using Incidents = std::map<std::pair<std::string, std::uint64_t>, Incident>;  // service, batch

Result<json> read_evidence(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kFileBytesMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(std::max<std::streamsize>(file.gcount(), 0)));
  json out = json::parse(text, nullptr, false);
  const bool known = text.size() <= kFileBytesMax && out.is_object() && out["service"].is_string() &&
                     out["batch"].is_number_unsigned() && out["request"].is_object() && out["replies"].is_array();
  if (!known) return Error{path.string() + ": this is not evidence that zz wrote; delete the file"};
  return out;
}

Result<void> collect(const std::string& data, const std::string& who, const Flags& flags, Incidents& out) {
  std::error_code failed;
  for (fs::directory_iterator at(agreement::evidence_path(data), failed), end; !failed && at != end;
       at.increment(failed)) {
    if (at->path().extension() != ".json") continue;
    Result<json> evidence = read_evidence(at->path());
    if (!evidence) return Error{evidence.error()};
    const auto service = evidence->at("service").get<std::string>();
    const auto batch = evidence->at("batch").get<std::uint64_t>();
    if ((!flags.service.empty() && service != flags.service) || (flags.batch && batch != *flags.batch)) continue;
    const json& replies = evidence->at("replies");
    const auto bodies = static_cast<std::size_t>(std::count_if(replies.begin(), replies.end(), [](const json& reply) {
      return reply.is_object() && reply.contains("bytes");
    }));
    Incident& incident = out[{service, batch}];
    if (incident.seen_by.empty() || bodies > incident.bodies) {
      incident.evidence = std::move(*evidence);
      incident.bodies = bodies;
    }
    incident.seen_by.insert(who);
  }
  if (failed && failed != std::errc::no_such_file_or_directory) {
    return Error{agreement::evidence_path(data) + ": cannot read it: " + failed.message()};
  }
  return {};
}

std::uint64_t number(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}
std::string text(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}
bool truth(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_boolean() && found->get<bool>();
}

Bytes bytes_of(const std::string& hex) {
  Bytes out(hex.size() / 2);
  if (!from_hex(hex, out)) out.clear();
  return out;
}

std::string printable(ByteView bytes) {
  std::string out;
  for (const std::uint8_t byte : bytes) {
    if (byte == '\\' || byte == '"') out += '\\';
    if (byte >= 32 && byte < 127) {
      out += static_cast<char>(byte);
    } else {
      out += byte == '\n' ? "\\n" : byte == '\r' ? "\\r" : fmt::format("\\x{:02x}", byte);
    }
  }
  return out;
}

std::string slots_of(const json& reply) {
  std::string out;
  const json slots = reply.value("slots", json::array());
  const json incarnations = reply.value("incarnations", json::array());
  for (std::size_t i = 0; i < slots.size(); ++i) {
    if (!slots[i].is_number_unsigned()) continue;
    out += fmt::format("{}{}", out.empty() ? "" : ", ", slots[i].get<std::uint64_t>());
    if (i < incarnations.size() && incarnations[i].is_number_unsigned()) {
      out += fmt::format(" (incarnation {})", incarnations[i].get<std::uint64_t>());
    }
  }
  return (slots.size() == 1 ? "slot " : "slots ") + out;
}

// The bytes around the first difference, as text and as numbers; without one, how the reply begins.
std::string around(const json& reply, bool compared, std::uint64_t at) {
  const std::uint64_t from = number(reply, "excerpt_from");
  const Bytes excerpt = bytes_of(text(reply, "excerpt"));
  if (at < from || at - from > excerpt.size()) return "    (not in the excerpt)\n";
  const auto offset = static_cast<std::size_t>(at - from);
  const std::size_t begin = offset - std::min<std::size_t>(offset, 16);
  const std::size_t end = std::min(excerpt.size(), begin + kShownBytes);
  const ByteView view = ByteView(excerpt).subspan(begin, end - begin);
  std::string out = fmt::format("    from byte {}: \"{}\"\n", from + begin, printable(view));
  if (!compared) return out;
  const std::size_t left = std::min<std::size_t>(8, excerpt.size() - offset);
  return out + fmt::format("    at byte {}: {}\n", at,
                           left == 0 ? "ends here" : to_hex(ByteView(excerpt).subspan(offset, left)));
}

std::string when(std::uint64_t micros) {
  const auto seconds = static_cast<std::time_t>(micros / 1'000'000);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday,
                     parts.tm_hour, parts.tm_min, parts.tm_sec);
}

std::string explained(const Incident& incident) {
  const json& e = incident.evidence;
  const json& request = e.at("request");
  std::string seen;
  for (const std::string& who : incident.seen_by) seen += (seen.empty() ? "" : ", ") + who;
  const bool hung = truth(e, "not_deterministic");
  std::string out = fmt::format("service \"{}\", batch {}, epoch {}, agreed time {} (seen by {})\n", text(e, "service"),
                                number(e, "batch"), number(e, "epoch"), when(number(e, "agreed_time_us")), seen);
  out += hung ? "  NOT DETERMINISTIC: every slot answered and no g+1 agree, so nothing was answered\n"
              : "  settled by g+1 equal replies; the others are wrong\n";
  out += fmt::format("  request {} of session {} of client {}, digest {}\n", number(request, "number"),
                     text(request, "session"), number(request, "client"), text(request, "digest"));
  const Bytes op = bytes_of(text(request, "op"));
  if (request.contains("bytes")) {
    out += fmt::format("    {} bytes: \"{}\"{}\n", number(request, "bytes"), printable(op),
                       op.size() < number(request, "bytes") ? " ..." : "");
  }
  if (number(e, "differing") > 1) {
    out += fmt::format("    ({} of the batch's {} requests were answered differently; this is the first)\n",
                       number(e, "differing"), number(e, "requests"));
  }
  const bool compared = e.contains("first_difference");
  const std::uint64_t at = number(e, "first_difference");
  if (compared) out += fmt::format("  the replies differ from byte {} on (counted from 0)\n", at);
  for (const json& reply : e.at("replies")) {
    if (!reply.is_object()) continue;
    const bool has_body = reply.contains("bytes");
    out += fmt::format("  {}{}: digest {}, {}\n", slots_of(reply),
                       truth(reply, "agrees") ? ", right"
                       : hung                 ? ""
                                              : ", WRONG",
                       text(reply, "digest"),
                       has_body ? fmt::format("{} bytes", number(reply, "bytes"))
                                : std::string("and gave no reply with this digest when asked"));
    if (has_body) out += around(reply, compared, at);
  }
  return out;
}

Result<void> run(const Flags& flags) {
  Incidents incidents;
  std::string places = flags.data;
  if (!flags.data.empty()) {
    if (auto done = collect(flags.data, flags.data, flags, incidents); !done) return done;
  } else {
    const Result<crypto::ClusterFile> cluster = crypto::load_cluster(flags.dir + "/cluster.toml");
    if (!cluster) return Error{cluster.error()};
    const auto named = [&](const crypto::ServiceEntry& service) { return service.name == flags.service; };
    if (!flags.service.empty() && std::none_of(cluster->services.begin(), cluster->services.end(), named)) {
      return Error{fmt::format("no service \"{}\" in {}/cluster.toml", flags.service, flags.dir)};
    }
    places = flags.dir + "/data/node-*";
    for (const crypto::NodeEntry& node : cluster->nodes) {
      const std::string who = fmt::format("node {}", node.id.value);
      if (auto done = collect(node_data_path(flags.dir, node.id), who, flags, incidents); !done) return done;
    }
  }
  if (flags.as_json) {
    json all = json::array();
    for (auto& [key, incident] : incidents) {
      incident.evidence["seen_by"] = incident.seen_by;
      all.push_back(incident.evidence);
    }
    std::cout << all.dump(-1, ' ', false, json::error_handler_t::replace) << '\n';
    return {};
  }
  if (incidents.empty() && flags.batch) {
    return Error{fmt::format("no evidence of batch {} in {}; without --batch all there is is shown", *flags.batch,
                             agreement::evidence_path(places))};
  }
  if (incidents.empty()) {
    std::cout << "No replies differed, as far as " << agreement::evidence_path(places) << " tells.\n";
    return {};
  }
  std::string out;
  for (const auto& [key, incident] : incidents) out += (out.empty() ? "" : "\n") + explained(incident);
  std::replace_if(
      out.begin(), out.end(), [](unsigned char c) { return (c < 32 && c != '\n') || c == 127; }, '?');
  std::cout << out;
  return {};
}

}  // namespace

void add_explain(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<Flags>();
  CLI::App* const command = app.add_subcommand("explain", "which replies differed, and in which bytes");
  CLI::Option* const dir =
      command->add_option("--dir", flags->dir, "cluster directory: all nodes that ran on this machine");
  command->add_option("--data", flags->data, "one node's data directory instead")->excludes(dir);
  command->add_option("--service", flags->service, "only this service");
  command->add_option("--batch", flags->batch, "only this batch");
  command->add_flag("--json", flags->as_json, "print one JSON array");
  command->footer("Nodes keep the last 256 differences each, with the bytes around the first one that differs.");
  command->callback([flags, &exit_code] {
    const bool nowhere = flags->dir.empty() && flags->data.empty();
    const Result<void> done =
        nowhere ? Result<void>(Error{"where? --dir is a cluster directory, --data a node's"}) : run(*flags);
    if (done) return;
    std::cerr << "zz explain: " << done.error() << '\n';
    exit_code = 1;
  });
}

}  // namespace zz::apps
