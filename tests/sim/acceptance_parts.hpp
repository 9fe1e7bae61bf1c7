#pragma once

// What the acceptance cases have in common: sweeps over seeds, a record of what clients and nodes saw of a run, and
// interference with single messages.
//
// A sweep runs each of its seeds in a child process, so that a run that stops the program, or never ends, is a
// failure of that seed. ZZ_ACCEPTANCE_SEEDS says which seeds: "2000" (as many), "7..7" (from, to), "all" (of an
// enumeration). A case fails on a violated invariant, on a missed pass number, and when the fault it names never
// happened. ZZ_ACCEPTANCE_TRACE=1 prints the events of all runs.

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/sim/plan.hpp"
#include "tests/sim/world.hpp"

namespace zz::sim {

inline constexpr std::int64_t kMs = 1'000;
inline constexpr std::int64_t kSecond = 1'000'000;
inline constexpr std::int64_t kViewTimeout = 500 * kMs;  // base of all simulated clusters (draw.cpp)

// What one run, or one comparison of runs, has shown.
struct Outcome {
  std::string failure;  // empty: passed
  Counters counters;
  std::map<std::string, std::int64_t> figures;

  Outcome() = default;
  explicit Outcome(const RunResult& result) { add(result); }
  void add(const RunResult& result);
  void fail(std::string what);  // the first one stays
  void at_most(const std::string& name, std::int64_t value, std::int64_t bound);
  void at_least(const std::string& name, std::int64_t value, std::int64_t bound);
  void count(std::string_view name, std::uint64_t by = 1) { sim::count(counters, name, by); }
};
using Case = std::function<Outcome(std::uint64_t seed)>;

class Sweep {
 public:
  // Seeds 1 to `usual` unless the environment says otherwise. Failures are those of the current test.
  Sweep(std::uint64_t usual, const Case& one);
  // Points 0 to total - 1; `usual` of them, spread evenly, unless the environment says otherwise.
  Sweep(std::uint64_t total, std::uint64_t usual, const Case& one);

  // Each of these counters has counted something; or any of those that begin with a name that ends in a dot.
  void happened(std::initializer_list<std::string_view> names) const;
  [[nodiscard]] std::uint64_t counted(std::string_view name) const;

 private:
  void run(const std::vector<std::uint64_t>& seeds, const Case& one);
  void take(std::uint64_t seed, const std::string& line);
  void report() const;

  struct Range {
    std::int64_t least = 0;
    std::int64_t most = 0;
  };
  bool whole_ = true;  // not only some seeds that were asked for
  std::uint64_t seeds_ = 0;
  std::vector<std::pair<std::uint64_t, std::string>> failures_;
  Counters counters_;
  std::map<std::string, Range> figures_;
};

// What was seen of one run, in order of time.
class Record {
 public:
  struct Request {
    ClientId client;
    Micros submitted;
    std::optional<Micros> accepted;
  };
  struct ViewEvent {
    Micros at;
    NodeId node;
    View view;
  };
  struct Woken {  // a host thawed a sleeper
    Micros at;
    SlotId slot;
    Incarnation incarnation;
    Epoch epoch;  // the newest that a node had by then
  };
  struct Evicted {
    Micros at;  // at the first node that delivered it
    SlotId slot;
    Incarnation incarnation;
    std::string why;
  };
  struct Sign {
    Micros at;
    Seq n;
    std::string why;
  };
  struct Adopted {
    SlotId slot;
    Incarnation incarnation;
    Seq n;
  };
  std::vector<Request> requests;
  std::vector<ViewEvent> left;
  std::vector<ViewEvent> entered;
  std::vector<Woken> woken;
  std::vector<Evicted> evicted;  // each once; none as surplus
  std::vector<Sign> signs;       // each node's
  std::vector<Adopted> adopted;
  std::set<NodeId> alarms;  // who called the service not deterministic
  Epoch epoch;              // the newest
  // Of the case, when it wants to know.
  std::function<void(Micros, const Parcel&)> on_sent;
  std::function<void(NodeId, const agreement::LogRecord&, bool synced)> on_persisted;
  std::function<void(NodeId, const agreement::Delivery&)> on_delivered;

  // Longest time in [from, to] in which a reply was waited for and none came, in microseconds.
  [[nodiscard]] std::int64_t stall(Micros from, Micros to) const;
  [[nodiscard]] std::uint64_t accepted(Micros from, Micros to) const;
  // VIEW-CHANGEs by that node.
  [[nodiscard]] std::uint64_t changes(NodeId node, Micros from, Micros to) const;
  [[nodiscard]] std::uint64_t most_changes(Micros from, Micros to) const;  // over the nodes
  // Latency of the requests submitted in [from, to], ascending; an unanswered one has waited until `to`.
  [[nodiscard]] std::vector<std::int64_t> latencies(Micros from, Micros to,
                                                    std::optional<ClientId> client = std::nullopt) const;
  [[nodiscard]] std::vector<ClientId> clients() const;
  // Wake-ups between two epochs are one episode.
  [[nodiscard]] std::uint64_t episodes() const;

  // For the tap.
  void note(Micros now, const Event& event);
  void note_submitted(Micros now, ClientId client, SessionId session, RequestNumber number);
  void note_accepted(Micros now, ClientId client, SessionId session, RequestNumber number);

 private:
  std::map<std::pair<SessionId, RequestNumber>, std::size_t> open_;
  std::vector<std::pair<std::int64_t, bool>> replies_;  // when: a submission, or (true) a reply
};
// 0 of none.
std::int64_t percentile(const std::vector<std::int64_t>& ascending, std::uint32_t percent);

// Runs the plan, and records.
RunResult run(Plan plan, Record& record);
// Of a plan that nothing is to be measured of.
Outcome outcome_of(Plan plan);

// What becomes of a message: 0 as usual, kLost, or how much later it comes (behind the usual delays of nothing).
inline constexpr Micros kLost{-1};
using Rule = std::function<Micros(const Parcel&)>;
// From now on and until `until`; replaces an earlier rule.
void interfere(World& world, Rule rule, Micros until);

// Calls every `period` from `from` until `until`.
void every(World& world, Micros period, Micros from, Micros until, std::function<void(World&)> action);

// No faults: a drawn network and load, 150 requests within 8 s, then the liveness phase.
Plan calm(std::uint64_t seed);
// So many requests a second are asked for, by four clients in a fast network; it ends after `time`.
Plan busy(std::uint64_t seed, std::int64_t time, std::uint32_t per_second);
// In a busy plan's setup.
void fast_network(World& world);
// A faulty home node costs a client one hedge delay: for cases that are about something else.
void short_hedge(crypto::ClusterFile& cluster);

template <class Kind>
const Kind* body_of(const Parcel& parcel) {
  return std::get_if<Kind>(&parcel.message->body);
}
inline bool from_node(const Parcel& parcel, NodeId node) {
  return parcel.from.role == crypto::Role::kNode && parcel.from.node() == node;
}
inline bool to_node(const Parcel& parcel, NodeId node) {
  return parcel.to.role == crypto::Role::kNode && parcel.to.node() == node;
}
inline NodeId node_of(std::uint64_t i) { return NodeId{static_cast<std::uint16_t>(i)}; }

}  // namespace zz::sim
