// zz explain: which request was answered differently, or which object of the state is another, at which slots, and from
// which byte on (docs/operations.md). Reads what agreement nodes keep on disk; no node has to run.

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
#include <tuple>
#include <utility>
#include <vector>

#include "agreement/evidence_file.hpp"
#include "apps/commands.hpp"
#include "apps/local_cluster.hpp"
#include "base/bytes.hpp"
#include "crypto/cluster.hpp"
#include "execution/slot_layout.hpp"
#include "execution/statefs/layout.hpp"

namespace zz::apps {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::size_t kFileBytesMax = 1u << 20;
constexpr std::size_t kShownBytes = 48;  // of a reply, from a little before the first difference on
constexpr std::size_t kCompared = 2;     // of states, the objects of the first two

struct Flags {
  std::string dir;
  std::string data;
  std::string service;
  std::optional<std::uint64_t> batch;
  bool as_json = false;
};

// What one or more nodes saw of a batch, or of the state after it.
struct Incident {
  json evidence;  // of the node that got the most
  std::size_t bodies = 0;
  std::set<std::string> seen_by;
};
using Incidents = std::map<std::tuple<std::string, std::uint64_t, bool>, Incident>;  // service, batch, its state

bool is_of_state(const json& evidence) { return evidence.contains("checkpoint"); }
const json& sides_of(const json& evidence) { return evidence.at(is_of_state(evidence) ? "roots" : "replies"); }

Result<json> read_evidence(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kFileBytesMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(std::max<std::streamsize>(file.gcount(), 0)));
  json out = json::parse(text, nullptr, false);
  const auto has = [&](bool (*good)(const json&), const char* key) { return out.contains(key) && good(out[key]); };
  const auto is_text = [](const json& value) { return value.is_string(); };
  const auto is_number = [](const json& value) { return value.is_number_unsigned(); };
  const auto is_list = [](const json& value) { return value.is_array(); };
  const auto is_object = [](const json& value) { return value.is_object(); };
  const bool of_replies = has(is_number, "batch") && has(is_object, "request") && has(is_list, "replies");
  const bool of_state = has(is_number, "checkpoint") && has(is_list, "path") && has(is_list, "roots");
  const bool known = text.size() <= kFileBytesMax && has(is_text, "service") && of_replies != of_state;
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
    const bool of_state = is_of_state(*evidence);
    const auto batch = evidence->at(of_state ? "checkpoint" : "batch").get<std::uint64_t>();
    if ((!flags.service.empty() && service != flags.service) || (flags.batch && batch != *flags.batch)) continue;
    const json& sides = sides_of(*evidence);
    const auto bodies = static_cast<std::size_t>(std::count_if(
        sides.begin(), sides.end(), [](const json& side) { return side.is_object() && side.contains("bytes"); }));
    Incident& incident = out[{service, batch, of_state}];
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

std::string seen_by(const Incident& incident) {
  std::string out;
  for (const std::string& who : incident.seen_by) out += (out.empty() ? "" : ", ") + who;
  return out;
}

std::string_view judgement(const json& side, bool judged) {
  return truth(side, "agrees") ? ", right" : judged ? ", WRONG" : "";
}

// What stands under an id in the state of a service: the slot's own, a file system's, or whatever the service made it.
std::string object_name(std::uint64_t id, bool files) {
  namespace layout = execution::statefs;
  if (id >= execution::kOwnFirst) {
    static constexpr const char* kAreas[] = {"", "session index page", "reply page", "evicted sessions",
                                             "reply bodies"};
    const std::uint64_t area = (id - execution::kOwnFirst) >> 56;
    const std::uint64_t which = id & ((std::uint64_t{1} << 56) - 1);
    if (area == 0 || area >= std::size(kAreas)) return "of the slot itself";
    return fmt::format("of the slot itself: {} {}", kAreas[area], which);
  }
  if (!files) return "of the service";
  if (id == layout::kSuperblock.value) return "the superblock of the files";
  const std::uint64_t part = id & ((1u << layout::kPartBits) - 1);
  const std::string inode = fmt::format("inode {}: ", layout::inode_of({id}).value);
  if (part >= layout::kFirstLeaf) return inode + "entries of the directory";
  if (part >= layout::kFirstBlock) {
    const std::uint64_t from = (part - layout::kFirstBlock) * layout::kBlockBytes;
    return inode + fmt::format("block {}, the file's bytes from {} on", part - layout::kFirstBlock, from);
  }
  return inode + (part == 1 ? "extended attributes" : "its record, with a small file's bytes");
}

std::string explained_state(const Incident& incident) {
  const json& e = incident.evidence;
  const json& roots = e.at("roots");
  const bool hung = truth(e, "not_deterministic");
  const bool judged = std::any_of(roots.begin(), roots.end(), [](const json& root) { return truth(root, "agrees"); });
  std::string out = fmt::format("service \"{}\", the state after batch {}, epoch {} (seen by {})\n", text(e, "service"),
                                number(e, "checkpoint"), number(e, "epoch"), seen_by(incident));
  out += hung     ? "  NOT DETERMINISTIC: every slot gave its state's digest and no g+1 agree\n"
         : judged ? "  settled by g+1 equal digests; the others are wrong\n"
                  : "  g+1 equal digests had not come when this was written\n";
  const bool found = e.contains("object");
  if (found) {
    const std::uint64_t id = number(e, "object");
    out += fmt::format("  the first object that differs is {:016x}, {}\n", id,
                       object_name(id, text(e, "adapter") == "http"));
  } else {
    out += fmt::format("  which object differs is not known: the slots gave {} of the nodes on the way to it\n",
                       e.at("path").size());
  }
  const bool compared = e.contains("first_difference");
  const std::uint64_t at = number(e, "first_difference");
  if (compared) out += fmt::format("  its bytes differ from byte {} on (counted from 0)\n", at);
  for (std::size_t i = 0; i < roots.size(); ++i) {
    const json& root = roots[i];
    if (!root.is_object()) continue;
    const bool has_object = root.contains("bytes");
    const std::string what = has_object               ? fmt::format(", {} bytes", number(root, "bytes"))
                             : truth(root, "absent")  ? ", has no such object"
                             : found && i < kCompared ? ", and did not give the object when asked"
                                                      : "";
    out += fmt::format("  {}{}: root {}{}\n", slots_of(root), judgement(root, judged), text(root, "root"), what);
    if (has_object) out += around(root, compared, at);
  }
  return out;
}

std::string explained(const Incident& incident) {
  const json& e = incident.evidence;
  if (is_of_state(e)) return explained_state(incident);
  const json& request = e.at("request");
  const bool hung = truth(e, "not_deterministic");
  std::string out =
      fmt::format("service \"{}\", batch {}, epoch {}, agreed time {} (seen by {})\n", text(e, "service"),
                  number(e, "batch"), number(e, "epoch"), when(number(e, "agreed_time_us")), seen_by(incident));
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
    out += fmt::format("  {}{}: digest {}, {}\n", slots_of(reply), judgement(reply, !hung), text(reply, "digest"),
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
    std::cout << "No replies and no states differed, as far as " << agreement::evidence_path(places) << " tells.\n";
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
  CLI::App* const command = app.add_subcommand("explain", "which replies or states differed, and in which bytes");
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
