// Names of what the simulator counts and traces.

#include <cinttypes>

#include "tests/sim/kernel.hpp"
#include "tests/sim/plan.hpp"

namespace zz::sim {

std::string_view to_string(Fault fault) {
  static constexpr std::array<std::string_view, kFaults> kNames = {
      "delay",      "loss",           "duplicate",      "reorder",       "one-way-cut", "partition",    "clog",
      "swizzle",    "reset",          "crash",          "crash-all",     "torn-write",  "damage",       "lost-sync",
      "slow-disk",  "pause",          "drift",          "clock-jump",    "slow-boot",   "boot-failure", "guest-crash",
      "host-crash", "byzantine-node", "byzantine-slot", "hostile-client"};
  return kNames[static_cast<std::size_t>(fault)];
}

std::string_view to_string(SlotVice vice) {
  static constexpr std::array<std::string_view, 7> kNames = {"wrong", "sometimes-wrong", "silent", "late", "two-faced",
                                                             "none",  "scripted"};
  return kNames[static_cast<std::size_t>(vice)];
}

std::string_view to_string(Happening::Kind kind) {
  static constexpr std::array<std::string_view, 20> kNames = {
      "deliver",   "connect",    "node-tick", "synced",     "resume",    "start",     "act",
      "host-tick", "host-start", "backend",   "guest-dies", "slot-tick", "slot-send", "client-tick",
      "submit",    "hostile",    "fault",     "heal",       "hook",      "stabilise"};
  return kNames[static_cast<std::size_t>(kind)];
}

std::string_view message_name(std::size_t kind) {
  static_assert(kMessageKinds == 38, "the names below are in the order of agreement::Body");
  static constexpr std::array<std::string_view, kMessageKinds> kNames = {
      "PRE-PREPARE",   "PREPARE",     "COMMIT",       "FETCH-BODIES", "BODIES",      "REQUESTS",     "ACKS",
      "REJECTED",      "SUBSCRIBE",   "ORDERS",       "BATCH",        "VOTE",        "REPLIES",      "FETCH-REPLIES",
      "WAKE",          "SUSPECT",     "EPOCH-NOTICE", "JOIN",         "SLOT-DEAD",   "STATUS-QUERY", "STATUS-REPORT",
      "FETCH-HEADERS", "HEADERS",     "CHECKPOINT",   "STABLE",       "FETCH-ORDER", "ORDER-PROOF",  "VIEW-CHANGE",
      "NEW-VIEW",      "PROGRESS",    "VOUCH-QUERY",  "VOUCHED",      "PROPOSE",     "CLOSINGS",     "EXEC-CHECKPOINT",
      "FETCH-STATE",   "STATE-PARTS", "REPLY-DIGESTS"};
  return kNames[kind];
}

namespace {

struct Numbers {
  using M = MessageNumbers;
  M operator()(const agreement::PrePrepare& m) const { return {m.header ? m.header->n.value : 0, m.view.value}; }
  M operator()(const agreement::Prepare& m) const { return {m.n.value, m.view.value}; }
  M operator()(const agreement::Commit& m) const { return {m.n.value, m.view.value}; }
  M operator()(const agreement::Orders& m) const { return {m.first_n.value, m.digests.size()}; }
  M operator()(const agreement::Batch& m) const { return {m.header ? m.header->n.value : 0, 0}; }
  M operator()(const agreement::Vote& m) const { return {m.n.value, m.epoch.value}; }
  M operator()(const agreement::Replies& m) const { return {m.n.value, 0}; }
  M operator()(const agreement::FetchReplies& m) const { return {m.n.value, m.digests ? 1u : 0u}; }
  M operator()(const agreement::ReplyDigests& m) const { return {m.n.value, m.items.size()}; }
  M operator()(const agreement::Subscribe& m) const { return {m.from.value, m.bearer ? 1u : 0u}; }
  M operator()(const agreement::Wake& m) const { return {m.n.value, m.epoch.value}; }
  M operator()(const agreement::Suspect& m) const { return {m.n.value, m.epoch.value}; }
  M operator()(const agreement::EpochNotice& m) const { return {m.n.value, m.epoch.value}; }
  M operator()(const agreement::Checkpoint& m) const { return {m.state.n.value, 0}; }
  M operator()(const agreement::Stable& m) const { return {stable_n(m.certificate).value, 0}; }
  M operator()(const agreement::FetchOrder& m) const { return {m.from.value, 0}; }
  M operator()(const agreement::OrderProof& m) const { return {m.from.value, m.digests.size()}; }
  M operator()(const agreement::ViewChangePtr& m) const {
    return m ? M{stable_n(m->stable).value, m->view.value} : M{};
  }
  M operator()(const agreement::NewViewPtr& m) const { return m ? M{m->start.value, m->view.value} : M{}; }
  M operator()(const agreement::Progress& m) const { return {m.delivered.value, m.view.value}; }
  M operator()(const agreement::Closings& m) const { return {m.first_n.value, m.digests.size()}; }
  M operator()(const agreement::ExecCheckpoint& m) const { return {m.n.value, m.slot.value}; }
  M operator()(const agreement::FetchState& m) const { return {m.n.value, m.wants.size() + m.paths.size()}; }
  M operator()(const agreement::StateParts& m) const { return {0, m.parts.size()}; }
  M operator()(const agreement::Requests& m) const {
    return {m.items.empty() ? 0 : m.items.front().number.value, m.items.size()};
  }
  M operator()(const agreement::Acks& m) const {
    return {m.items.empty() ? 0 : m.items.front().number.value, m.items.size()};
  }
  M operator()(const agreement::Rejected& m) const { return {m.number.value, m.reason}; }
  template <class Other>
  M operator()(const Other&) const {
    return {};
  }
};

}  // namespace

MessageNumbers numbers_of(const agreement::Body& body) { return std::visit(Numbers{}, body); }

void Kernel::trace_event(Party by, const Event& event) const {
  const std::string_view name = zz::to_string(event.kind);
  std::fprintf(trace,
               "%10" PRId64 " %3u     * %-12.*s n %" PRIu64 " epoch %" PRIu64 " slot %u/%" PRIu64 " node %u %.*s\n",
               now.value, static_cast<unsigned>(by), static_cast<int>(name.size()), name.data(), event.n.value,
               event.epoch.value, static_cast<unsigned>(event.slot.value), event.incarnation.value,
               static_cast<unsigned>(event.node.value), static_cast<int>(event.why.size()), event.why.data());
}

}  // namespace zz::sim
