#pragma once

// What an ordering core makes durable (docs/protocol.md §5, §6): plain values, and what they amount to when they are
// read back. No IO: the RocksDB log and the simulator's disk both store LogRecords, and both hand a Recovered to the
// core.
//
// Every record but OrderedRecord is a promise: it must be on disk before any message of the same turn leaves.

#include <map>
#include <optional>
#include <variant>
#include <vector>

#include "agreement/messages.hpp"

namespace zz::agreement {

// This node is in `view`, or waits for its NEW-VIEW after the VIEW-CHANGE `sent`.
struct ViewRecord {
  View view;
  bool changing = false;
  ViewChangePtr sent;   // when changing
  NewViewPtr accepted;  // of the view it is in; null in view 0 and while changing
};
// This node stood for (n, digest) in `view`: it sent PREPARE, or proposed it.
struct AcceptedRecord {
  View view;
  Seq n;
  Digest digest;
  HeaderPtr header;
  std::vector<RequestPtr> bodies;  // per reference; null: not at hand then
};
// This node sent COMMIT.
struct PreparedRecord {
  View view;
  Seq n;
  Digest digest;
};
// n is ordered. No promise: if it is lost, the node learns it again.
struct OrderedRecord {
  Seq n;
  Digest digest;
  HeaderPtr header;
  std::vector<RequestPtr> requests;  // all of them
};
struct StableRecord {
  CertificatePtr certificate;
};
// Whether this node is a learner: it was found to have lost promises, or has outlived them.
struct LearnerRecord {
  bool learner = false;
};
using LogRecord = std::variant<ViewRecord, AcceptedRecord, PreparedRecord, OrderedRecord, StableRecord, LearnerRecord>;

inline bool is_promise(const LogRecord& record) { return !std::holds_alternative<OrderedRecord>(record); }

// The order of one service, n = 1, 2, ... without holes, and the promises above the stable checkpoint.
struct Recovered {
  ViewRecord view;
  CertificatePtr stable;                     // the last of `certificates`
  std::vector<CertificatePtr> certificates;  // all, ascending
  std::vector<OrderedRecord> ordered;        // ascending from 1
  std::vector<AcceptedRecord> accepted;      // ascending (n, view), above the stable checkpoint
  std::vector<PreparedRecord> prepared;      // ascending (n, view), newest view per n, above the stable checkpoint
  // The log was damaged, or is older than what this node may have promised: it must not vote before it is safe
  // (docs/protocol.md §5, learners).
  bool learner = false;
};

// Gathers records into a Recovered. Ordered records beyond a hole are dropped; a header or body that a
// record lacks is taken from another record of the same batch where there is one.
class LogImage {
 public:
  void apply(const LogRecord& record);
  [[nodiscard]] Recovered recovered() const;

 private:
  ViewRecord view_;
  std::map<Seq, CertificatePtr> certificates_;
  bool learner_ = false;
  std::map<Seq, OrderedRecord> ordered_;
  std::map<std::pair<Seq, Digest>, AcceptedRecord> accepted_;  // newest view per digest
  std::map<Seq, PreparedRecord> prepared_;
};

}  // namespace zz::agreement
