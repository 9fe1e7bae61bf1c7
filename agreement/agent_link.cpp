#include "agreement/agent_link.hpp"

#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/bytes.hpp"

namespace zz::agreement {
namespace {

using Json = nlohmann::json;

// An error text may grow sixfold by escaping and still has to fit a line.
constexpr std::size_t kErrorBytesMax = 512;
constexpr std::size_t kFaultNameMax = 32;
static_assert(kErrorBytesMax * 6 + 64 < kAgentLineMax);

std::string dump(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

Error malformed(std::string_view what) { return Error{"agent link: " + std::string(what)}; }

// Nothing unless `line` is one JSON object within the bound.
std::optional<Json> parse_object(std::string_view line) {
  if (line.size() > kAgentLineMax) return std::nullopt;
  Json value = Json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
  if (!value.is_object()) return std::nullopt;
  return value;
}

template <class Id>
bool read_id(const Json& object, const char* key, Id& out) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_number_unsigned()) return false;
  const auto value = it->template get<std::uint64_t>();
  if (value > std::numeric_limits<typename Id::rep>::max()) return false;
  out.value = static_cast<typename Id::rep>(value);
  return true;
}

bool read_hex(const Json& object, const char* key, std::array<std::uint8_t, 32>& out) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_string()) return false;
  return from_hex(it->get_ref<const std::string&>(), out);
}

bool is_fault_name(std::string_view name) {
  if (name.empty() || name.size() > kFaultNameMax) return false;
  for (const char c : name) {
    if ((c < 'a' || c > 'z') && c != '-') return false;
  }
  return true;
}

std::optional<AgentIdentity> read_identity(const Json& value) {
  if (!value.is_object() || value.size() != 6) return std::nullopt;
  AgentIdentity out;
  if (!read_id(value, "service", out.service) || !read_id(value, "slot", out.slot) ||
      !read_id(value, "incarnation", out.incarnation) || !read_id(value, "epoch", out.epoch) ||
      !read_hex(value, "key_seed", out.key_seed) || !read_hex(value, "entropy", out.entropy)) {
    return std::nullopt;
  }
  return out;
}

std::string_view name_of(FromAgent::Kind kind) {
  switch (kind) {
    case FromAgent::Kind::kReady:
      return "ready";
    case FromAgent::Kind::kFailed:
      return "failed";
    case FromAgent::Kind::kFaulted:
      return "faulted";
    case FromAgent::Kind::kDuty:
      return "duty";
  }
  return "failed";
}

Result<ToAgent> to_agent(const Json& object) {
  ToAgent out;
  std::size_t known = 0;
  if (const auto it = object.find("identity"); it != object.end()) {
    out.identity = read_identity(*it);
    if (!out.identity) return malformed("the identity is incomplete or out of range");
    ++known;
  }
  if (const auto it = object.find("fault"); it != object.end()) {
    if (!it->is_string() || !is_fault_name(it->get_ref<const std::string&>())) return malformed("bad fault name");
    out.fault = it->get<std::string>();
    ++known;
  }
  if (known == 0 || known != object.size()) return malformed("neither an identity nor a fault, or something else too");
  return out;
}

Result<FromAgent> from_agent(const Json& object) {
  const auto event = object.find("event");
  if (event == object.end() || !event->is_string()) return malformed("no event");
  FromAgent out;
  bool found = false;
  using Kind = FromAgent::Kind;
  for (const auto kind : {Kind::kReady, Kind::kFailed, Kind::kFaulted, Kind::kDuty}) {
    if (event->get_ref<const std::string&>() != name_of(kind)) continue;
    out.kind = kind;
    found = true;
  }
  if (!found) return malformed("unknown event");
  std::size_t known = 1;
  if (const auto it = object.find("error"); it != object.end() && out.kind == FromAgent::Kind::kFailed) {
    if (!it->is_string()) return malformed("the error is not text");
    out.error = it->get<std::string>();
    ++known;
  }
  if (out.kind == FromAgent::Kind::kDuty) {
    for (const auto& [key, field] :
         {std::pair("voted_us", &out.duty.voted_us), std::pair("whole_us", &out.duty.whole_us)}) {
      const auto it = object.find(key);
      if (it == object.end()) continue;
      if (!it->is_number_unsigned()) return malformed("a time is no number");
      *field = it->get<std::uint64_t>();
      ++known;
    }
    const auto bytes = object.find("touched_bytes");
    if (bytes == object.end() || !bytes->is_number_unsigned()) return malformed("no number of bytes");
    out.duty.touched_bytes = bytes->get<std::uint64_t>();
    ++known;
  }
  if (known != object.size()) return malformed("unknown member");
  return out;
}

}  // namespace

std::string encode(const ToAgent& message) {
  Json out = Json::object();
  if (message.identity) {
    const AgentIdentity& id = *message.identity;
    out["identity"] = {{"service", id.service.value},         {"slot", id.slot.value},
                       {"incarnation", id.incarnation.value}, {"epoch", id.epoch.value},
                       {"key_seed", to_hex(id.key_seed)},     {"entropy", to_hex(id.entropy)}};
  }
  if (!message.fault.empty()) out["fault"] = message.fault;
  return dump(out);
}

std::string encode(const FromAgent& message) {
  Json out = {{"event", name_of(message.kind)}};
  if (message.kind == FromAgent::Kind::kFailed) out["error"] = message.error.substr(0, kErrorBytesMax);
  if (message.kind == FromAgent::Kind::kDuty) {
    if (message.duty.voted_us) out["voted_us"] = *message.duty.voted_us;
    if (message.duty.whole_us) out["whole_us"] = *message.duty.whole_us;
    out["touched_bytes"] = message.duty.touched_bytes;
  }
  return dump(out);
}

// The library reports some misuse by exceptions; none leaves this file.
Result<ToAgent> parse_to_agent(std::string_view line) {
  try {
    const auto object = parse_object(line);
    return object ? to_agent(*object) : malformed("not one JSON object of bounded length");
  } catch (const Json::exception&) {
    return malformed("unexpected JSON");
  }
}

Result<FromAgent> parse_from_agent(std::string_view line) {
  try {
    const auto object = parse_object(line);
    return object ? from_agent(*object) : malformed("not one JSON object of bounded length");
  } catch (const Json::exception&) {
    return malformed("unexpected JSON");
  }
}

}  // namespace zz::agreement
