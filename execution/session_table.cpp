#include "execution/session_table.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"

namespace zz::execution {

using layout::kGravesPerChunk;
using layout::kRepliesPerPage;
using layout::kReplyBytes;
using layout::kSessionBytes;
using layout::kSessionsPerPage;

SessionTable::SessionTable(const SessionLimits& limits, state::ObjectStore& store)
    : limits_(limits),
      store_(store),
      ring_size_(std::size_t{2} * limits.client_window),
      pages_(static_cast<std::uint32_t>((ring_size_ + kRepliesPerPage - 1) / kRepliesPerPage)),
      bodies_(store, limits.reply_bytes_max) {
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
    const Entry entry = entry_at(*known, number.value % ring_size_);
    if (number.value != 0 && entry.number == number) {
      out.verdict = Verdict::kRepeat;
      out.digest = entry.digest;
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
  auto place = static_cast<std::uint32_t>(by_place_.size());
  if (own != by_client_.end() && own->second.size() >= limits_.client_sessions_max) {
    place = evict({key.client, own->second.front()});
  } else if (sessions_.size() >= limits_.sessions_max) {
    place = evict(by_age_.front());
  }
  Session& session = sessions_[key];
  session.key = key;
  session.place = place;
  settle_in(session);
  last_key_ = key;
  last_ = &session;
  return session;
}

// A session that executed most recently gets its memory, its place and its turns.
void SessionTable::settle_in(Session& session) {
  session.ring.resize(ring_size_ * kReplyBytes);
  session.waiting.resize(pages_);
  session.written.resize(pages_);
  if (session.place >= by_place_.size()) by_place_.resize(session.place + std::size_t{1});
  by_place_[session.place] = &session;
  index_.resize(by_place_.size() * kSessionBytes);
  put_index(session);
  index_changed_.resize((by_place_.size() + kSessionsPerPage - 1) / kSessionsPerPage);
  session.age = by_age_.insert(by_age_.end(), session.key);
  std::list<SessionId>& ages = by_client_[session.key.client];
  session.own_age = ages.insert(ages.end(), session.key.session);
}

// Returns the place that is free now.
std::uint32_t SessionTable::evict(const Key& key) {
  const auto it = sessions_.find(key);
  ZZ_ASSERT(it != sessions_.end());
  const Key gone = key;  // it may be in one of the lists
  const Session& session = it->second;
  const std::uint32_t place = session.place;
  for (std::uint32_t page = 0; page < pages_; ++page) {
    if (!session.written[page]) continue;
    const state::Outcome out = store_.erase(ring_page({place, page}));
    ZZ_ASSERT(out.status != state::Status::kMissing);
  }
  by_age_.erase(session.age);
  const auto own = by_client_.find(gone.client);
  own->second.erase(session.own_age);
  if (own->second.empty()) by_client_.erase(own);
  by_place_[place] = nullptr;
  sessions_.erase(it);
  last_ = nullptr;
  bury(gone);
  return place;
}

void SessionTable::bury(const Key& key) {
  graves_.insert(key);
  graves_by_age_.push_back(key);
  layout::Writer record(layout::kGraveBytes);
  record.u32(key.client.value);
  record.u64(key.session.value);
  grave_tail_.insert(grave_tail_.end(), record.bytes().begin(), record.bytes().end());
  const std::uint64_t first = first_grave() / kGravesPerChunk;
  ++graves_end_;
  if (graves_end_ % kGravesPerChunk == 0) {
    write(layout::grave_chunk(graves_end_ / kGravesPerChunk - 1), grave_tail_);
    grave_tail_.clear();
  }
  if (graves_by_age_.size() <= graves_max()) return;
  graves_.erase(graves_by_age_.front());
  graves_by_age_.pop_front();
  if (first == first_grave() / kGravesPerChunk) return;
  const state::Outcome out = store_.erase(layout::grave_chunk(first));
  ZZ_ASSERT(out.status != state::Status::kMissing);
}

void SessionTable::record(ClientId client, SessionId session, RequestNumber number, const Digest& digest,
                          ByteView body) {
  ZZ_ASSERT(number.value != 0);
  const Key key{client, session};
  Session* known = find(key);
  if (known == nullptr) known = &open(key);
  by_age_.splice(by_age_.end(), by_age_, known->age);
  std::list<SessionId>& own = by_client_.find(client)->second;
  own.splice(own.end(), own, known->own_age);
  known->highest = std::max(known->highest, number);
  known->stamp = ++records_;
  const std::size_t at = number.value % ring_size_;
  ZZ_ASSERT(entry_at(*known, at).number < number);
  const auto position = bodies_.append(body);
  const std::uint32_t length = position ? static_cast<std::uint32_t>(body.size()) : layout::kNoBody;
  put_entry(*known, at, {number, digest, position.value_or(0), length});
  put_index(*known);
  changed(*known, at);
}

BodyLog::Found SessionTable::cached(ClientId client, SessionId session, RequestNumber number) const {
  const auto it = sessions_.find(Key{client, session});
  if (it == sessions_.end() || number.value == 0) return {};
  const Entry entry = entry_at(it->second, number.value % ring_size_);
  if (entry.number != number || entry.length == layout::kNoBody) return {};
  return bodies_.read(entry.position, entry.length);
}

// ---- encoding --------------------------------------------------------------------------------------------------

SessionTable::Entry SessionTable::entry_at(const Session& session, std::size_t at) {
  layout::Reader in(ByteView(session.ring).subspan(at * kReplyBytes, kReplyBytes));
  Entry out;
  out.number = RequestNumber{in.u64()};
  out.digest = in.digest();
  out.position = in.u64();
  out.length = in.u32();
  return out;
}

void SessionTable::put_entry(Session& session, std::size_t at, const Entry& entry) {
  layout::InPlace out(session.ring.data() + at * kReplyBytes);
  out.u64(entry.number.value);
  out.digest(entry.digest);
  out.u64(entry.position);
  out.u32(entry.length);
}

void SessionTable::put_index(const Session& session) {
  layout::InPlace out(index_.data() + session.place * kSessionBytes);
  out.u32(session.key.client.value);
  out.u64(session.key.session.value);
  out.u64(session.highest.value);
  out.u64(session.stamp);
}

// ---- writing ---------------------------------------------------------------------------------------------------

void SessionTable::changed(Session& session, std::size_t at) {
  index_changed_[session.place / kSessionsPerPage] = true;
  const auto page = static_cast<std::uint32_t>(at / kRepliesPerPage);
  if (session.waiting[page]) return;
  session.waiting[page] = true;
  waiting_.push_back({session.place, page});
  if (waiting_.size() <= kPagesWaitingMax) return;
  write_page(waiting_.front());
  waiting_.pop_front();
}

// Nothing if it was written since, or its session has left its place.
void SessionTable::write_page(const PageAt& at) {
  Session& session = *by_place_[at.place];
  if (!session.waiting[at.page]) return;
  session.waiting[at.page] = false;
  session.written[at.page] = true;
  const std::size_t first = std::size_t{at.page} * kRepliesPerPage;
  const std::size_t entries = std::min(kRepliesPerPage, ring_size_ - first);
  write(ring_page(at), ByteView(session.ring).subspan(first * kReplyBytes, entries * kReplyBytes));
}

void SessionTable::write_index(std::size_t page) {
  const std::size_t first = page * kSessionsPerPage;
  const std::size_t entries = std::min(kSessionsPerPage, by_place_.size() - first);
  write(layout::index_page(page), ByteView(index_).subspan(first * kSessionBytes, entries * kSessionBytes));
}

void SessionTable::write(state::ObjectId id, ByteView bytes) {
  const state::Outcome out = store_.write(id, bytes);
  ZZ_ASSERT(out.status == state::Status::kDone);  // what is below was loaded, and room is reserved
}

SessionTable::Counts SessionTable::save() {
  for (const PageAt& at : waiting_) write_page(at);
  waiting_.clear();
  for (std::size_t page = 0; page < index_changed_.size(); ++page) {
    if (index_changed_[page]) write_index(page);
    index_changed_[page] = false;
  }
  write(layout::kGraveTail, grave_tail_);
  bodies_.save();
  return {records_, by_place_.size(), graves_end_, bodies_.end()};
}

state::Totals SessionTable::reserve(const SessionLimits& limits) {
  const std::uint64_t pages =
      (std::uint64_t{2} * limits.client_window + kRepliesPerPage - 1) / kRepliesPerPage * limits.sessions_max;
  const std::uint64_t index = limits.sessions_max / kSessionsPerPage + 1;
  const std::uint64_t graves = kGravesPerSession * std::uint64_t{limits.sessions_max} / kGravesPerChunk + 3;
  state::Totals out = BodyLog::reserve(limits.reply_bytes_max);
  out.objects += pages + index + graves;
  out.bytes += pages * kRepliesPerPage * kReplyBytes + index * kSessionsPerPage * kSessionBytes +
               graves * kGravesPerChunk * layout::kGraveBytes;
  return out;
}

// ---- reading ---------------------------------------------------------------------------------------------------

std::optional<SharedBytes> SessionTable::page_of(state::ObjectId id) {
  state::ReadOutcome read = store_.read(id);
  if (read.status != state::Status::kDone) return std::nullopt;
  return std::move(read.bytes);
}

std::string SessionTable::load(const Counts& counts) {
  ZZ_ASSERT(records_ == 0 && by_place_.empty());
  if (counts.sessions > limits_.sessions_max || counts.graves > counts.records || counts.sessions > counts.records) {
    return "the head speaks of impossible sessions";
  }
  const auto tail = page_of(layout::kBodyTail);
  if (!tail || !bodies_.load(counts.body_end, *tail)) return "the bodies do not end where the head says";
  records_ = counts.records;
  std::string wrong = load_graves(counts);
  if (wrong.empty()) wrong = load_index(counts);
  for (std::size_t i = 0; wrong.empty() && i < by_place_.size(); ++i) wrong = load_ring(*by_place_[i]);
  return wrong;
}

std::string SessionTable::load_index(const Counts& counts) {
  std::vector<Session> found;
  for (std::uint64_t at = 0; at < counts.sessions; at += kSessionsPerPage) {
    const std::uint64_t entries = std::min<std::uint64_t>(kSessionsPerPage, counts.sessions - at);
    const auto page = page_of(layout::index_page(at / kSessionsPerPage));
    if (!page || page->size() != entries * kSessionBytes) return "a page of sessions has a wrong length";
    layout::Reader in(page->view());
    for (std::uint64_t i = 0; i < entries; ++i) {
      Session session;
      session.key.client = ClientId{in.u32()};
      session.key.session = SessionId{in.u64()};
      session.place = static_cast<std::uint32_t>(at + i);
      session.highest = RequestNumber{in.u64()};
      session.stamp = in.u64();
      if (session.stamp == 0 || session.stamp > counts.records) return "a session has an impossible stamp";
      found.push_back(std::move(session));
    }
  }
  // Stamps say whose turn it is.
  std::sort(found.begin(), found.end(), [](const Session& a, const Session& b) { return a.stamp < b.stamp; });
  by_place_.resize(found.size());
  std::uint64_t last = 0;
  for (Session& session : found) {
    const Key key = session.key;
    if (std::exchange(last, session.stamp) == session.stamp) return "two sessions have one stamp";
    const auto [it, is_new] = sessions_.emplace(key, std::move(session));
    if (!is_new) return "a session is there twice";
    settle_in(it->second);
  }
  return {};
}

std::string SessionTable::load_ring(Session& session) {
  for (std::uint32_t page = 0; page < pages_; ++page) {
    const state::ReadOutcome read = store_.read(ring_page({session.place, page}));
    if (read.status == state::Status::kNone) continue;
    const std::size_t first = std::size_t{page} * kRepliesPerPage;
    const std::size_t last = std::min(first + kRepliesPerPage, ring_size_);
    const ByteView bytes = read.bytes.view();
    if (read.status != state::Status::kDone || bytes.size() != (last - first) * kReplyBytes) {
      return "a page of replies has a wrong length";
    }
    session.written[page] = true;
    std::copy(bytes.begin(), bytes.end(), session.ring.begin() + static_cast<std::ptrdiff_t>(first * kReplyBytes));
    for (std::size_t i = first; i < last; ++i) {
      const std::uint64_t number = entry_at(session, i).number.value;
      if (number != 0 && (number % ring_size_ != i || number > session.highest.value)) {
        return "a reply stands where it cannot be";
      }
    }
  }
  return {};
}

std::string SessionTable::load_graves(const Counts& counts) {
  graves_end_ = counts.graves;
  const std::uint64_t end_chunk = graves_end_ / kGravesPerChunk;
  for (std::uint64_t chunk = first_grave() / kGravesPerChunk; chunk <= end_chunk; ++chunk) {
    const bool is_tail = chunk == end_chunk;
    const std::uint64_t entries = is_tail ? graves_end_ % kGravesPerChunk : kGravesPerChunk;
    const auto page = page_of(is_tail ? layout::kGraveTail : layout::grave_chunk(chunk));
    if (!page || page->size() != entries * layout::kGraveBytes) return "a page of graves has a wrong length";
    layout::Reader in(page->view());
    for (std::uint64_t i = 0; i < entries; ++i) {
      const Key key{ClientId{in.u32()}, SessionId{in.u64()}};
      if (chunk * kGravesPerChunk + i < first_grave()) continue;
      graves_.insert(key);
      graves_by_age_.push_back(key);
    }
    if (is_tail) grave_tail_.assign(page->view().begin(), page->view().end());
  }
  return {};
}

}  // namespace zz::execution
