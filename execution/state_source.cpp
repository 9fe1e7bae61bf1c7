#include "execution/state_source.hpp"

#include <algorithm>
#include <set>

#include "base/assert.hpp"
#include "execution/state_messages.hpp"

namespace zz::execution {
namespace {

// The parts of one answer: each once, since paths share what is above, and no more than one message holds.
class Parcel {
 public:
  // False: it is full.
  bool add(state::Part part) {
    if (!there_.insert({part.kind, part.place}).second) return true;
    const bool fits = parts_.empty() || bytes_ + part.bytes.size() <= agreement::kStateBytesMax;
    if (!fits || parts_.size() == agreement::kStatePartsMax) return false;
    bytes_ += part.bytes.size();
    parts_.push_back(to_message(std::move(part)));
    return true;
  }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }
  std::vector<agreement::StatePart> take() { return std::move(parts_); }

 private:
  std::set<std::pair<state::PartKind, state::Place>> there_;
  std::uint64_t bytes_ = 0;
  std::vector<agreement::StatePart> parts_;
};

}  // namespace

StateSource::StateSource(const Options& options, state::ObjectStore& store)
    : options_(options), store_(store), waiting_(options.nodes) {}

StateSource::Answer StateSource::refuse(Answer answer, Refusal why) {
  answer.refusal = why;
  answer.parts.parts.clear();
  stats_.refused.add(why);
  return answer;
}

StateSource::Answer StateSource::answer(NodeId from, const agreement::FetchState& wish,
                                        const state::Snapshot& snapshot) {
  Answer answer;
  answer.parts.ticket = wish.ticket;
  if (from.value >= waiting_.size()) return refuse(std::move(answer), Refusal::kUnknownPeer);
  if (wish.source != options_.self) return refuse(std::move(answer), Refusal::kUnknownSlot);
  const std::size_t asked = wish.wants.size() + wish.paths.size();
  if (asked > agreement::kStateWantsMax) return refuse(std::move(answer), Refusal::kMalformed);
  std::uint64_t& waiting = waiting_[from.value];
  if (waiting >= kStateBytesWaiting) return refuse(std::move(answer), Refusal::kQuota);
  waiting += asked * kStateWantCost;

  Parcel parcel;
  bool room = snapshot != nullptr && state::ObjectStore::root(snapshot).has_value();
  for (const agreement::StateWant& item : wish.wants) {
    const std::optional<state::Want> want = from_message(item);
    if (!want) return refuse(std::move(answer), Refusal::kMalformed);
    if (!room) continue;
    if (std::optional<state::Part> part = store_.part(snapshot, *want)) room = parcel.add(std::move(*part));
  }
  for (const agreement::StatePath& path : wish.paths) {
    if (path.below > state::kLeafDepth) return refuse(std::move(answer), Refusal::kMalformed);
    if (!room) continue;
    for (state::Part& part : store_.path(snapshot, {state::ObjectId{path.object}, path.below, path.with_root})) {
      room = room && parcel.add(std::move(part));
    }
  }
  waiting += parcel.bytes();
  stats_.bytes += parcel.bytes();
  answer.parts.parts = parcel.take();
  ++(answer.parts.parts.empty() ? stats_.empty : stats_.answers);
  return answer;
}

void StateSource::sent() { std::fill(waiting_.begin(), waiting_.end(), 0); }

}  // namespace zz::execution
