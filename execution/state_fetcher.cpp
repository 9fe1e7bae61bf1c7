#include "execution/state_fetcher.hpp"

#include <algorithm>
#include <limits>
#include <tuple>

#include "base/assert.hpp"
#include "execution/state_messages.hpp"

namespace zz::execution {

using agreement::FetchState;
using agreement::kStateBytesMax;
using agreement::kStateWantsMax;
using agreement::StateParts;
using state::ObjectId;
using state::Part;
using state::PartKind;
using state::Want;

namespace {

constexpr std::size_t kVisits = 16'384;            // of tree nodes in one look for what is absent; about a millisecond
constexpr std::uint64_t kQuestionsPerSecond = 16;  // at least, in the background at full rate
constexpr std::size_t kInFlightEach = 2;           // questions to one source, before others of its merit are busy too
constexpr std::size_t kLookMax = 64;               // items that have no source now and are passed over
constexpr std::uint32_t kDemeritsMax = 64;
constexpr std::uint32_t kSlack = 2;  // demerits that make no difference yet
constexpr std::uint32_t kLieDemerits = 8;
constexpr std::uint32_t kVainDemerits = 4;
constexpr std::uint32_t kPartialDemerits = 2;
constexpr std::uint32_t kLackingDemerits = 4;  // for what the slot answered without
constexpr std::uint32_t kSlowDemerits = kSlack + 1;
constexpr std::int64_t kUsualTimes = 2;  // what a source took last, before it is hedged

// The wanted thing is not these bytes. ObjectStore::supply may refuse right ones, when the head has moved on meanwhile.
bool is_wrong(const Want& want, const Part& part) {
  switch (want.kind) {
    case PartKind::kRoot: {
      const auto image = state::decode_root(part.bytes.view());
      return !image || state::root_digest(*image) != want.digest;
    }
    case PartKind::kNode: {
      const auto image = state::decode_node(part.bytes.view());
      return !image || image->place != part.place || state::node_digest(*image) != want.digest;
    }
    case PartKind::kObject:
      return part.bytes.size() != want.bytes_max ||
             state::object_digest(ObjectId{part.place.prefix}, part.bytes.view()) != want.digest;
  }
  return true;
}

bool is_on_path(const Want& path, const Part& part) {
  if (part.kind == PartKind::kRoot) return path.kind == PartKind::kRoot;
  return part.place.depth >= path.place.depth && state::covers(part.place, path.toward.value);
}

}  // namespace

StateFetcher::StateFetcher(const StateFetcherConfig& config, state::ObjectStore& store)
    : config_(config),
      store_(store),
      nodes_(3 * config.f + 1),
      slots_(2 * config.g + 1),
      sources_(nodes_.size() * slots_.size()),
      quiet_(config.patience) {
  ZZ_ASSERT(config.g >= 1 && slots_.size() < 64 && config.self.value < slots_.size());
  ZZ_ASSERT(config.patience.value > 0 && config.patience_max >= config.patience);
  for (Source& s : sources_) s.patience = config_.patience;
}

// ---- what is wanted

StateFetcher::Key StateFetcher::key_of(const Want& want) {
  return {want.kind == PartKind::kRoot, want.place, want.toward.value};
}

bool StateFetcher::is_path(const Item& item) { return item.urgent && item.want.kind != PartKind::kObject; }

std::uint64_t StateFetcher::weight(const Item& item) { return is_path(item) ? kPathBytesGuess : weight_max(item); }

std::uint64_t StateFetcher::weight_max(const Item& item) {
  if (is_path(item)) return path_bytes_max(item.want.place.depth, item.want.kind == PartKind::kRoot);
  return std::min<std::uint64_t>(item.want.bytes_max, agreement::kStatePartBytesMax);
}

void StateFetcher::begin(Seq n) {
  active_ = true;
  rebase(n);
}

// Whoever waits is told to try again, and so says what is wanted still; a new pass finds the rest.
void StateFetcher::forget_all() {
  stale_due_ = false;
  out_.arrived = out_.arrived || urgent_waiting_ > 0;
  items_.clear();
  urgent_waiting_ = 0;
  urgent_queue_.clear();
  queue_.clear();
  paths_asked_.clear();
  cursor_ = ObjectId{};
  clean_ = true;
}

void StateFetcher::rebase(Seq n) {
  forget_all();
  for (auto& [ticket, request] : requests_) request.outdated = true;
  n_ = n;
  for (Source& s : sources_) {
    s.vain = s.lied;
    s.rest_until = now_;
  }
  quiet_until_ = now_;
  quiet_ = config_.patience;
}

void StateFetcher::want(std::span<const Want> wants) {
  for (const Want& want : wants) {
    if (urgent_waiting_ >= kUrgentMax) return;  // whoever waits will say so again
    if (paths_asked_.contains(want.toward.value)) continue;
    add(want, true);
  }
}

void StateFetcher::add(const Want& want, bool urgent) {
  const auto [it, added] = items_.try_emplace(key_of(want), Item{want, false, 0, 0});
  Item& item = it->second;
  if (urgent && !item.urgent) {
    item.urgent = true;
    ++urgent_waiting_;
    if (item.ticket == 0) urgent_queue_.push_back(it->first);
  } else if (added) {
    queue_.push_front(it->first);
  }
}

void StateFetcher::forget(Items::iterator item) {
  if (item->second.urgent) {
    --urgent_waiting_;
    out_.arrived = true;
  }
  items_.erase(item);
}

// The children that came to be absent with an inner node, before everything else: depth first, little is pending.
void StateFetcher::expand(const state::Place& place) {
  const auto found = store_.missing(ObjectId{place.prefix}, state::kFanout, 1'024);
  for (auto want = found.wants.rbegin(); want != found.wants.rend(); ++want) {
    if (!state::covers(place, want->place.prefix)) continue;
    if (items_.size() >= kItemsMax) return;  // the next pass finds it
    add(*want, false);
  }
}

void StateFetcher::refill() {
  if (queue_.size() >= kStateWantsMax || items_.size() >= kItemsMax) return;
  if (!cursor_) {
    if (!items_.empty()) return;  // most of what a new pass would find is on its way
    cursor_ = ObjectId{};
    clean_ = true;
  }
  const auto found = store_.missing(*cursor_, kStateWantsMax, kVisits);
  cursor_ = found.next;
  clean_ = clean_ && found.wants.empty();
  for (auto want = found.wants.rbegin(); want != found.wants.rend(); ++want) add(*want, false);
  if (cursor_ || !clean_) return;
  active_ = false;
  out_.complete = true;
  queue_.clear();  // what is left was overwritten
  std::erase_if(items_, [](const auto& entry) { return !entry.second.urgent; });
}

// ---- sources

void StateFetcher::node_up(NodeId node) {
  if (node.value >= nodes_.size()) return;
  nodes_[node.value].up = true;
  for (std::uint16_t slot = 0; slot < slots_.size(); ++slot) {
    Source& s = source({node, SlotId{slot}});
    s.vain = s.lied;
    s.rest_until = now_;
  }
}

void StateFetcher::node_down(NodeId node) {
  if (node.value >= nodes_.size()) return;
  nodes_[node.value].up = false;
  for (auto it = requests_.begin(); it != requests_.end();) {
    if (it->second.pair.node != node) {
      ++it;
      continue;
    }
    if (!it->second.late) land(it->second, 0);
    release(it->first, it->second, false);
    it = requests_.erase(it);
  }
}

// Of those with hardly more demerits than the best, the one that has been busy least; of the best alone for what is
// urgent and was asked for in vain. Urgent things go to one that has just brought something, if there is any.
std::optional<StateFetcher::Pair> StateFetcher::choose(bool urgent, std::uint64_t lacking) const {
  struct Candidate {
    Pair pair;
    std::uint32_t demerits;
  };
  std::vector<Candidate> candidates;
  std::uint32_t least = std::numeric_limits<std::uint32_t>::max();
  for (std::uint16_t node = 0; node < nodes_.size(); ++node) {
    if (!nodes_[node].up) continue;
    for (std::uint16_t slot = 0; slot < slots_.size(); ++slot) {
      const Pair pair{NodeId{node}, SlotId{slot}};
      const Source& s = source(pair);
      if (pair.slot == config_.self || s.lied || s.rest_until > now_) continue;
      const std::uint32_t lacks = (lacking >> slot & 1) != 0 ? kLackingDemerits : 0;
      candidates.push_back({pair, s.demerits + nodes_[node].demerits + slots_[slot].demerits + lacks});
      least = std::min(least, candidates.back().demerits);
    }
  }
  const std::uint32_t slack = urgent && lacking != 0 ? 0 : kSlack;
  std::optional<Pair> best;
  std::tuple<bool, std::uint32_t, std::uint64_t> best_rank;
  for (const Candidate& candidate : candidates) {
    const Source& s = source(candidate.pair);
    if (candidate.demerits > least + slack || (!urgent && s.in_flight >= kInFlightEach)) continue;
    const std::uint32_t busy =
        s.in_flight + nodes_[candidate.pair.node.value].in_flight + slots_[candidate.pair.slot.value].in_flight;
    const std::tuple rank{urgent && !s.proven, busy, s.last};
    if (best && rank >= best_rank) continue;
    best = candidate.pair;
    best_rank = rank;
  }
  return best;
}

// Some source may still be asked, now or later.
bool StateFetcher::any_left() const {
  for (std::uint16_t node = 0; node < nodes_.size(); ++node) {
    for (std::uint16_t slot = 0; slot < slots_.size(); ++slot) {
      if (nodes_[node].up && SlotId{slot} != config_.self && !source({NodeId{node}, SlotId{slot}}).lied) {
        return true;
      }
    }
  }
  return false;
}

// Of f+1 nodes one is correct, so f of them cannot make a good slot look empty.
bool StateFetcher::all_in_vain() const {
  const auto up = static_cast<std::size_t>(std::ranges::count_if(nodes_, &Node::up));
  const std::size_t enough = std::min<std::size_t>(config_.f + 1, up);
  if (up == 0) return false;
  for (std::uint16_t slot = 0; slot < slots_.size(); ++slot) {
    if (SlotId{slot} == config_.self) continue;
    std::size_t vain = 0;
    for (std::uint16_t node = 0; node < nodes_.size(); ++node) {
      vain += nodes_[node].up && source({NodeId{node}, SlotId{slot}}).vain ? 1 : 0;
    }
    if (vain < enough) return false;
  }
  return true;
}

void StateFetcher::say_stale() {
  ++stats_.stale;
  out_.stale = true;
  for (Source& s : sources_) s.vain = s.lied = false;
  stale_due_ = true;
  quiet_until_ = Micros{now_.value + quiet_.value};
  if (stats_.parts == parts_at_stale_) quiet_ = Micros{std::min(2 * quiet_.value, config_.patience_max.value)};
  parts_at_stale_ = stats_.parts;
}

void StateFetcher::succeeded(const Pair& pair, bool promptly) {
  Source& s = source(pair);
  s.vain = s.lied;
  s.proven = !s.lied;
  quiet_ = config_.patience;
  if (!promptly) {
    s.demerits = std::min(s.demerits + kSlowDemerits, kDemeritsMax);
    return;
  }
  s.patience = Micros{std::max(s.patience.value / 2, config_.patience.value)};
  for (Party* party :
       {static_cast<Party*>(&s), static_cast<Party*>(&nodes_[pair.node.value]), &slots_[pair.slot.value]}) {
    party->demerits -= std::min(party->demerits, 1u);
  }
}

void StateFetcher::failed(const Pair& pair, std::uint32_t demerits, bool usable) {
  Source& s = source(pair);
  Node& node = nodes_[pair.node.value];
  Party& slot = slots_[pair.slot.value];
  s.demerits = std::min(s.demerits + demerits, kDemeritsMax);
  node.demerits = std::min(node.demerits + 1, kDemeritsMax);
  slot.demerits = std::min(slot.demerits + 1, kDemeritsMax);
  s.proven = false;
  s.vain = true;
  if (!usable) s.rest_until = Micros{now_.value + s.patience.value};
  if (all_in_vain()) say_stale();
}

// It may be slow or gone: nothing is concluded but whom to ask now.
void StateFetcher::hedge(const Pair& pair) {
  ++stats_.hedged;
  Source& s = source(pair);
  Node& node = nodes_[pair.node.value];
  s.proven = false;
  s.demerits = std::min(s.demerits + kSlowDemerits, kDemeritsMax);
  node.demerits = std::min(node.demerits + 1, kDemeritsMax);
}

void StateFetcher::lied(const Pair& pair) {
  ++stats_.lies;
  source(pair).lied = true;
  std::size_t with_slots = 0;
  std::size_t with_nodes = 0;
  for (std::uint16_t slot = 0; slot < slots_.size(); ++slot) {
    with_slots += source({pair.node, SlotId{slot}}).lied ? 1 : 0;
  }
  for (std::uint16_t node = 0; node < nodes_.size(); ++node) {
    with_nodes += source({NodeId{node}, pair.slot}).lied ? 1 : 0;
  }
  const auto give_up = [this](const Pair& other) { source(other).lied = source(other).vain = true; };
  if (with_slots > config_.g) {
    for (std::uint16_t slot = 0; slot < slots_.size(); ++slot) give_up({pair.node, SlotId{slot}});
  }
  if (with_nodes > config_.f) {
    for (std::uint16_t node = 0; node < nodes_.size(); ++node) give_up({NodeId{node}, pair.slot});
  }
  failed(pair, kLieDemerits, false);
}

// ---- asking

void StateFetcher::tick(Micros now) {
  now_ = now;
  constexpr std::int64_t kSecond = 1'000'000;
  const auto passed = static_cast<std::uint64_t>(std::clamp<std::int64_t>(now.value - refilled_at_.value, 0, kSecond));
  const auto more = static_cast<std::int64_t>(config_.bytes_per_second * passed / std::uint64_t{kSecond});
  if (more > 0) {
    const std::uint64_t most = std::max(background_bytes(), config_.bytes_per_second / kQuestionsPerSecond);
    allowance_ = std::min(static_cast<std::int64_t>(most), allowance_ + more);
    refilled_at_ = now;
  }
  expire();
}

void StateFetcher::expire() {
  std::size_t late = 0;
  for (auto& [ticket, request] : requests_) {
    if (request.late) {
      ++late;
      continue;
    }
    if (std::min(request.hedge_at, request.deadline) > now_) continue;
    const bool hedged = request.deadline > now_;
    ++late;
    land(request, 0);
    request.late = true;
    release(ticket, request, hedged);
    if (request.outdated) continue;
    if (hedged) {
      hedge(request.pair);
      continue;
    }
    ++stats_.silent;
    Source& s = source(request.pair);
    s.patience = Micros{std::min(2 * s.patience.value, config_.patience_max.value)};
    failed(request.pair, kVainDemerits, false);
  }
  for (auto it = requests_.begin(); late > kLateMax && it != requests_.end();) {
    if (!it->second.late) {
      ++it;
      continue;
    }
    it = requests_.erase(it);
    --late;
  }
}

StateFetcherOutput StateFetcher::take_output() {
  pump();
  return std::exchange(out_, {});
}

void StateFetcher::pump() {
  if (stale_due_) forget_all();  // what is still wanted may have become less
  if (n_.value == 0 || quiet_until_ > now_) return;
  while (in_flight_[1] < kRequestsMax && ask(urgent_queue_, true)) {
  }
  if (!active_ || held_ || urgent_waiting_ > 0) return;
  refill();
  while (in_flight_[0] < kRequestsMax && in_flight_bytes_ < kInFlightBytesMax && allowance_ > 0 && ask(queue_, false)) {
  }
}

// One question's: at a low rate less, so that one that nobody answers delays little.
std::uint64_t StateFetcher::background_bytes() const {
  return std::clamp<std::uint64_t>(config_.bytes_per_second / kQuestionsPerSecond, agreement::kStatePartBytesMax,
                                   kRequestBytes);
}

// One question. False: nothing is to be asked, or nobody can be now.
bool StateFetcher::ask(std::deque<Key>& queue, bool urgent) {
  const std::uint64_t bytes_max = urgent ? kStateBytesMax : background_bytes();
  std::optional<Pair> pair;
  Request request;
  bool hedges = urgent;
  std::uint64_t filled = 0;
  std::vector<Key> passed_over;
  while (!queue.empty() && passed_over.size() < kLookMax) {
    const auto it = items_.find(queue.front());
    if (it == items_.end() || it->second.urgent != urgent || it->second.ticket != 0) {
      queue.pop_front();
      continue;
    }
    Item& item = it->second;
    if (!pair) {
      pair = choose(urgent, item.lacking);
      if (!pair) break;
    } else if ((item.lacking >> pair->slot.value & 1) != 0) {
      passed_over.push_back(it->first);
      queue.pop_front();
      continue;
    }
    const std::size_t count = request.wants.size() + request.paths.size();
    if (count > 0 && (count == kStateWantsMax || filled + weight(item) > bytes_max)) break;
    filled += weight(item);
    hedges = hedges && item.lacking == 0;
    request.expected = std::min(request.expected + weight_max(item), kStateBytesMax + agreement::kStatePartBytesMax);
    (is_path(item) ? request.paths : request.wants).push_back(item.want);
    item.ticket = ticket_ + 1;
    queue.pop_front();
  }
  queue.insert(queue.begin(), passed_over.begin(), passed_over.end());
  if (!pair) {
    if (!queue.empty() && !any_left() && all_in_vain()) say_stale();
    return false;
  }
  request.pair = *pair;
  request.urgent = urgent;
  send(std::move(request), hedges);
  return true;
}

void StateFetcher::send(Request request, bool hedges) {
  Source& s = source(request.pair);
  FetchState wish{++ticket_, request.pair.slot, n_, {}, {}};
  for (const Want& want : request.wants) wish.wants.push_back(to_message(want));
  for (const Want& path : request.paths) {
    wish.paths.push_back({path.toward.value, path.place.depth, path.kind == PartKind::kRoot});
    paths_asked_.insert(path.toward.value);
  }
  out_.ask.emplace_back(request.pair.node, std::move(wish));
  request.asked_at = now_;
  request.deadline =
      Micros{now_.value + s.patience.value + static_cast<std::int64_t>(request.expected) / kPatienceBytes};
  const Micros usual{now_.value + std::max(config_.hedge.value, kUsualTimes * s.took.value)};
  request.hedge_at = hedges ? usual : request.deadline;
  s.last = ticket_;
  ++s.in_flight;
  ++nodes_[request.pair.node.value].in_flight;
  ++slots_[request.pair.slot.value].in_flight;
  ++in_flight_[request.urgent ? 1 : 0];
  if (!request.urgent) {
    in_flight_bytes_ += request.expected;
    allowance_ -= static_cast<std::int64_t>(request.expected);
  }
  ++stats_.requests;
  requests_.emplace(ticket_, std::move(request));
}

// It is in flight no more; `bytes` came.
void StateFetcher::land(const Request& request, std::uint64_t bytes) {
  --source(request.pair).in_flight;
  --nodes_[request.pair.node.value].in_flight;
  --slots_[request.pair.slot.value].in_flight;
  --in_flight_[request.urgent ? 1 : 0];
  if (request.urgent) {
    for (const Want& path : request.paths) paths_asked_.erase(path.toward.value);
    out_.arrived = true;
    return;
  }
  in_flight_bytes_ -= request.expected;
  allowance_ += static_cast<std::int64_t>(request.expected - std::min(bytes, request.expected));
}

// ---- answers

Refusal StateFetcher::step(NodeId from, const StateParts& answer) {
  const auto it = requests_.find(answer.ticket);
  if (it == requests_.end() || it->second.pair.node != from) return Refusal::kNotWanted;
  const std::uint64_t ticket = it->first;
  const Request request = std::move(it->second);
  requests_.erase(it);
  const Brought brought = take(request, answer);
  stats_.bytes += brought.bytes;
  if (request.urgent) stats_.urgent_bytes += brought.bytes;
  stats_.parts += brought.parts;
  if (!request.late) {
    land(request, brought.bytes);
  } else if (!request.urgent) {
    allowance_ -= static_cast<std::int64_t>(std::min(brought.bytes, request.expected));
  }
  const std::size_t unsettled = release(ticket, request, brought.wrong == Refusal::kNone && !brought.full());
  judge(request, brought, brought.full() ? 0 : unsettled);
  return brought.wrong;
}

// Stops at the first thing that is wrong.
StateFetcher::Brought StateFetcher::take(const Request& request, const StateParts& answer) {
  Brought brought;
  const auto wrong = [&brought](Refusal why) {
    brought.wrong = why;
    return brought;
  };
  std::size_t at = 0;  // wants are answered in order
  for (const agreement::StatePart& message : answer.parts) {
    brought.bytes += message.bytes.size();
    if (brought.bytes > request.expected) return wrong(Refusal::kOversize);
    const std::optional<Part> part = from_message(message);
    if (!part) return wrong(Refusal::kMalformed);
    const auto asked = [&part](const Want& want) { return want.kind == part->kind && want.place == part->place; };
    while (at < request.wants.size() && !asked(request.wants[at])) ++at;
    const Want* const want = at < request.wants.size() ? &request.wants[at++] : nullptr;
    if (want == nullptr &&
        std::ranges::none_of(request.paths, [&part](const Want& path) { return is_on_path(path, *part); })) {
      return wrong(Refusal::kNotWanted);
    }
    const Refusal refusal = store_.supply(*part);
    switch (refusal) {
      case Refusal::kNone:
      case Refusal::kDuplicate:
      case Refusal::kNotWanted:  // not any more
        ++brought.parts;
        if (refusal == Refusal::kNone) brought.fresh += part->bytes.size();
        settle(*part);
        // Who is waited for does not look for what nobody waits for.
        if (refusal == Refusal::kNone && part->kind != PartKind::kObject && active_ && !request.urgent) {
          expand(part->place);
        }
        break;
      default:
        if (want != nullptr ? is_wrong(*want, *part) : !request.outdated) return wrong(refusal);
        break;
    }
  }
  return brought;
}

void StateFetcher::settle(const Part& part) {
  const bool root = part.kind == PartKind::kRoot;
  auto it = items_.lower_bound({root, part.place, 0});
  while (it != items_.end() && it->first.root == root && it->first.place == part.place) forget(it++);
}

std::size_t StateFetcher::release(std::uint64_t ticket, const Request& request, bool answered) {
  std::size_t unsettled = 0;
  for (const auto* const list : {&request.wants, &request.paths}) {
    for (const Want& want : *list) {
      const auto it = items_.find(key_of(want));
      if (it == items_.end() || it->second.ticket != ticket) continue;
      Item& item = it->second;
      item.ticket = 0;
      if (answered) item.lacking |= std::uint64_t{1} << request.pair.slot.value;
      (item.urgent ? urgent_queue_ : queue_).push_front(it->first);
      ++unsettled;
    }
  }
  return unsettled;
}

void StateFetcher::judge(const Request& request, const Brought& brought, std::size_t unsettled) {
  const std::size_t asked = request.wants.size() + request.paths.size();
  if (brought.wrong != Refusal::kNone) {
    lied(request.pair);
  } else if (request.late) {
    ++stats_.late;
    if (Source& s = source(request.pair); brought.parts > 0) s.vain = s.lied;
  } else if (request.outdated) {
    // Another snapshot's: that it is empty says nothing.
  } else if (brought.parts == 0) {
    ++stats_.empty;
    failed(request.pair, kVainDemerits, false);
  } else if (2 * unsettled > asked) {
    ++stats_.partial;
    failed(request.pair, kPartialDemerits, true);
  } else {
    const std::int64_t patience = request.deadline.value - request.asked_at.value;
    const std::int64_t took = now_.value - request.asked_at.value;
    source(request.pair).took = Micros{took};
    succeeded(request.pair, 2 * took <= patience);
  }
}

}  // namespace zz::execution
