#include "execution/session_table.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "crypto/digest.hpp"

namespace zz::execution {

SessionTable::SessionTable(const SessionLimits& limits)
    : limits_(limits), ring_size_(std::size_t{2} * limits.client_window) {
  ZZ_ASSERT(limits.client_window > 0 && limits.sessions_max > 0 && limits.client_sessions_max > 0);
}

SessionTable::Session* SessionTable::find(const Key& key) {
  if (last_ != nullptr && key == last_key_) return last_;
  const auto it = sessions_.find(key);
  if (it == sessions_.end()) return nullptr;
  last_key_ = key;
  last_ = &it->second;
  return last_;
}

SessionTable::Lookup SessionTable::look_up(ClientId client, SessionId session, RequestNumber number) {
  Lookup out;
  const Key key{client, session};
  if (const Session* known = find(key)) {
    const Entry& entry = known->ring[number.value % ring_size_];
    if (number.value != 0 && entry.number == number) {
      out.verdict = Verdict::kRepeat;
      out.digest = entry.digest;
      if (entry.has_body) out.body = entry.body;
    } else if (number < entry.number || number.value == 0 ||
               (known->highest.value > number.value && known->highest.value - number.value >= ring_size_)) {
      out.verdict = Verdict::kExpired;
    }
    return out;
  }
  // A session starts with a number in its first window; a later number without a session is one that was evicted.
  if (number.value == 0 || number.value > ring_size_ || graves_.contains(key)) out.verdict = Verdict::kExpired;
  return out;
}

SessionTable::Session& SessionTable::open(const Key& key) {
  const auto own = by_client_.find(key.client);
  if (own != by_client_.end() && own->second.size() >= limits_.client_sessions_max) {
    evict({key.client, own->second.front()});
  }
  if (sessions_.size() >= limits_.sessions_max) evict(by_age_.front());
  Session& session = sessions_[key];
  session.ring.resize(ring_size_);
  session.age = by_age_.insert(by_age_.end(), key);
  std::list<SessionId>& ages = by_client_[key.client];  // looked up again: evict() drops empty lists
  session.own_age = ages.insert(ages.end(), key.session);
  last_key_ = key;
  last_ = &session;
  return session;
}

void SessionTable::evict(Key key) {
  const auto it = sessions_.find(key);
  ZZ_ASSERT(it != sessions_.end());
  for (Entry& entry : it->second.ring) drop_body(entry);
  by_age_.erase(it->second.age);
  const auto own = by_client_.find(key.client);
  own->second.erase(it->second.own_age);
  if (own->second.empty()) by_client_.erase(own);
  sessions_.erase(it);
  last_ = nullptr;
  graves_.insert(key);
  graves_by_age_.push_back(key);
  if (graves_by_age_.size() > kGravesPerSession * limits_.sessions_max) {
    graves_.erase(graves_by_age_.front());
    graves_by_age_.pop_front();
  }
}

void SessionTable::record(ClientId client, SessionId session, RequestNumber number, const Digest& digest,
                          SharedBytes body) {
  ZZ_ASSERT(number.value != 0);
  const Key key{client, session};
  Session* known = find(key);
  if (known == nullptr) known = &open(key);
  by_age_.splice(by_age_.end(), by_age_, known->age);
  std::list<SessionId>& own = by_client_.find(client)->second;
  own.splice(own.end(), own, known->own_age);
  known->highest = std::max(known->highest, number);
  Entry& entry = known->ring[number.value % ring_size_];
  ZZ_ASSERT(entry.number < number);
  drop_body(entry);
  entry.number = number;
  entry.digest = digest;
  keep_body(entry, std::move(body));
}

std::optional<SharedBytes> SessionTable::cached(ClientId client, SessionId session, RequestNumber number) const {
  const auto it = sessions_.find(Key{client, session});
  if (it == sessions_.end() || number.value == 0) return std::nullopt;
  const Entry& entry = it->second.ring[number.value % ring_size_];
  if (entry.number != number || !entry.has_body) return std::nullopt;
  return entry.body;
}

void SessionTable::keep_body(Entry& entry, SharedBytes body) {
  const std::uint64_t cost = body.size() + kReplyOverheadBytes;
  if (cost > limits_.reply_bytes_max) return;
  while (reply_bytes_ + cost > limits_.reply_bytes_max) drop_body(*oldest_body_);
  reply_bytes_ += cost;
  entry.body = std::move(body);
  entry.has_body = true;
  entry.older = newest_body_;
  entry.newer = nullptr;
  if (newest_body_ != nullptr) newest_body_->newer = &entry;
  newest_body_ = &entry;
  if (oldest_body_ == nullptr) oldest_body_ = &entry;
}

void SessionTable::drop_body(Entry& entry) {
  if (!entry.has_body) return;
  reply_bytes_ -= entry.body.size() + kReplyOverheadBytes;
  (entry.older != nullptr ? entry.older->newer : oldest_body_) = entry.newer;
  (entry.newer != nullptr ? entry.newer->older : newest_body_) = entry.older;
  entry.body = SharedBytes();
  entry.has_body = false;
  entry.older = nullptr;
  entry.newer = nullptr;
}

Digest SessionTable::digest() const {
  crypto::DigestWriter out("zz session table");
  out.u64(sessions_.size());
  for (const Key& key : by_age_) {
    const Session& session = sessions_.find(key)->second;
    out.id(key.client).id(key.session).id(session.highest);
    for (const Entry& entry : session.ring) {
      out.id(entry.number).digest(entry.digest).u64(entry.has_body ? 1 : 0);
      if (entry.has_body) out.bytes(entry.body.view());
    }
  }
  out.u64(graves_by_age_.size());
  for (const Key& key : graves_by_age_) out.id(key.client).id(key.session);
  // Which body goes next depends on the order in which they came.
  for (const Entry* entry = oldest_body_; entry != nullptr; entry = entry->newer) out.id(entry->number);
  return out.finish();
}

}  // namespace zz::execution
