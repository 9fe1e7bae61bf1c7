#pragma once

// SessionTable: which requests of which sessions were executed, and what they were answered (docs/protocol.md §8). It
// is what makes an ordered request run at most once, and it is part of the replicated state: after equal prefixes of
// the order it is equal on every correct slot.
//
// Pure: one thread, no clock, no IO. Every bound is enforced by a rule that looks only at the order of record() calls.
//
// Invariants:
//  1. A request for which look_up() said kRun once, and which was then recorded, never gets kRun again, as long as
//     fewer than kGravesPerSession * sessions_max sessions were evicted after its own.
//  2. At most client_sessions_max sessions of a client and sessions_max in all. The client's own session that executed
//     least recently makes room; only at sessions_max may it be another client's (crypto/cluster_check.cpp keeps a
//     cluster from getting there).
//  3. The cached bodies never cost more than reply_bytes_max; the bodies recorded first go first. Digests stay.

#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "base/bytes.hpp"
#include "base/ids.hpp"

namespace zz::execution {

// Evicted sessions that are remembered, per session that is kept.
inline constexpr std::size_t kGravesPerSession = 16;
// What a cached body costs besides its bytes.
inline constexpr std::size_t kReplyOverheadBytes = 64;

struct SessionLimits {
  std::uint32_t client_window = 256;  // numbers a client may have outstanding; twice that is kept
  std::uint32_t sessions_max = 1024;
  std::uint64_t reply_bytes_max = 64u << 20;
  std::uint32_t client_sessions_max = 16;
};

class SessionTable {
 public:
  explicit SessionTable(const SessionLimits& limits);
  SessionTable(const SessionTable&) = delete;
  SessionTable& operator=(const SessionTable&) = delete;

  enum class Verdict {
    kRun,      // not executed yet
    kRepeat,   // executed: `digest`, and `body` if it is still cached
    kExpired,  // its session was evicted, or the number is older than what the session keeps: never run it
  };
  struct Lookup {
    Verdict verdict = Verdict::kRun;
    Digest digest;
    std::optional<SharedBytes> body;
  };
  [[nodiscard]] Lookup look_up(ClientId client, SessionId session, RequestNumber number);

  // A request that look_up() let run has been answered. Requires that verdict, and no other call in between for the
  // same request.
  void record(ClientId client, SessionId session, RequestNumber number, const Digest& digest, SharedBytes body);

  // The cached reply, if there is one.
  [[nodiscard]] std::optional<SharedBytes> cached(ClientId client, SessionId session, RequestNumber number) const;

  [[nodiscard]] std::size_t sessions() const { return sessions_.size(); }
  [[nodiscard]] std::uint64_t reply_bytes() const { return reply_bytes_; }
  // Of everything that decides later answers: two tables with equal digests behave alike from here on.
  [[nodiscard]] Digest digest() const;

 private:
  struct Key {
    ClientId client;
    SessionId session;
    auto operator<=>(const Key&) const = default;
  };
  struct Entry {
    RequestNumber number;  // 0: nothing here
    Digest digest;
    SharedBytes body;
    bool has_body = false;
    Entry* older = nullptr;  // in the list of bodies, by time of record()
    Entry* newer = nullptr;
  };
  struct Session {
    RequestNumber highest;
    std::vector<Entry> ring;                 // by number modulo its size; never resized, so entries may be pointed to
    std::list<Key>::iterator age;            // in by_age_
    std::list<SessionId>::iterator own_age;  // in its client's list
  };

  [[nodiscard]] Session* find(const Key& key);
  Session& open(const Key& key);
  void evict(Key key);
  void keep_body(Entry& entry, SharedBytes body);
  void drop_body(Entry& entry);

  SessionLimits limits_;
  std::size_t ring_size_;
  std::map<Key, Session> sessions_;
  std::list<Key> by_age_;                               // front: executed least recently
  std::map<ClientId, std::list<SessionId>> by_client_;  // the same order, per client; no list is empty
  std::set<Key> graves_;
  std::deque<Key> graves_by_age_;
  Entry* oldest_body_ = nullptr;
  Entry* newest_body_ = nullptr;
  std::uint64_t reply_bytes_ = 0;
  Key last_key_;  // the session found last: requests of a batch come in runs
  Session* last_ = nullptr;
};

}  // namespace zz::execution
