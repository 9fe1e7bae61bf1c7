#include "agreement/incident_log.hpp"

#include <spdlog/spdlog.h>

namespace zz::agreement {

void IncidentLog::on_event(const Event& event) {
  PerService& service = services_[event.service];
  switch (event.kind) {
    case EventKind::kDiverged:
      if (service.open.size() < kIncidentsMax) service.open.try_emplace(event.n, clock_());
      spdlog::warn("service {}: batch {}: {} (slot {})", event.service.value, event.n.value, event.why,
                   event.slot.value);
      break;
    case EventKind::kSettled: {
      const auto open = service.open.find(event.n);
      if (open == service.open.end()) break;
      const auto took = std::chrono::duration_cast<std::chrono::microseconds>(clock_() - open->second).count();
      service.open.erase(open);
      service.settled.push_back(took);
      if (service.settled.size() > kIncidentsMax) service.settled.pop_front();
      spdlog::info("service {}: batch {}: settled by equal votes after {} us", event.service.value, event.n.value,
                   took);
      break;
    }
    case EventKind::kWakeRequested:
      spdlog::info("service {}: asks to wake slot {} (incarnation {}), batch {}, {}", event.service.value,
                   event.slot.value, event.incarnation.value, event.n.value, event.why);
      break;
    case EventKind::kSuspected:
      spdlog::info("service {}: suspects slot {} (incarnation {}), batch {}: {}", event.service.value, event.slot.value,
                   event.incarnation.value, event.n.value, event.why);
      break;
    case EventKind::kEvicted:
      spdlog::warn("service {}: slot {} (incarnation {}) evicted: {}", event.service.value, event.slot.value,
                   event.incarnation.value, event.why);
      break;
    case EventKind::kEpochChanged:
      spdlog::info("service {}: epoch {} from batch {} on", event.service.value, event.epoch.value, event.n.value + 1);
      break;
    case EventKind::kJoined:
      spdlog::info("service {}: slot {} joined as incarnation {}", event.service.value, event.slot.value,
                   event.incarnation.value);
      break;
    case EventKind::kViewLeft:
      spdlog::warn("service {}: wants view {}: {}", event.service.value, event.view.value, event.why);
      break;
    case EventKind::kViewEntered:
      spdlog::info("service {}: in view {}", event.service.value, event.view.value);
      break;
    case EventKind::kConflict:
      spdlog::error("service {}: batch {}: more than f nodes must be faulty: {}", event.service.value, event.n.value,
                    event.why);
      break;
    case EventKind::kNotDeterministic:
      spdlog::error("service {}: batch {}: {}; it is not deterministic or too many lie (zz explain)",
                    event.service.value, event.n.value,
                    event.why == "convictions" ? "more than g slots were wrong within an hour"
                                               : "every slot voted and no g+1 agree");
      break;
    default:
      break;
  }
}

std::deque<std::int64_t> IncidentLog::settled_us(ServiceId service) const {
  const auto it = services_.find(service);
  return it == services_.end() ? std::deque<std::int64_t>{} : it->second.settled;
}

}  // namespace zz::agreement
