#pragma once

// DurableLog: what the cores of one agreement node promised and ordered, on disk (docs/protocol.md §5), in RocksDB.
// One log for all services. One thread (RocksDB's own threads aside).
//
//   DATA/log/   the RocksDB directory            DATA/boot   the boot record: a second, independent witness
//   DATA/lock   held while the log is open       DATA/log.damaged-<i>   set aside, for people
//
// Invariants:
//  1. A group is written whole or not at all, in order: what comes back is always a prefix of the committed groups.
//  2. commit() returns success for a group with a promise, or with a sync demanded, only when it is synced
//     (durability sync).
//  3. What comes back is what was written by this node of this cluster, or the log is called damaged: every value
//     carries a checksum over cluster, node, key and value; every group carries the sum of the checksums of all live
//     values, so that nothing can be missing or come back to life; RocksDB's write-ahead log may lack nothing but what
//     a power cut tore off its end.
//  4. The boot record is never ahead of what was synced. A log that is behind it was rolled back.
//  5. A log that is missing, damaged or rolled back is moved aside, never used and never deleted; the services of the
//     fresh one are learners, across restarts, until a LearnerRecord says otherwise. Only where neither log nor boot
//     record exist is it a first start.
//  6. After a failed write nothing is written any more.
//
// Memory: an entry of about 100 bytes per record above the stable checkpoint, and RocksDB's write buffers (128 MiB).

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "agreement/log_record.hpp"
#include "base/result.hpp"
#include "crypto/sign.hpp"

namespace zz::agreement {

struct DurableLogOptions {
  std::string path;  // the node's data directory; made when missing
  crypto::ClusterId cluster;
  NodeId node;
  std::uint16_t services = 1;
  bool sync = true;  // false: written at commit, synced when the system likes to
};

class DurableLog {
 public:
  struct Opened {
    std::unique_ptr<DurableLog> log;
    std::vector<Recovered> services;  // by id
    std::string damage;               // what was found and where it went, when the log was not usable; else empty
  };

  // Errors: not permitted, no space, in use by another process, of another node or cluster, written by a newer program.
  static Result<Opened> open(const DurableLogOptions& options);
  // What was not committed is gone.
  ~DurableLog();
  DurableLog(const DurableLog&) = delete;
  DurableLog& operator=(const DurableLog&) = delete;

  // Into the current group. Ordered records come in ascending n without holes; those that are there are skipped.
  void add(ServiceId service, const LogRecord& record);
  // Commit syncs the group and all before it, whether or not it holds a promise or anything at all.
  void demand_sync();
  // Whether the group holds a promise, or a sync was demanded: it must be committed before anything is sent.
  [[nodiscard]] bool promises() const;
  // Writes the group; syncs it if it holds a promise. An error is for good: it names path, cause and way out, and is
  // returned by every later call.
  Result<void> commit();

 private:
  struct State;
  explicit DurableLog(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace zz::agreement
