#pragma once

// SessionTable: which requests of which sessions were executed, and what they were answered (docs/protocol.md §8). It
// is what makes an ordered request run at most once, and it is part of the replicated state: it stands in the slot's
// object store (slot_layout.hpp), where equal prefixes of the order give equal objects.
//
// Numbers and digests are in memory, encoded as they stand in the store, and written page by page: a page that was
// changed waits among kPagesWaitingMax others for more changes; what still waits is written by save(). Bodies are in a
// BodyLog. So a request costs a write of a page at most, and save(), for which execution stops, kPagesWaitingMax of
// them, however many requests and sessions there were.
//
// One thread, that of the store's head; the store must outlive it. No clock, no IO. Every bound is enforced by a rule
// that looks only at the order of record() calls.
//
// Invariants:
//  1. A request for which look_up() said kRun once, and which was then recorded, never gets kRun again, as long as
//     fewer than kGravesPerSession * sessions_max sessions were evicted after its own.
//  2. At most client_sessions_max sessions of a client and sessions_max in all. The client's own session that executed
//     least recently makes room; only at sessions_max may it be another client's (crypto/cluster_check.cpp keeps a
//     cluster from getting there).
//  3. The last reply_bytes_max bytes of bodies are cached, whosever they are. Digests stay.
//  4. A table that was loaded does and writes what the one that was saved would have.

#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "base/ids.hpp"
#include "execution/body_log.hpp"
#include "execution/state/object_store.hpp"

namespace zz::execution {

// Evicted sessions that are remembered, per session that is kept.
inline constexpr std::size_t kGravesPerSession = 16;
// Changed pages of replies that are not written yet. More of them make a checkpoint's pause longer, fewer make more
// requests write a page each: when more sessions than this take turns, all do.
inline constexpr std::size_t kPagesWaitingMax = 256;

struct SessionLimits {
  std::uint32_t client_window = 256;  // numbers a client may have outstanding; twice that is kept
  std::uint32_t sessions_max = 1024;
  std::uint64_t reply_bytes_max = 64u << 20;
  std::uint32_t client_sessions_max = 16;
  bool operator==(const SessionLimits&) const = default;
};

class SessionTable {
 public:
  SessionTable(const SessionLimits& limits, state::ObjectStore& store);
  SessionTable(const SessionTable&) = delete;
  SessionTable& operator=(const SessionTable&) = delete;

  enum class Verdict {
    kRun,      // not executed yet
    kRepeat,   // executed: `digest`
    kExpired,  // its session was evicted, or the number is older than what the session keeps: never run it
  };
  struct Lookup {
    Verdict verdict = Verdict::kRun;
    Digest digest;
  };
  [[nodiscard]] Lookup look_up(ClientId client, SessionId session, RequestNumber number);

  // A request that look_up() let run has been answered. Requires that verdict, and no other call in between for the
  // same request.
  void record(ClientId client, SessionId session, RequestNumber number, const Digest& digest, ByteView body);

  // The cached reply, or what is absent of it, or neither.
  [[nodiscard]] BodyLog::Found cached(ClientId client, SessionId session, RequestNumber number) const;

  [[nodiscard]] std::size_t sessions() const { return by_place_.size(); }
  [[nodiscard]] std::uint64_t reply_bytes() const { return bodies_.end() - bodies_.front(); }

  // What head() needs to know of it at a checkpoint.
  struct Counts {
    std::uint64_t records = 0;
    std::uint64_t sessions = 0;
    std::uint64_t graves = 0;
    std::uint64_t body_end = 0;
    auto operator<=>(const Counts&) const = default;
  };
  // Writes what was not written yet.
  Counts save();
  // The table of a store whose objects of this slot are there, chunks of bodies aside. Requires a fresh one. The text:
  // what is wrong; then the table is of no use.
  [[nodiscard]] std::string load(const Counts& counts);

  // What it may need of the store at most.
  static state::Totals reserve(const SessionLimits& limits);

 private:
  struct Key {
    ClientId client;
    SessionId session;
    auto operator<=>(const Key&) const = default;
  };
  struct Entry {
    RequestNumber number;  // 0: nothing here
    Digest digest;
    std::uint64_t position = 0;
    std::uint32_t length = 0;
  };
  struct Session {
    Key key;
    std::uint32_t place = 0;
    RequestNumber highest;
    std::uint64_t stamp = 0;                 // of its last record(), counted over all sessions
    Bytes ring;                              // encoded entries, by number modulo their number
    std::vector<bool> waiting;               // pages to be written
    std::vector<bool> written;               // pages that have an object
    std::list<Key>::iterator age;            // in by_age_
    std::list<SessionId>::iterator own_age;  // in its client's list
  };
  struct PageAt {
    std::uint32_t place = 0;
    std::uint32_t page = 0;
  };

  [[nodiscard]] std::uint64_t graves_max() const { return std::uint64_t{kGravesPerSession} * limits_.sessions_max; }
  [[nodiscard]] std::uint64_t first_grave() const {
    return graves_end_ > graves_max() ? graves_end_ - graves_max() : 0;
  }
  [[nodiscard]] state::ObjectId ring_page(const PageAt& at) const {
    return layout::ring_page(std::uint64_t{at.place} * pages_ + at.page);
  }
  [[nodiscard]] Session* find(const Key& key);
  Session& open(const Key& key);
  std::uint32_t evict(const Key& key);
  void bury(const Key& key);
  void settle_in(Session& session);
  [[nodiscard]] static Entry entry_at(const Session& session, std::size_t at);
  static void put_entry(Session& session, std::size_t at, const Entry& entry);
  void put_index(const Session& session);
  void changed(Session& session, std::size_t at);
  void write_page(const PageAt& at);
  void write_index(std::size_t page);
  void write(state::ObjectId id, ByteView bytes);
  [[nodiscard]] std::optional<SharedBytes> page_of(state::ObjectId id);
  [[nodiscard]] std::string load_index(const Counts& counts);
  [[nodiscard]] std::string load_ring(Session& session);
  [[nodiscard]] std::string load_graves(const Counts& counts);

  SessionLimits limits_;
  state::ObjectStore& store_;
  std::size_t ring_size_;
  std::uint32_t pages_;  // of a ring
  std::map<Key, Session> sessions_;
  std::vector<Session*> by_place_;
  Bytes index_;                                         // encoded, by place
  std::list<Key> by_age_;                               // front: executed least recently
  std::map<ClientId, std::list<SessionId>> by_client_;  // the same order, per client; no list is empty
  std::set<Key> graves_;
  std::deque<Key> graves_by_age_;  // the last graves_max()
  std::uint64_t graves_end_ = 0;   // graves ever
  Bytes grave_tail_;               // encoded, from the last chunk boundary on
  std::uint64_t records_ = 0;
  BodyLog bodies_;
  std::deque<PageAt> waiting_;       // oldest first; a page that was written or given up since has no mark any more
  std::vector<bool> index_changed_;  // by page
  Key last_key_;                     // the session found last: requests of a batch come in runs
  Session* last_ = nullptr;
};

}  // namespace zz::execution
