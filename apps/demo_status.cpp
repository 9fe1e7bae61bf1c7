#include "apps/demo_status.hpp"

#include <algorithm>
#include <functional>
#include <map>

#include "agreement/incident_log.hpp"

namespace zz::apps {

using nlohmann::json;

namespace {

constexpr std::size_t kSlotsMax = 64;  // believed of one node
constexpr std::size_t kSettledMax = 4'096;

// A whole number that is not negative.
bool is_count(const json& value) {
  return value.is_number_unsigned() || (value.is_number_integer() && value.get<std::int64_t>() >= 0);
}

std::uint64_t number(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && is_count(*found) ? found->get<std::uint64_t>() : 0;
}

bool flag(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_boolean() && found->get<bool>();
}

std::string text(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

// The objects in the array `key`, at most `limit`.
std::vector<json> objects(const json& object, const char* key, std::size_t limit) {
  std::vector<json> list;
  const auto found = object.find(key);
  if (found == object.end() || !found->is_array()) return list;
  for (const json& item : *found) {
    if (list.size() == limit) break;
    if (item.is_object()) list.push_back(item);
  }
  return list;
}

using Reports = std::vector<ServiceStatus>;

// The largest value that `backing` reports reach; 0 with fewer reports.
template <class Value>
std::uint64_t backed(const Reports& reports, std::size_t backing, const Value& value) {
  std::vector<std::uint64_t> values;
  for (const ServiceStatus& report : reports) values.push_back(static_cast<std::uint64_t>(value(report)));
  if (values.size() < backing) return 0;
  std::sort(values.begin(), values.end(), std::greater<>());
  return values[backing - 1];
}

std::vector<SlotStatus> backed_slots(const Reports& reports, std::size_t backing, std::uint64_t epoch) {
  std::map<std::uint32_t, std::map<std::pair<std::uint64_t, bool>, std::size_t>> votes;
  std::map<std::uint32_t, std::size_t> connected;
  for (const ServiceStatus& report : reports) {
    if (report.epoch != epoch) continue;
    for (const SlotStatus& slot : report.slots) {
      ++votes[slot.slot][{slot.incarnation, slot.active}];
      connected[slot.slot] += slot.connected ? 1 : 0;
    }
  }
  std::vector<SlotStatus> slots;
  for (const auto& [slot, words] : votes) {
    for (const auto& [word, count] : words) {
      if (count < backing) continue;
      // A later incarnation that enough nodes name replaces the earlier one.
      const SlotStatus seen{slot, word.first, word.second, connected[slot] >= backing};
      if (!slots.empty() && slots.back().slot == slot) slots.pop_back();
      slots.push_back(seen);
    }
  }
  return slots;
}

}  // namespace

std::optional<ServiceStatus> read_service(const json& answer, std::string_view service) {
  for (const json& entry : objects(answer, "services", kSlotsMax)) {
    if (text(entry, "service") != service) continue;
    ServiceStatus status{.ordered = number(entry, "ordered"),
                         .closed = number(entry, "closed"),
                         .epoch = number(entry, "epoch"),
                         .slots = {},
                         .divergences = number(entry, "divergences"),
                         .wakes = number(entry, "wakes"),
                         .evictions = number(entry, "evictions"),
                         .not_deterministic = number(entry, "not_deterministic"),
                         .first_correct_reply_us = {}};
    for (const json& slot : objects(entry, "slots", kSlotsMax)) {
      status.slots.push_back({.slot = static_cast<std::uint32_t>(number(slot, "slot")),
                              .incarnation = number(slot, "incarnation"),
                              .active = flag(slot, "active"),
                              .connected = flag(slot, "connected")});
    }
    std::sort(status.slots.begin(), status.slots.end(),
              [](const SlotStatus& a, const SlotStatus& b) { return a.slot < b.slot; });
    const auto times = entry.find("first_correct_reply_us");
    if (times != entry.end() && times->is_array()) {
      for (const json& time : *times) {
        if (status.first_correct_reply_us.size() == kSettledMax) break;
        if (is_count(time)) status.first_correct_reply_us.push_back(time.get<std::uint64_t>());
      }
    }
    return status;
  }
  return std::nullopt;
}

std::size_t ClusterStatus::active() const {
  return static_cast<std::size_t>(
      std::count_if(slots.begin(), slots.end(), [](const SlotStatus& s) { return s.active; }));
}

const SlotStatus* ClusterStatus::find(std::uint32_t slot) const {
  const auto found = std::find_if(slots.begin(), slots.end(), [&](const SlotStatus& s) { return s.slot == slot; });
  return found == slots.end() ? nullptr : &*found;
}

ClusterStatus combine(const std::vector<json>& answers, std::string_view service, std::uint32_t f) {
  Reports reports;
  for (const json& answer : answers) {
    if (auto report = read_service(answer, service)) reports.push_back(std::move(*report));
  }
  const std::size_t backing = f + 1;
  ClusterStatus status;
  status.answered = reports.size();
  status.ordered = backed(reports, backing, [](const auto& r) { return r.ordered; });
  status.closed = backed(reports, backing, [](const auto& r) { return r.closed; });
  status.divergences = backed(reports, backing, [](const auto& r) { return r.divergences; });
  status.wakes = backed(reports, backing, [](const auto& r) { return r.wakes; });
  status.evictions = backed(reports, backing, [](const auto& r) { return r.evictions; });
  status.not_deterministic = backed(reports, backing, [](const auto& r) { return r.not_deterministic; });
  status.settled = backed(reports, backing, [](const auto& r) { return r.first_correct_reply_us.size(); });
  for (const ServiceStatus& report : reports) {
    for (const std::uint64_t time : report.first_correct_reply_us) {
      status.first_correct_us = std::max(status.first_correct_us, time);
    }
  }
  status.epoch = backed(reports, backing, [](const auto& r) { return r.epoch; });
  status.slots = backed_slots(reports, backing, status.epoch);
  return status;
}

std::uint64_t longest_since(const std::vector<json>& before, const std::vector<json>& now, std::string_view service) {
  std::map<std::uint64_t, std::size_t> known;
  for (const json& answer : before) {
    const auto report = read_service(answer, service);
    if (report) known[number(answer, "node")] = report->first_correct_reply_us.size();
  }
  std::uint64_t longest = 0;
  for (const json& answer : now) {
    const auto report = read_service(answer, service);
    if (!report) continue;
    const auto& times = report->first_correct_reply_us;
    // Nodes keep the newest ones only: a list that is full shows no more what is new in it.
    const bool full = times.size() >= agreement::IncidentLog::kIncidentsMax;
    const std::size_t skip = full ? 0 : known[number(answer, "node")];
    for (std::size_t i = skip; i < times.size(); ++i) longest = std::max(longest, times[i]);
  }
  return longest;
}

std::vector<HostSlot> read_host(const json& answer, std::uint32_t service) {
  std::vector<HostSlot> slots;
  for (const json& slot : objects(answer, "slots", kSlotsMax)) {
    if (number(slot, "service") != service) continue;
    slots.push_back({.slot = static_cast<std::uint32_t>(number(slot, "slot")),
                     .incarnation = number(slot, "incarnation"),
                     .state = text(slot, "state")});
  }
  return slots;
}

}  // namespace zz::apps
