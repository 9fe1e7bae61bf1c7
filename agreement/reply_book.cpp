#include "agreement/reply_book.hpp"

#include <algorithm>
#include <utility>

namespace zz::agreement {

ReplyBook::ReplyBook(const ReplyBookConfig& config)
    : config_(config), questions_({.g = config.g, .client_window = config.client_window}) {
  ZZ_ASSERT(config_.sessions_max > 0 && config_.client_sessions_max > 0 && config_.client_window > 0);
}

ReplyBook::Session* ReplyBook::find(ClientId client, SessionId session) {
  if (last_ != nullptr && last_->client == client && last_->id == session) return last_;
  const auto it = sessions_.find(Key{client, session});
  if (it == sessions_.end()) return nullptr;
  last_ = &it->second;
  return last_;
}

void ReplyBook::forget(Session* session) {
  std::erase(touched_, session);
  for (const Entry& entry : session->ring) {
    if (entry.has_body) body_bytes_ -= entry.body.size();
  }
  if (last_ == session) last_ = nullptr;
  by_age_.erase(session->age);
  const auto own = by_client_.find(session->client);
  own->second.erase(session->age_of_client);
  if (own->second.empty()) by_client_.erase(own);
  sessions_.erase(Key{session->client, session->id});
}

ReplyBook::Session& ReplyBook::session_of(ClientId client, SessionId session) {
  if (Session* known = find(client, session)) {
    by_age_.splice(by_age_.end(), by_age_, known->age);
    std::list<Session*>& own = by_client_[client];
    own.splice(own.end(), own, known->age_of_client);
    return *known;
  }
  if (const auto own = by_client_.find(client);
      own != by_client_.end() && own->second.size() >= config_.client_sessions_max) {
    forget(own->second.front());
  } else if (sessions_.size() >= config_.sessions_max) {
    forget(by_age_.front());
  }
  Session& made = sessions_[Key{client, session}];
  made.client = client;
  made.id = session;
  made.ring.resize(std::size_t{2} * config_.client_window);
  made.age = by_age_.insert(by_age_.end(), &made);
  std::list<Session*>& own = by_client_[client];
  made.age_of_client = own.insert(own.end(), &made);
  last_ = &made;
  return made;
}

ReplyBook::Entry* ReplyBook::entry_of(Session& session, RequestNumber number) {
  Entry& entry = session.ring[number.value % session.ring.size()];
  return entry.number == number ? &entry : nullptr;
}

bool ReplyBook::acks_unasked(SessionId session) const {
  const std::uint32_t home = home_of(session, config_.n).value;
  const std::uint32_t distance = (config_.self.value + config_.n - home) % config_.n;
  return distance <= config_.f;
}

// A new view may order a request again, and a faulty primary may name one twice in a batch: the first time counts,
// since executors answer the second like the first.
void ReplyBook::open(const Delivery& batch) {
  for (std::uint32_t index = 0; index < batch.header->references.size(); ++index) {
    const Reference& reference = batch.header->references[index];
    Session& session = session_of(reference.client, reference.session);
    Entry& entry = session.ring[reference.number.value % session.ring.size()];
    if (entry.number >= reference.number) continue;
    if (entry.has_body) body_bytes_ -= entry.body.size();
    entry = Entry{};
    entry.number = reference.number;
    entry.n = batch.header->n;
    entry.index = index;
  }
}

// A client may ask for one request a thousand times in one message: it is told once per turn.
void ReplyBook::tell(Session& session, Entry& entry) {
  entry.told = true;
  if (entry.queued) return;
  entry.queued = true;
  if (session.pending.empty()) touched_.push_back(&session);
  Acks::Item& item = session.pending.emplace_back();
  item.number = entry.number;
  item.reply_digest = entry.digest;
}

void ReplyBook::want_body(Session& session, Entry& entry) {
  if (entry.fetching) return;
  entry.fetching = true;
  if (fetch_.empty() || fetch_.back().n != entry.n) fetch_.push_back(FetchReplies{entry.n, {}});
  fetch_.back().items.push_back({entry.index, session.client, session.id, entry.number});
}

void ReplyBook::close(const BatchHeader& header, const std::vector<Digest>& replies) {
  ZZ_ASSERT(replies.size() == header.references.size());
  for (std::size_t i = 0; i < replies.size(); ++i) {
    const Reference& reference = header.references[i];
    Session* session = find(reference.client, reference.session);
    if (session == nullptr) continue;  // made room for another since
    Entry* entry = entry_of(*session, reference.number);
    if (entry == nullptr || entry->n != header.n || entry->closed) continue;
    settle(*session, *entry, replies[i]);
  }
}

// Requires that the entry is open.
void ReplyBook::settle(Session& session, Entry& entry, const Digest& digest) {
  entry.closed = true;
  entry.digest = digest;
  if (entry.n <= presumed_) questions_.close(session.client, session.id, entry.number);
  if (entry.has_body && reply_digest(entry.body.view()) != entry.digest) {
    body_bytes_ -= entry.body.size();
    entry.has_body = false;
    entry.body = {};
  }
  const bool home = home_of(session.id, config_.n) == config_.self;
  if (entry.asked) {
    tell(session, entry);
    if (!entry.has_body) want_body(session, entry);
  } else if (home ? entry.has_body : acks_unasked(session.id)) {
    tell(session, entry);
  }  // a home node without the body yet tells when it comes
}

Refusal ReplyBook::digests(SlotId slot, const BatchHeader& header, const ReplyDigests& message) {
  for (const ReplyDigests::Item& item : message.items) {
    if (item.index >= header.references.size()) return Refusal::kMalformed;
  }
  Refusal worst = Refusal::kNone;
  for (const ReplyDigests::Item& item : message.items) {
    const Reference& reference = header.references[item.index];
    const ReplyQuestions::Heard heard =
        questions_.hear(slot, reference.client, reference.session, reference.number, item.digest);
    Session* session = find(reference.client, reference.session);
    Entry* entry = session == nullptr ? nullptr : entry_of(*session, reference.number);
    const bool known = entry != nullptr && entry->n == header.n && entry->closed;
    if (known && entry->digest != item.digest) worst = Refusal::kConflict;
    if (worst != Refusal::kConflict && !known && heard.refusal != Refusal::kNone) worst = heard.refusal;
    if (heard.settled && entry != nullptr && entry->n == header.n && !entry->closed) {
      settle(*session, *entry, *heard.settled);
    }
  }
  return worst;
}

void ReplyBook::keep_body(Session& session, Entry& entry, const SharedBytes& body) {
  entry.body = SharedBytes::copy(body.view());  // not the whole frame it came in
  entry.has_body = true;
  body_bytes_ += entry.body.size();
  kept_.push_back({Key{session.client, session.id}, entry.number, entry.body.size()});
  while (kept_.size() > 1 && (body_bytes_ > config_.body_bytes_max ||
                              kept_.size() > std::size_t{2} * config_.client_window * config_.sessions_max)) {
    const Kept oldest = kept_.front();
    kept_.pop_front();
    const auto it = sessions_.find(oldest.key);
    if (it == sessions_.end()) continue;
    Entry* old = entry_of(it->second, oldest.number);
    if (old == nullptr || !old->has_body || old == &entry) continue;
    body_bytes_ -= old->body.size();
    old->has_body = false;
    old->body = {};
  }
}

Refusal ReplyBook::bodies(const BatchHeader& header, const Replies& message) {
  for (const Replies::Item& item : message.items) {
    if (item.index >= header.references.size()) return Refusal::kMalformed;
  }
  Refusal worst = Refusal::kNone;
  for (const Replies::Item& item : message.items) {
    const Reference& reference = header.references[item.index];
    Session* session = find(reference.client, reference.session);
    if (session == nullptr) continue;
    Entry* entry = entry_of(*session, reference.number);
    if (entry == nullptr || entry->n != header.n) continue;
    if (entry->closed && reply_digest(item.body.view()) != entry->digest) {
      worst = Refusal::kConflict;
      continue;
    }
    // Before the close a later sender may be the honest one, so the newest body wins; after it only a fitting one.
    if (entry->has_body && entry->closed) continue;
    if (entry->has_body) body_bytes_ -= entry->body.size();
    keep_body(*session, *entry, item.body);
    const bool home = home_of(reference.session, config_.n) == config_.self;
    if (entry->closed && (entry->asked || (home && !entry->told))) tell(*session, *entry);
  }
  return worst;
}

Refusal ReplyBook::ask(ClientId client, SessionId session_id, RequestNumber number) {
  Session* session = find(client, session_id);
  Entry* entry = session == nullptr ? nullptr : entry_of(*session, number);
  if (entry == nullptr) return Refusal::kSessionExpired;
  entry->asked = true;
  if (!entry->closed && entry->n <= presumed_) {
    return questions_.open({entry->n, entry->index, client, session_id, number});
  }
  if (!entry->closed) return Refusal::kNone;
  tell(*session, *entry);
  if (!entry->has_body) want_body(*session, *entry);
  return Refusal::kNone;
}

std::optional<Digest> ReplyBook::digest_of(Seq n, const Reference& request) {
  Session* session = find(request.client, request.session);
  const Entry* entry = session == nullptr ? nullptr : entry_of(*session, request.number);
  if (entry == nullptr || entry->n != n || !entry->closed) return std::nullopt;
  return entry->digest;
}

bool ReplyBook::take_pending(Session& session, ReplyBookOutput& out) {
  std::size_t turn_bytes = 0;
  std::size_t ack_bytes = 0;
  Acks acks{session.id, {}};
  while (!session.pending.empty() && turn_bytes < config_.turn_bytes_max) {
    Acks::Item item = std::move(session.pending.front());
    session.pending.pop_front();
    if (Entry* entry = entry_of(session, item.number)) {
      entry->queued = false;
      item.has_body = entry->has_body;
      if (entry->has_body) item.body = entry->body;
    }
    if (!acks.items.empty() && ack_bytes + item.body.size() > config_.ack_bytes_max) {
      out.acks.push_back({session.client, std::exchange(acks, Acks{session.id, {}})});
      ack_bytes = 0;
    }
    ack_bytes += item.body.size();
    turn_bytes += item.body.size();
    acks.items.push_back(std::move(item));
  }
  if (!acks.items.empty()) out.acks.push_back({session.client, std::move(acks)});
  return !session.pending.empty();
}

ReplyBookOutput ReplyBook::take_output() {
  ReplyBookOutput out;
  out.acks.reserve(touched_.size());
  std::erase_if(touched_, [&](Session* session) { return !take_pending(*session, out); });
  for (const FetchReplies& wanted : fetch_) {
    for (const FetchReplies::Item& item : wanted.items) {
      Session* session = find(item.client, item.session);
      Entry* entry = session == nullptr ? nullptr : entry_of(*session, item.number);
      if (entry != nullptr) entry->fetching = false;
    }
  }
  out.fetch = std::move(fetch_);
  fetch_.clear();
  out.ask = questions_.take_due();
  return out;
}

}  // namespace zz::agreement
