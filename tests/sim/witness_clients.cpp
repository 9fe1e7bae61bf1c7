#include "tests/sim/witness_clients.hpp"

#include <algorithm>
#include <limits>

#include "tests/sim/witness.hpp"

namespace zz::sim {

using namespace agreement;

namespace {

constexpr std::size_t kHostileOpsMax = 32;  // different operations kept under one number
constexpr std::size_t kHostileNumbersMax = 200'000;
constexpr std::size_t kVoteValuesMax = 16;  // different votes for one number, per node
constexpr std::uint64_t kVotesAhead = 4'096;

}  // namespace

// ---- the reference run -----------------------------------------------------------------------------------------

ReferenceRun::ReferenceRun(const crypto::Limits& limits)
    : kept_(2 * std::uint64_t{limits.client_window}),
      sessions_max_(limits.sessions_max),
      client_sessions_max_(limits.client_sessions_max),
      expired_reply_(SharedBytes::copy(kExpiredReply)),
      expired_digest_(reply_digest(expired_reply_.view())) {}

// A number is gone once a later one took its place: the highest is far ahead, or one of the same remainder ran.
bool ReferenceRun::expired(const Key& key, const Session* session, std::uint64_t number) const {
  if (number == 0) return true;
  if (session == nullptr) return number > kept_ || evicted_.contains(key);
  const std::uint64_t highest = session->done.empty() ? 0 : session->done.rbegin()->first;
  for (auto it = session->done.upper_bound(number); it != session->done.end(); ++it) {
    if (it->first % kept_ == number % kept_) return true;
  }
  return !session->done.contains(number) && highest > number && highest - number >= kept_;
}

// Before a new session: the client's own that executed least recently goes, or the cluster's.
void ReferenceRun::make_room(ClientId client) {
  const auto evict = [&](auto belongs) {
    auto oldest = sessions_.end();
    for (auto it = sessions_.begin(); it != sessions_.end(); ++it) {
      if (belongs(it->first) && (oldest == sessions_.end() || it->second.used < oldest->second.used)) oldest = it;
    }
    evicted_.insert(oldest->first);
    sessions_.erase(oldest);
  };
  const auto own = [client](const Key& key) { return key.first == client; };
  const auto count = std::count_if(sessions_.begin(), sessions_.end(), [&](const auto& s) { return own(s.first); });
  if (static_cast<std::size_t>(count) >= client_sessions_max_) evict(own);
  if (sessions_.size() >= sessions_max_) evict([](const Key&) { return true; });
}

ReferenceRun::Answer ReferenceRun::execute(const execution::Invocation& invocation, SessionId id,
                                           RequestNumber number) {
  const Key key{invocation.client, id};
  const auto known = sessions_.find(key);
  Session* session = known == sessions_.end() ? nullptr : &known->second;
  if (expired(key, session, number.value)) return {false, true, expired_reply_, expired_digest_};
  if (session != nullptr) {
    const auto done = session->done.find(number.value);
    if (done != session->done.end()) return {false, false, {}, done->second};
  } else {
    make_room(invocation.client);
    session = &sessions_[key];
  }
  Answer answer;
  answer.ran = true;
  answer.reply = service_.execute(invocation);
  answer.digest = reply_digest(answer.reply.view());
  session->done.emplace(number.value, answer.digest);
  session->used = ++clock_;
  return answer;
}

// ---- clients ---------------------------------------------------------------------------------------------------

ClientWitness::ClientWitness(Ghost& ghost) : ghost_(ghost), run_(ghost.cluster.limits), votes_(ghost.nodes) {}

void ClientWitness::submitted(Micros now, ClientId client, SessionId session, RequestNumber number,
                              const SharedBytes& op) {
  Submitted entry;
  entry.digest = request_digest(ghost_.service, client, session, number, 0, op.view());
  entry.at = now;
  entry.floor = last_accepted_;
  const bool fresh = submitted_[{client, session}].emplace(number.value, std::move(entry)).second;
  if (!fresh) ghost_.fail("I5 numbers: a correct client used one twice", at(client, session, number));
}

void ClientWitness::accepted(Micros now, ClientId client, SessionId session, RequestNumber number,
                             const SharedBytes& reply) {
  const auto fail = [&](std::string_view what) { ghost_.fail(what, at(client, session, number)); };
  const auto known = submitted_.find({client, session});
  if (known == submitted_.end()) return fail("I13 replies: accepted for what was never submitted");
  const auto found = known->second.find(number.value);
  if (found == known->second.end()) return fail("I13 replies: accepted for what was never submitted");
  Submitted& entry = found->second;
  if (entry.position == 0) return fail("I13 replies: accepted before it was ordered");
  if (entry.accepted) return fail("I13 replies: accepted twice");
  if (!(entry.reply == reply)) return fail("I13 replies: not what the reference run answered");
  entry.accepted = now;
  last_accepted_ = std::max(last_accepted_, entry.position);
}

void ClientWitness::asked(ClientId client, const MessagePtr& message) {
  const auto* requests = std::get_if<Requests>(&message->body);
  if (requests == nullptr || message->service != ghost_.service) return;
  MessagePtr& last = last_asked_[client];
  if (last == message) return;  // the same to another node
  last = message;
  if (submitted_.contains({client, requests->session})) return;
  for (const Requests::Item& item : requests->items) {
    if (hostile_.size() >= kHostileNumbersMax) return;
    HostileOps& there = hostile_[{client, requests->session, item.number.value}];
    if (std::find(there.ops.begin(), there.ops.end(), item.op) != there.ops.end()) continue;
    if (there.ops.size() < kHostileOpsMax) {
      there.ops.push_back(item.op);
    } else {
      there.flooded = true;
    }
  }
}

// ---- the order -------------------------------------------------------------------------------------------------

// Its client sent just this.
void ClientWitness::check_reference(const GhostBatch& batch, const Reference& r) {
  const auto fail = [&](std::string_view what) {
    ghost_.fail(what, at(r.client, r.session, r.number) + ", " + at(batch.n));
  };
  const auto session = submitted_.find({r.client, r.session});
  if (session != submitted_.end()) {
    const auto found = session->second.find(r.number.value);
    if (found == session->second.end() || found->second.digest != r.digest) {
      fail("I3 validity: ordered, but its correct client never submitted it");
    }
    return;
  }
  const auto found = hostile_.find({r.client, r.session, r.number.value});
  if (found == hostile_.end()) {
    if (hostile_.size() < kHostileNumbersMax) fail("I3 validity: ordered, but its client never sent it");
    return;
  }
  const auto is = [&](const SharedBytes& op) {
    return request_digest(ghost_.service, r.client, r.session, r.number, 0, op.view()) == r.digest;
  };
  const auto& ops = found->second.ops;
  if (!found->second.flooded && std::none_of(ops.begin(), ops.end(), is)) {
    fail("I3 validity: ordered, but its client never sent it");
  }
}

// One correct node at least vouched for it, so its window held the number.
void ClientWitness::check_window(const GhostBatch& batch, const Reference& r) {
  Numbers& numbers = numbers_[{r.client, r.session}];
  if (r.number.value == 0 || r.number.value > numbers.low + 2 * std::uint64_t{ghost_.cluster.limits.client_window}) {
    return ghost_.fail("I5 numbers: ordered outside its session's window",
                       at(r.client, r.session, r.number) + ", " + at(batch.n));
  }
  if (r.number.value > numbers.low) numbers.above.insert(r.number.value);
  while (!numbers.above.empty() && *numbers.above.begin() == numbers.low + 1) {
    ++numbers.low;
    numbers.above.erase(numbers.above.begin());
  }
}

Digest ClientWitness::ordered(const GhostBatch& batch) {
  std::vector<Digest> replies;
  replies.reserve(batch.requests.size());
  for (const RequestPtr& request : batch.requests) {
    const Reference reference = reference_of(*request);
    check_reference(batch, reference);
    check_window(batch, reference);
    const execution::Invocation invocation{batch.n, batch.time, batch.history, request->client, request->op};
    const ReferenceRun::Answer answer = run_.execute(invocation, request->session, request->number);
    replies.push_back(answer.digest);
    if (!answer.ran && !answer.expired) continue;
    ++position_;
    const auto session = submitted_.find({request->client, request->session});
    if (session == submitted_.end()) continue;
    const auto found = session->second.find(request->number.value);
    if (found == session->second.end() || found->second.position != 0) continue;
    found->second.position = position_;
    found->second.reply = answer.reply;
    if (position_ <= found->second.floor) {
      ghost_.fail("I14 real time: ordered before what was accepted before it was submitted",
                  at(request->client, request->session, request->number));
    }
  }
  const Digest vote = vote_digest(batch.n, replies);
  hashes_.push_back(hash_of(replies));
  digests_.push_back(vote);
  replies_.push_back(std::move(replies));
  return vote;
}

// ---- votes and execution ---------------------------------------------------------------------------------------

// Reply digests are spread already; only their order has to count.
std::uint64_t ClientWitness::hash_of(const std::vector<Digest>& replies) {
  std::uint64_t hash = replies.size();
  for (const Digest& digest : replies) {
    std::uint64_t word = 0;
    for (std::size_t i = 0; i < 8; ++i) word = word << 8 | digest.bytes[i];
    hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
    hash ^= hash >> 29;
  }
  return hash;
}

void ClientWitness::voted(const Parcel& parcel) {
  const auto* vote = std::get_if<Vote>(&parcel.message->body);
  if (vote == nullptr || parcel.to.role != crypto::Role::kNode || parcel.to.index >= votes_.size()) return;
  if (parcel.message->service != ghost_.service || vote->slot != parcel.from.slot) return;
  if (vote->n.value == 0 || vote->n.value > replies_.size() + kVotesAhead) return;
  auto& equal = votes_[parcel.to.index].at(vote->n).equal;
  const std::uint64_t hash = hash_of(vote->replies);
  auto it = std::find_if(equal.begin(), equal.end(), [hash](const auto& v) { return v.first == hash; });
  if (it == equal.end()) {
    if (equal.size() >= kVoteValuesMax && !ghost_.is_correct(vote->slot)) return;
    it = equal.insert(equal.end(), {hash, 0});
  }
  it->second |= bit_of(vote->slot);
}

// What a correct node says of a closing is so; what others say may be.
void ClientWitness::closings(const Parcel& parcel) {
  const auto* words = std::get_if<Closings>(&parcel.message->body);
  if (words == nullptr || parcel.to.role != crypto::Role::kNode || parcel.to.index >= votes_.size()) return;
  if (parcel.message->service != ghost_.service) return;
  const NodeId from = parcel.from.node();
  for (std::size_t i = 0; i < words->digests.size(); ++i) {
    const std::uint64_t n = words->first_n.value + i;
    if (words->digests[i].is_zero()) continue;
    if (n == 0 || n > digests_.size() || digests_[n - 1] != words->digests[i]) {
      if (!ghost_.is_correct(from)) continue;
      return ghost_.fail("I6 quorum: says that another vote closes a batch than the reference run", at(from, Seq{n}));
    }
    votes_[parcel.to.index].at(Seq{n}).words |= bit_of(from);
  }
}

void ClientWitness::closed(NodeId node, Seq n) {
  if (n.value == 0 || n.value > replies_.size()) return ghost_.fail("I6 quorum: closed beyond the order", at(node, n));
  const VotesAt* there = votes_[node.value].find(n);
  if (there != nullptr) {
    for (const auto& [hash, slots] : there->equal) {
      if (hash != hashes_[n.value - 1]) continue;
      if (size_of(slots) >= ghost_.g + 1 || (slots != 0 && size_of(there->words) >= ghost_.f + 1)) return;
    }
  }
  ghost_.fail("I6 quorum: closed without g+1 votes that equal the reference run", at(node, n));
}

std::size_t ClientWitness::values_of(NodeId node, Seq n) const {
  const VotesAt* there = votes_[node.value].find(n);
  return there == nullptr ? 0 : there->equal.size();
}

void ClientWitness::executed(SlotId id, Incarnation incarnation, Seq n, const std::vector<Digest>& replies,
                             const Digest& state) {
  if (!ghost_.is_correct(id)) return;
  const auto fail = [&](std::string_view what) { ghost_.fail(what, at(id, incarnation) + ", " + at(n)); };
  SlotGhost& slot = slots_[id];
  if (incarnation < slot.incarnation) return fail("I24 incarnations: an earlier life executes");
  if (incarnation != slot.incarnation) slot = {incarnation, Seq{}};
  if (n != slot.executed.next()) return fail("I11 execution: not the next batch");
  slot.executed = n;
  if (n.value > replies_.size()) return fail("I2 prefix: executed what no correct node delivered");
  if (replies != replies_[n.value - 1]) return fail("I19 determinism: other replies than the reference run");
  if (states_.size() < n.value) states_.resize(n.value);
  auto& known = states_[n.value - 1];
  if (!known) known = state;
  if (*known != state) return fail("I19 determinism: another state after the same order");
}

// That the state is the one of this order shows in what it answers from there on.
void ClientWitness::adopted(SlotId id, Incarnation incarnation, Seq n) {
  if (!ghost_.is_correct(id)) return;
  SlotGhost& slot = slots_[id];
  const auto fail = [&](std::string_view what) { ghost_.fail(what, at(id, incarnation) + ", " + at(n)); };
  if (incarnation < slot.incarnation) return fail("I24 incarnations: an earlier life adopts a state");
  if (n.value > replies_.size()) return fail("I2 prefix: adopted a state after what no correct node delivered");
  slot = {incarnation, n};
}

// The whole history once more, from what clients saw alone: in the order of execution, nothing may come before a
// request that was accepted before it was submitted; and no two requests share a place.
void ClientWitness::final_check() {
  struct Seen {
    std::uint64_t position;
    const Submitted* entry;
    ClientId client;
    SessionId session;
    RequestNumber number;
  };
  std::vector<Seen> seen;
  for (const auto& [key, numbers] : submitted_) {
    for (const auto& [number, entry] : numbers) {
      if (entry.position != 0) seen.push_back({entry.position, &entry, key.first, key.second, RequestNumber{number}});
    }
  }
  std::sort(seen.begin(), seen.end(), [](const Seen& a, const Seen& b) { return a.position > b.position; });
  Micros earliest{std::numeric_limits<std::int64_t>::max()};  // acceptance of anything later in the order
  for (std::size_t i = 0; i < seen.size(); ++i) {
    const auto fail = [&](std::string_view what) {
      ghost_.fail(what, at(seen[i].client, seen[i].session, seen[i].number));
    };
    if (i > 0 && seen[i].position == seen[i - 1].position) return fail("I4 at most once: two requests in one place");
    if (earliest < seen[i].entry->at) return fail("I14 real time: the history is not linearizable");
    if (seen[i].entry->accepted) earliest = std::min(earliest, *seen[i].entry->accepted);
  }
}

}  // namespace zz::sim
